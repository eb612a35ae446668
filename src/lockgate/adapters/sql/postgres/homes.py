"""`Homes` on PostgreSQL. The row of no digest says that they were filled.

Each call may be repeated by the store when its connection died; it comes to the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lockgate.adapters.sql.postgres.store import PostgresStore
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest

_BATCH = 10_000
_INSERT = (
    "INSERT INTO homes (digest, home) SELECT * FROM unnest(%s::text[], %s::text[])"
    " ON CONFLICT DO NOTHING RETURNING 1"
)


class PostgresHomes:
    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def of(self, digests: Collection[Digest]) -> Mapping[Digest, Mapping[str, Micros]]:
        rows = self._store.rows(
            "SELECT digest, home, brought_at FROM homes WHERE digest = ANY(%s)", (list(digests),)
        )
        found: dict[Digest, dict[str, Micros]] = {}
        for digest, home, at in rows:
            found.setdefault(digest, {})[home] = at
        return found

    def brought(self, digest: Digest, by: str, at: Micros) -> None:
        self._store.rows(
            "INSERT INTO homes VALUES (%(digest)s, %(by)s, %(at)s) ON CONFLICT (digest, home)"
            " DO UPDATE SET brought_at = greatest(homes.brought_at, %(at)s) RETURNING 1",
            {"digest": digest, "by": by, "at": at},
        )

    def is_filled(self) -> bool:
        return bool(self._store.rows("SELECT 1 FROM homes WHERE digest = ''"))

    def fill(self, homes: Collection[tuple[Digest, str]]) -> None:
        rows: Sequence[tuple[Digest, str]] = list(homes)
        for at in range(0, len(rows), _BATCH):
            digests, places = zip(*rows[at : at + _BATCH], strict=True)
            self._store.rows(_INSERT, (list(digests), list(places)))
        self._store.rows(_INSERT, ([""], [""]))

    def prune(self, before: Micros) -> None:
        self._store.rows("DELETE FROM homes WHERE brought_at > 0 AND brought_at < %s RETURNING 1", (before,))
