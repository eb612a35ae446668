"""A worker whose report cannot be written goes on taking up plans, and reports when there is room again."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path

from lockgate.adapters.targets.local import LocalTarget
from lockgate.core.digests import Digest, sha256
from lockgate.serving.control import Presence
from lockgate.serving.plane import Plane
from lockgate.serving.watch import Watcher
from lockgate.testing.memory_target import MemoryLoader, constant
from lockgate.traffic.observed import EndpointReport
from lockgate.traffic.plan import N_SLOTS, PackageRef, Plan, Route

NAME = "prod/main/lamp"


class FullDisk(Presence):
    full = False

    def report(self, endpoints: Mapping[str, EndpointReport]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().report(endpoints)


def plan(generation: int, package: Digest) -> Plan:
    return Plan(
        endpoint=NAME,
        generation=generation,
        packages=(PackageRef(version=f"main/lamp@1.0.{generation}", digest=package),),
        routes=(Route(package=package, weight=N_SLOTS),),
        live=package,
    )


def test_a_full_disk_does_not_stop_the_loading(tmp_path: Path, eventually: Callable[..., object]) -> None:
    one, two, three = (sha256(name) for name in (b"one", b"two", b"three"))
    loader, presence, target = MemoryLoader(), FullDisk(tmp_path, pid=1, token=1), LocalTarget(tmp_path)
    for package in (one, two, three):
        loader.add(package, constant(0.25))
    watcher = Watcher(Plane(), presence, tmp_path, loader)
    watcher.start()
    try:
        target.apply(plan(1, one))
        assert target.wait(NAME, 1, 20).reached(1)
        presence.full = True
        target.apply(plan(2, two))
        assert target.wait(NAME, 2, 20).reached(2)
        target.apply(plan(3, three))
        assert target.wait(NAME, 3, 20).reached(3)
        presence.full = False
        eventually(lambda: target.observe(NAME).workers[0].loaded == (three,))
    finally:
        watcher.stop()
