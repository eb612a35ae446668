"""Who reads whose bytes at a hub, over a journal in memory and one on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from blob_readers import BlobReadersContract
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.hub.ports import Store
from lockgate.testing.memory_journal import memory_store


class TestReadersInMemory(BlobReadersContract):
    @pytest.fixture
    def make(self) -> Store:
        return memory_store()


class TestReadersOnSqlite(BlobReadersContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Store:
        return open_sqlite(tmp_path / "journal.db")
