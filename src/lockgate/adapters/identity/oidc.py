"""Checking the identity tokens of an OpenID provider: its address, its keys, what a token says and for whom.

Keys are fetched when first needed, again when a token names one that is not known (at most every `_MIN_GAP_S`, so
that made-up names cannot turn this hub against its provider), and every `_FRESH_S`. While the provider is down the
known keys go on counting, for `_STALE_S` at most.

Sources: OpenID Connect Core 1.0, section 3.1.3.7; OpenID Connect Discovery 1.0, section 4.3; RFC 8725 (no algorithm
that a token may choose: signatures by key pairs only, and the algorithm is the key's own).
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec

from lockgate.core.errors import Invalid, Unavailable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SKEW_S = 60
_MAX_AGE_S = 24 * 3600
_MIN_GAP_S = 2.0
_FRESH_S = 600.0
_STALE_S = 24 * 3600.0
_PATIENCE_S = 5.0
_MAX_WAITING = 8
_MAX_BYTES = 262_144
_MAX_TOKEN = 16_384
_KTY = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class IssuerInvalid(Invalid):
    code = "identity.issuer-invalid"


class ProviderDown(Unavailable):
    """The identity provider does not answer, and nothing that it said before still counts."""

    code = "identity.provider-down"


class NotProven(Exception):
    """A token proves nobody. `why` is one word for logs and counters; whoever showed the token is not told."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An OpenID provider that says who people are.

    Attributes:
        client_id: as which the hub is known there; tokens must be meant for it.
        scopes: what a login asks for.
        subject: the claim that names a person. An `email` counts only when the provider verified it.
        groups: the claim that lists the groups a person is in.
        domains: whose addresses this provider may vouch for; empty for all.
    """

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ("openid", "email", "profile", "offline_access")
    subject: str = "email"
    groups: str = "groups"
    domains: tuple[str, ...] = ()


class CiSystem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A CI system that gives its jobs identity tokens; they must be meant for `audience`."""

    issuer: str
    audience: str


def check_issuer(url: str) -> str:
    """Return the address of an issuer when it is https, or of this machine; raise `IssuerInvalid` otherwise."""
    parts = urlsplit(url)
    secure = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
    if not secure or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise IssuerInvalid(f"{url!r} cannot be an issuer", remedy="write its https address", issuer=url)
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def fetch_json(url: str) -> dict[str, Any]:
    """A small JSON object from a provider; redirects are not followed.

    Raises:
        ProviderDown: nothing, or something else, came.
    """
    check_issuer(url.partition("?")[0])
    try:
        with (
            httpx.Client(
                timeout=_PATIENCE_S, verify=url.startswith("https:"), trust_env=url.startswith("https:")
            ) as client,
            client.stream("GET", url) as response,
        ):
            body, until = b"", time.monotonic() + 2 * _PATIENCE_S
            for part in response.iter_bytes():
                body += part
                # Whoever sends a byte now and then does not answer either.
                if time.monotonic() > until:
                    raise _down(url, "the answer does not end")
                if len(body) > _MAX_BYTES:
                    raise _down(url, "the answer is too long")
        if response.status_code != 200:
            raise _down(url, f"status {response.status_code}")
        return msgspec.json.decode(body, type=dict[str, Any])
    except (httpx.HTTPError, msgspec.MsgspecError) as error:
        raise _down(url, str(error) or type(error).__name__) from error


def _down(url: str, why: str) -> ProviderDown:
    return ProviderDown(
        f"the identity provider does not answer at {url}: {why}",
        remedy="try again; if it stays away, look after the provider",
        url=url,
    )


def discover(issuer: str) -> dict[str, Any]:
    """What a provider says of itself; it must call itself as it was called.

    Raises:
        IssuerInvalid, ProviderDown.
    """
    url = check_issuer(issuer).rstrip("/") + "/.well-known/openid-configuration"
    found = fetch_json(url)
    if found.get("issuer") != issuer:
        raise _down(url, f"it calls itself {found.get('issuer')!r}")
    return found


