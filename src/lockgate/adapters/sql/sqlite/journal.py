"""`Journal` on SQLite."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.adapters.sql.tables import (
    AS_DOCUMENT,
    AS_EDGE,
    AS_ENTRY,
    DOCUMENT,
    document_conditions,
    head_of,
)
from lockgate.core.errors import Bug
from lockgate.core.journal import Head
from lockgate.hub.ports import Commit, Edge, StoredDocument, StoredEntry

_COLUMNS = DOCUMENT.replace("body", "x''")
_MAX_NAMED = 400


class SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def head(self) -> Head:
        return _head(self._connection)

    def receipt(self, command_id: str) -> bytes | None:
        return _receipt(self._connection, command_id)

    def expect(self, documents: Iterable[tuple[str, str]], *, new: bool = False) -> None:
        """They are near."""

    def document(self, kind: str, key: str) -> StoredDocument | None:
        return _document(self._connection, kind, key)

    def documents(self, kind: str, prefix: str) -> Sequence[StoredDocument]:
        return _documents(self._connection, kind, prefix)

    def commit(self, commit: Commit) -> None:
        run = self._connection
        if not run.in_transaction:
            raise Bug("a transaction commits once, inside its block", remedy="report this")
        run.executemany("INSERT INTO events VALUES (?, ?, ?)", commit.entries)
        run.execute(
            "UPDATE head SET seq = ?, hash = ?, frontier = ?",
            (commit.head.seq, commit.head.hash, b"".join(commit.head.frontier)),
        )
        run.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", commit.documents)
        run.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?, ?)", commit.edges)
        run.executemany("INSERT INTO outbox (subject, fence, body) VALUES (?, ?, ?)", commit.effects)
        run.execute("INSERT INTO receipts VALUES (?, ?)", (commit.command_id, commit.receipt))
        run.executemany("INSERT INTO receipts VALUES (?, ?)", commit.receipts)
        run.executemany("INSERT OR IGNORE INTO homes (digest, home) VALUES (?, ?)", commit.homes)
        run.execute("COMMIT")


class SqliteJournal:
    """The journal of an embedded store; also good for one hub on one machine."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    @contextmanager
    def transaction(
        self, command_id: str = "", documents: Iterable[tuple[str, str]] = (), *, hold: bool = True
    ) -> Iterator[SqliteTransaction]:
        with self._store.writing() as connection:
            yield SqliteTransaction(connection)

    @contextmanager
    def snapshot(
        self, command_id: str = "", documents: Iterable[tuple[str, str]] = (), *, hold: bool = True
    ) -> Iterator[None]:
        if not hold:
            yield
            return
        with self._store.reading() as connection:
            if connection.in_transaction:
                yield
                return
            connection.execute("BEGIN")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")

    def head(self) -> Head:
        with self._store.reading() as connection:
            return _head(connection)

    def receipt(self, command_id: str) -> bytes | None:
        with self._store.reading() as connection:
            return _receipt(connection, command_id)

    def entries(self, after: int, limit: int) -> Sequence[StoredEntry]:
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT seq, body, hash FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            )
            return list(map(AS_ENTRY, rows))

    def document(self, kind: str, key: str) -> StoredDocument | None:
        with self._store.reading() as connection:
            return _document(connection, kind, key)

    def documents(
        self,
        kind: str,
        prefix: str = "",
        parent: str | None = None,
        *,
        state: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        bodies: bool = True,
    ) -> Sequence[StoredDocument]:
        with self._store.reading() as connection:
            return _documents(connection, kind, prefix, parent, state, after, limit, bodies)

    def edges(
        self, *, sources: Collection[str] | None = None, targets: Collection[str] | None = None
    ) -> Sequence[Edge]:
        found: list[Edge] = []
        with self._store.reading() as connection:
            for some, others in itertools.product(_some(sources), _some(targets)):
                wanted = {"source": some, "target": others}
                conditions = [_one_of(column, names) for column, names in wanted.items() if names is not None]
                where = " AND ".join(conditions) or "true"
                rows = connection.execute(
                    f"SELECT source, kind, target FROM edges WHERE {where}", (*(some or ()), *(others or ()))
                )
                found += map(AS_EDGE, rows)
        return sorted(found)


def _some(names: Collection[str] | None) -> Iterable[list[str] | None]:
    """As many at a time as one statement may name."""
    if names is None:
        return (None,)
    each = sorted(set(names))
    return [each[at : at + _MAX_NAMED] for at in range(0, len(each), _MAX_NAMED)]


def _one_of(column: str, names: Collection[str]) -> str:
    return f"{column} IN ({', '.join('?' * len(names))})"


def _head(connection: sqlite3.Connection) -> Head:
    return head_of(*connection.execute("SELECT seq, hash, frontier FROM head").fetchone())


def _receipt(connection: sqlite3.Connection, command_id: str) -> bytes | None:
    row = connection.execute("SELECT body FROM receipts WHERE command_id = ?", (command_id,)).fetchone()
    return None if row is None else row[0]


def _document(connection: sqlite3.Connection, kind: str, key: str) -> StoredDocument | None:
    row = connection.execute(DOCUMENT + "WHERE kind = ? AND key = ?", (kind, key)).fetchone()
    return None if row is None else StoredDocument(*row)


def _documents(
    connection: sqlite3.Connection,
    kind: str,
    prefix: str,
    parent: str | None = None,
    state: str | None = None,
    after: str | None = None,
    limit: int | None = None,
    bodies: bool = True,
) -> list[StoredDocument]:
    wanted = document_conditions(kind, prefix, parent, state, after)
    where = " AND ".join(f"{condition} ?" for condition in wanted)
    # Left to itself, SQLite walks through the whole kind by its primary key, which is in the order that is asked for.
    index = "" if parent is None else "INDEXED BY documents_by_parent "
    select = f"{DOCUMENT if bodies else _COLUMNS}{index}WHERE {where} ORDER BY key LIMIT ?"
    rows = connection.execute(select, (*wanted.values(), -1 if limit is None else limit))
    return list(map(AS_DOCUMENT, rows))
