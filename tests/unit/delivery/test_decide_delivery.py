from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.core.errors import Invalid
from lockgate.core.messages import Receipt
from lockgate.delivery.lines import EndpointLine
from lockgate.delivery.messages import (
    ApplyPlan,
    ConfirmPlan,
    DeclareEndpoint,
    DeclareEnvironment,
    PromoteVersion,
    RemoveEndpoint,
    RetireVersion,
    RollBackEndpoint,
    SignOffRemoval,
)
from lockgate.delivery.plan import plan_of
from lockgate.hub.messages import ExplainVersion, Standing, Status
from lockgate.hub.questions import Questions
from lockgate.registry.messages import QuarantineVersion, RejectVersion
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
from lockgate.traffic.plan import N_SLOTS, Fallback, Plan

V1, V2, V3 = (f"{MODEL_NAME}@1.0.{patch}" for patch in range(3))
P1, P2, P3 = (named_digest("package", name) for name in ("one", "two", "three"))
DEV, PROD = f"dev/{MODEL_NAME}", f"prod/{MODEL_NAME}"


@pytest.fixture
def story(story: Story) -> Story:
    accepted(story.register("one"))
    accepted(story.register("two"))
    return story


@pytest.fixture
def released(world: HubWorld) -> Story:
    """Two releases in prod."""
    story = Story(world.hub)
    story.found()
    story.release("one", V1)
    story.release("two", V2)
    return story


def line(story: Story, endpoint: str = PROD) -> EndpointLine:
    (found,) = story.ask(Status(endpoint=endpoint)).endpoints.values()
    assert isinstance(found, EndpointLine)
    return found


def shown(story: Story, endpoint: str = PROD) -> tuple[str | None, str | None, str | None]:
    """Live, previous and what is on its way, by the last digit of the version."""
    found = line(story, endpoint)
    names = [found.live and found.live.version, found.previous and found.previous.version]
    names.append(found.rollout and found.rollout.version)
    return tuple(name and name[-1] for name in names)  # type: ignore[return-value]


def states(story: Story, version: str) -> list[str]:
    return [release.state for release in story.ask(ExplainVersion(version=version)).releases]


def plans(world: HubWorld) -> list[Plan]:
    """What the open effects would tell the data planes, oldest first."""
    found = []
    while (row := world.outbox.lease(0, 1)) is not None:
        effect = msgspec.json.decode(row.body, type=ApplyPlan)
        assert (effect.subject, effect.fence) == (row.subject, row.fence)
        found.append(plan_of(effect))
        world.outbox.settle(row)
    return found


# Environments and endpoints


def declare_endpoint(story: Story, endpoint: str, fallback: Fallback | None = None) -> Receipt:
    command = DeclareEndpoint(id=story.new_id(), endpoint=endpoint, fallback=fallback or Fallback())
    return story.do("petra", command)


def test_an_endpoint_needs_its_environment(story: Story) -> None:
    assert rules_of(declare_endpoint(story, "qa/main/x")) == ["delivery.environment-unknown"]
    accepted(declare_endpoint(story, "prod/main/x"))
    assert accepted(declare_endpoint(story, "prod/main/x")).events == ()
    assert (
        len(accepted(declare_endpoint(story, "prod/main/x", Fallback(kind="constant", value=1.0))).events)
        == 1
    )


@pytest.mark.parametrize("endpoint", ["prod/x", "prod", "prod/main/x/y", "prod/main/x@1.0.0", "Prod/main/x"])
def test_an_endpoint_has_its_full_name(story: Story, endpoint: str) -> None:
    with pytest.raises(Invalid):
        declare_endpoint(story, endpoint)


@pytest.mark.parametrize("environment", ["", "Prod", "a/b", "x*", "*"])
def test_an_environment_has_a_name(story: Story, environment: str) -> None:
    command = DeclareEnvironment(
        id="e", environment=environment, order=1, sensitivity="open", target="local", trust=()
    )
    with pytest.raises(Invalid):
        story.do("petra", command)


# Promotion


def test_a_candidate_may_run_where_it_is_open(world: HubWorld, story: Story) -> None:
    receipt = accepted(story.promote(V1, "dev", ticket="T-1"))
    assert receipt.effects == "pending"
    (event,) = receipt.events
    assert (event["release"], event["generation"], event["approved_by"]) == (1, 1, [])
    assert shown(story, DEV) == (None, None, "0")
    (plan,) = plans(world)
    assert (plan.endpoint, plan.generation, plan.live, plan.previous) == (DEV, 1, P1, None)
    assert [route.weight for route in plan.routes] == [N_SLOTS]
    accepted(story.confirm("dev"))
    assert shown(story, DEV) == ("0", None, None)
    assert states(story, V1) == ["live"]


