"""The identity of a team's hub, from the table `[identity]` of its configuration: who is let in, and how."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from lockgate.access.decide import DEFAULT_TOKEN_DAYS, MAX_TOKEN_DAYS
from lockgate.access.subjects import is_person
from lockgate.adapters.identity.authenticate import ACTOR_HEADER, Authenticator
from lockgate.adapters.identity.browser import BrowserLogin
from lockgate.adapters.identity.federation import Exchange
from lockgate.adapters.identity.logins import TOKEN_VARIABLE
from lockgate.adapters.identity.oidc import CiSystem, Provider, check_issuer
from lockgate.core.clock import Clock
from lockgate.core.errors import Forbidden, Invalid
from lockgate.core.messages import Command, Receipt
from lockgate.hub.authority import Session
from lockgate.hub.ports import Store


class IdentityInvalid(Invalid):
    """The table `[identity]` would let in somebody it does not mean."""

    code = "identity.config-invalid"


class IdentityOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[identity]`.

    Attributes:
        admins: who is made admin at the first login, because nobody else is there to give the role.
        token_days: how long a token may live.
        providers: where people log in.
        ci: whose jobs may exchange their identity tokens, by rules of the journal.
        console: the address of this hub in browsers, if people may log in at the hub itself.
    """

    admins: tuple[str, ...] = ()
    token_days: int = DEFAULT_TOKEN_DAYS
    providers: tuple[Provider, ...] = ()
    ci: tuple[CiSystem, ...] = ()
    console: str = ""


def check_options(options: IdentityOptions) -> IdentityOptions:
    """Return the options when they are safe.

    Raises:
        IssuerInvalid, IdentityInvalid.
    """
    for issuer in (*(one.issuer for one in options.providers), *(one.issuer for one in options.ci)):
        check_issuer(issuer)
    for admin in options.admins:
        if not is_person(admin):
            raise _invalid(
                f"identity.admins: {admin!r} names no person", "write names or addresses in small letters"
            )
    if options.console and (check_issuer(options.console).count("/") != 2 or options.console.endswith("/")):
        raise _invalid(
            f"identity.console: {options.console!r} is no origin", "write https://HOST, without a path"
        )
    if not 1 <= options.token_days <= MAX_TOKEN_DAYS:
        raise _invalid("identity.token_days is out of bounds", f"write 1 to {MAX_TOKEN_DAYS}")
    issuers = [one.issuer for one in options.providers]
    if len(set(issuers)) != len(issuers):
        raise _invalid("two of identity.providers are the same issuer", "keep one of them")
    # Two providers that may name the same person would each be able to act as the people of the other.
    domains = [domain for one in options.providers for domain in one.domains]
    if len(issuers) > 1 and (
        not all(one.domains for one in options.providers) or len(set(domains)) != len(domains)
    ):
        raise _invalid(
            "several identity.providers may vouch for the same address",
            "give each its own domains = [...]",
        )
    return options


def _invalid(message: str, remedy: str) -> IdentityInvalid:
    return IdentityInvalid(message, remedy=remedy)


class NobodyHere(Forbidden):
    """Whoever works on the machine of a hub that proves names has to prove his, too."""

    code = "identity.nobody-here"


@dataclass(frozen=True)
class Identity:
    """What a hub's HTTP server needs to know people and jobs.

    Attributes:
        authenticate: the session of a request, from its headers.
        exchange: a token for a CI job, from the form it sent.
        offered: where people log in; public.
        browser: logins at the hub itself; None without a console.
    """

    authenticate: Authenticator
    exchange: Exchange
    offered: bytes
    browser: BrowserLogin | None = None


def on_this_machine(identity: Identity, claim: str, insists: bool) -> Session:
    """The session of whoever works on the machine of a hub, by the token in LOCKGATE_TOKEN.

    He can read and write the store by other means, too. What is decided in it is decided in a name that is proven all
    the same, by the roles that name has: the journal says nothing of people that nobody proved.

    Raises:
        NobodyHere: there is no token.
        ClaimRefused, Unauthenticated, ProviderDown: as for any request.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not (token or insists):
        raise NobodyHere(
            "this hub proves names, on its own machine as well",
            remedy=f"set {TOKEN_VARIABLE} to a token of a person or service account with the role for it",
        )
    shown = {ACTOR_HEADER: claim} if insists else {}
    return identity.authenticate({"authorization": f"Bearer {token}", **shown})


def open_identity(
    options: IdentityOptions,
    store: Store,
    clock: Clock,
    *,
    execute: Callable[[Session, Command], Receipt],
    new_id: Callable[[], str],
) -> Identity:
    """The identity of a hub over `store`. No provider is asked before somebody comes with its token.

    Args:
        execute: carries out a command in a session of the hub itself.

    Raises:
        IssuerInvalid, IdentityInvalid.
    """
    check_options(options)
    authenticate = Authenticator(
        store.journal,
        store.usage,
        clock,
        people=options.providers,
        admins=options.admins,
        console=options.console,
        execute=execute,
        new_id=new_id,
    )
    exchange = Exchange(
        store.journal,
        clock,
        systems=options.ci,
        execute=execute,
        new_id=new_id,
        tell=authenticate.tell,
    )
    browser = BrowserLogin(options.providers, options.console) if options.console else None
    offered = msgspec.json.encode({"providers": options.providers})
    return Identity(authenticate, exchange, offered, browser)
