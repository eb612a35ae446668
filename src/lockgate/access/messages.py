"""What happens to roles and tokens: given, confirmed, taken away; issued, exchanged, revoked."""

from __future__ import annotations

from typing import ClassVar

from lockgate.access.roles import ANY, Grant
from lockgate.core.clock import Micros
from lockgate.core.messages import Command, Event, Scope


def over(namespace: str, target: str = "") -> Scope:
    """The scope of what is given over a namespace; `*` is everything, and takes a grant over everything."""
    return Scope(namespace="" if namespace == ANY else namespace, target=target)


class GrantRole(Command, frozen=True, kw_only=True, tag="access.grant-role"):
    """Give a role over a scope to a person, a service account or a group."""

    permission: ClassVar[str] = "access.manage"
    subject: str
    role: str
    namespace: str = ANY
    tiers: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    until: Micros | None = None

    @property
    def grant(self) -> Grant:
        return Grant(
            role=self.role, namespace=self.namespace, tiers=self.tiers, environments=self.environments
        )

    def scope(self) -> Scope:
        return over(self.namespace, self.role)


class ConfirmGrant(Command, frozen=True, kw_only=True, tag="access.confirm-grant"):
    """Agree, as a second admin, to what another one gave himself; it then counts at once."""

    permission: ClassVar[str] = "access.manage"
    subject: str
    role: str
    namespace: str = ANY

    def scope(self) -> Scope:
        return over(self.namespace, self.role)


class RevokeRole(Command, frozen=True, kw_only=True, tag="access.revoke-role"):
    """Take a role over a namespace away, whatever tiers and environments it was given for. Counts at once."""

    permission: ClassVar[str] = "access.revoke"
    subject: str
    role: str
    namespace: str = ANY
    reason: str = ""

    def scope(self) -> Scope:
        return over(self.namespace, self.role)


class CreateServiceAccount(Command, frozen=True, kw_only=True, tag="access.create-service-account"):
    """Bring an account for a machine into being, without any role. What it is given stays in its namespace."""

    permission: ClassVar[str] = "access.manage"
    name: str
    purpose: str
    namespace: str = ANY

    def scope(self) -> Scope:
        return over(self.namespace)


class IssueToken(Command, frozen=True, kw_only=True, tag="access.issue-token"):
    """Make a token of one's own. The sender made the secret, and sends only its hash.

    `grants` narrows what the token may do; without any it does what its holder may, at the time of each use.
    """

    permission: ClassVar[str] = "access.token"
    subject: str
    token: str
    secret_sha256: str
    expires_at: Micros
    grants: tuple[Grant, ...] = ()
    label: str = ""

    def scope(self) -> Scope:
        return Scope(within=True)


class IssueServiceToken(Command, frozen=True, kw_only=True, tag="access.issue-service-token"):
    """Make a token of a service account; `namespace` is the account's."""

    permission: ClassVar[str] = "access.manage"
    subject: str
    token: str
    secret_sha256: str
    expires_at: Micros
    namespace: str = ANY
    grants: tuple[Grant, ...] = ()
    label: str = ""

    def scope(self) -> Scope:
        return over(self.namespace)


class GiveUpToken(Command, frozen=True, kw_only=True, tag="access.give-up-token"):
    """Revoke a token of one's own."""

    permission: ClassVar[str] = "access.token"
    token: str
    reason: str = ""

    def scope(self) -> Scope:
        return Scope(within=True)


class RevokeToken(Command, frozen=True, kw_only=True, tag="access.revoke-token"):
    """Revoke anybody's token. `namespace` is that of the service account it acts for, `*` for a person's."""

    permission: ClassVar[str] = "access.revoke"
    token: str
    namespace: str = ANY
    reason: str = ""

    def scope(self) -> Scope:
        return over(self.namespace)


