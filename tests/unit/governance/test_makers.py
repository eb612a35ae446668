"""Who made a version has no say about it, whoever registered it and by whatever name a commit knows him."""

from __future__ import annotations

from typing import Any

import pytest
from governance_rig import V1, V2, policy

from lockgate.access.messages import CreateServiceAccount, GrantRole, NameAlias, RemoveAlias
from lockgate.core.messages import Receipt
from lockgate.core.semver import Bump
from lockgate.delivery.messages import ReleaseInEmergency
from lockgate.governance.messages import (
    BreakGlass,
    CloseReview,
    GrantWaiver,
    RequestWaiver,
    SecondBreakGlass,
    SignOff,
    ValidateVersion,
)
from lockgate.governance.policies.policy import Policy
from lockgate.hub.authority import controller
from lockgate.hub.kernel import LocalHub
from lockgate.hub.messages import ExplainVersion, ListAccess, Standing, VerifyAudit
from lockgate.registry.makers import maker_texts
from lockgate.registry.messages import CommitPerson, LiftQuarantine, NameMakers, QuarantineVersion
from lockgate.testing.hub_world import (
    MODEL_NAME,
    RELATIVE_GATE,
    HubWorld,
    Story,
    accepted,
    named_digest,
    rules_of,
)

ADA, BOB, KIM = "ada@example.org", "bob@example.org", "kim@example.org"
HOME, CI = "ada@home.example", "service:ci"
COMMIT = "3f2a91c0" * 5
DUTIES, UNKNOWN = "governance.separation-of-duties", "governance.unknown-maker"


def by(name: str, did: Any = "committed", commit: str = COMMIT) -> CommitPerson:
    return CommitPerson(name=name, did=did, commit=commit)


class Team:
    """The world of the house with names that are proven: CI registers, people do the rest."""

    def __init__(self, rules: Policy | None = None, known: tuple[str, ...] = (ADA, BOB, KIM)) -> None:
        self.world: HubWorld = HubWorld.in_memory()
        self.started_by: tuple[str, ...] = ()
        self.story = Story(self.hub)
        self.story.found(policy=rules or policy())
        self.do("ann", CreateServiceAccount, name="ci", purpose="builds")
        for name in known:
            self.do("ann", GrantRole, subject=name, role="viewer")

    def hub(self, actor: str) -> LocalHub:
        if actor == "controller":
            return self.world.hub_for(controller(actor))
        return self.world.proven(actor, self.started_by)

    def told(self, actor: str, kind: Any, **fields: Any) -> Receipt:
        return self.story.do(actor, kind(id=self.story.new_id(), **fields))

    def do(self, actor: str, kind: Any, **fields: Any) -> Receipt:
        return accepted(self.told(actor, kind, **fields))

    def built(self, *people: CommitPerson, name: object = "one", version: str = V1, **told: Any) -> Team:
        """CI builds a version; it is judged and gets as far as dev."""
        story = self.story
        story.train(name)
        accepted(
            story.register(name, author=CI, **{"commit": COMMIT, "people": people, "told_since": "", **told})
        )
        accepted(story.judge(version))
        accepted(story.validate(version))
        accepted(story.promote(version, "dev"))
        accepted(story.confirm("dev"))
        accepted(story.judge_for(version, "prod"))
        return self

    def standing(self, version: str = V1) -> Any:
        return self.story.ask(Standing(version=version, environment="prod"))


def strict() -> Policy:
    return policy(known_makers=("production",))


def refused(receipt: Receipt) -> str:
    assert receipt.refusal is not None
    return receipt.refusal.reasons[0].message


