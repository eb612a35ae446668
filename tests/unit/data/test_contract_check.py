from __future__ import annotations

import datetime
from collections.abc import Mapping

import msgspec
import pyarrow as pa
import pytest

from lockgate.adapters.engines.duckdb_tables import DuckDBTables
from lockgate.data.contract import MASK, Check, ContractReport, check_contract
from lockgate.data.odcs import parse_contract
from lockgate.data.snapshot import columns_of

HEAD = """\
apiVersion: v3.1.0
kind: DataContract
id: flights
version: 1.0.0
status: active
schema:
  - name: flights
    properties:
      - {name: id, logicalType: integer, primaryKey: true}
"""
ENGINE = DuckDBTables()
ZONED = "{logicalType: timestamp, logicalTypeOptions: {timezone: true}}"


class Counting:
    """The engine, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def query(self, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        self.asked.append(sql)
        return ENGINE.query(sql, tables)


def check(contract: str, table: pa.Table, engine: Counting | DuckDBTables = ENGINE) -> ContractReport:
    parsed = parse_contract((HEAD + contract).encode(), where="x.yaml")
    return check_contract(parsed, columns_of(table), engine, table)


def table(**columns: object) -> pa.Table:
    n = len(next(iter(columns.values()))) if columns else 3  # type: ignore[arg-type]
    return pa.table({"id": list(range(n)), **columns})


def verdict_of(report: ContractReport, rule: str) -> Check:
    return next(check for check in report.checks if check.rule == rule)


def test_a_kept_contract_costs_one_aggregate_query() -> None:
    engine = Counting()
    report = check(
        """\
      - name: delay
        logicalType: number
        required: true
        logicalTypeOptions: {minimum: -60, maximum: 2000}
        quality: [{metric: nullValues, mustBe: 0}]
      - name: origin
        logicalType: string
        quality: [{metric: invalidValues, mustBe: 0, arguments: {validValues: [JFK, LGA, EWR]}}]
