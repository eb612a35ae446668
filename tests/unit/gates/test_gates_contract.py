"""The data contract as a gate, from reports the data room makes and from reports it should never make."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pytest

from lockgate.adapters.engines.duckdb_tables import DuckDBTables
from lockgate.core.digests import canonical
from lockgate.data.contract import (
    Check,
    ContractColumn,
    ContractReport,
    DataContract,
    Rule,
    Violation,
    check_contract,
)
from lockgate.data.snapshot import columns_of
from lockgate.gates.contract import data_contract
from lockgate.gates.evidence import Subject, explain

CONTRACT = "sha256:" + "d" * 64
SNAPSHOT = "sha256:" + "e" * 64
TABLE = pa.table({"carrier": ["UA", "AA", "ZZ"], "departure_delay": [1.0, -3.0, None]})


def contract(*rules: Rule, columns: tuple[str, ...] = ("carrier", "departure_delay")) -> DataContract:
    return DataContract(
        dataset="main/flights",
        id="flights",
        version="1.0.0",
        status="active",
        columns=tuple(ContractColumn(name=name) for name in columns),
        rules=rules,
    )


def report_on(table: pa.Table, promised: DataContract) -> ContractReport:
    return check_contract(promised, columns_of(table), DuckDBTables(), table)


def check(verdict: Any, message: str = "") -> Check:
    return Check(
        rule="r", column="c", severity="error", verdict=verdict, measured=None, limit="", message=message
    )


def report(*checks: Check, n_rows: int = 10, violations: tuple[Violation, ...] = ()) -> ContractReport:
    return ContractReport(
        dataset="main/flights", contract=CONTRACT, n_rows=n_rows, checks=checks, violations=violations
    )


def test_a_kept_contract_passes() -> None:
    found = report_on(TABLE, contract(Rule(metric="required", columns=("carrier",))))
    evidence = data_contract(found, subject=Subject(inputs={"snapshot": SNAPSHOT}))
    assert (evidence.verdict, evidence.value, evidence.n) == ("pass", 0.0, 3)
    assert evidence.inputs == {"snapshot": SNAPSHOT, "contract": found.contract}
    assert evidence.slice == {"dataset": "main/flights"}


def test_a_renamed_column_fails_and_the_line_says_which() -> None:
    promised = contract(
        Rule(metric="required", columns=("dep_delay",)), columns=("carrier", "departure_delays")
    )
    promised = msgspec.structs.replace(
        promised, rules=(Rule(metric="required", columns=("departure_delays",)),)
    )
    evidence = data_contract(report_on(TABLE, promised))
    assert (evidence.verdict, evidence.reason) == ("fail", "beyond_limit")
    assert explain(evidence) == (
        "fail  data.contract n_violations{dataset=main/flights} 1, limit 0, n=3: "
        "column 'departure_delays' is missing; did you mean 'departure_delay'?"
    )


def test_offending_rows_are_shown() -> None:
    rule = Rule(metric="invalidValues", columns=("carrier",), values=("UA", "AA"))
    evidence = data_contract(report_on(TABLE, contract(rule)))
    assert evidence.verdict == "fail"
    assert "carrier='ZZ'" in evidence.details[0]


def test_a_warning_only_warns() -> None:
    rule = Rule(metric="required", columns=("departure_delay",), severity="warning")
    assert data_contract(report_on(TABLE, contract(rule))).verdict == "warn"


def test_an_unknown_rule_is_an_error_even_beside_a_failure() -> None:
    unknown = Rule(metric="freshness", columns=("carrier",))
    broken = Rule(metric="required", columns=("departure_delay",))
    evidence = data_contract(report_on(TABLE, contract(broken, unknown)))
    assert (evidence.verdict, evidence.reason) == ("error", "not_evaluated")
    assert "freshness" in evidence.details[0]
    assert "freshness" in explain(evidence)


def test_no_rows_is_not_a_pass() -> None:
    evidence = data_contract(report_on(TABLE.slice(0, 0), contract()))
    assert (evidence.verdict, evidence.reason) == ("error", "insufficient_n")


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (report(), "missing_input"),
        (report(check("error", "m")), "not_evaluated"),
        (report(check("pass"), check("error", "m")), "not_evaluated"),
        (report(check("pass"), n_rows=0), "insufficient_n"),
        (
            report(
                check("pass"),
                violations=(Violation(dataset="d", column=None, rule="r", message="m", n_rows=1),),
            ),
            "exception",
        ),
        (None, "exception"),
        ({"violations": []}, "exception"),
    ],
)
def test_reports_that_say_nothing_never_pass(odd: Any, reason: str) -> None:
    evidence = data_contract(odd)
    assert (evidence.verdict, evidence.reason) == ("error", reason)
    assert evidence.details


def test_many_broken_promises_are_counted_and_the_first_are_told() -> None:
    violations = tuple(
        Violation(dataset="main/flights", column="c", rule="r", message=f"m{i}", n_rows=1) for i in range(25)
    )
    evidence = data_contract(report(*(check("fail", v.message) for v in violations), violations=violations))
    assert (evidence.value, len(evidence.details), evidence.details[-1]) == (25.0, 21, "and 5 more")


def test_the_same_report_gives_the_same_bytes() -> None:
    rule = Rule(metric="invalidValues", columns=("carrier",), values=("UA", "AA"))
    one, two = (data_contract(report_on(TABLE, contract(rule))) for _ in range(2))
    assert canonical(one) == canonical(two)
