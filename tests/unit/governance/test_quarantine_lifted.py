"""A quarantine is lifted by two people of security, after the version was judged anew; where names are only claimed, by
one other."""

from __future__ import annotations

from typing import Any

import pytest
from governance_rig import V1, policy, ready

from lockgate.access.roles import Grant
from lockgate.core.messages import Receipt
from lockgate.hub.authority import Session
from lockgate.hub.messages import ExplainVersion, Queue
from lockgate.registry.messages import LiftQuarantine, QuarantineVersion
from lockgate.testing.hub_world import HubWorld, Story, accepted, rules_of

SECURITY = Grant(role="security")


class Closet:
    """A version that somebody of security has shut away, at a hub where names are proven."""

    def __init__(self) -> None:
        self.world: HubWorld = HubWorld.in_memory()
        self.story: Story = ready(self.world, policy())
        self.quarantine()

    def hub(self, actor: str, grant: Grant = SECURITY) -> Any:
        return self.world.hub_for(Session(actor=actor, grants=(grant,), claimed=False))

    def quarantine(self, actor: str = "sam") -> None:
        command = QuarantineVersion(id=self.story.new_id(), version=V1, reason="odd")
        accepted(self.hub(actor).execute(command))
        self.world.clock.advance(seconds=1)

    def judged(self) -> Closet:
        accepted(self.story.judge(V1, turn=self.story.new_id()))
        self.world.clock.advance(seconds=1)
        return self

    def lift(self, actor: str, grant: Grant = SECURITY) -> Receipt:
        command = LiftQuarantine(id=self.story.new_id(), version=V1, reason="no leak")
        return self.hub(actor, grant).execute(command)  # type: ignore[no-any-return]

    @property
    def state(self) -> str:
        return str(self.story.ask(ExplainVersion(version=V1)).version.state)

    @property
    def waiting(self) -> list[str]:
        return [one.what for one in self.story.ask(Queue()).waiting if one.matter == "quarantine"]


@pytest.fixture
def closet() -> Closet:
    return Closet()


def test_the_first_proposes_and_the_second_lifts(closet: Closet) -> None:
    closet.judged()
    (event,) = accepted(closet.lift("sue")).events
    assert event["type"] == "registry.lowering-proposed/1"
    assert (closet.state, closet.waiting) == ("quarantined", ["sue proposes to let it out: no leak"])
    assert accepted(closet.lift("sue")).events == (), "the same person is no second one"
    assert closet.state == "quarantined"
    agreed, lifted = accepted(closet.lift("sid")).events
    assert (agreed["type"], agreed["proposed_by"]) == ("registry.lowering-agreed/1", "sue")
    assert lifted["type"] == "registry.quarantine-lifted/1"
    assert (closet.state, closet.waiting) == ("validated", [])


def test_who_shut_it_away_is_neither_of_the_two(closet: Closet) -> None:
    closet.judged()
    assert rules_of(closet.lift("sam")) == ["registry.second-person"]
    accepted(closet.lift("sue"))
    assert rules_of(closet.lift("sam")) == ["registry.second-person"]
    assert closet.state == "quarantined"


def test_a_proposal_ends_with_its_quarantine(closet: Closet) -> None:
    """Else one word of a year ago and one of today would open what was shut in between."""
    closet.judged()
    accepted(closet.lift("sue"))
    accepted(closet.lift("sid"))
    closet.quarantine()
    closet.judged()
    assert closet.waiting == []
    accepted(closet.lift("sid"))
    assert closet.state == "quarantined"
    accepted(closet.lift("sue"))
    assert closet.state == "validated"


def test_it_is_judged_anew_first(closet: Closet) -> None:
    receipt = closet.lift("sue")
    assert rules_of(receipt) == ["governance.not-judged-since"]
    assert receipt.refusal is not None
    assert receipt.refusal.reasons[0].remedy == f"lockgate judge {V1}"
    accepted(closet.judged().lift("sue"))
    accepted(closet.lift("sid"))


def test_the_same_findings_count_when_they_are_found_again(closet: Closet) -> None:
    """Judging twice a day is no news, but for who has to know that nothing was found since."""
    assert accepted(closet.story.judge(V1)).events != ()
    closet.world.clock.advance(seconds=1)
    assert accepted(closet.story.judge(V1)).events == ()
    accepted(closet.lift("sue"))
    accepted(closet.lift("sid"))
    assert accepted(closet.story.judge(V1)).events == ()


@pytest.mark.parametrize("role", ["incident", "operator", "admin", "approver:risk"])
def test_it_takes_people_of_security(closet: Closet, role: str) -> None:
    closet.judged()
    assert rules_of(closet.lift("ivy", Grant(role=role))) == ["hub.permission"]


def test_where_names_are_claimed_one_other_person_lifts_it(closet: Closet) -> None:
    command = LiftQuarantine(id="lift", version=V1, reason="no leak")
    (event,) = accepted(closet.story.do("sue", command)).events
    assert event["type"] == "registry.quarantine-lifted/1"
    assert closet.state == "validated"
