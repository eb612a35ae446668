"""One HTTP POST to an address that somebody else chose, and nowhere else.

Whoever may subscribe an address must not thereby reach what only this machine can reach. So the name is resolved once,
addresses outside of the public networks are refused unless the configuration names them, and the connection is made
to exactly the address that was looked at: a name that changes its mind in between changes nothing. Redirects are not
followed, no proxy and no .netrc is asked, of the answer no more is read than was asked for, and all of it has an end.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import anyio
import httpx

from lockgate.core.errors import Invalid

PATIENCE_S = 15.0
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]


class NetworkInvalid(Invalid):
    code = "notify.network-invalid"


class Outcome(NamedTuple):
    """What came of an attempt.

    Attributes:
        accepted: the other side has it.
        final: trying again will not help.
        wait_s: how long the other side asks to be left alone; 0 when it does not say.
        body: what it answered with, where that was asked for.
    """

    accepted: bool
    detail: str
    final: bool = False
    wait_s: int = 0
    body: bytes = b""


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """The networks that the configuration allows beside the public ones (`127.0.0.0/8`, `10.1.0.0/16`, `::1`)."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise NetworkInvalid(
            f"[webhooks] networks: {error}", remedy="write networks like 10.1.0.0/16 or 127.0.0.0/8"
        ) from error


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Poster:
    """Posts to allowed addresses. Safe for threads; one per process.

    Args:
        networks: allowed beside the public ones.
        patience_s: how long one attempt takes at most, all in all.
    """

    def __init__(
        self, networks: Sequence[Network] = (), *, resolve: Resolve = _resolve, patience_s: float = PATIENCE_S
    ) -> None:
        self._networks = tuple(networks)
        self._resolve = resolve
        self._patience_s = patience_s
        # The certificates of this machine, where a company keeps its own.
        self._tls = ssl.create_default_context()

    def post(self, url: str, headers: Mapping[str, str], body: bytes, *, answer_bytes: int = 0) -> Outcome:
        """Try once. Whatever goes wrong is the outcome, never an exception.

        Args:
            answer_bytes: how much of the answer is wanted at most; a longer one is no success.
        """
        return anyio.run(self._within, url, headers, body, answer_bytes)

    async def _within(self, url: str, headers: Mapping[str, str], body: bytes, answer_bytes: int) -> Outcome:
        try:
            with anyio.fail_after(self._patience_s):
                return await self._post(httpx.URL(url), headers, body, answer_bytes)
        except TimeoutError:
            return Outcome(False, f"no answer within {self._patience_s:g} s")
        except httpx.InvalidURL:
            return Outcome(False, "the address is no URL")
        except (httpx.HTTPError, OSError, ValueError) as error:
            return Outcome(False, f"{type(error).__name__}: {error}"[:300])

    async def _post(
        self, url: httpx.URL, headers: Mapping[str, str], body: bytes, answer_bytes: int
    ) -> Outcome:
        if url.scheme not in ("http", "https") or not url.host:
            return Outcome(False, "the address is no http or https URL")
        port = url.port or (443 if url.scheme == "https" else 80)
        found = [ipaddress.ip_address(one.partition("%")[0]) for one in await self._resolve(url.host, port)]
        allowed = [address for address in found if self._is_allowed(address)]
        if not allowed:
            shown = ", ".join(map(str, found)) or "nowhere"
            return Outcome(
                False, f"{url.host} is {shown}: not a public address, and no [webhooks] networks allows it"
            )
        host = url.netloc.decode("ascii")
        request = {**headers, "host": host, "user-agent": "lockgate", "accept-encoding": "identity"}
        async with (
            httpx.AsyncClient(
                verify=self._tls, trust_env=False, follow_redirects=False, timeout=self._patience_s
            ) as client,
            client.stream(
                "POST",
                url.copy_with(host=str(allowed[0])),
                headers=request,
                content=body,
                extensions={"sni_hostname": url.host},
            ) as response,
        ):
            outcome = _outcome(response)
            if not (outcome.accepted and answer_bytes):
                return outcome
            return await _with_body(response, outcome, answer_bytes)

    def _is_allowed(self, address: Address) -> bool:
        seen = _meant(address)
        if any(seen.version == network.version and seen in network for network in self._networks):
            return True
        return seen.is_global and not seen.is_multicast


def _meant(address: Address) -> Address:
    """The address of the older kind that one of the newer kind stands for, where a gateway would translate it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    plain = address.ipv4_mapped or address.sixtofour
    return plain or (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address)


async def _with_body(response: httpx.Response, outcome: Outcome, most: int) -> Outcome:
    """As it came: nothing is unpacked, so that nothing small turns out large."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > most:
            return Outcome(False, f"the answer has more than {most} bytes")
    return outcome._replace(body=bytes(body))


def _outcome(response: httpx.Response) -> Outcome:
    status = response.status_code
    if 200 <= status < 300:
        return Outcome(True, str(status))
    if 300 <= status < 400:
        return Outcome(False, f"{status}: redirects are not followed; name the address it leads to")
    if status == 410:
        return Outcome(False, "410: the receiver is gone", final=True)
    after = response.headers.get("retry-after", "")
    return Outcome(False, str(status), wait_s=int(after) if after.isascii() and after.isdecimal() else 0)
