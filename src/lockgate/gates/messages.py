"""What happens at the gates: they begin to run, and what they found is recorded."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, short
from lockgate.core.messages import Command, Event, Scope
from lockgate.registry.messages import model_scope

Verdict = Literal["pass", "warn", "fail", "error"]
TIMED = frozenset({"latency"})
"""Gates that measure times, which come out differently whenever they run."""


class EvidenceLine1(msgspec.Struct, frozen=True, kw_only=True):
    """A line as it was journaled before it carried figures."""

    gate: str
    metric: str
    slice: str = ""
    verdict: Verdict
    severity: Literal["block", "warn"]
    value: str
    threshold: str
    summary: str
    digest: Digest
    environment: str = ""
    baseline: str | None = None

    @property
    def name(self) -> str:
        return ":".join(part for part in (self.gate, self.metric, self.slice) if part)


class EvidenceLine(EvidenceLine1, frozen=True, kw_only=True):
    """What a decision needs of one piece of evidence; the whole record lies in the blob store at `digest`.

    `environment` and `baseline` are set on relative evidence: about the version *and* what runs there.
    `baseline` is the package digest compared with, empty text when there was no champion.

    Attributes:
        measured: the figure that was held against the limit; for a comparison, the difference to the baseline.
        low, high: its confidence interval, where there is one.
    """

    measured: float | None = None
    low: float | None = None
    high: float | None = None


class StartJudging(Command, frozen=True, kw_only=True, tag="gates.start-judging"):
    """Say that the gates begin to run on a version. What this run finds was measured at the moment at which the hub was
    told of its beginning; the id of this command names it."""

    permission: ClassVar[str] = "gates.record"
    version: str
    environment: str = ""

    def scope(self) -> Scope:
        return model_scope(self.version)


class RecordEvidence(Command, frozen=True, kw_only=True, tag="gates.record-evidence"):
    """Attach evidence to a version. `environment` empty: intrinsic; else relative to what runs there.

    Attributes:
        judging: names the one time that the gates ran and found this; the same however often it is sent. Where names
            are proven, only a run that was begun here (`StartJudging`) makes evidence any younger. Empty when nobody
            says that they ran: then what is known already stays as old as it is.
        began_at: when they began to, by the clock of whoever ran them; makes evidence older, never newer.
    """

    permission: ClassVar[str] = "gates.record"
    version: str
    package: Digest
    environment: str = ""
    baseline: str | None = None
    lines: tuple[EvidenceLine, ...]
    judging: str = ""
    began_at: Micros | None = None

    def scope(self) -> Scope:
        return model_scope(self.version)


class JudgingStarted(Event, frozen=True, kw_only=True, tag="gates.judging-started/1"):
    """The gates begin to run; `judging` names this run of them."""

    version: str
    environment: str
    judging: str

    def summary(self) -> str:
        where = f" for {self.environment}" if self.environment else ""
        return f"the gates begin to run on {self.version}{where}"


class EvidenceRecorded1(Event, frozen=True, kw_only=True, tag="gates.evidence-recorded/1"):
    """Evidence whose lines carry their figures as text only."""

    version: str
    package: Digest
    environment: str
    baseline: str | None
    evidence_set: Digest
    lines: tuple[EvidenceLine1, ...]

    def summary(self) -> str:
        return of_figures(self).summary()


class EvidenceRecorded2(Event, frozen=True, kw_only=True, tag="gates.evidence-recorded/2"):
    """Evidence that counts as old as its record."""

    version: str
    package: Digest
    environment: str
    baseline: str | None
    evidence_set: Digest
    lines: tuple[EvidenceLine, ...]

    def summary(self) -> str:
        return of_its_record(self).summary()


class EvidenceRecorded(Event, frozen=True, kw_only=True, tag="gates.evidence-recorded/3"):
    """Evidence on a version.

    Attributes:
        judging: the run of the gates that found it; empty for evidence that was sent without one, or, where names are
            proven, without one that was begun here.
        measured_at: from when its age counts; None for that of the record.
    """

    version: str
    package: Digest
    environment: str
    baseline: str | None
    evidence_set: Digest
    lines: tuple[EvidenceLine, ...]
    judging: str
    measured_at: Micros | None

    def summary(self) -> str:
        verdicts = [line.verdict for line in self.lines]
        counts = ", ".join(
            f"{verdicts.count(verdict)} {verdict}"
            for verdict in ("pass", "warn", "fail", "error")
            if verdict in verdicts
        )
        where = f" for {self.environment}" if self.environment else ""
        return f"evidence {short(self.evidence_set)} on {self.version}{where}: {counts}"


def of_figures(old: EvidenceRecorded1) -> EvidenceRecorded:
    """The event in today's shape; what its lines measured is not known as a number."""
    return EvidenceRecorded(
        version=old.version,
        package=old.package,
        environment=old.environment,
        baseline=old.baseline,
        evidence_set=old.evidence_set,
        lines=tuple(EvidenceLine(**msgspec.structs.asdict(line)) for line in old.lines),
        judging="",
        measured_at=None,
    )


def of_its_record(old: EvidenceRecorded2) -> EvidenceRecorded:
    """The event in today's shape."""
    return EvidenceRecorded(
        version=old.version,
        package=old.package,
        environment=old.environment,
        baseline=old.baseline,
        evidence_set=old.evidence_set,
        lines=old.lines,
        judging="",
        measured_at=None,
    )