class AddFederationRule(Command, frozen=True, kw_only=True, tag="access.add-federation-rule"):
    """Let jobs of a CI system act as a service account: those whose identity token bears all `claims`.

    A claim is met by the same text; one that ends in `*` by any text that starts so (`refs/tags/*`).
    """

    permission: ClassVar[str] = "access.manage"
    name: str
    issuer: str
    claims: dict[str, str]
    subject: str
    namespace: str = ANY
    grants: tuple[Grant, ...] = ()
    lifetime_s: int = 900

    def scope(self) -> Scope:
        return over(self.namespace)


class RemoveFederationRule(Command, frozen=True, kw_only=True, tag="access.remove-federation-rule"):
    """End a rule; tokens that were had by it end with it."""

    permission: ClassVar[str] = "access.revoke"
    name: str
    namespace: str = ANY

    def scope(self) -> Scope:
        return over(self.namespace)


class NameFirstAdmin(Command, frozen=True, kw_only=True, tag="access.name-first-admin"):
    """Give somebody whom the hub's own configuration names the role admin over everything."""

    permission: ClassVar[str] = "access.vouch"
    subject: str

    def scope(self) -> Scope:
        return Scope()


class NameAlias(Command, frozen=True, kw_only=True, tag="access.name-alias"):
    """State who stands behind a name that is met in commits and CI jobs: an address, `github:LOGIN`.

    `subject` is a person, or a service account for what no person stands behind. One name may have several.
    """

    permission: ClassVar[str] = "access.alias"
    alias: str
    subject: str

    def scope(self) -> Scope:
        return over(ANY)


class NoteAddress(Command, frozen=True, kw_only=True, tag="access.note-address"):
    """State that an identity provider vouches for the address of a person whom it names otherwise."""

    permission: ClassVar[str] = "access.vouch"
    alias: str
    subject: str

    def scope(self) -> Scope:
        return Scope()


class RemoveAlias(Command, frozen=True, kw_only=True, tag="access.remove-alias"):
    """State that somebody does not stand behind a name after all; never said by himself."""

    permission: ClassVar[str] = "access.alias"
    alias: str
    subject: str
    reason: str = ""

    def scope(self) -> Scope:
        return over(ANY)


class ExchangeToken(Command, frozen=True, kw_only=True, tag="access.exchange-token"):
    """Turn the identity token of a CI job, which the hub has verified, into a short-lived token of an account.

    `token` is derived from the job's identity token, so that one cannot be exchanged twice.

    Attributes:
        started_by: the names that the identity token has for the person who started the job; none when it has none.
    """

    permission: ClassVar[str] = "access.vouch"
    rule: str
    issuer: str
    claims: dict[str, str]
    token: str
    secret_sha256: str
    started_by: tuple[str, ...] = ()

    def scope(self) -> Scope:
        return Scope()


class RoleGranted(Event, frozen=True, kw_only=True, tag="access.role-granted/1"):
    """`in_force_at` lies ahead when somebody gave himself the role."""

    subject: str
    grant: Grant
    in_force_at: Micros
    until: Micros | None
    waits: bool

    def summary(self) -> str:
        waiting = ", in a day or when another admin confirms" if self.waits else ""
        return f"{self.subject} is given {self.grant.shown}{waiting}"


class GrantConfirmed(Event, frozen=True, kw_only=True, tag="access.grant-confirmed/1"):
    subject: str
    role: str
    namespace: str

    def summary(self) -> str:
        return f"{self.role} of {self.subject} over {_shown(self.namespace)} confirmed"


class RoleRevoked(Event, frozen=True, kw_only=True, tag="access.role-revoked/1"):
    subject: str
    role: str
    namespace: str
    reason: str

    def summary(self) -> str:
        return f"{self.role} of {self.subject} over {_shown(self.namespace)} revoked" + _because(self.reason)


class ServiceAccountCreated(Event, frozen=True, kw_only=True, tag="access.service-account-created/1"):
    subject: str
    purpose: str
    namespace: str

    def summary(self) -> str:
        return f"{self.subject} created for {_shown(self.namespace)}: {self.purpose}"


