"""Decisions about roles and tokens.

One thread runs through them: nobody alone brings himself to power. What an admin gives himself, directly, through a
group he is in, or through a service account that he can act as, counts after a day, or as soon as a second admin
confirms it. Of two acts that together would do so, giving an account a role and taking its token, the later one
waits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lockgate.access.messages import (
    AddFederationRule,
    ConfirmGrant,
    CreateServiceAccount,
    ExchangeToken,
    FederationRuleAdded,
    FederationRuleRemoved,
    FirstAdminNamed,
    GiveUpToken,
    GrantConfirmed,
    GrantRole,
    IssueServiceToken,
    IssueToken,
    NameFirstAdmin,
    RemoveFederationRule,
    RevokeRole,
    RevokeToken,
    RoleGranted,
    RoleRevoked,
    ServiceAccountCreated,
    TokenExchanged,
    TokenIssued,
    TokenRevoked,
)
from lockgate.access.roles import (
    ADMIN,
    ANY,
    CONTROLLER,
    HARMLESS,
    PERSONS_ONLY,
    TIERS,
    Grant,
    check_role,
    is_within,
)
from lockgate.access.state import FEDERATION, SUBJECT, TOKEN, SubjectState, in_force, is_admin
from lockgate.access.subjects import GROUP, SERVICE, alias_of, check_subject, is_alias, is_service
from lockgate.core.clock import Micros
from lockgate.core.documents import DocRef, Docs
from lockgate.core.errors import did_you_mean
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import check_part

DAY: Micros = 24 * 3600 * 1_000_000
TOKEN_DAYS = "access.token-days"
"""The fact that says how long a token may live in this hub; without it, `DEFAULT_TOKEN_DAYS`."""
DEFAULT_TOKEN_DAYS = 90
MAX_TOKEN_DAYS = 366
MAX_LIFETIME_S = 3600
MIN_LIFETIME_S = 60
# What says whose job it is. A pattern there would let in names that somebody else may still take.
WHOSE = frozenset(
    {"sub", "repository", "repository_id", "repository_owner", "project_path", "namespace_path"}
)
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_TOKEN_ID = re.compile(r"lgt_[0-9a-z]{20}\Z")


def needs_grant(command: GrantRole | ConfirmGrant | RevokeRole, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(SUBJECT.name, command.subject),)


def grant_role(docs: Docs, command: GrantRole, context: Context) -> Decision | Refusal:
    check_subject(command.subject)
    known = docs.get(SUBJECT, command.subject)
    reasons = [*_ungrantable(command.grant), *_not_for_account(command, known)]
    if command.until is not None and command.until <= context.now:
        reasons.append(
            _reason("access.until-passed", "the role would end before it begins", "give a later --until")
        )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    grant, waits = command.grant, _brings_to_power(command, known, context)
    for held in known.grants if known else ():
        same = held.grant == grant and held.until == command.until
        if same and (held.counts(context.now) or waits or held.granted_by == context.actor):
            return Decision(())
    in_force_at = context.now + DAY if waits else context.now
    return Decision(
        (
            RoleGranted(
                subject=command.subject,
                grant=grant,
                in_force_at=in_force_at,
                until=command.until,
                waits=waits,
            ),
        )
    )


def _ungrantable(grant: Grant) -> list[Reason]:
    """What is wrong with a grant, whoever would get it."""
    if grant.role == CONTROLLER:
        return [
            _reason("access.not-grantable", f"{CONTROLLER} is the machinery's own", "choose another role")
        ]
    check_role(grant.role)
    if grant.namespace != ANY:
        check_part(grant.namespace, what="namespace")
    for environment in grant.environments:
        check_part(environment, what="environment")
    reasons = []
    for tier in grant.tiers:
        if tier not in TIERS:
            reasons.append(
                _reason("access.unknown-tier", f"there is no tier {tier!r}", did_you_mean(tier, TIERS))
            )
    if grant.role == ADMIN and (grant.tiers or grant.environments):
        reasons.append(
            _reason(
                "access.unbounded-role",
                "an admin gives roles for every tier and environment, so the role is bound to a namespace at most",
                "leave out --tier and --env",
            )
        )
    return reasons


def _not_for_account(command: GrantRole, known: SubjectState | None) -> list[Reason]:
    """Why a service account may not have the role. An account is made before it is given anything."""
    if not is_service(command.subject):
        return []
    if known is None or known.created_at is None:
        return [_unknown_account(command.subject)]
    reasons = []
    if command.role in PERSONS_ONLY:
        reasons.append(
            _reason(
                "access.persons-only",
                f"{command.role} is for people: a machine approves nothing and gives nobody a role",
                "give it to a person or a group",
            )
        )
    if known.namespace not in (ANY, command.namespace):
        reasons.append(
            Reason(
                rule="access.outside-account",
                message=f"{command.subject} is confined to the namespace {known.namespace}",
                measured=command.namespace,
                limit=known.namespace,
                remedy=f"add --namespace {known.namespace}, or create an account for the other one",
            )
        )
    return reasons


def _brings_to_power(command: GrantRole, known: SubjectState | None, context: Context) -> bool:
    """Whether the actor would act with what he gives: himself, through a group, or through an account."""
    if not context.person:
        return True
    if command.subject in (context.actor, *(GROUP + name for name in context.groups)):
        return True
    if command.subject.startswith(GROUP) and context.credential.startswith("token:"):
        # A token does not tell which groups its holder is in.
        return True
    reached = known is not None and any(
        reach.by == context.actor and (reach.until is None or context.now < reach.until)
        for reach in known.reaches
    )
    return reached and command.role not in HARMLESS


def confirm_grant(docs: Docs, command: ConfirmGrant, context: Context) -> Decision | Refusal:
    """A second admin: not who gave it, not who gets it, and a person."""
    known = docs.get(SUBJECT, command.subject)
    held = [
        one
        for one in (known.grants if known else ())
        if (one.grant.role, one.grant.namespace) == (command.role, command.namespace)
    ]
    if not held:
        return refuse(_not_held(command.subject, command.role, command.namespace))
    open_ones = [one for one in held if not one.confirmed_by]
    if not open_ones:
        return Decision(())
    if not context.person or command.subject == context.actor:
        return refuse(
            _reason(
                "access.second-admin",
                f"{context.actor} cannot confirm what {command.subject} is given",
                "ask another admin, a person, to confirm it",
            )
        )
    if all(one.granted_by == context.actor for one in open_ones):
        return refuse(
            _reason(
                "access.second-admin", f"{context.actor} gave it himself", "ask another admin to confirm it"
            )
        )
    return Decision(
        (GrantConfirmed(subject=command.subject, role=command.role, namespace=command.namespace),)
    )


def revoke_role(docs: Docs, command: RevokeRole, context: Context) -> Decision | Refusal:
    known = docs.get(SUBJECT, command.subject)
    wanted = (command.role, command.namespace)
    if known is None or not any((one.grant.role, one.grant.namespace) == wanted for one in known.grants):
        return refuse(_not_held(command.subject, command.role, command.namespace))
    return Decision(
        (
            RoleRevoked(
                subject=command.subject,
                role=command.role,
                namespace=command.namespace,
                reason=command.reason,
            ),
        )
    )


def needs_account(command: CreateServiceAccount, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(SUBJECT.name, SERVICE + command.name),)


def create_service_account(docs: Docs, command: CreateServiceAccount, context: Context) -> Decision | Refusal:
    """Whoever creates it gets no right over it, and it gets none by being created."""
    subject = check_subject(SERVICE + command.name)
    if command.namespace != ANY:
        check_part(command.namespace, what="namespace")
    known = docs.get(SUBJECT, subject)
    if known is not None:
        if (known.namespace, known.purpose) == (command.namespace, command.purpose):
            return Decision(())
        return refuse(
            _reason(
                "access.account-exists", f"{subject} is there already: {known.purpose}", "choose another name"
            )
        )
    return Decision(
        (ServiceAccountCreated(subject=subject, purpose=command.purpose, namespace=command.namespace),)
    )


def needs_issue(command: IssueToken | IssueServiceToken, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(TOKEN.name, command.token), DocRef(SUBJECT.name, command.subject))


def issue_token(docs: Docs, command: IssueToken, context: Context) -> Decision | Refusal:
    """A token of one's own. A token makes no token, or one that leaked would live for ever."""
    reasons = _malformed(docs, command, context)
    if command.subject != context.actor:
        reasons.append(
            _reason(
                "access.not-oneself",
                f"{context.actor} cannot make a token of {command.subject}",
                "leave out the subject, or name a service account: lockgate token issue --for service:NAME",
            )
        )
    if context.credential.startswith("token:"):
        reasons.append(_reason("access.token-by-token", "a token makes no further token", "lockgate login"))
    known = docs.get(SUBJECT, command.subject)
    held = in_force((known,), context.now)
    if not held and not context.claimed:
        reasons.append(
            _reason(
                "access.nothing-of-ones-own",
                f"{command.subject} has no role of his own; one that a group brings ends with the login",
                "ask an admin for a role, or for a service account",
            )
        )
    elif not context.claimed:
        reasons += _beyond(command.grants, held, command.subject)
    return Refusal(reasons=tuple(reasons)) if reasons else _issued(command)


