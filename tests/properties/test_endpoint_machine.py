"""An endpoint declared, removed and declared again by people in any order: whoever reads it is asked, and what ran
there last is what the next one is held against."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lockgate.access.roles import Grant
from lockgate.core.messages import Command, Receipt
from lockgate.delivery.messages import DeclareEndpoint, RemoveEndpoint, SignOffRemoval
from lockgate.hub.authority import Session
from lockgate.hub.messages import Queue, Standing, Status, VerifyAudit
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted
from lockgate.traffic.plan import Fallback

PROD = f"prod/{MODEL_NAME}"
PEOPLE = st.sampled_from(["petra", "paul", "carl"])
CONSUMERS = st.sampled_from(["app", "gate", "desk"])
LISTS = st.sets(CONSUMERS).map(lambda names: tuple(sorted(names)))


class EndpointMachine(RuleBasedStateMachine):
    """Everybody is an admin and may speak for consumers: only the rule about two people keeps them from it.

    Attributes:
        proposed: which consumers were declared last by somebody who must not alone, who that was, and of what.
        left: who said first of a consumer that it has gone.
        to_remove: what somebody must not take down alone, and who that was.
    """

    @initialize()
    def found(self) -> None:
        self.world = HubWorld.in_memory()
        self.story = Story(self.world.hub)
        self.story.found(tier="low")
        self.consumers: tuple[str, ...] = ("app",)
        self.proposed: tuple[Any, tuple[str, ...], str] | None = None
        self.left: dict[str, str] = {}
        self.to_remove: tuple[Any, str] | None = None
        self.removed, self.removed_at = False, 0
        self.n_versions = 0
        self.last_live = ""

    def sends(self, actor: str, command: Command) -> Receipt:
        grants = (Grant(role="admin"), Grant(role="approver:product"))
        return self.world.hub_for(Session(actor=actor, grants=grants, claimed=False)).execute(command)

    def line(self) -> Any:
        (line,) = self.story.ask(Status(endpoint=PROD)).endpoints.values()
        return line

    @rule(actor=PEOPLE, consumers=LISTS)
    def declares(self, actor: str, consumers: tuple[str, ...]) -> None:
        command = DeclareEndpoint(
            id=self.story.new_id(),
            endpoint=PROD,
            fallback=Fallback(kind="constant", value=0.2),
            consumers=consumers,
        )
        told = [event["type"] for event in accepted(self.sends(actor, command)).events]
        before = (self.consumers, self.removed and self.removed_at)
        proposed = self.proposed is not None and self.proposed[:2] == (before, consumers)
        by_two = proposed and self.proposed is not None and self.proposed[2] != actor
        dropped = [
            one for one in self.consumers if one not in consumers and self.left.get(one, actor) == actor
        ]
        if "delivery.endpoint-declared/1" in told:
            assert by_two or not dropped, f"{actor} dropped {dropped} alone"
            assert ("registry.lowering-agreed/1" in told) == bool(dropped)
            if dropped:
                self.proposed = None
            self.left = {one: by for one, by in self.left.items() if one in consumers and not self.removed}
            self.consumers, self.removed = consumers, False
            return
        if consumers == self.consumers and not self.removed:
            return
        assert dropped, "to ask for more is free"
        assert not by_two, "two people who ask for the same have it"
        if not proposed:
            self.proposed = (before, consumers, actor)

    @rule(actor=PEOPLE, consumer=CONSUMERS)
    def lets_go(self, actor: str, consumer: str) -> None:
        command = SignOffRemoval(id=self.story.new_id(), endpoint=PROD, consumer=consumer)
        if self.sends(actor, command).refusal is None:
            self.left.setdefault(consumer, actor)

    @precondition(lambda self: not self.removed)
    @rule(actor=PEOPLE)
    def removes(self, actor: str) -> None:
        live = self.line().live
        about = (self.consumers, live and live.version, self.n_versions)
        command = RemoveEndpoint(
            id=self.story.new_id(),
            endpoint=PROD,
            reason="tidying up",
            live=f"main/{live.version}" if live else "",
            despite_consumers=True,
        )
        told = [event["type"] for event in accepted(self.sends(actor, command)).events]
        holding = [one for one in self.consumers if self.left.get(one, actor) == actor]
        by_two = self.to_remove is not None and self.to_remove[0] == about and self.to_remove[1] != actor
        if "delivery.endpoint-removed/1" not in told:
            assert holding, "nobody is surprised"
            assert not by_two, "two people who ask for the same have it"
            if self.to_remove is None or self.to_remove[0] != about:
                self.to_remove = (about, actor)
            return
        assert by_two or not holding, f"{actor} took it down alone over the heads of {holding}"
        assert ("registry.lowering-agreed/1" in told) == bool(holding)
        self.to_remove = None
        self.removed, self.removed_at = True, self.line().removed_at

    @precondition(lambda self: not self.removed)
    @rule(first=PEOPLE, second=PEOPLE)
    def two_remove(self, first: str, second: str) -> None:
        self.removes(first)
        if not self.removed:
            self.removes(second)

    @precondition(lambda self: not self.removed and self.n_versions < 4)
    @rule()
    def releases(self) -> None:
        version = f"{MODEL_NAME}@1.0.{self.n_versions}"
        self.story.release(self.n_versions, version)
        self.n_versions, self.last_live = self.n_versions + 1, version

    @invariant()
    def it_is_as_it_was_told(self) -> None:
        line = self.line()
        assert (line.consumers, line.removed_at is not None) == (self.consumers, self.removed)
        assert set(line.let_go) == set(self.left)

    @invariant()
    def the_next_one_is_held_against_what_ran_last(self) -> None:
        if self.n_versions < 2:
            return
        for number in range(self.n_versions):
            version = f"{MODEL_NAME}@1.0.{number}"
            baseline = self.story.ask(Standing(version=version, environment="prod")).baseline_version
            itself = version == self.last_live and self.line().live is None
            assert baseline == (None if itself else self.last_live)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            assert self.story.ask(VerifyAudit()).ok
            self.story.ask(Queue())


TestEndpoint = EndpointMachine.TestCase
TestEndpoint.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
