"""Logging in with a browser at the hub itself: the pieces that a console needs.

The hub sends the browser to the provider and takes it back (authorisation code, PKCE S256, `state`, `nonce`). What it
was sent off with lies in a cookie of its own for ten minutes. The session is the provider's identity token in a cookie
that no script reads and no other site sends: the hub keeps nothing, verifies it at every request like any other proof,
and it ends when the token does.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple

import msgspec

from lockgate.adapters.identity.login import Attempt, Flow, LoginFailed, NoProvider, new_attempt
from lockgate.adapters.identity.oidc import Provider
from lockgate.core.errors import Invalid

LOGIN = "/v1/login"
CALLBACK = f"{LOGIN}/callback"
_LOGIN_COOKIE = "lockgate_login"
_LOGIN_S = 600
# Browsers keep cookies of up to 4,096 bytes, attributes included.
_MAX_COOKIE = 3_900


class WayBackRefused(Invalid):
    """A login would lead to a page of somebody else."""

    code = "identity.way-back"


class CookieOf(NamedTuple):
    name: str
    value: str
    path: str
    max_age_s: int
    is_secure: bool


class Step(NamedTuple):
    """Where the browser goes next, and the cookies it takes along."""

    to: str
    cookies: tuple[CookieOf, ...]


class _Kept(msgspec.Struct, frozen=True):
    """What is known of an attempt while the browser is away."""

    attempt: Attempt
    issuer: str
    to: str


class BrowserLogin:
    """The three steps. Safe for threads.

    Args:
        address: of the hub as browsers know it, `https://lockgate.example.org`.
    """

    def __init__(self, people: tuple[Provider, ...], address: str) -> None:
        self._people = {one.issuer: one for one in people}
        self._address = address

    def begin(self, query: Mapping[str, str]) -> Step:
        """Off to the provider; `to` is where it ends, `issuer` which provider, where there are several.

        Raises:
            WayBackRefused, NoProvider, ProviderDown, FlowUnsupported.
        """
        to = query.get("to", "/")
        if not to.startswith("/") or to[1:2] in ("/", "\\") or not to.isprintable() or "\\" in to:
            raise WayBackRefused(f"a login does not end at {to!r}", remedy="name a path of this hub", to=to)
        issuer = query.get("issuer") or next(iter(self._people), "")
        provider, attempt = self._provider(issuer), new_attempt()
        kept = base64.urlsafe_b64encode(msgspec.json.encode(_Kept(attempt, issuer, to))).decode()
        url = Flow(provider, tell=_say_nothing).asking(attempt, self._address + CALLBACK)
        return Step(url, (self._cookie(_LOGIN_COOKIE, kept, LOGIN, _LOGIN_S),))

    def finish(self, query: Mapping[str, str], cookies: str) -> Step:
        """Back from the provider.

        Raises:
            LoginFailed: this browser began no such login, or the provider refused.
            ProviderDown, LoginTimedOut.
        """
        shown = cookies_of({"cookie": cookies}).get(_LOGIN_COOKIE, "")
        try:
            kept = msgspec.json.decode(base64.urlsafe_b64decode(shown), type=_Kept)
        except (ValueError, msgspec.MsgspecError):
            raise LoginFailed("this browser began no login", remedy="log in again") from None
        flow = Flow(self._provider(kept.issuer), tell=_say_nothing)
        login = flow.answered(kept.attempt, self._address + CALLBACK, query)
        if len(login.id_token) > _MAX_COOKIE:
            raise LoginFailed(
                f"the token of {kept.issuer} is too long for a cookie",
                remedy="let the provider name fewer groups",
                n_bytes=len(login.id_token),
            )
        left = max(int(login.expires_at - time.time()), 0)
        name = cookie_name(self._address)
        return Step(
            kept.to,
            (self._cookie(name, login.id_token, "/", left), self._cookie(_LOGIN_COOKIE, "", LOGIN, 0)),
        )

    def end(self) -> Step:
        return Step("/", (self._cookie(cookie_name(self._address), "", "/", 0),))

    def _provider(self, issuer: str) -> Provider:
        provider = self._people.get(issuer)
        if provider is None:
            raise NoProvider(
                f"nobody logs in at {issuer!r} here", remedy="leave the issuer out", issuer=issuer
            )
        # No refresh token is wanted here: the session ends with the token, and the provider remembers the person.
        return msgspec.structs.replace(
            provider, scopes=tuple(scope for scope in provider.scopes if scope != "offline_access")
        )

    def _cookie(self, name: str, value: str, path: str, max_age_s: int) -> CookieOf:
        return CookieOf(name, value, path, max_age_s, self._address.startswith("https:"))


def cookie_name(address: str) -> str:
    """Of the session. Over https the prefix makes browsers refuse one that another host, or plain http, has set."""
    return "__Host-lockgate" if address.startswith("https:") else "lockgate"


def cookies_of(headers: Mapping[str, str]) -> Mapping[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _say_nothing(line: str) -> None:
    """A browser is told by where it is sent."""
