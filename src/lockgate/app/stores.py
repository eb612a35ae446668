"""Which database holds a store, chosen by its URL. Only the chosen driver is loaded."""

from __future__ import annotations

from pathlib import Path

from lockgate.adapters.identity.secrets import resolve as resolve_secret
from lockgate.app.plugins import resolve
from lockgate.core.secrets import parse_secret_ref
from lockgate.hub.ports import Store

_SQLITE = "sqlite:"


def open_store(url: str, *, base: Path) -> Store:
    """Open the store at `url`, migrated to this release.

    Args:
        url: `sqlite:PATH`, or a reference to a secret (`env:NAME`, `file:PATH`) that holds the connection string of a
            PostgreSQL database. The string itself may hold a password and is never taken.
        base: where relative paths start.

    Raises:
        NotAReference: it is neither.
        SecretMissing: there is nothing where the reference points.
        StoreUnreachable, StoreTooNew, JournalUnreadable: by the database.
        ExtraMissing: the driver is not installed.
    """
    if url.startswith(_SQLITE):
        path = base / url.removeprefix(_SQLITE)
        store: Store = resolve("lockgate.adapters.sql.sqlite:open_sqlite")(path)
    else:
        dsn = resolve_secret(parse_secret_ref(url, where="store.url"), base=base)
        store = resolve("lockgate.adapters.sql.postgres:open_postgres")(dsn)
    return store
