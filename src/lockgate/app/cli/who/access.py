"""Verbs about who may do what: access and token."""

from __future__ import annotations

import click

from lockgate.access.messages import (
    AddFederationRule,
    ConfirmGrant,
    CreateServiceAccount,
    GiveUpToken,
    GrantRole,
    IssueServiceToken,
    IssueToken,
    NameAlias,
    RemoveAlias,
    RemoveFederationRule,
    RevokeRole,
    RevokeToken,
)
from lockgate.access.roles import ANY, TIERS, Grant
from lockgate.access.subjects import is_service
from lockgate.access.tokens import secret_hash
from lockgate.app.cli.session import Session, verb
from lockgate.app.cli.verbs.show import when
from lockgate.app.plugins import resolve
from lockgate.core.clock import Micros
from lockgate.core.errors import Invalid, NotFound, did_you_mean
from lockgate.hub.messages import AccessAnswer, ListAccess, OwnAccess, Status, StatusAnswer, TokenLine

_DAY: Micros = 24 * 3600 * 1_000_000
_NAMESPACE = click.option(
    "--namespace", default=ANY, metavar="NAME", help="Whose models; default: everything."
)
_TIERS = click.option(
    "--tier", "tiers", multiple=True, type=click.Choice(TIERS), help="Of models of this tier."
)
_ENVIRONMENTS = click.option(
    "--env", "environments", multiple=True, metavar="ENV", help="In this environment."
)
_ONLY = click.option("--only", multiple=True, metavar="ROLE", help="No more than this role.")


class ClaimUnreadable(Invalid):
    code = "cli.claim-unreadable"


class NoSuchToken(NotFound):
    code = "access.no-such-token"


def _now() -> Micros:
    now: Micros = resolve("lockgate.app.system:SystemClock")().now()
    return now


@click.group()
def access() -> None:
    """Who holds which role: give, confirm, take away, list."""


@verb
@click.argument("subject")
@click.argument("role")
@_NAMESPACE
@_TIERS
@_ENVIRONMENTS
@click.option("--days", type=click.IntRange(1), help="For so many days; default: until it is revoked.")
def grant(
    session: Session,
    subject: str,
    role: str,
    namespace: str,
    tiers: tuple[str, ...],
    environments: tuple[str, ...],
    days: int | None,
) -> None:
    """Give ROLE to SUBJECT: ann@example.org, service:ci or group:risk.

    Example: lockgate access grant group:risk approver:risk --namespace fraud --env prod
    """
    session.say_identity()
    command = GrantRole(
        id=session.new_id(),
        subject=subject,
        role=role,
        namespace=namespace,
        tiers=tiers,
        environments=environments,
        until=None if days is None else _now() + days * _DAY,
    )
    receipt = session.tell(command, headline=f"{subject} is not given {role}")
    beside = [one for one in _held(session, subject, role, namespace) if one != command.grant]
    waits = any(event.get("waits") for event in receipt.events)
    later = "; it counts in a day, or when another admin confirms it" if waits else ""
    session.answer(
        {"subject": subject, "grant": command.grant, "waits": waits, "beside": beside},
        f"{subject}: {command.grant.shown}{later}",
    )
    for one in beside:
        session.note(f"beside {one.shown}: grants add up; to narrow them, revoke first, which takes them all")
    _note_unknown(session, environments)


def _held(session: Session, subject: str, role: str, namespace: str) -> list[Grant]:
    """The grants of the role over the namespace, each for environments and tiers of its own."""
    known: AccessAnswer = session.ask(ListAccess(subject=subject))
    held = [one.grant for each in known.subjects for one in each.grants]
    return [one for one in held if (one.role, one.namespace) == (role, namespace)]


def _note_unknown(session: Session, environments: tuple[str, ...]) -> None:
    """An environment may be declared later; mostly its name was mistyped, and the role would be missed at night."""
    if environments:
        answer: StatusAnswer = session.ask(Status())
        known = {name.partition("/")[0] for name in answer.endpoints}
        for name in sorted(set(environments) - known):
            session.note(f"there is no endpoint in {name} so far; {did_you_mean(name, known)}")


@verb
@click.argument("subject")
@click.argument("role")
@_NAMESPACE
def confirm(session: Session, subject: str, role: str, namespace: str) -> None:
    """Agree, as a second admin, to what another one gave himself."""
    session.say_identity()
    session.tell(
        ConfirmGrant(id=session.new_id(), subject=subject, role=role, namespace=namespace),
        headline=f"{role} of {subject} is not confirmed",
    )
    session.answer({"subject": subject, "role": role}, f"{role} of {subject} counts")


@verb
@click.argument("subject")
@click.argument("role")
@_NAMESPACE
@click.option("--reason", default="", help="A word for the record.")
def revoke(session: Session, subject: str, role: str, namespace: str, reason: str) -> None:
    """Take ROLE from SUBJECT; it counts at once."""
    session.say_identity()
    session.tell(
        RevokeRole(id=session.new_id(), subject=subject, role=role, namespace=namespace, reason=reason),
        headline=f"{role} of {subject} is not revoked",
    )
    session.answer({"subject": subject, "role": role}, f"{subject} no longer holds {role}")


