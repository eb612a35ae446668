"""The journal's half of a dossier. Apart from the document itself, because whoever only reads the journal must not load
what opens packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lockgate.data.state import SNAPSHOT
from lockgate.delivery.state import ENDPOINT, ENVIRONMENT
from lockgate.gates.state import EVIDENCE, EvidenceState, evidence_key
from lockgate.governance.state import APPROVAL, BREAK_GLASS, POLICY, RELEASE_PLAN, SIGN_OFF, WAIVER
from lockgate.hub.messages import DossierFacts, EvidenceHead, VersionAnswer
from lockgate.pipeline.state import RUN
from lockgate.registry.decide import model_of
from lockgate.registry.state import TRACE


def dossier_facts(
    explained: VersionAnswer, get: Callable[[Any, str], Any], every: Callable[..., Sequence[Any]]
) -> DossierFacts:
    """What the journal knows of a version, beside what `explain` tells.

    Args:
        get: one document by kind and key; `every` all of a kind by prefix or parent.
    """
    version = explained.version
    run = get(RUN, version.run)
    environments = [""] + [step.environment for step in every(ENVIRONMENT)]
    records: list[EvidenceState] = [
        found
        for name in environments
        if (found := get(EVIDENCE, evidence_key(version.version, name))) is not None
    ]
    snapshots = [get(SNAPSHOT, one) for one in sorted(run.snapshots.values())] if run is not None else []
    endpoints = [get(ENDPOINT, f"{name}/{version.model}") for name in environments if name]
    return DossierFacts(
        explained=explained,
        evidence=tuple(
            EvidenceHead(
                environment=one.environment,
                evidence_set=one.evidence_set,
                recorded_at=one.recorded_at,
                recorded_by=one.recorded_by,
                measured_at=one.measured_at,
            )
            for one in records
        ),
        snapshots=tuple(one for one in snapshots if one is not None),
        run=run,
        trace=get(TRACE, version.version),
        objections={
            one.environment: one.objections
            for one in every(APPROVAL, version.version + "#")
            if one.objections
        },
        plans=tuple(every(RELEASE_PLAN, version.version + "#")),
        sign_offs=tuple(every(SIGN_OFF, version.version + "#")),
        waivers=tuple(every(WAIVER, version.model + "#")),
        break_glass=tuple(every(BREAK_GLASS, version.model + "#")),
        endpoints=tuple(one for one in endpoints if one is not None),
        policy=get(POLICY, model_of(version.version).namespace),
    )
