"""Approvals, waivers and emergencies in any order, held against their rules told a second time, in plain Python.

One version is ready for prod but for people: its relative gate has failed, and the policy asks for the owner and for
risk. Whatever is asked, granted, taken back or broken, and however time passes, a promotion is let in exactly when the
model below says so, and nobody ever counts who must not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from worlds import STEPS, InMemory, OnSqlite, sent_once

from lockgate.core.messages import Command, Receipt
from lockgate.delivery.messages import PromoteVersion, ReleaseInEmergency
from lockgate.delivery.standing import StandingAnswer
from lockgate.governance.judgement import DAY_US
from lockgate.governance.messages import (
    ApproveVersion,
    BreakGlass,
    CloseReview,
    DeclineVersion,
    EndWaiver,
    GrantWaiver,
    RequestWaiver,
    RevokeApproval,
    SecondBreakGlass,
)
from lockgate.governance.policies.policy import ApproverRole, Policy, WaiverTerms
from lockgate.hub.messages import Standing, VerifyAudit
from lockgate.testing.hub_world import AUTHOR, MODEL_NAME, POLICY, RELATIVE_GATE, HubWorld, Story, accepted

V1 = f"{MODEL_NAME}@1.0.0"
PEOPLE = st.sampled_from([AUTHOR, "bob", "cy", "dee", "robot"])
SLIPS = (
    "one person for both",
    "second thoughts",
    "a no",
    "new evidence",
    "too late",
    "ended",
    "a review is owed",
    "a review is overdue",
)
ROLES = st.sampled_from(["owner", "risk", "product"])
HOUR_US = DAY_US // 24


def rules_in_force() -> Policy:
    tiers = {
        tier: msgspec.structs.replace(
            POLICY.rule(tier),
            people={},
            approvals={"production": ("owner", "risk")},
            evidence_max_age_days=10_000,
            waivers=WaiverTerms(max_days=30.0, roles=("owner", "risk"), renewals=1),
        )
        for tier in POLICY.tiers
    }
    return Policy(name="machine", version=1, tiers=tiers)


@dataclass
class Waiver:
    asker: str
    until: int
    granted_by: str = ""
    ended: bool = False


@dataclass
class Right:
    by: str
    until: int
    due: int
    second: str = ""
    used: bool = False
    reviewed: bool = False


@dataclass
class Told:
    """What people have said so far."""

    evidence: int = 0
    approvals: set[tuple[str, str, int]] = field(default_factory=set)
    objections: dict[str, tuple[str, int]] = field(default_factory=dict)
    waivers: list[Waiver] = field(default_factory=list)
    rights: list[Right] = field(default_factory=list)

    def people_of(self, role: str) -> set[str]:
        return {
            person for person, spoken, about in self.approvals if spoken == role and about == self.evidence
        }

    def has_quorum(self) -> bool:
        """An owner and somebody else of risk."""
        return any(owner != risk for owner in self.people_of("owner") for risk in self.people_of("risk"))

    def is_waived(self, now: int) -> bool:
        return any(one.granted_by and not one.ended and now <= one.until for one in self.waivers)

    def is_frozen(self, now: int) -> bool:
        return any(not one.reviewed and now > one.due for one in self.rights)

    def is_declined(self) -> bool:
        return any(about == self.evidence for _, about in self.objections.values())


class GovernanceMachine(RuleBasedStateMachine):
    def open_world(self) -> HubWorld:
        raise NotImplementedError

    @initialize()
    def found(self) -> None:
        self.world = self.open_world()
        self.crash: str | None = None
        self.story = Story(self.world.hub)
        self.story.found(policy=rules_in_force())
        self.story.train("one")
        accepted(self.story.register("one"))
        accepted(self.story.judge(V1))
        accepted(self.story.validate(V1))
        accepted(self.story.promote(V1, "dev"))
        accepted(self.story.confirm("dev"))
        self.told = Told()
        self.judge_anew()

    def do(self, actor: str, command: Command) -> Receipt:
        """Send a command, through a crash when one is due."""
        hub, crash, self.crash = self.world.hub(actor), self.crash, None
        if actor == "robot":
            hub.session = msgspec.structs.replace(hub.session, kind="service")
        return sent_once(self.world, hub, command, crash)

    @rule(step=st.sampled_from(STEPS))
    def the_process_will_die(self, step: str) -> None:
        self.crash = step

    def standing(self) -> StandingAnswer:
        answer: StandingAnswer = self.world.ask(Standing(version=V1, environment="prod"))
        return answer

    @property
    def now(self) -> int:
        return self.world.clock.now()

    def is_person(self, actor: str) -> bool:
        return actor != "robot"

    @rule()
    def judge_anew(self) -> None:
        self.told.evidence += 1
        accepted(self.story.judge_for(V1, "prod", verdict="fail", turn=self.told.evidence))

    @rule(actor=PEOPLE, role=ROLES)
    def approve(self, actor: str, role: ApproverRole) -> None:
        command = ApproveVersion(
            id=self.story.new_id(),
            version=V1,
            environment="prod",
            evidence_set=self.standing().bound,
            role=role,
        )
        allowed = self.is_person(actor) and actor != AUTHOR
        assert (self.do(actor, command).refusal is None) == allowed
        if allowed:
            self.told.approvals.add((actor, role, self.told.evidence))
            self.told.objections.pop(actor, None)

    @rule(actor=PEOPLE, role=ROLES)
    def revoke(self, actor: str, role: ApproverRole) -> None:
        command = RevokeApproval(
            id=self.story.new_id(), version=V1, environment="prod", reason="again", role=role
        )
        own = {one for one in self.told.approvals if one[:2] == (actor, role)}
        assert (self.do(actor, command).refusal is None) == bool(own)
        self.told.approvals -= own

    @rule(actor=PEOPLE, role=ROLES)
    def decline(self, actor: str, role: ApproverRole) -> None:
        command = DeclineVersion(
            id=self.story.new_id(),
            version=V1,
            environment="prod",
            evidence_set=self.standing().bound,
            reason="no",
            role=role,
        )
        allowed = self.is_person(actor)
        assert (self.do(actor, command).refusal is None) == allowed
        if allowed:
            self.told.objections[actor] = (role, self.told.evidence)

    @rule(actor=PEOPLE, days=st.sampled_from([1, 5, 30, 31]))
    def ask_for_waiver(self, actor: str, days: int) -> None:
        until = self.now + days * DAY_US
        command = RequestWaiver(
            id=self.story.new_id(),
            model=MODEL_NAME,
            versions="1.0.0",
            environment="prod",
            gate=RELATIVE_GATE,
            reason="r",
            control="c",
            ticket="T-1",
            until=until,
        )
        receipt = self.do(actor, command)
        assert (receipt.refusal is None) == (days <= 30)
        if receipt.events and days <= 30:
            self.told.waivers.append(Waiver(actor, until))

    @rule(actor=PEOPLE, role=ROLES, index=st.integers(0, 3))
    def grant_waiver(self, actor: str, role: ApproverRole, index: int) -> None:
        known = self.told.waivers[index] if index < len(self.told.waivers) else None
        command = GrantWaiver(
            id=self.story.new_id(), model=MODEL_NAME, environment="prod", number=index + 1, role=role
        )
        before = self.now
        receipt = self.do(actor, command)
        if known is None or known.ended:
            assert receipt.refusal is not None
            return
        if known.granted_by:
            assert receipt.events == ()
            return
        earlier = sum(bool(one.granted_by) for one in self.told.waivers)
        named = role == "risk" if earlier > 1 else role in ("owner", "risk")
        others = actor not in (known.asker, AUTHOR)
        allowed = self.is_person(actor) and others and named and before < known.until
        assert (receipt.refusal is None) == allowed, receipt.refusal
        if allowed:
            known.granted_by = actor

    @rule(index=st.integers(0, 3))
    def end_waiver(self, index: int) -> None:
        command = EndWaiver(
            id=self.story.new_id(),
            model=MODEL_NAME,
            environment="prod",
            number=index + 1,
            role="risk",
            reason="over",
        )
        known = self.told.waivers[index] if index < len(self.told.waivers) else None
        allowed = known is not None and not known.ended
        assert (self.do("rita", command).refusal is None) == allowed
        if known is not None:
            known.ended = True

    @rule(actor=PEOPLE, hours=st.sampled_from([1.0, 4.0, 5.0]))
    def break_the_glass(self, actor: str, hours: float) -> None:
        command = BreakGlass(
            id=self.story.new_id(),
            model=MODEL_NAME,
            environment="prod",
            incident="I",
            reason="r",
            hours=hours,
        )
        receipt = self.do(actor, command)
        assert (receipt.refusal is None) == (self.is_person(actor) and hours <= 4)
        if receipt.refusal is None:
            (event,) = receipt.events
            assert event["review_due"] - event["until"] == int((72 - hours) * HOUR_US)
            self.told.rights.append(Right(actor, event["until"], event["review_due"]))

    @rule(actor=PEOPLE, index=st.integers(0, 2))
    def second(self, actor: str, index: int) -> None:
        right = self.told.rights[index] if index < len(self.told.rights) else None
        command = SecondBreakGlass(
            id=self.story.new_id(), model=MODEL_NAME, environment="prod", number=index + 1
        )
        before = self.now
        receipt = self.do(actor, command)
        fresh = right is not None and not right.reviewed and before < right.until
        allowed = right is not None and fresh and self.is_person(actor) and actor != right.by
        assert (receipt.refusal is None) == allowed
        if right is not None and receipt.events and allowed:
            right.second = actor

    @rule(actor=PEOPLE, index=st.integers(0, 2))
    def review(self, actor: str, index: int) -> None:
        right = self.told.rights[index] if index < len(self.told.rights) else None
        command = CloseReview(
            id=self.story.new_id(), model=MODEL_NAME, environment="prod", number=index + 1, finding="f"
        )
        receipt = self.do(actor, command)
        if right is None:
            assert receipt.refusal is not None
        elif right.reviewed:
            assert receipt.events == ()
        else:
            let_in_own = right.used and actor == AUTHOR
            allowed = self.is_person(actor) and actor not in (right.by, right.second) and not let_in_own
            assert (receipt.refusal is None) == allowed
            right.reviewed = allowed

    @rule(actor=PEOPLE, index=st.integers(0, 2))
    def release_by_two(self, actor: str, index: int) -> None:
        """What never was live takes two people, and is called off again at once."""
        right = self.told.rights[index] if index < len(self.told.rights) else None
        command = ReleaseInEmergency(id=self.story.new_id(), version=V1, environment="prod", number=index + 1)
        before = self.now
        receipt = self.do(actor, command)
        allowed = (
            right is not None
            and not right.reviewed
            and self.is_person(actor)
            and right.second not in ("", AUTHOR)
            and actor in (right.by, right.second)
            and before < right.until
            and not self.told.is_frozen(before)
        )
        assert (receipt.refusal is None) == allowed, receipt.refusal
        if right is not None and allowed:
            right.used = True
            accepted(self.story.confirm("prod", applied=False))

    @rule()
    def promote(self) -> None:
        now = self.now
        receipt = self.do("olga", PromoteVersion(id=self.story.new_id(), version=V1, environment="prod"))
        told = self.told
        allowed = (
            told.has_quorum() and told.is_waived(now) and not told.is_frozen(now) and not told.is_declined()
        )
        assert (receipt.refusal is None) == allowed, receipt.refusal
        if allowed:
            started = receipt.events[0]
            assert AUTHOR not in started["approved_by"]
            assert "robot" not in started["approved_by"]
            assert started["waivers"]
            accepted(self.story.confirm("prod", applied=False))

    @rule(slip=st.sampled_from([None, *SLIPS]))
    def almost_let_in(self, slip: str | None) -> None:
        """Everything that a promotion needs, and one thing that goes wrong."""
        for index, right in enumerate(self.told.rights):
            if not right.reviewed:
                self.review("dee", index)
        self.approve("bob", "owner")
        self.approve("cy", "risk")
        self.ask_for_waiver("dee", 5)
        asked = len(self.told.waivers) - 1
        self.grant_waiver("cy", "risk", asked)
        match slip:
            case "one person for both":
                self.revoke("cy", "risk")
                self.approve("bob", "risk")
            case "second thoughts":
                self.revoke("bob", "owner")
            case "a no":
                self.decline("cy", "product")
            case "new evidence":
                self.judge_anew()
            case "too late":
                self.time_passes(6)
            case "ended":
                self.end_waiver(asked)
            case "a review is owed":
                self.break_the_glass("bob", 1.0)
            case "a review is overdue":
                self.break_the_glass("bob", 1.0)
                self.time_passes(4)
        self.promote()

    @rule(slip=st.sampled_from([None, "alone", "too late", "somebody else"]))
    def emergency(self, slip: str | None) -> None:
        """Two people take a version past the policy, or nearly."""
        self.break_the_glass("bob", 4.0)
        number = len(self.told.rights) - 1
        if slip != "alone":
            self.second("cy", number)
        if slip == "too late":
            self.time_passes(0.2)
        self.release_by_two("dee" if slip == "somebody else" else "bob", number)
        self.review(AUTHOR, number)
        self.review("cy" if slip == "alone" else "dee", number)

    @rule(days=st.sampled_from([0.1, 1, 3, 10]))
    def time_passes(self, days: float) -> None:
        self.world.clock.advance(seconds=days * 24 * 3600)

    @invariant()
    def a_verdict_stays_what_it_is(self) -> None:
        if hasattr(self, "told"):
            verdicts = [line.verdict for line in self.standing().evidence if line.gate == RELATIVE_GATE]
            assert verdicts == ["fail"]

    def teardown(self) -> None:
        if hasattr(self, "world"):
            assert self.world.ask(VerifyAudit()).ok


class MemoryGovernance(InMemory, GovernanceMachine):
    pass


class SqliteGovernance(OnSqlite, GovernanceMachine):
    pass


TestGovernanceInMemory = MemoryGovernance.TestCase
TestGovernanceInMemory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestGovernanceOnSqlite = SqliteGovernance.TestCase
TestGovernanceOnSqlite.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
