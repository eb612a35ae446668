"""Tickets and their tracker, at hubs over PostgreSQL."""

from __future__ import annotations

import itertools

import pytest
from postgres import PostgresServer

from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.testing.hub_world import HubWorld
from lockgate.testing.ticket_suite import TicketContract

pytestmark = pytest.mark.service
_NUMBERS = itertools.count(1)


class TestTicketsOnPostgres(TicketContract):
    @pytest.fixture
    def world(self, postgres: PostgresServer) -> HubWorld:
        name = f"tickets{next(_NUMBERS)}"
        postgres.administer("CREATE SCHEMA {}", "postgres", name)
        store = open_postgres(postgres.dsn(schema=name))
        return HubWorld(store.journal, store.outbox)
