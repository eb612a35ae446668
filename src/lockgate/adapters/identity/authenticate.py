"""Who sends a request to a team's hub: a token of this hub, or the identity token of a provider it trusts.

What proves nobody is answered alike, whether it is unknown, expired, withdrawn or made up; the log and the counters
`unauthenticated.WHY` know more. Grants are read from the documents of the journal at every request, so that a
revocation counts at once, on every hub over the same store.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jwt

from lockgate.access.messages import NameFirstAdmin, NoteAddress
from lockgate.access.roles import narrowed
from lockgate.access.state import (
    ALIAS,
    FEDERATION,
    SUBJECT,
    TOKEN,
    SubjectState,
    TokenState,
    in_force,
    is_admin,
)
from lockgate.access.subjects import GROUP, alias_of, check_subject, is_alias, is_person, is_service
from lockgate.access.tokens import Token, is_valid, looks_like_token, parse_token
from lockgate.adapters.identity.browser import cookie_name, cookies_of
from lockgate.adapters.identity.oidc import Issuer, NotProven, Provider
from lockgate.core.clock import Clock, Micros
from lockgate.core.documents import DocumentKind
from lockgate.core.errors import Invalid, Unavailable
from lockgate.core.messages import Command
from lockgate.hub.authority import Session, Unauthenticated, controller
from lockgate.hub.kernel import body_of, read_body
from lockgate.hub.ports import Journal, Usage

ACTOR_HEADER = "lockgate-actor"
_SCHEME = "bearer "
_USED_EVERY: Micros = 60 * 1_000_000
_COUNTED_EVERY: Micros = 5 * 1_000_000
_MAX_GROUPS = 200
_MAX_USED = 10_000
_log = logging.getLogger("lockgate.identity")
_SYSTEM = controller("lockgate-hub")

D = TypeVar("D")


class ClaimRefused(Unauthenticated):
    """A name was claimed, where names are proven."""

    code = "identity.claim-refused"


class Authenticator:
    """Makes the session of a request from its headers. Safe for threads.

    Args:
        people: the providers that say who people are.
        console: the address at which a browser may show the cookie of a login; empty for none.
        admins: who the hub's configuration names as admin; each is made one at his first login, by an event.
        execute: carries out a command of the hub itself.
    """

    def __init__(
        self,
        journal: Journal,
        usage: Usage,
        clock: Clock,
        *,
        people: Sequence[Provider] = (),
        admins: Sequence[str] = (),
        console: str = "",
        execute: Callable[[Session, Command], Any],
        new_id: Callable[[], str],
    ) -> None:
        self._journal = journal
        self._usage = usage
        self._clock = clock
        self._people = {one.issuer: (one, Issuer(one.issuer, one.client_id)) for one in people}
        self._admins = frozenset(admins)
        self._console = console
        self._execute = execute
        self._new_id = new_id
        self._used_at: dict[str, Micros] = {}
        self._uncounted = Counter[str]()
        self._counted_at: Micros = 0
        self._lock = threading.Lock()

    def __call__(self, headers: Mapping[str, str]) -> Session:
        """The session of a request.

        Raises:
            Unauthenticated: nobody is proven; always in the same words.
            ClaimRefused: a name was claimed.
            ProviderDown: whether somebody is proven cannot be said now.
        """
        if ACTOR_HEADER in headers:
            self.tell("claimed")
            raise ClaimRefused(
                "this hub believes no name that is only claimed",
                remedy="lockgate login at this hub, or set LOCKGATE_TOKEN; leave out --as",
            )
        try:
            bearer = self._bearer(headers)
            return self._by_token(bearer) if looks_like_token(bearer) else self._by_login(bearer)
        except NotProven as refused:
            self.tell(refused.why)
            raise Unauthenticated(
                "nobody is proven by this request", remedy="lockgate login, or set LOCKGATE_TOKEN"
            ) from None

    def _bearer(self, headers: Mapping[str, str]) -> str:
        """What a request shows: its header, or the cookie that a login in the browser left."""
        shown = headers.get("authorization")
        if shown is not None:
            if not shown.lower().startswith(_SCHEME):
                raise NotProven("scheme")
            return shown[len(_SCHEME) :].strip()
        cookie = cookies_of(headers).get(cookie_name(self._console)) if self._console else None
        if cookie is None:
            raise NotProven("nothing")
        # A browser sends a cookie along with whatever a page makes it ask, so the page has to be the hub's own.
        if (
            headers.get("origin", self._console) != self._console
            or headers.get("sec-fetch-site") == "cross-site"
        ):
            raise NotProven("origin")
        return cookie

    def _by_token(self, bearer: str) -> Session:
        shown, now = parse_token(bearer), self._clock.now()
        known = None if shown is None else self._get(TOKEN, shown.id)
        # The work is the same for a token that nobody knows.
        if not is_valid(shown or Token("", bearer), known, now) or known is None:
            raise NotProven("token" if known is None else "token-ended")
        if known.rule and not self._stands(known):
            raise NotProven("token-ended")
        held = in_force((self._get(SUBJECT, known.subject),), now)
        self._note_use(known.token, now)
        return Session(
            actor=known.subject,
            grants=narrowed(held, known.grants) if known.grants else held,
            claimed=False,
            kind="service" if is_service(known.subject) else "person",
            credential=f"token:{known.token}",
            started_by=known.started_by,
        )

    def _stands(self, token: TokenState) -> bool:
        """Whether the rule that let a job in is still the one it was."""
        rule = self._get(FEDERATION, token.rule)
        return rule is not None and rule.removed_at is None and rule.added_at <= token.issued_at

    def _by_login(self, bearer: str) -> Session:
        provider, issuer = self._people.get(issuer_of(bearer), (None, None))
        if provider is None or issuer is None:
            raise NotProven("issuer")
        claims = issuer.claims(bearer)
        actor, groups = person_of(provider, claims), groups_of(provider, claims)
        subject = self._get(SUBJECT, actor)
        if actor in self._admins and self._is_to_be_named(subject):
            self._execute(_SYSTEM, NameFirstAdmin(id=self._new_id(), subject=actor))
            subject = self._get(SUBJECT, actor)
        self._note_address(actor, address_of(provider, claims))
        holders = (subject, *(self._get(SUBJECT, GROUP + group) for group in groups))
        return Session(
            actor=actor,
            grants=tuple(dict.fromkeys(in_force(holders, self._clock.now()))),
            claimed=False,
            credential=f"oidc:{provider.issuer}",
            groups=groups,
        )

    def _note_address(self, actor: str, address: str) -> None:
        """Keep whose address it is: commits bear it, and what he made must not be approved by him under his name."""
        known = self._get(ALIAS, address) if address and address != actor else None
        named = {one.subject for one in known.behind} if known else set()
        if address and address != actor and actor not in named:
            self._execute(_SYSTEM, NoteAddress(id=self._new_id(), alias=address, subject=actor))

    def _is_to_be_named(self, subject: SubjectState | None) -> bool:
        now = self._clock.now()
        if subject is None or subject.named_at is None:
            return not is_admin(subject, now)
        everybody = (read_body(SUBJECT, one) for one in self._journal.documents(SUBJECT.name))
        return not any(is_admin(one, now) for one in everybody)

    def _get(self, kind: DocumentKind[D], key: str) -> D | None:
        return body_of(self._journal, kind, key)

    def _note_use(self, token: str, now: Micros) -> None:
        """At most once a minute; a store that is busy does not keep anybody out."""
        with self._lock:
            if now - self._used_at.get(token, 0) < _USED_EVERY:
                return
            if len(self._used_at) >= _MAX_USED:
                self._used_at.clear()
            self._used_at[token] = now
        try:
            self._usage.used(token, now)
        except Unavailable as error:
            _log.warning("the use of token %s was not noted: %s", token, error)

    def tell(self, why: str) -> None:
        """Count somebody who proved nothing, without letting him make the store write each time."""
        _log.info("a request proved nobody: %s", why)
        with self._lock:
            self._uncounted[why] += 1
            now = self._clock.now()
            if now - self._counted_at < _COUNTED_EVERY:
                return
            self._counted_at = now
            counted, self._uncounted = self._uncounted, Counter()
        try:
            for name, n in counted.items():
                self._usage.count(f"unauthenticated.{name}", n)
        except Unavailable as error:
            _log.warning("unknown senders were not counted: %s", error)


def issuer_of(token: str) -> str:
    """Whose token it says to be; nothing is verified yet.

    Raises:
        NotProven: it is no identity token.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError) as error:
        raise NotProven("malformed") from error
    return str(claims.get("iss", ""))


