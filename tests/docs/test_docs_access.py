"""The page about access says what the table of roles says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lockgate.access.roles import ROLES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "access.md").read_text()
ROW = re.compile(r"^\| `(?P<role>[a-z:]+)` \| [^|]+ \| (?P<permissions>[^|]+) \|$", re.M)
TOLD = {row["role"]: set(re.findall(r"`([^`]+)`", row["permissions"])) for row in ROW.finditer(PAGE)}
EVERYBODYS = {"read", "access.token"}


def test_every_role_is_told():
    assert list(TOLD) == list(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_may_is_told(role):
    assert TOLD[role] == set(ROLES[role]) - EVERYBODYS
    assert role == "controller" or set(ROLES[role]) >= EVERYBODYS
