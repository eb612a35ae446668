"""Roles and tokens through the one door: who becomes what, when, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from lockgate.access.decide import DAY, meets
from lockgate.access.messages import (
    AddFederationRule,
    ConfirmGrant,
    CreateServiceAccount,
    ExchangeToken,
    GiveUpToken,
    GrantRole,
    IssueServiceToken,
    IssueToken,
    NameFirstAdmin,
    RemoveFederationRule,
    RevokeRole,
    RevokeToken,
)
from lockgate.access.roles import Grant, UnknownRole, holders, way_to
from lockgate.access.state import FEDERATION, SUBJECT, TOKEN, SubjectState, in_force
from lockgate.access.subjects import check_subject
from lockgate.access.tokens import Token, is_valid, parse_token, secret_hash
from lockgate.core.errors import Invalid
from lockgate.core.messages import Command, Receipt, Scope
from lockgate.hub.authority import Session, controller
from lockgate.hub.kernel import LocalHub, NotAllowed
from lockgate.hub.messages import ListAccess, OwnAccess, Status, VerifyAudit
from lockgate.hub.questions import Questions
from lockgate.registry.messages import DeclareModel
from lockgate.testing.clock import FakeClock
from lockgate.testing.memory_journal import MemoryJournal, MemoryOutbox

ANN, BOB, EVE = "ann@example.org", "bob@example.org", "eve@example.org"
ID, OTHER = "lgt_" + "a" * 20, "lgt_" + "b" * 20
SECRET = "s" * 43


class Team:
    """A hub whose sessions hold exactly what the journal gives them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.journal = MemoryJournal()
        self.questions = Questions(self.journal, MemoryOutbox(self.journal.store), self.clock)
        self.n = 0

    def session(self, actor: str, *groups: str, credential: str = "oidc:x") -> Session:
        subjects = [self.subject(actor), *(self.subject(f"group:{name}") for name in groups)]
        return Session(
            actor=actor,
            grants=in_force(subjects, self.clock.now()),
            claimed=False,
            kind="service" if actor.startswith("service:") else "person",
            credential=credential,
            groups=groups,
        )

    def subject(self, name: str) -> SubjectState | None:
        stored = self.journal.document(SUBJECT.name, name)
        return None if stored is None else msgspec.json.decode(stored.body, type=SubjectState)

    def hub(self, session: Session) -> LocalHub:
        return LocalHub(self.journal, self.clock, session, answer=self.questions)

    def do(self, who: str | Session, kind: type[Command], **fields: Any) -> Receipt:
        self.n += 1
        session = who if isinstance(who, Session) else self.session(who)
        return self.hub(session).execute(kind(id=f"c{self.n}", **fields))

    def ok(self, who: str | Session, kind: type[Command], **fields: Any) -> Receipt:
        receipt = self.do(who, kind, **fields)
        assert receipt.refusal is None, receipt.refusal
        return receipt

    def rules(self, who: str | Session, kind: type[Command], **fields: Any) -> set[str]:
        refusal = self.do(who, kind, **fields).refusal
        assert refusal is not None
        return {reason.rule for reason in refusal.reasons}

    def roles(self, actor: str, *groups: str) -> set[str]:
        return set(self.session(actor, *groups).roles)

    def token(self, subject: str, token: str = ID, days: int = 1) -> dict[str, Any]:
        return {
            "subject": subject,
            "token": token,
            "secret_sha256": secret_hash(SECRET),
            "expires_at": self.clock.now() + days * DAY,
        }


@pytest.fixture
def team() -> Iterator[Team]:
    """Ann is the first admin, Bob the second. Whatever happened, the journal holds afterwards."""
    team = Team()
    team.ok(controller(), NameFirstAdmin, subject=ANN)
    team.ok(ANN, GrantRole, subject=BOB, role="admin")
    yield team
    assert team.questions(VerifyAudit()).ok


def test_nobody_has_a_role_by_default_not_even_to_read(team: Team) -> None:
    assert team.roles(EVE) == set()
    with pytest.raises(NotAllowed, match="may not"):
        team.hub(team.session(EVE)).ask(Status())
    assert team.rules(EVE, GrantRole, subject=EVE, role="viewer") == {"hub.permission"}