@verb
@click.argument("name")
@click.option("--purpose", required=True, help="What it is for.")
@_NAMESPACE
def create_account(session: Session, name: str, purpose: str, namespace: str) -> None:
    """Make a service account, service:NAME. It may do nothing until it is given a role."""
    session.say_identity()
    session.tell(
        CreateServiceAccount(id=session.new_id(), name=name, purpose=purpose, namespace=namespace),
        headline=f"service:{name} is not created",
    )
    session.answer({"subject": f"service:{name}"}, f"service:{name} is there; it has no role yet")


@verb
@click.argument("name")
@click.argument("account")
@click.option(
    "--issuer", required=True, metavar="URL", help="The CI system, as the hub's configuration names it."
)
@click.option("--claim", "claims", multiple=True, metavar="NAME=TEXT", help="What a job's token must say.")
@click.option("--lifetime", type=int, default=900, show_default=True, help="Of a job's token, in seconds.")
@_NAMESPACE
@_ONLY
@_ENVIRONMENTS
def federate(
    session: Session,
    name: str,
    account: str,
    issuer: str,
    claims: tuple[str, ...],
    lifetime: int,
    namespace: str,
    only: tuple[str, ...],
    environments: tuple[str, ...],
) -> None:
    """Let jobs of a CI system act as ACCOUNT, by what their identity token claims.

    Example: lockgate access federate release service:ci --issuer https://token.actions.githubusercontent.com
    --claim repository=acme/fraud --claim 'ref=refs/tags/*'
    """
    session.say_identity()
    wanted = dict(_claim(text) for text in claims)
    command = AddFederationRule(
        id=session.new_id(),
        name=name,
        issuer=issuer,
        claims=wanted,
        subject=account,
        namespace=namespace,
        grants=_grants(only, namespace, (), environments),
        lifetime_s=lifetime,
    )
    session.tell(command, headline=f"no jobs act as {account}")
    session.answer(
        {"rule": name, "subject": account, "claims": wanted},
        f"jobs with {', '.join(f'{claim}={text}' for claim, text in wanted.items())} act as {account}",
    )