def test_everything_that_stands_in_the_way_is_named_at_once(story: Story) -> None:
    receipt = story.promote(V1, "prod")
    assert receipt.refusal is not None
    assert {reason.rule: reason.measured for reason in receipt.refusal.reasons} == {
        "registry.state": "candidate",
        "delivery.ladder": "nothing live",
        "perf.absolute": "none",
        "perf.vs_champion": "none",
        "governance.approval": "0 of 1",
    }
    assert not receipt.refusal.waiting


def test_only_a_missing_approval_is_worth_waiting_for(story: Story) -> None:
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    accepted(story.judge_for(V1, "prod"))
    receipt = story.promote(V1, "prod")
    assert rules_of(receipt) == ["governance.approval"]
    assert receipt.refusal is not None
    assert receipt.refusal.waiting


def test_what_is_live_already_is_no_news(released: Story) -> None:
    assert accepted(released.promote(V2, "prod")).events == ()


def test_the_same_bytes_must_run_one_step_below_now(released: Story) -> None:
    accepted(released.judge_for(V1, "prod", turn=1))
    accepted(released.approve(V1))
    receipt = released.promote(V1, "prod")
    assert rules_of(receipt) == ["delivery.ladder"]
    assert receipt.refusal is not None
    (reason,) = receipt.refusal.reasons
    assert (reason.measured, reason.limit, reason.evidence) == (V2, V1, P1)


def test_a_champion_that_moved_makes_relative_evidence_stale(released: Story) -> None:
    accepted(released.register("three"))
    accepted(released.judge(V3))
    accepted(released.validate(V3))
    accepted(released.promote(V3, "dev"))
    accepted(released.confirm("dev"))
    accepted(released.judge_for(V3, "prod"))
    accepted(released.approve(V3))
    accepted(released.roll_back("prod"))
    accepted(released.confirm("prod"))
    receipt = released.promote(V3, "prod")
    assert rules_of(receipt) == ["gates.baseline-moved"]
    assert receipt.refusal is not None
    assert (receipt.refusal.reasons[0].measured, receipt.refusal.reasons[0].limit) == (P2, P1)


@pytest.mark.parametrize("field", ["version", "environment"])
def test_what_is_not_declared(story: Story, field: str) -> None:
    names = {
        "version": V1,
        "environment": "dev",
        field: f"{MODEL_NAME}@7.0.0" if field == "version" else "moon",
    }
    receipt = story.do("olga", PromoteVersion(id="p", **names))
    assert rules_of(receipt) in (["registry.version-unknown"], ["delivery.environment-unknown"])


def test_an_environment_without_the_endpoint(story: Story) -> None:
    command = DeclareEnvironment(
        id="e", environment="lab", order=0, sensitivity="open", target="local", trust=()
    )
    accepted(story.do("petra", command))
    assert rules_of(story.promote(V1, "lab")) == ["delivery.endpoint-unknown"]


def test_one_release_at_a_time(story: Story) -> None:
    accepted(story.promote(V1, "dev"))
    assert rules_of(story.promote(V2, "dev")) == ["delivery.rollout-active"]
    assert rules_of(story.promote(V1, "dev")) == ["delivery.rollout-active"]
    assert story.ask(Standing(version=V2, environment="dev")).next == "wait"


def test_no_first_release_to_a_guarded_place_without_a_fallback(world: HubWorld) -> None:
    story = Story(world.hub)
    story.found(fallback=None)
    accepted(story.register("one"))
    receipt = story.promote(V1, "prod")
    assert rules_of(receipt)[-1] == "delivery.no-way-back"
    assert receipt.refusal is not None
    assert "fallback" in (receipt.refusal.reasons[-1].remedy or "")
    # Where everything is open there is nobody to let down.
    accepted(story.promote(V1, "dev"))


def test_quarantined_bytes_are_released_nowhere(story: Story) -> None:
    accepted(story.do("sam", QuarantineVersion(id="q", version=V1, reason="x")))
    assert rules_of(story.promote(V1, "dev")) == ["registry.state"]


# What the target was seen to do


def test_a_release_that_did_not_load_leaves_what_was_live(world: HubWorld, released: Story) -> None:
    plans(world)
    accepted(released.register("three"))
    accepted(released.promote(V3, "dev"))
    (event,) = accepted(released.confirm("dev", applied=False)).events
    assert event["type"] == "delivery.release-failed/1"
    assert shown(released, DEV) == ("1", "0", None)
    asked, restored = plans(world)
    assert (asked.live, restored.live, restored.previous) == (P3, P2, P1)
    assert restored.generation == asked.generation + 1 == event["restored"]
    assert states(released, V3) == ["failed"]
    accepted(released.promote(V3, "dev"))
    (again,) = plans(world)
    assert again.generation == restored.generation + 1


