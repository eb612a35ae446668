"""Who reads whose bytes at a hub over PostgreSQL."""

from __future__ import annotations

import pytest

from blob_readers import BlobReadersContract
from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.hub.ports import Store

pytestmark = pytest.mark.service


class TestReadersOnPostgres(BlobReadersContract):
    @pytest.fixture
    def make(self, database: str) -> Store:
        return open_postgres(database)
