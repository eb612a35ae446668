"""What anybody may hold open: connections, and streams of changes; in all, and of one address or actor.

A connection that is let in is bounded by time as well: a head that does not end, a body that does not come and a pause
between two requests each close it (`guarded_http`, uvicorn's keep-alive). Over TLS, one counts from its handshake on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from lockgate.adapters.http.gate import Limits, Tally, TooManyRequests, share_of
from lockgate.adapters.http.lanes import HubBusy
from lockgate.adapters.http.problems import MEDIA_TYPE, headers_of, problem
from lockgate.core.errors import LockgateError


class Shares:
    """Places that are held for a while, so many in all and of each holder. For one event loop.

    Args:
        most: in all.
        of_each: by kind of holder, such as `address`, how many of one; kinds that are missing are not bounded.
    """

    def __init__(self, most: int, of_each: dict[str, int]) -> None:
        self._most = most
        self._of_each = of_each
        self._held: Counter[tuple[str, str]] = Counter()
        self.n_held = 0

    def lacking(self, holders: Collection[tuple[str, str]]) -> str | None:
        """Whose share is used up, `all` for that of everybody; None when there is a place for these holders."""
        if self.n_held >= self._most:
            return "all"
        return next(
            (kind for kind, name in holders if self._held[kind, name] >= self._of_each.get(kind, self._most)),
            None,
        )

    def take(self, holders: Collection[tuple[str, str]]) -> None:
        self.n_held += 1
        self._held.update(holders)

    def give_back(self, holders: Collection[tuple[str, str]]) -> None:
        self.n_held -= 1
        for one in holders:
            self._held[one] -= 1
            if not self._held[one]:
                del self._held[one]


class Door:
    """Lets connections in, before anything of them is read.

    Args:
        proxies: addresses that bring everybody; each of their connections is of another.
    """

    def __init__(self, limits: Limits, proxies: Collection[str], tally: Tally) -> None:
        self._shares = Shares(limits.n_connections, {"address": limits.address_connections})
        self._proxies = frozenset(proxies)
        self._tally = tally

    def enter(self, address: str) -> Collection[tuple[str, str]]:
        """Who holds the new connection, to be handed back to `leave`.

        Raises:
            HubBusy, TooManyRequests: there is no place for it.
        """
        holders = () if address in self._proxies else (("address", share_of(address)),)
        lacking = self._shares.lacking(holders)
        if lacking is None:
            self._shares.take(holders)
            return holders
        self._tally.add("refused.connections")
        if lacking == "all":
            raise HubBusy(
                f"{self._shares.n_held} connections are open",
                remedy="try again in a second",
                limit=self._shares.n_held,
            )
        raise TooManyRequests(
            "too many connections of this address",
            remedy="close some, or ask the operator for higher [limits] address_connections",
            retry_after_s=1,
        )

    def leave(self, holders: Collection[tuple[str, str]]) -> None:
        self._shares.give_back(holders)


def _whole(error: LockgateError) -> bytes:
    """The answer to a request that nobody waits for."""
    status, body = problem(error)
    headers = {
        **headers_of(error),
        "Connection": "close",
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
    }
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Counted:
    """To be mixed into a protocol of uvicorn, before it: asks the `door` of the application's state, if it has one."""

    config: Any
    _door: Door | None = None
    _holders: Collection[tuple[str, str]] = ()
    _is_out = False

    def connection_made(self, transport: Any) -> None:
        door: Door | None = getattr(getattr(self.config.app, "state", None), "door", None)
        if door is not None:
            peer = transport.get_extra_info("peername")
            try:
                self._holders = door.enter(peer[0] if peer else "")
            except LockgateError as error:
                self._is_out = True
                transport.write(_whole(error))
                transport.close()
                return
            self._door = door
        super().connection_made(transport)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        if not self._is_out:
            super().data_received(data)  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_out:
            return
        if self._door is not None:
            self._door.leave(self._holders)
            self._door = None
        super().connection_lost(exc)  # type: ignore[misc]
