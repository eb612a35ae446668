"""Gates `privacy.tags` and `dossier.complete`."""

from __future__ import annotations

from typing import Any

import pytest

from lockgate.core.errors import NotFound
from lockgate.data.contract import DataContract
from lockgate.data.odcs import parse_contract
from lockgate.gates.evidence import Evidence, explain
from lockgate.gates.scans.dossier import SECTIONS, dossier_complete, is_written
from lockgate.gates.scans.privacy import privacy_tags
from lockgate.registry.packages.contract import InputField
from lockgate.registry.packages.package import ColumnUse, InputTrace

INPUTS = (
    InputField(name="age", dtype="int"),
    InputField(name="visits", dtype="int", source="history:visits"),
)


def contract(*columns: str) -> DataContract:
    """A contract of the dataset `people`, written as people write it."""
    text = """
apiVersion: v3.1.0
kind: DataContract
id: people
name: People
version: 1.0.0
status: active
schema:
  - name: people
    properties:
"""
    return parse_contract(
        (text + "".join(f"      - {column}\n" for column in columns)).encode(), where="people.yaml"
    )


PRIVATE = "{ name: birth, logicalType: date, tags: [pii] }"
WITH_PURPOSE = (
    "{ name: birth, logicalType: date, customProperties: [{ property: lockgate.privacy, value: personal }, "
    "{ property: lockgate.purpose, value: [billing, care] }] }"
)
PUBLIC = "{ name: day, logicalType: date }"


def judged(how: str, *columns: str, **changes: Any) -> Evidence:
    traces = (
        InputTrace(input="age", source="request", columns=()),
        InputTrace(input="visits", source="history:visits", columns=(ColumnUse("people", "day", "value"),)),
        InputTrace(
            input="" if how == "code" else "visits",
            source="people/model.py" if how == "code" else "history:visits",
            columns=(ColumnUse("people", "birth", how),),  # type: ignore[arg-type]
        ),
    )
    given: dict[str, Any] = {"traces": traces, "contracts": lambda: {"people": contract(*columns)}, **changes}
    return privacy_tags(INPUTS, given["traces"], given["contracts"])


@pytest.mark.parametrize("how", ["value", "rows", "whole", "name", "code"])
def test_a_private_column_without_a_purpose_is_refused_however_it_reaches_the_model(how: str) -> None:
    evidence = judged(how, PRIVATE, PUBLIC)
    assert (evidence.verdict, evidence.value, evidence.n) == ("fail", 1.0, 2)
    where = "people/model.py" if how == "code" else "visits"
    assert (
        f"people.birth reaches {where}" in explain(evidence) and "no lockgate.purpose" in evidence.details[0]
    )


def test_purposes_are_listed_where_there_are_some() -> None:
    evidence = judged("rows", WITH_PURPOSE, PUBLIC)
    assert evidence.verdict == "pass"
    assert evidence.details == ("people.birth reaches visits by choosing rows, for billing, care",)


def test_private_columns_that_do_not_reach_it_are_nobodys_concern() -> None:
    evidence = judged(
        "value", "{ name: birth, logicalType: date }", "{ name: other, logicalType: date, tags: [pii] }"
    )
    assert evidence.verdict == "pass" and evidence.details == ("no private column reaches it",)


def test_a_package_that_was_not_traced_or_whose_contracts_are_gone_is_an_error() -> None:
    assert judged("value", PRIVATE, traces=()).reason == "missing_input"

    def gone() -> Any:
        raise NotFound("no code.tar", remedy="build it again")

    assert judged("value", contracts=gone).verdict == "error"


WRITTEN = {name: f"docs/{name}.md" for name in SECTIONS}


def completed(declared: dict[str, str], text: bytes | None = b"Some words.", tier: Any = "high") -> Evidence:
    return dossier_complete(declared, lambda path: text, tier=tier)


def test_a_dossier_is_complete_when_every_section_says_something() -> None:
    evidence = completed(WRITTEN)
    assert (evidence.verdict, evidence.value, evidence.n) == ("pass", 0.0, len(SECTIONS))


@pytest.mark.parametrize(
    ("tier", "blocks"), [("low", False), ("moderate", False), ("high", True), ("critical", True)]
)
def test_missing_sections_are_named_and_refuse_the_high_tiers_only(tier: Any, blocks: bool) -> None:
    declared = {name: path for name, path in WRITTEN.items() if name not in ("limitations", "fairness")}
    evidence = completed(declared, tier=tier)
    assert (evidence.verdict, evidence.value, evidence.blocks) == ("fail", 2.0, blocks)
    assert "missing: limitations, fairness" in explain(evidence)
    assert any(line.startswith("limitations: where it is known") for line in evidence.details)


def test_a_file_that_says_nothing_or_is_not_packed_is_missing() -> None:
    for text in (
        None,
        b"",
        b"# Limits\n\n",
        b"# Limits\nTODO\n",
        b"<!-- what\nto write -->\n- tbd.\n",
        b"---\n",
    ):
        assert completed(WRITTEN, text).value == len(SECTIONS)
    assert is_written(b"# Limits\n\nTODO: more, but not on Sundays.\n") and is_written(
        "Grenzen: größer".encode()
    )
