"""Documents of access: what somebody holds, what is known of a token, how jobs of a CI system become an account."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from lockgate.access.messages import (
    AliasNamed,
    AliasRemoved,
    FederationRuleAdded,
    FederationRuleRemoved,
    FirstAdminNamed,
    GrantConfirmed,
    RoleGranted,
    RoleRevoked,
    ServiceAccountCreated,
    TokenExchanged,
    TokenIssued,
    TokenRevoked,
)
from lockgate.access.roles import ADMIN, Grant
from lockgate.core.clock import Micros
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp


class HeldGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A grant, who gave it, from when on and until when it counts.

    Attributes:
        confirmed_by: a second admin who agreed to it; empty when none did, or none had to.
    """

    grant: Grant
    granted_at: Micros
    granted_by: str
    in_force_at: Micros
    until: Micros | None = None
    confirmed_by: str = ""

    def counts(self, now: Micros) -> bool:
        return self.in_force_at <= now and (self.until is None or now < self.until)


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """A way for one person to act as a service account: a token he issued, a rule he made."""

    credential: str
    by: str
    until: Micros | None = None


class SubjectState(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who holds grants, or did.

    Attributes:
        namespace: of a service account, what it is confined to.
        created_at: of a service account; None for people and groups, who are made elsewhere.
        named_at: when the hub's configuration made him an admin.
        reaches: who can act as this service account.
    """

    subject: str
    grants: tuple[HeldGrant, ...] = ()
    namespace: str = "*"
    purpose: str = ""
    created_at: Micros | None = None
    named_at: Micros | None = None
    reaches: tuple[Reach, ...] = ()


class TokenState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a token; its secret is not.

    Attributes:
        rule: the federation rule by which a CI job had it; empty for one that a person issued.
        started_by: what the job's identity token called the person who started it.
    """

    token: str
    subject: str
    secret_sha256: str
    grants: tuple[Grant, ...]
    issued_at: Micros
    issued_by: str
    expires_at: Micros
    label: str = ""
    rule: str = ""
    claims: dict[str, str] = {}
    started_by: tuple[str, ...] = ()
    revoked_at: Micros | None = None
    revoked_by: str = ""


class FederationState(msgspec.Struct, frozen=True, kw_only=True):
    rule: str
    issuer: str
    claims: dict[str, str]
    subject: str
    namespace: str
    grants: tuple[Grant, ...]
    lifetime_s: int
    added_at: Micros
    added_by: str
    removed_at: Micros | None = None


class Behind(msgspec.Struct, frozen=True, kw_only=True):
    """Who stands behind a name, and who says so.

    Attributes:
        confirmed_by: somebody else who says the same; empty when nobody does.
    """

    subject: str
    named_at: Micros
    named_by: str
    confirmed_by: str = ""

    @property
    def vouchers(self) -> tuple[str, ...]:
        return (self.named_by, self.confirmed_by) if self.confirmed_by else (self.named_by,)


class AliasState(msgspec.Struct, frozen=True, kw_only=True):
    """A name that is met in commits and CI jobs, in small letters, and who stands behind it; empty when nobody does."""

    alias: str
    behind: tuple[Behind, ...]


def in_force(subjects: Iterable[SubjectState | None], now: Micros) -> tuple[Grant, ...]:
    """The grants of all these together that count now."""
    return tuple(held.grant for one in subjects if one is not None for held in one.grants if held.counts(now))


def is_admin(subject: SubjectState | None, now: Micros) -> bool:
    """Whether somebody is admin over everything."""
    return any(grant.role == ADMIN and grant.is_over_everything for grant in in_force((subject,), now))


def _named(body: SubjectState | None, event: FirstAdminNamed, stamp: Stamp) -> SubjectState:
    known = replace(body or SubjectState(subject=event.subject), named_at=stamp.at)
    held = HeldGrant(
        grant=Grant(role=ADMIN), granted_at=stamp.at, granted_by=stamp.actor, in_force_at=stamp.at
    )
    return _with_grant(known, held)


def _granted(body: SubjectState | None, event: RoleGranted, stamp: Stamp) -> SubjectState:
    held = HeldGrant(
        grant=event.grant,
        granted_at=stamp.at,
        granted_by=stamp.actor,
        in_force_at=event.in_force_at,
        until=event.until,
    )
    return _with_grant(body or SubjectState(subject=event.subject), held)


def _with_grant(before: SubjectState, held: HeldGrant) -> SubjectState:
    others = tuple(one for one in before.grants if one.grant != held.grant)
    return replace(before, grants=(*others, held))


def _agreed(body: SubjectState | None, event: GrantConfirmed, stamp: Stamp) -> SubjectState:
    before = body or SubjectState(subject=event.subject)
    return replace(before, grants=tuple(_confirmed(held, event, stamp) for held in before.grants))


def _confirmed(held: HeldGrant, event: GrantConfirmed, stamp: Stamp) -> HeldGrant:
    if (held.grant.role, held.grant.namespace) != (event.role, event.namespace) or held.confirmed_by:
        return held
    # Whoever gave it cannot be the one who confirms it, also where one command confirms several.
    if held.granted_by == stamp.actor:
        return held
    return replace(held, confirmed_by=stamp.actor, in_force_at=min(held.in_force_at, stamp.at))


def _revoked(body: SubjectState | None, event: RoleRevoked, stamp: Stamp) -> SubjectState:
    before, gone = body or SubjectState(subject=event.subject), (event.role, event.namespace)
    left = tuple(one for one in before.grants if (one.grant.role, one.grant.namespace) != gone)
    return replace(before, grants=left)


def _created(body: SubjectState | None, event: ServiceAccountCreated, stamp: Stamp) -> SubjectState:
    before = body or SubjectState(subject=event.subject)
    return replace(before, namespace=event.namespace, purpose=event.purpose, created_at=stamp.at)


def _token_issued(body: SubjectState | None, event: TokenIssued, stamp: Stamp) -> SubjectState:
    reach = Reach(credential=f"token:{event.token}", by=stamp.actor, until=event.expires_at)
    return _reached(body or SubjectState(subject=event.subject), reach, stamp)


def _token_revoked(body: SubjectState | None, event: TokenRevoked, stamp: Stamp) -> SubjectState:
    return _unreached(body or SubjectState(subject=event.subject), f"token:{event.token}", stamp)


def _rule_added(body: SubjectState | None, event: FederationRuleAdded, stamp: Stamp) -> SubjectState:
    reach = Reach(credential=f"rule:{event.rule}", by=stamp.actor)
    return _reached(body or SubjectState(subject=event.subject), reach, stamp)


def _rule_removed(body: SubjectState | None, event: FederationRuleRemoved, stamp: Stamp) -> SubjectState:
    return _unreached(body or SubjectState(subject=event.subject), f"rule:{event.rule}", stamp)


def _reached(before: SubjectState, reach: Reach, stamp: Stamp) -> SubjectState:
    """Of service accounts only: a person's tokens are nobody else's way to act."""
    if before.created_at is None:
        return before
    after = _unreached(before, reach.credential, stamp)
    return replace(after, reaches=(*after.reaches, reach))


def _unreached(before: SubjectState, credential: str, stamp: Stamp) -> SubjectState:
    """Without this way, and without those that have run out."""
    left = tuple(
        one
        for one in before.reaches
        if one.credential != credential and (one.until is None or stamp.at < one.until)
    )
    return replace(before, reaches=left)


SUBJECT = DocumentKind(
    name="subject",
    type=SubjectState,
    keys=lambda event: (event.subject,),
    made_by={
        RoleGranted: _granted,
        GrantConfirmed: _agreed,
        RoleRevoked: _revoked,
        ServiceAccountCreated: _created,
        FirstAdminNamed: _named,
        TokenIssued: _token_issued,
        TokenRevoked: _token_revoked,
        FederationRuleAdded: _rule_added,
        FederationRuleRemoved: _rule_removed,
    },
    columns=lambda body: Columns(body.namespace if body.created_at is not None else ""),
)


def _issued(body: TokenState | None, event: TokenIssued, stamp: Stamp) -> TokenState:
    return replace(_token_of(event, stamp), label=event.label)


def _exchanged(body: TokenState | None, event: TokenExchanged, stamp: Stamp) -> TokenState:
    known = replace(_token_of(event, stamp), rule=event.rule, claims=event.claims)
    return replace(known, started_by=event.started_by)


def _token_of(event: TokenIssued | TokenExchanged, stamp: Stamp) -> TokenState:
    return TokenState(
        token=event.token,
        subject=event.subject,
        secret_sha256=event.secret_sha256,
        grants=event.grants,
        issued_at=stamp.at,
        issued_by=stamp.actor,
        expires_at=event.expires_at,
    )


TOKEN = DocumentKind(
    name="token",
    type=TokenState,
    keys=lambda event: (event.token,),
    made_by={TokenIssued: _issued, TokenExchanged: _exchanged},
    changed_by={
        TokenRevoked: lambda body, event, stamp: replace(body, revoked_at=stamp.at, revoked_by=stamp.actor)
    },
    fold_version=2,
    columns=lambda body: Columns(body.subject, "revoked" if body.revoked_at is not None else body.rule),
)


def _added(body: FederationState | None, event: FederationRuleAdded, stamp: Stamp) -> FederationState:
    return FederationState(
        rule=event.rule,
        issuer=event.issuer,
        claims=event.claims,
        subject=event.subject,
        namespace=event.namespace,
        grants=event.grants,
        lifetime_s=event.lifetime_s,
        added_at=stamp.at,
        added_by=stamp.actor,
    )


FEDERATION = DocumentKind(
    name="federation-rule",
    type=FederationState,
    keys=lambda event: (event.rule,),
    made_by={FederationRuleAdded: _added},
    changed_by={
        FederationRuleRemoved: lambda body, event, stamp: replace(body, removed_at=stamp.at),
    },
    columns=lambda body: Columns(body.namespace, "active" if body.removed_at is None else "removed"),
)


def _alias_named(body: AliasState | None, event: AliasNamed, stamp: Stamp) -> AliasState:
    known = () if body is None else body.behind
    if any(one.subject == event.subject for one in known):
        return AliasState(
            alias=event.alias,
            behind=tuple(
                replace(one, confirmed_by=stamp.actor)
                if one.subject == event.subject and not one.confirmed_by and one.named_by != stamp.actor
                else one
                for one in known
            ),
        )
    named = Behind(subject=event.subject, named_at=stamp.at, named_by=stamp.actor)
    return AliasState(alias=event.alias, behind=(*known, named))


def _alias_removed(body: AliasState, event: AliasRemoved, stamp: Stamp) -> AliasState:
    return replace(body, behind=tuple(one for one in body.behind if one.subject != event.subject))


ALIAS = DocumentKind(
    name="alias",
    type=AliasState,
    keys=lambda event: (event.alias,),
    made_by={AliasNamed: _alias_named},
    changed_by={AliasRemoved: _alias_removed},
    columns=lambda body: Columns("", "known" if body.behind else "removed"),
)
