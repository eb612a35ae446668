"""The model of the hub that chance drives in tests/properties, over PostgreSQL: fewer examples, the same invariants."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from postgres import PostgresServer

from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.testing.hub_world import HubWorld

sys.path.append(str(Path(__file__).parent.parent / "properties"))
from test_hub_machine import HubMachine

pytestmark = pytest.mark.service
NUMBERS = itertools.count(1)
SERVERS: list[PostgresServer] = []


class PostgresMachine(HubMachine):
    def open_world(self) -> HubWorld:
        name = f"machine{next(NUMBERS)}"
        SERVERS[-1].administer("CREATE SCHEMA {}", "postgres", name)
        return HubWorld(*open_postgres(SERVERS[-1].dsn(schema=name))[:2])


@pytest.fixture(scope="module", autouse=True)
def server(postgres: PostgresServer) -> Iterator[None]:
    SERVERS.append(postgres)
    yield
    SERVERS.pop()


TestHubOnPostgres = PostgresMachine.TestCase
TestHubOnPostgres.settings = settings(max_examples=8, stateful_step_count=25)
