"""The controller of rollouts beside its looks: a version that keeps taking the data plane down is called off."""

from __future__ import annotations

import pytest

from lockgate.app.rollouts import CRASH_LOOP, RolloutController
from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep
from lockgate.hub.messages import ShowRollout, Status
from lockgate.testing.clock import CountingIds
from lockgate.testing.hub_world import CONTROLLER, MODEL_NAME, HubWorld, Story, accepted

PROD = f"prod/{MODEL_NAME}"
STEP = RolloutStep(stage="canary", weight=1_000, min_units=10, bake_s=0.0)
SETTINGS = EndpointSettings(rollout=RolloutPolicy(steps=(STEP,), guards={"errors": Guard()}))


class Rig:
    def __init__(self) -> None:
        self.world = HubWorld.in_memory()
        self.story = Story(self.world.hub)
        self.story.found()
        accepted(self.story.configure("prod", SETTINGS))
        self.story.release("one", f"{MODEL_NAME}@1.0.0")
        self.story.release("two", f"{MODEL_NAME}@1.0.1")
        self.controller = RolloutController(
            self.world.journal,
            self.world.hub(CONTROLLER),
            lambda: pytest.fail("nothing is looked at here"),
            self.world.clock,
            CountingIds("r"),
        )

    @property
    def state(self) -> str:
        (line,) = self.story.ask(Status(endpoint=PROD)).endpoints.values()
        return line.rollout.state if line.rollout else ""


def test_a_crash_loop_calls_the_rollout_off() -> None:
    rig = Rig()
    assert rig.state == "canary"
    for _ in range(CRASH_LOOP - 1):
        rig.controller.plane_ended()
        assert rig.state == "canary"
    rig.controller.plane_ended()
    assert rig.state == ""
    release = rig.story.ask(ShowRollout(endpoint=PROD)).release
    assert (release.state, "ended 3 times" in release.detail) == ("failed", True)
    rig.controller.plane_ended()


def test_ends_far_apart_are_no_loop() -> None:
    rig = Rig()
    for _ in range(2 * CRASH_LOOP):
        rig.controller.plane_ended()
        rig.world.clock.advance(seconds=31)
    assert rig.state == "canary"


def test_every_plan_is_given_its_own_chance() -> None:
    rig = Rig()
    for _ in range(CRASH_LOOP - 1):
        rig.controller.plane_ended()
    accepted(rig.story.roll_back("prod"))
    accepted(rig.story.confirm("prod"))
    accepted(rig.story.promote(f"{MODEL_NAME}@1.0.1", "prod"))
    rig.controller.plane_ended()
    assert rig.state == "preparing"
