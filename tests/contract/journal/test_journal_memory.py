from __future__ import annotations

import pytest

from lockgate.hub.ports import Store
from lockgate.testing.homes_suite import HomesContract
from lockgate.testing.journal_suite import DeliveriesContract, JournalContract, OutboxContract, UsageContract
from lockgate.testing.memory_journal import memory_store


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def make(self) -> Store:
        return memory_store()


class TestMemoryOutbox(OutboxContract):
    @pytest.fixture
    def make(self) -> Store:
        return memory_store()


class TestMemoryUsage(UsageContract):
    @pytest.fixture
    def make(self) -> Store:
        return memory_store()


class TestMemoryDeliveries(DeliveriesContract):
    @pytest.fixture
    def make(self) -> Store:
        return memory_store()


class TestMemoryHomes(HomesContract):
    @pytest.fixture
    def make(self) -> Store:
        return memory_store()
