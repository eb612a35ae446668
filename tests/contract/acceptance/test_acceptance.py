from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.hub.ports import Store
from lockgate.testing.acceptance_suite import AcceptanceContract
from lockgate.testing.memory_journal import MemoryDeliveries, MemoryJournal, MemoryOutbox, MemoryUsage


class TestAcceptanceInMemory(AcceptanceContract):
    @pytest.fixture
    def make(self) -> Callable[[], Store]:
        def new() -> Store:
            journal = MemoryJournal()
            return Store(
                journal,
                MemoryOutbox(journal.store),
                MemoryUsage(journal.store),
                MemoryDeliveries(journal.store),
            )

        return new


class TestAcceptanceOnSqlite(AcceptanceContract):
    @pytest.fixture
    def make(self, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Store]:
        folder: Path = tmp_path_factory.mktemp("stores")
        numbers = itertools.count()
        return lambda: open_sqlite(folder / f"{next(numbers)}.db")