def issue_service_token(docs: Docs, command: IssueServiceToken, context: Context) -> Decision | Refusal:
    known = docs.get(SUBJECT, command.subject)
    if not is_service(command.subject) or known is None or known.created_at is None:
        return refuse(_unknown_account(command.subject))
    reasons = _malformed(docs, command, context) + _wrong_place(known, command.namespace)
    reasons += _beyond(command.grants, in_force((known,), context.now), command.subject)
    waits = _own_gifts(known, context)
    if reasons or waits:
        return Refusal(reasons=(*reasons, *waits), waiting=not reasons)
    return _issued(command)


def _issued(command: IssueToken | IssueServiceToken) -> Decision:
    return Decision(
        (
            TokenIssued(
                token=command.token,
                subject=command.subject,
                secret_sha256=command.secret_sha256,
                grants=command.grants,
                expires_at=command.expires_at,
                label=command.label,
            ),
        )
    )


def _malformed(docs: Docs, command: IssueToken | IssueServiceToken, context: Context) -> list[Reason]:
    reasons = []
    if _TOKEN_ID.match(command.token) is None or _HASH.match(command.secret_sha256) is None:
        reasons.append(
            _reason(
                "access.token-malformed",
                "that is no token id with the hash of a secret",
                "lockgate token issue",
            )
        )
    if docs.get(TOKEN, command.token) is not None:
        reasons.append(
            _reason("access.token-exists", f"token {command.token} is there already", "make a new one")
        )
    days = min(int(context.facts.get(TOKEN_DAYS, DEFAULT_TOKEN_DAYS)), MAX_TOKEN_DAYS)
    if not context.now < command.expires_at <= context.now + days * DAY:
        reasons.append(
            Reason(
                rule="access.token-expiry",
                message="a token ends in the future, within what this hub allows",
                measured=f"{(command.expires_at - context.now) / DAY:.1f} days",
                limit=f"{days} days",
                remedy=f"lockgate token issue --days {days}",
            )
        )
    return reasons


