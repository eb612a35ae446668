"""Evidence: one judged measurement, as bytes that anybody can make again.

A piece of evidence says what was measured (`gate`, `metric`, `slice`, `n`, `value`, `ci`), against what
(`baseline`, `threshold`) and what follows (`verdict`, `reason`). Its digest is what approvals are bound to,
so three things hold:

* *Same inputs, same bytes.* No time, host, duration or random number is inside. Sums are exactly rounded
  (`math.fsum`), and every measured figure is kept to twelve significant digits (`kept`), so that another
  processor's logarithm does not make another digest.
* *The verdict follows from the figures.* What was measured is `delta` when there is one, else `value`; it is
  compared with `threshold` as `comparator` says, by the unfavourable bound of `ci` when there is one. A
  `pass` that its own figures contradict cannot be made, nor decoded.
* *What was not measured does not pass.* `guarded` turns every exception, and every answer that is no evidence
  of the gate that was asked, into `error`. Two passes go without a measurement, and say so (`UNMEASURED`):
  `no_baseline`, a comparison that has nothing to compare with, and `not_applicable`, a question that makes no
  sense for the model, for example whether the answers of a model that predicts minutes are calibrated.

Reasons are short codes (`REASONS`); sentences for people are in `details` and made by `explain`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from lockgate.core.digests import Digest, digest_of
from lockgate.core.errors import Bug, Invalid, LockgateError, NotFound, did_you_mean
from lockgate.gates.messages import EvidenceLine, Verdict

Comparator = Literal["at_least", "at_most"]
Severity = Literal["block", "warn"]
Unsettled = Literal["warn", "fail"]
"""What a policy makes of figures that settle nothing: too few rows, or an interval that holds the limit."""

# Gates whose first detail names the culprit; the figures of the others say it already.
_NAMING = (
    *("data.contract", "dossier.complete", "features.compat", "model.infra", "model.parity", "perf.slices"),
    *("privacy.tags", "security.deps", "security.format"),
)
_ORDER: dict[Verdict, int] = {"pass": 0, "warn": 1, "fail": 2, "error": 3}

REASONS: Mapping[str, str] = {
    "no_baseline": "nothing to compare with yet",
    "not_applicable": "does not apply to this model",
    "beyond_limit": "beyond the limit",
    "inconclusive": "inconclusive, the limit lies inside the interval; more rows would settle it",
    "insufficient_n": "too few rows to judge",
    "one_of_many": "beyond the limit, but one of so many slices may look like that by chance",
    "missing_input": "something to judge by is missing",
    "not_evaluated": "a rule could not be evaluated",
    "timeout": "took too long",
    "exception": "the gate did not finish",
}
UNMEASURED = ("no_baseline", "not_applicable")
"""Reasons that go with a pass."""


class GateInputInvalid(Invalid):
    """What a gate was given cannot be judged: wrong shape, NaN, labels that are not 0 or 1."""

    code = "gates.input-invalid"


class TooFewRows(Invalid):
    """No rows at all, or no row of one class; becomes reason `insufficient_n`."""

    code = "gates.too-few-rows"


class MissingInput(Invalid):
    """Something the gate judges by was not there; becomes reason `missing_input`."""

    code = "gates.missing-input"


class EvidenceContradicted(Bug):
    """Evidence whose verdict does not follow from its own figures."""

    code = "gates.evidence-contradicted"


class EvidenceMisquoted(Invalid):
    """What is to be journaled of a piece of evidence is not what its record says."""

    code = "gates.evidence-misquoted"


class UnknownGate(NotFound):
    code = "gates.unknown-gate"


class GateKind(NamedTuple):
    """A line of the gate catalogue.

    Attributes:
        version: raised whenever the same inputs could give another verdict or figure.
        scope: `intrinsic` evidence is about the package alone; `relative` evidence also about an endpoint.
        cost: `fast` gates take seconds and run on every commit, `slow` ones run on a candidate.
        question: what the gate answers, for people.
    """

    id: str
    version: str
    scope: Literal["intrinsic", "relative"]
    cost: Literal["fast", "slow"]
    question: str


GATES: Mapping[str, GateKind] = {
    kind.id: kind
    for kind in (
        GateKind("calibration", "1", "intrinsic", "fast", "do its probabilities mean what they say?"),
        GateKind("data.contract", "1", "intrinsic", "fast", "does the data keep its contract?"),
        GateKind(
            "dossier.complete", "1", "intrinsic", "fast", "is everything written that people must know?"
        ),
        GateKind("features.compat", "1", "relative", "fast", "are its features served as it learned them?"),
        GateKind("latency", "1", "relative", "slow", "does it answer in time?"),
        GateKind("model.infra", "1", "intrinsic", "fast", "does serving repeat the golden predictions?"),
        GateKind("model.parity", "1", "intrinsic", "slow", "do both runtimes compute the same?"),
        GateKind("perf.absolute", "1", "intrinsic", "fast", "is it good enough at all?"),
        GateKind("perf.slices", "1", "relative", "fast", "is it worse for some of the rows?"),
        GateKind("perf.vs_champion", "1", "relative", "fast", "is it no worse than what runs there now?"),
        GateKind("privacy.tags", "1", "intrinsic", "fast", "does personal data reach it for a purpose only?"),
        GateKind("security.deps", "1", "intrinsic", "fast", "has its third-party code no known holes?"),
        GateKind("security.format", "1", "intrinsic", "fast", "does it hold nothing that runs when read?"),
    )
}


def gate_kind(gate: str) -> GateKind:
    """The catalogue's line of a gate. Raises `UnknownGate` with the near matches."""
    if gate not in GATES:
        raise UnknownGate(f"there is no gate {gate!r}", remedy=did_you_mean(gate, GATES), gate=gate)
    return GATES[gate]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A confidence interval, both ends included; `level` is the two-sided coverage."""

    low: float
    high: float
    level: float
    method: str


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared with: `kind` is `champion`, `native` or `golden`; `ref` names it for people."""

    kind: str
    ref: str
    digest: Digest | None = None
    value: float | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a judgement is about; every gate takes one.

    Attributes:
        inputs: content digests by role: `package`, `dataset`, `predictions`, `policy`.
        environment: set on relative evidence.
        slice: the part of the rows that was judged, for example `{"carrier": "UA"}`; empty for all.
        severity: whether a failure blocks or only warns.
    """

    inputs: dict[str, Digest] = {}
    environment: str | None = None
    slice: dict[str, str] = {}
    severity: Severity = "block"

    def of(self, **names: str) -> Subject:
        """The same subject with more slice names."""
        return msgspec.structs.replace(self, slice={**self.slice, **names})


ANYTHING = Subject()


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One record per gate, metric and slice. See the module's text for what it promises.

    Attributes:
        n: rows (or requests, or checks) that were judged; 0 when nothing was.
        value: the figure of the judged package itself; None when it was not measured.
        delta: the difference to the baseline, package minus baseline, in the metric's own direction.
        comparator: how `delta` (or `value` when there is none) is compared with `threshold`.
        ci: interval of whatever is compared.
        details: sentences for people, in a fixed order.

    Raises:
        EvidenceContradicted: the figures are not finite, or contradict the verdict.
    """

    schema: Literal["lockgate.evidence/1"] = "lockgate.evidence/1"
    gate: str
    gate_version: str
    metric: str
    slice: dict[str, str] = {}
    n: int
    value: float | None = None
    baseline: Baseline | None = None
    delta: float | None = None
    comparator: Comparator | None = None
    threshold: float | None = None
    ci: Interval | None = None
    verdict: Verdict
    reason: str | None = None
    severity: Severity = "block"
    environment: str | None = None
    inputs: dict[str, Digest] = {}
    details: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        figures = [self.value, self.delta, self.threshold]
        figures += [self.baseline.value] if self.baseline else []
        figures += [self.ci.low, self.ci.high, self.ci.level] if self.ci else []
        if not all(math.isfinite(figure) for figure in figures if figure is not None):
            raise self._contradicted("a figure is not finite")
        if self.verdict == "pass" and self.reason not in UNMEASURED:
            if self.value is None or self.n < 1:
                raise self._contradicted("it passes, but nothing was measured")
            if self.comparator is None or self.threshold is None:
                raise self._contradicted("it passes, but names no limit")
            if settle(self.measured, self.ci, self.comparator, self.threshold)[0] != "pass":
                raise self._contradicted("it passes, but its figures miss the limit")
        if (self.verdict == "pass") != (self.reason in (None, *UNMEASURED)):
            raise self._contradicted(f"verdict {self.verdict} does not go with reason {self.reason}")

    def _contradicted(self, why: str) -> EvidenceContradicted:
        return EvidenceContradicted(
            f"evidence of {self.gate} {self.metric} contradicts itself: {why}",
            remedy="report this; the gate that made it is wrong",
            gate=self.gate,
            metric=self.metric,
        )

    @property
    def digest(self) -> Digest:
        """Of the canonical bytes, all fields included."""
        return digest_of(self)

    @property
    def measured(self) -> float | None:
        """The figure that is compared with the threshold."""
        return self.value if self.delta is None else self.delta

    @property
    def blocks(self) -> bool:
        return self.severity == "block" and self.verdict in ("fail", "error")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The overall verdict; of nothing at all it is `error`, because a check that did not run never passes."""
    return max(verdicts, key=_ORDER.__getitem__, default="error")


def kept(figure: float) -> float:
    """A measured figure as evidence keeps it: twelve significant digits, no negative zero."""
    return float(f"{figure:.12g}") + 0.0


def interval(low: float, high: float, level: float, method: str) -> Interval:
    return Interval(low=kept(low), high=kept(high), level=kept(level), method=method)


def settle(
    measured: float | None,
    ci: Interval | None,
    comparator: Comparator,
    threshold: float,
    unsettled: Unsettled = "fail",
) -> tuple[Verdict, str | None]:
    """The verdict that follows from the figures, and its reason.

    Pass when the whole interval keeps the limit (meeting it exactly is keeping it), fail when the whole
    interval is beyond it, else `unsettled` with reason `inconclusive`. Without an interval the measured
    figure stands for both ends. With a two-sided interval of coverage 1 - 2a either
    decision errs as often as the interval misses on one side, nominally a.
    """
    if measured is None:
        return "error", "missing_input"
    low, high = (measured, measured) if ci is None else (ci.low, ci.high)
    bad_end, good_end = (low, high) if comparator == "at_least" else (-high, -low)
    limit = threshold if comparator == "at_least" else -threshold
    if bad_end >= limit:
        return "pass", None
    if good_end < limit:
        return "fail", "beyond_limit"
    return unsettled, "inconclusive"


def record(
    gate: str,
    metric: str,
    subject: Subject,
    *,
    n: int,
    value: float | None = None,
    baseline: Baseline | None = None,
    delta: float | None = None,
    comparator: Comparator | None = None,
    threshold: float | None = None,
    ci: Interval | None = None,
    verdict: Verdict,
    reason: str | None = None,
    details: Sequence[str] = (),
    gate_version: str | None = None,
) -> Evidence:
    """Evidence about `subject`; the version of a catalogued gate is filled in."""
    if gate_version is None:
        gate_version = GATES[gate].version if gate in GATES else "0"
    return Evidence(
        gate=gate,
        gate_version=gate_version,
        metric=metric,
        slice=subject.slice,
        n=n,
        value=value,
        baseline=baseline,
        delta=delta,
        comparator=comparator,
        threshold=threshold,
        ci=ci,
        verdict=verdict,
        reason=reason,
        severity=subject.severity,
        environment=subject.environment,
        inputs=subject.inputs,
        details=tuple(details),
    )


def not_applicable(gate: str, metric: str, why: str, *, subject: Subject = ANYTHING) -> Evidence:
    """The pass of a gate whose question makes no sense for the model; `why` is a sentence for people."""
    return record(gate, metric, subject, n=0, verdict="pass", reason="not_applicable", details=(why,))


def guarded(
    gate: str,
    metric: str,
    fn: Callable[[], Evidence],
    *,
    subject: Subject = ANYTHING,
    gate_version: str | None = None,
    comparator: Comparator | None = None,
    threshold: float | None = None,
    baseline: Baseline | None = None,
) -> Evidence:
    """What `fn` finds, or `error` evidence when it raises or returns no evidence of this gate and metric.

    The keywords fill the `error` evidence, so that it still says what was to be judged. Never raises;
    KeyboardInterrupt and SystemExit pass through.
    """
    return guarded_all(
        gate,
        metric,
        lambda: (fn(),),
        subject=subject,
        gate_version=gate_version,
        comparator=comparator,
        threshold=threshold,
        baseline=baseline,
        one_metric=True,
    )[0]


def guarded_all(
    gate: str,
    metric: str,
    fn: Callable[[], Sequence[Evidence]],
    *,
    subject: Subject = ANYTHING,
    gate_version: str | None = None,
    comparator: Comparator | None = None,
    threshold: float | None = None,
    baseline: Baseline | None = None,
    one_metric: bool = False,
) -> tuple[Evidence, ...]:
    """`guarded` for a gate with several records; an empty answer is an error too. Never empty.

    `metric` names the record that stands for all of them when there is an error.
    """
    try:
        found = tuple(fn())
        reason, details = "exception", _strangeness(gate, metric if one_metric else None, found)
    except Exception as error:  # noqa: BLE001 - whatever a gate dies of must block, not vanish
        found, reason, details = (), _reason_of(error), _told(error)
    if not details:
        return found
    finite = threshold is not None and math.isfinite(threshold)
    return (
        record(
            gate,
            metric,
            subject,
            n=0,
            baseline=baseline,
            comparator=comparator,
            threshold=threshold if finite else None,
            verdict="error",
            reason=reason,
            details=details,
            gate_version=gate_version,
        ),
    )


def _strangeness(gate: str, metric: str | None, found: Sequence[object]) -> tuple[str, ...]:
    """Why `found` is no answer of this gate; empty when it is one."""
    if not found:
        return ("the gate returned no evidence",)
    for item in found:
        if not isinstance(item, Evidence):
            return (f"the gate returned {type(item).__name__} where evidence was expected",)
        if item.gate != gate:
            return (f"the gate returned evidence of {item.gate}",)
        if metric is not None and item.metric != metric:
            return (f"the gate returned evidence about {item.metric}",)
    return ()


def _reason_of(error: Exception) -> str:
    if isinstance(error, TooFewRows):
        return "insufficient_n"
    if isinstance(error, MissingInput):
        return "missing_input"
    return "timeout" if isinstance(error, TimeoutError) else "exception"


def _told(error: Exception) -> tuple[str, ...]:
    """The error in words; object addresses are blotted out, they would change the digest run by run."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception that cannot be printed is still an exception
        message = "(no readable message)"
    message = re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", " ".join(message.split()))[:500]
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return (said, error.remedy) if isinstance(error, LockgateError) else (said,)


