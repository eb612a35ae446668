"""`Usage` on SQLite, in the same file as the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.core.clock import Micros


class SqliteUsage:
    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def used(self, credential: str, at: Micros) -> None:
        with self._store.writing() as connection:
            connection.execute(
                "INSERT INTO credentials VALUES (?1, ?2)"
                " ON CONFLICT (id) DO UPDATE SET last_used_at = max(last_used_at, ?2)",
                (credential, at),
            )
            connection.execute("COMMIT")

    def last_used(self, credentials: Sequence[str]) -> Mapping[str, Micros]:
        with self._store.reading() as connection:
            found = [
                connection.execute(
                    "SELECT id, last_used_at FROM credentials WHERE id = ?", (credential,)
                ).fetchone()
                for credential in credentials
            ]
        return dict(row for row in found if row is not None)

    def count(self, name: str, n: int) -> None:
        with self._store.writing() as connection:
            connection.execute(
                "INSERT INTO counters VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET n = n + ?2", (name, n)
            )
            connection.execute("COMMIT")

    def counted(self) -> Mapping[str, int]:
        with self._store.reading() as connection:
            return dict(connection.execute("SELECT name, n FROM counters").fetchall())
