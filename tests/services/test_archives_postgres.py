"""A registry's history in and out of PostgreSQL, through the port alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from postgres import PostgresServer

from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.hub.ports import Store
from lockgate.testing.archive_suite import ArchiveContract

pytestmark = pytest.mark.service
_NUMBERS = itertools.count(1)


class TestArchivesOfPostgres(ArchiveContract):
    @pytest.fixture
    def make(self, postgres: PostgresServer) -> Callable[[], Store]:
        def new() -> Store:
            name = f"archive{next(_NUMBERS)}"
            postgres.administer("CREATE SCHEMA {}", "postgres", name)
            return open_postgres(postgres.dsn(schema=name))

        return new
