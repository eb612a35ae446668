"""Servers that several files share: started once, when first asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from postgres import PostgresServer, postgres_server

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    """The connection string of an empty schema of its own: made in a hundredth of the time that a database takes."""
    name = f"test{next(_NUMBERS)}"
    postgres.administer("CREATE SCHEMA {}", "postgres", name)
    return postgres.dsn(schema=name)
