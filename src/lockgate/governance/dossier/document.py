"""A dossier as one value: JSON is its fields, Markdown is written from them, so both say the same.

Nothing in it depends on when or where it is put together. A section is generated, or written by the owner of the model,
or missing; one that is missing stays in the document and says what is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from lockgate.core.digests import Digest

SCHEMA = "lockgate.dossier/1"
Origin = Literal["generated", "written", "missing"]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One section.

    Attributes:
        facts: names and values.
        notes: sentences.
        text: what the owner wrote, Markdown.
        file: where in the package the owner's text lies.
        asks: what is to be written, of a missing section.
    """

    id: str
    title: str
    origin: Origin = "generated"
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    text: str = ""
    file: str = ""
    asks: str = ""


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule asks for, and which sections answer it; with none, it is to be supplied from elsewhere."""

    ref: str
    asks: str
    sections: tuple[str, ...]
    state: Literal["answered", "missing", "elsewhere"]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A dossier as one set of rules reads it."""

    profile: str
    title: str
    source: str
    note: str
    requirements: tuple[Requirement, ...]


class Dossier(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of one version.

    Attributes:
        missing: ids of the sections that its owner has still to write.
    """

    schema: str = SCHEMA
    version: str
    package: Digest
    tier: str
    owner: str
    purpose: str
    sections: tuple[Section, ...]
    missing: tuple[str, ...]
    reading: Reading | None = None


def markdown(dossier: Dossier) -> str:
    """The document for people, with a line break at its end."""
    lines = [
        f"# Dossier of {dossier.version}",
        "",
        f"Package `{dossier.package}`. Tier {dossier.tier}, owner {dossier.owner}.",
        "",
        dossier.purpose,
        "",
    ]
    if dossier.missing:
        lines += [f"**Still to be written by its owner:** {', '.join(dossier.missing)}.", ""]
    for number, section in enumerate(dossier.sections, start=1):
        lines += [f"## {number}. {section.title}", "", *_body(section)]
    if dossier.reading is not None:
        lines += _read_by(dossier.reading, dossier.sections)
    return "\n".join(lines).rstrip("\n") + "\n"


def _body(section: Section) -> Iterator[str]:
    if section.origin == "missing":
        yield f"**Missing.** Asked for is {section.asks}."
        yield ""
    if section.text:
        yield from _demoted(section.text)
        yield ""
        yield f"*Written by the owner, in `{section.file}`.*"
        yield ""
    if section.facts:
        yield from _table(("", ""), section.facts)
    for note in section.notes:
        yield note
        yield ""
    for table in section.tables:
        yield from _table(table.columns, table.rows)


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = tuple(columns)
    yield _row(names)
    yield "|" + "---|" * len(names)
    yield from (_row(row) for row in rows)
    yield ""


def _row(cells: Iterable[str]) -> str:
    # A cell is one line, and a bar would end it.
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _demoted(text: str) -> Iterator[str]:
    """The owner's Markdown below a heading of ours: its first heading repeats ours, the others go down two levels."""
    lines = text.strip().splitlines()
    if lines and lines[0].startswith("# "):
        lines = lines[1:]
    while lines and not lines[0].strip():
        lines = lines[1:]
    fenced = False
    for line in lines:
        fenced ^= line.lstrip().startswith("```")
        yield "##" + line if not fenced and re.match(r"#{1,4} ", line) else line.rstrip()


def _read_by(reading: Reading, sections: Iterable[Section]) -> list[str]:
    numbers = {section.id: f"{place}. {section.title}" for place, section in enumerate(sections, start=1)}
    words = {
        "answered": "answered",
        "missing": "MISSING",
        "elsewhere": "not here; to be supplied from elsewhere",
    }
    rows = [
        (one.ref, one.asks, "; ".join(numbers[name] for name in one.sections) or "-", words[one.state])
        for one in reading.requirements
    ]
    return [
        f"## Read by: {reading.title}",
        "",
        f"{reading.source}. {reading.note}".strip(),
        "",
        *_table(("rule", "asks for", "answered in", ""), rows),
    ]
