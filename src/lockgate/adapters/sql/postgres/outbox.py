"""`Outbox` on PostgreSQL, in the same database as the journal that fills it.

No head lock is needed: a lease is one statement, and skips the rows that somebody else is just leasing. Each call may
be repeated by the store when its connection died: a lease that nobody heard of runs out.
"""

from __future__ import annotations

from lockgate.adapters.sql.postgres.store import PostgresStore
from lockgate.core.clock import Micros
from lockgate.hub.ports import OutboxRow


class PostgresOutbox:
    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def lease(self, now: Micros, until: Micros, *, subject: str | None = None) -> OutboxRow | None:
        rows = self._store.rows(
            "UPDATE outbox SET leased_until = %(until)s, attempts = attempts + 1 WHERE id = ("
            " SELECT id FROM outbox WHERE leased_until <= %(now)s"
            " AND (%(subject)s::text IS NULL OR subject = %(subject)s)"
            " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, subject, fence, body, attempts",
            {"now": now, "until": until, "subject": subject},
        )
        return OutboxRow(*rows[0]) if rows else None

    def settle(self, row: OutboxRow) -> None:
        self._store.rows("DELETE FROM outbox WHERE id = %s RETURNING id", (row.id,))

    def release(self, row: OutboxRow) -> None:
        # The attempt number says whether the lease is still this one.
        self._store.rows(
            "UPDATE outbox SET leased_until = 0 WHERE id = %s AND attempts = %s RETURNING id",
            (row.id, row.attempts),
        )

    def open_rows(self, subject: str | None = None) -> int:
        ((count,),) = self._store.rows(
            "SELECT count(*) FROM outbox WHERE %(subject)s::text IS NULL OR subject = %(subject)s",
            {"subject": subject},
        )
        return int(count)
