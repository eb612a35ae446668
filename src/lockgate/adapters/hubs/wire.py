"""Speaking to a hub over HTTP: who speaks, sending again, and errors out of problem documents.

Whoever has a token proves a name with it; without one a name is claimed, which only a hub on this machine believes.
Errors come as RFC 9457 problem documents and are raised as the first-level class of the error tree that the document
names, with its code, facts and remedy; nothing from the wire is ever looked up or imported by name.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from lockgate.core.errors import (
    Bug,
    Conflict,
    Corrupt,
    Forbidden,
    Invalid,
    LockgateError,
    NotFound,
    Unavailable,
    Unsupported,
)

ACTOR_HEADER = "Lockgate-Actor"
_N_TRIES = 2
# A promotion waits for the data plane for up to a minute.
_PATIENCE_S = 120.0
_CONNECT_PATIENCE_S = 5.0
# A hub that says "not so fast" is obeyed, for so long and so often.
_MAX_WAIT_S = 5.0
_N_WAITS = 5

_BY_KIND: dict[str, type[LockgateError]] = {
    each.code: each
    for each in (Invalid, NotFound, Conflict, Forbidden, Unsupported, Unavailable, Corrupt, Bug)
}
_BY_STATUS: dict[int, type[LockgateError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    405: Unsupported,
    409: Conflict,
    415: Unsupported,
    500: Bug,
    501: Unsupported,
}


_EXECUTE = "/v1/execute"


class HubUnreachable(Unavailable):
    """No answer came. A command may have been carried out all the same; sending it again with its id tells."""

    code = "hub.unreachable"


class HubUntrusted(Unavailable):
    """Whoever answers does not show a certificate that this machine trusts. Nothing was sent."""

    code = "hub.untrusted"
    retryable = False


class HubAddressInvalid(Invalid):
    code = "hub.address-invalid"


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a problem document; `kind` and `code` are ours, a proxy in between knows neither."""

    code: str = ""
    kind: str = ""
    title: str = ""
    detail: str = ""
    remedy: str = ""
    facts: dict[str, Any] = {}
    retryable: bool | None = None


class Wire:
    """A connection to a hub. Safe for threads.

    Args:
        url: `http://127.0.0.1:8650`, as `lockgate up` prints it.
        actor: the name to claim where nobody has to prove one.
        token: gives what proves the name, asked before each request; it wins over `actor`.

    Raises:
        HubAddressInvalid: the URL is no http or https address.
    """

    def __init__(self, url: str, *, actor: str = "", token: Callable[[], str] | None = None) -> None:
        self.url = _checked(url)
        self._actor = actor
        self._token = token
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(_PATIENCE_S, connect=_CONNECT_PATIENCE_S),
            # Neither a proxy nor a .netrc of this machine has a say in who hears the actor's name.
            trust_env=False,
            # The certificates of this machine, or SSL_CERT_FILE; reading them costs more than a whole request.
            verify=ssl.create_default_context() if self.url.startswith("https:") else False,
        )

    def close(self) -> None:
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        content: Callable[[], bytes | Iterable[bytes]] = bytes,
        headers: dict[str, str] | None = None,
        fine: tuple[int, ...] = (200,),
        stream: bool = False,
        again: bool = True,
    ) -> httpx.Response:
        """Send a request; a streamed answer is the caller's to close.

        Args:
            content: makes the body, anew each time.
            fine: the statuses that are an answer.
            again: whether it may be sent once more as it is, when the connection broke.
        Raises:
            HubUnreachable: nobody answered.
            HubUntrusted: over https, somebody whom this machine does not trust.
            LockgateError: what the hub raised, as its first-level class with its code.
        """
        for _ in range(_N_WAITS):
            response = self._try(method, path, content, headers or {}, stream, again)
            if response.status_code in fine:
                return response
            response.read()
            response.close()
            wait_s = _asked_to_wait(response)
            if wait_s is None:
                break
            time.sleep(wait_s)
        raise raised(response)

    def _try(
        self,
        method: str,
        path: str,
        content: Callable[[], bytes | Iterable[bytes]],
        headers: dict[str, str],
        stream: bool,
        again: bool,
    ) -> httpx.Response:
        failure: httpx.TransportError | None = None
        for _ in range(_N_TRIES if again else 1):
            request = self._client.build_request(
                method, path, content=content(), headers={**self._identity(), **headers}
            )
            try:
                return self._client.send(request, stream=stream)
            except httpx.TimeoutException as error:
                failure = error
                break
            except httpx.TransportError as error:
                failure = error
        raise self.unreachable(failure, maybe_done=path == _EXECUTE) from failure

    def unreachable(self, failure: Exception | None, *, maybe_done: bool = False) -> Unavailable:
        """The error to raise; `maybe_done` when what was sent changes something, and may have arrived."""
        refused = _refused_certificate(failure)
        if refused is not None:
            return HubUntrusted(
                f"{self.url} shows a certificate that is not trusted here: {refused.verify_message}",
                remedy="if its authority is your own: SSL_CERT_FILE=ca.pem; else ask who operates the hub",
                url=self.url,
            )
        remedy = "check that the hub runs there, then try again"
        if maybe_done and not isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout):
            remedy = "it may have been done all the same: look first (lockgate status), then try again"
        elif isinstance(failure, httpx.RemoteProtocolError) and self.url.startswith("http:"):
            remedy = f"if it shows a certificate: https{self.url.removeprefix('http')}; else check that it runs there"
        return HubUnreachable(
            f"no answer from the hub at {self.url}: {failure or 'unknown'}", remedy=remedy, url=self.url
        )

    def _identity(self) -> dict[str, str]:
        if self._token is not None:
            return {"Authorization": f"Bearer {self._token()}"}
        return {ACTOR_HEADER: quote(self._actor, safe="@ ")}


def _refused_certificate(failure: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What lies behind the error of the HTTP library, which keeps the words and drops the kind."""
    while failure is not None and not isinstance(failure, ssl.SSLCertVerificationError):
        failure = failure.__cause__ or failure.__context__
    return failure


def _asked_to_wait(response: httpx.Response) -> float | None:
    """How long a hub wants this side to wait; None when that is too long, or not what it said."""
    named = response.headers.get("retry-after", "")
    if response.status_code != 429 or not named.isdecimal() or float(named) > _MAX_WAIT_S:
        return None
    return float(named)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise HubAddressInvalid(
            f"{url!r} is not the address of a hub",
            remedy="write https://HOST, or http://127.0.0.1:PORT",
            url=url,
        )
    return url.rstrip("/")


def raised(response: httpx.Response) -> LockgateError:
    """The error a response stands for, of a first-level class."""
    try:
        found = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.MsgspecError:
        found = _Problem()
    level = _BY_KIND.get(found.kind) or _by_status(response.status_code)
    code = found.code or level.code
    retryable = level.retryable if found.retryable is None else found.retryable
    # A class of its own carries the code; `code` belongs to classes, and the wire must not choose one of ours.
    remote: type[LockgateError] = type(level.__name__, (level,), {"code": code, "retryable": retryable})
    return remote(
        found.detail or found.title or f"the hub answered with status {response.status_code}",
        remedy=found.remedy or "try again, or look into the hub's log",
        **_named(found.facts),
    )


def _named(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts travel as keyword arguments; one that would pass for the message or the remedy is left out."""
    return {name: value for name, value in facts.items() if name not in ("self", "message", "remedy")}


def _by_status(status: int) -> type[LockgateError]:
    return _BY_STATUS.get(status) or (Invalid if status < 500 else Unavailable)
