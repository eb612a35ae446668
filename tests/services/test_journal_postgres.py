from __future__ import annotations

import pytest

from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.hub.ports import Store
from lockgate.testing.homes_suite import HomesContract
from lockgate.testing.journal_suite import DeliveriesContract, JournalContract, OutboxContract, UsageContract

pytestmark = pytest.mark.service


class TestPostgresJournal(JournalContract):
    keeps_nul = False

    @pytest.fixture
    def make(self, database: str) -> Store:
        return open_postgres(database)


class TestPostgresUsage(UsageContract):
    @pytest.fixture
    def make(self, database: str) -> Store:
        return open_postgres(database)


class TestPostgresDeliveries(DeliveriesContract):
    @pytest.fixture
    def make(self, database: str) -> Store:
        return open_postgres(database)


class TestPostgresHomes(HomesContract):
    @pytest.fixture
    def make(self, database: str) -> Store:
        return open_postgres(database)


class TestPostgresOutbox(OutboxContract):
    @pytest.fixture
    def make(self, database: str) -> Store:
        return open_postgres(database)