@pytest.mark.parametrize(
    ("person", "said"),
    [
        (by(ADA), "committed 3f2a91c"),
        (by(ADA, "authored"), "wrote 3f2a91c"),
        (by(ADA, "co-authored"), "wrote 3f2a91c with others"),
    ],
)
def test_whoever_a_commit_names_does_not_approve_what_a_machine_registered(
    person: CommitPerson, said: str
) -> None:
    team = Team().built(person)
    receipt = team.story.approve(V1, actor=ADA)
    assert rules_of(receipt) == [DUTIES]
    assert refused(receipt) == f"{ADA} {said} and cannot approve it"
    accepted(team.story.approve(V1, actor=BOB))
    started = accepted(team.story.promote(V1, "prod")).events[0]
    assert started["approved_by"] == [BOB]


def test_whoever_started_the_job_does_not_approve_by_the_word_of_its_token_alone() -> None:
    team = Team()
    team.started_by = (ADA, "gitlab:ada")
    team.built()
    assert refused(team.story.approve(V1, actor=ADA)).startswith(f"{ADA} started the job that made {V1}")
    (line,) = [one for one in team.story.ask(ExplainVersion(version=V1)).makers if one.did == "started"]
    assert (line.name, line.also, line.people, line.known) == (ADA, ("gitlab:ada",), (ADA,), True)


def test_whoever_ran_the_training_is_a_maker() -> None:
    """In the world of these stories Ann trains, whoever registers."""
    team = Team().built(by(BOB))
    assert refused(team.story.approve(V1, actor="ann")).startswith(f"ann ran the training of {V1}")


@pytest.mark.parametrize("name", [HOME, "github:ada", "ADA@Example.org"])
def test_another_name_of_a_maker_is_his_from_when_an_admin_says_so(name: str) -> None:
    team = Team().built(by(HOME), by("1234+ada@users.noreply.github.com"))
    if name != "ADA@Example.org":
        accepted(team.story.approve(V1, actor=ADA))
        accepted(team.story.approve(V1, actor=BOB))
        assert team.standing().standing == (ADA, BOB)
        team.do(KIM, NameAlias, alias=name.upper(), subject=ADA)
    else:
        team.built(by(ADA), name="two", version=V2)
        assert rules_of(team.story.approve(V2, actor="ADA@Example.org")) == [DUTIES]
        return
    assert team.standing().standing == (BOB,)
    receipt = team.story.approve(V1, actor=ADA)
    assert rules_of(receipt) == [DUTIES]
    assert refused(receipt).startswith(f"{ADA} committed 3f2a91c as ")


def test_of_two_approvals_one_by_a_maker_leaves_one_missing_and_says_why() -> None:
    team = Team(policy(approvals={"production": ("owner", "risk")})).built(by(HOME))
    accepted(team.story.approve(V1, actor=ADA))
    accepted(team.story.approve(V1, actor=BOB, role="risk"))
    team.do(KIM, NameAlias, alias=HOME, subject=ADA)
    (reason,) = team.standing().reasons
    assert reason.rule == "governance.approval"
    assert reason.measured == "1 of 2"
    assert f"{ADA} had a hand in it" in reason.message
    assert f"other than service:ci, ann, {ADA} in" in reason.message


def test_who_says_that_a_name_is_a_machines_is_taken_for_it_until_somebody_else_says_so() -> None:
    team = Team().built(by("noreply@forge.example"))
    accepted(team.story.approve(V1, actor=KIM))
    team.do(KIM, NameAlias, alias="noreply@forge.example", subject="service:forge")
    assert team.standing().standing == ()
    assert "alone says who noreply@forge.example is" in refused(team.story.approve(V1, actor=KIM))
    assert team.do(KIM, NameAlias, alias="noreply@forge.example", subject="service:forge").events == ()
    assert team.standing().standing == ()
    team.do("ann", NameAlias, alias="noreply@forge.example", subject="service:forge")
    assert team.standing().standing == (KIM,)


