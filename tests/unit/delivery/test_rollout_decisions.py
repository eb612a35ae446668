"""A rollout as the hub decides it: step by step on verdicts, held, moved by hand, taken back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.delivery.lines import EndpointLine
from lockgate.delivery.messages import (
    AdvanceRollout,
    ApplyPlan,
    DrillFigures,
    FinishDrill,
    JudgeRollout,
    PauseRollout,
    ResumeRollout,
    StartDrill,
)
from lockgate.delivery.plan import plan_of
from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.rollouts.verdict import Look, Segment, Tally
from lockgate.delivery.state import DRILL, DrillAsked
from lockgate.hub.kernel import read_body
from lockgate.hub.messages import RolloutAnswer, ShowRollout, Status, VerifyAudit
from lockgate.hub.questions import Questions
from lockgate.registry.messages import QuarantineVersion
from lockgate.testing.hub_world import (
    CONTROLLER,
    MODEL_NAME,
    OPERATOR,
    HubWorld,
    Story,
    accepted,
    named_digest,
    rules_of,
)
from lockgate.traffic.observed import Observed, WorkerState
from lockgate.traffic.plan import N_SLOTS, Plan

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"
P1, P2 = named_digest("package", "one"), named_digest("package", "two")
PROD = f"prod/{MODEL_NAME}"
POLICY = RolloutPolicy(
    steps=(
        RolloutStep(stage="shadow", weight=0, min_units=10, bake_s=0),
        RolloutStep(stage="canary", weight=1_000, min_units=100, bake_s=60),
        RolloutStep(stage="canary", weight=5_000, min_units=100, bake_s=0),
        RolloutStep(stage="soak", weight=N_SLOTS, min_units=10, bake_s=0),
    ),
    guards={"errors": Guard(margin=None)},
)
SETTINGS = EndpointSettings(rollout=POLICY, capture="scores")


@pytest.fixture
def story(world: HubWorld, story: Story) -> Story:
    """Version 1 is live in prod, which releases by steps."""
    accepted(story.configure("prod", SETTINGS))
    story.release("one", V1)
    plans(world)
    return story


@pytest.fixture
def rolling(story: Story) -> Story:
    """Version 2 stands on its first step."""
    begin(story)
    accepted(story.confirm("prod"))
    return story


def begin(story: Story) -> None:
    story.train("two")
    accepted(story.register("two"))
    accepted(story.judge(V2))
    accepted(story.validate(V2))
    accepted(story.promote(V2, "dev"))
    accepted(story.confirm("dev"))
    accepted(story.judge_for(V2, "prod"))
    accepted(story.approve(V2))
    accepted(story.promote(V2, "prod", ticket="CHG-2"))


def plans(world: HubWorld) -> list[Plan]:
    found = []
    while (row := world.outbox.lease(0, 1)) is not None:
        found.append(plan_of(msgspec.json.decode(row.body, type=ApplyPlan)))
        world.outbox.settle(row)
    return [plan for plan in found if plan.endpoint == PROD]


def line(story: Story) -> EndpointLine:
    (found,) = story.ask(Status(endpoint=PROD)).endpoints.values()
    assert isinstance(found, EndpointLine)
    return found


def state(story: Story) -> tuple[str, int] | None:
    rollout = line(story).rollout
    return None if rollout is None else (rollout.state, rollout.step)


def seen(step: int, *, n: int = 1_000, bad_canary: int = 0, bad_control: int = 0) -> Look:
    """Traffic of one step, routed as its weight says."""
    chosen = POLICY.steps[step]
    n_canary = n if chosen.stage == "shadow" else n * chosen.weight // N_SLOTS
    n_control = n if chosen.stage == "shadow" else n - n_canary
    tally = Tally(n_canary=n_canary, n_control=n_control, bad_canary=bad_canary, bad_control=bad_control)
    segment = Segment(
        step=step,
        stage=chosen.stage,
        weight=chosen.weight,
        n_canary=n_canary,
        n_control=n_control,
        guards={"errors": tally},
    )
    return Look(segments=(segment,), since=1, until=2, n_dropped=0)


def walk(world: HubWorld, story: Story, to_step: int) -> None:
    """Pass every step before `to_step`."""
    for step in range(to_step):
        world.clock.advance(seconds=61)
        accepted(story.judge_rollout("prod", seen(step)))
        accepted(story.confirm("prod"))


def test_a_release_that_follows_another_one_goes_by_steps(world: HubWorld, story: Story) -> None:
    begin(story)
    assert state(story) == ("preparing", 1)
    (plan,) = plans(world)
    assert (plan.shadow, plan.live, plan.weight_of(P1), plan.weight_of(P2)) == (P2, P1, N_SLOTS, 0)
    assert plan.capture == "scores"
    accepted(story.confirm("prod"))
    assert state(story) == ("shadow", 1)
    assert line(story).live is not None and line(story).live.version.endswith("1.0.0")


def test_a_first_release_goes_at_once(world: HubWorld) -> None:
    story = Story(world.hub)
    story.found()
    accepted(story.configure("prod", SETTINGS))
    story.release("one", V1)
    assert line(story).rollout is None
    assert story.ask(ShowRollout(endpoint=PROD)).rollout is None


def test_all_the_way(world: HubWorld, rolling: Story) -> None:
    """Weights rise with the canary in front, the same salt and the same control; at the end it is live."""
    walk(world, rolling, 4)
    assert state(rolling) is None
    assert line(rolling).live is not None and line(rolling).live.version.endswith("1.0.1")
    assert line(rolling).previous is not None and line(rolling).previous.version.endswith("1.0.0")
    told = plans(world)
    assert [(plan.weight_of(P2), plan.weight_of(P1)) for plan in told] == [
        (0, N_SLOTS),
        (1_000, 9_000),
        (5_000, 5_000),
        (N_SLOTS, 0),
        (N_SLOTS, 0),
    ]
    assert [plan.live for plan in told] == [P1, P1, P1, P1, P2]
    assert {plan.routes[0].package for plan in told[1:]} == {P2}
    assert len({plan.salt for plan in told[:4]}) == 1
    generations = [plan.generation for plan in told]
    assert generations == sorted(set(generations))
    answer: RolloutAnswer = rolling.ask(ShowRollout(endpoint=PROD))
    assert answer.rollout is not None
    assert [run.stage for run in answer.rollout.runs] == ["shadow", "canary", "canary", "soak"]
    assert answer.release.state == "live"
    assert world.ask(VerifyAudit()).ok


def test_two_rollouts_do_not_pick_the_same_callers(world: HubWorld, rolling: Story) -> None:
    accepted(rolling.roll_back("prod"))
    accepted(rolling.confirm("prod"))
    accepted(rolling.promote(V2, "prod"))
    first, *_, second = plans(world)
    assert first.shadow == second.shadow == P2
    assert first.salt != second.salt


def test_nothing_seen_keeps_it_where_it_is(world: HubWorld, rolling: Story) -> None:
    world.clock.advance(days=10)
    empty = Look(segments=(), since=0, until=0, n_dropped=0)
    receipt = accepted(rolling.judge_rollout("prod", empty))
    assert [event["type"] for event in receipt.events] == ["delivery.rollout-judged/1"]
    assert state(rolling) == ("shadow", 1)
    assert line(rolling).rollout.verdict == "no_data"  # type: ignore[union-attr]
    assert accepted(rolling.judge_rollout("prod", empty)).events == ()


def test_a_passing_verdict_waits_for_the_bake(world: HubWorld, rolling: Story) -> None:
    walk(world, rolling, 1)
    world.clock.advance(seconds=59)
    accepted(rolling.judge_rollout("prod", seen(1)))
    assert state(rolling) == ("canary", 2)
    assert "bake" in line(rolling).rollout.waits_for  # type: ignore[union-attr]
    world.clock.advance(seconds=1)
    accepted(rolling.judge_rollout("prod", seen(1)))
    assert state(rolling) == ("moving", 3)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_harm_takes_it_back_from_every_step(world: HubWorld, rolling: Story, step: int) -> None:
    walk(world, rolling, step)
    plans(world)
    harm = {"bad_canary": min(60, seen(step).segments[0].n_canary), "bad_control": 0}
    look = seen(step, **harm)
    if step == 3:
        look = msgspec.structs.replace(look, segments=seen(2).segments + look.segments)
    receipt = accepted(rolling.judge_rollout("prod", look))
    assert [event["type"] for event in receipt.events] == [
        "delivery.rollout-judged/1",
        "delivery.endpoint-rolled-back/1",
    ]
    assert receipt.events[0]["verdict"]["outcome"] == "fail"
    assert state(rolling) == ("rolling_back", 0)
    (plan,) = plans(world)
    assert (plan.live, plan.weight_of(P1), plan.shadow) == (P1, N_SLOTS, None)
    accepted(rolling.confirm("prod"))
    assert state(rolling) is None
    answer: RolloutAnswer = rolling.ask(ShowRollout(endpoint=PROD))
    assert answer.release.state == "rolled_back"
    assert "verdict" in answer.release.detail
    assert world.ask(VerifyAudit()).ok


def test_a_report_on_another_step_or_release_is_old_news(world: HubWorld, rolling: Story) -> None:
    harm = seen(0, bad_canary=60)
    for release, step in ((2, 1), (1, 0), (3, 0), (2, -1)):
        command = JudgeRollout(id=rolling.new_id(), endpoint=PROD, release=release, step=step, look=harm)
        assert accepted(rolling.do(CONTROLLER, command)).events == ()
    walk(world, rolling, 1)
    moved = JudgeRollout(id=rolling.new_id(), endpoint=PROD, release=2, step=0, look=harm)
    assert accepted(rolling.do(CONTROLLER, moved)).events == ()


def test_between_two_steps_nothing_is_judged(world: HubWorld, rolling: Story) -> None:
    accepted(rolling.judge_rollout("prod", seen(0)))
    assert state(rolling) == ("moving", 2)
    command = JudgeRollout(id=rolling.new_id(), endpoint=PROD, release=2, step=0, look=seen(0, bad_canary=60))
    assert accepted(rolling.do(CONTROLLER, command)).events == ()


def test_a_step_the_target_does_not_take_ends_the_release(world: HubWorld, rolling: Story) -> None:
    accepted(rolling.judge_rollout("prod", seen(0)))
    plans(world)
    accepted(rolling.confirm("prod", applied=False))
    assert state(rolling) is None
    (plan,) = plans(world)
    assert (plan.live, plan.weight_of(P1)) == (P1, N_SLOTS)
    assert rolling.ask(ShowRollout(endpoint=PROD)).release.state == "failed"


def do(story: Story, kind: Any, **fields: Any) -> Any:
    return story.do(OPERATOR, kind(id=story.new_id(), endpoint=PROD, **fields))


def test_a_paused_rollout_stays_but_is_guarded(world: HubWorld, rolling: Story) -> None:
    walk(world, rolling, 1)
    accepted(do(rolling, PauseRollout, reason="holiday"))
    assert accepted(do(rolling, PauseRollout, reason="again")).events == ()
    world.clock.advance(seconds=61)
    accepted(rolling.judge_rollout("prod", seen(1)))
    assert state(rolling) == ("paused", 2)
    assert line(rolling).rollout.waits_for == f"somebody to resume it; paused by {OPERATOR}: holiday"  # type: ignore[union-attr]
    accepted(do(rolling, ResumeRollout))
    assert state(rolling) == ("canary", 2)
    accepted(do(rolling, PauseRollout, reason=""))
    accepted(rolling.judge_rollout("prod", seen(1, bad_canary=60)))
    assert state(rolling) == ("rolling_back", 0)


def test_what_is_not_routed_as_planned_is_void_and_held(world: HubWorld, rolling: Story) -> None:
    walk(world, rolling, 1)
    (segment,) = seen(1).segments
    crooked = msgspec.structs.replace(segment, n_canary=900, n_control=100)
    look = Look(segments=(crooked,), since=1, until=2, n_dropped=0)
    accepted(rolling.judge_rollout("prod", look))
    assert state(rolling) == ("paused", 2)
    assert line(rolling).rollout.verdict == "void"  # type: ignore[union-attr]
    assert accepted(rolling.judge_rollout("prod", look)).events == ()


def test_only_a_rollout_that_stands_can_be_steered(world: HubWorld, story: Story) -> None:
    for kind, fields in (
        (PauseRollout, {"reason": "x"}),
        (ResumeRollout, {}),
        (AdvanceRollout, {"release": 1, "step": 0, "reason": "x"}),
    ):
        assert rules_of(do(story, kind, **fields)) == ["delivery.no-rollout"]
    begin(story)
    receipt = do(story, PauseRollout, reason="x")
    assert rules_of(receipt) == ["delivery.rollout-moving"]
    assert receipt.refusal.waiting


def test_moving_on_by_hand_says_that_statistics_were_overridden(world: HubWorld, rolling: Story) -> None:
    assert rules_of(do(rolling, AdvanceRollout, release=2, step=0, reason=" ")) == [
        "delivery.override-reason"
    ]
    accepted(do(rolling, AdvanceRollout, release=2, step=0, reason="outage"))
    accepted(rolling.confirm("prod"))
    assert state(rolling) == ("canary", 2)
    assert accepted(do(rolling, AdvanceRollout, release=2, step=0, reason="twice")).events == ()
    accepted(do(rolling, AdvanceRollout, release=2, step=1, full=True, reason="outage"))
    assert state(rolling) == ("completing", 4)
    accepted(rolling.confirm("prod"))
    assert line(rolling).live is not None and line(rolling).live.version.endswith("1.0.1")
    answer: RolloutAnswer = rolling.ask(ShowRollout(endpoint=PROD))
    assert answer.rollout is not None
    assert answer.rollout.overrides == (f"{OPERATOR}: outage",) * 2


def test_moving_on_by_hand_needs_evidence_and_approval_still(world: HubWorld, rolling: Story) -> None:
    accepted(rolling.judge(V2, turn="anew"))
    receipt = do(rolling, AdvanceRollout, release=2, step=0, full=True, reason="hurry")
    assert rules_of(receipt) == ["governance.approval"]


def test_a_version_that_is_shut_away_leaves_its_rollout(world: HubWorld, rolling: Story) -> None:
    walk(world, rolling, 1)
    command = QuarantineVersion(id=rolling.new_id(), version=V2, reason="backdoor")
    accepted(rolling.do("sue", command))
    assert state(rolling) is None
    assert plans(world)[-1].weight_of(P1) == N_SLOTS


def test_another_release_waits_for_the_rollout(rolling: Story) -> None:
    assert "delivery.rollout-active" in rules_of(rolling.promote(V2, "prod"))


def test_settings_that_lead_nowhere_are_refused(story: Story) -> None:
    def with_steps(*steps: RolloutStep) -> EndpointSettings:
        return EndpointSettings(rollout=RolloutPolicy(steps=steps, guards={}))

    up = RolloutStep(stage="canary", weight=100, min_units=1, bake_s=0)
    for settings in (
        with_steps(),
        with_steps(up, up),
        with_steps(msgspec.structs.replace(up, stage="soak")),
        with_steps(up, RolloutStep(stage="shadow", weight=0, min_units=1, bake_s=0)),
        with_steps(msgspec.structs.replace(up, min_units=0)),
        with_steps(msgspec.structs.replace(up, bake_s=float(10**9))),
        EndpointSettings(rollout=RolloutPolicy(steps=(up,), guards={"latency": Guard()})),
        EndpointSettings(rollout=RolloutPolicy(steps=(up,), guards={"errors": Guard(floor=-1)})),
        EndpointSettings(rollout=RolloutPolicy(steps=(up,), guards={}, alpha=0)),
        EndpointSettings(rollout=RolloutPolicy(steps=(up,), guards={"errors": Guard(absolute=1.5)})),
        EndpointSettings(rollout=RolloutPolicy(steps=(up,), guards={"errors": Guard(floor=float("inf"))})),
        with_steps(RolloutStep(stage="soak", weight=N_SLOTS, min_units=1, bake_s=0)),
    ):
        assert set(rules_of(story.configure("prod", settings))) == {"delivery.rollout-policy"}
    assert rules_of(story.configure("nowhere", SETTINGS)) == ["delivery.endpoint-unknown"]
    assert accepted(story.configure("prod", SETTINGS)).events == ()


# Drills

FIGURES = DrillFigures(
    n_flips=5,
    n_requests=40,
    n_failed=0,
    n_wrong=0,
    n_workers=1,
    first_p50_us=900,
    first_p99_us=2_000,
    all_p50_us=1_000,
    all_p99_us=2_500,
)


def test_a_drill_takes_generations_that_nobody_else_gets(world: HubWorld, story: Story) -> None:
    assert rules_of(do(story, StartDrill, n_flips=5)) == ["delivery.nothing-before"]
    begin(story)
    receipt = do(story, StartDrill, n_flips=5)
    assert rules_of(receipt) == ["delivery.rollout-active"]
    accepted(story.confirm("prod"))
    walk(world, story, 4)
    before = plans(world)[-1].generation
    started = accepted(do(story, StartDrill, n_flips=5)).events[0]
    assert (started["first"], started["last"]) == (before + 1, before + 11)
    assert line(story).rollback_ready.drill is None
    accepted(do(story, FinishDrill, drill=1, figures=FIGURES))
    drill = line(story).rollback_ready.drill
    assert drill is not None
    assert (drill.passed, drill.p99_ms, drill.n_flips) == (True, 2.0, 5)
    accepted(story.roll_back("prod"))
    assert plans(world)[-1].generation == before + 12
    assert world.ask(VerifyAudit()).ok


def test_a_drill_that_a_later_one_overtook_is_old_news(world: HubWorld, rolling: Story) -> None:
    walk(world, rolling, 4)
    for n_flips in (0, 1001):
        assert rules_of(do(rolling, StartDrill, n_flips=n_flips)) == ["delivery.drill-size"]
    accepted(do(rolling, StartDrill, n_flips=1))
    accepted(do(rolling, StartDrill, n_flips=1))
    assert accepted(do(rolling, FinishDrill, drill=1, figures=FIGURES)).events == ()
    failed = msgspec.structs.replace(FIGURES, n_wrong=1)
    accepted(do(rolling, FinishDrill, drill=2, figures=failed))
    drill = line(rolling).rollback_ready.drill
    assert drill is not None and not drill.passed


def test_the_way_back_is_not_ready_while_its_features_are_not_served(world: HubWorld, rolling: Story) -> None:
    """Asked only of endpoints that read features by key."""
    walk(world, rolling, 4)
    seen_by = Observed(
        endpoint=PROD,
        workers=(WorkerState(pid=1, generation=9, seen=9, state="serving", loaded=(P1, P2)),),
        alive=True,
    )
    questions = Questions(
        world.journal,
        world.outbox,
        world.clock,
        observe=lambda endpoint: seen_by,
        lacking=lambda package: "no rows of view x are online" if package == P1 else None,
    )

    def ready() -> Any:
        (found,) = questions(Status(endpoint=PROD)).endpoints.values()
        return found.rollback_ready

    assert ready().ready
    accepted(rolling.configure("prod", msgspec.structs.replace(SETTINGS, features="online")))
    assert (ready().ready, ready().reason) == (False, "no rows of view x are online")


def test_status_says_when_a_worker_is_not_where_it_was_decided(world: HubWorld, rolling: Story) -> None:
    walk(world, rolling, 4)
    generation = plans(world)[-1].generation
    worker = WorkerState(pid=7, generation=generation, seen=generation, state="serving")

    def astray(**change: Any) -> str:
        seen_by = Observed(
            endpoint=PROD,
            generation=generation,
            workers=(msgspec.structs.replace(worker, **change),),
            alive=True,
        )
        questions = Questions(world.journal, world.outbox, world.clock, observe=lambda endpoint: seen_by)
        (found,) = questions(Status(endpoint=PROD)).endpoints.values()
        return str(found.astray)

    assert astray() == astray(state="gone", generation=0) == ""
    behind = astray(generation=generation - 1, state="failed", detail="layer corrupt")
    assert (
        behind == f"worker 7 answers by plan {generation - 1}, plan {generation} was decided: layer corrupt"
    )
    assert "answers by no plan" in astray(generation=0, state="loading")


def test_a_drill_that_the_hub_is_to_walk_is_asked_for_until_it_is_told(
    world: HubWorld, rolling: Story
) -> None:
    walk(world, rolling, 4)

    def asked() -> DrillAsked | None:
        stored = world.journal.document(DRILL.name, PROD)
        assert stored is not None
        return read_body(DRILL, stored).asked

    started = accepted(do(rolling, StartDrill, n_flips=5, by_hub=True)).events[0]
    first = asked()
    assert first is not None
    assert (first.drill, first.first, first.n_flips) == (1, started["first"], 5)
    # Somebody who walks his own takes its place.
    accepted(do(rolling, StartDrill, n_flips=1))
    assert asked() is None
    accepted(do(rolling, StartDrill, n_flips=1, by_hub=True))
    accepted(do(rolling, FinishDrill, drill=3, figures=FIGURES))
    assert asked() is None
    drill = line(rolling).rollback_ready.drill
    assert drill is not None and drill.number == 3
    assert world.ask(VerifyAudit()).ok
