"""`Deliveries` on SQLite. The row of no subscription holds how far the journal was followed."""

from __future__ import annotations

from collections.abc import Sequence

from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.core.clock import Micros
from lockgate.hub.ports import NEVER, Delivery

_COLUMNS = "subscription, seq, attempts, next_at, delivered_at, detail"
# The oldest of each subscription that is neither delivered nor given up, if its time has come.
_DUE = (
    "SELECT subscription, seq FROM deliveries AS due WHERE delivered_at IS NULL AND next_at <= ?1"
    " AND NOT EXISTS (SELECT 1 FROM deliveries AS older"
    "  WHERE older.subscription = due.subscription AND older.seq < due.seq"
    "  AND older.delivered_at IS NULL AND older.next_at < ?2)"
    " ORDER BY next_at, seq LIMIT 1"
)


class SqliteDeliveries:
    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def followed(self) -> int:
        with self._store.reading() as connection:
            (seq,) = connection.execute("SELECT max(seq) FROM deliveries WHERE subscription = ''").fetchone()
        return int(seq or 0)

    def owe(self, upto: int, deliveries: Sequence[tuple[str, int]]) -> None:
        with self._store.writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO deliveries (subscription, seq) VALUES (?, ?)", deliveries
            )
            connection.execute("DELETE FROM deliveries WHERE subscription = '' AND seq < ?", (upto,))
            connection.execute(
                "INSERT INTO deliveries (subscription, seq, next_at) SELECT '', ?1, ?2"
                " WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE subscription = '' AND seq >= ?1)",
                (upto, NEVER),
            )
            connection.execute("COMMIT")

    def claim(self, now: Micros, until: Micros) -> Delivery | None:
        # Asked several times a second, mostly in vain: writers are disturbed only when there is something to do.
        with self._store.reading() as connection:
            if connection.execute(_DUE, (now, NEVER)).fetchone() is None:
                return None
        with self._store.writing() as connection:
            row = connection.execute(
                "UPDATE deliveries SET attempts = attempts + 1, next_at = ?3"
                f" WHERE (subscription, seq) = ({_DUE}) RETURNING {_COLUMNS}",
                (now, NEVER, until),
            ).fetchone()
            connection.execute("COMMIT")
        return None if row is None else Delivery(*row)

    def settle(
        self, delivery: Delivery, *, delivered_at: Micros | None, next_at: Micros, detail: str
    ) -> None:
        with self._store.writing() as connection:
            # The time the claim runs out says whether it is still this one.
            connection.execute(
                "UPDATE deliveries SET delivered_at = ?, next_at = ?, detail = ?"
                " WHERE subscription = ? AND seq = ? AND attempts = ? AND next_at = ?",
                (
                    delivered_at,
                    next_at,
                    detail,
                    delivery.subscription,
                    delivery.seq,
                    delivery.attempts,
                    delivery.next_at,
                ),
            )
            connection.execute("COMMIT")

    def reopen(self, subscription: str, seq: int | None) -> None:
        with self._store.writing() as connection:
            connection.execute(
                "UPDATE deliveries SET attempts = 0, next_at = 0, delivered_at = NULL, detail = ''"
                " WHERE subscription = ?1"
                " AND CASE WHEN ?2 IS NULL THEN delivered_at IS NULL AND next_at >= ?3 ELSE seq = ?2 END",
                (subscription, seq, NEVER),
            )
            connection.execute("COMMIT")

    def listed(self, subscription: str, limit: int) -> Sequence[Delivery]:
        with self._store.reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM deliveries WHERE subscription = ? ORDER BY seq DESC LIMIT ?",
                (subscription, limit),
            )
            return [Delivery(*row) for row in rows]

    def prune(self, before: Micros) -> None:
        with self._store.writing() as connection:
            connection.execute("DELETE FROM deliveries WHERE delivered_at < ?", (before,))
            connection.execute("COMMIT")
