"""`Usage` on PostgreSQL. A statement that is repeated because its connection died may count once too often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lockgate.adapters.sql.postgres.store import PostgresStore
from lockgate.core.clock import Micros


class PostgresUsage:
    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def used(self, credential: str, at: Micros) -> None:
        self._store.rows(
            "INSERT INTO credentials VALUES (%(id)s, %(at)s) ON CONFLICT (id)"
            " DO UPDATE SET last_used_at = greatest(credentials.last_used_at, %(at)s) RETURNING id",
            {"id": credential, "at": at},
        )

    def last_used(self, credentials: Sequence[str]) -> Mapping[str, Micros]:
        rows = self._store.rows(
            "SELECT id, last_used_at FROM credentials WHERE id = ANY(%s)", (list(credentials),)
        )
        return {str(one): int(at) for one, at in rows}

    def count(self, name: str, n: int) -> None:
        self._store.rows(
            "INSERT INTO counters VALUES (%(name)s, %(n)s) ON CONFLICT (name)"
            " DO UPDATE SET n = counters.n + %(n)s RETURNING name",
            {"name": name, "n": n},
        )

    def counted(self) -> Mapping[str, int]:
        return {str(name): int(n) for name, n in self._store.rows("SELECT name, n FROM counters", ())}
