"""`Deliveries` on PostgreSQL. The row of no subscription holds how far the journal was followed.

Each call is one statement, so it may be repeated by the store when its connection died: a claim that nobody heard of
runs out, and costs an attempt.
"""

from __future__ import annotations

from collections.abc import Sequence

from lockgate.adapters.sql.postgres.store import PostgresStore
from lockgate.core.clock import Micros
from lockgate.hub.ports import NEVER, Delivery

_COLUMNS = "subscription, seq, attempts, next_at, delivered_at, detail"


class PostgresDeliveries:
    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def followed(self) -> int:
        ((seq,),) = self._store.rows(
            "SELECT coalesce(max(seq), 0) FROM deliveries WHERE subscription = ''", ()
        )
        return int(seq)

    def owe(self, upto: int, deliveries: Sequence[tuple[str, int]]) -> None:
        self._store.rows(
            "WITH owed AS (INSERT INTO deliveries (subscription, seq)"
            " SELECT * FROM unnest(%(names)s::text[], %(numbers)s::bigint[]) ON CONFLICT DO NOTHING),"
            " left_behind AS (DELETE FROM deliveries WHERE subscription = '' AND seq < %(upto)s)"
            " INSERT INTO deliveries (subscription, seq, next_at) SELECT '', %(upto)s, %(never)s"
            " WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE subscription = '' AND seq >= %(upto)s)"
            " ON CONFLICT DO NOTHING RETURNING seq",
            {
                "names": [name for name, _ in deliveries],
                "numbers": [seq for _, seq in deliveries],
                "upto": upto,
                "never": NEVER,
            },
        )

    def claim(self, now: Micros, until: Micros) -> Delivery | None:
        rows = self._store.rows(
            "UPDATE deliveries SET attempts = attempts + 1, next_at = %(until)s WHERE (subscription, seq) = ("
            " SELECT subscription, seq FROM deliveries AS due"
            " WHERE delivered_at IS NULL AND next_at <= %(now)s"
            " AND NOT EXISTS (SELECT 1 FROM deliveries AS older"
            "  WHERE older.subscription = due.subscription AND older.seq < due.seq"
            "  AND older.delivered_at IS NULL AND older.next_at < %(never)s)"
            f" ORDER BY next_at, seq LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING {_COLUMNS}",
            {"now": now, "until": until, "never": NEVER},
        )
        return Delivery(*rows[0]) if rows else None

    def settle(
        self, delivery: Delivery, *, delivered_at: Micros | None, next_at: Micros, detail: str
    ) -> None:
        # The time the claim runs out says whether it is still this one. PostgreSQL keeps no NUL in a text.
        self._store.rows(
            "UPDATE deliveries SET delivered_at = %(at)s, next_at = %(next)s, detail = %(detail)s"
            " WHERE subscription = %(name)s AND seq = %(seq)s AND attempts = %(attempts)s"
            " AND next_at = %(until)s RETURNING seq",
            {
                "at": delivered_at,
                "next": next_at,
                "detail": detail.replace("\0", ""),
                "name": delivery.subscription,
                "seq": delivery.seq,
                "attempts": delivery.attempts,
                "until": delivery.next_at,
            },
        )

    def reopen(self, subscription: str, seq: int | None) -> None:
        self._store.rows(
            "UPDATE deliveries SET attempts = 0, next_at = 0, delivered_at = NULL, detail = ''"
            " WHERE subscription = %(name)s AND CASE WHEN %(seq)s::bigint IS NULL"
            " THEN delivered_at IS NULL AND next_at >= %(never)s ELSE seq = %(seq)s END RETURNING seq",
            {"name": subscription, "seq": seq, "never": NEVER},
        )

    def listed(self, subscription: str, limit: int) -> Sequence[Delivery]:
        rows = self._store.rows(
            f"SELECT {_COLUMNS} FROM deliveries WHERE subscription = %s ORDER BY seq DESC LIMIT %s",
            (subscription, limit),
        )
        return [Delivery(*row) for row in rows]

    def prune(self, before: Micros) -> None:
        self._store.rows("DELETE FROM deliveries WHERE delivered_at < %s RETURNING seq", (before,))