def _claim(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ClaimUnreadable(f"{text!r} is no claim", remedy="write --claim NAME=TEXT", value=text)
    return name, value


@verb
@click.argument("name")
@_NAMESPACE
def unfederate(session: Session, name: str, namespace: str) -> None:
    """End a rule for CI jobs, and the tokens they had by it."""
    session.say_identity()
    session.tell(
        RemoveFederationRule(id=session.new_id(), name=name, namespace=namespace),
        headline=f"rule {name} is not removed",
    )
    session.answer({"rule": name}, f"rule {name} is gone")


@verb
@click.argument("name")
@click.argument("subject")
def alias(session: Session, name: str, subject: str) -> None:
    """Say that SUBJECT stands behind NAME, as commits and CI jobs have it: an address, github:LOGIN.

    For what no person stands behind, SUBJECT is service:NAME. Until another admin says the same, whoever said it is
    taken for him when what that name made is approved.

    Example: lockgate access alias ada@home.example ada@example.org
    """
    session.say_identity()
    receipt = session.tell(
        NameAlias(id=session.new_id(), alias=name, subject=subject),
        headline=f"who {name} is stays as it was",
    )
    session.answer(
        {"alias": name, "subject": subject, "new": bool(receipt.events)}, f"{subject} stands behind {name}"
    )


@verb
@click.argument("name")
@click.argument("subject")
@click.option("--reason", default="", help="A word for the record.")
def unalias(session: Session, name: str, subject: str, reason: str) -> None:
    """Say that SUBJECT does not stand behind NAME after all; of oneself, nobody can."""
    session.say_identity()
    session.tell(
        RemoveAlias(id=session.new_id(), alias=name, subject=subject, reason=reason),
        headline=f"{subject} still stands behind {name}",
    )
    session.answer({"alias": name, "subject": subject}, f"{subject} no longer stands behind {name}")


@verb
@click.argument("subject", default="")
def list_(session: Session, subject: str) -> None:
    """Who holds which role, and which CI jobs act as whom."""
    found: AccessAnswer = session.ask(ListAccess(subject=subject))
    now, rows = _now(), []
    for one in found.subjects:
        rows.append(one.subject + (f"  ({one.purpose})" if one.purpose else ""))
        for held in one.grants:
            state = "" if held.counts(now) else f"  not now ({when(held.in_force_at)})"
            rows.append(f"  {held.grant.shown}  by {held.granted_by}{state}")
    for rule in found.rules:
        bearing = ", ".join(f"{name}={value}" for name, value in sorted(rule.claims.items()))
        gone = "  removed" if rule.removed_at is not None else ""
        rows.append(f"rule {rule.rule}: {rule.issuer} {bearing} -> {rule.subject}{gone}")
    for name in found.aliases:
        rows += [
            f"alias {name.alias} = {one.subject}  by {' and '.join(one.vouchers)}" for one in name.behind
        ]
    session.answer(found, "\n".join(rows) or "nobody holds a role")


list_.name = "list"


@click.group()
def token() -> None:
    """API tokens: issue, list, revoke."""


def _grants(
    only: tuple[str, ...], namespace: str, tiers: tuple[str, ...], environments: tuple[str, ...]
) -> tuple[Grant, ...]:
    return tuple(
        Grant(role=role, namespace=namespace, tiers=tiers, environments=environments) for role in only
    )


@verb
@click.option("--for", "account", metavar="ACCOUNT", help="Of a service account; default: your own.")
@click.option("--days", type=click.IntRange(1), default=30, show_default=True, help="How long it lives.")
@click.option("--label", default="", help="What it is for.")
@_ONLY
@_NAMESPACE
@_TIERS
@_ENVIRONMENTS
def issue(
    session: Session,
    account: str | None,
    days: int,
    label: str,
    only: tuple[str, ...],
    namespace: str,
    tiers: tuple[str, ...],
    environments: tuple[str, ...],
) -> None:
    """Make a token. It is shown once; the hub keeps a hash of it.

    Example: lockgate token issue --for service:ci --days 30 --only ci --env dev
    """
    session.say_identity()
    if (namespace != ANY or tiers or environments) and not only and account is None:
        raise click.UsageError("--namespace, --tier and --env narrow a role: name it with --only")
    made = resolve("lockgate.adapters.identity.minting:new_token")()
    shared = {
        "id": session.new_id(),
        "token": made.id,
        "secret_sha256": secret_hash(made.secret),
        # Within what the hub allows, also where its clock is a little behind.
        "expires_at": _now() + days * _DAY - 60_000_000,
        "grants": _grants(only, namespace, tiers, environments),
        "label": label,
    }
    command: IssueToken | IssueServiceToken
    if account is None:
        command = IssueToken(subject=session.actor, **shared)
    else:
        command = IssueServiceToken(subject=account, namespace=_namespace_of(session, account), **shared)
    session.tell(command, headline=f"no token for {command.subject}")
    session.note(
        f"token {made.id} of {command.subject} until {when(command.expires_at)}; it is shown this once"
    )
    session.answer({"id": made.id, "token": str(made), "expires_at": command.expires_at}, str(made))


def _namespace_of(session: Session, subject: str) -> str:
    found: AccessAnswer = session.ask(ListAccess(subject=subject))
    return found.subjects[0].namespace if found.subjects else ANY


@verb
@click.option("--all", "everybodys", is_flag=True, help="Not only your own.")
def tokens(session: Session, everybodys: bool) -> None:
    """The tokens there are; never their secrets."""
    found = session.ask(ListAccess()).tokens if everybodys else session.ask(OwnAccess()).tokens
    session.answer(found, "\n".join(_token_row(one) for one in found) or "there is no token")


tokens.name = "list"


def _token_row(one: TokenLine) -> str:
    used = "never used" if one.last_used_at is None else f"used {when(one.last_used_at)}"
    scope = "; ".join(grant.shown for grant in one.grants) or "all that its holder may"
    why = one.label or (f"rule {one.rule}" if one.rule else "")
    return f"{one.token}  {one.subject}  {one.state} until {when(one.expires_at)}, {used}  {scope}  {why}".rstrip()


@verb
@click.argument("identifier", metavar="ID")
@click.option("--reason", default="", help="A word for the record.")
def withdraw(session: Session, identifier: str, reason: str) -> None:
    """End a token at once: your own, or another's if you may."""
    session.say_identity()
    # Whoever pastes the whole token means its id; the rest goes nowhere.
    wanted = identifier.partition(".")[0]
    own = {one.token for one in session.ask(OwnAccess()).tokens}
    command: GiveUpToken | RevokeToken = GiveUpToken(id=session.new_id(), token=wanted, reason=reason)
    if wanted not in own:
        found: AccessAnswer = session.ask(ListAccess())
        holder = next((one.subject for one in found.tokens if one.token == wanted), None)
        if holder is None:
            raise NoSuchToken(f"there is no token {wanted}", remedy="lockgate token list --all", token=wanted)
        namespace = _namespace_of(session, holder) if is_service(holder) else ANY
        command = RevokeToken(id=session.new_id(), token=wanted, namespace=namespace, reason=reason)
    session.tell(command, headline=f"{wanted} is not revoked")
    session.answer({"token": wanted}, f"token {wanted} no longer counts")


withdraw.name = "revoke"

for _each in (grant, confirm, revoke, create_account, federate, unfederate, alias, unalias, list_):
    access.add_command(_each)
for _each in (issue, tokens, withdraw):
    token.add_command(_each)