def test_a_first_release_that_did_not_load_leaves_the_fallback(world: HubWorld, story: Story) -> None:
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev", applied=False))
    restored = plans(world)[-1]
    assert (restored.live, restored.routes, restored.fallback.value) == (None, (), 0.2)
    assert shown(story, DEV) == (None, None, None)


def confirm(story: Story, endpoint: str, generation: int, *, applied: bool = True) -> Receipt:
    command = ConfirmPlan(
        id=story.new_id(), endpoint=endpoint, generation=generation, applied=applied, took_us=1
    )
    return story.do(CONTROLLER, command)


def test_old_news_changes_nothing(world: HubWorld, story: Story) -> None:
    accepted(story.promote(V1, "dev"))
    for generation in (0, 2, -1):
        for applied in (True, False):
            assert accepted(confirm(story, DEV, generation, applied=applied)).events == ()
    accepted(confirm(story, DEV, 1))
    assert accepted(confirm(story, DEV, 1)).events == ()
    assert accepted(confirm(story, DEV, 1, applied=False)).events == ()
    assert accepted(confirm(story, "prod/main/unknown", 1)).events == ()
    assert shown(story, DEV) == ("0", None, None)


# Rollback


def test_a_rollback_swaps_and_can_be_rolled_back(world: HubWorld, released: Story) -> None:
    plans(world)
    generations = []
    for expected in (("0", "1"), ("1", "0"), ("0", "1")):
        (event,) = accepted(released.roll_back("prod")).events
        assert shown(released) == (*expected, expected[0])
        (plan,) = plans(world)
        assert (plan.live, plan.previous) == ((P1, P2) if expected[0] == "0" else (P2, P1))
        assert {ref.digest for ref in plan.packages} == {P1, P2}
        generations.append(event["generation"])
        accepted(released.confirm("prod"))
        assert shown(released) == (*expected, None)
    assert generations == sorted(set(generations))
    assert (states(released, V1)[-1], states(released, V2)[-1]) == ("live", "rolled_back")


def test_a_rollback_asks_no_policy(world: HubWorld, released: Story) -> None:
    world.clock.advance(days=400)
    accepted(released.roll_back("prod"))


def test_a_rollback_during_a_release_calls_it_off(world: HubWorld, released: Story) -> None:
    accepted(released.register("three"))
    accepted(released.promote(V3, "dev"))
    plans(world)
    (event,) = accepted(released.roll_back("dev")).events
    assert (event["from_version"], event["to"]["version"]) == (V3, V2)
    (plan,) = plans(world)
    assert (plan.live, plan.previous) == (P2, P1)
    # What the release reports by now is old news.
    assert accepted(confirm(released, DEV, event["generation"] - 1)).events == ()
    accepted(released.confirm("dev"))
    assert shown(released, DEV) == ("1", "0", None)
    assert states(released, V3) == ["rolled_back"]
    assert states(released, V2)[0] == "live"


def test_a_rollback_that_is_typed_again_before_it_was_seen_does_not_turn_around(released: Story) -> None:
    accepted(released.roll_back("prod"))
    again = released.roll_back("prod")
    assert rules_of(again) == ["delivery.rollback-underway"]
    assert again.refusal is not None and again.refusal.waiting
    accepted(released.confirm("prod"))
    assert shown(released) == ("0", "1", None)


def test_two_people_who_leave_the_same_version_roll_back_once(released: Story) -> None:
    accepted(released.roll_back("prod"))
    accepted(released.confirm("prod"))
    late = RollBackEndpoint(id="late", endpoint=f"prod/{MODEL_NAME}", leave=V2)
    assert accepted(released.do(OPERATOR, late)).events == ()
    assert shown(released) == ("0", "1", None)


def test_a_rollback_that_was_not_seen_in_effect_says_so(released: Story) -> None:
    accepted(released.roll_back("prod"))
    (event,) = accepted(released.confirm("prod", applied=False)).events
    assert event["type"] == "delivery.rollback-failed/1"
    assert shown(released) == ("1", "0", None)


@pytest.mark.parametrize("n_releases", [0, 1])
def test_nothing_to_go_back_to(story: Story, n_releases: int) -> None:
    for version in (V1, V2)[:n_releases]:
        accepted(story.promote(version, "dev"))
        accepted(story.confirm("dev"))
    assert rules_of(story.roll_back("dev")) == ["delivery.nothing-before"]
    command = RollBackEndpoint(id="r", endpoint="dev/main/unknown")
    assert rules_of(story.do("olga", command)) == ["delivery.endpoint-unknown"]


