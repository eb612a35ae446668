"""The hub as a state machine: what may happen to versions and endpoints, written a second time, in plain Python.

Hypothesis drives `Hub.execute` over a hub in memory, one on SQLite, and one behind a real server on the loopback
interface. Every command is first made to crash after a step of the kernel, then sent again with its id, then once
more. The model below says what must be accepted, and what is then the state of the world.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from worlds import CRASH, InMemory, OnSqlite, sent_once

from lockgate.adapters.hubs.http import HttpHub
from lockgate.app.http.server import HubServer, by_claimed_name, create_app
from lockgate.core.messages import Command, Receipt
from lockgate.core.semver import Semver, parse
from lockgate.delivery.messages import ConfirmPlan, PromoteVersion, RetireVersion, RollBackEndpoint
from lockgate.governance.messages import AdoptPolicy, ApproveVersion, ValidateVersion
from lockgate.hub.authority import Session
from lockgate.hub.kernel import Hub
from lockgate.hub.messages import ListVersions, Standing, Status, VerifyAudit
from lockgate.registry.messages import LiftQuarantine, QuarantineVersion, RejectVersion
from lockgate.testing.hub_world import (
    MAX_AGE_DAYS,
    MODEL_NAME,
    POLICY,
    HubWorld,
    Story,
    named_digest,
)

ENVIRONMENTS = ("dev", "prod")
SLIPS = (
    "no relative evidence",
    "bad relative evidence",
    "old champion",
    "no approval",
    "new evidence",
    "bad evidence",
    "new policy",
    "quarantined",
    "too late",
    "let out again",
    "dev moved on",
    "retired on the way",
    "retired at the start",
    "old evidence",
    "bad evidence that is approved",
    "did not load",
    "called off",
    "no way back",
    "own approval",
    "hasty approval",
)
PEOPLE = st.sampled_from(["ann", "bob", "cy"])


@dataclass
class Version:
    author: str
    package: int
    state: str = "candidate"
    shut_in_by: str = ""
    before: str = ""
    intrinsic: tuple[int, bool, int] | None = None  # which, passed, day
    relative: tuple[int, bool, int, str] | None = None  # ... and the version it was compared with
    approvals: set[tuple[str, Any]] = field(default_factory=set)


@dataclass
class Endpoint:
    live: str = ""
    previous: str = ""
    underway: tuple[str, str, int] | None = None  # "release" or "rollback", version, generation


@dataclass
class Model:
    """The rules of the house, as a person would tell them."""

    day: int = 0
    policy: int = 1
    versions: dict[str, Version] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(
        default_factory=lambda: {name: Endpoint() for name in ENVIRONMENTS}
    )

    def bound(self, key: str) -> tuple[object, ...]:
        """What an approval is about: both kinds of evidence, and the policy."""
        one = self.versions[key]
        return (one.intrinsic and one.intrinsic[0], one.relative and one.relative[0], self.policy)

    def good(self, evidence: Any) -> bool:
        return evidence is not None and evidence[1] and self.day - evidence[2] <= MAX_AGE_DAYS

    def may_validate(self, key: str) -> bool:
        one = self.versions[key]
        return one.state in ("candidate", "validated") and self.good(one.intrinsic)

    def may_approve(self, key: str, actor: str, about: object) -> bool:
        one = self.versions[key]
        return one.state == "validated" and actor != one.author and about == self.bound(key)

    def approvers(self, key: str) -> set[str]:
        one = self.versions[key]
        return {actor for actor, about in one.approvals if about == self.bound(key) and actor != one.author}

    def may_promote(self, key: str, environment: str) -> bool:
        one, endpoint = self.versions[key], self.endpoints[environment]
        if endpoint.underway:
            return False
        if endpoint.live == key:
            return True
        if environment == "dev":
            return one.state in ("candidate", "validated")
        judged = self.good(one.intrinsic) and self.good(one.relative)
        compared = one.relative is not None and one.relative[3] == endpoint.live
        below = self.endpoints["dev"].live == key
        return one.state == "validated" and judged and compared and below and bool(self.approvers(key))

    def way_back(self, environment: str) -> str:
        endpoint = self.endpoints[environment]
        underway = "" if endpoint.underway is None else endpoint.underway[0]
        if underway.startswith("rollback"):
            return ""
        if underway:
            # What is live answers its share anyway, whatever became of it: a release is called off to it.
            return endpoint.live
        back = endpoint.previous
        return back if back and self.versions[back].state not in ("quarantined", "rejected") else ""

    def may_retire(self, key: str) -> bool:
        used = {name for one in self.endpoints.values() for name in (one.live, one.previous)}
        used |= {one.underway[1] for one in self.endpoints.values() if one.underway}
        return self.versions[key].state in ("candidate", "validated") and key not in used


class HubMachine(RuleBasedStateMachine):
    """Steps that people and controllers take, in any order, on one of the three hubs."""

    def open_world(self) -> HubWorld:
        raise NotImplementedError

    def hub(self, actor: str) -> Hub:
        return self.world.hub(actor)

    @initialize()
    def found(self) -> None:
        self.world = self.open_world()
        self.story = Story(self.hub)
        self.story.found()
        self.model = Model()
        self.generations = dict.fromkeys(ENVIRONMENTS, 0)
        self.effects: list[tuple[str, int]] = []
        self.turn = 0
        self.latest = Semver(0, 0, 0)

    def do(self, actor: str, command: Command, crash: str | None, expected: bool) -> Receipt:
        """Send a command through a crash at step `crash`, then twice more; it has one effect."""
        receipt = sent_once(self.world, self.hub(actor), command, crash)
        assert (receipt.refusal is None) == expected, (command, receipt.refusal)
        self.effects += [
            (f"{environment}/{MODEL_NAME}", event.get("restored") or event["generation"])
            for event in receipt.events
            for environment in ENVIRONMENTS
            if event["type"].partition("/")[0] in PLANNING
            and event["endpoint"] == f"{environment}/{MODEL_NAME}"
        ]
        return receipt

    def pick(self, index: int) -> str:
        keys = list(self.model.versions)
        return keys[index % len(keys)]

    some_versions = precondition(lambda self: bool(self.model.versions))
    which = st.integers(0, 5)

    @rule(
        package=st.integers(0, 7),
        author=PEOPLE,
        bump=st.sampled_from(["patch", "minor", "major"]),
        crash=CRASH,
    )
    def register(self, package: int, author: str, bump: Any, crash: str | None) -> None:
        self.world.bumps.setdefault(named_digest("package", package), bump)
        receipt = self.do(author, self.story.registering(package), crash, expected=True)
        if any(one.package == package for one in self.model.versions.values()):
            assert receipt.events == ()
            return
        key = receipt.events[0]["version"]
        assert key not in self.model.versions
        number = parse(key.partition("@")[2])
        assert number > self.latest
        self.latest = number
        self.model.versions[key] = Version(author, package)

    @some_versions
    @rule(number=st.sampled_from(["1.0.0", "0.0.1", "1.0.1"]), crash=CRASH)
    def reuse_a_number(self, number: str, crash: str | None) -> None:
        self.world.bumps[named_digest("package", "late")] = "major"
        self.do("ann", self.story.registering("late", version=number), crash, expected=False)

    @some_versions
    @rule(index=which, passed=st.sampled_from([True, True, True, False]), crash=CRASH)
    def judge(self, index: int, passed: bool, crash: str | None) -> None:
        key, one = self.pick(index), self.model.versions[self.pick(index)]
        self.turn += 1
        verdict: Any = "pass" if passed else "fail"
        package = named_digest("package", one.package)
        command = self.story.judging(key, package, verdict=verdict, turn=self.turn)
        expected = one.state not in ("rejected", "retired")
        self.do("eve", command, crash, expected)
        if expected:
            one.intrinsic = (self.turn, passed, self.model.day)

    @some_versions
    @rule(index=which, passed=st.sampled_from([True, True, True, False]), moved=st.booleans(), crash=CRASH)
    def judge_for_prod(self, index: int, passed: bool, moved: bool, crash: str | None) -> None:
        key, one = self.pick(index), self.model.versions[self.pick(index)]
        self.turn += 1
        champion = self.model.endpoints["prod"].previous if moved else self.model.endpoints["prod"].live
        baseline = named_digest("package", self.model.versions[champion].package) if champion else ""
        verdict: Any = "pass" if passed else "error"
        package = named_digest("package", one.package)
        command = self.story.judging(
            key, package, environment="prod", verdict=verdict, baseline=baseline, turn=self.turn
        )
        expected = one.state not in ("rejected", "retired")
        self.do("eve", command, crash, expected)
        if expected:
            one.relative = (self.turn, passed, self.model.day, champion)

    @some_versions
    @rule(index=which, crash=CRASH)
    def evidence_about_other_bytes(self, index: int, crash: str | None) -> None:
        command = self.story.judging(self.pick(index), named_digest("package", "other"))
        self.do("eve", command, crash, expected=False)

    @some_versions
    @rule(index=which, crash=CRASH)
    def validate(self, index: int, crash: str | None) -> None:
        key = self.pick(index)
        expected = self.model.may_validate(key)
        self.do("eve", ValidateVersion(id=self.story.new_id(), version=key), crash, expected)
        if expected:
            self.model.versions[key].state = "validated"

    @some_versions
    @rule(index=which, actor=PEOPLE, crash=CRASH, turn=st.booleans())
    def approve(self, index: int, actor: str, crash: str | None, turn: bool) -> None:
        """Read the evidence, agree to it; with `turn`, new evidence comes in between."""
        key, one = self.pick(index), self.model.versions[self.pick(index)]
        about = self.model.bound(key)
        bound = self.story.ask(Standing(version=key, environment="prod")).bound
        if turn and one.state not in ("rejected", "retired"):
            self.judge(index, True, None)
        command = ApproveVersion(id=self.story.new_id(), version=key, environment="prod", evidence_set=bound)
        expected = self.model.may_approve(key, actor, about)
        self.do(actor, command, crash, expected)
        if expected:
            one.approvals.add((actor, about))

    @some_versions
    @rule(index=which, environment=st.sampled_from(ENVIRONMENTS), crash=CRASH)
    def promote(self, index: int, environment: str, crash: str | None) -> None:
        key, endpoint = self.pick(index), self.model.endpoints[environment]
        expected = self.model.may_promote(key, environment)
        command = PromoteVersion(id=self.story.new_id(), version=key, environment=environment)
        receipt = self.do("olga", command, crash, expected)
        if not expected or endpoint.live == key:
            return
        (started,) = receipt.events
        if environment == "prod":
            assert set(started["approved_by"]) == self.model.approvers(key) != set()
            assert self.model.versions[key].author not in started["approved_by"]
        endpoint.underway = ("release", key, self._newer(environment, started["generation"]))

    @rule(
        applied=st.sampled_from([True, True, False]),
        subject=st.sampled_from([None, *ENVIRONMENTS]),
        crash=CRASH,
    )
    def carry_out(self, applied: bool, subject: str | None, crash: str | None) -> None:
        """A controller takes an effect from the outbox, reports what it saw, and settles."""
        now = self.world.clock.now()
        name = f"{subject}/{MODEL_NAME}" if subject else None
        row = self.world.outbox.lease(now, now + 1, subject=name)
        assert (row is not None) == any(name in (None, effect[0]) for effect in self.effects)
        if row is not None:
            self._confirm(row.subject, row.fence, applied, crash)
            self.world.outbox.settle(row)
            self.effects.remove((row.subject, row.fence))

    @rule()
    def a_controller_dies(self) -> None:
        """After it leased a row: the row comes back when the lease has run out."""
        now = self.world.clock.now()
        self.world.outbox.lease(now, now + 1)

    @rule(environment=st.sampled_from(ENVIRONMENTS), back=st.integers(1, 3), crash=CRASH)
    def old_news(self, environment: str, back: int, crash: str | None) -> None:
        """A report on a plan that is no longer the newest changes nothing."""
        before = self.world.journal.head()
        self._confirm(f"{environment}/{MODEL_NAME}", self.generations[environment] - back, True, crash)
        assert self.world.journal.head() == before

    def _confirm(self, name: str, generation: int, applied: bool, crash: str | None) -> None:
        command = ConfirmPlan(
            id=self.story.new_id(), endpoint=name, generation=generation, applied=applied, took_us=1
        )
        receipt = self.do("controller", command, crash, expected=True)
        environment = name.partition("/")[0]
        endpoint = self.model.endpoints[environment]
        if endpoint.underway is None or endpoint.underway[2] != generation:
            assert receipt.events == ()
            return
        kind, key, _ = endpoint.underway
        endpoint.underway = None
        if kind == "release" and applied:
            endpoint.live, endpoint.previous = key, endpoint.live
        elif not applied:
            self._newer(environment, receipt.events[0]["restored"])
            if kind == "rollback of a live one":
                endpoint.live, endpoint.previous = endpoint.previous, endpoint.live

    @rule(environment=st.sampled_from(ENVIRONMENTS), crash=CRASH)
    def roll_back(self, environment: str, crash: str | None) -> None:
        endpoint, back = self.model.endpoints[environment], self.model.way_back(environment)
        command = RollBackEndpoint(id=self.story.new_id(), endpoint=f"{environment}/{MODEL_NAME}")
        first = endpoint.underway is not None and endpoint.underway[0] == "release" and not endpoint.live
        receipt = self.do("olga", command, crash, expected=bool(back) or first)
        if first:
            # Nothing was live before it, so it is called off and the fallback answers.
            self._newer(environment, receipt.events[0]["restored"])
            endpoint.underway = None
        if not back:
            return
        (event,) = receipt.events
        assert event["to"]["version"] == back
        kind = "rollback of one on its way"
        if back != endpoint.live:
            kind = "rollback of a live one"
            endpoint.live, endpoint.previous = endpoint.previous, endpoint.live
        endpoint.underway = (kind, back, self._newer(environment, event["generation"]))

    def _newer(self, environment: str, generation: int) -> int:
        assert generation > self.generations[environment]
        self.generations[environment] = generation
        return generation

    @rule(index=which, crash=CRASH)
    def ship_without_a_slip(self, index: int, crash: str | None) -> None:
        self.ship(index, "", crash)

    @rule(index=which, slip=st.sampled_from(SLIPS), crash=CRASH)
    def ship(self, index: int, slip: str, crash: str | None) -> None:
        """The whole way at once, so that long stories are common; with `slip`, one thing goes wrong on it.

        A fresh version is taken when the chosen one can go nowhere any more.
        """
        self._settle_all()
        going = ("candidate", "validated")
        if not self.model.versions or self.model.versions[self.pick(index)].state not in going:
            self.register(1000 + self.turn, "ann", "patch", None)
            index = len(self.model.versions) - 1
        key = self.pick(index)
        others = [name for name in ("ann", "bob") if name != self.model.versions[key].author]
        self.judge(index, True, None)
        self.validate(index, None)
        self.promote(index, "dev", None)
        if slip == "retired at the start":
            self.change_life(index, "cy", "retire", None)
        self._settle_all()
        if slip == "old evidence":
            self.time_passes()
            self.time_passes()
        if slip == "bad evidence that is approved":
            self.judge(index, False, None)
        if slip != "no relative evidence":
            self.judge_for_prod(index, slip != "bad relative evidence", slip == "old champion", None)
        if slip != "no approval":
            actor = self.model.versions[key].author if slip == "own approval" else others[0]
            self.approve(index, actor, None, slip == "hasty approval")
        match slip:
            case "new evidence":
                self.judge(index, True, None)
            case "bad evidence":
                self.judge(index, False, None)
            case "new policy":
                self.adopt_policy(self.model.policy % 3 + 1, None)
            case "quarantined":
                self.change_life(index, "cy", "quarantine", None)
            case "too late":
                self.time_passes()
                self.time_passes()
            case "let out again":
                self.change_life(index, "cy", "quarantine", None)
                self.change_life(index, "cy", "lift", None)
                self.change_life(index, self.model.versions[key].author, "lift", None)
                self.change_life(index, others[0], "lift", None)
            case "dev moved on":
                self.roll_back("dev", None)
                self._settle_all()
        self.promote(index, "prod", crash)
        match slip:
            case "retired on the way":
                self.change_life(index, "cy", "retire", None)
            case "did not load":
                self.carry_out(False, "prod", None)
            case "called off":
                self.roll_back("prod", crash)
        self._settle_all()
        previous = self.model.endpoints["prod"].previous
        if slip == "no way back" and previous:
            self.change_life(list(self.model.versions).index(previous), "cy", "quarantine", None)
            self.roll_back("prod", crash)

    def _settle_all(self) -> None:
        self.world.clock.advance(seconds=1)
        while self.effects:
            self.carry_out(True, None, None)

    @some_versions
    @rule(
        index=which,
        actor=PEOPLE,
        verb=st.sampled_from(["quarantine", "lift", "lift", "reject", "retire"]),
        crash=CRASH,
    )
    def change_life(self, index: int, actor: str, verb: str, crash: str | None) -> None:
        key, one = self.pick(index), self.model.versions[self.pick(index)]
        kinds: dict[str, Any] = {
            "quarantine": (QuarantineVersion, one.state in ("candidate", "validated")),
            "lift": (
                LiftQuarantine,
                one.state == "quarantined" and actor not in (one.shut_in_by, one.author),
            ),
            "reject": (RejectVersion, one.state in ("candidate", "validated", "quarantined")),
            "retire": (RetireVersion, self.model.may_retire(key)),
        }
        kind, expected = kinds[verb]
        receipt = self.do(actor, kind(id=self.story.new_id(), version=key, reason="so"), crash, expected)
        if expected and verb in ("quarantine", "reject"):
            self._called_off(key, receipt)
        if expected and verb == "quarantine":
            one.before, one.shut_in_by, one.state = one.state, actor, "quarantined"
        elif expected:
            one.state = {"lift": one.before, "reject": "rejected", "retire": "retired"}[verb]

    def _called_off(self, key: str, receipt: Receipt) -> None:
        """A version that is withdrawn goes nowhere any more."""
        going = {
            environment
            for environment, endpoint in self.model.endpoints.items()
            if endpoint.underway is not None and endpoint.underway[:2] == ("release", key)
        }
        failed = {
            event["endpoint"].partition("/")[0]: event for event in receipt.events if "restored" in event
        }
        assert failed.keys() == going
        for environment in going:
            self._newer(environment, failed[environment]["restored"])
            self.model.endpoints[environment].underway = None

    @rule(version=st.integers(1, 3), crash=CRASH)
    def adopt_policy(self, version: int, crash: str | None) -> None:
        """Another policy of the same content but another number makes approvals stale; the old one revives them."""
        policy = type(POLICY)(name=POLICY.name, version=version, tiers=POLICY.tiers)
        self.do("petra", AdoptPolicy(id=self.story.new_id(), namespace="main", policy=policy), crash, True)
        self.model.policy = version

    @rule()
    def time_passes(self) -> None:
        self.world.clock.advance(days=4)
        self.model.day += 4

    @invariant()
    def the_journal_holds(self) -> None:
        if not hasattr(self, "model"):
            return
        answer = self.hub("auditor").ask(VerifyAudit())
        assert answer.ok, answer.findings

    @invariant()
    def the_world_is_as_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        states = {
            one.version: one.state for one in self.hub("v").ask(ListVersions(model=MODEL_NAME)).versions
        }
        assert states == {key: one.state for key, one in self.model.versions.items()}
        status = self.hub("v").ask(Status())
        for environment, endpoint in self.model.endpoints.items():
            line = status.endpoints[f"{environment}/flight-delay"]
            seen = [one and f"main/{one.version}" for one in (line.live, line.previous)]
            assert seen == [endpoint.live or None, endpoint.previous or None]
            underway = line.rollout and (line.rollout.version, line.rollout.generation)
            assert underway == (endpoint.underway and endpoint.underway[1:])
        assert status.effects_pending == len(self.effects) == self.world.outbox.open_rows()


PLANNING = (
    "delivery.release-started",
    "delivery.release-failed",
    "delivery.endpoint-rolled-back",
    "delivery.rollback-failed",
)


class MemoryMachine(InMemory, HubMachine):
    pass


class SqliteMachine(OnSqlite, HubMachine):
    pass


class Server:
    """One server for all examples; behind it, the world of the example that runs."""

    def __init__(self) -> None:
        self.world: HubWorld | None = None
        self.url = ""
        self.hubs: dict[str, HttpHub] = {}

    def local(self, session: Session) -> Hub:
        assert self.world is not None
        return self.world.hub(session.actor)

    def remote(self, actor: str) -> HttpHub:
        if actor not in self.hubs:
            self.hubs[actor] = HttpHub(self.url, actor=actor)
        return self.hubs[actor]


SERVER = Server()


class HttpMachine(SqliteMachine):
    def open_world(self) -> HubWorld:
        SERVER.world = super().open_world()
        return SERVER.world

    def hub(self, actor: str) -> Hub:
        return SERVER.remote(actor)


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    ready = threading.Event()
    server = HubServer(create_app(SERVER.local, by_claimed_name), 0, ready=lambda port: ready.set())
    thread = threading.Thread(target=server.run)
    log = logging.getLogger("lockgate.hub")
    log.disabled = True
    thread.start()
    try:
        assert ready.wait(30)
        SERVER.url = server.url
        yield
    finally:
        log.disabled = False
        for hub in SERVER.hubs.values():
            hub.close()
        server.stop()
        thread.join(30)


TestHubInMemory = MemoryMachine.TestCase
TestHubInMemory.settings = settings(max_examples=300, stateful_step_count=25)
TestHubOnSqlite = SqliteMachine.TestCase
TestHubOnSqlite.settings = settings(max_examples=40, stateful_step_count=25)
TestHubOverHttp = HttpMachine.TestCase
TestHubOverHttp.settings = settings(max_examples=12, stateful_step_count=25)


@pytest.mark.parametrize("n_before", [0, 1, 2])
@pytest.mark.parametrize("slip", ["", *SLIPS])
def test_every_slip_on_a_road_that_was_free(slip: str, n_before: int) -> None:
    """What chance may miss: each thing that can go wrong, after none, one and two good releases."""
    machine = MemoryMachine()
    machine.found()
    for package in range(n_before):
        machine.register(package, "ann", "patch", None)
        machine.ship(package, "", "committed")
        assert machine.model.endpoints["prod"].live == machine.pick(package)
    machine.register(9, "bob", "minor", None)
    machine.ship(n_before, slip, "locked")
    machine.the_journal_holds()
    machine.the_world_is_as_the_model_says()
    assert slip or machine.model.endpoints["prod"].live == machine.pick(n_before)
