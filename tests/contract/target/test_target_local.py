"""The local target with a real plane, watcher and control files behind it; only the packages are in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockgate.adapters.targets.local import LocalTarget
from lockgate.core.blobs import BlobCorrupt
from lockgate.serving.control import Presence
from lockgate.serving.endpoint import Endpoint
from lockgate.serving.plane import Plane
from lockgate.serving.watch import Watcher
from lockgate.testing.memory_target import MemoryLoader, constant
from lockgate.testing.target_suite import ENDPOINT, TargetContract, TargetRig, package_digest, sample_plan


class SlowPlane(Plane):
    """Takes its time to know an endpoint: long enough for a loader to look, find nothing and sleep again."""

    def add(self, endpoint: Endpoint) -> None:
        threading.Event().wait(0.05)
        super().add(endpoint)


def test_a_loader_that_is_quicker_than_the_watcher_misses_nothing(tmp_path: Path) -> None:
    loader = MemoryLoader()
    loader.add(package_digest("1.0.0"), constant(0.1))
    watcher = Watcher(SlowPlane(), Presence(tmp_path, pid=4711, token=1), tmp_path, loader)
    watcher.start()
    try:
        target = LocalTarget(tmp_path)
        target.apply(sample_plan(1, "1.0.0"))
        assert target.wait(ENDPOINT, 1, 20.0).reached(1)
    finally:
        watcher.stop()


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
