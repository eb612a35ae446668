from __future__ import annotations

import pytest

from lockgate.data.contract import Comparison, DataContract
from lockgate.data.odcs import ContractInvalid, parse_contract

HEAD = """\
apiVersion: v3.1.0
kind: DataContract
id: flights
version: 1.0.0
status: active
schema:
  - name: flights
    properties:
"""


def parse(properties: str, *, tail: str = "", head: str = HEAD) -> DataContract:
    return parse_contract((head + properties + tail).encode(), where="flights.odcs.yaml")


def refused(properties: str, *, tail: str = "", head: str = HEAD) -> ContractInvalid:
    with pytest.raises(ContractInvalid) as caught:
        parse(properties, tail=tail, head=head)
    return caught.value


def test_a_contract_keeps_what_it_needs() -> None:
    contract = parse(
        """\
      - name: flight
        physicalName: flight_id
        logicalType: integer
        primaryKey: true
        primaryKeyPosition: 2
      - name: day
        logicalType: date
        primaryKey: true
        primaryKeyPosition: 1
        logicalTypeOptions: {minimum: 2013-01-01}
      - name: tailnum
        logicalType: string
        unique: true
        tags: [pii]
        customProperties:
          - {property: lockgate.entityKey, value: true}
          - {property: lockgate.purpose, value: delay prediction}
          - {property: someTool.thing, value: 1}
        logicalTypeOptions: {pattern: "^N", maxLength: 6}
        quality:
          - {metric: nullValues, mustBeLessThan: 2, unit: percent, severity: warning, name: few nulls}
          - {type: text, description: looks nice}
      - name: late
        logicalType: boolean
        customProperties: [{property: lockgate.label, value: true}]
""",
        tail="""\
    quality:
      - {metric: rowCount, mustBeBetween: [1, 10]}
      - {type: sql, query: "SELECT count(*) FROM {table}", mustBeGreaterThan: 0}
""",
    )
    assert contract.dataset == "main/flights"
    assert contract.primary_key == ("day", "flight_id")
    assert contract.entity_key == ("tailnum",)
    assert contract.label == "late"
    tailnum = contract.columns[2]
    assert tailnum.private
    assert tailnum.purposes == ("delay prediction",)
    by_metric = {rule.metric: rule for rule in contract.rules}
    assert list(by_metric) == [
        "required", "minimum", "unique", "pattern", "maxLength", "nullValues", "primaryKey", "rowCount", "sql"
    ]  # fmt: skip
    assert by_metric["minimum"].value == "2013-01-01"
    assert by_metric["nullValues"].comparison == Comparison("<", 2)
    assert by_metric["nullValues"].unit == "percent"
    assert by_metric["rowCount"].comparison == Comparison("between", 1, 10)


def test_prose_layout_and_comments_do_not_change_the_digest() -> None:
    one = parse("      - name: a\n        logicalType: string\n")
    other = parse("      # a comment\n      - {logicalType: string, name: a, description: words}\n")
    assert one.digest == other.digest
    assert parse("      - name: a\n        logicalType: integer\n").digest != one.digest


def test_the_message_names_file_line_and_path() -> None:
    error = refused("      - name: a\n        logicalType: string\n        requird: true\n")
    assert error.message == (
        "flights.odcs.yaml:11: schema[0].properties[0].requird: ODCS has no key 'requird' here"
    )
    assert error.remedy == "did you mean 'required'?"
    assert error.facts["line"] == 11