def _beyond(wanted: tuple[Grant, ...], held: tuple[Grant, ...], subject: str) -> list[Reason]:
    return [
        Reason(
            rule="access.beyond-own",
            message=f"{subject} does not have {grant.shown}",
            measured=grant.shown,
            limit="; ".join(sorted(each.shown for each in held)) or "no role",
            remedy="ask for less, or ask an admin for the role",
        )
        for grant in wanted
        if not is_within(grant, held)
    ]


def _own_gifts(account: SubjectState, context: Context) -> list[Reason]:
    """What the actor gave the account within a day without a second admin, and would now act with."""
    return [
        Reason(
            rule="access.own-gift",
            message=f"{context.actor} gave {account.subject} the role {held.grant.shown} himself less than a day ago",
            measured=held.granted_by,
            limit="another admin, or a day",
            remedy=f"another admin: lockgate access confirm {account.subject} {held.grant.role}"
            + ("" if held.grant.namespace == ANY else f" --namespace {held.grant.namespace}")
            + "; then this again",
        )
        for held in account.grants
        if held.granted_by == context.actor
        and not held.confirmed_by
        and held.grant.role not in HARMLESS
        and context.now < held.granted_at + DAY
    ]


def _wrong_place(account: SubjectState, namespace: str) -> list[Reason]:
    if account.namespace == namespace:
        return []
    place = "everything" if account.namespace == ANY else f"the namespace {account.namespace}"
    return [
        _reason(
            "access.other-namespace",
            f"{account.subject} is an account of {place}",
            f"add --namespace {account.namespace}" if account.namespace != ANY else "leave out --namespace",
        )
    ]


