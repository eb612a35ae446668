"""What `Standing` says comes next when the evidence on a version alone is missing or old; and the policy in force."""

from __future__ import annotations

import pytest

from lockgate.delivery.standing import StandingAnswer
from lockgate.hub.messages import PolicyAnswer, PolicyInForce, Standing
from lockgate.testing.hub_world import AUTHOR, MAX_AGE_DAYS, MODEL_NAME, POLICY, HubWorld, Story, accepted

ONE = f"{MODEL_NAME}@1.0.0"


@pytest.fixture
def story(story: Story) -> Story:
    story.train("one")
    accepted(story.register("one", author=AUTHOR))
    return story


def standing(story: Story) -> StandingAnswer:
    answer: StandingAnswer = story.ask(Standing(version=ONE, environment="prod"))
    return answer


def in_dev(story: Story) -> None:
    accepted(story.judge(ONE))
    accepted(story.validate(ONE))
    accepted(story.promote(ONE, "dev"))
    accepted(story.confirm("dev"))


def test_without_evidence_on_itself_a_version_is_judged_first(story: Story) -> None:
    assert standing(story).next == "judge"
    accepted(story.judge(ONE))
    assert standing(story).next == "validate"


def test_a_verdict_against_it_is_not_judged_away(story: Story) -> None:
    accepted(story.judge(ONE, verdict="fail"))
    assert standing(story).next == "stop"


def test_old_evidence_is_renewed_each_where_it_belongs(world: HubWorld, story: Story) -> None:
    in_dev(story)
    assert standing(story).next == "judge-for"
    accepted(story.judge_for(ONE, "prod"))
    assert standing(story).next == "approve"
    world.clock.advance(days=MAX_AGE_DAYS + 1)
    old = standing(story)
    assert old.next == "judge"
    remedies = [reason.remedy for reason in old.reasons if reason.rule == "governance.evidence-age"]
    assert remedies == [f"lockgate judge {ONE}", f"lockgate judge {ONE} --for prod"]
    accepted(story.judge(ONE))
    assert standing(story).next == "judge-for"
    accepted(story.judge_for(ONE, "prod"))
    assert standing(story).next == "approve"


def test_the_policy_in_force_is_that_of_the_namespace(story: Story) -> None:
    known: PolicyAnswer = story.ask(PolicyInForce(namespace="main"))
    assert known.policy is not None
    assert known.policy.policy == POLICY
    assert story.ask(PolicyInForce(namespace="other")).policy is None
