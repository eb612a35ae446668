"""Documents of the gates: the evidence set of a version, and of a version in an environment."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp
from lockgate.gates.messages import EvidenceLine, EvidenceRecorded


class EvidenceState(msgspec.Struct, frozen=True, kw_only=True):
    """The newest evidence; recording again replaces the whole set, so that its digest names one judgement."""

    version: str
    package: Digest
    environment: str
    baseline: str | None
    evidence_set: Digest
    lines: tuple[EvidenceLine, ...]
    recorded_at: Micros
    recorded_by: str


def evidence_key(version: str, environment: str = "") -> str:
    return f"{version}#{environment}" if environment else version


def _recorded(body: EvidenceState | None, event: EvidenceRecorded, stamp: Stamp) -> EvidenceState:
    return EvidenceState(
        version=event.version,
        package=event.package,
        environment=event.environment,
        baseline=event.baseline,
        evidence_set=event.evidence_set,
        lines=event.lines,
        recorded_at=stamp.at,
        recorded_by=stamp.actor,
    )


EVIDENCE = DocumentKind(
    name="evidence",
    type=EvidenceState,
    keys=lambda event: (evidence_key(event.version, event.environment),),
    made_by={EvidenceRecorded: _recorded},
    fold_version=2,
    columns=lambda body: Columns(body.version, "", body.evidence_set),
)
