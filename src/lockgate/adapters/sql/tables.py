"""What the stores of every database have in common: how rows are chosen, which errors are raised."""

from __future__ import annotations

from functools import partial

from lockgate.core.errors import Unavailable, Unsupported
from lockgate.core.journal import Head
from lockgate.hub.ports import Edge, StoredDocument, StoredEntry

# Rows become named tuples without a Python call for each: a check of the journal reads millions.
AS_ENTRY = partial(tuple.__new__, StoredEntry)
AS_DOCUMENT = partial(tuple.__new__, StoredDocument)
AS_EDGE = partial(tuple.__new__, Edge)

DOCUMENT = "SELECT kind, key, rev, fold_version, body, parent, state, digest FROM documents "


class StoreUnreachable(Unavailable):
    """The place of the store cannot be used: a missing directory, missing rights, a server that is away."""

    code = "journal.store-unreachable"


class StoreTooNew(Unsupported):
    code = "journal.store-too-new"


def too_new(place: str, version: int, known: int) -> StoreTooNew:
    return StoreTooNew(
        f"{place} was made by a newer Lockgate (store version {version}, known {known})",
        remedy="upgrade Lockgate",
        path=place,
    )


def head_of(seq: int, last: bytes, frontier: bytes) -> Head:
    return Head(seq, last, tuple(frontier[at : at + 32] for at in range(0, len(frontier), 32)))


def above(prefix: str) -> str | None:
    """The smallest text above all that start with `prefix`, by code point; None when there is none."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return None
    last = ord(stem[-1]) + 1
    # No text holds a surrogate alone.
    return stem[:-1] + chr(0xE000 if last == 0xD800 else last)


def document_conditions(
    kind: str, prefix: str, parent: str | None, state: str | None, after: str | None
) -> dict[str, str]:
    """What a document must be, each `COLUMN OPERATOR` with its value.

    Spelled out, because no index serves `? IS NULL OR parent = ?`.
    """
    conditions = {
        "kind =": kind,
        # One lower bound: of two, a database may begin at the lower and walk up to the other, page after page.
        "key >=": prefix if prefix and (after is None or after < prefix) else None,
        "key <": above(prefix),
        "key >": after if after is not None and after >= prefix else None,
        "parent =": parent,
        "state =": state,
    }
    return {condition: value for condition, value in conditions.items() if value is not None}
