"""Logging in at a hub: a person proves himself to the hub's identity provider, and this machine gets the token.

Two ways. With a browser on this machine the provider sends it back to a port of the loopback interface (RFC 8252),
bound to this attempt by PKCE (RFC 7636, S256), `state` and `nonce`. Without one, the person types a short code on
any device (RFC 8628). The token that comes is verified here as the hub will verify it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import msgspec

from lockgate.adapters.identity.logins import Login, check_secure, expiry_of
from lockgate.adapters.identity.oidc import Issuer, NotProven, Provider, check_issuer, discover
from lockgate.core.errors import Forbidden, LockgateError, Unavailable, Unsupported

_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_PATIENCE_S = 10.0
_WAIT_S = 300.0
_DEFAULT_INTERVAL_S = 5.0


class NoProvider(Unsupported):
    """The hub knows no identity provider, so nobody can log in there."""

    code = "identity.no-provider"


class LoginFailed(Forbidden):
    code = "identity.login-failed"


class LoginTimedOut(Unavailable):
    code = "identity.login-timed-out"


class FlowUnsupported(Unsupported):
    code = "identity.flow-unsupported"


class _Offered(msgspec.Struct, frozen=True):
    providers: tuple[Provider, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    """What a token endpoint answers, in both senses."""

    id_token: str = ""
    refresh_token: str = ""
    error: str = ""
    error_description: str = ""


class Attempt(msgspec.Struct, frozen=True):
    """What binds an answer to the question: to whoever asked (`verifier`), to the browser, to the token."""

    verifier: str
    state: str
    nonce: str

    def __repr__(self) -> str:
        return "Attempt()"


def new_attempt() -> Attempt:
    return Attempt(*(secrets.token_urlsafe(32) for _ in range(3)))


def provider_of(hub: str, said: Callable[[], bytes], issuer: str | None = None) -> Provider:
    """The provider at which people log in to a hub, as the hub says; the one of `issuer` where there are several.

    Args:
        said: asks the hub at `/v1/identity`; called when the way there is one that a token may take.
    Raises:
        HubInsecure, NoProvider; what `said` raises.
    """
    check_secure(hub)
    try:
        offered = msgspec.json.decode(said(), type=_Offered)
    except msgspec.MsgspecError:
        offered = _Offered()
    found = [one for one in offered.providers if issuer in (None, one.issuer)]
    if not found:
        known = ", ".join(one.issuer for one in offered.providers)
        raise NoProvider(
            f"{hub} offers no login" + (f" at {issuer}" if issuer else ""),
            remedy=f"choose --issuer of {known}" if known else "set LOCKGATE_TOKEN to a token of that hub",
            hub=hub,
        )
    return found[0]


class Flow:
    """One attempt to log in.

    Args:
        tell: told what the person has to do, one line at a time.
        pause: waits so many seconds between two questions to the provider.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        tell: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._provider = provider
        self._tell = tell
        self._pause = pause
        self._said = discover(provider.issuer)

    def by_device(self) -> Login:
        """Raises `FlowUnsupported`, `LoginFailed`, `LoginTimedOut`."""
        form = {"client_id": self._provider.client_id, "scope": " ".join(self._provider.scopes)}
        begun = self._post("device_authorization_endpoint", form)
        shown = begun.get("verification_uri_complete") or begun.get("verification_uri")
        if not isinstance(begun.get("device_code"), str) or not shown:
            raise LoginFailed(
                f"{self._provider.issuer} gave no code: {begun.get('error', 'it said something else')}",
                remedy="leave out --device, or look after the client at the provider",
            )
        self._tell(f"open {shown}")
        self._tell(f"code {begun.get('user_code')}")
        interval = float(begun.get("interval") or _DEFAULT_INTERVAL_S)
        until = time.monotonic() + min(float(begun.get("expires_in") or _WAIT_S), 2 * _WAIT_S)
        form = {
            "grant_type": _DEVICE,
            "device_code": begun["device_code"],
            "client_id": self._provider.client_id,
        }
        while time.monotonic() < until:
            self._pause(interval)
            answer = msgspec.convert(self._post("token_endpoint", form), _Answer)
            if answer.error == "slow_down":
                interval += 5
            elif answer.error != "authorization_pending":
                return self._login(answer, nonce=None)
        raise _timed_out()

    def by_browser(self, show: Callable[[str], None]) -> Login:
        """Let `show` open the provider's page; its answer comes to a port of this machine.

        Raises:
            FlowUnsupported, LoginFailed, LoginTimedOut.
        """
        attempt = new_attempt()
        with _Callback() as callback:
            show(self.asking(attempt, callback.url))
            answered = callback.wait(attempt.state)
        return self.answered(attempt, callback.url, answered)

    def asking(self, attempt: Attempt, redirect: str) -> str:
        """The provider's page for an attempt, which sends the browser back to `redirect`.

        Raises `FlowUnsupported`.
        """
        challenge = base64.urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).rstrip(b"=")
        asked = {
            "response_type": "code",
            "client_id": self._provider.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(self._provider.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        if "offline_access" in self._provider.scopes:
            # Without it, a provider keeps no refresh token for an application like this one.
            asked["prompt"] = "consent"
        return f"{self._endpoint('authorization_endpoint')}?{urlencode(asked)}"

    def answered(self, attempt: Attempt, redirect: str, query: Mapping[str, str]) -> Login:
        """The login that the browser brought back in the query of `redirect`.

        Raises:
            LoginFailed: it is not the answer to this attempt, or the provider refused.
            LoginTimedOut: the provider does not answer.
        """
        mine = hmac.compare_digest(query.get("state", "").encode(), attempt.state.encode())
        if not mine or query.get("iss", self._provider.issuer) != self._provider.issuer:
            raise LoginFailed("that is the answer to another login", remedy="log in again")
        if "code" not in query:
            why = query.get("error_description") or query.get("error") or "it said nothing"
            raise LoginFailed(f"the provider gave no code: {why}", remedy="log in again")
        form = {
            "grant_type": "authorization_code",
            "code": query["code"],
            "redirect_uri": redirect,
            "client_id": self._provider.client_id,
            "code_verifier": attempt.verifier,
        }
        answer = msgspec.convert(self._post("token_endpoint", form), _Answer)
        return self._login(answer, nonce=attempt.nonce)

    def _login(self, answer: _Answer, *, nonce: str | None) -> Login:
        """The login that an answer brings, its token verified."""
        if answer.error or not answer.id_token:
            why = answer.error_description or answer.error or "there is no identity token in its answer"
            raise LoginFailed(f"{self._provider.issuer} refused: {why}", remedy="lockgate login")
        try:
            issuer = Issuer(self._provider.issuer, self._provider.client_id)
            claims = issuer.claims(answer.id_token)
        except NotProven as error:
            raise LoginFailed(
                f"the token of {self._provider.issuer} does not hold: {error.why}",
                remedy="compare the clocks, and the client in the hub's configuration",
            ) from None
        if nonce is not None and not hmac.compare_digest(str(claims.get("nonce", "")), nonce):
            raise LoginFailed("the token belongs to another login", remedy="lockgate login")
        return Login(
            issuer=self._provider.issuer,
            client_id=self._provider.client_id,
            token_endpoint=self._endpoint("token_endpoint"),
            id_token=answer.id_token,
            refresh_token=answer.refresh_token,
            expires_at=expiry_of(answer.id_token),
        )

    def _endpoint(self, name: str) -> str:
        found = self._said.get(name)
        if not isinstance(found, str):
            raise FlowUnsupported(
                f"{self._provider.issuer} has no {name}",
                remedy="leave out --device" if "device" in name else "lockgate login --device",
                issuer=self._provider.issuer,
            )
        check_issuer(found.partition("?")[0])
        return found

    def _post(self, endpoint: str, form: Mapping[str, Any]) -> dict[str, Any]:
        url = self._endpoint(endpoint)
        secure = url.startswith("https:")
        try:
            response = httpx.post(url, data=form, timeout=_PATIENCE_S, verify=secure, trust_env=secure)
            return msgspec.json.decode(response.content, type=dict[str, Any])
        except (httpx.HTTPError, msgspec.MsgspecError):
            # The exception may hold the request, and with it the code.
            raise LoginTimedOut(
                f"{self._provider.issuer} does not answer", remedy="try again", issuer=self._provider.issuer
            ) from None


def revoke(login: Login) -> None:
    """Tell the provider that a login has ended, where it wants to know (RFC 7009).

    Raises:
        LockgateError: it could not be told.
    """
    endpoint = discover(login.issuer).get("revocation_endpoint")
    if not isinstance(endpoint, str) or not login.refresh_token:
        return
    check_issuer(endpoint)
    form = {
        "token": login.refresh_token,
        "token_type_hint": "refresh_token",
        "client_id": login.client_id,
    }
    secure = endpoint.startswith("https:")
    try:
        httpx.post(endpoint, data=form, timeout=_PATIENCE_S, verify=secure, trust_env=secure)
    except httpx.HTTPError:
        raise LoginTimedOut(f"{login.issuer} does not answer", remedy="try again") from None


def _timed_out() -> LockgateError:
    return LoginTimedOut("nobody logged in in time", remedy="lockgate login")


class _Callback(HTTPServer):
    """Waits on the loopback interface for the browser to come back, once, with the `state` it was sent off with."""

    timeout = 1.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Returned)
        self.answered: dict[str, str] = {}
        self.state = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/callback"

    def wait(self, state: str) -> Mapping[str, str]:
        self.state = state
        until = time.monotonic() + _WAIT_S
        while not self.answered and time.monotonic() < until:
            self.handle_request()
        if not self.answered:
            raise _timed_out()
        return self.answered


class _Returned(BaseHTTPRequestHandler):
    server: _Callback
    timeout = 5

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        mine = parts.path == "/callback" and hmac.compare_digest(
            query.get("state", "").encode(), self.server.state.encode()
        )
        if mine:
            self.server.answered = query
        said = (
            b"You may close this window and go back to the terminal.\n"
            if mine
            else b"Nobody waits for this.\n"
        )
        self.send_response(200 if mine else 404)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(said)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the request line holds the code."""
