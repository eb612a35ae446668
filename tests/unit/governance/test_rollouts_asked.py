"""A policy that asks for a rollout: what it refuses, what stays fast, and what nobody passes over by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from governance_rig import ENDPOINT, V1, V2, bring, policy, ready, standing

from lockgate.core.messages import Reason, Receipt
from lockgate.delivery.messages import (
    AdvanceRollout,
    DeclareEndpoint,
    ReleaseInEmergency,
    RemoveEndpoint,
    RetireVersion,
)
from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep, Stage
from lockgate.delivery.rollouts.verdict import Look, Segment, Tally
from lockgate.governance.messages import AdoptPolicy, BreakGlass
from lockgate.governance.policies.file import parse_policy, rule_lines
from lockgate.governance.policies.laxity import laxer
from lockgate.governance.policies.policy import Policy, PolicyInvalid, StageTerms
from lockgate.hub.messages import ReplayPolicy, ShowRollout, Status, VerifyAudit
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted, rules_of
from lockgate.traffic.plan import Fallback

SHADOW = StageTerms(stage="shadow", min_units=10, min_hours=1)
CANARY = StageTerms(stage="canary", levels=2, max_share=0.1)
GUARDS: Any = {"errors": Guard()}


def asking(*stages: StageTerms, version: int = 1, place: str = "production") -> Policy:
    return policy(version, rollout={place: stages})


def step(stage: Stage, weight: int, min_units: int = 10, hours: float = 1.0) -> RolloutStep:
    return RolloutStep(stage=stage, weight=weight, min_units=min_units, bake_s=hours * 3600)


ENOUGH = (step("shadow", 0), step("canary", 1000, 1, 0), step("canary", 5000, 1, 0))


def configured(story: Story, *steps: RolloutStep, guards: Any = GUARDS, environment: str = "prod") -> None:
    rollout = RolloutPolicy(steps=steps, guards=guards) if steps else None
    accepted(story.configure(environment, EndpointSettings(rollout=rollout)))


@pytest.fixture
def story(world: HubWorld) -> Story:
    """V1 is live under a policy that asks for shadow and canary; V2 lacks nothing else."""
    story = ready(world, asking(SHADOW, CANARY))
    accepted(story.approve(V1))
    accepted(story.promote(V1, "prod"))
    accepted(story.confirm("prod"))
    bring(story, "two", V2)
    accepted(story.approve(V2))
    return story


def lacking(story: Story, version: str = V2) -> list[Reason]:
    reasons = standing(story, version).reasons
    assert {reason.rule for reason in reasons} <= {"governance.rollout"}
    return list(reasons)


def test_a_release_at_once_is_refused_by_name(story: Story) -> None:
    refused = story.promote(V2, "prod")
    assert rules_of(refused) == ["governance.rollout", "governance.rollout"]
    shadow, canary = lacking(story)
    assert (
        shadow.message == f"prod asks for a shadow of 10 units, for 1 h before everybody is answered by {V2}"
    )
    assert (shadow.measured, shadow.limit) == ("it releases at once", "shadow of 10 units, for 1 h")
    assert shadow.remedy == (
        'in lockgate.toml, under [endpoints."prod/flight-delay".rollout], let steps hold '
        "{ weight = 0, min_units = 10, bake_s = 3600 }; then lockgate declare"
    )
    assert (
        canary.remedy is not None and "{ weight = 0.1, min_units = 1 } and 1 more of bigger" in canary.remedy
    )
    assert standing(story, V2).next == "stop"


@pytest.mark.parametrize(
    ("steps", "n_missing"),
    [
        (ENOUGH, 0),
        ((*ENOUGH, step("soak", 10_000)), 0),
        (ENOUGH[:1], 1),
        (ENOUGH[1:], 1),
        (ENOUGH[:2], 1),
        ((step("shadow", 0, hours=0.9), *ENOUGH[1:]), 1),
        ((step("shadow", 0, min_units=9), *ENOUGH[1:]), 1),
        ((ENOUGH[0], step("canary", 1001), step("canary", 5000)), 1),
        ((step("canary", 9_999),), 2),
    ],
)
def test_each_stage_that_is_missing_or_too_small_is_told(
    story: Story, steps: tuple[RolloutStep, ...], n_missing: int
) -> None:
    configured(story, *steps)
    assert len(lacking(story)) == n_missing
    receipt = story.promote(V2, "prod")
    assert len(rules_of(receipt)) == n_missing
    assert (receipt.refusal is None) == (n_missing == 0)


def test_a_canary_that_nobody_watches_is_none(story: Story) -> None:
    configured(story, *ENOUGH, guards={})
    (reason,) = lacking(story)
    assert reason.measured is not None and reason.measured.endswith("without any guard")


def test_hours_of_a_stage_add_up_and_units_do_not(story: Story) -> None:
    wanted = StageTerms(stage="canary", levels=2, min_hours=2, min_units=10)
    accepted(story.do("petra", AdoptPolicy(id="p", namespace="main", policy=asking(wanted, version=2))))
    accepted(story.approve(V2))
    configured(story, step("canary", 100), step("canary", 200))
    assert lacking(story) == []
    configured(story, step("canary", 100, 19), step("canary", 200, 9))
    assert len(lacking(story)) == 1


def test_dev_and_a_first_release_have_nothing_to_go_beside(world: HubWorld) -> None:
    story = ready(world, asking(SHADOW, CANARY))
    assert standing(story).next == "approve"
    accepted(story.approve(V1))
    accepted(story.promote(V1, "prod"))


def test_a_place_that_asks_for_none_stays_free(world: HubWorld) -> None:
    story = ready(world, asking(SHADOW, place="guarded"))
    for name, version in (("one", V1), ("two", V2)):
        if version == V2:
            bring(story, name, version)
        accepted(story.approve(version))
        accepted(story.promote(version, "prod"))
        accepted(story.confirm("prod"))


def test_an_emergency_and_the_way_back_are_as_fast_as_ever(story: Story) -> None:
    smash = BreakGlass(id="b", model=MODEL_NAME, environment="prod", incident="I", reason="r", hours=1.0)
    accepted(story.do("ivy", smash))
    configured(story, *ENOUGH)
    accepted(story.promote(V2, "prod"))
    accepted(story.confirm("prod"))
    accepted(story.roll_back("prod"))
    accepted(story.confirm("prod"))
    configured(story)
    accepted(story.do("ivy", ReleaseInEmergency(id="r", version=V1, environment="prod", number=1)))


def test_what_was_removed_and_declared_again_is_no_first_release(world: HubWorld, story: Story) -> None:
    remove = RemoveEndpoint(id="r", endpoint=ENDPOINT, reason="tidying up", live=V1, despite_consumers=True)
    accepted(story.do("petra", remove))
    fallback = Fallback(kind="constant", value=0.2)
    accepted(story.do("petra", DeclareEndpoint(id="d", endpoint=ENDPOINT, fallback=fallback)))
    configured(story, *ENOUGH)
    (reason,) = [one for one in standing(story, V2).reasons if one.rule == "governance.rollout"]
    assert reason.message == f"{V1} ran on prod/flight-delay when it was removed: {V2} goes out beside it"
    assert reason.remedy is not None and f"lockgate promote {V1} --to prod" in reason.remedy
    assert "governance.rollout" not in {one.rule for one in standing(story, V1).reasons}
    bring(story, "three", f"{MODEL_NAME}@1.0.2")
    accepted(story.do("olga", RetireVersion(id=story.new_id(), version=V1, reason="it does not come back")))
    assert "governance.rollout" not in {one.rule for one in standing(story, V2).reasons}
    assert story.ask(VerifyAudit()).ok


# -- by hand


def look(number: int, n: int) -> Look:
    chosen = ENOUGH[number]
    segment = Segment(
        step=number,
        stage=chosen.stage,
        weight=chosen.weight,
        n_canary=n,
        n_control=n,
        guards={"errors": Tally(n_canary=n, n_control=n, bad_canary=0, bad_control=0)},
    )
    return Look(segments=(segment,), since=1, until=2, n_dropped=0)


@pytest.fixture
def in_shadow(story: Story) -> Story:
    configured(story, *ENOUGH)
    accepted(story.promote(V2, "prod"))
    accepted(story.confirm("prod"))
    return story


def moved(story: Story, *, full: bool = False) -> Receipt:
    rollout = story.ask(Status(endpoint=ENDPOINT)).endpoints["prod/flight-delay"].rollout
    command = AdvanceRollout(
        id=story.new_id(),
        endpoint=ENDPOINT,
        release=rollout.release,
        step=rollout.step - 1,
        full=full,
        reason="hurry",
    )
    return story.do("olga", command)


def test_the_time_and_the_units_of_a_stage_are_not_passed_over(world: HubWorld, in_shadow: Story) -> None:
    assert rules_of(moved(in_shadow)) == ["governance.rollout"]
    accepted(in_shadow.judge_rollout("prod", look(0, 10)))
    world.clock.advance(seconds=3599)
    refused = moved(in_shadow)
    assert rules_of(refused) == ["governance.rollout"]
    assert refused.refusal is not None
    assert refused.refusal.reasons[0].measured == "1 steps so far, 1.0 h, 10 units in this one"
    world.clock.advance(seconds=1)
    accepted(moved(in_shadow))


def test_units_that_were_not_seen_are_not_there(world: HubWorld, in_shadow: Story) -> None:
    accepted(in_shadow.judge_rollout("prod", look(0, 9)))
    world.clock.advance(seconds=3600)
    assert rules_of(moved(in_shadow)) == ["governance.rollout"]


def test_a_stage_that_is_to_come_is_not_left_out(world: HubWorld, in_shadow: Story) -> None:
    accepted(in_shadow.judge_rollout("prod", look(0, 10)))
    world.clock.advance(seconds=3600)
    assert rules_of(moved(in_shadow, full=True)) == ["governance.rollout"]
    for _ in range(2):
        accepted(moved(in_shadow))
        accepted(in_shadow.confirm("prod"))
    assert in_shadow.ask(ShowRollout(endpoint=ENDPOINT)).rollout.heading == 2
    accepted(moved(in_shadow, full=True))
    assert in_shadow.ask(VerifyAudit()).ok


# -- the policy itself


def test_history_is_asked_about_the_way_it_went(story: Story) -> None:
    configured(story, *ENOUGH)
    accepted(story.promote(V2, "prod"))
    strict = asking(SHADOW, StageTerms(stage="canary", levels=3), version=2)
    (line,) = story.ask(ReplayPolicy(namespace="main", policy=strict)).blocked
    assert (line.version, [one.rule for one in line.reasons]) == (V2, ["governance.rollout"])
    assert story.ask(ReplayPolicy(namespace="main", policy=asking(SHADOW, version=2))).blocked == ()


@pytest.mark.parametrize(
    ("change", "lax"),
    [
        ({}, False),
        ({"levels": 3}, False),
        ({"max_share": 0.05}, False),
        ({"min_units": 11}, False),
        ({"min_hours": 2}, False),
        ({"levels": 1}, True),
        ({"max_share": 0.2}, True),
        ({"min_units": 9}, True),
        ({"min_hours": 0.5}, True),
    ],
)
def test_a_stage_that_asks_for_less_is_laxer(change: dict[str, Any], lax: bool) -> None:
    old = StageTerms(stage="canary", levels=2, max_share=0.1, min_units=10, min_hours=1)
    found = laxer(asking(old), asking(msgspec.structs.replace(old, **change)))
    line = "rollouts in production without canary in 2 steps, the first of at most 10 %, of 10 units each, for 1 h"
    assert found == ([f"{tier}: {line}" for tier in ("low", "moderate", "high", "critical")] if lax else [])


def test_a_stage_that_is_gone_is_laxer() -> None:
    assert len(laxer(asking(SHADOW, CANARY), asking(CANARY))) == 4
    assert laxer(asking(CANARY), asking(SHADOW, CANARY)) == []


TIER = """
[tiers.{tier}]
gates = ["perf.absolute"]
evidence_max_age_days = 7
rollout.production = [{{ stage = "shadow", min_hours = 72 }}, {{ stage = "canary", max_share = 0.1 }}]
"""
TEXT = 'schema = "lockgate.policy/2"\nname = "p"\nversion = 1\n' + "".join(
    TIER.format(tier=tier) for tier in ("low", "moderate", "high", "critical")
)


def test_a_policy_says_what_rollouts_it_asks_for() -> None:
    rules = parse_policy(TEXT, where="policy.toml")
    assert rules.rule("low").rollout["production"][0] == StageTerms(stage="shadow", min_hours=72)
    told = " ".join(rule_lines(rules, "low"))
    assert "a rollout in production: shadow for 72 h, then canary of at most 10 %" in told


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('"shadow", min_hours = 72', '"shade"', "shade"),
        ("min_hours = 72", "min_hours = 745", "lasts 745 h"),
        ("min_hours = 72", "min_units = 0", "no unit"),
        ("min_hours = 72", "levels = 2", "of which there is one"),
        ("max_share = 0.1", "max_share = 0.0", "share"),
        ('"canary", max_share = 0.1', '"soak"', "no canary before it"),
        ('"canary", max_share = 0.1', '"shadow"', "order"),
        ('[{ stage = "shadow", min_hours = 72 }, { stage = "canary", max_share = 0.1 }]', "[]", "no stage"),
    ],
)
def test_a_rollout_that_cannot_be_or_asks_for_nothing_is_no_policy(old: str, new: str, place: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(TEXT.replace(old, new, 1), where="policy.toml")
    assert "tiers.low has a rollout for production" in caught.value.message or place == "shade"
    assert place in caught.value.message
