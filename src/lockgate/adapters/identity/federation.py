"""Turning the identity token of a CI job into a short-lived token of a service account (after RFC 8693).

Which issuers there are, the hub's configuration says; a rule of the journal can name no other, so nobody makes the
hub fetch keys from a place of his choice. The job's token is checked first; whose job it is, and whether a rule lets
it in, is told only to whoever shows a token that holds. The new token's id is derived from the job's, so the same
one is not exchanged twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from lockgate.access.decide import meets
from lockgate.access.messages import ExchangeToken
from lockgate.access.state import FEDERATION, TOKEN, FederationState
from lockgate.access.tokens import Token, secret_hash
from lockgate.adapters.identity.authenticate import issuer_of
from lockgate.adapters.identity.minting import token_named
from lockgate.adapters.identity.oidc import CiSystem, Issuer, NotProven
from lockgate.core.clock import Clock
from lockgate.core.errors import Forbidden, Invalid
from lockgate.core.messages import Command, Receipt
from lockgate.hub.authority import Session, Unauthenticated, controller
from lockgate.hub.kernel import read_body
from lockgate.hub.ports import Journal

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
SUBJECT_TYPES = (
    "urn:ietf:params:oauth:token-type:id_token",
    "urn:ietf:params:oauth:token-type:jwt",
)
_SYSTEM = controller("lockgate-hub")
# What an identity token calls the person who started its job, and how such names are written here.
_STARTED_BY = {"user_email": "", "actor": "github:", "user_login": "gitlab:"}
# Said of a job, in the order in which a person would look for what is wrong.
_TOLD = ("repository", "ref", "workflow", "environment", "project_path", "sub")


class ExchangeMalformed(Invalid):
    code = "identity.exchange-malformed"


class ExchangeRefused(Forbidden):
    """The job is who it says it is, and no rule lets it in; or it was let in before."""

    code = "identity.exchange-refused"


class Exchanged(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of RFC 8693, section 2.2.1."""

    access_token: str
    expires_in: int
    issued_token_type: str = "urn:ietf:params:oauth:token-type:access_token"
    token_type: str = "Bearer"


class Exchange:
    """Exchanges tokens. Safe for threads.

    Args:
        execute: carries out a command of the hub itself.
        tell: told why a token proved nobody, for log and counters.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        *,
        systems: Sequence[CiSystem],
        execute: Callable[[Session, Command], Receipt],
        new_id: Callable[[], str],
        tell: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._issuers = {one.issuer: Issuer(one.issuer, one.audience) for one in systems}
        self._execute = execute
        self._new_id = new_id
        self._tell = tell

    def __call__(self, form: Mapping[str, str]) -> Exchanged:
        """The token for a job.

        Args:
            form: `grant_type`, `subject_token`, `subject_token_type`; `audience` names the service account, where
                rules for several let the job in.

        Raises:
            ExchangeMalformed: the form asks for something else.
            Unauthenticated: the job's token proves nothing.
            ExchangeRefused: no rule lets the job in, several do, or its token was exchanged before.
            ProviderDown: whether it proves something cannot be said now.
        """
        if form.get("grant_type") != GRANT_TYPE or form.get("subject_token_type") not in SUBJECT_TYPES:
            raise ExchangeMalformed(
                "this is no exchange of an identity token",
                remedy=f"send grant_type={GRANT_TYPE} and subject_token_type={SUBJECT_TYPES[0]}",
            )
        shown = form.get("subject_token", "")
        try:
            issuer = self._issuers.get(issuer_of(shown))
            if issuer is None:
                raise NotProven("issuer")
            claims = issuer.claims(shown)
        except NotProven as refused:
            self._tell(f"exchange-{refused.why}")
            raise Unauthenticated(
                "nobody is proven by this request", remedy="send the identity token of the CI job, fresh"
            ) from None
        texts = {name: value for name, value in claims.items() if isinstance(value, str)}
        rule = self._rule(issuer.issuer, texts, form.get("audience", ""))
        return self._exchanged(rule, texts, token_named(_named(issuer.issuer, claims, shown)))

    def _rule(self, issuer: str, claims: Mapping[str, str], account: str) -> FederationState:
        stored = self._journal.documents(FEDERATION.name, state="active")
        rules = [read_body(FEDERATION, one) for one in stored]
        fitting = [
            one
            for one in rules
            if one.issuer == issuer and meets(claims, one.claims) and account in ("", one.subject)
        ]
        accounts = sorted({one.subject for one in fitting})
        if len(accounts) == 1:
            return fitting[0]
        self._tell("exchange-rule")
        job = ", ".join(f"{name} {claims[name]}" for name in _TOLD if name in claims)
        if accounts:
            raise ExchangeRefused(
                f"rules for several accounts let this job in: {', '.join(accounts)}",
                remedy="send audience=ACCOUNT",
                accounts=accounts,
            )
        raise ExchangeRefused(
            f"no rule lets this job in: {job}",
            remedy="ask an admin: lockgate access federate",
            issuer=issuer,
        )

    def _exchanged(self, rule: FederationState, claims: Mapping[str, str], token: Token) -> Exchanged:
        receipt = self._execute(
            _SYSTEM,
            ExchangeToken(
                id=self._new_id(),
                rule=rule.rule,
                issuer=rule.issuer,
                claims={name: claims[name] for name in rule.claims},
                token=token.id,
                secret_sha256=secret_hash(token.secret),
                started_by=tuple(started_by(claims)),
            ),
        )
        if receipt.refusal is not None:
            reason = receipt.refusal.reasons[0]
            raise ExchangeRefused(reason.message, remedy=reason.remedy or "ask an admin", rule=reason.rule)
        stored = self._journal.document(TOKEN.name, token.id)
        assert stored is not None, "an exchange that was not refused leaves its token"
        left = read_body(TOKEN, stored).expires_at - self._clock.now()
        return Exchanged(access_token=str(token), expires_in=max(left // 1_000_000, 0))


def started_by(claims: Mapping[str, str]) -> Iterator[str]:
    """What a job's verified claims call the person who started it; nothing when they name nobody.

    Sources: GitHub, "About security hardening with OpenID Connect" (`actor`); GitLab, "ID token authentication"
    (`user_login`, `user_email`).
    """
    for claim, prefix in _STARTED_BY.items():
        value = claims.get(claim, "")
        if value and (prefix or "@" in value):
            yield f"{prefix}{value}".lower()[:120]


def _named(issuer: str, claims: Mapping[str, Any], shown: str) -> bytes:
    """The same for one identity token, whatever is done to its text: its `jti`, or what was signed."""
    return f"{issuer}\0{claims.get('jti') or shown.rpartition('.')[0]}".encode()
