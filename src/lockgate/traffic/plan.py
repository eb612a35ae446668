"""The `Plan`: the immutable routing table of one endpoint, and how a request finds its slot.

Every request has a slot, 0 to 9,999, computed from its routing key and the plan's salt. A plan gives each of
its routes a run of slots, in the order of `routes`. With the salt kept, moving a weight between two routes
moves
only the keys at the border: who was in the canary at 1 % is in it at 5 %, and a rollback reverses nobody
twice.

A plan names every package that must stay loaded, not only those it routes to. That is what makes the way back
fast: going back is one more plan with a newer generation over bytes that are already in memory.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, canonical, check_digest, sha256
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.traffic.capture import CaptureMode
from lockgate.traffic.errors import BadPlan

N_SLOTS = 10_000
DRILL_KEY = "lockgate:drill"
"""The routing key of drills: no caller is moved by what is rehearsed under it."""
SCHEMA = "lockgate.plan/1"
_MAX_GENERATION = 2**62 - 1
FLIP_PATIENCE_S = 5.0
"""How long a target may take to flip between versions it keeps loaded."""
_MAX_SALT_BYTES = 64
MAX_REASON = 1_000


class PackageRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package to keep loaded: which version it is, its manifest digest, the blobs of its signatures."""

    version: str
    digest: Digest
    signatures: tuple[Digest, ...] = ()


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`weight` of the 10,000 slots go to `package`; at least one."""

    package: Digest
    weight: int


class Fallback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an endpoint answers while no version can: nothing (503), or one constant per row."""

    kind: Literal["none", "constant"] = "none"
    value: float | None = None


class LocalOrigin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who wrote a plan without the hub, when, and why.

    Attributes:
        by: the name that was claimed.
        account: the user of the operating system, who had the right to write the run directory.
        left: the package that answered before.
    """

    by: str
    account: str
    at: Micros
    reason: str
    left: Digest
    incident: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one endpoint serves. Valid by construction: `BadPlan` is raised for anything else.

    Attributes:
        endpoint: the full form, `prod/main/flight-delay`.
        generation: raised with every plan of the endpoint; the fence against late writers.
        packages: all that stay loaded, each digest once.
        routes: weights sum to 10,000 slots; empty when the fallback answers everything.
        live: the released version, None before the first release.
        previous: the version a rollback goes to; it stays loaded.
        salt: at most 64 bytes of UTF-8; keys keep their slots while it is kept.
        origin: `local` when an operator wrote the plan without the hub.
        local: then, who and why. Plans of the hub are without the field, so that their bytes stay what they were.
        shadow: gets a copy of every request that it does not answer itself; its answers reach nobody.
        drill: answers the requests whose routing key is `DRILL_KEY`, and no others.
        capture: what is written down of the traffic.
    """

    schema: str = SCHEMA
    endpoint: str
    generation: int
    packages: tuple[PackageRef, ...] = ()
    routes: tuple[Route, ...] = ()
    live: Digest | None = None
    previous: Digest | None = None
    salt: str = ""
    fallback: Fallback = Fallback()
    origin: Literal["hub", "local"] = "hub"
    shadow: Digest | None = None
    drill: Digest | None = None
    capture: CaptureMode = "off"
    local: LocalOrigin | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise _bad(self, f"the schema {self.schema!r} is not {SCHEMA!r}", "update the older side")
        name = parse_endpoint(self.endpoint)
        if str(name) != self.endpoint:
            raise _bad(self, f"the endpoint is not in full form ({name})", f"write {str(name)!r}")
        if not 1 <= self.generation <= _MAX_GENERATION:
            raise _bad(
                self, f"the generation is {self.generation}", "start at 1 and raise it with every plan"
            )
        if len(self.salt.encode("utf-8", "surrogatepass")) > _MAX_SALT_BYTES:
            raise _bad(self, "the salt is longer than 64 bytes", "use a short salt")
        if isinstance(self.local, LocalOrigin):
            self._check_origin(self.local)
        self._check_packages(str(name.model))
        self._check_routes()
        self._check_fallback()

    @property
    def digest(self) -> Digest:
        return sha256(canonical(self))

    def package(self, digest: Digest) -> PackageRef | None:
        return next((ref for ref in self.packages if ref.digest == digest), None)

    @property
    def needed(self) -> frozenset[Digest]:
        """The packages without which the plan cannot be in force; the others are kept loaded if they can be."""
        asked = {route.package for route in self.routes} | {self.shadow, self.drill}
        return frozenset(digest for digest in asked if digest is not None)

    def weight_of(self, digest: Digest) -> int:
        """The slots that go to a package; 0 for one that only stays loaded, or is not named."""
        return sum(route.weight for route in self.routes if route.package == digest)

    def _check_origin(self, local: LocalOrigin) -> None:
        if self.origin != "local":
            raise _bad(
                self, "it says who wrote it without the hub, and that the hub did", "leave out `local`"
            )
        if max(map(len, (local.by, local.account, local.reason, local.incident))) > MAX_REASON:
            raise _bad(self, f"its reason has more than {MAX_REASON} characters", "give a shorter reason")

    def _check_packages(self, model: str) -> None:
        digests = [check_digest(ref.digest) for ref in self.packages]
        if len(set(digests)) != len(digests):
            raise _bad(self, "a package is named twice", "name every package once")
        for ref in self.packages:
            version = parse_version(ref.version)
            if str(version) != ref.version or str(version.model) != model:
                raise _bad(
                    self, f"{ref.version!r} is no version of {model} in full form", f"write {model}@N.N.N"
                )
            for signature in ref.signatures:
                check_digest(signature)
        roles = (
            ("live", self.live),
            ("previous", self.previous),
            ("shadow", self.shadow),
            ("drill", self.drill),
        )
        for role, digest in roles:
            if digest is not None and digest not in digests:
                raise _bad(self, f"the {role} version is not among the packages", "name its package")
        if self.previous is not None and self.previous == self.live:
            raise _bad(self, "live and previous are the same package", "leave out `previous`")

    def _check_routes(self) -> None:
        routed = [route.package for route in self.routes]
        if len(set(routed)) != len(routed):
            raise _bad(self, "a package has two routes", "add their weights")
        for route in self.routes:
            if self.package(route.package) is None:
                raise _bad(self, f"the route to {route.package} has no package", "name its package")
            if not 1 <= route.weight <= N_SLOTS:
                raise _bad(
                    self, f"a weight is {route.weight}", "give 1 to 10000 slots, or leave the route out"
                )
        total = sum(route.weight for route in self.routes)
        if self.routes and total != N_SLOTS:
            raise _bad(self, f"the weights sum to {total}", f"make them sum to {N_SLOTS}")

    def _check_fallback(self) -> None:
        value = self.fallback.value
        if self.fallback.kind == "none" and value is not None:
            raise _bad(self, "there is a fallback value but no fallback", "set its kind to 'constant'")
        if self.fallback.kind == "constant" and (value is None or not math.isfinite(value)):
            raise _bad(self, f"the fallback constant is {value}", "give a finite number")


