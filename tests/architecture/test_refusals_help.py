"""Whoever is refused is told what to type next: every reason says so when it is built, or stands in a short list."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from house_rules import read

ROOT = Path(__file__).resolve().parents[2]

WITHOUT = {
    "governance.judgement._blocking": "what a gate has found no command takes back; `next: stop` is read off that",
    "governance.judgement._beyond": "what a gate has measured no command takes back, either",
}
"""Functions whose reasons carry no remedy, and why."""


def helpless(tree: ast.Module) -> Iterator[str]:
    """The functions (dotted, within the module) that build a reason which may come without a remedy."""
    yield from _within(tree, "")


def _within(node: ast.AST, place: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.FunctionDef | ast.ClassDef)
        here = f"{place}.{child.name}" if named else place
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id == "Reason":
            remedies = [keyword.value for keyword in child.keywords if keyword.arg == "remedy"]
            if not remedies or not _says(remedies[0]):
                yield here
        yield from _within(child, here)


def _says(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.IfExp):
        return _says(node.body) and _says(node.orelse)
    return True


def test_every_reason_says_what_to_type_next() -> None:
    found = {source.module + place for source in read(ROOT / "src") for place in helpless(source.tree)}
    assert found == set(WITHOUT), "give it a remedy; an entry of WITHOUT that nothing needs goes"


@pytest.mark.parametrize(
    "built",
    [
        'Reason(rule="a", message="b")',
        'Reason(rule="a", message="b", remedy=None)',
        'Reason(rule="a", message="b", remedy="")',
        'Reason(rule="a", message="b", remedy=x if y else None)',
        '[Reason(rule="a", message="b") for one in many]',
    ],
)
def test_one_that_says_nothing_is_found(built: str) -> None:
    assert list(helpless(ast.parse(f"class C:\n def f():\n  return {built}"))) == [".C.f"]


def test_one_that_does_is_let_through() -> None:
    built = 'Reason(rule="a", message="b", remedy=f"lockgate judge {x}" if y else "wait")'
    assert list(helpless(ast.parse(f"def f():\n return {built}"))) == []
