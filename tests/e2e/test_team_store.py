"""Given the hub of a team over SQLite and a folder, when its operator carries it elsewhere, collects, erases and holds
on its own machine, then it is as lossless, as careful and as strict as over the wire."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from team_store_suite import Place, TeamStores


class TestTeamStoresOfSqlite(TeamStores):
    @pytest.fixture
    def new_place(self, tmp_path: Path) -> Callable[..., Place]:
        return lambda name, config="": Place(tmp_path / name, "sqlite:hub.db", "file:blobs", config)

    def deadly(self, place: Place) -> dict[str, tuple[str, int]]:
        blobs, sql = "lockgate.adapters.blobs.directory:DirectoryBlobs", "lockgate.adapters.sql.sqlite"
        return {
            "put": (f"{blobs}.put", 5),
            "commit": (f"{sql}.journal:SqliteTransaction.commit", 0),
            "owe": (f"{sql}.deliveries:SqliteDeliveries.owe", 0),
            "discard": (f"{blobs}.discard", 1),
            "delete": (f"{blobs}.delete", 1),
        }