def test_nobody_takes_off_his_own_name_and_a_machine_says_nothing_of_names() -> None:
    team = Team().built(by(HOME))
    team.do(KIM, NameAlias, alias=HOME, subject=ADA)
    assert rules_of(team.told(ADA, RemoveAlias, alias=HOME, subject=ADA)) == [DUTIES]
    assert rules_of(team.told(CI, RemoveAlias, alias=HOME, subject=ADA)) == ["access.persons-only"]
    assert rules_of(team.told(CI, NameAlias, alias=HOME, subject=BOB)) == ["access.persons-only"]
    assert rules_of(team.told(KIM, NameAlias, alias=HOME, subject="group:all")) == ["access.alias-of-group"]
    assert rules_of(team.told(KIM, RemoveAlias, alias=HOME, subject=BOB)) == ["access.alias-unknown"]
    # Somebody else's name beside it frees nobody.
    team.do(ADA, NameAlias, alias=HOME, subject=BOB)
    assert rules_of(team.story.approve(V1, actor=ADA)) == [DUTIES]
    team.do(KIM, RemoveAlias, alias=HOME, subject=ADA, reason="a mistake")
    team.do(KIM, RemoveAlias, alias=HOME, subject=BOB)
    assert team.hub("ann").ask(ListAccess()).aliases == ()
    accepted(team.story.approve(V1, actor=ADA))


def test_an_alias_is_nobodys_to_name_twice() -> None:
    team = Team()
    for _ in range(2):
        team.do(KIM, NameAlias, alias=HOME, subject=ADA)
    team.do("ann", NameAlias, alias=HOME, subject=ADA)
    (known,) = team.hub("ann").ask(ListAccess(subject=ADA)).aliases
    assert [(one.subject, one.vouchers) for one in known.behind] == [(ADA, (KIM, "ann"))]
    assert team.told("rita", NameAlias, alias=HOME, subject=ADA).events == ()


def test_where_makers_have_to_be_known_a_stranger_among_them_stops_it_with_what_to_type() -> None:
    team = Team(strict()).built(by(HOME))
    for receipt in (team.story.approve(V1, actor=BOB), team.story.promote(V1, "prod")):
        assert UNKNOWN in rules_of(receipt)
    (reason,) = [one for one in team.standing().reasons if one.rule == UNKNOWN]
    assert HOME in reason.message
    assert f"lockgate access alias {HOME} PERSON" in (reason.remedy or "")
    assert team.standing().next == "stop"
    team.do("ann", NameAlias, alias=HOME, subject=ADA)
    accepted(team.story.approve(V1, actor=BOB))
    accepted(team.story.promote(V1, "prod"))


def test_where_they_need_not_be_known_a_stranger_is_shown() -> None:
    team = Team().built(by(HOME))
    lines = team.standing().makers
    assert [(one.name, one.known) for one in lines] == [(CI, True), ("ann", True), (HOME, False)]
    assert maker_texts(lines) == [
        f"{CI} (registered)",
        "ann (ran)",
        f"{HOME} = nobody known (committed 3f2a91c)",
    ]
    accepted(team.story.approve(V1, actor=BOB))
    accepted(team.story.promote(V1, "prod"))


def test_who_gives_a_stranger_a_role_does_not_make_him_known_to_himself() -> None:
    team = Team(strict()).built(by("kim@home.example"))
    team.do(KIM, GrantRole, subject="kim@home.example", role="viewer")
    assert "alone says who" in refused(team.story.approve(V1, actor=KIM))
    accepted(team.story.approve(V1, actor=BOB))


@pytest.mark.parametrize("told_since", [None, "1.0.0"])
def test_what_was_not_in_the_checkout_stops_it_where_makers_have_to_be_known(told_since: str | None) -> None:
    team = Team(strict()).built(by(ADA), told_since=told_since)
    (reason,) = [one for one in team.standing().reasons if one.rule == UNKNOWN]
    assert "fetch-depth: 0" in (reason.remedy or "")
    # Whoever tells the rest counts as a maker.
    team.do(BOB, NameMakers, version=V1, people=(by(KIM, "named", ""),), told_since="")
    assert UNKNOWN not in [one.rule for one in team.standing().reasons]
    for actor in (ADA, BOB, KIM):
        assert rules_of(team.story.approve(V1, actor=actor)) == [DUTIES]
    accepted(team.story.approve(V1, actor="rita"))