class TokenIssued(Event, frozen=True, kw_only=True, tag="access.token-issued/1"):
    token: str
    subject: str
    secret_sha256: str
    grants: tuple[Grant, ...]
    expires_at: Micros
    label: str

    def summary(self) -> str:
        return f"token {self.token} issued for {self.subject}" + (f": {self.label}" if self.label else "")


class TokenExchanged1(Event, frozen=True, kw_only=True, tag="access.token-exchanged/1"):
    """An exchange from before it was kept who started the job."""

    token: str
    subject: str
    secret_sha256: str
    grants: tuple[Grant, ...]
    expires_at: Micros
    rule: str
    issuer: str
    claims: dict[str, str]

    def summary(self) -> str:
        return f"token {self.token} of {self.subject} given to a job by rule {self.rule} ({_bearing(self.claims)})"


class TokenExchanged(Event, frozen=True, kw_only=True, tag="access.token-exchanged/2"):
    """Attributes:
    started_by: what the job's identity token calls the person who started it; empty when it names nobody.
    """

    token: str
    subject: str
    secret_sha256: str
    grants: tuple[Grant, ...]
    expires_at: Micros
    rule: str
    issuer: str
    claims: dict[str, str]
    started_by: tuple[str, ...]

    def summary(self) -> str:
        who = ", started by " + (" alias ".join(self.started_by) or "nobody it names")
        return f"token {self.token} of {self.subject} given to a job by rule {self.rule} ({_bearing(self.claims)}){who}"


def started_by_nobody(old: TokenExchanged1) -> TokenExchanged:
    """The event in today's shape."""
    return TokenExchanged(
        token=old.token,
        subject=old.subject,
        secret_sha256=old.secret_sha256,
        grants=old.grants,
        expires_at=old.expires_at,
        rule=old.rule,
        issuer=old.issuer,
        claims=old.claims,
        started_by=(),
    )


class AliasNamed(Event, frozen=True, kw_only=True, tag="access.alias-named/1"):
    """Said again by somebody else, it is confirmed."""

    alias: str
    subject: str

    def summary(self) -> str:
        return f"{self.subject} stands behind {self.alias}"


class AliasRemoved(Event, frozen=True, kw_only=True, tag="access.alias-removed/1"):
    alias: str
    subject: str
    reason: str

    def summary(self) -> str:
        return f"{self.subject} no longer stands behind {self.alias}" + _because(self.reason)


class TokenRevoked(Event, frozen=True, kw_only=True, tag="access.token-revoked/1"):
    token: str
    subject: str
    reason: str

    def summary(self) -> str:
        return f"token {self.token} of {self.subject} revoked" + _because(self.reason)


class FederationRuleAdded(Event, frozen=True, kw_only=True, tag="access.federation-rule-added/1"):
    rule: str
    issuer: str
    claims: dict[str, str]
    subject: str
    namespace: str
    grants: tuple[Grant, ...]
    lifetime_s: int

    def summary(self) -> str:
        return f"jobs of {self.issuer} with {_bearing(self.claims)} act as {self.subject} (rule {self.rule})"


class FederationRuleRemoved(Event, frozen=True, kw_only=True, tag="access.federation-rule-removed/1"):
    rule: str
    subject: str

    def summary(self) -> str:
        return f"federation rule {self.rule} of {self.subject} removed"


class FirstAdminNamed(Event, frozen=True, kw_only=True, tag="access.first-admin-named/1"):
    subject: str

    def summary(self) -> str:
        return f"{self.subject} is admin, as the hub's configuration says"


def _bearing(claims: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(claims.items()))


def _shown(namespace: str) -> str:
    return "everything" if namespace == ANY else namespace


def _because(reason: str) -> str:
    return f": {' '.join(reason.split())}" if reason else ""
