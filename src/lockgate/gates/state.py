"""Documents of the gates: the evidence set of a version, and of a version in an environment; runs that were begun."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp
from lockgate.gates.messages import EvidenceLine, EvidenceRecorded, JudgingStarted


class EvidenceState(msgspec.Struct, frozen=True, kw_only=True):
    """The newest evidence; recording again replaces the whole set, so that its digest names one judgement.

    Attributes:
        measured_at: when it was measured: evidence is as old as that, whenever it was recorded.
        measured: the same of runs of the gates, and of pieces of evidence, that were recorded here: of some hundreds,
            the newest. Whoever judges each night for years makes this document no longer.
        judging: the run of the gates that found it; empty when it came without one.
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
    judging: str = ""


_MAX_MEASURED = 1024
"""Pieces and runs whose time is kept. Where names are proven, what is no longer known counts as old as its version."""


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
        measured=_newest(measured),
        judging=event.judging,
    )


def _newest(measured: dict[str, Micros]) -> dict[str, Micros]:
    """Cut to one half when it has become too long, so that few events pay for it."""
    if len(measured) <= _MAX_MEASURED:
        return measured
    by_age = sorted(measured.items(), key=lambda item: (item[1], item[0]))
    return dict(by_age[-_MAX_MEASURED // 2 :])


EVIDENCE = DocumentKind(
    name="evidence",
    type=EvidenceState,
    keys=lambda event: (evidence_key(event.version, event.environment),),
    made_by={EvidenceRecorded: _recorded},
    fold_version=5,
    columns=lambda body: Columns(body.version, "", body.evidence_set),
)


class JudgingState(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the gates, as it was begun: on what, by whom, and when by the clock of the hub."""

    judging: str
    version: str
    environment: str
    started_at: Micros
    started_by: str


def _judging_started(body: JudgingState | None, event: JudgingStarted, stamp: Stamp) -> JudgingState:
    return JudgingState(
        judging=event.judging,
        version=event.version,
        environment=event.environment,
        started_at=stamp.at,
        started_by=stamp.actor,
    )


JUDGING = DocumentKind(
    name="judging",
    type=JudgingState,
    keys=lambda event: (event.judging,),
    made_by={JudgingStarted: _judging_started},
    columns=lambda body: Columns(body.version, body.environment, ""),
)