def test_what_is_live_was_let_in_so_makers_are_told_since_then() -> None:
    team = Team(strict()).built(by(ADA))
    accepted(team.story.approve(V1, actor=BOB))
    accepted(team.story.promote(V1, "prod"))
    accepted(team.story.confirm("prod"))
    team.built(by(BOB), name="two", version=V2, told_since="1.0.0")
    assert rules_of(team.story.approve(V2, actor=BOB)) == [DUTIES]
    accepted(team.story.approve(V2, actor=ADA))
    accepted(team.story.promote(V2, "prod"))


def test_a_machine_alone_made_nothing_that_has_to_have_known_makers() -> None:
    team = Team(strict())
    accepted(team.story.register("one", author=CI, told_since=""))
    messages = [one.message for one in team.standing().reasons if one.rule == UNKNOWN]
    assert messages == [f"no person is known to have made {V1}"]


def test_makers_judge_validate_waive_and_sign_off_nothing_of_theirs() -> None:
    team = Team(policy(rest={"sign_off": ("production",)})).built(by(ADA))
    story = team.story
    receipt = story.do(ADA, story.judging(V1, named_digest("package", "one"), turn=2))
    assert rules_of(receipt) == [DUTIES]
    assert rules_of(team.told(ADA, ValidateVersion, version=V1)) == [DUTIES]
    assert rules_of(team.told(ADA, SignOff, version=V1, environment="prod", consumer="app")) == [DUTIES]
    for versions in ("1.0.0", "1.0.*"):
        team.do(
            "olga",
            RequestWaiver,
            model=MODEL_NAME,
            versions=versions,
            environment="prod",
            gate=RELATIVE_GATE,
            reason="r",
            control="c",
            ticket="T-1",
            until=team.world.clock.now() + 86_400_000_000,
        )
    waiver = {"model": MODEL_NAME, "environment": "prod"}
    assert rules_of(team.told(ADA, GrantWaiver, number=1, role="risk", **waiver)) == [DUTIES]
    # A range may hold others' versions; over his own it does not count.
    team.do(ADA, GrantWaiver, number=2, role="risk", **waiver)
    accepted(story.judge_for(V1, "prod", verdict="fail", turn=3))
    assert team.standing().waived == ()
    team.do("rita", GrantWaiver, number=1, role="risk", **waiver)
    assert [one.waiver for one in team.standing().waived] == ["W-1"]


def test_an_approval_does_not_count_once_its_giver_has_recorded_the_evidence_himself() -> None:
    """Else who may judge and approve keeps both fresh, alone, on what another had found once."""
    team = Team().built(by(BOB))
    accepted(team.story.approve(V1, actor=ADA))
    assert team.standing().standing == (ADA,)
    team.world.clock.advance(days=2)
    started = team.story.start_judging(V1)
    accepted(team.story.do(ADA, started))
    package = named_digest("package", "one")
    accepted(team.story.do(ADA, team.story.judging(V1, package, judging=started.id)))
    assert team.standing().standing == ()
    (reason,) = [one for one in team.standing().reasons if one.rule == "governance.approval"]
    assert f"; {ADA} recorded the evidence" in reason.message
    assert rules_of(team.story.promote(V1, "prod")) == ["governance.approval"]
    accepted(team.story.approve(V1, actor=KIM))
    assert accepted(team.story.promote(V1, "prod")).events[0]["approved_by"] == [KIM]