def explain(evidence: Evidence) -> str:
    """One line for an approver: verdict, gate, metric, measured, interval, baseline, limit, rows, why.

    Example:
        fail  perf.vs_champion auc -0.0123 [-0.0150, -0.0096] against 1.1.0, limit -0.0050, n=52,341
    """
    write = _writer(evidence)
    parts = [f"{evidence.verdict:<5}", evidence.gate, evidence.metric + _slice_text(evidence.slice, "{", "}")]
    measured = evidence.measured
    if measured is None:
        parts.append("not compared" if evidence.reason == "no_baseline" else "not measured")
    else:
        parts.append(write(measured))
    if evidence.ci is not None:
        parts.append(f"[{write(evidence.ci.low)}, {write(evidence.ci.high)}]")
    if evidence.baseline is not None:
        parts.append(f"against {evidence.baseline.ref}")
    line = " ".join(parts)
    if evidence.threshold is not None:
        line += f", limit {write(evidence.threshold)}"
    if evidence.n > 0:
        line += f", n={evidence.n:,}"
    why = _why(evidence)
    return f"{line}: {why}" if why else line


def _why(evidence: Evidence) -> str:
    if evidence.reason is None:
        return ""
    if evidence.reason == "beyond_limit":
        return evidence.details[0] if evidence.gate in _NAMING and evidence.details else ""
    why = REASONS.get(evidence.reason, evidence.reason)
    if evidence.details and (evidence.verdict == "error" or evidence.reason == "not_applicable"):
        return f"{why}: {evidence.details[0]}"
    if evidence.details and evidence.reason == "insufficient_n":
        return f"{why}: {evidence.details[-1]}"
    return why