""",
        table(delay=[1.0, 2.0, 3.0], origin=["JFK", "LGA", None]),
        engine,
    )
    assert report.verdict == "pass"
    assert report.violations == ()
    assert len(engine.asked) == 1
    assert engine.asked[0].count("count_if") == 6


def test_a_renamed_column_is_one_violation_with_the_new_name() -> None:
    report = check(
        "      - {name: dep_delay, logicalType: number, required: true, logicalTypeOptions: {minimum: 0}}\n"
        "      - {name: arr_delay, logicalType: number}\n",
        table(departure_delay=[1.0, 2.0], arr_delay=[1.0, 2.0]),
    )
    assert report.verdict == "error"
    (violation,) = report.violations
    assert violation.message == "column 'dep_delay' is missing; did you mean 'departure_delay'?"
    assert violation.near == ("departure_delay",)
    assert violation.n_rows == 2
    assert [c.verdict for c in report.checks if c.column == "dep_delay"] == ["fail", "error", "error"]


@pytest.mark.parametrize(
    ("promise", "values", "fails"),
    [
        ("{logicalType: string}", pa.array(["a"]), False),
        ("{logicalType: string}", pa.array(["a"]).dictionary_encode(), False),
        ("{logicalType: string}", pa.array([1]), True),
        ("{logicalType: integer}", pa.array([1.0]), True),
        ("{logicalType: number}", pa.array([1]), False),
        ("{logicalType: number}", pa.array(["1"]), True),
        ("{logicalType: boolean}", pa.array([True]), False),
        ("{logicalType: date}", pa.array([datetime.date(2013, 1, 1)]), False),
        ("{logicalType: date}", pa.array([0], pa.timestamp("us")), True),
        ("{logicalType: timestamp}", pa.array([0], pa.timestamp("us")), False),
        (ZONED, pa.array([0], pa.timestamp("us")), True),
        (ZONED, pa.array([0], pa.timestamp("us", "UTC")), False),
        ("{logicalType: array}", pa.array([[1]]), False),
        ("{logicalType: object}", pa.array([{"a": 1}]), False),
    ],
)  # fmt: skip
def test_types_are_held(promise: str, values: pa.Array, fails: bool) -> None:
    report = check(f"      - {{name: x, {promise[1:]}\n", table(x=values))
    assert (report.verdict == "fail") is fails, report.checks


@pytest.mark.parametrize(
    ("promise", "values", "n_bad"),
    [
        ("required: true", [1.0, None, float("nan")], 2),
        ("logicalType: number, logicalTypeOptions: {minimum: 2}", [1.0, 2.0, None, float("nan")], 2),
        ("logicalType: number, logicalTypeOptions: {maximum: 2}", [1.0, 2.0, 2.5, float("inf")], 2),
        ("logicalType: integer, logicalTypeOptions: {exclusiveMinimum: 2}", [1, 2, 3], 2),
        ("logicalType: integer, logicalTypeOptions: {exclusiveMaximum: 2}", [1, 2, 3], 2),
        ("logicalType: integer, logicalTypeOptions: {multipleOf: 5}", [0, 5, -10, 4], 1),
        ("logicalType: number, logicalTypeOptions: {multipleOf: 0.1}", [0.3, 0.7, 0.75], 1),
        ("logicalType: string, logicalTypeOptions: {minLength: 2}", ["éa", "é", "éé", None], 1),
        ("logicalType: string, logicalTypeOptions: {maxLength: 1}", ["é", "éé"], 1),
        ("logicalType: string, logicalTypeOptions: {pattern: \"it's\"}", ["it's", "its"], 1),
        ("logicalType: array, logicalTypeOptions: {uniqueItems: true}", [[1], [2, 2], [1, None]], 1),
        ("logicalType: array, logicalTypeOptions: {minItems: 1, maxItems: 1}", [[1], [], [None]], 1),
        ("unique: true", [1, 1, 1, 2], 2),
        ("unique: true", ["a", "b", "a", None, None], 1),
        ("unique: true", [10**15, 10**15, 1, None, None], 1),
        ("quality: [{metric: missingValues, mustBe: 0, arguments: {missingValues: [~, x]}}]", ["x", None], 2),
        ("quality: [{metric: missingValues, mustBe: 0}]", ["N/A", None, ""], 2),
        ("quality: [{metric: invalidValues, mustBe: 0, arguments: {pattern: A}}]", ["A", "b", None], 1),
        ("quality: [{metric: duplicateValues, mustBe: 0}]", ["a", "a", "b"], 1),
    ],
)  # fmt: skip
def test_bad_rows_are_counted(promise: str, values: list[object], n_bad: int) -> None:
    report = check(f"      - {{name: x, {promise}}}\n", table(x=values))
    assert report.verdict == "fail", report.checks
    (violation,) = report.violations
    assert violation.n_rows == n_bad, violation
    assert violation.column == "x"


@pytest.mark.parametrize(
    ("zone", "minimum", "n_bad"),
    [(None, "2013-01-01T00:00:01", 1), ("UTC", "2013-01-01T01:00:01+01:00", 1), ("UTC", "2013-01-01", 0)],
)
def test_instants_are_compared_in_utc(zone: str | None, minimum: str, n_bad: int) -> None:
    start = 1_356_998_400_000_000
    values = pa.array([start, start + 2_000_000], pa.timestamp("us", zone))
    options = f"logicalTypeOptions: {{minimum: '{minimum}'}}"
    report = check(f"      - {{name: x, logicalType: timestamp, {options}}}\n", table(x=values))
    assert sum(v.n_rows for v in report.violations) == n_bad


def test_examples_show_key_and_culprit_and_mask_what_is_private() -> None:
    contract = """\
      - name: tailnum
        logicalType: string
        classification: confidential
        logicalTypeOptions: {pattern: "^N"}
      - {name: delay, logicalType: number, logicalTypeOptions: {minimum: 0}}
      - {name: seats, logicalType: integer, unique: true}