def person_of(provider: Provider, claims: Mapping[str, Any]) -> str:
    """The name of a person, by verified claims.

    Raises:
        NotProven: the provider names nobody, an address it has not verified, or one that is not its to vouch for.
    """
    named = claims.get(provider.subject)
    if not isinstance(named, str):
        raise NotProven("name")
    if provider.subject == "email" and claims.get("email_verified") is not True:
        raise NotProven("name")
    name = named.lower() if "@" in named else named
    if provider.domains and name.rpartition("@")[2] not in provider.domains:
        raise NotProven("domain")
    if not is_person(name):
        raise NotProven("name")
    return name


def address_of(provider: Provider, claims: Mapping[str, Any]) -> str:
    """The address of a person as the provider has verified it; empty when it has not, or may not vouch for it."""
    address = claims.get("email")
    if not isinstance(address, str) or claims.get("email_verified") is not True:
        return ""
    address = alias_of(address)
    foreign = provider.domains and address.rpartition("@")[2] not in provider.domains
    return address if is_alias(address) and not foreign else ""


def groups_of(provider: Provider, claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The groups that could be given a role; of more than `_MAX_GROUPS`, none beyond."""
    listed = claims.get(provider.groups)
    names = sorted({one for one in listed if isinstance(one, str)}) if isinstance(listed, list) else []
    return tuple(name for name in names if _is_group(name))[:_MAX_GROUPS]


def _is_group(name: str) -> bool:
    try:
        check_subject(GROUP + name)
    except Invalid:
        return False
    return True
