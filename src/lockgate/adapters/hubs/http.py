"""`HttpHub`: the hub of another process, over two generic routes.

The same typed messages travel as JSON under their tags. A command carries its id, so sending it again is always
safe: a broken connection is tried once more, and whoever still gets `HubUnreachable` may repeat the command and
will get the receipt of the first time if there was one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import Any

import msgspec

from lockgate.adapters.hubs.wire import Wire
from lockgate.core.digests import canonical
from lockgate.core.errors import Unavailable
from lockgate.core.messages import Command, Query, Receipt
from lockgate.hub.authority import Session
from lockgate.hub.messages import WhoAmI, WhoAmIAnswer

_JSON = {"Content-Type": "application/json"}


class HubAnswerUnreadable(Unavailable):
    """Something answered, but not a hub of this release."""

    code = "hub.answer-unreadable"
    retryable = False


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
        self.wire = Wire(url, actor=actor, token=token)

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
        self.wire.close()

    def __enter__(self) -> HttpHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, path: str, body: bytes, answer: Any) -> Any:
        response = self.wire.send("POST", path, content=lambda: body, headers=_JSON)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.MsgspecError as error:
            raise HubAnswerUnreadable(
                f"the answer of {self.wire.url} cannot be read: {error}",
                remedy="use the same release of Lockgate on both sides",
                url=self.wire.url,
            ) from error
