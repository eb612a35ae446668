"""The store of a team's hub on PostgreSQL, its blobs in SeaweedFS: carried to SQLite and a folder and back again,
collected, erased and held, and killed in the midst of each."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres import PostgresServer
from seaweed import Seaweed, environment, seaweed

sys.path.append(str(Path(__file__).parent.parent / "e2e"))
from team_store_suite import Place, TeamStores

pytestmark = pytest.mark.service
_NUMBERS = itertools.count(1)
_SQL, _BLOBS = "lockgate.adapters.sql", "lockgate.adapters.blobs"


@pytest.fixture(scope="module")
def objects() -> Iterator[Seaweed]:
    with seaweed() as running:
        yield running


class _OnServers(TeamStores):
    @pytest.fixture
    def on_servers(
        self, tmp_path: Path, postgres: PostgresServer, objects: Seaweed, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Place]:
        for name, value in environment().items():
            monkeypatch.setenv(name, value)

        def new(name: str, config: str = "") -> Place:
            number = next(_NUMBERS)
            postgres.administer("CREATE SCHEMA {}", "postgres", f"team{number}")
            monkeypatch.setenv(f"TEAM_DSN_{number}", postgres.dsn(schema=f"team{number}"))
            blobs = objects.url(f"models/team{number}")
            return Place(tmp_path / name, f"env:TEAM_DSN_{number}", blobs, config)

        return new

    @pytest.fixture
    def on_disk(self, tmp_path: Path) -> Callable[..., Place]:
        return lambda name, config="": Place(tmp_path / name, "sqlite:hub.db", "file:blobs", config)

    def deadly(self, place: Place) -> dict[str, tuple[str, int]]:
        kind, sql = (
            ("sqlite", "Sqlite") if place.store_url.startswith("sqlite:") else ("postgres", "Postgres")
        )
        blobs = (
            "directory:DirectoryBlobs" if place.blobs_url.startswith("file:") else "object_store:ObjectBlobs"
        )
        return {
            "put": (f"{_BLOBS}.{blobs}.put", 5),
            "commit": (f"{_SQL}.{kind}.journal:{sql}Transaction.commit", 0),
            "owe": (f"{_SQL}.{kind}.deliveries:{sql}Deliveries.owe", 0),
            "discard": (f"{_BLOBS}.{blobs}.discard", 1),
            "delete": (f"{_BLOBS}.{blobs}.delete", 1),
        }


class TestFromServersToADisk(_OnServers):
    @pytest.fixture
    def new_place(self, on_servers: Callable[..., Place]) -> Callable[..., Place]:
        return on_servers

    @pytest.fixture
    def other_place(self, on_disk: Callable[..., Place]) -> Callable[..., Place]:
        return on_disk


class TestFromADiskToServers(_OnServers):
    """What is not carried is the same as in `tests/e2e/test_team_store.py`."""

    @pytest.fixture
    def new_place(self, on_disk: Callable[..., Place]) -> Callable[..., Place]:
        return on_disk

    @pytest.fixture
    def other_place(self, on_servers: Callable[..., Place]) -> Callable[..., Place]:
        return on_servers

    test_what_ended_is_collected_by_the_terms_of_the_hub_unless_it_is_held = None
    test_rows_are_erased_where_the_hub_is_and_over_the_wire = None
    test_where_names_are_proven_they_are_proven_on_the_machine_of_the_hub_too = None
    test_a_collection_that_is_killed_is_ended_by_the_next_one = None
