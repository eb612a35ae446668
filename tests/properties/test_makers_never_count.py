"""Makers, their other names and approvals in any order: nobody who had a hand in a version ever counts for it.

The machine holds the hub against the rule told a second time. The second test is one person against the rule: whatever
he, alone, says of his own address, he does not let in what he committed by it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lockgate.access.messages import GrantRole, NameAlias, RemoveAlias, RevokeRole
from lockgate.core.messages import Receipt
from lockgate.governance.policies.policy import Policy
from lockgate.hub.authority import controller
from lockgate.hub.kernel import LocalHub
from lockgate.hub.messages import ExplainVersion, Standing, StandingAnswer, VerifyAudit
from lockgate.registry.messages import CommitPerson, NameMakers
from lockgate.testing.hub_world import MODEL_NAME, POLICY, HubWorld, Story, accepted

V1 = f"{MODEL_NAME}@1.0.0"
CI, HUB = "service:ci", "lockgate-hub"
PEOPLE = ("ada@x.example", "bob@x.example", "cy", "kim@x.example")
NAMES = (*PEOPLE, "ada@home.example", "github:bob", "noreply@forge.example", "7+cy@users.noreply.github.com")
PERSON, NAME = st.sampled_from(PEOPLE), st.sampled_from(NAMES)
DID = st.sampled_from(["authored", "committed", "co-authored", "named"])


def rules_in_force(*, strict: bool) -> Policy:
    more: dict[str, Any] = {"known_makers": ("production",)} if strict else {}
    tiers = {
        tier: msgspec.structs.replace(
            POLICY.rule(tier),
            people={},
            approvals={"production": ("owner",)},
            evidence_max_age_days=10_000,
            **more,
        )
        for tier in POLICY.tiers
    }
    return Policy(name="machine", version=1, tiers=tiers)


class Proven:
    """The world of the house with proven names, and a version that CI registered and that lacks people only."""

    def __init__(
        self, people: tuple[CommitPerson, ...], started_by: tuple[str, ...], *, strict: bool
    ) -> None:
        self.world = HubWorld.in_memory()
        self.started_by = started_by
        self.story = Story(self.hub)
        self.story.found(policy=rules_in_force(strict=strict))
        accepted(self.story.register("one", author=CI, people=people, told_since=""))
        accepted(self.story.judge(V1))
        accepted(self.story.validate(V1))
        accepted(self.story.promote(V1, "dev"))
        accepted(self.story.confirm("dev"))
        accepted(self.story.judge_for(V1, "prod"))

    def hub(self, actor: str) -> LocalHub:
        if actor in ("controller", HUB):
            return self.world.hub_for(controller(actor))
        return self.world.proven(actor, self.started_by)

    def do(self, actor: str, kind: Any, **fields: Any) -> Receipt:
        return self.story.do(actor, kind(id=self.story.new_id(), **fields))

    @property
    def standing(self) -> StandingAnswer:
        answer: StandingAnswer = self.story.ask(Standing(version=V1, environment="prod"))
        return answer


class MakersMachine(RuleBasedStateMachine):
    @initialize(people=st.lists(st.tuples(NAME, DID), max_size=4), started=st.lists(NAME, max_size=2))
    def build(self, people: list[tuple[str, Any]], started: list[str]) -> None:
        told = tuple(CommitPerson(name=name, did=did) for name, did in people)
        self.team = Proven(told, tuple(started), strict=False)
        self.makers = {name for name, _ in people} | set(started)
        self.aliases: dict[str, dict[str, set[str]]] = defaultdict(dict)
        self.approved: set[str] = set()

    def is_out(self, person: str) -> bool:
        """The rule, told again: it is he, somebody says it is he, or he alone says who it is."""
        for name in self.makers | {"github:cy" for one in self.makers if one.startswith("7+cy@")}:
            behind = self.aliases[name]
            if name == person or person in behind:
                return True
        for name in self.makers:
            both = [name, "github:cy"] if name.startswith("7+cy@") else [name]
            vouch = {
                by for one in both for who, said in self.aliases[one].items() for by in said if by != who
            }
            if vouch == {person}:
                return True
        return False

    @rule(actor=PERSON, name=NAME | st.just("github:cy"), subject=st.sampled_from((*PEOPLE, "service:bot")))
    def name_alias(self, actor: str, name: str, subject: str) -> None:
        accepted(self.team.do(actor, NameAlias, alias=name, subject=subject))
        said = self.aliases[name].setdefault(subject, set())
        if len(said) < 2:
            said.add(actor)

    @rule(actor=PERSON, name=NAME, subject=PERSON)
    def remove_alias(self, actor: str, name: str, subject: str) -> None:
        receipt = self.team.do(actor, RemoveAlias, alias=name, subject=subject)
        allowed = subject in self.aliases[name] and actor != subject
        assert (receipt.refusal is None) == allowed
        if allowed:
            del self.aliases[name][subject]

    @rule(actor=PERSON, people=st.lists(NAME, min_size=1, max_size=2))
    def name_makers(self, actor: str, people: list[str]) -> None:
        told = tuple(CommitPerson(name=name, did="named") for name in people)
        receipt = accepted(self.team.do(actor, NameMakers, version=V1, people=told))
        if receipt.events:
            self.makers |= {actor, *people}

    @rule(actor=PERSON)
    def approve(self, actor: str) -> None:
        receipt = self.team.story.approve(V1, actor=actor)
        assert (receipt.refusal is None) == (not self.is_out(actor)), receipt.refusal
        if receipt.refusal is None:
            self.approved.add(actor)

    @rule(actor=PERSON, subject=st.sampled_from((*PEOPLE, "service:bot")), other=PERSON)
    def vouch_and_approve(self, actor: str, subject: str, other: str) -> None:
        """Say of each maker that it is somebody else, and approve; then let another say so too."""
        for name in sorted(self.makers):
            self.name_alias(actor, name, subject)
        self.approve(actor)
        for name in sorted(self.makers):
            self.name_alias(other, name, subject)
        self.approve(actor)

    @invariant()
    def nobody_counts_who_made_it(self) -> None:
        if hasattr(self, "team"):
            counting = set(self.team.standing.standing)
            assert counting == {one for one in self.approved if not self.is_out(one)}

    @invariant()
    def nobody_is_taken_off(self) -> None:
        if hasattr(self, "team"):
            known = {one.name for one in self.team.story.ask(ExplainVersion(version=V1)).makers}
            assert known >= self.makers - {name for name in self.makers if name in self.team.started_by}
            assert CI in known

    @rule()
    def promote(self) -> None:
        receipt = self.team.story.promote(V1, "prod")
        counting = {one for one in self.approved if not self.is_out(one)}
        assert (receipt.refusal is None) == bool(counting), receipt.refusal
        if receipt.refusal is None:
            assert set(receipt.events[0]["approved_by"]) == counting
            accepted(self.team.story.confirm("prod", applied=False))

    def teardown(self) -> None:
        if hasattr(self, "team"):
            assert self.team.world.ask(VerifyAudit()).ok


TestMakers = MakersMachine.TestCase
TestMakers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

MALLORY, HERS = "mallory@x.example", "m@home.example"
SUBJECTS = st.sampled_from((MALLORY, HERS, *PEOPLE, "service:bot", "service:made-up"))
MOVES = st.one_of(
    st.tuples(st.just("alias"), SUBJECTS),
    st.tuples(st.just("unalias"), SUBJECTS),
    st.tuples(st.just("grant"), st.just(HERS)),
    st.tuples(st.just("revoke"), st.just(HERS)),
    st.tuples(st.just("makers"), SUBJECTS),
    st.tuples(st.just("approve"), st.just("")),
)


@settings(max_examples=150, deadline=None)
@given(moves=st.lists(MOVES, max_size=8), honest=st.sampled_from([(), ("bob@x.example",)]))
def test_alone_nobody_lets_in_what_he_committed_by_another_address(
    moves: list[tuple[str, str]], honest: tuple[str, ...]
) -> None:
    """Mallory is admin, of security and approver at once; nobody else says anything about her address."""
    people = tuple(CommitPerson(name=name, did="committed") for name in (HERS, *honest))
    team = Proven(people, (), strict=True)
    for name in honest:
        accepted(team.do("ann", GrantRole, subject=name, role="viewer"))
    for move, about in [*moves, ("approve", "")]:
        match move:
            case "alias":
                team.do(MALLORY, NameAlias, alias=HERS, subject=about)
            case "unalias":
                team.do(MALLORY, RemoveAlias, alias=HERS, subject=about)
            case "grant":
                team.do(MALLORY, GrantRole, subject=about, role="viewer")
            case "revoke":
                team.do(MALLORY, RevokeRole, subject=about, role="viewer")
            case "makers":
                told = (CommitPerson(name=about, did="named"),) if not about.startswith("service:") else ()
                team.do(MALLORY, NameMakers, version=V1, people=told, told_since="")
            case "approve":
                team.story.approve(V1, actor=MALLORY)
        assert MALLORY not in team.standing.standing
        assert team.story.promote(V1, "prod").refusal is not None
