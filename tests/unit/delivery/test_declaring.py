"""What asks for less than is declared takes two people, where names are proven; a removed name comes back whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.access.roles import Grant
from lockgate.core.messages import Command, Receipt
from lockgate.delivery.messages import (
    ConfigureEndpoint,
    DeclareEndpoint,
    RemoveEndpoint,
    RetireVersion,
    SignOffRemoval,
)
from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep
from lockgate.governance.messages import SignOff
from lockgate.governance.policies.policy import Policy
from lockgate.hub.authority import Session
from lockgate.hub.messages import Queue, Standing, StandingAnswer, Status, VerifyAudit
from lockgate.registry.messages import CollectPackage
from lockgate.testing.hub_world import (
    MODEL_NAME,
    POLICY,
    HubWorld,
    Story,
    accepted,
    named_digest,
    rules_of,
)
from lockgate.traffic.plan import Fallback

V1, V2, NEXT = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1", f"{MODEL_NAME}@2.0.0"
DEV, PROD = f"dev/{MODEL_NAME}", f"prod/{MODEL_NAME}"
CONSTANT = Fallback(kind="constant", value=0.2)
PROPOSED, AGREED, DECLARED, CONFIGURED, REMOVED = (
    "registry.lowering-proposed/1",
    "registry.lowering-agreed/1",
    "delivery.endpoint-declared/1",
    "delivery.endpoint-configured/1",
    "delivery.endpoint-removed/1",
)
STEPWISE = RolloutPolicy(
    steps=(
        RolloutStep(stage="shadow", weight=0, min_units=100, bake_s=60.0),
        RolloutStep(stage="canary", weight=500, min_units=100, bake_s=60.0),
        RolloutStep(stage="canary", weight=2500, min_units=100, bake_s=60.0),
    ),
    guards={"errors": Guard(), "latency": Guard(bound=20_000.0), "labels": Guard(bound=0.5)},
)


@pytest.fixture
def story(world: HubWorld) -> Story:
    story = Story(world.hub)
    tiers = {tier: POLICY.rule(tier) for tier in POLICY.tiers}
    story.found(policy=Policy(name="today", version=1, tiers=tiers, sign_off=("production",)))
    return story


def sends(world: HubWorld, actor: str, command: Command, role: str = "admin", **more: Any) -> Receipt:
    """As somebody whose name is proven."""
    session = Session(actor=actor, grants=(Grant(role=role),), claimed=False, **more)
    return world.hub_for(session).execute(command)


def kinds(receipt: Receipt) -> list[str]:
    return [event["type"] for event in accepted(receipt).events]


class Declaring:
    """Admins at work on one endpoint."""

    def __init__(self, world: HubWorld, story: Story) -> None:
        self.world, self.story = world, story

    def consumers(self, actor: str, *names: str, endpoint: str = PROD, **said: Any) -> list[str]:
        return kinds(sends(self.world, actor, self.declaring(*names, endpoint=endpoint, **said)))

    def declaring(self, *names: str, endpoint: str = PROD, fallback: Fallback = CONSTANT) -> DeclareEndpoint:
        new = self.story.new_id()
        return DeclareEndpoint(id=new, endpoint=endpoint, fallback=fallback, consumers=names)

    def rollout(self, actor: str, policy: RolloutPolicy | None, endpoint: str = PROD) -> list[str]:
        settings = EndpointSettings(rollout=policy)
        command = ConfigureEndpoint(id=self.story.new_id(), endpoint=endpoint, settings=settings)
        return kinds(sends(self.world, actor, command))

    def lets_go(self, actor: str, consumer: str, **session: Any) -> Receipt:
        command = SignOffRemoval(id=self.story.new_id(), endpoint=PROD, consumer=consumer)
        return sends(self.world, actor, command, "approver:product", **session)

    def removes(self, actor: str, endpoint: str = PROD, **said: Any) -> Receipt:
        live = self.line(endpoint).live
        command = RemoveEndpoint(
            id=self.story.new_id(),
            endpoint=endpoint,
            reason="tidying up",
            live=f"main/{live.version}" if live else "",
            **{"despite_consumers": True, **said},
        )
        return sends(self.world, actor, command)

    def removed(self) -> None:
        """Taken down by two admins, where it takes two."""
        first = kinds(self.removes("petra"))
        assert first in ([REMOVED], [PROPOSED])
        if first == [PROPOSED]:
            assert kinds(self.removes("paul")) == [AGREED, REMOVED]

    def line(self, endpoint: str = PROD) -> Any:
        (line,) = self.story.ask(Status(endpoint=endpoint)).endpoints.values()
        return line

    def waiting(self) -> list[str]:
        waiting = self.story.ask(Queue()).waiting
        return [f"{one.subject}: {one.what}" for one in waiting if one.matter == "declaration"]


@pytest.fixture
def declaring(world: HubWorld, story: Story) -> Declaring:
    return Declaring(world, story)


def test_an_admin_alone_drops_no_consumer(declaring: Declaring) -> None:
    assert declaring.consumers("petra", "app", "gate") == [DECLARED]
    assert declaring.consumers("petra", "gate", "new") == [PROPOSED]
    assert declaring.consumers("petra", "gate", "new") == []
    assert declaring.line().consumers == ("app", "gate")
    (waiting,) = declaring.waiting()
    assert waiting.startswith(f"endpoint {PROD}: petra declares") and "consumer app" in waiting
    assert declaring.consumers("paul", "gate") == [PROPOSED], "something else is another proposal"
    assert declaring.consumers("petra", "gate", "new") == [PROPOSED]
    assert declaring.consumers("paul", "gate", "new") == [AGREED, DECLARED]
    assert (declaring.line().consumers, declaring.waiting()) == (("gate", "new"), [])
    assert declaring.story.ask(VerifyAudit()).ok


def test_a_proposal_ends_when_something_else_is_declared(declaring: Declaring) -> None:
    assert declaring.consumers("petra") == [PROPOSED]
    assert declaring.consumers("petra", "app", "gate") == [DECLARED]
    assert declaring.waiting() == []
    assert declaring.consumers("paul") == [PROPOSED], "it was about what is no longer declared"


def test_a_consumer_leaves_by_itself(declaring: Declaring) -> None:
    assert declaring.consumers("petra", "app", "gate") == [DECLARED]
    accepted(declaring.lets_go("carl", "app"))
    assert declaring.consumers("petra", "gate") == [DECLARED]


def test_whoever_drops_a_consumer_does_not_speak_for_it_alone(declaring: Declaring) -> None:
    accepted(declaring.lets_go("petra", "app"))
    assert declaring.consumers("petra") == [PROPOSED]
    assert declaring.consumers("paul") == [DECLARED], "she has spoken for it, he drops it"


def test_a_machine_speaks_for_no_consumer(declaring: Declaring) -> None:
    refused = declaring.lets_go("service:tidy", "app", kind="service")
    assert rules_of(refused) == ["governance.not-a-person"]


def test_an_admin_alone_takes_nothing_down_over_the_heads_of_its_consumers(declaring: Declaring) -> None:
    declaring.story.release("one", V1)
    assert kinds(declaring.removes("petra")) == [PROPOSED]
    assert kinds(declaring.removes("petra")) == [], "the same person is no second one"
    assert (declaring.line().removed_at, declaring.line().live.version) == (None, "flight-delay@1.0.0")
    (waiting,) = declaring.waiting()
    assert waiting == (
        "endpoint prod/flight-delay: petra proposes to take it down: without consumer app, who has not let go"
    )
    assert rules_of(declaring.removes("paul", despite_consumers=False)) == ["delivery.consumers"]
    receipt = declaring.removes("paul")
    assert kinds(receipt) == [AGREED, REMOVED]
    assert (receipt.events[0]["proposed_by"], receipt.events[1]["overridden"]) == ("petra", ["app"])
    assert declaring.line().removed_at is not None
    assert declaring.waiting() == []
    assert declaring.story.ask(VerifyAudit()).ok


def test_a_proposal_to_take_it_down_ends_when_something_else_is_live_or_declared(
    declaring: Declaring,
) -> None:
    declaring.story.release("one", V1)
    assert kinds(declaring.removes("petra")) == [PROPOSED]
    declaring.story.release("two", V2)
    assert declaring.waiting() == []
    assert kinds(declaring.removes("paul")) == [PROPOSED], "petra spoke of another version"
    assert declaring.consumers("petra", "app", "gate") == [DECLARED]
    assert kinds(declaring.removes("petra")) == [PROPOSED], "paul knew of one consumer"
    assert kinds(declaring.removes("paul")) == [AGREED, REMOVED]


def test_whoever_takes_it_down_speaks_for_no_consumer(declaring: Declaring) -> None:
    accepted(declaring.lets_go("petra", "app"))
    assert kinds(declaring.removes("petra", despite_consumers=False)) == [PROPOSED]
    assert kinds(declaring.removes("paul", despite_consumers=False)) == [REMOVED], (
        "she has spoken, he removes"
    )


def test_where_everybody_has_let_go_or_everything_may_go_one_admin_takes_it_down(
    declaring: Declaring,
) -> None:
    assert kinds(declaring.removes("petra", DEV)) == [REMOVED]
    accepted(declaring.lets_go("carl", "app"))
    assert kinds(declaring.removes("petra", despite_consumers=False)) == [REMOVED]


def test_a_machine_agrees_to_no_removal(world: HubWorld, declaring: Declaring) -> None:
    assert kinds(declaring.removes("petra")) == [PROPOSED]
    command = RemoveEndpoint(id="m", endpoint=PROD, reason="tidy", despite_consumers=True)
    assert kinds(sends(world, "service:tidy", command, kind="service")) == []
    assert declaring.line().removed_at is None


def test_where_names_are_claimed_nobody_is_asked_about_a_removal(story: Story) -> None:
    command = RemoveEndpoint(id=story.new_id(), endpoint=PROD, reason="tidy", despite_consumers=True)
    assert kinds(story.do("petra", command)) == [REMOVED]


def test_a_fallback_is_not_given_up_by_one_person(declaring: Declaring) -> None:
    assert declaring.consumers("petra", "app", fallback=Fallback(kind="constant", value=0.3)) == [DECLARED]
    assert declaring.consumers("petra", "app", fallback=Fallback()) == [PROPOSED]
    assert declaring.consumers("paul", "app", fallback=Fallback()) == [AGREED, DECLARED]


def test_what_is_open_stays_free(declaring: Declaring) -> None:
    assert declaring.consumers("petra", endpoint=DEV, fallback=Fallback()) == [DECLARED]
    assert declaring.rollout("petra", STEPWISE, DEV) == [CONFIGURED]
    assert declaring.rollout("petra", None, DEV) == [CONFIGURED]


def test_where_names_are_claimed_nobody_is_asked(story: Story) -> None:
    command = DeclareEndpoint(id=story.new_id(), endpoint=PROD, fallback=Fallback())
    assert kinds(story.do("petra", command)) == [DECLARED]
    accepted(story.configure("prod", EndpointSettings(rollout=STEPWISE)))
    assert kinds(story.configure("prod", EndpointSettings())) == [CONFIGURED]


def changed(**policy: Any) -> RolloutPolicy:
    return msgspec.structs.replace(STEPWISE, **policy)


def guarded(name: Any, **guard: Any) -> RolloutPolicy:
    one = msgspec.structs.replace(STEPWISE.guards[name], **guard)
    return changed(guards={**STEPWISE.guards, name: one})


def stepped(*steps: tuple[int, int, float]) -> RolloutPolicy:
    made = [
        RolloutStep(stage="canary" if weight else "shadow", weight=weight, min_units=units, bake_s=bake)
        for weight, units, bake in steps
    ]
    return changed(steps=tuple(made))


AS_BEFORE = ((0, 100, 60.0), (500, 100, 60.0), (2500, 100, 60.0))


@pytest.mark.parametrize(
    "looser",
    [
        None,
        changed(alpha=0.01),
        changed(guards={"errors": Guard(), "labels": Guard(bound=0.5)}),
        guarded("errors", floor=0.2),
        guarded("errors", absolute=0.01),
        guarded("errors", min_events=21),
        guarded("errors", margin=0.3),
        guarded("errors", margin=None),
        guarded("latency", bound=1.0),
        guarded("labels", bound=0.6),
        stepped(*AS_BEFORE[1:]),
        stepped(*AS_BEFORE[:2]),
        stepped(AS_BEFORE[0], (500, 99, 60.0), AS_BEFORE[2]),
        stepped(AS_BEFORE[0], (500, 100, 59.0), AS_BEFORE[2]),
        stepped(AS_BEFORE[0], (600, 100, 60.0), AS_BEFORE[2]),
        stepped(AS_BEFORE[0], (1, 100, 60.0), (2, 100, 60.0)),
    ],
)
def test_an_admin_alone_loosens_no_rollout(declaring: Declaring, looser: RolloutPolicy | None) -> None:
    assert declaring.rollout("petra", STEPWISE) == [CONFIGURED], "to ask for more is free"
    assert declaring.rollout("petra", looser) == [PROPOSED]
    assert declaring.rollout("petra", looser) == []
    (waiting,) = declaring.waiting()
    assert waiting.startswith(f"rollout {PROD}: ")
    assert declaring.rollout("paul", looser) == [AGREED, CONFIGURED]
    assert declaring.waiting() == []
    assert declaring.story.ask(VerifyAudit()).ok


@pytest.mark.parametrize(
    "tighter",
    [
        changed(alpha=0.1),
        guarded("errors", floor=0.05, absolute=0.0005, min_events=10, margin=0.1),
        stepped(AS_BEFORE[0], (100, 100, 60.0), *AS_BEFORE[1:]),
        stepped(AS_BEFORE[0], (400, 100, 60.0), AS_BEFORE[2]),
        stepped(AS_BEFORE[0], AS_BEFORE[1], (2500, 500, 600.0), (5000, 1, 0.0)),
    ],
)
def test_to_watch_more_closely_is_free(declaring: Declaring, tighter: RolloutPolicy) -> None:
    assert declaring.rollout("petra", STEPWISE) == [CONFIGURED]
    assert declaring.rollout("petra", tighter) == [CONFIGURED]


# -- a name that was removed


@pytest.fixture
def taken_down(declaring: Declaring) -> Declaring:
    """V1 was live; then the endpoint was removed over the heads of its consumers, and declared again."""
    declaring.story.release("one", V1)
    declaring.removed()
    return declaring


def standing(story: Story, version: str) -> StandingAnswer:
    answer: StandingAnswer = story.ask(Standing(version=version, environment="prod"))
    return answer


def rules(story: Story, version: str) -> set[str]:
    return {reason.rule for reason in standing(story, version).reasons}


def comes(declaring: Declaring, name: str, version: str) -> None:
    """A package as far as dev, judged by itself."""
    story = declaring.story
    if version == NEXT:
        declaring.world.bumps[named_digest("package", name)] = "major"
    story.train(name)
    for receipt in (story.register(name), story.judge(version), story.validate(version)):
        accepted(receipt)
    accepted(story.promote(version, "dev"))
    accepted(story.confirm("dev"))


def test_a_name_that_was_removed_is_not_had_again_without_its_consumers(taken_down: Declaring) -> None:
    assert taken_down.consumers("petra") == [PROPOSED]
    assert taken_down.line().removed_at is not None
    assert taken_down.consumers("petra", "app") == [DECLARED]
    assert taken_down.line().removed_at is None


def test_a_consumer_may_leave_what_was_removed(taken_down: Declaring) -> None:
    accepted(taken_down.lets_go("carl", "app"))
    assert taken_down.consumers("petra") == [DECLARED]


def test_who_left_before_the_removal_has_left(declaring: Declaring) -> None:
    accepted(declaring.lets_go("carl", "app"))
    declaring.removed()
    assert declaring.consumers("petra", "app") == [DECLARED]
    assert declaring.line().let_go == (), "it reads it again"
    assert declaring.consumers("petra") == [PROPOSED]


def test_its_guards_are_those_it_had(declaring: Declaring) -> None:
    assert declaring.rollout("petra", STEPWISE) == [CONFIGURED]
    declaring.removed()
    assert declaring.rollout("petra", None) == [PROPOSED]
    assert declaring.consumers("petra", "app") == [DECLARED]
    assert declaring.rollout("petra", None) == []


def test_what_comes_next_is_held_against_what_ran_there_last(taken_down: Declaring) -> None:
    story = taken_down.story
    assert taken_down.consumers("petra", "app") == [DECLARED]
    comes(taken_down, "two", V2)
    answer = standing(story, V2)
    assert (answer.baseline, answer.baseline_version) == (named_digest("package", "one"), V1)
    alone = story.judging(V2, named_digest("package", "two"), environment="prod", baseline="")
    accepted(story.do("eve", alone))
    assert "gates.baseline-moved" in rules(story, V2), "no comparison at all does not do"
    accepted(story.judge_for(V2, "prod"))
    accepted(story.approve(V2))
    accepted(story.promote(V2, "prod"))
    accepted(story.confirm("prod"))
    comes(taken_down, "three", f"{MODEL_NAME}@1.0.2")
    assert standing(story, f"{MODEL_NAME}@1.0.2").baseline_version == V2, "from then on what is live"
    assert story.ask(VerifyAudit()).ok


def test_a_major_version_still_asks_the_consumers(taken_down: Declaring) -> None:
    story = taken_down.story
    assert taken_down.consumers("petra", "app") == [DECLARED]
    comes(taken_down, "next", NEXT)
    accepted(story.judge_for(NEXT, "prod"))
    accepted(story.approve(NEXT))
    assert rules(story, NEXT) == {"governance.sign-off"}
    agreed = SignOff(id=story.new_id(), version=NEXT, environment="prod", consumer="app")
    accepted(story.do("carl", agreed))
    accepted(story.promote(NEXT, "prod"))


def test_what_ran_there_last_is_not_compared_with_itself(taken_down: Declaring) -> None:
    assert taken_down.consumers("petra", "app") == [DECLARED]
    assert standing(taken_down.story, V1).baseline is None
    accepted(taken_down.story.promote(V1, "prod"))
    accepted(taken_down.story.confirm("prod"))
    assert taken_down.line().live.version == "flight-delay@1.0.0"


def test_twice_removed_it_remembers_what_was_live(taken_down: Declaring) -> None:
    assert taken_down.consumers("petra", "app") == [DECLARED]
    taken_down.removed()
    assert taken_down.consumers("petra", "app") == [DECLARED]
    comes(taken_down, "two", V2)
    assert standing(taken_down.story, V2).baseline_version == V1


def test_bytes_that_were_given_up_are_nothing_to_compare_with(taken_down: Declaring) -> None:
    """They cannot be loaded any more; that they were given up took an operator, and is on record."""
    story = taken_down.story
    assert taken_down.consumers("petra", "app") == [DECLARED]
    comes(taken_down, "two", V2)
    comes(taken_down, "three", f"{MODEL_NAME}@1.0.2")
    accepted(story.do("olga", RetireVersion(id=story.new_id(), version=V1, reason="old")))
    assert standing(story, V2).baseline_version == V1
    accepted(story.do("olga", CollectPackage(id=story.new_id(), version=V1, term_days=0)))
    assert standing(story, V2).baseline is None
