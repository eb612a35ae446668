"""The pages are complete and current: errors, commands, links, decisions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cli_page
import errors_page
import pytest
from house_rules import error_classes, read
from msgspec import inspect

from lockgate.workshop.config import Config

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")


def without_code(text: str) -> str:
    return re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ +(.*)$", without_code(path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_error_code_is_documented_and_the_page_is_current():
    sources = read(ROOT / "src")
    text = (DOCS / "errors.md").read_text()
    codes = [error.code for error in error_classes(sources) if error.module != "core.errors"]
    assert not [code for code in codes if f"| `{code}` |" not in text], "run `make pages`"
    assert text == errors_page.page(sources), "run `make pages`"


def test_every_command_is_documented_and_the_page_is_current():
    verbs = cli_page.verbs()
    if not verbs:
        pytest.skip("lockgate.app.cli.main has no table of verbs (VERBS) yet")
    text = (DOCS / "cli.md").read_text()
    assert not [verb for verb in verbs if f"`lockgate {verb}`" not in text], "run `make pages`"
    assert text == cli_page.page(verbs), "run `make pages`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page):
    broken = []
    for match in LINK.finditer(without_code(page.read_text())):
        target, _, anchor = match["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(match["target"])
    assert not broken


def keys_of(kind: inspect.Type) -> Iterator[str]:
    """Every key that may stand in a table of this type, or in one below it."""
    match kind:
        case inspect.StructType():
            for field in kind.fields:
                yield field.encode_name
                yield from keys_of(field.type)
        case inspect.DictType():
            yield from keys_of(kind.value_type)
        case inspect.VarTupleType() | inspect.ListType():
            yield from keys_of(kind.item_type)
        case inspect.UnionType():
            for one in kind.types:
                yield from keys_of(one)


def test_every_key_of_the_project_file_is_on_its_page():
    tables = (DOCS / "project.md").read_text().partition("## What may stand")[2].partition("\n## ")[0]
    words = {*re.findall(r"\w+", tables), *re.findall(r"[\w.]+", tables)}
    keys = set(keys_of(inspect.type_info(Config)))
    assert len(keys) > 60
    assert not keys - words


def test_every_page_can_be_reached_from_the_index():
    index = (DOCS / "index.md").read_text()
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} - {"index.md"}
    linked = {match["target"].partition("#")[0] for match in LINK.finditer(index)}
    assert not pages - linked


def test_decisions_are_numbered_without_gaps_and_say_what_and_why():
    records = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {int(record.name[:4])}. "), record.name
        for heading in ("## Decision", "## Why", "## Price"):
            assert heading in text, f"{record.name} lacks {heading!r}"


def test_the_change_log_keeps_its_order():
    order = ["Security", "Removed", "Deprecated", "Added", "Changed", "Fixed"]
    text = (ROOT / "CHANGELOG.md").read_text()
    for release in re.split(r"^## ", text, flags=re.M)[1:]:
        kinds = re.findall(r"^### (.*)$", release, re.M)
        assert kinds == [kind for kind in order if kind in kinds], release.partition("\n")[0]