def test_whoever_makes_something_gets_no_right_over_it(team: Team) -> None:
    before = team.session(ANN).grants
    team.ok(ANN, DeclareModel, model="main/x", tier="low", owner=ANN, purpose="p")
    team.ok(ANN, CreateServiceAccount, name="ci", purpose="builds")
    assert team.session(ANN).grants == before
    account = team.subject("service:ci")
    assert account is not None
    assert account.grants == ()


def test_what_an_admin_gives_another_counts_at_once_and_ends_at_once(team: Team) -> None:
    team.ok(ANN, GrantRole, subject=EVE, role="viewer", namespace="fraud", environments=("prod",))
    assert team.session(EVE).grants == (Grant(role="viewer", namespace="fraud", environments=("prod",)),)
    team.ok(ANN, RevokeRole, subject=EVE, role="viewer", namespace="fraud", reason="left\nus")
    assert team.roles(EVE) == set()
    assert team.rules(ANN, RevokeRole, subject=EVE, role="viewer", namespace="fraud") == {"access.not-held"}


def test_the_same_grant_twice_is_one(team: Team) -> None:
    team.ok(ANN, GrantRole, subject=EVE, role="viewer")
    assert team.ok(BOB, GrantRole, subject=EVE, role="viewer").events == ()


def test_what_an_admin_gives_himself_counts_after_a_day(team: Team) -> None:
    team.ok(ANN, GrantRole, subject=ANN, role="operator")
    assert team.roles(ANN) == {"admin"}
    assert team.ok(ANN, GrantRole, subject=ANN, role="operator").events == ()
    team.clock.advance(days=1, seconds=-10)
    assert team.roles(ANN) == {"admin"}
    team.clock.advance(seconds=20)
    assert team.roles(ANN) == {"admin", "operator"}


def test_or_when_a_second_admin_confirms_it(team: Team) -> None:
    team.ok(ANN, GrantRole, subject=ANN, role="operator")
    asked = {"subject": ANN, "role": "operator"}
    assert team.rules(ANN, ConfirmGrant, **asked) == {"access.second-admin"}
    assert team.rules(BOB, ConfirmGrant, subject=ANN, role="auditor") == {"access.not-held"}
    team.ok(BOB, ConfirmGrant, **asked)
    assert team.roles(ANN) == {"admin", "operator"}
    assert team.ok(BOB, ConfirmGrant, **asked).events == ()


def test_or_when_a_second_admin_gives_it_as_well(team: Team) -> None:
    team.ok(ANN, GrantRole, subject=ANN, role="operator")
    team.ok(BOB, GrantRole, subject=ANN, role="operator")
    assert team.roles(ANN) == {"admin", "operator"}


def test_a_group_that_the_admin_is_in_is_himself(team: Team) -> None:
    ann = team.session(ANN, "oncall")
    team.ok(ann, GrantRole, subject="group:oncall", role="operator")
    assert team.roles(ANN, "oncall") == {"admin"}
    team.ok(ann, GrantRole, subject="group:risk", role="approver:risk")
    assert team.roles(EVE, "risk") == {"approver:risk"}
    assert team.rules(ann, ConfirmGrant, subject="group:oncall", role="operator") == {"access.second-admin"}
    team.ok(BOB, ConfirmGrant, subject="group:oncall", role="operator")
    assert team.roles(ANN, "oncall") == {"admin", "operator"}


def test_with_a_token_nobody_knows_which_groups_the_admin_is_in(team: Team) -> None:
    by_token = team.session(ANN, credential=f"token:{ID}")
    team.ok(by_token, GrantRole, subject="group:oncall", role="operator")
    assert team.roles(ANN, "oncall") == {"admin"}
    team.ok(by_token, GrantRole, subject=EVE, role="operator")
    assert team.roles(EVE) == {"operator"}


