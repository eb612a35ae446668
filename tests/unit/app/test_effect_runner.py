"""Carrying out plans against a target that can be dead, broken or ahead."""

from __future__ import annotations

from lockgate.app.deciding import CONTROLLER
from lockgate.app.effects import EffectRunner
from lockgate.core.messages import Receipt
from lockgate.hub.messages import Status, StatusAnswer
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted, named_digest
from lockgate.testing.memory_journal import MemoryJournal, MemoryOutbox, MemoryStore
from lockgate.testing.memory_target import MemoryTarget

DEV = f"dev/{MODEL_NAME}"


class Rig:
    """A hub whose effects are carried out at once, against a target in memory."""

    def __init__(self) -> None:
        store = MemoryStore()
        self.world = HubWorld(MemoryJournal(store), MemoryOutbox(store))
        self.outbox = self.world.outbox
        self.target = MemoryTarget()
        self.runner = EffectRunner(
            self.outbox, {"local": self.target}, self.world.clock, pause=lambda seconds: None
        )
        self.runner.confirm = self.world.hub(CONTROLLER.actor, CONTROLLER.roles).execute
        self.world.carry_out = self.runner.carry_out
        self.story = Story(self.world.hub)
        self.story.found()

    def live(self, endpoint: str) -> str | None:
        answer: StatusAnswer = self.world.ask(Status(endpoint=endpoint))
        (line,) = answer.endpoints.values()
        return line.live.version if line.live else None

    def to_dev(self, name: str, version: str) -> Receipt:
        self.story.train(name)
        accepted(self.story.register(name))
        return accepted(self.story.promote(version, "dev"))


def version(number: str) -> str:
    return f"{MODEL_NAME}@{number}"


def test_a_release_is_live_when_the_target_was_seen_to_serve_it() -> None:
    rig = Rig()
    receipt = rig.to_dev("one", version("1.0.0"))
    assert receipt.effects == "done"
    assert rig.live(DEV) == "flight-delay@1.0.0"
    assert rig.outbox.open_rows() == 0


def test_without_a_data_plane_the_effect_waits_and_is_carried_out_later() -> None:
    rig = Rig()
    rig.target.alive = False
    receipt = rig.to_dev("one", version("1.0.0"))
    assert receipt.effects == "pending"
    assert rig.live(DEV) is None
    assert rig.outbox.open_rows() == 1
    rig.target.alive = True
    assert rig.runner.carry_out()
    assert rig.live(DEV) == "flight-delay@1.0.0"
    assert rig.runner.carry_out()


def test_a_package_that_does_not_load_fails_and_the_plan_before_is_published_again() -> None:
    rig = Rig()
    rig.to_dev("one", version("1.0.0"))
    rig.story.train("two")
    accepted(rig.story.register("two"))
    rig.target.broken[named_digest("package", "two")] = "golden rows differ"
    accepted(rig.story.promote(version("1.0.1"), "dev"))
    assert rig.live(DEV) == "flight-delay@1.0.0"
    seen = rig.target.observe(DEV)
    assert seen.plan is not None and seen.plan.generation == 3
    assert seen.plan.live == named_digest("package", "one")
    assert rig.outbox.open_rows() == 0


def test_a_rollback_flips_back_and_the_plan_is_newer() -> None:
    rig = Rig()
    rig.to_dev("one", version("1.0.0"))
    rig.to_dev("two", version("1.0.1"))
    before = rig.target.observe(DEV).generation
    accepted(rig.story.roll_back("dev"))
    assert rig.live(DEV) == "flight-delay@1.0.0"
    assert rig.target.observe(DEV).generation == before + 1


def test_an_old_row_that_comes_late_changes_nothing() -> None:
    """The process that leased a row dies; meanwhile the endpoint has moved on."""
    rig = Rig()
    rig.target.alive = False
    rig.to_dev("one", version("1.0.0"))
    rig.target.alive = True
    lost = rig.outbox.lease(rig.world.clock.now(), rig.world.clock.now() + 10**9)
    assert lost is not None
    accepted(rig.story.confirm("dev"))
    rig.to_dev("two", version("1.0.1"))
    rig.world.clock.advance(seconds=2000)
    assert rig.runner.carry_out()
    assert rig.live(DEV) == "flight-delay@1.0.1"
    assert rig.outbox.open_rows() == 0


def test_nothing_is_done_when_nothing_waits() -> None:
    rig = Rig()
    head = rig.world.journal.head()
    assert rig.runner.carry_out()
    assert rig.world.journal.head() == head