def slot_of(key: str | bytes, salt: str) -> int:
    """The slot of a routing key, 0 to 9,999: the same on every machine and in every release.

    BLAKE2b with 8 bytes, keyed with the salt, modulo 10,000; a text counts as its UTF-8 bytes. The bias of
    the modulo is below 1e-15.
    """
    data = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    hashed = hashlib.blake2b(data, digest_size=8, key=_salt_bytes(salt)).digest()
    return int.from_bytes(hashed, "big") % N_SLOTS


def route(plan: Plan, slot: int) -> Digest | None:
    """The package that answers a slot; None when the plan routes nowhere.

    Raises:
        ValueError: the slot is not one of 0 to 9,999.
    """
    if not 0 <= slot < N_SLOTS:
        raise ValueError(f"slot {slot} is not one of 0 to {N_SLOTS - 1}")
    for candidate in plan.routes:
        if slot < candidate.weight:
            return candidate.package
        slot -= candidate.weight
    return None


@functools.lru_cache(maxsize=256)
def _salt_bytes(salt: str) -> bytes:
    return salt.encode("utf-8", "surrogatepass")


def _bad(plan: Plan, why: str, remedy: str) -> BadPlan:
    return BadPlan(f"the plan for {plan.endpoint!r} cannot be: {why}", remedy=remedy, endpoint=plan.endpoint)


REVOKED_FILE = "revoked-keys.json"
"""Beside the control files: the ids of keys that are trusted no longer, whatever a data plane was started with."""


def encode_revoked(key_ids: Iterable[str]) -> bytes:
    return msgspec.json.encode(sorted(set(key_ids)))


def decode_revoked(data: bytes) -> frozenset[str]:
    """Raises `msgspec.DecodeError` for anything but a list of key ids."""
    return frozenset(msgspec.json.decode(data, type=list[str]))
