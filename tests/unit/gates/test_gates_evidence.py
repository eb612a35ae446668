"""Evidence: its bytes, its self-check, the guard, and the line an approver reads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.core.digests import canonical, digest_of
from lockgate.core.errors import Invalid
from lockgate.gates.evidence import (
    GATES,
    REASONS,
    Baseline,
    Evidence,
    EvidenceContradicted,
    EvidenceMisquoted,
    Interval,
    Subject,
    UnknownGate,
    check_line,
    explain,
    gate_kind,
    guarded,
    guarded_all,
    kept,
    line_of,
    not_applicable,
    record,
    settle,
    worst,
)

PACKAGE = "sha256:" + "a" * 64
CHAMPION = "sha256:" + "b" * 64


def comparison(**changes: Any) -> Evidence:
    fields: dict[str, Any] = {
        "n": 52_341,
        "value": 0.7011,
        "baseline": Baseline(kind="champion", ref="1.1.0", digest=CHAMPION, value=0.7134),
        "delta": -0.0123,
        "comparator": "at_least",
        "threshold": -0.005,
        "ci": Interval(low=-0.015, high=-0.0096, level=0.9, method="delong_paired"),
        "verdict": "fail",
        "reason": "beyond_limit",
    }
    subject = Subject(inputs={"package": PACKAGE}, environment="prod")
    return record("perf.vs_champion", "auc", subject, **{**fields, **changes})


def test_the_same_figures_give_the_same_bytes_and_no_time_is_in_them() -> None:
    assert canonical(comparison()) == canonical(comparison())
    assert comparison().digest == digest_of(comparison())
    assert b"_at" not in canonical(comparison()).replace(b"at_least", b"")
    assert comparison(n=52_342).digest != comparison().digest


def test_evidence_survives_its_own_bytes() -> None:
    evidence = comparison()
    assert msgspec.json.decode(canonical(evidence), type=Evidence) == evidence


def test_mapping_order_does_not_change_the_digest() -> None:
    one = record("x", "m", Subject(inputs={"a": "1", "b": "2"}), n=0, verdict="error", reason="timeout")
    two = record("x", "m", Subject(inputs={"b": "2", "a": "1"}), n=0, verdict="error", reason="timeout")
    assert one.digest == two.digest


def test_a_line_is_held_against_its_record() -> None:
    package = digest_of("package")
    evidence = msgspec.structs.replace(comparison(), inputs={"package": package})
    line = line_of(evidence)
    check_line(line, canonical(evidence), package)
    with pytest.raises(EvidenceMisquoted, match="says something else"):
        check_line(msgspec.structs.replace(line, verdict="warn"), canonical(evidence), package)
    with pytest.raises(EvidenceMisquoted, match="no evidence"):
        check_line(line, b"{}", package)
    with pytest.raises(EvidenceMisquoted, match="not about package"):
        check_line(line, canonical(evidence), digest_of("another"))


def test_worst_of_nothing_is_an_error() -> None:
    assert worst(["pass", "warn", "pass"]) == "warn"
    assert worst(["fail", "error", "pass"]) == "error"
    assert worst(["pass"]) == "pass"
    assert worst([]) == "error"


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "pass", "reason": None},
        {"verdict": "pass", "reason": "beyond_limit"},
        {"verdict": "pass", "reason": None, "value": None, "delta": None, "ci": None},
        {"verdict": "pass", "reason": None, "n": 0},
        {"verdict": "pass", "reason": None, "threshold": None},
        {"verdict": "pass", "reason": None, "comparator": None},
        {"verdict": "fail", "reason": None},
        {"verdict": "error", "reason": None},
        {"verdict": "fail", "reason": "no_baseline"},
        {"verdict": "fail", "reason": "not_applicable"},
        {"verdict": "pass", "reason": "one_of_many"},
        {"value": float("nan")},
        {"delta": float("inf")},
        {"ci": Interval(low=float("-inf"), high=0.0, level=0.9, method="none")},
    ],
)
def test_evidence_that_contradicts_itself_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceContradicted):
        comparison(**changes)


def test_a_verdict_edited_in_the_bytes_does_not_decode() -> None:
    edited = canonical(comparison()).replace(b'"fail","reason":"beyond_limit"', b'"pass","reason":null')
    assert edited != canonical(comparison())
    with pytest.raises(EvidenceContradicted, match="miss the limit"):
        msgspec.json.decode(edited, type=Evidence)


@pytest.mark.parametrize(
    ("low", "high", "comparator", "verdict", "reason"),
    [
        (0.70, 0.75, "at_least", "pass", None),
        (0.71, 0.75, "at_least", "pass", None),
        (0.65, 0.75, "at_least", "warn", "inconclusive"),
        (0.65, 0.70, "at_least", "warn", "inconclusive"),
        (0.65, 0.69, "at_least", "fail", "beyond_limit"),
        (0.65, 0.70, "at_most", "pass", None),
        (0.70, 0.75, "at_most", "warn", "inconclusive"),
        (0.71, 0.75, "at_most", "fail", "beyond_limit"),
    ],
)
def test_the_whole_interval_decides(
    low: float, high: float, comparator: Any, verdict: str, reason: str
) -> None:
    ci = Interval(low=low, high=high, level=0.9, method="any")
    assert settle((low + high) / 2, ci, comparator, 0.70, "warn") == (verdict, reason)


def test_without_an_interval_the_figure_stands_for_both_ends() -> None:
    assert settle(0.0, None, "at_most", 0.0) == ("pass", None)
    assert settle(1e-9, None, "at_most", 0.0) == ("fail", "beyond_limit")
    assert settle(None, None, "at_most", 0.0) == ("error", "missing_input")


def test_only_blocking_severity_blocks() -> None:
    assert comparison().blocks
    mild = msgspec.structs.replace(comparison(), severity="warn")
    assert not mild.blocks
    assert mild.verdict == "fail"


def test_kept_figures() -> None:
    assert kept(0.1 + 0.2) == 0.3
    assert str(kept(-0.0)) == "0.0"
    assert kept(1234567.5) == 1234567.5


def test_the_catalogue_names_its_gates() -> None:
    assert all(GATES[name].id == name for name in GATES)
    with pytest.raises(UnknownGate) as raised:
        gate_kind("perf.vs_campion")
    assert "'perf.vs_champion'" in raised.value.remedy


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Careful(Invalid):
    code = "test.careful"


def raising(error: Exception) -> Any:
    def run() -> Evidence:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (ValueError("bad\n  shape"), "exception", "ValueError: bad shape"),
        (ZeroDivisionError(), "exception", "ZeroDivisionError"),
        (MemoryError("no room"), "exception", "MemoryError: no room"),
        (AssertionError(), "exception", "AssertionError"),
        (TimeoutError("60 s"), "timeout", "TimeoutError: 60 s"),
        (Unprintable(), "exception", "Unprintable: (no readable message)"),
        (RuntimeError("<Model at 0x7f3a9c01d2e0>"), "exception", "RuntimeError: <Model at 0x...>"),
    ],
)
def test_an_exception_becomes_an_error(error: Exception, reason: str, said: str) -> None:
    evidence = guarded("perf.absolute", "auc", raising(error), threshold=0.7)
    assert (evidence.verdict, evidence.reason, evidence.details) == ("error", reason, (said,))
    assert evidence.value is None
    assert evidence.blocks
    assert said in explain(evidence)


def test_a_remedy_is_kept() -> None:
    evidence = guarded("x", "m", raising(Careful("the rows are wrong", remedy="give other rows")))
    assert evidence.details == ("Careful: the rows are wrong", "give other rows")


@pytest.mark.parametrize("answer", [None, True, "pass", {"verdict": "pass"}, ()])
def test_an_answer_that_is_no_evidence_is_an_error(answer: Any) -> None:
    evidence = guarded("perf.vs_champion", "auc", lambda: answer)
    assert evidence.verdict == "error"
    assert "evidence was expected" in evidence.details[0]


def test_evidence_of_another_gate_or_metric_is_an_error() -> None:
    good = comparison(delta=0.01, ci=None, verdict="pass", reason=None)
    assert guarded("perf.vs_champion", "auc", lambda: good) is good
    assert guarded("perf.absolute", "auc", lambda: good).verdict == "error"
    assert guarded("perf.vs_champion", "brier", lambda: good).verdict == "error"
    assert guarded_all("perf.vs_champion", "brier", lambda: [good]) == (good,)


def test_a_gate_that_returns_nothing_is_an_error() -> None:
    (evidence,) = guarded_all("perf.slices", "auc", list)
    assert (evidence.verdict, evidence.details) == ("error", ("the gate returned no evidence",))


def test_the_guard_survives_a_limit_that_is_no_number() -> None:
    assert guarded("x", "m", raising(ValueError("no")), threshold=float("nan")).threshold is None


def test_keyboard_interrupt_passes_through_the_guard() -> None:
    def run() -> Evidence:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded("x", "m", run)


def test_the_line_of_a_failed_comparison() -> None:
    assert (
        explain(comparison())
        == "fail  perf.vs_champion auc -0.0123 [-0.0150, -0.0096] against 1.1.0, limit -0.0050, n=52,341"
    )


def test_the_line_of_an_inconclusive_comparison() -> None:
    ci = Interval(low=-0.006, high=0.0036, level=0.9, method="delong_paired")
    line = explain(comparison(delta=-0.0012, ci=ci, verdict="warn", reason="inconclusive", n=2_000))
    assert line == (
        "warn  perf.vs_champion auc -0.0012 [-0.0060, +0.0036] against 1.1.0, limit -0.0050, n=2,000: "
        + REASONS["inconclusive"]
    )


def test_the_line_of_a_first_release() -> None:
    evidence = record("perf.vs_champion", "auc", Subject(), n=0, verdict="pass", reason="no_baseline")
    assert explain(evidence) == "pass  perf.vs_champion auc not compared: nothing to compare with yet"


def test_the_line_of_a_gate_that_does_not_apply_says_why() -> None:
    evidence = not_applicable("calibration", "gap", "minutes is a value, not a probability")
    assert (evidence.verdict, evidence.reason, evidence.blocks) == ("pass", "not_applicable", False)
    assert explain(evidence) == (
        "pass  calibration gap not measured: does not apply to this model: minutes is a value, not a probability"
    )
    # It was compared with nothing, so it does not depend on what runs.
    assert line_of(evidence).baseline is None


def test_the_line_of_an_error_names_the_exception() -> None:
    evidence = guarded("perf.absolute", "auc", raising(KeyError("dep_delay")), threshold=0.7)
    assert explain(evidence) == (
        "error perf.absolute auc not measured, limit 0.7000: the gate did not finish: KeyError: 'dep_delay'"
    )


def test_figures_are_never_rounded_onto_the_limit() -> None:
    ci = Interval(low=-0.0050004, high=-0.0050001, level=0.9, method="delong_paired")
    line = explain(comparison(delta=-0.0050002, ci=ci))
    assert "-0.0050002 [-0.0050004, -0.0050001] against 1.1.0, limit -0.0050000" in line


def test_slices_are_named_in_the_line() -> None:
    subject = Subject(slice={"origin": "EWR", "carrier": "UA"})
    evidence = record("perf.slices", "auc", subject, n=0, verdict="error", reason="insufficient_n")
    assert explain(evidence).startswith("error perf.slices auc{carrier=UA,origin=EWR} not measured")


def test_the_journal_line() -> None:
    line = line_of(comparison())
    assert (line.gate, line.metric, line.value, line.threshold) == (
        "perf.vs_champion",
        "auc",
        "-0.0123",
        "-0.0050",
    )
    assert (line.environment, line.baseline, line.digest) == ("prod", CHAMPION, comparison().digest)
    assert line.summary == explain(comparison())
    first = record(
        "perf.vs_champion", "auc", Subject(environment="prod"), n=0, verdict="pass", reason="no_baseline"
    )
    assert line_of(first).baseline == ""
    intrinsic = record("perf.absolute", "auc", Subject(), n=0, verdict="error", reason="exception")
    assert line_of(intrinsic).baseline is None
