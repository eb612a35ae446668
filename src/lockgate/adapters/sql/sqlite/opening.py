"""Opening a store on SQLite."""

from __future__ import annotations

from pathlib import Path

from lockgate.adapters.sql.sqlite.deliveries import SqliteDeliveries
from lockgate.adapters.sql.sqlite.homes import SqliteHomes
from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.outbox import SqliteOutbox
from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.adapters.sql.sqlite.usage import SqliteUsage
from lockgate.hub.ports import Store


def open_sqlite(path: Path) -> Store:
    """The store in one file; an empty one when there is no such file.

    Raises:
        JournalUnreadable, StoreUnreachable, StoreTooNew: as `SqliteStore` says.
    """
    store = SqliteStore(path)
    return Store(
        SqliteJournal(store),
        SqliteOutbox(store),
        SqliteUsage(store),
        SqliteDeliveries(store),
        SqliteHomes(store),
    )