def test_a_grant_ends_when_it_was_given_to_end(team: Team) -> None:
    team.ok(ANN, GrantRole, subject=EVE, role="incident", until=team.clock.now() + DAY)
    assert team.roles(EVE) == {"incident"}
    team.clock.advance(days=1)
    assert team.roles(EVE) == set()
    assert team.rules(ANN, GrantRole, subject=EVE, role="incident", until=1) == {"access.until-passed"}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"subject": EVE, "role": "controller"}, "access.not-grantable"),
        ({"subject": EVE, "role": "admin", "tiers": ("low",)}, "access.unbounded-role"),
        ({"subject": EVE, "role": "admin", "environments": ("dev",)}, "access.unbounded-role"),
        ({"subject": EVE, "role": "viewer", "tiers": ("lo",)}, "access.unknown-tier"),
        ({"subject": "service:ci", "role": "viewer"}, "access.account-unknown"),
        ({"subject": "service:fraud-ci", "role": "admin", "namespace": "fraud"}, "access.persons-only"),
        (
            {"subject": "service:fraud-ci", "role": "approver:risk", "namespace": "fraud"},
            "access.persons-only",
        ),
        ({"subject": "service:fraud-ci", "role": "ci"}, "access.outside-account"),
        ({"subject": "service:fraud-ci", "role": "ci", "namespace": "main"}, "access.outside-account"),
    ],
)
def test_what_may_not_be_given_is_refused(team: Team, fields: dict[str, Any], rule: str) -> None:
    team.ok(ANN, CreateServiceAccount, name="fraud-ci", purpose="builds", namespace="fraud")
    assert team.rules(ANN, GrantRole, **fields) == {rule}