@pytest.mark.parametrize(
    ("properties", "line", "fragment"),
    [
        ("      - name: a\n        logicalType: text\n", 10, "invalid enum value 'text'"),
        ("      - name: a\n        required: 1\n", 10, "expected bool, got int"),
        ("      - logicalType: string\n", 9, "has no name"),
        ("      - name: a\n      - name: b\n      - name: a\n", 11, "appears twice"),
        ("      - name: a\n        name: b\n", 10, "given twice"),
        (
            "      - name: a\n        logicalType: string\n        logicalTypeOptions: {minimum: 1}\n",
            11,
            "no option",
        ),
        (
            "      - name: a\n        logicalType: date\n        logicalTypeOptions: {minimum: soon}\n",
            11,
            "no date",
        ),
        ("      - name: a\n        logicalTypeOptions: {pattern: x}\n", 10, "without logicalType"),
        ("      - name: a\n        quality: [{metric: nullValues}]\n", 10, "no comparison"),
        (
            "      - name: a\n        quality: [{metric: nullValues, mustBe: 0, mustNotBe: 1}]\n",
            10,
            "2 comparisons",
        ),
        ("      - name: a\n        quality: [{metric: nullValues, mustBe: '0'}]\n", 10, "not a number"),
        ("      - name: a\n        quality: [{metric: nullValues, mustBeBetween: [3, 1]}]\n", 10, "above"),
        ("      - name: a\n        quality: [{metric: invalidValues, mustBe: 0}]\n", 10, "what is valid"),
        ("      - name: a\n        quality: [{metric: nullValues, mustBe: 0, unit: rowz}]\n", 10, "unit"),
        ("      - name: a\n        quality: [{type: sql, mustBe: 0}]\n", 10, "needs a query"),
        ("      - name: a\n        quality: [{mustBe: 0}]\n", 10, "names no metric"),
        (
            "      - name: a\n        customProperties: [{property: lockgate.labl, value: true}]\n",
            10,
            "'lockgate.labl' is unknown",
        ),
        ("      - name: a\n        bad: [unclosed\n", 11, "not YAML"),
        ("      - name: a\n        <<: {required: true}\n", 10, "only plain keys"),
        ("      - name: &n a\n      - &x {name: b, properties: [*x]}\n", 10, "too deep"),
    ],
)
def test_every_fault_has_its_line(properties: str, line: int, fragment: str) -> None:
    error = refused(properties)
    assert fragment in error.message
    assert error.message.startswith(f"flights.odcs.yaml:{line}: "), error.message
    assert error.remedy


def test_an_unquoted_no_is_not_norway() -> None:
    error = refused(
        """\
      - name: country
        logicalType: string
        quality:
          - metric: invalidValues
            mustBe: 0
            arguments:
              validValues: [SE, NO]
"""
    )
    assert "reads this as false" in error.message
    assert error.facts["path"].endswith("validValues[1]")


def test_labels_are_single_and_tables_are_chosen() -> None:
    role = "        customProperties: [{property: lockgate.label, value: true}]\n"
    assert "'a' and 'b'" in refused(f"      - name: a\n{role}      - name: b\n{role}").message
    second = "  - name: planes\n    properties: [{name: seats}]\n"
    assert "2 tables" in refused("      - name: a\n", tail=second).message
    text = (HEAD + "      - name: a\n" + second).encode()
    assert parse_contract(text, where="x", table="planes").dataset == "main/planes"
    with pytest.raises(ContractInvalid) as caught:
        parse_contract(text, where="x", table="plane")
    assert "planes" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"just words",
        b"\xff\xfe\xfa",
        b"a: b: c",
        b"--- {}\n--- {}\n",
        b"[" * 5000,
        b"kind: \x00",
        b"? [a]\n: b",
    ],
)
def test_what_is_no_contract_at_all_is_an_error_not_a_crash(text: bytes) -> None:
    with pytest.raises(ContractInvalid):
        parse_contract(text, where="x")


def test_other_versions_and_kinds_are_refused() -> None:
    for old, new in (
        ("v3.1.0", "v2.2.2"),
        ("DataContract", "Database"),
        ("1.0.0", "1.0"),
        ("id: flights\n", ""),
    ):
        assert refused("      - name: a\n", head=HEAD.replace(old, new)).facts["line"] <= 4


def test_rules_nobody_can_evaluate_stay_in_the_contract_with_the_reason() -> None:
    contract = parse(
        """\
      - name: a
        quality:
          - {type: custom, engine: soda, implementation: "checks"}
          - {type: library, metric: freshness, mustBeLessThan: 2}
          - {type: magic}
      - name: b
        logicalType: object
        properties: [{name: c, required: true}]
"""
    )
    problems = [rule.problem for rule in contract.rules]
    assert len(problems) == 4
    assert all(problems)
    assert "soda" in str(problems[0])


def test_rules_of_odcs_3_0_are_understood() -> None:
    contract = parse(
        """\
      - name: a
        logicalType: string
        quality:
          - {type: library, rule: duplicateCount, mustBeLessThan: 10}
          - {type: library, rule: validValues, validValues: [x, y]}
""",
        head=HEAD.replace("v3.1.0", "v3.0.2"),
    )
    assert [(rule.metric, rule.values) for rule in contract.rules] == [
        ("duplicateValues", ()),
        ("invalidValues", ("x", "y")),
    ]
    assert contract.dates_hold_times
