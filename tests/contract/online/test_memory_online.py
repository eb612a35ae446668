from __future__ import annotations

from collections.abc import Callable

import pytest

from lockgate.features.ports import OnlineStore
from lockgate.testing.memory_online import MemoryOnline
from lockgate.testing.online_suite import OnlineContract


class TestMemoryOnline(OnlineContract):
    @pytest.fixture
    def make(self) -> Callable[[], OnlineStore]:
        return MemoryOnline
