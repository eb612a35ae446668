"""All that one command changes, as one statement of PostgreSQL: it writes the whole, or, when the head is no longer
what the command was decided upon, nothing.

One way to the server and back, whatever there is to write. The text of a statement depends on how many rows come into
which table, and on nothing else, so that the server plans it once for each connection.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from lockgate.adapters.sql.postgres.recent import State
from lockgate.hub.ports import Commit, StoredDocument

Row = tuple[object, ...]

_FEW = 8
_BATCH = 2000
_MOVED = (
    "moved AS (UPDATE head SET seq = %s, hash = %s, frontier = %s"
    " WHERE seq = %s AND xmin = %s::text::xid RETURNING xmin::text)"
)


class _Table(NamedTuple):
    """How rows come into a table: where to, the types of the columns, what if there is such a row."""

    into: str
    types: tuple[str, ...]
    ending: str = ""


_EVENTS = _Table("events", ("bigint", "bytea", "bytea"))
_COLUMNS = ("text", "text", "bigint", "bigint", "bytea", "text", "text", "text")
_NEW_DOCUMENTS = _Table("documents", _COLUMNS)
_DOCUMENTS = _Table(
    "documents",
    _COLUMNS,
    " ON CONFLICT (kind, key) DO UPDATE SET rev = excluded.rev, fold_version = excluded.fold_version,"
    " body = excluded.body, parent = excluded.parent, state = excluded.state, digest = excluded.digest",
)
_EDGES = _Table("edges", ("text", "text", "text"), " ON CONFLICT DO NOTHING")
_EFFECTS = _Table("outbox (subject, fence, body)", ("text", "bigint", "bytea"))
_RECEIPTS = _Table("receipts", ("text", "bytea"))
_HOMES = _Table("homes (digest, home)", ("text", "text"), " ON CONFLICT DO NOTHING")
_TABLES = (_EVENTS, _NEW_DOCUMENTS, _DOCUMENTS, _EDGES, _EFFECTS, _RECEIPTS, _HOMES)


class Writing(NamedTuple):
    """Statements with their values: the first writes or does not; more are needed for what is longer than usual."""

    first: tuple[bytes, list[Any]]
    more: Iterator[tuple[bytes, list[Any]]]


def writing(commit: Commit, state: State, is_new: Callable[[StoredDocument], bool]) -> Writing:
    """How to write a commit that was decided upon a state.

    Args:
        is_new: whether there is no such document yet; if there is one all the same, the statement fails.
    """
    entries = _batches(commit.entries)
    receipts = _batches(chain(((commit.command_id, commit.receipt),), commit.receipts))
    new = [one for one in commit.documents if is_new(one)]
    known = [one for one in commit.documents if not is_new(one)] if new else commit.documents
    rows = (next(entries, []), new, known, commit.edges, commit.effects, next(receipts), commit.homes)
    head = commit.head
    values: list[Any] = [head.seq, head.hash, b"".join(head.frontier), state.seq, state.transaction]
    for each in rows:
        values += _values(each)
    more = chain(
        ((_insert(_EVENTS, len(each)), _values(each)) for each in entries),
        ((_insert(_RECEIPTS, len(each)), _values(each)) for each in receipts),
    )
    return Writing((_whole(tuple(map(len, rows))), values), more)


@functools.lru_cache(maxsize=1000)
def _whole(shape: tuple[int, ...]) -> bytes:
    parts = [
        f"i{number} AS ({_text(table, n_rows, ' WHERE EXISTS (SELECT FROM moved)')})"
        for number, (table, n_rows) in enumerate(zip(_TABLES, shape, strict=True))
        if n_rows
    ]
    return f"WITH {', '.join([_MOVED, *parts])} SELECT xmin FROM moved".encode()


@functools.lru_cache(maxsize=100)
def _insert(table: _Table, n_rows: int) -> bytes:
    return _text(table, n_rows, "").encode()


def _text(table: _Table, n_rows: int, condition: str) -> str:
    """A statement that inserts rows in their order: a few as they are, many as one array per column."""
    if n_rows <= _FEW:
        row = f"({', '.join(f'%s::{kind}' for kind in table.types)})"
        chosen = f"SELECT * FROM (VALUES {', '.join([row] * n_rows)}) AS given{condition}"
    else:
        arrays = ", ".join(f"%s::{kind}[]" for kind in table.types)
        columns = ", ".join(f"c{number}" for number in range(len(table.types)))
        chosen = f"SELECT {columns} FROM unnest({arrays}) WITH ORDINALITY AS given ({columns}, n){condition} ORDER BY n"
    return f"INSERT INTO {table.into} {chosen}{table.ending}"


def _values(rows: Sequence[Row]) -> list[Any]:
    if len(rows) <= _FEW:
        return [value for row in rows for value in row]
    return [list(column) for column in zip(*rows, strict=True)]


def _batches(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    """A whole history may come in one commit; it passes through, some rows at a time."""
    if isinstance(rows, tuple) and len(rows) <= _BATCH:
        return iter((rows,) if rows else ())
    return _sliced(iter(rows))


def _sliced(stream: Iterator[Any]) -> Iterator[Sequence[Row]]:
    while batch := list(islice(stream, _BATCH)):
        yield batch