@pytest.mark.parametrize("kind", [QuarantineVersion, RejectVersion])
def test_bytes_that_were_withdrawn_do_not_come_back(released: Story, kind: Any) -> None:
    accepted(released.do("sam", kind(id="q", version=V1, reason="x")))
    assert rules_of(released.roll_back("prod")) == ["registry.state"]
    assert shown(released) == ("1", "0", None)


# Releases and the end of a version


def test_the_history_of_releases_tells_how_each_ended(released: Story) -> None:
    assert states(released, V1) == ["superseded", "superseded"]
    assert states(released, V2) == ["live", "live"]
    accepted(released.roll_back("dev"))
    accepted(released.confirm("dev"))
    assert states(released, V1) == ["live", "superseded"]
    assert states(released, V2) == ["rolled_back", "live"]
    accepted(released.register("three"))
    accepted(released.promote(V3, "dev"))
    accepted(released.confirm("dev"))
    assert states(released, V1)[0] == "superseded"
    history = released.ask(ExplainVersion(version=V1)).releases[0]
    assert history.live_at < history.ended_at


def retire(story: Story, version: str) -> Receipt:
    return story.do("olga", RetireVersion(id=story.new_id(), version=version, reason="old"))


def test_what_serves_or_may_come_back_is_not_retired(released: Story) -> None:
    for version in (V1, V2):
        assert rules_of(retire(released, version)) == ["delivery.in-use", "delivery.in-use"]
    accepted(released.register("three"))
    accepted(released.promote(V3, "dev"))
    assert rules_of(retire(released, V3)) == ["delivery.in-use"]
    accepted(released.confirm("dev", applied=False))
    accepted(retire(released, V3))
    assert rules_of(retire(released, V3)) == ["registry.state"]
    assert rules_of(released.promote(V3, "dev")) == ["registry.state"]


# What status says of the way back


def questions(world: HubWorld, seen: Observed | None) -> Questions:
    return Questions(world.journal, world.outbox, world.clock, observe=lambda endpoint: seen)


def worker(*loaded: str, pid: int = 7, state: Any = "serving") -> WorkerState:
    return WorkerState(pid=pid, generation=9, seen=9, state=state, loaded=loaded)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (None, "not known here: the data plane is beside another hub"),
        (Observed(endpoint=PROD), "no data plane is running (lockgate up)"),
        (Observed(endpoint=PROD, workers=(worker(P1, P2),), alive=True), None),
        (Observed(endpoint=PROD, workers=(worker(P2),), alive=True), f"worker 7 has not loaded {V1}"),
        (
            Observed(endpoint=PROD, workers=(worker(P1), worker(pid=8)), alive=True),
            f"worker 8 has not loaded {V1}",
        ),
        (Observed(endpoint=PROD, workers=(worker(P1), worker(pid=8, state="gone")), alive=True), None),
    ],
)
def test_the_way_back_is_ready_when_it_is_seen_to_be(
    world: HubWorld, released: Story, seen: Observed | None, reason: str | None
) -> None:
    (found,) = questions(world, seen)(Status(endpoint=PROD)).endpoints.values()
    assert (found.rollback_ready.ready, found.rollback_ready.reason) == (reason is None, reason)


def test_the_way_back_is_shut_when_its_bytes_were_withdrawn(world: HubWorld, released: Story) -> None:
    accepted(released.do("sam", QuarantineVersion(id="q", version=V1, reason="x")))
    seen = Observed(endpoint=PROD, workers=(worker(P1, P2),), alive=True)
    (found,) = questions(world, seen)(Status(endpoint=PROD)).endpoints.values()
    assert found.rollback_ready.reason == f"{V1} is quarantined"


def test_before_a_second_release_the_fallback_is_the_way_back(story: Story) -> None:
    assert line(story, DEV).rollback_ready.reason == "no previous version yet"
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    assert line(story, DEV).rollback_ready.reason == "no previous version yet; the fallback is constant"


def test_status_lists_endpoints_up_the_ladder(story: Story) -> None:
    assert list(story.ask(Status()).endpoints) == ["dev/flight-delay", "prod/flight-delay"]


