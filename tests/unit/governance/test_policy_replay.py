"""History judged by another policy: what would have been blocked, and nothing is changed by asking."""

from __future__ import annotations

import msgspec
import pytest
from governance_rig import ENDPOINT, V1, V2, bring, policy, ready, standing

from lockgate.core.digests import digest_of
from lockgate.delivery.messages import ReleaseInEmergency
from lockgate.governance.messages import AdoptPolicy, BreakGlass
from lockgate.governance.policies.policy import Policy
from lockgate.hub.messages import ReplayAnswer, ReplayPolicy, Standing
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted

MILD = policy()


@pytest.fixture
def story(world: HubWorld) -> Story:
    """Both versions went to prod with an owner's approval, the first one with a ticket; both through dev."""
    story = ready(world, MILD)
    accepted(story.approve(V1))
    accepted(story.promote(V1, "prod", ticket="OPS-1"))
    accepted(story.confirm("prod"))
    bring(story, "two", V2)
    accepted(story.approve(V2))
    accepted(story.promote(V2, "prod"))
    accepted(story.confirm("prod"))
    return story


def replay(story: Story, rules: Policy) -> ReplayAnswer:
    answer: ReplayAnswer = story.ask(ReplayPolicy(namespace="main", policy=rules))
    return answer


def blocked(answer: ReplayAnswer) -> dict[str, list[str]]:
    return {
        f"{line.endpoint} {line.version}": [reason.rule for reason in line.reasons] for line in answer.blocked
    }


def test_the_policy_that_ruled_blocks_nothing(story: Story) -> None:
    assert (replay(story, MILD).n_releases, replay(story, MILD).blocked) == (4, ())


def test_a_stricter_one_says_what_it_would_have_blocked(story: Story) -> None:
    assert blocked(replay(story, policy(2, ticket={"production": "OPS-[0-9]+"}))) == {
        f"{ENDPOINT} {V2}": ["governance.ticket"]
    }
    strict = policy(2, approvals={"production": ("owner", "risk")})
    assert blocked(replay(story, strict)) == {
        f"{ENDPOINT} {V1}": ["governance.approval"],
        f"{ENDPOINT} {V2}": ["governance.approval"],
    }
    assert len(replay(story, policy(2, gates=("perf.absolute", "calibration"))).blocked) == 2


def test_evidence_is_as_old_as_it_was_then(story: Story, world: HubWorld) -> None:
    world.clock.advance(days=100)
    assert blocked(replay(story, policy(2, evidence_max_age_days=1))) == {}


def test_what_went_by_break_glass_is_no_promotion(story: Story) -> None:
    smash = BreakGlass(id="b", model=MODEL_NAME, environment="prod", incident="I", reason="r", hours=1.0)
    accepted(story.do("ivy", smash))
    accepted(story.do("ivy", ReleaseInEmergency(id="r", version=V1, environment="prod", number=1)))
    assert replay(story, MILD).n_releases == 4


def test_asking_changes_nothing(story: Story, world: HubWorld) -> None:
    before = world.journal.head()
    replay(story, policy(2, ticket={"production": "X"}))
    assert world.journal.head() == before


def test_a_policy_that_is_not_in_force_can_be_asked_about_one_version(story: Story) -> None:
    third = f"{MODEL_NAME}@1.0.2"
    bring(story, "three", third)
    accepted(story.approve(third))
    assert standing(story, third).decision == "allowed"
    stricter = policy(2, approvals={"production": ("owner", "risk")})
    answer = story.ask(Standing(version=third, environment="prod", policy=stricter))
    assert (answer.decision, answer.empty) == ("waiting", ("owner", "risk"))
    assert standing(story, third).decision == "allowed"


def test_the_policy_in_force_keeps_its_digest_when_it_is_asked_about(story: Story) -> None:
    accepted(story.do("petra", AdoptPolicy(id="p", namespace="main", policy=policy(3))))
    assert replay(story, policy(3)).blocked == ()
    assert digest_of(policy(3)) == policy(3).digest
    assert msgspec.json.decode(msgspec.json.encode(policy(3)), type=Policy) == policy(3)
