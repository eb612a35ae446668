"""Break-glass: what one person may do in an emergency, what two may, and the review that is owed for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from governance_rig import ENDPOINT, V1, V2, bring, policy, ready, rules

from lockgate.core.messages import Reason, Receipt
from lockgate.delivery.messages import ReleaseInEmergency
from lockgate.governance.messages import BreakGlass, CloseReview, SecondBreakGlass
from lockgate.hub.messages import Queue, Status
from lockgate.registry.messages import QuarantineVersion, RevokeKey
from lockgate.testing.hub_world import MODEL_NAME, SIGNER, HubWorld, Story, accepted, named_digest, rules_of

V3 = f"{MODEL_NAME}@1.0.2"


@pytest.fixture
def story(world: HubWorld) -> Story:
    """1.0.1 is live after 1.0.0; 1.0.2 is validated and in dev, and nobody has approved it."""
    story = ready(world, policy())
    accepted(story.approve(V1))
    accepted(story.promote(V1, "prod"))
    accepted(story.confirm("prod"))
    bring(story, "two", V2)
    accepted(story.approve(V2))
    accepted(story.promote(V2, "prod"))
    accepted(story.confirm("prod"))
    bring(story, "three", V3)
    return story


def smash(story: Story, *, actor: str = "ivy", **change: Any) -> Receipt:
    command = BreakGlass(
        id=story.new_id(),
        model=MODEL_NAME,
        environment="prod",
        incident="INC-4",
        reason="the new one answers nonsense",
        hours=2.0,
    )
    return story.do(actor, msgspec.structs.replace(command, **change))


def second(story: Story, *, actor: str = "sam", number: int = 1) -> Receipt:
    command = SecondBreakGlass(id=story.new_id(), model=MODEL_NAME, environment="prod", number=number)
    return story.do(actor, command)


def release(story: Story, version: str, *, actor: str = "ivy", number: int = 1) -> Receipt:
    command = ReleaseInEmergency(id=story.new_id(), version=version, environment="prod", number=number)
    return story.do(actor, command)


def review(story: Story, *, actor: str = "rita", finding: str = "was needed", number: int = 1) -> Receipt:
    command = CloseReview(
        id=story.new_id(), model=MODEL_NAME, environment="prod", number=number, finding=finding
    )
    return story.do(actor, command)


def test_one_person_brings_back_what_was_live_before(story: Story) -> None:
    accepted(smash(story))
    (started,) = accepted(release(story, V1)).events
    assert (started["break_glass"], started["strategy"], started["ticket"]) == ("B-1", "direct", "INC-4")
    accepted(story.confirm("prod"))
    line = story.ask(Status(endpoint=ENDPOINT)).endpoints["prod/flight-delay"]
    assert line.live.version == "flight-delay@1.0.0"
    assert "break-glass B-1" in line.out_of_policy[0]
    accepted(review(story))
    assert story.ask(Status(endpoint=ENDPOINT)).endpoints["prod/flight-delay"].out_of_policy == ()


def test_what_never_was_live_takes_two(story: Story) -> None:
    accepted(smash(story))
    alone = release(story, V3)
    assert rules_of(alone) == ["governance.second-person"]
    assert alone.refusal is not None
    assert alone.refusal.waiting
    assert rules_of(second(story, actor="ivy")) == ["governance.separation-of-duties"]
    accepted(second(story))
    assert accepted(second(story, actor="sue")).events == ()
    accepted(release(story, V3))


def test_a_candidate_takes_more_than_two(story: Story) -> None:
    accepted(story.register("four"))
    accepted(smash(story))
    accepted(second(story))
    assert rules_of(release(story, f"{MODEL_NAME}@1.0.3")) == ["registry.state"]


def test_quarantined_bytes_stay_out_however_many_ask(story: Story) -> None:
    accepted(story.do("sam", QuarantineVersion(id="q", version=V1, reason="a leak")))
    accepted(smash(story))
    accepted(second(story))
    assert rules_of(release(story, V1)) == ["registry.state"]


def test_bytes_that_nobody_vouches_for_stay_out(story: Story, world: HubWorld) -> None:
    package = named_digest("package", "one")
    world.complaints[package] = (Reason(rule="registry.not-signed", message="no trusted signature"),)
    accepted(smash(story))
    accepted(second(story))
    assert rules_of(release(story, V1)) == ["registry.not-signed"]


def test_bytes_signed_by_a_revoked_key_stay_out(story: Story, world: HubWorld) -> None:
    accepted(smash(story))
    accepted(story.do("sue", RevokeKey(id="k", key_id=SIGNER, reason="the laptop is gone")))
    assert rules_of(release(story, V1)) == ["registry.key-revoked"]


def test_it_ends_after_its_hours(story: Story, world: HubWorld) -> None:
    accepted(smash(story))
    world.clock.advance(seconds=7201)
    assert rules_of(release(story, V1)) == ["governance.break-glass-over"]
    assert rules_of(second(story)) == ["governance.break-glass-over"]


def test_it_is_whose_it_is_and_where_it_is(story: Story) -> None:
    accepted(smash(story))
    assert rules_of(release(story, V1, actor="olga")) == ["governance.break-glass-terms"]
    accepted(second(story, actor="olga"))
    accepted(release(story, V1, actor="olga"))
    elsewhere = ReleaseInEmergency(id="e", version=V1, environment="dev", number=1)
    assert rules_of(story.do("ivy", elsewhere)) == ["governance.break-glass-unknown"]


@pytest.mark.parametrize("change", [{"hours": 5.0}, {"hours": 0.0}, {"incident": " "}, {"reason": ""}])
def test_its_terms(story: Story, change: dict[str, Any]) -> None:
    assert rules_of(smash(story, **change)) == ["governance.break-glass-terms"]


def test_a_service_breaks_no_glass(story: Story, world: HubWorld) -> None:
    hub = world.hub("robot")
    hub.session = msgspec.structs.replace(hub.session, kind="service")
    command = BreakGlass(id="x", model=MODEL_NAME, environment="prod", incident="I", reason="r", hours=1.0)
    assert rules_of(hub.execute(command)) == ["governance.not-a-person"]


def test_the_review_is_owed_and_freezes_the_model_when_it_is_late(story: Story, world: HubWorld) -> None:
    accepted(smash(story))
    accepted(story.approve(V3))
    assert rules(story, V3) == []
    (owed,) = [one for one in story.ask(Queue()).waiting if one.matter == "review"]
    assert "INC-4" in owed.what
    world.clock.advance(days=3, seconds=1)
    assert rules(story, V3) == ["governance.review-overdue"]
    assert rules_of(story.promote(V3, "prod")) == ["governance.review-overdue"]
    accepted(story.roll_back("prod"))
    accepted(story.confirm("prod"))
    accepted(smash(story))
    accepted(second(story, number=2))
    assert rules_of(release(story, V3, number=2)) == ["governance.review-overdue"]
    accepted(release(story, V2, number=2))
    accepted(story.confirm("prod"))
    for actor in ("ivy",):
        assert rules_of(review(story, actor=actor)) == ["governance.separation-of-duties"]
    assert rules_of(review(story, finding=" ")) == ["governance.review-terms"]
    accepted(review(story))
    assert accepted(review(story)).events == ()
    assert rules_of(review(story, actor="sam", number=2)) == ["governance.separation-of-duties"]
    assert "governance.review-overdue" not in rules(story, V3)


def test_a_free_environment_is_not_frozen(story: Story, world: HubWorld) -> None:
    accepted(smash(story))
    world.clock.advance(days=4)
    accepted(story.register("four"))
    accepted(story.promote(f"{MODEL_NAME}@1.0.3", "dev"))


def test_what_is_live_already_is_no_news(story: Story) -> None:
    accepted(smash(story))
    assert accepted(release(story, V2)).events == ()


def test_a_release_on_its_way_is_called_off_first(story: Story) -> None:
    accepted(story.approve(V3))
    accepted(story.promote(V3, "prod"))
    accepted(smash(story))
    assert rules_of(release(story, V1)) == ["delivery.rollout-active"]
    accepted(story.roll_back("prod"))
    accepted(story.confirm("prod"))
    accepted(release(story, V1))
