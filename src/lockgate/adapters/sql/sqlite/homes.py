"""`Homes` on SQLite. The row of no digest says that they were filled."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest

_INSERT = "INSERT OR IGNORE INTO homes (digest, home) VALUES (?, ?)"


class SqliteHomes:
    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def of(self, digests: Collection[Digest]) -> Mapping[Digest, Mapping[str, Micros]]:
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT digest, home, brought_at FROM json_each(?) JOIN homes ON digest = json_each.value",
                (json.dumps(list(digests)),),
            ).fetchall()
        found: dict[Digest, dict[str, Micros]] = {}
        for digest, home, at in rows:
            found.setdefault(digest, {})[home] = at
        return found

    def brought(self, digest: Digest, by: str, at: Micros) -> None:
        with self._store.writing() as connection:
            connection.execute(
                "INSERT INTO homes VALUES (?1, ?2, ?3)"
                " ON CONFLICT (digest, home) DO UPDATE SET brought_at = max(brought_at, ?3)",
                (digest, by, at),
            )
            connection.execute("COMMIT")

    def is_filled(self) -> bool:
        with self._store.reading() as connection:
            return connection.execute("SELECT 1 FROM homes WHERE digest = ''").fetchone() is not None

    def fill(self, homes: Collection[tuple[Digest, str]]) -> None:
        with self._store.writing() as connection:
            connection.executemany(_INSERT, homes)
            connection.execute(_INSERT, ("", ""))
            connection.execute("COMMIT")

    def prune(self, before: Micros) -> None:
        with self._store.writing() as connection:
            connection.execute("DELETE FROM homes WHERE brought_at > 0 AND brought_at < ?", (before,))
            connection.execute("COMMIT")
