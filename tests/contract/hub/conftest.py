from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.outbox import SqliteOutbox
from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.testing.hub_world import HubWorld


@pytest.fixture
def sqlite_world(tmp_path: Path) -> HubWorld:
    store = SqliteStore(tmp_path / "journal.db")
    return HubWorld(SqliteJournal(store), SqliteOutbox(store))
