from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.governance.messages import AdoptPolicy, ApproveVersion
from lockgate.governance.policy import Policy
from lockgate.hub.messages import ExplainVersion, Standing, StandingAnswer
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import MODEL_NAME, POLICY, HubWorld, Story, accepted, named_digest, rules_of
from lockgate.testing.memory_journal import MemoryJournal, MemoryOutbox

V1 = f"{MODEL_NAME}@1.0.0"


@pytest.fixture
def world() -> HubWorld:
    journal = MemoryJournal()
    return HubWorld(journal, MemoryOutbox(journal.store))


@pytest.fixture
def story(world: HubWorld) -> Story:
    story = Story(world.hub)
    story.found()
    accepted(story.register("one"))
    return story


@pytest.fixture
def validated(story: Story) -> Story:
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    return story


def standing(story: Story, environment: str = "prod") -> StandingAnswer:
    answer: StandingAnswer = story.ask(Standing(version=V1, environment=environment))
    return answer


def adopt(story: Story, policy: Policy) -> Any:
    return story.do("petra", AdoptPolicy(id=story.new_id(), namespace="main", policy=policy))


def test_a_policy_is_adopted_once(story: Story) -> None:
    assert accepted(adopt(story, POLICY)).events == ()
    changed = msgspec.structs.replace(POLICY, version=2)
    (event,) = accepted(adopt(story, changed)).events
    assert event["digest"] == changed.digest != POLICY.digest


def test_without_a_policy_nothing_is_validated(world: HubWorld) -> None:
    story = Story(world.hub)
    accepted(story.do("p", DeclareModel(id="m", model=MODEL_NAME, tier="low", owner="o", purpose="p")))
    accepted(story.register("one"))
    assert rules_of(story.validate(V1)) == ["governance.no-policy"]


def test_a_candidate_without_evidence_is_told_which_gate_is_missing(story: Story) -> None:
    receipt = story.validate(V1)
    assert receipt.refusal is not None
    (reason,) = receipt.refusal.reasons
    assert (reason.rule, reason.measured, reason.remedy) == ("perf.absolute", "none", f"lockgate judge {V1}")
    assert not receipt.refusal.waiting


@pytest.mark.parametrize(
    ("verdict", "severity", "passes"),
    [
        ("pass", "block", True),
        ("warn", "block", True),
        ("fail", "block", False),
        ("error", "block", False),
        ("pass", "warn", True),
        ("warn", "warn", True),
        ("fail", "warn", True),
        ("error", "warn", False),
    ],
)
def test_which_verdicts_let_a_version_through(
    story: Story, verdict: Any, severity: Any, passes: bool
) -> None:
    command = story.judging(V1, named_digest("package", "one"), verdict=verdict)
    lines = tuple(msgspec.structs.replace(line, severity=severity) for line in command.lines)
    accepted(story.do("eve", msgspec.structs.replace(command, lines=lines)))
    receipt = story.validate(V1)
    assert (receipt.refusal is None) == passes
    if receipt.refusal is not None:
        (reason,) = receipt.refusal.reasons
        assert (reason.rule, reason.measured, reason.limit) == ("perf.absolute:auc", "0.81", "0.70")
        assert reason.evidence == command.lines[0].digest


def test_a_gate_nobody_asked_for_still_blocks_when_it_fails(story: Story) -> None:
    command = story.judging(V1, named_digest("package", "one"))
    extra = msgspec.structs.replace(
        command.lines[0], gate="fairness", verdict="fail", digest=named_digest("extra")
    )
    accepted(story.do("eve", msgspec.structs.replace(command, lines=(*command.lines, extra))))
    assert rules_of(story.validate(V1)) == ["fairness:auc"]


def test_evidence_grows_too_old(world: HubWorld, story: Story) -> None:
    accepted(story.judge(V1))
    world.clock.advance(days=7.01)
    receipt = story.validate(V1)
    assert receipt.refusal is not None
    (reason,) = receipt.refusal.reasons
    assert (reason.rule, reason.measured, reason.limit) == ("governance.evidence-age", "7 days", "7 days")
    accepted(story.judge(V1, turn=1))
    accepted(story.validate(V1))