def test_all_environments_of_the_next_lower_order_come_first(world: HubWorld, story: Story) -> None:
    twin = DeclareEnvironment(
        id="twin", environment="dev-two", order=0, sensitivity="open", target="local", trust=("key",)
    )
    accepted(story.do("petra", twin))
    there = DeclareEndpoint(
        id="there", endpoint=f"dev-two/{MODEL_NAME}", fallback=Fallback(kind="constant", value=0.2)
    )
    accepted(story.do("petra", there))
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    receipt = story.promote(V1, "prod")
    assert receipt.refusal is not None
    missing = [one.message for one in receipt.refusal.reasons if one.rule == "delivery.ladder"]
    assert missing == ["the same bytes must run in dev-two first"]
    accepted(story.promote(V1, "dev-two"))
    accepted(story.confirm("dev-two"))
    assert "delivery.ladder" not in rules_of(story.promote(V1, "prod"))


# Taking an endpoint down


def remove(story: Story, endpoint: str = PROD, **more: Any) -> Receipt:
    command = RemoveEndpoint(
        id=story.new_id(), endpoint=endpoint, reason=more.pop("reason", "replaced"), **more
    )
    return story.do("petra", command)


def consumed(story: Story, *consumers: str) -> None:
    command = DeclareEndpoint(
        id=story.new_id(), endpoint=PROD, fallback=Fallback(kind="constant", value=0.5), consumers=consumers
    )
    accepted(story.do("petra", command))


def sign_off(story: Story, consumer: str) -> Receipt:
    return story.do("carl", SignOffRemoval(id=story.new_id(), endpoint=PROD, consumer=consumer))


def test_an_endpoint_is_removed_when_nobody_is_surprised(world: HubWorld, released: Story) -> None:
    story = released
    plans(world)
    consumed(story, "ops-desk", "app")
    assert rules_of(remove(story)) == ["delivery.consumers", "delivery.in-use"]
    assert rules_of(sign_off(story, "somebody")) == ["delivery.consumer-unknown"]
    accepted(sign_off(story, "app"))
    assert accepted(sign_off(story, "app")).events == ()
    refused = remove(story, live=V2)
    assert refused.refusal is not None
    (reason,) = refused.refusal.reasons
    assert (reason.measured, "ops-desk" in reason.message, "app" in reason.message) == ("1 of 2", True, False)
    accepted(sign_off(story, "ops-desk"))
    assert rules_of(remove(story, live=V1)) == ["delivery.in-use"]
    (event,) = accepted(remove(story, live=V2)).events
    assert (event["live"], event["release"], event["overridden"]) == (V2, 2, [])
    (plan,) = plans(world)
    assert (plan.routes, plan.live, plan.previous, plan.packages) == ((), None, None, ())
    assert plan.fallback == Fallback()
    assert plan.generation == event["generation"]
    assert accepted(remove(story)).events == ()


def test_over_the_heads_of_consumers_it_says_whose(released: Story) -> None:
    consumed(released, "ops-desk")
    (event,) = accepted(remove(released, live=V2, despite_consumers=True)).events
    assert event["overridden"] == ["ops-desk"]


def test_a_removed_endpoint_is_history_and_comes_back_counting(world: HubWorld, released: Story) -> None:
    story = released
    accepted(remove(story, live=V2, despite_consumers=True))
    assert PROD.replace("main/", "") not in story.ask(Status()).endpoints
    assert line(story).removed_at is not None
    assert states(story, V2)[-1] == "removed"
    assert rules_of(story.promote(V2, "prod")) == ["delivery.endpoint-unknown"]
    assert rules_of(story.roll_back("prod")) == ["delivery.nothing-before"]
    # What nothing serves any more may be retired.
    accepted(declare_endpoint(story, PROD, Fallback(kind="constant", value=0.5)))
    assert line(story).removed_at is None
    assert shown(story) == (None, None, None)
    plans(world)
    accepted(story.judge_for(V2, "prod"))
    accepted(story.approve(V2))
    (event,) = [one for one in accepted(story.promote(V2, "prod", ticket="T")).events if "release" in one][:1]
    assert event["release"] == 3
    (plan,) = plans(world)
    assert plan.generation == event["generation"] == 4


def test_an_endpoint_on_its_way_is_not_removed(story: Story) -> None:
    accepted(story.promote(V1, "dev"))
    assert "delivery.rollout-active" in rules_of(remove(story, DEV))


def test_one_that_never_served_goes_without_a_plan(world: HubWorld, story: Story) -> None:
    assert accepted(remove(story, despite_consumers=True)).effects == "done"
    assert plans(world) == []


def test_without_a_reason_nothing_is_removed(story: Story) -> None:
    assert rules_of(remove(story, reason=" ", despite_consumers=True)) == ["delivery.reason"]
    assert rules_of(remove(story, "prod/main/nothing")) == ["delivery.endpoint-unknown"]
    assert rules_of(sign_off(story, "x")) == ["delivery.consumer-unknown"]
