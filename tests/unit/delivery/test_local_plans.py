"""What was done without the hub: adopted when it fits what is known, put back and said when it does not."""

from __future__ import annotations

import pytest

from lockgate.adapters.targets.effects import EffectRunner
from lockgate.app.deciding import CONTROLLER
from lockgate.core.messages import Receipt
from lockgate.delivery.lines import EndpointLine
from lockgate.delivery.plan import adoption_of
from lockgate.delivery.state import LocalState
from lockgate.hub.kernel import LocalHub, require
from lockgate.hub.messages import ExplainVersion, Status, VerifyAudit
from lockgate.registry.messages import QuarantineVersion
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted, named_digest, rules_of
from lockgate.testing.memory_target import MemoryTarget
from lockgate.traffic.by_hand import Hand, taken_back
from lockgate.traffic.errors import StalePlan
from lockgate.traffic.plan import N_SLOTS, PackageRef, Plan, Route

V1, V2, V3 = (f"{MODEL_NAME}@1.0.{patch}" for patch in range(3))
P1, P2, P3 = (named_digest("package", name) for name in ("one", "two", "three"))
DEV = f"dev/{MODEL_NAME}"
HAND = Hand(by="ann", account="ops", at=7, reason="wrong\n delays", incident="INC-1")
TOLD = "by hand by ann (ops): wrong delays (INC-1)"


class Rig:
    """Versions 1 and 2 were released to dev; a target in memory serves version 2 and keeps version 1."""

    def __init__(self) -> None:
        self.world = HubWorld.in_memory()
        self.target = MemoryTarget()
        self.runner = EffectRunner(
            self.world.outbox, {"local": self.target}, self.world.clock, pause=lambda seconds: None
        )
        self.runner.confirm = self.world.hub(CONTROLLER.actor, CONTROLLER.roles).execute
        self.controller = LocalHub(
            self.world.journal, self.world.clock, CONTROLLER, answer=self.world.questions
        )
        self.runner.adopt = lambda plan: require(self.adopt(plan))
        self.world.carry_out = self.runner.carry_out
        self.story = Story(self.world.hub)
        self.story.found()
        self.release("one", V1)
        self.release("two", V2)

    def release(self, name: str, version: str) -> None:
        self.story.train(name)
        accepted(self.story.register(name))
        accepted(self.story.promote(version, "dev"))

    def adopt(self, plan: Plan) -> Receipt:
        return self.controller.execute(adoption_of(plan))

    def by_hand(self) -> Plan:
        """What `rollback --local` does, hub or no hub."""
        plan = taken_back(self.target.observe(DEV), HAND)
        assert isinstance(plan, Plan)
        self.target.apply(plan)
        return plan

    @property
    def in_force(self) -> Plan:
        plan = self.target.observe(DEV).plan
        assert plan is not None
        return plan

    @property
    def line(self) -> EndpointLine:
        (found,) = self.story.ask(Status(endpoint=DEV)).endpoints.values()
        assert isinstance(found, EndpointLine)
        return found

    def shown(self) -> tuple[str | None, str | None, str | None]:
        """Live, previous and what is on its way, by the last digit of the version."""
        line = self.line
        names = [line.live and line.live.version, line.previous and line.previous.version]
        names.append(line.rollout and line.rollout.version)
        return tuple(name and name[-1] for name in names)  # type: ignore[return-value]

    def states(self, version: str) -> list[tuple[str, str]]:
        releases = self.story.ask(ExplainVersion(version=version)).releases
        return [(one.state, one.detail) for one in releases]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_it_is_adopted_and_the_documents_tell_what_answers(rig: Rig) -> None:
    found = rig.by_hand()
    (event,) = accepted(rig.adopt(found)).events
    assert event["type"] == "delivery.local-rollback-adopted/1"
    assert (event["found"], event["generation"]) == (found.generation, found.generation + 1)
    assert (event["from_version"], event["to"]["version"]) == (V2, V1)
    assert (event["left"], event["to_release"], event["swapped"]) == ([2], 1, True)
    assert event["hand"]["reason"] == HAND.reason
    assert rig.shown() == ("0", "1", None)
    assert rig.states(V2) == [("rolled_back", TOLD)]
    assert rig.states(V1) == [("live", "")]
    local = rig.line.local
    assert isinstance(local, LocalState) and str(local.hand) == TOLD and local.put_back == ""
    # The same traffic under a plan of the hub: from here on everything is as after any rollback.
    assert rig.runner.carry_out()
    plan = rig.in_force
    assert (plan.generation, plan.origin, plan.live, plan.previous) == (found.generation + 1, "hub", P1, P2)
    accepted(rig.story.roll_back("dev"))
    assert rig.shown() == ("1", "0", None)
    assert rig.line.local is None
    assert rig.world.ask(VerifyAudit()).ok


def test_found_twice_it_is_adopted_once(rig: Rig) -> None:
    found = rig.by_hand()
    first = accepted(rig.adopt(found))
    head = rig.world.journal.head()
    assert rig.adopt(found) == first
    assert rig.world.journal.head() == head
    command = adoption_of(found)
    assert accepted(rig.controller.execute(type(command)(**{**_fields(command), "id": "x"}))).events == ()


