"""`Outbox` on SQLite, in the same file as the journal that fills it."""

from __future__ import annotations

from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.core.clock import Micros
from lockgate.hub.ports import OutboxRow


class SqliteOutbox:
    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def lease(self, now: Micros, until: Micros, *, subject: str | None = None) -> OutboxRow | None:
        with self._store.writing() as connection:
            row = connection.execute(
                "UPDATE outbox SET leased_until = ?2, attempts = attempts + 1 WHERE id = ("
                " SELECT id FROM outbox WHERE leased_until <= ?1 AND (?3 IS NULL OR subject = ?3)"
                " ORDER BY id LIMIT 1) RETURNING id, subject, fence, body, attempts",
                (now, until, subject),
            ).fetchone()
            connection.execute("COMMIT")
        return None if row is None else OutboxRow(*row)

    def settle(self, row: OutboxRow) -> None:
        with self._store.writing() as connection:
            connection.execute("DELETE FROM outbox WHERE id = ?", (row.id,))
            connection.execute("COMMIT")

    def release(self, row: OutboxRow) -> None:
        with self._store.writing() as connection:
            # The attempt number says whether the lease is still this one.
            connection.execute(
                "UPDATE outbox SET leased_until = 0 WHERE id = ? AND attempts = ?", (row.id, row.attempts)
            )
            connection.execute("COMMIT")

    def open_rows(self, subject: str | None = None) -> int:
        with self._store.reading() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM outbox WHERE ?1 IS NULL OR subject = ?1", (subject,)
            ).fetchone()
        return int(count)