class Issuer:
    """Verifies the tokens of one issuer. Safe for threads.

    Args:
        audience: for whom a token must be meant.
        monotonic: seconds that only grow; replaced by tests.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        algorithms: Sequence[str] = ALGORITHMS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = check_issuer(issuer)
        self.audience = audience
        self._algorithms = [name for name in algorithms if name in ALGORITHMS]
        self._keys = _Keys(issuer, monotonic)

    def claims(self, token: str) -> Mapping[str, Any]:
        """What a token says, when all of it holds.

        Raises:
            NotProven: it is no such token, or not one for this hub, or not now.
            ProviderDown: the keys to check it with cannot be had.
        """
        try:
            header = jwt.get_unverified_header(token) if len(token) <= _MAX_TOKEN else {}
        except (jwt.PyJWTError, ValueError) as error:
            raise NotProven("malformed") from error
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise NotProven("algorithm")
        # An access token or a logout token of the same provider is no proof of who somebody is.
        if str(header.get("typ", "JWT")).upper() != "JWT":
            raise NotProven("type")
        return self._checked(token, self._key(header.get("kid"), algorithm))

    def _key(self, kid: object, algorithm: str) -> jwt.PyJWK:
        raw = self._keys.get(kid if isinstance(kid, str) else None)
        said = raw.get("alg", algorithm)
        if raw.get("kty") != _KTY[algorithm[:2]] or said != algorithm or raw.get("use", "sig") != "sig":
            raise NotProven("algorithm")
        try:
            return jwt.PyJWK(dict(raw), algorithm)
        except jwt.PyJWTError as error:
            raise NotProven("key") from error

    def _checked(self, token: str, key: jwt.PyJWK) -> Mapping[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self.audience,
                issuer=self.issuer,
                leeway=SKEW_S,
                options={
                    "require": ["iss", "sub", "aud", "exp", "iat"],
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.ExpiredSignatureError as error:
            raise NotProven("expired") from error
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError) as error:
            raise NotProven("audience") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise NotProven("invalid") from error
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else self.audience) != self.audience:
            raise NotProven("audience")
        if "events" in claims or time.time() - float(claims["iat"]) > _MAX_AGE_S:
            raise NotProven("expired")
        return claims


class _Keys:
    """The public keys of an issuer, by their ids."""

    def __init__(self, issuer: str, monotonic: Callable[[], float]) -> None:
        self._issuer = issuer
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # Made-up tokens must not keep every thread of a hub waiting for a provider that is slow.
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)
        self._known: Mapping[str | None, Mapping[str, Any]] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")

    def get(self, kid: str | None) -> Mapping[str, Any]:
        """The key of an id; without one, the only key there is."""
        now = self._monotonic()
        if self._find(kid) is None or now - self._fetched_at > _FRESH_S:
            self._refresh(now)
        found = self._find(kid)
        if found is None or self._monotonic() - self._fetched_at > _STALE_S:
            if self._fetched_at == float("-inf") or found is not None:
                raise _down(self._issuer, "its keys are not known")
            raise NotProven("key")
        return found

    def _find(self, kid: str | None) -> Mapping[str, Any] | None:
        if kid is None:
            return next(iter(self._known.values())) if len(self._known) == 1 else None
        return self._known.get(kid)

    def _refresh(self, now: float) -> None:
        # Whoever has keys that still count does not wait for somebody else who asks for new ones.
        with_old = now - self._fetched_at <= _STALE_S
        if not self._waiting.acquire(blocking=False):
            return
        try:
            self._refresh_alone(now, with_old)
        finally:
            self._waiting.release()

    def _refresh_alone(self, now: float, with_old: bool) -> None:
        if not self._lock.acquire(timeout=0 if with_old else 2 * _PATIENCE_S):
            return
        try:
            if self._tried_at > now or now - self._tried_at < _MIN_GAP_S:
                return
            self._tried_at = self._monotonic()
            found = fetch_json(str(discover(self._issuer).get("jwks_uri", "")))
            keys = found.get("keys")
            named = [one for one in keys if isinstance(one, dict)] if isinstance(keys, list) else []
            self._known = {str(one["kid"]) if "kid" in one else None: one for one in named}
            self._fetched_at = self._monotonic()
        except (ProviderDown, IssuerInvalid):
            if not with_old:
                raise
        finally:
            self._lock.release()
