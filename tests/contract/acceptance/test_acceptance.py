from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.hub.ports import Store
from lockgate.testing.acceptance_suite import AcceptanceContract
from lockgate.testing.memory_journal import memory_store


class TestAcceptanceInMemory(AcceptanceContract):
    @pytest.fixture
    def make(self) -> Callable[[], Store]:
        return memory_store


class TestAcceptanceOnSqlite(AcceptanceContract):
    @pytest.fixture
    def make(self, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Store]:
        folder: Path = tmp_path_factory.mktemp("stores")
        numbers = itertools.count()
        return lambda: open_sqlite(folder / f"{next(numbers)}.db")
