"""Opening a store on PostgreSQL."""

from __future__ import annotations

from lockgate.adapters.sql.postgres.deliveries import PostgresDeliveries
from lockgate.adapters.sql.postgres.homes import PostgresHomes
from lockgate.adapters.sql.postgres.journal import PostgresJournal
from lockgate.adapters.sql.postgres.outbox import PostgresOutbox
from lockgate.adapters.sql.postgres.store import PostgresStore
from lockgate.adapters.sql.postgres.usage import PostgresUsage
from lockgate.hub.ports import Store


def open_postgres(dsn: str, *, place: str = "the PostgreSQL store") -> Store:
    """The store in the database that `dsn` names, its tables made or migrated.

    Raises:
        ConnectionStringInvalid, StoreUnreachable, StoreUnsuitable, StoreTooNew: as `PostgresStore` says.
    """
    store = PostgresStore(dsn, place=place)
    return Store(
        PostgresJournal(store),
        PostgresOutbox(store),
        PostgresUsage(store),
        PostgresDeliveries(store),
        PostgresHomes(store),
    )
