"""Documents of the gates: the evidence set of a version, and of a version in an environment."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp
from lockgate.gates.messages import EvidenceLine, EvidenceRecorded


class EvidenceState(msgspec.Struct, frozen=True, kw_only=True):
    """The newest evidence; recording again replaces the whole set, so that its digest names one judgement.

    Attributes:
        measured_at: when it was measured: evidence is as old as that, whenever it was recorded.
        measured: the same of every run of the gates, and of every piece of evidence, that was ever recorded here.
    """

    version: str
    package: Digest
    environment: str
    baseline: str | None
    evidence_set: Digest
    lines: tuple[EvidenceLine, ...]
    recorded_at: Micros
    recorded_by: str
    measured_at: Micros
    measured: dict[str, Micros] = {}


def evidence_key(version: str, environment: str = "") -> str:
    return f"{version}#{environment}" if environment else version


def _recorded(body: EvidenceState | None, event: EvidenceRecorded, stamp: Stamp) -> EvidenceState:
    at = stamp.at if event.measured_at is None else event.measured_at
    known = {} if body is None else body.measured
    # What was sent without a run of the gates is as old as it was. A journal tells of evidence more often than of
    # anything else: where all of it is known, what is known is not copied.
    measured = known
    if event.judging or event.measured_at is None:
        # What a run found, or an event of old says, was measured then.
        measured = {**known, **{line.digest: at for line in event.lines}}
        if event.judging:
            measured[event.judging] = at
    else:
        for line in event.lines:
            if line.digest not in known:
                measured = {**{line.digest: at for line in event.lines}, **known}
                break
    return EvidenceState(
        version=event.version,
        package=event.package,
        environment=event.environment,
        baseline=event.baseline,
        evidence_set=event.evidence_set,
        lines=event.lines,
        recorded_at=stamp.at,
        recorded_by=stamp.actor,
        measured_at=at,
        measured=measured,
    )


EVIDENCE = DocumentKind(
    name="evidence",
    type=EvidenceState,
    keys=lambda event: (evidence_key(event.version, event.environment),),
    made_by={EvidenceRecorded: _recorded},
    fold_version=3,
    columns=lambda body: Columns(body.version, "", body.evidence_set),
)
