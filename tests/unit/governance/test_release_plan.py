"""What a promotion carries beside evidence: release plan, ticket, sign-offs of consumers, a rehearsed way back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from governance_rig import ENDPOINT, STEPWISE, V1, V2, bring, policy, ready, rules, standing

from lockgate.delivery.messages import DrillFigures, FinishDrill, PromoteVersion, StartDrill
from lockgate.governance.messages import SignOff, WriteReleasePlan
from lockgate.governance.release_plan import Mishap, Risk, drafted
from lockgate.hub.messages import DraftReleasePlan, FindReleases, Lineage, Queue
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted, rules_of

PLANNED = policy(release_plan=("production",))
GUARDS = {"errors": "it fails", "labels": "it is wrong"}


@pytest.fixture
def story(world: HubWorld) -> Story:
    story = ready(world, PLANNED)
    accepted(story.configure("prod", STEPWISE))
    return story


def live(story: Story, version: str = V1) -> None:
    accepted(story.plan(version))
    accepted(story.approve(version))
    accepted(story.promote(version, "prod", ticket="OPS-1"))
    accepted(story.confirm("prod"))


def test_a_plan_comes_before_the_approval(story: Story) -> None:
    assert rules(story) == ["governance.release-plan", "governance.approval"]
    assert standing(story).next == "plan"
    accepted(story.plan(V1))
    assert standing(story).next == "approve"


def test_a_plan_is_part_of_what_is_approved(story: Story) -> None:
    accepted(story.plan(V1))
    accepted(story.approve(V1))
    assert rules(story) == []
    accepted(story.plan(V1, signal="labels"))
    assert rules(story) == ["governance.approval"]
    accepted(story.plan(V1))
    assert rules(story) == [], "the very plan that was approved"
    (started,) = accepted(story.promote(V1, "prod")).events
    answer = standing(story)
    assert answer.plan is not None
    assert started["plan"] == answer.plan.digest


def test_the_same_plan_again_is_no_news(story: Story) -> None:
    accepted(story.plan(V1))
    assert accepted(story.plan(V1)).events == ()


def write(story: Story, *risks: Risk, **change: Any) -> Any:
    command = WriteReleasePlan(id=story.new_id(), version=V1, environment="prod", risks=risks)
    return story.do("ann", msgspec.structs.replace(command, **change))


def test_a_risk_that_nothing_would_show_is_refused(story: Story) -> None:
    receipt = write(story, Risk(what="the feed stops", signal="pager"), Risk(what="late", signal="latency"))
    assert rules_of(receipt) == ["governance.no-signal", "governance.no-signal"]
    assert receipt.refusal.reasons[0].limit == "errors, labels"
    assert rules_of(write(story)) == ["governance.no-risk"]
    assert rules_of(write(story, Risk(what=" ", signal="errors"))) == ["governance.no-risk"]


def test_without_any_guard_there_is_no_plan(world: HubWorld) -> None:
    story = ready(world, PLANNED)
    receipt = story.plan(V1)
    assert rules_of(receipt) == ["governance.no-signal"]
    assert receipt.refusal is not None
    assert 'endpoints."prod/flight-delay".rollout' in (receipt.refusal.reasons[0].remedy or "")


def test_a_guard_that_is_gone_makes_the_plan_void(story: Story) -> None:
    accepted(story.plan(V1, signal="labels"))
    rollout = STEPWISE.rollout
    assert rollout is not None
    fewer = msgspec.structs.replace(rollout, guards={"errors": rollout.guards["errors"]})
    accepted(story.configure("prod", msgspec.structs.replace(STEPWISE, rollout=fewer)))
    assert "governance.no-signal" in rules(story)


def test_a_plan_is_about_the_way_back_there_is(story: Story) -> None:
    bring(story, "two", V2)
    accepted(story.plan(V2))
    answer = standing(story, V2)
    assert answer.plan is not None
    assert answer.plan.back_to == "fallback"
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    live(story)
    accepted(story.promote(V2, "dev"))
    accepted(story.confirm("dev"))
    accepted(story.judge_for(V2, "prod", turn=2))
    (stale,) = [one for one in standing(story, V2).reasons if one.rule == "governance.release-plan"]
    assert (stale.measured, stale.limit) == ("fallback", V1)
    accepted(story.plan(V2))
    answer = standing(story, V2)
    assert answer.plan is not None
    assert answer.plan.back_to == V1


FIGURES = DrillFigures(
    n_flips=5,
    n_requests=100,
    n_failed=0,
    n_wrong=0,
    n_workers=1,
    first_p50_us=900,
    first_p99_us=2500,
    all_p50_us=1000,
    all_p99_us=3000,
)


def drill(story: Story, figures: DrillFigures = FIGURES) -> None:
    started = accepted(story.do("olga", StartDrill(id=story.new_id(), endpoint=ENDPOINT, n_flips=5)))
    number = started.events[0]["drill"]
    accepted(
        story.do("olga", FinishDrill(id=story.new_id(), endpoint=ENDPOINT, drill=number, figures=figures))
    )


def two_live(world: HubWorld, rules_in_force: Any) -> Story:
    """1.0.1 is live after 1.0.0, and a third version lacks only what a test is about."""
    story = ready(world, rules_in_force)
    for name, version in (("two", V2), ("three", f"{MODEL_NAME}@1.0.2")):
        before = V1 if version == V2 else V2
        accepted(story.approve(before))
        accepted(story.promote(before, "prod"))
        accepted(story.confirm("prod"))
        bring(story, name, version)
    return story


def test_a_way_back_that_was_rehearsed_is_part_of_the_plan(world: HubWorld) -> None:
    story = two_live(world, policy())
    accepted(story.configure("prod", STEPWISE))
    third = f"{MODEL_NAME}@1.0.2"
    drill(story)
    accepted(story.plan(third))
    plan = standing(story, third).plan
    assert plan is not None
    assert (plan.back_to, plan.drilled_ms) == (V2, 2.5)


def test_a_critical_tier_wants_a_way_back_that_was_rehearsed_lately(world: HubWorld) -> None:
    story = two_live(world, policy(drill_max_age_days={"production": 30}))
    third = f"{MODEL_NAME}@1.0.2"
    accepted(story.approve(third))
    assert rules(story, third) == ["governance.drill-age"]
    assert standing(story, third).next == "stop"
    drill(story, msgspec.structs.replace(FIGURES, n_failed=1))
    assert rules(story, third) == ["governance.drill-age"]
    drill(story)
    assert rules(story, third) == []
    world.clock.advance(days=31)
    assert "governance.drill-age" in rules(story, third)


def test_before_a_second_version_there_is_nothing_to_rehearse(world: HubWorld) -> None:
    story = ready(world, policy(drill_max_age_days={"production": 30}))
    accepted(story.approve(V1))
    assert rules(story) == []


# --- drafts


def test_a_draft_begins_with_what_has_happened() -> None:
    mishaps = [
        Mishap(version="x@1.2.0", how="was taken back", why="wrong at night", guards=("labels",)),
        Mishap(version="x@1.1.0", how="was taken back", why="wrong at night", guards=("labels",)),
        Mishap(version="x@1.0.1", how="did not get there", why="it could not be loaded"),
    ]
    assert drafted(GUARDS, mishaps) == (
        Risk(what="as x@1.2.0, which was taken back: wrong at night", signal="labels"),
        Risk(what="as x@1.0.1, which did not get there: it could not be loaded", signal="errors"),
    )
    assert drafted(GUARDS, mishaps[:1])[1] == Risk(what="it fails", signal="errors")
    assert drafted({}, mishaps) == ()


def test_a_draft_is_made_of_the_journal_and_is_a_plan(story: Story) -> None:
    live(story)
    bring(story, "two", V2)
    accepted(story.plan(V2))
    accepted(story.approve(V2))
    accepted(story.promote(V2, "prod"))
    accepted(story.confirm("prod"))
    accepted(story.roll_back("prod", reason="complaints\nfrom the gates"))
    accepted(story.confirm("prod"))
    third = f"{MODEL_NAME}@1.0.2"
    bring(story, "three", third)
    draft = story.ask(DraftReleasePlan(version=third, environment="prod"))
    assert draft.back_to == V1
    assert draft.risks == (
        Risk(what="as flight-delay@1.0.1, which was taken back: complaints from the gates", signal="errors"),
        Risk(what="more of its answers turn out wrong by over 0.5", signal="labels"),
    )
    accepted(write(story, *draft.risks, version=third))
    assert standing(story, third).next == "approve"


# --- tickets


TICKETED = policy(ticket={"production": "OPS-[0-9]+"})


@pytest.mark.parametrize("ticket", ["", "OPS-", "see OPS-1", "ops-1"])
def test_a_promotion_names_its_ticket(world: HubWorld, ticket: str) -> None:
    story = ready(world, TICKETED)
    accepted(story.approve(V1))
    assert (standing(story).next, standing(story).ticket) == ("promote", "OPS-[0-9]+")
    receipt = story.promote(V1, "prod", ticket=ticket)
    assert rules_of(receipt) == ["governance.ticket"]
    assert receipt.refusal is not None
    assert receipt.refusal.reasons[0].limit == "OPS-[0-9]+"
    accepted(story.promote(V1, "prod", ticket="OPS-12"))


def test_releases_are_found_by_ticket_and_by_pull_request(world: HubWorld) -> None:
    story = ready(world, TICKETED)
    accepted(story.approve(V1))
    address = "https://forge.example/flights/pull/7"
    command = PromoteVersion(id="p", version=V1, environment="prod", ticket="OPS-12", pull_request=address)
    accepted(story.do("olga", command))
    for asked in ("OPS-12", address):
        (release,) = story.ask(FindReleases(ticket=asked)).releases
        assert (release.endpoint, release.version, release.pull_request) == (ENDPOINT, V1, address)
    assert story.ask(FindReleases(ticket="OPS-1")).releases == ()
    (edge,) = story.ask(Lineage(ref="ticket:OPS-12")).edges
    assert edge.target == f"release:{ENDPOINT}#000001"


# --- consumers


@pytest.fixture
def broken_contract(world: HubWorld) -> Story:
    """1.0.0 is live; 2.0.0 breaks its contract and is approved."""
    story = ready(world, policy(rest={"sign_off": ("production",)}))
    accepted(story.approve(V1))
    accepted(story.promote(V1, "prod"))
    accepted(story.confirm("prod"))
    world.bumps[story.registering("two").package] = "major"
    bring(story, "two", f"{MODEL_NAME}@2.0.0")
    accepted(story.approve(f"{MODEL_NAME}@2.0.0"))
    return story


def sign(story: Story, consumer: str = "app", actor: str = "pia") -> Any:
    command = SignOff(id=story.new_id(), version=f"{MODEL_NAME}@2.0.0", environment="prod", consumer=consumer)
    return story.do(actor, command)


def test_consumers_agree_to_a_major_version(broken_contract: Story) -> None:
    major = f"{MODEL_NAME}@2.0.0"
    assert rules(broken_contract, major) == ["governance.sign-off"]
    assert standing(broken_contract, major).decision == "waiting"
    refused = broken_contract.promote(major, "prod").refusal
    assert refused is not None
    assert refused.waiting
    (waits,) = broken_contract.ask(Queue()).waiting
    assert waits.matter == "approval"
    assert rules_of(sign(broken_contract, "somebody")) == ["governance.consumer-unknown"]
    assert rules_of(sign(broken_contract, actor="ann")) == ["governance.separation-of-duties"]
    accepted(sign(broken_contract))
    assert accepted(sign(broken_contract)).events == ()
    assert rules(broken_contract, major) == []


def test_a_minor_version_asks_no_consumer(world: HubWorld) -> None:
    story = two_live(world, policy(rest={"sign_off": ("production",)}))
    third = f"{MODEL_NAME}@1.0.2"
    accepted(story.approve(third))
    assert rules(story, third) == []