def _slice_text(names: Mapping[str, str], before: str = "", after: str = "") -> str:
    text = ",".join(f"{name}={names[name]}" for name in sorted(names))
    return f"{before}{text}{after}" if text else ""


def _writer(evidence: Evidence) -> Callable[[float], str]:
    """How this record's figures are written: all alike, and never rounded onto the limit."""
    sign = "" if evidence.delta is None else "+"
    if evidence.metric.startswith("n_") or evidence.metric.endswith("_us"):
        return lambda figure: f"{figure:{sign},.0f}" if figure == int(figure) else f"{figure:{sign},.1f}"
    limit = evidence.threshold
    measured = evidence.measured or 0.0
    if limit is not None and abs(limit) < 1e-4 and (limit != 0 or 0 < abs(measured) < 1e-4):
        return lambda figure: f"{figure:{sign}.2e}" if figure else "0"
    figures = [evidence.measured, evidence.ci.low, evidence.ci.high] if evidence.ci else [evidence.measured]
    apart = [figure for figure in figures if figure is not None and figure != limit]
    digits = 4
    while (
        digits < 9
        and limit is not None
        and any(f"{figure:.{digits}f}" == f"{limit:.{digits}f}" for figure in apart)
    ):
        digits += 1
    return lambda figure: f"{figure:{sign if figure else ''},.{digits}f}"


