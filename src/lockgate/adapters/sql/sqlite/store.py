"""Opening an SQLite store: durability settings, numbered migrations, one connection per thread.

`synchronous=FULL` with WAL: a commit that returned survives a power cut. NORMAL would be five times faster and
could lose the last approvals; that trade is refused here.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lockgate.adapters.sql.sqlite.wal import enter_wal
from lockgate.adapters.sql.tables import StoreUnreachable, too_new
from lockgate.adapters.sql.turns import Turns
from lockgate.core.errors import Bug
from lockgate.hub.ports import JournalBusy, JournalUnreadable

_BUSY_MS = 30_000

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        body BLOB NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    -- REPLACE deletes without asking the trigger below; this one also keeps the numbers without a gap.
    CREATE TRIGGER events_in_order BEFORE INSERT ON events
        WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events)
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    CREATE TRIGGER events_no_update BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    CREATE TRIGGER events_no_delete BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    CREATE TABLE head (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        seq INTEGER NOT NULL,
        hash BLOB NOT NULL,
        frontier BLOB NOT NULL
    ) STRICT;
    INSERT INTO head VALUES (1, 0, zeroblob(32), x'');
    CREATE TABLE documents (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        rev INTEGER NOT NULL,
        fold_version INTEGER NOT NULL,
        body BLOB NOT NULL,
        parent TEXT NOT NULL,
        state TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (kind, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX documents_by_parent ON documents (kind, parent, key);
    CREATE TABLE edges (
        source TEXT NOT NULL,
        kind TEXT NOT NULL,
        target TEXT NOT NULL,
        PRIMARY KEY (source, kind, target)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX edges_by_target ON edges (target);
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        subject TEXT NOT NULL,
        fence INTEGER NOT NULL,
        body BLOB NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        leased_until INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE receipts (
        command_id TEXT PRIMARY KEY,
        body BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    # What is remembered beside the journal, because it is no decision: last uses, deliveries, counts.
    """
    CREATE TABLE credentials (
        id TEXT PRIMARY KEY,
        last_used_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE deliveries (
        subscription TEXT NOT NULL,
        seq INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_at INTEGER NOT NULL DEFAULT 0,
        delivered_at INTEGER,
        detail TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (subscription, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE counters (
        name TEXT PRIMARY KEY,
        n INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    # Where blobs are at home, and who brought them when; the row of no digest says that it was filled.
    """
    CREATE TABLE homes (
        digest TEXT NOT NULL,
        home TEXT NOT NULL,
        brought_at INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (digest, home)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX homes_brought ON homes (brought_at) WHERE brought_at > 0;
    """,
)


class SqliteStore:
    """One database file. Safe for threads (a connection each) and processes (SQLite's own locks).

    Raises:
        JournalUnreadable: the file is no database, or is damaged.
        StoreUnreachable: its place cannot be opened or written.
        StoreTooNew: a newer Lockgate made it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._turns = Turns()
        try:
            self._migrate()
        except sqlite3.DatabaseError as error:
            raise _translated(error, path) from error

    def connection(self) -> sqlite3.Connection:
        existing: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if existing is None:
            existing = sqlite3.connect(self.path, isolation_level=None, timeout=_BUSY_MS / 1000)
            enter_wal(existing, patience_s=_BUSY_MS / 1000)
            existing.execute("PRAGMA synchronous=FULL")
            existing.execute("PRAGMA foreign_keys=ON")
            self._local.connection = existing
        return existing

    def close(self) -> None:
        """Close this thread's connection."""
        existing: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if existing is not None:
            existing.close()
            self._local.connection = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self.connection()
        except sqlite3.DatabaseError as error:
            raise _translated(error, self.path) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, exclusive from its first moment; rolled back unless the block commits.

        The threads of this process take turns; SQLite itself only ever meets one of them, and other processes.
        """
        with self.reading() as connection:
            if _is_open(connection):
                raise Bug("a thread writes inside a transaction or snapshot of its own", remedy="report this")
            with self._turns.turn(_BUSY_MS / 1000):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                finally:
                    if _is_open(connection):
                        connection.execute("ROLLBACK")

    def _migrate(self) -> None:
        connection = self.connection()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == len(MIGRATIONS):
            return
        if version > len(MIGRATIONS):
            raise too_new(str(self.path), version, len(MIGRATIONS))
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Somebody else may have migrated while this process waited for the lock.
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _is_open(connection: sqlite3.Connection) -> bool:
    return connection.in_transaction


def _statements(script: str) -> Iterator[str]:
    """Split a script without leaving the transaction, which `executescript` would."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _translated(error: sqlite3.DatabaseError, path: Path) -> Exception:
    text = str(error)
    if "locked" in text or "busy" in text:
        return JournalBusy(
            f"{path} stayed locked for {_BUSY_MS // 1000} s", remedy="try again", path=str(path)
        )
    if "full" in text:
        return JournalBusy(
            f"no room to write {path}", remedy="free some disk space, then try again", path=str(path)
        )
    if "unable to open" in text or "readonly" in text:
        return StoreUnreachable(
            f"{path} cannot be used: {text}",
            remedy="check that its directory is there and that this user may write to it",
            path=str(path),
        )
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return error
    return JournalUnreadable(
        f"{path} cannot be read: {text}", remedy="restore it from a backup", path=str(path)
    )
