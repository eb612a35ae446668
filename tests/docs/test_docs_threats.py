"""Every row of the threat table says what is left, and names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "threats.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| threat |")
]


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_threat_has_an_answer_a_rest_and_a_test(row: list[str]) -> None:
    assert len(row) == 4
    assert all(row)
    (path,) = re.findall(r"`(tests/[^`]+)`", row[3])
    place = ROOT / path
    assert place.suffix == ".py" or any(place.rglob("test_*.py"))
    assert place.exists()
