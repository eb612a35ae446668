"""Drills that a hub was asked for: what cannot be walked is told as failed, and what is left behind is put right."""

from __future__ import annotations

from typing import Any

from lockgate.app.drills import ASKED_FOR_US, Drills
from lockgate.delivery.lines import DrillLine
from lockgate.delivery.messages import StartDrill
from lockgate.hub.messages import Status
from lockgate.testing.clock import CountingIds
from lockgate.testing.hub_world import CONTROLLER, MODEL_NAME, HubWorld, Story, accepted
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.memory_journal import MemoryJournal, MemoryOutbox
from lockgate.testing.memory_target import MemoryTarget

PROD = f"prod/{MODEL_NAME}"


class Rig:
    """An endpoint with a version to go back to, and a data plane that was told nothing."""

    def __init__(self) -> None:
        journal = MemoryJournal()
        self.world = HubWorld(journal, MemoryOutbox(journal.store))
        self.story = Story(self.world.hub)
        self.story.found()
        for number, name in enumerate(("one", "two")):
            self.story.release(name, f"{MODEL_NAME}@1.0.{number}")
            accepted(self.story.confirm("prod"))
        self.republished = 0
        self.journal = journal
        self.drills = self.begins()

    def begins(self) -> Drills:
        """As a hub does that was started now."""
        return Drills(
            self.journal,
            self.world.hub(CONTROLLER),
            MemoryTarget(),
            MemoryBlobs(),
            self.world.clock,
            CountingIds("d"),
            port=lambda: 1,
            republish=self.republish,
        )

    def republish(self) -> None:
        self.republished += 1

    def ask(self) -> dict[str, Any]:
        command = StartDrill(id=self.story.new_id(), endpoint=PROD, n_flips=2, by_hub=True)
        started: dict[str, Any] = accepted(self.story.do("olga", command)).events[0]
        return started

    @property
    def line(self) -> DrillLine | None:
        (line,) = self.story.ask(Status(endpoint=PROD)).endpoints.values()
        return line.rollback_ready.drill


def test_a_drill_that_cannot_be_walked_is_told_once_with_the_reason() -> None:
    rig = Rig()
    rig.drills.look()
    assert (rig.line, rig.republished) == (None, 0)
    rig.ask()
    rig.drills.look()
    assert rig.line is not None and rig.republished == 1
    assert (rig.line.number, rig.line.passed, rig.line.n_flips) == (1, False, 0)
    assert "the data plane has no plan of prod/" in rig.line.interrupted
    rig.drills.look()
    assert rig.republished == 1


def test_nobody_waits_for_a_drill_of_long_ago() -> None:
    rig = Rig()
    rig.ask()
    rig.world.clock.advance(seconds=ASKED_FOR_US / 1e6 + 1)
    rig.drills.look()
    assert (rig.line, rig.republished) == (None, 0)
    assert rig.ask()["drill"] == 2
    rig.drills.look()
    assert rig.line is not None and rig.line.number == 2


def test_what_was_asked_for_before_a_hub_began_is_no_failure_of_the_way_back() -> None:
    rig = Rig()
    rig.ask()
    rig.world.clock.advance(seconds=1)
    rig.begins().look()
    assert (rig.line, rig.republished) == (None, 0)