def test_nobody_grants_what_a_job_of_his_own_asked_for() -> None:
    team = Team().built(by(BOB))
    accepted(team.story.judge_for(V1, "prod", verdict="fail", turn=2))
    team.started_by = (HOME, "gitlab:kim")
    team.do(
        CI,
        RequestWaiver,
        model=MODEL_NAME,
        versions="1.0.*",
        environment="prod",
        gate=RELATIVE_GATE,
        reason="r",
        control="c",
        ticket="T-1",
        until=team.world.clock.now() + 86_400_000_000,
    )
    waiver = {"model": MODEL_NAME, "environment": "prod", "number": 1, "role": "owner"}
    team.do(KIM, NameAlias, alias=HOME, subject=ADA)
    receipt = team.told(ADA, GrantWaiver, **waiver)
    assert rules_of(receipt) == [DUTIES]
    assert refused(receipt) == f"{ADA} started the job that asked for it and cannot grant W-1"
    receipt = team.told(KIM, GrantWaiver, **waiver)
    assert rules_of(receipt) == [DUTIES], "she alone says whose job it was"
    team.do("rita", GrantWaiver, **waiver)
    assert [one.waiver for one in team.standing().waived] == ["W-1"]


def test_a_sign_off_by_somebody_who_turns_out_to_be_a_maker_no_longer_counts() -> None:
    team = Team(policy(rest={"sign_off": ("production",)})).built(by(BOB))
    accepted(team.story.approve(V1, actor=ADA))
    accepted(team.story.promote(V1, "prod"))
    accepted(team.story.confirm("prod"))
    major: Bump = "major"
    team.world.bumps[named_digest("package", "two")] = major
    two = f"{MODEL_NAME}@2.0.0"
    team.built(by(HOME), name="two", version=two)
    team.do(ADA, SignOff, version=two, environment="prod", consumer="app")
    assert "governance.sign-off" not in [one.rule for one in team.standing(two).reasons]
    team.do(KIM, NameAlias, alias=HOME, subject=ADA)
    assert "governance.sign-off" in [one.rule for one in team.standing(two).reasons]


def test_the_second_person_of_an_emergency_brings_in_nothing_of_his_own() -> None:
    team = Team().built(by(ADA))
    glass = {"model": MODEL_NAME, "environment": "prod"}
    for number, second in enumerate((ADA, BOB), start=1):
        team.do("ivy", BreakGlass, incident="I-1", reason="wrong answers", hours=1.0, **glass)
        team.do(second, SecondBreakGlass, number=number, **glass)
    release = {"version": V1, "environment": "prod"}
    receipt = team.told("ivy", ReleaseInEmergency, number=1, **release)
    assert rules_of(receipt) == [DUTIES]
    assert refused(receipt).startswith(f"{ADA} committed 3f2a91c and cannot be the second person")
    team.do("ivy", ReleaseInEmergency, number=2, **release)


def test_nobody_reviews_that_his_own_version_went_past_the_policy() -> None:
    team = Team().built(by(ADA), by(HOME))
    glass = {"model": MODEL_NAME, "environment": "prod"}
    team.do("ivy", BreakGlass, incident="I-1", reason="wrong answers", hours=1.0, **glass)
    team.do(KIM, SecondBreakGlass, number=1, **glass)
    team.do("ivy", ReleaseInEmergency, number=1, version=V1, environment="prod")
    closing = {"number": 1, "finding": "was needed", **glass}
    receipt = team.told(ADA, CloseReview, **closing)
    assert rules_of(receipt) == [DUTIES]
    assert refused(receipt) == f"{ADA} committed 3f2a91c and cannot review B-1, which let it in"
    team.do(KIM, NameAlias, alias=HOME, subject=BOB)
    assert rules_of(team.told(BOB, CloseReview, **closing)) == [DUTIES]
    team.do("rita", CloseReview, **closing)


def test_whoever_made_nothing_that_went_out_reviews_an_emergency() -> None:
    team = Team().built(by(ADA))
    glass = {"model": MODEL_NAME, "environment": "prod"}
    for number in (1, 2):
        team.do("ivy", BreakGlass, incident="I-1", reason="wrong answers", hours=1.0, **glass)
        team.do(KIM, SecondBreakGlass, number=number, **glass)
    team.do("ivy", ReleaseInEmergency, number=2, version=V1, environment="prod")
    team.do(ADA, CloseReview, number=1, finding="was never used", **glass)
    assert rules_of(team.told(ADA, CloseReview, number=2, finding="fine", **glass)) == [DUTIES]


