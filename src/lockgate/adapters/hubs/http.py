"""`HttpHub`: the hub of another process, over two generic routes.

Whoever has a token proves a name with it; without one a name is claimed, which only a hub on this machine believes.
Either way the hub says who is speaking: `session` asks it.

The same typed messages travel as JSON under their tags. A command carries its id, so sending it again is always
safe: a broken connection is tried once more, and whoever still gets `HubUnreachable` may repeat the command and
will get the receipt of the first time if there was one.

Errors come as RFC 9457 problem documents and are raised as the first-level class of the error tree that the document
names, with its code, facts and remedy; nothing from the wire is ever looked up or imported by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from lockgate.core.digests import canonical
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
from lockgate.core.messages import Command, Query, Receipt
from lockgate.hub.authority import Session
from lockgate.hub.messages import WhoAmI, WhoAmIAnswer

ACTOR_HEADER = "Lockgate-Actor"
_N_TRIES = 2
# A promotion waits for the data plane for up to a minute.
_PATIENCE_S = 120.0
_CONNECT_PATIENCE_S = 5.0

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


class HubUnreachable(Unavailable):
    """No answer came. A command may have been carried out all the same; sending it again with its id tells."""

    code = "hub.unreachable"


class HubAddressInvalid(Invalid):
    code = "hub.address-invalid"


class HubAnswerUnreadable(Unavailable):
    """Something answered, but not a hub of this release."""

    code = "hub.answer-unreadable"
    retryable = False


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a problem document; `kind` and `code` are ours, a proxy in between knows neither."""

    code: str = ""
    kind: str = ""
    title: str = ""
    detail: str = ""
    remedy: str = ""
    facts: dict[str, Any] = {}
    retryable: bool | None = None


class HttpHub:
    """A `Hub` over HTTP. Safe for threads; one per actor.

    Args:
        url: `http://127.0.0.1:8650`, as `lockgate up` prints it.
        actor: the name to claim where nobody has to prove one.
        token: gives what proves the name, asked before each request; it wins over `actor`.

    Raises:
        HubAddressInvalid: the URL is no http or https address.
    """

    def __init__(self, url: str, *, actor: str = "", token: Callable[[], str] | None = None) -> None:
        self._url = _checked(url)
        self._actor = actor
        self._token = token
        self._client = httpx.Client(
            base_url=self._url,
            headers={"Content-Type": "application/json"},
            timeout=httpx.Timeout(_PATIENCE_S, connect=_CONNECT_PATIENCE_S),
            # Neither a proxy nor a .netrc of this machine has a say in who hears the actor's name.
            trust_env=False,
            # Reading the certificates of this machine costs more than the whole request.
            verify=self._url.startswith("https:"),
        )

    @cached_property
    def session(self) -> Session:
        """Who the hub takes this side for. Asked once; raises as `execute` does."""
        known: WhoAmIAnswer = self.ask(WhoAmI())
        return Session(actor=known.actor, grants=known.grants, claimed=known.claimed, kind=known.kind)

    def execute(self, command: Command) -> Receipt:
        """Carry a command through, at most once per id, however often it is sent.

        Raises:
            HubUnreachable: nobody answered.
            LockgateError: what the hub raised, as its first-level class with its code.
        """
        receipt: Receipt = self._post("/v1/execute", canonical(command), Receipt)
        return receipt

    def ask(self, query: Query) -> Any:
        """The answer, of the type that the query's class names. Raises as `execute` does."""
        return self._post("/v1/ask", canonical(query), type(query).answer)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> HttpHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, path: str, body: bytes, answer: Any) -> Any:
        response = self._send(path, body)
        if response.status_code != 200:
            raise _raised(response)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.MsgspecError as error:
            raise HubAnswerUnreadable(
                f"the answer of {self._url} cannot be read: {error}",
                remedy="use the same release of Lockgate on both sides",
                url=self._url,
            ) from error

    def _send(self, path: str, body: bytes) -> httpx.Response:
        failure: httpx.TransportError | None = None
        for _ in range(_N_TRIES):
            try:
                return self._client.post(path, content=body, headers=self._identity())
            except httpx.TimeoutException as error:
                failure = error
                break
            except httpx.TransportError as error:
                failure = error
        raise HubUnreachable(
            f"no answer from the hub at {self._url}: {failure or 'unknown'}",
            remedy="check that `lockgate up` runs there, then try again",
            url=self._url,
        ) from failure

    def _identity(self) -> dict[str, str]:
        if self._token is not None:
            return {"Authorization": f"Bearer {self._token()}"}
        return {ACTOR_HEADER: quote(self._actor, safe="@ ")}


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise HubAddressInvalid(
            f"{url!r} is not the address of a hub", remedy="write http://127.0.0.1:PORT", url=url
        )
    return url.rstrip("/")


def _raised(response: httpx.Response) -> LockgateError:
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
