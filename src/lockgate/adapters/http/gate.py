"""Who gets in, and how much of it: host names, addresses, identities, rates, sizes and times.

Everything that is counted here lives in memory and is bounded: a stranger must be able to make neither the memory nor
the database of a hub grow. Nothing of a refused request, its token least of all, is kept or logged.
"""

from __future__ import annotations

import asyncio
import ipaddress
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from litestar import Request

from lockgate.core.errors import Forbidden, Invalid, LockgateError, Unavailable
from lockgate.hub.authority import Session

AnyRequest = Request[Any, Any, Any]
Authenticate = Callable[[Mapping[str, str]], Session]

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_KEYS = 10_000
_FAILURE_COSTS = 10.0
"""Requests that a failed proof of identity counts for: guessing is slower than asking."""


class HostRefused(Forbidden):
    """The request was sent to another name than this hub's own; a web page may be behind it."""

    code = "http.host-refused"


class TooManyRequests(Unavailable):
    """An actor, or an address, asks for more than its share. `Retry-After` says when to come again."""

    code = "http.too-many-requests"


class SenderTooSlow(Unavailable):
    """The body of a request did not arrive in its time."""

    code = "http.sender-too-slow"


class SenderGone(Unavailable):
    """The connection broke while a body was being sent; nobody is there to read this."""

    code = "http.sender-gone"


class BodyTooLarge(Invalid):
    code = "http.body-too-large"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a hub anybody may use. The table `[limits]` of its configuration.

    Attributes:
        body_bytes: of a message.
        blob_bytes: of one blob.
        actor_per_s, actor_burst: requests of one actor, on average and at once.
        address_per_s, address_burst: requests of one address; behind a proxy, of the address that the proxy names.
        body_s: how long a message may take to arrive.
        min_bytes_per_s: what a sender of blobs must keep up, after the first `body_s`.
        request_s: how long an answer may take; a command goes on, and is found by its id.
        n_commands, n_queries, n_blobs: carried out at the same time.
        n_waiting: of each of these, how many may wait for their turn; more are refused.
        n_watchers: open streams of changes; `actor_watchers` and `address_watchers` those of one.
        n_connections: open at once; `address_connections` those of one address, unless it is a trusted proxy.
    """

    body_bytes: int = 1_048_576
    blob_bytes: int = 16 * 1024**3
    actor_per_s: float = 50.0
    actor_burst: int = 500
    address_per_s: float = 200.0
    address_burst: int = 2_000
    body_s: float = 20.0
    min_bytes_per_s: int = 10_000
    request_s: float = 90.0
    n_commands: int = 16
    n_queries: int = 16
    n_blobs: int = 8
    n_waiting: int = 64
    n_watchers: int = 64
    actor_watchers: int = 8
    address_watchers: int = 32
    n_connections: int = 512
    address_connections: int = 128

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")


UNMETERED = Limits(
    actor_per_s=1e6,
    actor_burst=10**6,
    address_per_s=1e6,
    address_burst=10**6,
    actor_watchers=64,
    address_watchers=64,
    address_connections=512,
)
"""For a hub of one machine: whoever reaches it could as well stop it."""


class Buckets:
    """Token buckets by key, the least recently used ones forgotten. Safe for threads.

    Args:
        per_s: tokens that come back each second.
        burst: how many a bucket holds.
        now: seconds that only rise.
    """

    def __init__(self, per_s: float, burst: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now = now
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str, cost: float = 1.0) -> float:
        """0 when the bucket had enough; else, without taking, the seconds until it has."""
        with self._lock:
            level = self._level(key)
            wait = max(0.0, (cost - level) / self._per_s)
            self._keep(key, level if wait else level - cost)
            return wait

    def charge(self, key: str, cost: float) -> None:
        """Take in any case, into debt of one burst at most."""
        with self._lock:
            self._keep(key, max(self._level(key) - cost, -self._burst))

    def _level(self, key: str) -> float:
        level, at = self._levels.get(key, (self._burst, self._now()))
        return min(self._burst, level + (self._now() - at) * self._per_s)

    def _keep(self, key: str, level: float) -> None:
        self._levels[key] = (level, self._now())
        self._levels.move_to_end(key)
        while len(self._levels) > _MAX_KEYS:
            self._levels.popitem(last=False)


class Tally:
    """Counts by name, for the metrics and for whoever keeps them. Safe for threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, n: int = 1) -> None:
        with self._lock:
            self._counts[name] += n

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def unkept(self) -> dict[str, int]:
        """What was counted since the last `kept`."""
        with self._lock:
            return {name: n - self._kept[name] for name, n in self._counts.items() if n > self._kept[name]}

    def kept(self, counts: Mapping[str, int]) -> None:
        with self._lock:
            self._kept.update(counts)


