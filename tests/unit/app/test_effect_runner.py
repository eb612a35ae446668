"""Carrying out plans against a target that can be dead, broken or ahead."""

from __future__ import annotations

from lockgate.adapters.targets.effects import EffectRunner
from lockgate.app.deciding import CONTROLLER
from lockgate.core.messages import Receipt
from lockgate.delivery.messages import Served
from lockgate.hub.messages import ShowRollout, Status, StatusAnswer
from lockgate.registry.messages import RevokeKey
from lockgate.testing.hub_world import MODEL_NAME, SIGNER, HubWorld, Story, accepted, named_digest
from lockgate.testing.memory_target import MemoryTarget

DEV = f"dev/{MODEL_NAME}"


class Rig:
    """A hub whose effects are carried out at once, against a target in memory."""

    def __init__(self) -> None:
        self.world = HubWorld.in_memory()
        self.outbox = self.world.outbox
        self.target = MemoryTarget()
        self.unfit: dict[tuple[str, str], str] = {}
        self.vetted: list[str] = []
        self.runner = EffectRunner(
            self.outbox, {"local": self.target}, self.world.clock, vet=self.vet, pause=lambda seconds: None
        )
        self.runner.confirm = self.world.hub(CONTROLLER.actor, CONTROLLER.roles).execute
        self.world.carry_out = self.runner.carry_out
        self.story = Story(self.world.hub)
        self.story.found()

    def vet(self, served: Served, environment: str) -> str:
        self.vetted.append(served.version)
        return self.unfit.get((served.version, environment), "")

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


def test_a_package_that_is_unfit_by_now_is_never_told_to_the_target() -> None:
    rig = Rig()
    rig.to_dev("one", version("1.0.0"))
    rig.unfit[(version("1.0.1"), "dev")] = "its key was revoked"
    rig.to_dev("two", version("1.0.1"))
    assert rig.live(DEV) == "flight-delay@1.0.0"
    seen = rig.target.observe(DEV)
    assert seen.plan is not None
    assert named_digest("package", "two") not in {ref.digest for ref in seen.plan.packages}
    release = rig.story.ask(ShowRollout(endpoint=DEV, release=2)).release
    assert "its key was revoked" in release.detail
    assert rig.outbox.open_rows() == 0


def test_what_the_target_has_already_is_not_asked_about_again() -> None:
    """The way back must not depend on what has become of a key since."""
    rig = Rig()
    rig.to_dev("one", version("1.0.0"))
    rig.to_dev("two", version("1.0.1"))
    rig.vetted.clear()
    rig.unfit[(version("1.0.0"), "dev")] = "its key was revoked"
    accepted(rig.story.roll_back("dev"))
    assert rig.live(DEV) == "flight-delay@1.0.0"
    assert rig.vetted == []


def test_revoked_keys_are_told_to_every_target() -> None:
    rig = Rig()
    command = RevokeKey(id="revoke", key_id=SIGNER, reason="stolen")
    assert accepted(rig.story.do("sam", command)).effects == "done"
    assert rig.target.revoked == {SIGNER}
