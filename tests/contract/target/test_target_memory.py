from __future__ import annotations

import pytest

from lockgate.testing.memory_target import MemoryTarget
from lockgate.testing.target_suite import TargetContract, TargetRig


class TestMemoryTarget(TargetContract):
    @pytest.fixture
    def make(self) -> TargetRig:
        target = MemoryTarget()
        return TargetRig(target, target.broken.__setitem__, lambda: setattr(target, "alive", False))