class Gate:
    """Lets requests in.

    Args:
        authenticate: who sends a request, from its headers (names in lower case); raises when nobody is proven.
        hosts: further names of this hub.
        proxies: addresses whose `X-Forwarded-For` is believed.
    """

    def __init__(
        self,
        authenticate: Authenticate,
        limits: Limits,
        hosts: Collection[str] = (),
        proxies: Collection[str] = (),
    ) -> None:
        self._authenticate = authenticate
        self._hosts = LOCAL_NAMES | {host.lower() for host in hosts}
        self._proxies = frozenset(proxies)
        self.limits = limits
        self.tally = Tally()
        self._actors = Buckets(limits.actor_per_s, limits.actor_burst)
        self._addresses = Buckets(limits.address_per_s, limits.address_burst)

    def check(self, request: AnyRequest) -> None:
        """What needs no identity: the host that was meant, and the share of the address."""
        self.tally.add("requests")
        host = request.headers.get("host", "")
        if _host_name(host) not in self._hosts:
            self.tally.add("refused.host")
            raise HostRefused(
                f"this hub does not answer for the host {host[:200]!r}",
                remedy="address it by its own name; further names stand in [listen] hosts of its configuration",
                host=host[:200],
            )
        self._paced(self._addresses.take(self.address(request)), "this address")

    def session(self, request: AnyRequest) -> Session:
        """Who sends a request that was checked. May read the store: not for the event loop."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            session = self._authenticate(headers)
        except LockgateError as error:
            if not isinstance(error, Unavailable):
                self.tally.add("refused.unauthenticated")
                self._addresses.charge(self.address(request), _FAILURE_COSTS)
            raise
        self._paced(self._actors.take(session.actor), session.actor)
        return session

    def address(self, request: AnyRequest) -> str:
        """Whose share a request is of: the last address that no trusted proxy has; of IPv6, the network it is in."""
        address = request.client.host if request.client else ""
        if address in self._proxies:
            # Some proxies add a line of their own to the one that the caller made up.
            named = ",".join(request.headers.getall("x-forwarded-for", [])).split(",")
            found = [one.strip() for one in named if one.strip() and one.strip() not in self._proxies]
            address = found[-1] if found else address
        return share_of(address)

    def _paced(self, wait_s: float, whose: str) -> None:
        if wait_s > 0:
            self.tally.add("refused.rate")
            raise TooManyRequests(
                f"too many requests of {whose}",
                remedy=f"try again in {max(wait_s, 0.1):.1f} s, or ask the operator for higher [limits]",
                retry_after_s=round(wait_s, 3),
            )


async def arriving(request: AnyRequest, limits: Limits, max_bytes: int) -> AsyncIterator[bytes]:
    """The body of a request as it comes in.

    Raises:
        BodyTooLarge: more than `max_bytes`, announced or sent.
        SenderTooSlow: less than the limits ask for.
        SenderGone: the connection broke.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    begun, n_bytes, more = time.monotonic(), 0, True
    while more:
        # The slowest that is allowed to have got here by now, with a grace for the beginning.
        left_s = begun + limits.body_s + n_bytes / limits.min_bytes_per_s - time.monotonic()
        try:
            async with asyncio.timeout(max(left_s, 0)):
                event: Any = await request.receive()
        except TimeoutError as error:
            raise SenderTooSlow(
                f"{n_bytes} bytes came in {time.monotonic() - begun:.0f} s",
                remedy="send it again over a better connection; a blob goes on where it stopped",
                n_bytes=n_bytes,
            ) from error
        if event["type"] == "http.disconnect":
            raise SenderGone("the connection broke", remedy="send it again")
        chunk, more = event.get("body", b""), event.get("more_body", False)
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        if chunk:
            yield chunk


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than {max_bytes} bytes",
        remedy="put large things into the blob store and name their digest; [limits] of the hub says how much it takes",
        limit_bytes=max_bytes,
    )


def share_of(address: str) -> str:
    """Whose share an address has: one line at home has a whole /64 of them, so those count as one. What is no address
    counts as it stands."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
