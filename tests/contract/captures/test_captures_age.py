"""Captures end with their term, and never under a rollout that is judged by them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lockgate.adapters.targets.captures import CaptureReader
from lockgate.core.clock import Micros
from lockgate.delivery.messages import EraseCaptures
from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.state import ENDPOINT, EndpointState
from lockgate.hub.kernel import read_body
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted
from lockgate.traffic.capture import CAPTURE_DIR
from lockgate.workshop.upkeep.collecting import prune_captures

PROD = f"prod/{MODEL_NAME}"
DAY: Micros = 86_400_000_000
STEP = RolloutStep(stage="canary", weight=1_000, min_units=10, bake_s=0.0)
SETTINGS = EndpointSettings(rollout=RolloutPolicy(steps=(STEP,), guards={"errors": Guard()}))


class Rig:
    """An endpoint whose second version is on a step, and a run directory."""

    def __init__(self, run: Path) -> None:
        self.world = HubWorld.in_memory()
        self.story = Story(self.world.hub)
        self.folder = run / CAPTURE_DIR / PROD.replace("/", ".")
        self.folder.mkdir(parents=True)
        self.reader = CaptureReader(run)
        self.story.found()
        accepted(self.story.configure("prod", SETTINGS))
        self.story.release("one", f"{MODEL_NAME}@1.0.0")
        self.story.release("two", f"{MODEL_NAME}@1.0.1")

    @property
    def endpoint(self) -> EndpointState:
        stored = self.world.journal.document(ENDPOINT.name, PROD)
        assert stored is not None
        return read_body(ENDPOINT, stored)

    def written(self, generation: int, days_ago: float, worker: str = "1-1") -> None:
        path = self.folder / f"{generation}-{worker}.jsonl"
        path.write_bytes(b"\n")
        at = int((self.world.clock.now() - days_ago * DAY) * 1000)
        os.utime(path, ns=(at, at))

    def prune(self, days: int = 30) -> list[str]:
        before = {path.name for path in self.folder.iterdir()}
        n = prune_captures(self.world.journal, self.reader, self.world.clock.now(), days)
        gone = before - {path.name for path in self.folder.iterdir()}
        assert len(gone) == n
        return sorted(gone)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_what_was_written_under_plans_that_are_over_goes_after_its_term(rig: Rig) -> None:
    rollout = rig.endpoint.rollout
    assert rollout is not None and rollout.generation > 1
    for generation in range(1, rollout.generation):
        rig.written(generation, 31)
        rig.written(generation, 29, "2-2")
    gone = [f"{generation}-1-1.jsonl" for generation in range(1, rollout.generation)]
    assert rig.prune(32) == []
    assert rig.prune() == gone
    assert rig.prune() == []


def test_a_rollout_keeps_what_it_is_judged_by_however_old_it_is(rig: Rig) -> None:
    rollout = rig.endpoint.rollout
    assert rollout is not None
    rig.written(rollout.generation, 400)
    rig.written(rig.endpoint.generation, 400, "2-2")
    assert rig.prune(0) == []
    accepted(rig.story.roll_back("prod"))
    accepted(rig.story.confirm("prod"))
    assert rig.endpoint.rollout is None and rig.endpoint.generation > rollout.generation
    rig.written(rig.endpoint.generation, 400, "3-3")
    assert rig.prune(0) == [f"{rollout.generation}-1-1.jsonl", f"{rollout.generation}-2-2.jsonl"]


def test_an_erasure_finds_what_is_still_there(rig: Rig) -> None:
    """Both may be at work on the same files."""
    rig.written(1, 31)
    accepted(rig.story.do("petra", EraseCaptures(id=rig.story.new_id(), endpoint=PROD, reason="asked for")))
    assert rig.prune() == ["1-1-1.jsonl"]
    assert rig.reader.erase(PROD, {"somebody"}) == 0
