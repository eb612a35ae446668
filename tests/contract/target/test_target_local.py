"""The local target with a real plane, watcher and control files behind it; only the packages are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lockgate.adapters.targets.local import LocalTarget
from lockgate.core.blobs import BlobCorrupt
from lockgate.serving.control import Presence
from lockgate.serving.plane import Plane
from lockgate.serving.watch import Watcher
from lockgate.testing.memory_target import MemoryLoader, constant
from lockgate.testing.target_suite import TargetContract, TargetRig, package_digest


class TestLocalTarget(TargetContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[TargetRig]:
        loader = MemoryLoader()
        for version, value in (("1.0.0", 0.1), ("2.0.0", 0.2)):
            loader.add(package_digest(version), constant(value))
        watcher = Watcher(Plane(), Presence(tmp_path, pid=4711, token=1), tmp_path, loader)
        watcher.start()
        running = [watcher]

        def kill() -> None:
            running.pop().stop()

        def break_package(digest: str, why: str) -> None:
            loader.packages[digest] = BlobCorrupt(why, remedy="none")

        yield TargetRig(LocalTarget(tmp_path), break_package, kill)
        if running:
            kill()