def test_nobody_lets_his_own_version_out_of_quarantine() -> None:
    team = Team().built(by(ADA), by(HOME))
    team.do("sam", QuarantineVersion, version=V1, reason="odd")
    team.world.clock.advance(seconds=1)
    accepted(team.story.judge(V1, turn=1))
    lifting = {"version": V1, "reason": "no leak"}
    receipt = team.told(ADA, LiftQuarantine, **lifting)
    assert rules_of(receipt) == [DUTIES]
    assert refused(receipt) == f"{ADA} committed 3f2a91c and cannot let it out of quarantine"
    team.do(BOB, LiftQuarantine, **lifting)
    # Who turns out to be a maker has proposed nothing.
    team.do(KIM, NameAlias, alias=HOME, subject=BOB)
    (proposed,) = team.do("sue", LiftQuarantine, **lifting).events
    assert proposed["type"] == "registry.lowering-proposed/1"
    assert rules_of(team.told(BOB, LiftQuarantine, **lifting)) == [DUTIES]
    agreed, lifted = team.do("sid", LiftQuarantine, **lifting).events
    assert (agreed["proposed_by"], lifted["type"]) == ("sue", "registry.quarantine-lifted/1")


def test_who_alone_says_whose_an_address_is_does_not_let_it_out_where_makers_are_to_be_known() -> None:
    team = Team(strict(), known=()).built(by(HOME))
    team.do(ADA, GrantRole, subject=HOME, role="viewer")
    team.do("sam", QuarantineVersion, version=V1, reason="odd")
    team.world.clock.advance(seconds=1)
    accepted(team.story.judge(V1, turn=1))
    lifting = {"version": V1, "reason": "no leak"}
    receipt = team.told(ADA, LiftQuarantine, **lifting)
    assert rules_of(receipt) == [DUTIES]
    assert refused(receipt).startswith(f"{ADA} alone says who {HOME} is")
    team.do(BOB, LiftQuarantine, **lifting)


def test_what_is_said_of_makers_is_looked_at() -> None:
    team = Team()
    team.story.train("one")

    def told(*people: CommitPerson) -> list[str]:
        return rules_of(team.story.register("one", author=CI, people=people))

    assert told(by("service:ci")) == ["registry.maker-unreadable"]
    assert told(by("Ada@Example.org")) == ["registry.maker-unreadable"]
    assert told(by(ADA, commit="no commit")) == ["registry.maker-unreadable"]
    assert told(*(by(f"{number}@example.org") for number in range(201))) == ["registry.too-many-makers"]
    assert told(by(ADA)) == []
    assert team.do(CI, NameMakers, version=V1, people=()).events == ()
    receipt = team.told(CI, NameMakers, version=V1, people=(by("a b"),))
    assert rules_of(receipt) == ["registry.maker-unreadable"]


def test_a_version_never_has_more_makers_than_anybody_looks_at() -> None:
    team = Team().built(*(by(f"{number}@example.org") for number in range(200)))
    more = tuple(by(f"{number}@example.com") for number in range(198))
    assert rules_of(team.told(CI, NameMakers, version=V1, people=more)) == ["registry.too-many-makers"]
    team.do(CI, NameMakers, version=V1, people=more[:196])


def test_where_names_are_only_claimed_commits_count_and_nobody_has_to_be_known() -> None:
    world = HubWorld.in_memory()
    story = Story(world.hub)
    story.found(policy=strict())
    story.train("one")
    accepted(story.register("one", people=(by(ADA), by(HOME))))
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    accepted(story.judge_for(V1, "prod"))
    assert rules_of(story.approve(V1, actor=ADA)) == [DUTIES]
    accepted(story.approve(V1, actor=BOB))
    accepted(story.promote(V1, "prod"))
    assert world.ask(VerifyAudit()).ok
