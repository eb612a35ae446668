from __future__ import annotations

from collections.abc import Callable

import pytest

from lockgate.hub.kernel import Hub
from lockgate.testing.hub_suite import HubContract
from lockgate.testing.hub_world import HubWorld


class TestHubInMemory(HubContract):
    @pytest.fixture
    def connect(self) -> Callable[[str], Hub]:
        return HubWorld.in_memory().hub


class TestHubOnSqlite(HubContract):
    @pytest.fixture
    def connect(self, sqlite_world: HubWorld) -> Callable[[str], Hub]:
        return sqlite_world.hub