def test_an_unknown_role_is_answered_with_its_near_matches(team: Team) -> None:
    with pytest.raises(UnknownRole) as caught:
        team.do(ANN, GrantRole, subject=EVE, role="operatr")
    assert "operator" in caught.value.remedy


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "service:",
        "service:A",
        "group:",
        "x:y",
        "Ann@example.org",
        "a*",
        "lockgate-hub",
        "group: a",
    ],
)
def test_what_could_pass_for_somebody_else_is_no_subject(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_subject(name)
    assert caught.value.code in ("access.bad-subject", "core.bad-name")


def test_an_admin_of_a_namespace_gives_roles_there_and_nowhere_else(team: Team) -> None:
    team.ok(ANN, GrantRole, subject=EVE, role="admin", namespace="fraud")
    team.ok(EVE, GrantRole, subject="kim", role="operator", namespace="fraud")
    for namespace in ("*", "main"):
        assert team.rules(EVE, GrantRole, subject="kim", role="operator", namespace=namespace) == {
            "hub.permission"
        }
    assert team.rules(EVE, RevokeRole, subject=ANN, role="admin") == {"hub.permission"}
    assert team.rules(EVE, CreateServiceAccount, name="all", purpose="p") == {"hub.permission"}
    team.ok(EVE, CreateServiceAccount, name="own", purpose="p", namespace="fraud")
    seen = team.hub(team.session(EVE)).ask(ListAccess())
    assert [one.subject for one in seen.subjects] == [EVE, "kim", "service:own"]


def test_the_configuration_names_an_admin_once(team: Team) -> None:
    assert team.ok(controller(), NameFirstAdmin, subject=ANN).events == ()
    team.ok(BOB, RevokeRole, subject=ANN, role="admin")
    assert team.rules(controller(), NameFirstAdmin, subject=ANN) == {"access.named-before"}
    team.ok(BOB, RevokeRole, subject=BOB, role="admin")
    # Nobody is left to give the role, and whoever holds the configuration holds the machine.
    team.ok(controller(), NameFirstAdmin, subject=ANN)
    assert team.roles(ANN) == {"admin"}


def test_a_token_of_ones_own(team: Team) -> None:
    team.ok(ANN, GrantRole, subject=EVE, role="operator")
    team.ok(EVE, IssueToken, **team.token(EVE), grants=(Grant(role="viewer"),), label="notebook")
    known = msgspec.json.decode(team.journal.document(TOKEN.name, ID).body, type=TOKEN.type)  # type: ignore[union-attr]
    assert is_valid(Token(ID, SECRET), known, team.clock.now())
    assert not is_valid(Token(ID, "t" * 43), known, team.clock.now())
    assert not is_valid(Token(ID, SECRET), None, team.clock.now())
    assert not is_valid(Token(ID, SECRET), known, known.expires_at)
    (line,) = team.hub(team.session(EVE)).ask(OwnAccess()).tokens
    assert (line.token, line.state, line.label) == (ID, "active", "notebook")
    team.ok(EVE, GiveUpToken, token=ID)
    assert team.ok(EVE, GiveUpToken, token=ID).events == ()
    known = msgspec.json.decode(team.journal.document(TOKEN.name, ID).body, type=TOKEN.type)  # type: ignore[union-attr]
    assert not is_valid(Token(ID, SECRET), known, team.clock.now())


def test_the_secret_is_in_no_event_and_no_document(team: Team) -> None:
    team.ok(ANN, IssueToken, **team.token(ANN))
    stored = b"".join(entry.body for entry in team.journal.entries(0, 1000))
    stored += b"".join(one.body for kind in (SUBJECT, TOKEN) for one in team.journal.documents(kind.name))
    assert SECRET.encode() not in stored
    assert SECRET not in repr(Token(ID, SECRET))


def test_a_token_gives_no_more_than_its_maker_has(team: Team) -> None:
    team.ok(ANN, GrantRole, subject=EVE, role="viewer", namespace="fraud")
    issue = team.token(EVE)
    assert team.rules(EVE, IssueToken, **issue, grants=(Grant(role="viewer"),)) == {"access.beyond-own"}
    assert team.rules(EVE, IssueToken, **issue, grants=(Grant(role="operator", namespace="fraud"),)) == {
        "access.beyond-own"
    }
    assert team.rules(EVE, IssueToken, **(issue | {"subject": ANN})) == {"access.not-oneself"}
    by_token = team.session(EVE, credential=f"token:{OTHER}")
    assert team.rules(by_token, IssueToken, **issue) == {"access.token-by-token"}
    team.ok(ANN, GrantRole, subject="group:risk", role="viewer")
    assert team.rules(team.session("kim", "risk"), IssueToken, **team.token("kim")) == {
        "access.nothing-of-ones-own"
    }


@pytest.mark.parametrize("days", [-1, 0, 91])
def test_a_token_must_end_in_time(team: Team, days: int) -> None:
    assert team.rules(ANN, IssueToken, **team.token(ANN, days=days)) == {"access.token-expiry"}


def test_a_token_is_made_of_an_id_and_a_hash_and_once(team: Team) -> None:
    bad = team.token(ANN) | {"token": "mine"}
    assert team.rules(ANN, IssueToken, **bad) == {"access.token-malformed"}
    bad = team.token(ANN) | {"secret_sha256": SECRET}
    assert team.rules(ANN, IssueToken, **bad) == {"access.token-malformed"}
    team.ok(ANN, IssueToken, **team.token(ANN))
    assert team.rules(ANN, IssueToken, **team.token(ANN)) == {"access.token-exists"}


def test_only_who_may_revoke_revokes_anothers_token(team: Team) -> None:
    team.ok(ANN, IssueToken, **team.token(ANN))
    team.ok(ANN, GrantRole, subject=EVE, role="operator")
    assert team.rules(EVE, GiveUpToken, token=ID) == {"access.token-unknown"}
    assert team.rules(EVE, RevokeToken, token=ID) == {"hub.permission"}
    team.ok(ANN, GrantRole, subject="kim", role="security")
    assert team.rules("kim", RevokeToken, token=OTHER) == {"access.token-unknown"}
    assert team.rules("kim", RevokeToken, token=ID, namespace="fraud") == {"access.other-namespace"}
    team.ok("kim", RevokeToken, token=ID, reason="leaked")


def account(team: Team, *, giver: str, role: str = "ci") -> str:
    team.ok(giver, CreateServiceAccount, name="ci", purpose="builds")
    team.ok(giver, GrantRole, subject="service:ci", role=role, environments=("dev",))
    return "service:ci"


def test_nobody_takes_the_token_of_an_account_that_he_gave_its_role(team: Team) -> None:
    """Giving an account a role and acting as it would be giving it to oneself."""
    ci = account(team, giver=ANN)
    assert team.rules(ANN, IssueServiceToken, **team.token(ci)) == {"access.own-gift"}
    assert team.rules(ANN, AddFederationRule, **RULE) == {"access.own-gift"}
    team.ok(BOB, ConfirmGrant, subject=ci, role="ci")
    team.ok(ANN, IssueServiceToken, **team.token(ci))


def test_the_grant_that_a_second_admin_confirms_is_named_as_he_types_it(team: Team) -> None:
    team.ok(ANN, CreateServiceAccount, name="ci", purpose="builds", namespace="fraud")
    team.ok(ANN, GrantRole, subject="service:ci", role="ci", namespace="fraud", environments=("dev",))
    refusal = team.do(ANN, AddFederationRule, **{**RULE, "namespace": "fraud"}).refusal
    assert refusal is not None
    (reason,) = refusal.reasons
    assert "lockgate access confirm service:ci ci --namespace fraud;" in (reason.remedy or "")
    team.ok(BOB, ConfirmGrant, subject="service:ci", role="ci", namespace="fraud")
    team.ok(ANN, AddFederationRule, **{**RULE, "namespace": "fraud"})


def test_the_role_that_is_proposed_is_one_that_can_be_given() -> None:
    prod = Scope(namespace="fraud", model="scoring", environment="prod")
    promoting = holders("delivery.promote")
    assert "grant ivy@example.org operator --namespace fraud --env prod" in way_to(
        "ivy@example.org", "person", promoting, prod
    )
    assert "grant service:ci ci --namespace fraud --env prod" in way_to(
        "service:ci", "service", promoting, prod
    )
    # Who gives roles gives them for every environment.
    proposed = way_to("ivy@example.org", "person", holders("delivery.declare"), prod)
    assert proposed.endswith("grant ivy@example.org admin --namespace fraud")


def test_nor_gives_an_account_a_role_whose_token_he_has(team: Team) -> None:
    team.ok(ANN, CreateServiceAccount, name="ci", purpose="builds")
    team.ok(ANN, IssueServiceToken, **team.token("service:ci"))
    team.ok(ANN, GrantRole, subject="service:ci", role="operator")
    assert team.roles("service:ci") == set()
    team.ok(ANN, GrantRole, subject="service:ci", role="author")
    assert team.roles("service:ci") == {"author"}
    team.ok(ANN, RevokeToken, token=ID)
    team.ok(ANN, GrantRole, subject="service:ci", role="ci")
    assert team.roles("service:ci") == {"author", "ci"}


def test_another_admin_takes_it_at_once_and_the_same_one_after_a_day(team: Team) -> None:
    ci = account(team, giver=ANN)
    team.ok(BOB, IssueServiceToken, **team.token(ci))
    team.clock.advance(days=1)
    team.ok(ANN, IssueServiceToken, **team.token(ci, OTHER))


def test_a_service_account_has_a_namespace_and_its_tokens_too(team: Team) -> None:
    team.ok(ANN, CreateServiceAccount, name="ci", purpose="builds", namespace="fraud")
    assert team.rules(ANN, IssueServiceToken, **team.token("service:ci")) == {"access.other-namespace"}
    team.ok(ANN, IssueServiceToken, **team.token("service:ci"), namespace="fraud")
    assert team.rules(ANN, IssueServiceToken, **team.token("service:no", OTHER)) == {"access.account-unknown"}
    assert team.rules(ANN, IssueServiceToken, **team.token(BOB, OTHER)) == {"access.account-unknown"}
    assert team.rules(ANN, CreateServiceAccount, name="ci", purpose="other") == {"access.account-exists"}


CLAIMS = {"repository": "acme/fraud", "ref": "refs/tags/v1", "workflow": "release", "sub": "x", "jti": "1"}
RULE: dict[str, Any] = {
    "name": "release",
    "issuer": "https://ci.example.org",
    "claims": {"repository": "acme/fraud", "ref": "refs/tags/*"},
    "subject": "service:ci",
}


def exchange(**fields: Any) -> dict[str, Any]:
    return {
        "rule": "release",
        "issuer": "https://ci.example.org",
        "claims": CLAIMS,
        "token": ID,
        "secret_sha256": secret_hash(SECRET),
        **fields,
    }


def test_a_job_gets_a_short_lived_token_by_its_claims_once(team: Team) -> None:
    account(team, giver=ANN)
    team.ok(BOB, AddFederationRule, **RULE, grants=(Grant(role="viewer"),))
    team.ok(controller(), ExchangeToken, **exchange())
    known = msgspec.json.decode(team.journal.document(TOKEN.name, ID).body, type=TOKEN.type)  # type: ignore[union-attr]
    assert known.subject == "service:ci"
    assert known.claims == {"repository": "acme/fraud", "ref": "refs/tags/v1"}
    assert known.expires_at - known.issued_at <= 3600 * 1_000_000
    assert known.grants == (Grant(role="viewer"),)
    assert team.rules(controller(), ExchangeToken, **exchange()) == {"access.exchanged-before"}


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "acme/other"},
        {"repository": "acme/fraud2"},
        {"ref": "refs/heads/main"},
        {"ref": ""},
    ],
)
def test_a_job_with_other_claims_gets_nothing(team: Team, change: dict[str, str]) -> None:
    account(team, giver=ANN)
    team.ok(BOB, AddFederationRule, **RULE)
    assert team.rules(controller(), ExchangeToken, **exchange(claims=CLAIMS | change)) == {
        "access.rule-unmet"
    }
    missing = {name: value for name, value in CLAIMS.items() if name not in change}
    assert team.rules(controller(), ExchangeToken, **exchange(claims=missing)) == {"access.rule-unmet"}


