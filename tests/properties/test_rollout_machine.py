"""Rollouts as a state machine, written a second time in plain Python and held against the hub.

People, the controller of rollouts and the one of effects take turns in any order; any of them dies after any step of
the kernel and does it again. Whatever happens: what answers callers is the live version or a share of the one on its
way, plans only get newer, and nothing goes forward without proof or a name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from worlds import CRASH, InMemory, OnSqlite, sent_once

from lockgate.core.messages import Command, Receipt
from lockgate.delivery.lines import EndpointLine
from lockgate.delivery.messages import (
    AdvanceRollout,
    ApplyPlan,
    ConfirmPlan,
    JudgeRollout,
    PauseRollout,
    PromoteVersion,
    ResumeRollout,
    RollBackEndpoint,
    StartDrill,
)
from lockgate.delivery.plan import adoption_of, plan_of
from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.rollouts.verdict import Look, Segment, Tally
from lockgate.hub.messages import Status, VerifyAudit
from lockgate.registry.messages import LiftQuarantine, QuarantineVersion
from lockgate.testing.hub_world import (
    CONTROLLER,
    MODEL_NAME,
    OPERATOR,
    HubWorld,
    Story,
    accepted,
    named_digest,
)
from lockgate.traffic.by_hand import Hand, taken_back
from lockgate.traffic.observed import Observed
from lockgate.traffic.plan import N_SLOTS, Plan

NAME = f"prod/{MODEL_NAME}"
BAKE_S = 60
POLICY = RolloutPolicy(
    steps=(
        RolloutStep(stage="shadow", weight=0, min_units=10, bake_s=0),
        RolloutStep(stage="canary", weight=2_000, min_units=10, bake_s=BAKE_S),
        RolloutStep(stage="soak", weight=N_SLOTS, min_units=10, bake_s=0),
    ),
    guards={"errors": Guard(margin=None)},
)
Sight = Literal["nothing", "good", "harm", "crooked"]


def look_at(step: int, sight: Sight) -> Look:
    if sight == "nothing":
        return Look(segments=(), since=0, until=0, n_dropped=0)
    chosen = POLICY.steps[step]
    n_canary = 1000 if chosen.stage != "canary" else 200
    n_control = {"shadow": 1000, "canary": 800, "soak": 0}[chosen.stage]
    if sight == "crooked" and chosen.stage == "canary":
        n_canary, n_control = n_control, n_canary
    bad = 150 if sight == "harm" else 0
    tally = Tally(n_canary=n_canary, n_control=n_control, bad_canary=bad, bad_control=0)
    segment = Segment(
        step=step,
        stage=chosen.stage,
        weight=chosen.weight,
        n_canary=n_canary,
        n_control=n_control,
        guards={"errors": tally},
    )
    segments: tuple[Segment, ...] = (segment,)
    if chosen.stage == "soak":
        segments = (*look_at(1, "good").segments, segment)
    return Look(segments=segments, since=1, until=2, n_dropped=0)


class RolloutMachine(RuleBasedStateMachine):
    """Two versions take turns on one endpoint."""

    def open_world(self) -> HubWorld:
        raise NotImplementedError

    @initialize()
    def found(self) -> None:
        self.world = self.open_world()
        self.story = Story(self.world.hub)
        self.story.found(tier="low")
        accepted(self.story.configure("prod", EndpointSettings(rollout=POLICY)))
        self.story.release("v0", self.key(0))
        self.story.train("v1")
        accepted(self.story.register("v1"))
        accepted(self.story.judge(self.key(1)))
        accepted(self.story.validate(self.key(1)))
        self.live, self.previous = 0, -1
        self.state, self.step, self.coming, self.baked = "", 0, -1, False
        self.shut_away: set[int] = set()
        self.plans: list[Plan] = []
        self.generation = 0
        self.drain()

    def key(self, number: int) -> str:
        return f"{MODEL_NAME}@1.0.{number}"

    def do(self, actor: str, command: Command, crash: str | None) -> Receipt:
        return sent_once(self.world, self.world.hub(actor), command, crash)

    def drain(self) -> list[Plan]:
        """Take what is to be told to the target; plans only get newer."""
        now, told = self.world.clock.now(), []
        while (row := self.world.outbox.lease(now, now + 1)) is not None:
            plan = plan_of(msgspec.json.decode(row.body, type=ApplyPlan))
            if plan.endpoint == NAME:
                told.append(plan)
                assert plan.generation > self.generation
                self.generation = plan.generation
            self.world.outbox.settle(row)
        self.plans += told
        return told

    def line(self) -> EndpointLine:
        (found,) = self.story.ask(Status(endpoint=NAME)).endpoints.values()
        assert isinstance(found, EndpointLine)
        return found

    # --- what may happen

    @rule(number=st.integers(0, 1), crash=CRASH)
    def promote(self, number: int, crash: str | None) -> None:
        if number != self.live and not self.state and number not in self.shut_away:
            accepted(self.story.promote(self.key(number), "dev"))
            self.story.confirm("dev")
            self.story.judge_for(self.key(number), "prod")
        command = PromoteVersion(id=self.story.new_id(), version=self.key(number), environment="prod")
        free = not self.state and (number == self.live or number not in self.shut_away)
        receipt = self.do(OPERATOR, command, crash)
        assert (receipt.refusal is None) == free, receipt.refusal
        if free and number != self.live:
            self.state, self.step, self.coming = "preparing", 0, number

    @precondition(lambda self: self.state in ("preparing", "moving", "completing", "rolling_back"))
    @rule(applied=st.sampled_from([True, True, True, False]), crash=CRASH)
    def target_answers(self, applied: bool, crash: str | None) -> None:
        self.drain()
        rollout = self.line().rollout
        assert rollout is not None
        command = ConfirmPlan(
            id=self.story.new_id(),
            endpoint=NAME,
            generation=rollout.generation,
            applied=applied,
            detail="no",
            took_us=1,
        )
        receipt = self.do(CONTROLLER, command, crash)
        if not applied:
            if self.state == "rolling_back" and self.swapped:
                self.live, self.previous = self.previous, self.live
            assert receipt.events[0]["restored"] > rollout.generation
            self.state = ""
        elif self.state == "completing":
            self.live, self.previous, self.state = self.coming, self.live, ""
        elif self.state == "rolling_back":
            self.state = ""
        else:
            self.state, self.baked = POLICY.steps[self.step].stage, self.step != 1

    @rule(
        sight=st.sampled_from(["nothing", "good", "good", "harm", "crooked"]),
        crash=CRASH,
        back=st.integers(0, 1),
    )
    def controller_looks(self, sight: Sight, crash: str | None, back: int) -> None:
        rollout = self.line().rollout
        release = rollout.release if rollout else 1
        step = self.step - back
        command = JudgeRollout(
            id=self.story.new_id(),
            endpoint=NAME,
            release=release,
            step=step,
            look=look_at(min(max(step, 0), len(POLICY.steps) - 1), sight),
        )
        before = (self.live, self.state, self.step)
        receipt = self.do(CONTROLLER, command, crash)
        on_step = self.state in ("shadow", "canary", "soak", "paused") and back == 0
        if not on_step:
            assert receipt.events == ()
            return
        if sight == "harm":
            self.state, self.swapped = "rolling_back", False
        elif sight == "crooked" and self.step == 1:
            self.state = "paused"
        elif sight in ("good", "crooked") and self.baked and self.state != "paused":
            self.step += 1
            self.state = "moving" if self.step < len(POLICY.steps) else "completing"
        else:
            assert before == (self.live, self.state, self.step)

    @rule(n_times=st.integers(1, 4))
    def all_goes_well(self, n_times: int) -> None:
        """What chance alone would seldom string together: the next good thing, several times."""
        for _ in range(n_times):
            if not self.state:
                self.promote(1 - self.live, None)
            elif self.state == "paused":
                self.resume(None)
            elif self.state in ("shadow", "canary", "soak"):
                self.time_passes()
                self.controller_looks("good", None, 0)
            else:
                self.target_answers(True, None)

    @rule()
    def time_passes(self) -> None:
        self.world.clock.advance(seconds=BAKE_S)
        self.baked = True

    @rule(crash=CRASH)
    def pause(self, crash: str | None) -> None:
        command = PauseRollout(id=self.story.new_id(), endpoint=NAME, reason="so")
        receipt = self.do(OPERATOR, command, crash)
        on_step = self.state in ("shadow", "canary", "soak", "paused")
        assert (receipt.refusal is None) == on_step
        self.state = "paused" if on_step else self.state

    @rule(crash=CRASH)
    def resume(self, crash: str | None) -> None:
        receipt = self.do(OPERATOR, ResumeRollout(id=self.story.new_id(), endpoint=NAME), crash)
        on_step = self.state in ("shadow", "canary", "soak", "paused")
        assert (receipt.refusal is None) == on_step
        if self.state == "paused":
            self.state = POLICY.steps[self.step].stage

    @rule(full=st.booleans(), crash=CRASH)
    def override(self, full: bool, crash: str | None) -> None:
        rollout = self.line().rollout
        command = AdvanceRollout(
            id=self.story.new_id(),
            endpoint=NAME,
            release=rollout.release if rollout else 1,
            step=self.step,
            full=full,
            reason="so",
        )
        receipt = self.do(OPERATOR, command, crash)
        on_step = self.state in ("shadow", "canary", "soak", "paused")
        assert (receipt.refusal is None) == on_step, receipt.refusal
        if on_step:
            self.step = len(POLICY.steps) if full else self.step + 1
            self.state = "moving" if self.step < len(POLICY.steps) else "completing"

    @rule(crash=CRASH)
    def roll_back(self, crash: str | None) -> None:
        receipt = self.do(OPERATOR, RollBackEndpoint(id=self.story.new_id(), endpoint=NAME), crash)
        underway = self.state not in ("", "rolling_back")
        back = self.live if underway else self.previous
        # What is live answers already: calling a release off is free even when the live version is shut away.
        free = self.state != "rolling_back" and back >= 0 and (underway or back not in self.shut_away)
        assert (receipt.refusal is None) == free, receipt.refusal
        if free:
            self.state, self.swapped = "rolling_back", not underway
            if self.swapped:
                self.live, self.previous = self.previous, self.live

    @rule(number=st.integers(0, 1), crash=CRASH)
    def shut_away_or_let_out(self, number: int, crash: str | None) -> None:
        kind: Any = LiftQuarantine if number in self.shut_away else QuarantineVersion
        actor = "zoe" if number in self.shut_away else "sue"
        receipt = self.do(actor, kind(id=self.story.new_id(), version=self.key(number), reason="so"), crash)
        assert receipt.refusal is None
        self.shut_away ^= {number}
        underway = self.state not in ("", "rolling_back")
        if number in self.shut_away and underway and self.coming == number:
            self.state = ""

    @rule(crash=CRASH)
    def drill(self, crash: str | None) -> None:
        receipt = self.do(OPERATOR, StartDrill(id=self.story.new_id(), endpoint=NAME, n_flips=3), crash)
        assert (receipt.refusal is None) == (not self.state and self.previous >= 0)
        if receipt.refusal is None:
            self.drain()
            (event,) = receipt.events
            assert event["first"] > self.generation
            self.generation = event["last"]

    @rule(n_times=st.integers(1, 2), crash=CRASH)
    def somebody_goes_back_by_hand(self, n_times: int, crash: str | None) -> None:
        """Once or twice over whatever the target serves; then the hub is back and finds it there."""
        self.drain()
        plan: Any = self.plans[-1]
        for _ in range(n_times):
            plan = taken_back(
                Observed(endpoint=NAME, plan=plan), Hand(by="olga", account="ops", at=1, reason="so")
            )
            if not isinstance(plan, Plan):
                assert self.previous < 0
                return
        receipt = self.do(CONTROLLER, adoption_of(plan), crash)
        assert receipt.refusal is None
        (event,) = receipt.events
        assert event["generation"] > max(self.generation, plan.generation)
        (found,) = [n for n in (0, 1) if named_digest("package", f"v{n}") == plan.live]
        fits = found == self.live or (found == self.previous and found not in self.shut_away)
        assert event["type"].startswith("delivery.local-rollback-adopted") == fits
        if fits and found != self.live:
            self.live, self.previous = self.previous, self.live
        self.state = ""

    # --- what always holds

    @invariant()
    def the_hub_says_what_the_model_says(self) -> None:
        if not hasattr(self, "state"):
            return
        line = self.line()
        assert line.live is not None
        assert line.live.version.endswith(str(self.live))
        assert (line.previous.version[-1] if line.previous else "") == (
            str(self.previous) if self.previous >= 0 else ""
        )
        assert (line.rollout.state if line.rollout else "") == self.state
        if line.rollout is not None and self.state != "rolling_back":
            assert line.rollout.step == min(self.step, len(POLICY.steps) - 1) + 1

    @invariant()
    def what_the_target_is_told_serves_the_live_version_or_its_share(self) -> None:
        if not hasattr(self, "state"):
            return
        self.drain()
        if not self.plans:
            return
        plan = self.plans[-1]
        live = named_digest("package", f"v{self.live}")
        assert plan.live is not None
        if not self.state or self.state in ("rolling_back", "preparing"):
            expected = 0
        else:
            expected = N_SLOTS if self.step >= len(POLICY.steps) else POLICY.steps[self.step].weight
        coming = named_digest("package", f"v{self.coming}")
        if self.state and self.state != "rolling_back":
            assert plan.weight_of(coming) == expected
            assert plan.weight_of(live) == N_SLOTS - expected
        else:
            assert plan.weight_of(live) == N_SLOTS

    @invariant()
    def the_journal_holds(self) -> None:
        if hasattr(self, "state"):
            answer = self.world.ask(VerifyAudit())
            assert answer.ok, answer.findings


class MemoryRollouts(InMemory, RolloutMachine):
    pass


class SqliteRollouts(OnSqlite, RolloutMachine):
    pass


TestRolloutsInMemory = MemoryRollouts.TestCase
TestRolloutsInMemory.settings = settings(max_examples=150, stateful_step_count=30)
TestRolloutsOnSqlite = SqliteRollouts.TestCase
TestRolloutsOnSqlite.settings = settings(max_examples=25, stateful_step_count=25)