"""
    rows = table(tailnum=["secret"] * 5, delay=[1.0, -1.0, -2.0, -3.0, -4.0], seats=[1, 1, 2, 3, 3])
    report = check(contract, rows)
    pattern, minimum, unique = report.violations
    assert pattern.examples == tuple({"id": i, "tailnum": MASK} for i in range(3))
    assert minimum.examples == ({"id": 1, "delay": -1.0}, {"id": 2, "delay": -2.0}, {"id": 3, "delay": -3.0})
    assert minimum.message == "delay: 4 of 5 rows are below the minimum 0"
    assert unique.examples == ({"seats": 1}, {"seats": 3})
    assert b"secret" not in msgspec.json.encode(report)


def test_a_private_key_is_masked_in_every_example() -> None:
    rows = pa.table({"id": [7, 7, 8], "x": [1.0, None, 2.0]})
    contract = HEAD.replace("primaryKey: true", "primaryKey: true, tags: [private]")
    parsed = parse_contract((contract + "      - {name: x, required: true}\n").encode(), where="x")
    report = check_contract(parsed, columns_of(rows), ENGINE, rows)
    assert [v.examples for v in report.violations] == [({"id": MASK, "x": None},), ({"id": MASK},)]


def test_shares_thresholds_and_severities() -> None:
    contract = """\
      - name: x
        quality:
          - {metric: nullValues, mustBeLessThan: 50, unit: percent, name: half}
          - {metric: nullValues, mustBeLessOrEqualTo: 20, unit: percent, severity: warning, name: fifth}
          - {metric: nullValues, mustBeBetween: [1, 1.5], name: one}
"""
    report = check(contract, table(x=[1, None, 3, 4]))
    assert [verdict_of(report, name).verdict for name in ("half", "fifth", "one")] == ["pass", "warn", "pass"]
    assert report.verdict == "warn"
    assert verdict_of(report, "fifth").measured == 25.0
    assert "25%" in report.violations[0].message


def test_row_counts_keys_and_sql() -> None:
    contract = """\
      - name: x
        quality: [{type: sql, query: "SELECT max({column}) FROM {table}", mustBeLessThan: 3, name: top}]
    quality:
      - {metric: rowCount, mustBeGreaterThan: 10}
      - {metric: duplicateValues, mustBe: 0, arguments: {properties: [id, x]}, name: pairs}
      - {type: sql, query: "SELECT x FROM ${table}", mustBe: 1, name: many}
      - {type: sql, query: "SELECT 'a'", mustBe: 1, name: word}
      - {type: sql, query: "SELECT * FROM elsewhere", mustBe: 1, name: other}
      - {type: sql, query: "DROP TABLE flights", mustBe: 1, name: drop}
"""
    report = check(contract, pa.table({"id": [1, 1, 2], "x": [4, 4, 5]}))
    verdicts = {check.rule: check.verdict for check in report.checks}
    assert verdicts == {
        "type": "pass", "required": "pass", "top": "fail", "primaryKey": "fail", "rowCount": "fail",
        "pairs": "fail", "many": "error", "word": "error", "other": "error", "drop": "error",
    }  # fmt: skip
    assert next(v for v in report.violations if v.rule == "pairs").n_rows == 1
    assert "elsewhere" in next(v for v in report.violations if v.rule == "other").message


def test_a_rule_the_engine_refuses_is_an_error_and_the_others_are_still_judged() -> None:
    contract = """\
      - {name: x, logicalType: string, logicalTypeOptions: {pattern: "(?=lookahead)"}}
      - {name: y, logicalType: integer, logicalTypeOptions: {minimum: 2}}
      - {name: z, quality: [{type: custom, engine: soda, implementation: check}]}
"""
    report = check(contract, table(x=["a", "b"], y=[1, 2], z=[1, 2]))
    assert verdict_of(report, "pattern").verdict == "error"
    assert verdict_of(report, "minimum").verdict == "fail"
    assert verdict_of(report, "custom").verdict == "error"
    assert report.verdict == "error"
    assert {v.rule for v in report.violations} == {"pattern", "minimum", "custom"}


def test_an_empty_table_breaks_only_what_it_breaks() -> None:
    contract = """\
      - {name: x, logicalType: number, required: true, unique: true}
    quality: [{metric: rowCount, mustBeGreaterThan: 0}]
"""
    report = check(contract, pa.table({"id": pa.array([], pa.int64()), "x": pa.array([], pa.float64())}))
    assert [v.rule for v in report.violations] == ["rowCount"]


def test_the_report_is_a_function_of_its_inputs() -> None:
    contract = "      - {name: x, logicalType: number, required: true}\n"
    one, other = (msgspec.json.encode(check(contract, table(x=[1.0, None]))) for _ in range(2))
    assert one == other


def test_odd_names_are_quoted() -> None:
    parsed = parse_contract((HEAD + "      - {name: 'a \"b', required: true}\n").encode(), where="x")
    rows = pa.table({"id": [1], 'a "b': [None]})
    assert check_contract(parsed, columns_of(rows), ENGINE, rows).violations[0].n_rows == 1
