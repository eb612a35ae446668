"""How the tests themselves are kept: names, places, no sleeping."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from house_rules import ROOMS, last_name

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = {
    "architecture",
    "browser",
    "contract",
    "docs",
    "e2e",
    "properties",
    "services",
    "typing",
    "unit",
    "upgrade",
}
FILES = sorted(TESTS.rglob("*.py"))


def calls(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    named = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    bare = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in {"time", "asyncio"}
        for alias in node.names
        if alias.name == "sleep"
    }
    return {name for name in named if name in {"time.sleep", "asyncio.sleep", "anyio.sleep"} | bare}


def test_tests_live_in_known_folders():
    assert {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"} <= FOLDERS


def test_unit_tests_mirror_the_rooms():
    parts = {path.relative_to(TESTS / "unit").parts[0] for path in (TESTS / "unit").rglob("test_*.py")}
    assert parts <= {*ROOMS, "serving", "adapters", "workshop", "app", "testing"}


def test_file_names_are_unique_because_there_are_no_packages():
    assert not list(TESTS.rglob("__init__.py"))
    names = Counter(path.name for path in FILES if path.name != "conftest.py")
    assert not [name for name, count in names.items() if count > 1]


def test_no_test_sleeps():
    """Who waits for another process uses `eventually`; who waits for time gives the code a clock."""
    found = [str(path.relative_to(TESTS)) for path in FILES if calls(path)]
    assert not found


def test_no_test_replaces_the_real_part():
    mocking = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import) and any(
                alias.name.startswith("unittest.mock") for alias in node.names
            ):
                mocking.append(path.name)
            if isinstance(node, ast.ImportFrom) and node.module in {"unittest.mock", "mock"}:
                mocking.append(path.name)
    assert not mocking


def test_every_skip_and_every_expected_failure_says_why():
    silent = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and last_name(node.func) in {"skipif", "xfail", "skip"}:
                reasoned = node.args if last_name(node.func) == "skip" else []
                if not reasoned and not any(keyword.arg == "reason" for keyword in node.keywords):
                    silent.append(f"{path.relative_to(TESTS)}:{node.lineno}")
    assert not silent
