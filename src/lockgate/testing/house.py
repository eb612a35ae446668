"""A registry with its bytes, in memory, for tests of what is kept and what goes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from lockgate.core.digests import Digest
from lockgate.core.messages import Receipt, RefusedCommand
from lockgate.data.state import SNAPSHOT
from lockgate.hub.holdings import same_rows
from lockgate.registry.messages import CollectPackage, HoldVersion, RejectVersion
from lockgate.testing.clock import CountingIds, FakeClock
from lockgate.testing.furnished import FurnishedStory
from lockgate.testing.hub_world import OPERATOR, HubWorld
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.workshop.upkeep.collecting import Collected, collect
from lockgate.workshop.upkeep.erasing import Erased, carry_out, decide

TERMS = {"low": 10, "moderate": 20, "high": 30, "critical": 40}


class House:
    """A world with blobs in which time can pass, and in which what is not needed any more can be taken away."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.world = HubWorld.in_memory(clock=self.clock)
        self.blobs = MemoryBlobs(now=self.clock.now)
        self.world.same_rows = lambda snapshot: same_rows(snapshot, self.world.journal, self.blobs.get)
        self.story = FurnishedStory(self.world.hub, self.blobs)
        self.story.found()
        self.ids = CountingIds("keep")

    def collect(self, **how: Any) -> Collected:
        return collect(
            self.world.hub(OPERATOR).execute,
            self.world.journal,
            self.blobs,
            self.clock,
            self.ids,
            actor=OPERATOR,
            terms=TERMS,
            unneeded_days=5,
            **how,
        )

    def erase(self, *named: str, reason: str = "request 4711") -> Erased:
        snapshots = decide(self.world.hub("sam"), self.ids.new, named=named, reason=reason)
        return carry_out(self.world.journal, self.blobs, snapshots=snapshots)

    def try_to_erase(self, snapshot: Digest) -> None:
        """Erase, unless somebody holds what was made of it."""
        with suppress(RefusedCommand):
            self.erase(snapshot)

    def is_erased(self, snapshot: Digest) -> bool:
        stored = self.world.journal.document(SNAPSHOT.name, snapshot)
        return stored is not None and stored.state == "erased"

    def reject(self, version: str) -> None:
        command = RejectVersion(id=self.story.new_id(), version=version, reason="worse")
        self.story.do("bob", command)

    def hold(self, version: str, matter: str = "case") -> Receipt:
        command = HoldVersion(id=self.story.new_id(), version=version, matter=matter, reason="complaint")
        return self.story.do("bob", command)

    def collecting(self, version: str, term_days: int = 30) -> Receipt:
        command = CollectPackage(id=self.story.new_id(), version=version, term_days=term_days)
        return self.story.do(OPERATOR, command)

    def holds(self, *digests: Digest) -> bool:
        return all(self.blobs.has(digest) for digest in digests)