def needs_token(command: GiveUpToken | RevokeToken, docs: Docs) -> tuple[DocRef, ...]:
    token = DocRef(TOKEN.name, command.token)
    if not docs.has(token):
        return (token,)
    known = docs.get(TOKEN, command.token)
    return (token,) if known is None else (token, DocRef(SUBJECT.name, known.subject))


def give_up_token(docs: Docs, command: GiveUpToken, context: Context) -> Decision | Refusal:
    known = docs.get(TOKEN, command.token)
    if known is None or known.subject != context.actor:
        return refuse(
            _reason(
                "access.token-unknown", f"{context.actor} has no token {command.token}", "lockgate token list"
            )
        )
    return _revoked(docs, command)


def revoke_token(docs: Docs, command: RevokeToken, context: Context) -> Decision | Refusal:
    known = docs.get(TOKEN, command.token)
    if known is None:
        return refuse(
            _reason("access.token-unknown", f"there is no token {command.token}", "lockgate token list --all")
        )
    holder = docs.get(SUBJECT, known.subject) or SubjectState(subject=known.subject)
    if command.namespace not in (ANY, holder.namespace):
        return Refusal(reasons=tuple(_wrong_place(holder, command.namespace)))
    return _revoked(docs, command)


def _revoked(docs: Docs, command: GiveUpToken | RevokeToken) -> Decision:
    known = docs.get(TOKEN, command.token)
    if known is None or known.revoked_at is not None:
        return Decision(())
    return Decision((TokenRevoked(token=command.token, subject=known.subject, reason=command.reason),))


def needs_rule(command: AddFederationRule | RemoveFederationRule, docs: Docs) -> tuple[DocRef, ...]:
    rule = DocRef(FEDERATION.name, command.name)
    return (
        (rule, DocRef(SUBJECT.name, command.subject)) if isinstance(command, AddFederationRule) else (rule,)
    )


def add_federation_rule(docs: Docs, command: AddFederationRule, context: Context) -> Decision | Refusal:
    check_part(command.name, what="federation rule")
    account = docs.get(SUBJECT, command.subject)
    if not is_service(command.subject) or account is None or account.created_at is None:
        return refuse(_unknown_account(command.subject))
    known = docs.get(FEDERATION, command.name)
    reasons = _wrong_place(account, command.namespace) + _loose(command.claims)
    if known is not None and known.removed_at is None:
        reasons.append(
            _reason(
                "access.rule-exists",
                f"there is a rule {command.name} already",
                "remove it, or choose another name",
            )
        )
    if not MIN_LIFETIME_S <= command.lifetime_s <= MAX_LIFETIME_S:
        reasons.append(
            Reason(
                rule="access.rule-lifetime",
                message="a token of a job lives for a minute to an hour",
                measured=f"{command.lifetime_s} s",
                limit=f"{MAX_LIFETIME_S} s",
                remedy="choose a --lifetime within that",
            )
        )
    waits = _own_gifts(account, context)
    if reasons or waits:
        return Refusal(reasons=(*reasons, *waits), waiting=not reasons)
    return Decision(
        (
            FederationRuleAdded(
                rule=command.name,
                issuer=command.issuer,
                claims=command.claims,
                subject=command.subject,
                namespace=command.namespace,
                grants=command.grants,
                lifetime_s=command.lifetime_s,
            ),
        )
    )


def _loose(claims: Mapping[str, str]) -> list[Reason]:
    """A rule says exactly whose jobs it means; of other claims it may give the beginning."""
    reasons = []
    if not any(name in WHOSE and value and "*" not in value for name, value in claims.items()):
        reasons.append(
            _reason(
                "access.rule-too-wide",
                "the rule does not say whose jobs it means",
                "add --claim repository=OWNER/NAME, or one of " + ", ".join(sorted(WHOSE)),
            )
        )
    for name, value in sorted(claims.items()):
        start = value.removesuffix("*")
        if not start or "*" in start or (name in WHOSE and start != value):
            reasons.append(
                Reason(
                    rule="access.rule-too-wide",
                    message=f"{name} may not be a pattern" if name in WHOSE else f"{name} lets in too much",
                    measured=value,
                    limit="a text" if name in WHOSE else "a text, or its beginning and one *",
                    remedy=f"write --claim {name}=TEXT",
                )
            )
    return reasons