def _fields(command: object) -> dict[str, object]:
    return {name: getattr(command, name) for name in command.__struct_fields__}  # type: ignore[attr-defined]


def test_going_there_and_back_by_hand_changes_nothing_but_is_told(rig: Rig) -> None:
    rig.by_hand()
    (event,) = accepted(rig.adopt(rig.by_hand())).events
    assert (event["left"], event["to_release"], event["swapped"]) == ([], 2, False)
    assert rig.shown() == ("1", "0", None)
    assert rig.states(V2) == [("live", "")]
    assert rig.line.local is not None


def test_the_hub_adopts_before_it_publishes_and_what_waited_is_history(rig: Rig) -> None:
    """Decided; then the hub died before it told the target, and somebody went back by hand."""
    rig.world.carry_out = lambda subject: False
    rig.release("three", V3)
    assert rig.shown() == ("1", "0", "2")
    found = rig.by_hand()
    assert rig.runner.carry_out()
    assert rig.shown() == ("0", "1", None)
    assert rig.states(V3) == [("rolled_back", TOLD)]
    assert rig.states(V2) == [("rolled_back", TOLD)]
    plan = rig.in_force
    assert plan.origin == "hub" and plan.generation > found.generation and plan.live == P1
    assert P3 not in {ref.digest for ref in plan.packages}
    assert rig.world.outbox.open_rows() == 0


def test_a_newer_plan_that_knew_nothing_of_it_does_not_overtake_it(rig: Rig) -> None:
    """Two plans wait; the local one has the number of the first, and the second comes too late all the same."""
    rig.world.carry_out = lambda subject: False
    rig.release("three", V3)
    accepted(rig.story.roll_back("dev"))
    found = rig.by_hand()
    assert found.generation == 3
    assert rig.runner.carry_out()
    assert rig.shown() == ("0", "1", None)
    assert rig.in_force.generation == 5 and rig.in_force.live == P1


def test_what_is_decided_afterwards_goes_out_although_the_adoption_was_never_carried_out(rig: Rig) -> None:
    found = rig.by_hand()
    accepted(rig.adopt(found))
    rig.release("three", V3)
    assert rig.shown() == ("2", "0", None)
    assert rig.in_force.live == P3
    assert rig.world.outbox.open_rows() == 0


def test_bytes_that_were_shut_away_are_put_back_and_that_is_told(rig: Rig) -> None:
    accepted(rig.story.do("sue", QuarantineVersion(id="q", version=V1, reason="leak")))
    found = rig.by_hand()
    (event,) = accepted(rig.adopt(found)).events
    assert event["type"] == "delivery.local-plan-overruled/1"
    assert event["why"] == f"{V1} is quarantined" and event["version"] == V1
    assert rig.runner.carry_out()
    assert rig.shown() == ("1", "0", None)
    assert (rig.in_force.live, rig.in_force.origin) == (P2, "hub")
    local = rig.line.local
    assert local is not None and local.put_back == f"{V1} is quarantined"


@pytest.mark.parametrize("weight", [N_SLOTS, 5_000])
def test_a_plan_that_fits_nothing_is_put_back_and_ends_what_was_on_its_way(rig: Rig, weight: int) -> None:
    rig.target.alive = False
    rig.release("three", V3)
    assert rig.shown() == ("1", "0", "2")
    stranger = named_digest("package", "stranger")
    ref = PackageRef(version=f"{MODEL_NAME}@9.0.0", digest=stranger)
    rest = (Route(package=P2, weight=N_SLOTS - weight),) if weight < N_SLOTS else ()
    odd = Plan(
        endpoint=DEV,
        generation=rig.in_force.generation + 1,
        packages=(*rig.in_force.packages, ref),
        routes=(Route(package=stranger, weight=weight), *rest),
        live=stranger,
        origin="local",
    )
    rig.target.apply(odd)
    rig.target.alive = True
    (event,) = accepted(rig.adopt(odd)).events
    assert event["type"] == "delivery.local-plan-overruled/1" and event["release"] == 3
    assert rig.states(V3)[0][0] == "failed"
    assert rig.runner.carry_out()
    assert rig.shown() == ("1", "0", None)
    assert (rig.in_force.live, rig.in_force.previous) == (P2, P1)


def test_an_endpoint_that_nobody_knows_is_refused(rig: Rig) -> None:
    command = adoption_of(rig.by_hand())
    odd = type(command)(**{**_fields(command), "endpoint": "dev/main/else", "id": "x"})
    assert rules_of(rig.controller.execute(odd)) == ["delivery.endpoint-unknown"]


def test_two_by_hand_do_not_overwrite_each_other(rig: Rig) -> None:
    first = taken_back(rig.target.observe(DEV), HAND)
    second = taken_back(rig.target.observe(DEV), Hand(by="bob", account="ops", at=8, reason="so"))
    assert isinstance(first, Plan) and isinstance(second, Plan)
    rig.target.apply(first)
    with pytest.raises(StalePlan):
        rig.target.apply(second)