def test_a_rule_that_ended_lets_nobody_in(team: Team) -> None:
    account(team, giver=ANN)
    team.ok(BOB, AddFederationRule, **RULE)
    assert team.rules(BOB, AddFederationRule, **RULE) == {"access.rule-exists"}
    assert team.rules(controller(), ExchangeToken, **exchange(issuer="https://x")) == {"access.rule-unmet"}
    assert team.rules(controller(), ExchangeToken, **exchange(rule="no")) == {"access.rule-unmet"}
    team.ok(BOB, RemoveFederationRule, name="release")
    assert team.rules(BOB, RemoveFederationRule, name="release") == {"access.rule-unknown"}
    assert team.rules(controller(), ExchangeToken, **exchange()) == {"access.rule-unmet"}
    stored = team.journal.document(FEDERATION.name, "release")
    assert stored is not None
    assert stored.state == "removed"


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"ref": "refs/heads/main"},
        {"repository": "acme/*"},
        {"repository": "*", "ref": "x"},
        {"repository": ""},
        {"repository": "acme/fraud", "ref": "*"},
        {"repository": "acme/fraud", "ref": "refs/*/x"},
        {"repository": "acme/fraud", "sub": "repo:*"},
    ],
)
def test_a_rule_says_whose_jobs_it_means(team: Team, claims: dict[str, str]) -> None:
    team.ok(ANN, CreateServiceAccount, name="ci", purpose="builds")
    assert team.rules(BOB, AddFederationRule, **(RULE | {"claims": claims})) == {"access.rule-too-wide"}


@pytest.mark.parametrize("lifetime", [0, 59, 3601])
def test_a_jobs_token_lives_for_an_hour_at_most(team: Team, lifetime: int) -> None:
    team.ok(ANN, CreateServiceAccount, name="ci", purpose="builds")
    assert team.rules(BOB, AddFederationRule, **RULE, lifetime_s=lifetime) == {"access.rule-lifetime"}


def test_claims_meet_nothing_when_nothing_is_wanted() -> None:
    assert not meets(CLAIMS, {})
    assert meets(CLAIMS, {"workflow": "release"})


@pytest.mark.parametrize(
    "text", ["", "lgt_a.b", ID, f"{ID}.", f"{ID}.{SECRET}x", f"{ID}.{SECRET} ", f"X{ID}.{SECRET}"]
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert parse_token(text) is None
    assert parse_token(f"{ID}.{SECRET}") == Token(ID, SECRET)
