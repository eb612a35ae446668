"""The step cache in SQLite: table `step_records`, one row per scope and key.

The file may be one that other parts keep their tables in; nothing but `step_records` is touched. The connection
runs with `synchronous=NORMAL`: after a power cut the last rows may be missing, and then a step runs once more.
Nothing is decided from this table, so it need not be as durable as the journal.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from lockgate.adapters.sql.sqlite.wal import enter_wal
from lockgate.core.digests import Digest, canonical
from lockgate.core.errors import Corrupt, Unavailable
from lockgate.pipeline.artifact import StepRecord

R = TypeVar("R")
_PATIENCE_S = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS step_records (
    scope TEXT NOT NULL,
    key   TEXT NOT NULL,
    name  TEXT NOT NULL,
    seq   INTEGER NOT NULL,
    body  BLOB NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS step_records_last ON step_records (scope, name, seq);
"""
_NEXT = "(SELECT coalesce(max(seq), 0) + 1 FROM step_records WHERE scope = :scope AND name = :name)"
_PUT = f"INSERT OR REPLACE INTO step_records VALUES (:scope, :key, :name, {_NEXT}, :body)"
_GET = "SELECT body FROM step_records WHERE scope = ? AND key = ?"
_LAST = "SELECT body FROM step_records WHERE scope = ? AND name = ? ORDER BY seq DESC LIMIT 1"
_NAME = "SELECT name FROM step_records WHERE scope = ? AND key = ?"
_TOUCH = f"UPDATE step_records SET seq = {_NEXT} WHERE scope = :scope AND key = :key"


class StepCacheBusy(Unavailable):
    code = "pipeline.step-cache-busy"


class StepCacheCorrupt(Corrupt):
    code = "pipeline.step-cache-corrupt"


class SqliteStepCache:
    """The `StepCache` in one SQLite file; several processes may share it.

    Args:
        path: the file; made when it is not there.
        scope: whose steps these are, `NAMESPACE/MODEL`; scopes do not see one another.
    """

    def __init__(self, path: Path, scope: str = "") -> None:
        self._path = path
        self._scope = scope
        # One connection under one lock: each call is a few dozen microseconds.
        self._lock = threading.Lock()
        self._db = self._guard(self._open)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
        try:
            enter_wal(db, patience_s=_PATIENCE_S)
            db.execute("PRAGMA synchronous=NORMAL")
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _guard(self, act: Callable[[], R]) -> R:
        try:
            with self._lock:
                return act()
        except sqlite3.OperationalError as error:
            raise StepCacheBusy(
                f"the step cache {self._path} cannot be used now: {error}",
                remedy="run it again; see that the disk has room and that you may write the file",
                path=str(self._path),
            ) from error
        except sqlite3.DatabaseError as error:
            raise StepCacheCorrupt(
                f"the step cache {self._path} is damaged: {error}",
                remedy="move the file away: it only saves work, and is filled again",
                path=str(self._path),
            ) from error

    def _one(self, sql: str, *values: str) -> StepRecord | None:
        row = self._guard(lambda: self._db.execute(sql, (self._scope, *values)).fetchone())
        if row is None:
            return None
        try:
            return msgspec.json.decode(row[0], type=StepRecord)
        except msgspec.DecodeError:
            # Written by a version that kept other fields: as good as absent.
            return None

    def get(self, key: Digest) -> StepRecord | None:
        return self._one(_GET, key)

    def put(self, record: StepRecord) -> None:
        values = {
            "scope": self._scope,
            "key": record.key,
            "name": record.name,
            "body": canonical(record),
        }
        self._guard(lambda: self._db.execute(_PUT, values))

    def last(self, name: str) -> StepRecord | None:
        return self._one(_LAST, name)

    def touch(self, key: Digest) -> None:
        row = self._guard(lambda: self._db.execute(_NAME, (self._scope, key)).fetchone())
        if row is not None:
            values = {"scope": self._scope, "key": key, "name": row[0]}
            self._guard(lambda: self._db.execute(_TOUCH, values))

    def records(self) -> Iterator[StepRecord]:
        """The records of every scope, in no particular order."""
        for (body,) in self._guard(lambda: self._db.execute("SELECT body FROM step_records").fetchall()):
            with suppress(msgspec.DecodeError):
                yield msgspec.json.decode(body, type=StepRecord)

    def close(self) -> None:
        self._guard(self._db.close)

    def __enter__(self) -> SqliteStepCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