def meets(claims: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a job's claims are all that a rule wants."""
    for name, value in wanted.items():
        claim = claims.get(name)
        if claim is None or not (claim.startswith(value[:-1]) if value.endswith("*") else claim == value):
            return False
    return bool(wanted)


def remove_federation_rule(docs: Docs, command: RemoveFederationRule, context: Context) -> Decision | Refusal:
    known = docs.get(FEDERATION, command.name)
    if known is None or known.removed_at is not None or command.namespace not in (ANY, known.namespace):
        return refuse(
            _reason("access.rule-unknown", f"there is no rule {command.name}", "lockgate access list")
        )
    return Decision((FederationRuleRemoved(rule=command.name, subject=known.subject),))


def needs_first_admin(command: NameFirstAdmin, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(SUBJECT.name, command.subject), DocRef(SUBJECT.name, "*"))


def name_first_admin(docs: Docs, command: NameFirstAdmin, context: Context) -> Decision | Refusal:
    """Once for each; again only when no admin is left, so that a configuration cannot undo a revocation."""
    check_subject(command.subject)
    known = docs.get(SUBJECT, command.subject)
    if is_admin(known, context.now):
        return Decision(())
    others = any(is_admin(one, context.now) for one in docs.all(SUBJECT, ""))
    if known is not None and known.named_at is not None and others:
        return refuse(
            _reason(
                "access.named-before",
                f"{command.subject} was admin by configuration before, and is no longer",
                "ask an admin for the role: lockgate access grant",
            )
        )
    return Decision((FirstAdminNamed(subject=command.subject),))


def needs_exchange(command: ExchangeToken, docs: Docs) -> tuple[DocRef, ...]:
    rule = DocRef(FEDERATION.name, command.rule)
    token = DocRef(TOKEN.name, command.token)
    if not docs.has(rule):
        return (rule, token)
    known = docs.get(FEDERATION, command.rule)
    return (rule, token) if known is None else (rule, token, DocRef(SUBJECT.name, known.subject))


def exchange_token(docs: Docs, command: ExchangeToken, context: Context) -> Decision | Refusal:
    """Within the lock: the rule still stands, the job still meets it, and it has had no token yet."""
    rule = docs.get(FEDERATION, command.rule)
    fits = rule is not None and rule.removed_at is None and rule.issuer == command.issuer
    if rule is None or not fits or not meets(command.claims, rule.claims):
        return refuse(
            _reason(
                "access.rule-unmet", "no rule lets this job in", "compare its claims: lockgate access list"
            )
        )
    if docs.get(TOKEN, command.token) is not None:
        return refuse(
            _reason(
                "access.exchanged-before",
                "this identity token was exchanged before",
                "let the job ask its CI system for a new one",
            )
        )
    return Decision(
        (
            TokenExchanged(
                token=command.token,
                subject=rule.subject,
                secret_sha256=command.secret_sha256,
                grants=rule.grants,
                expires_at=context.now + rule.lifetime_s * 1_000_000,
                rule=rule.rule,
                issuer=command.issuer,
                claims={name: command.claims[name] for name in rule.claims},
                started_by=tuple(name for name in map(alias_of, command.started_by) if is_alias(name)),
            ),
        )
    )


def _reason(rule: str, message: str, remedy: str) -> Reason:
    return Reason(rule=rule, message=message, remedy=remedy)


def _unknown_account(subject: str) -> Reason:
    return _reason(
        "access.account-unknown",
        f"there is no service account {subject}",
        "lockgate access create-account NAME --purpose TEXT",
    )


def _not_held(subject: str, role: str, namespace: str) -> Reason:
    place = "everything" if namespace == ANY else namespace
    return _reason(
        "access.not-held", f"{subject} has no role {role} over {place}", f"lockgate access list {subject}"
    )