def check_line(line: EvidenceLine, record: bytes, package: Digest) -> None:
    """Hold a line that is about to be journaled for `package` against the record it stands for.

    Raises:
        EvidenceMisquoted: the record is no evidence, says something else than the line, or is about other bytes.
    """
    try:
        evidence = msgspec.json.decode(record, type=Evidence)
    except (msgspec.MsgspecError, LockgateError) as error:
        raise _misquoted(line, f"the record is no evidence: {error}") from error
    if line_of(evidence) != line:
        raise _misquoted(line, "the record says something else")
    if evidence.inputs.get("package") != package:
        raise _misquoted(line, f"the record is not about package {package}")


def _misquoted(line: EvidenceLine, why: str) -> EvidenceMisquoted:
    return EvidenceMisquoted(
        f"evidence {line.digest} of {line.name} is misquoted: {why}",
        remedy="record what the gates wrote: lockgate judge",
        evidence=line.digest,
        gate=line.gate,
    )


def line_of(evidence: Evidence) -> EvidenceLine:
    """What the journal keeps of a piece of evidence; the record itself belongs in the blob store."""
    write = _writer(evidence)
    if evidence.reason == "no_baseline":
        baseline: Digest | None = ""
    else:
        baseline = evidence.baseline.digest if evidence.baseline and evidence.environment else None
    return EvidenceLine(
        gate=evidence.gate,
        metric=evidence.metric,
        slice=_slice_text(evidence.slice),
        verdict=evidence.verdict,
        severity=evidence.severity,
        value="" if evidence.measured is None else write(evidence.measured),
        threshold="" if evidence.threshold is None else write(evidence.threshold),
        summary=explain(evidence),
        digest=evidence.digest,
        environment=evidence.environment or "",
        baseline=baseline,
        measured=evidence.measured,
        low=evidence.ci.low if evidence.ci else None,
        high=evidence.ci.high if evidence.ci else None,
    )