def test_validating_again_is_no_news_until_the_evidence_changes(validated: Story) -> None:
    assert accepted(validated.validate(V1)).events == ()
    accepted(validated.judge(V1, turn=2))
    assert len(accepted(validated.validate(V1)).events) == 1


def test_a_candidate_is_not_approved(story: Story) -> None:
    assert rules_of(story.approve(V1)) == ["registry.state"]


def test_the_author_does_not_approve(validated: Story) -> None:
    receipt = validated.approve(V1, actor="ann")
    assert rules_of(receipt) == ["governance.separation-of-duties"]
    assert receipt.refusal is not None
    assert not receipt.refusal.waiting


def test_an_approval_is_about_the_evidence_that_was_seen(validated: Story) -> None:
    seen = standing(validated).bound
    accepted(validated.judge_for(V1, "prod"))
    command = ApproveVersion(id="a", version=V1, environment="prod", evidence_set=seen)
    assert rules_of(validated.do("bob", command)) == ["governance.evidence-changed"]
    both = validated.do("ann", msgspec.structs.replace(command, id="b"))
    assert rules_of(both) == ["governance.separation-of-duties", "governance.evidence-changed"]


def test_the_same_approval_again_is_no_news(validated: Story) -> None:
    assert len(accepted(validated.approve(V1)).events) == 1
    assert accepted(validated.approve(V1)).events == ()
    assert len(accepted(validated.approve(V1, actor="cleo")).events) == 1
    assert standing(validated).standing == ("bob", "cleo")
    kept = validated.ask(ExplainVersion(version=V1)).approvals["prod"]
    assert [(one.approver, one.comment) for one in kept] == [("bob", "fine"), ("cleo", "fine")]


def test_new_evidence_makes_an_approval_stale_for_good(validated: Story) -> None:
    accepted(validated.approve(V1))
    assert standing(validated).standing == ("bob",)
    accepted(validated.judge(V1, turn=5))
    assert standing(validated).standing == ()
    (missing,) = [reason for reason in standing(validated).reasons if reason.rule == "governance.approval"]
    assert missing.measured == "0 of 1"
    assert "1 given on other evidence or policy no longer count" in missing.message
    accepted(validated.approve(V1))
    assert standing(validated).standing == ("bob",)


def test_another_policy_makes_an_approval_stale(validated: Story) -> None:
    accepted(validated.approve(V1))
    accepted(adopt(validated, msgspec.structs.replace(POLICY, version=2)))
    assert standing(validated).standing == ()


def test_one_person_counts_once_however_often(world: HubWorld) -> None:
    story = Story(world.hub)
    story.found(tier="critical")
    accepted(story.register("one"))
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    accepted(story.approve(V1))
    accepted(story.judge(V1, turn=1))
    accepted(story.approve(V1))
    answer = standing(story)
    assert (answer.quorum, answer.standing) == (2, ("bob",))
    accepted(story.approve(V1, actor="cleo"))
    assert len(standing(story).standing) == 2


def test_an_approval_for_one_environment_is_none_for_another(validated: Story) -> None:
    accepted(validated.approve(V1, "dev"))
    assert standing(validated, "dev").standing == ("bob",)
    assert standing(validated, "prod").standing == ()


def test_the_next_step_is_named_all_along_the_way(story: Story) -> None:
    steps = []

    def note() -> None:
        steps.append(standing(story).next)

    note()
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    note()
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    note()
    accepted(story.judge_for(V1, "prod"))
    note()
    accepted(story.approve(V1))
    note()
    accepted(story.promote(V1, "prod"))
    note()
    accepted(story.confirm("prod"))
    note()
    # A validated version that does not run in dev has no next step towards prod but dev.
    assert steps == ["judge", "stop", "judge-for", "approve", "promote", "wait", "done"]
    assert standing(story, "dev").next == "done"
