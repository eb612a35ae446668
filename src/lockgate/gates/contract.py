"""Gate `data.contract`: the data keeps its contract.

The checking itself is done by the data room; this gate turns its report into evidence. A rule that could not be
evaluated makes the gate an error, and so does a report without checks or without rows: a contract that was held
to nothing has not been kept. Only rules that the contract itself calls warnings give `warn`.
"""

from __future__ import annotations

import msgspec

from lockgate.data.contract import ContractReport, Violation
from lockgate.gates.evidence import (
    ANYTHING,
    Evidence,
    MissingInput,
    Subject,
    TooFewRows,
    guarded,
    record,
)
from lockgate.gates.messages import Verdict

_GATE, _METRIC = "data.contract", "n_violations"
_N_SHOWN = 20


def data_contract(report: ContractReport, *, subject: Subject = ANYTHING) -> Evidence:
    """Gate `data.contract`: no promise of the contract is broken, and every one was looked at.

    Args:
        report: from `data.contract.check_contract`.
        subject: its inputs should name the snapshot; the contract's digest is added, and the slice `dataset`.
    Returns:
        One record: `value` broken promises of `n` rows. `warn` when only warnings are broken, `fail` when
        a promise is, `error` when one could not be evaluated or there was nothing to check.
    """

    def judge() -> Evidence:
        about = msgspec.structs.replace(
            subject.of(dataset=report.dataset), inputs={**subject.inputs, "contract": report.contract}
        )
        verdict, reason = _verdict(report)
        return record(
            _GATE,
            _METRIC,
            about,
            n=report.n_rows,
            value=float(len(report.violations)),
            comparator="at_most",
            threshold=0.0,
            verdict=verdict,
            reason=reason,
            details=_details(report, verdict),
        )

    return guarded(_GATE, _METRIC, judge, subject=subject, comparator="at_most", threshold=0.0)


def _verdict(report: ContractReport) -> tuple[Verdict, str | None]:
    if not report.checks:
        raise MissingInput(
            f"the contract of {report.dataset} checks nothing",
            remedy="declare columns or rules in the contract",
        )
    found = {check.verdict for check in report.checks}
    messages = {violation.message for violation in report.violations}
    # A rule about a missing column is not evaluated either, but that fault has been told under the column's
    # name and has no violation of its own: the broken promise is the column, a plain failure.
    unexplained = [c for c in report.checks if c.verdict == "error" and c.message in messages]
    if unexplained or ("error" in found and "fail" not in found):
        return "error", "not_evaluated"
    if "fail" in found:
        return "fail", "beyond_limit"
    if "warn" in found:
        return "warn", "beyond_limit"
    if report.n_rows == 0:
        raise TooFewRows(f"{report.dataset} has no rows", remedy="find out why the extract is empty")
    return "pass", None


def _details(report: ContractReport, verdict: Verdict) -> tuple[str, ...]:
    """Every broken promise in words, the gravest first."""
    gravity = {check.message: check.verdict for check in report.checks}
    order: tuple[Verdict, ...] = ("error", "fail", "warn", "pass")
    ranked = sorted(report.violations, key=lambda item: order.index(gravity.get(item.message, "fail")))
    lines = [_sentence(violation) for violation in ranked[:_N_SHOWN]]
    if len(ranked) > _N_SHOWN:
        lines.append(f"and {len(ranked) - _N_SHOWN:,} more")
    if verdict == "error" and not lines:
        lines = [check.message for check in report.checks if check.verdict == "error"][:_N_SHOWN]
    return tuple(lines) or (f"{len(report.checks):,} checks",)


def _sentence(violation: Violation) -> str:
    if not violation.examples:
        return violation.message
    row = violation.examples[0]
    return f"{violation.message}, for example " + ", ".join(f"{name}={row[name]!r}" for name in row)
