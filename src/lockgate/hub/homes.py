"""Where blobs are at home, and who may read them for that.

A blob is at home in a namespace, or with a model of it, when a command over there has led to it: by naming it, or by
naming a list that holds it (a snapshot its files, a package its layers, the record of a run what its steps made).
Whoever may read there may fetch the blob, and for everybody else it is not there.

To know a digest is not to have the bytes. A command leads to such blobs only as its sender could fetch himself, or has
just brought, so nobody makes the bytes of others readable by writing down their name. What somebody brings he reads for
a day, by the credential he brought it with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from lockgate.access.roles import BRINGING
from lockgate.core.blobs import BlobCorrupt, BlobMissing, BlobStore
from lockgate.core.clock import Clock, Micros
from lockgate.core.digests import Digest, canonical
from lockgate.core.messages import Command, Event, Scope
from lockgate.hub.audit import no_collector, pages, read_entry
from lockgate.hub.authority import Session, Sight
from lockgate.hub.ports import Homes, Journal, StoredEntry
from lockgate.hub.within import TierOf, scope_of_event, sees
from lockgate.registry.reach import MAX_READ_BYTES, mentioned

BROUGHT_FOR: Micros = 24 * 3600 * 1_000_000
"""How long somebody reads what he brought, if nothing else lets him."""

Read = Callable[[Digest], bytes]
Found = Mapping[Digest, Mapping[str, Micros]]
_LISTS = ("snapshot", "package", "run")


class BlobSight:
    """Which blobs a session may read.

    Args:
        tier_of: the tier of a model; None when nobody declared it.
    """

    def __init__(self, homes: Homes, tier_of: TierOf, clock: Clock) -> None:
        self._homes = homes
        self._tier_of = tier_of
        self._clock = clock

    def sees(self, session: Session, digest: Digest) -> bool:
        return bool(self.among(session, (digest,)))

    def among(self, session: Session, digests: Collection[Digest]) -> set[Digest]:
        """Those of the blobs that the session may read, were they here; nothing is looked up for who reads all."""
        if Sight(session, "read").is_whole:
            return set(digests)
        return self._seen(session, self._homes.of(digests))

    def brought(self, session: Session, digest: Digest) -> None:
        """The session has shown the bytes. To be told once they are kept."""
        if not Sight(session, "read").is_whole:
            self._homes.brought(digest, _bringer(session), self._clock.now())

    def led_to(self, command: Command, session: Session, read: Read) -> tuple[tuple[Digest, str], ...]:
        """The blobs that the command gives a home, each with that home: of those it leads to, what its sender may read.

        Args:
            read: the bytes of a list; none of what is too large for one. Raises `BlobMissing` for one that is not here.
        """
        home = _home_of(command.scope())
        if not home or command.permission not in BRINGING:
            return ()
        named = mentioned(canonical(command))
        found = dict(self._homes.of(named))
        behind = set[Digest]()
        for one in _lists_of(command) & self._allowed(session, named, found):
            with suppress(BlobMissing):
                behind |= listed(read(one))
        found |= self._homes.of(behind - named)
        led = self._allowed(session, named | behind, found)
        return tuple(sorted((one, home) for one in led if home not in found.get(one, {})))

    def _allowed(self, session: Session, digests: set[Digest], found: Found) -> set[Digest]:
        return digests if Sight(session, "read").is_whole else self._seen(session, found) & digests

    def _seen(self, session: Session, found: Found) -> set[Digest]:
        sight, bringer = Sight(session, "read"), _bringer(session)
        since = self._clock.now() - BROUGHT_FOR
        # The tier is in the journal, and counts for few.
        tier_of: TierOf = self._tier_of if any(one.tiers for one in session.grants) else _no_tier
        scopes = {home: _scope_of(home) for homes in found.values() for home in homes}
        open_to = {
            home for home, scope in scopes.items() if scope is not None and sees(sight, scope, tier_of)
        }
        return {
            digest
            for digest, homes in found.items()
            if not open_to.isdisjoint(homes) or homes.get(bringer, 0) > since
        }


class SeenBlobs:
    """A blob store as a session sees it: what it may not read is missing."""

    def __init__(self, blobs: BlobStore, sight: BlobSight, session: Session) -> None:
        self._blobs = blobs
        self._sight = sight
        self._session = session

    def put(self, data: bytes) -> Digest:
        return self._blobs.put(data)

    def put_file(self, path: str) -> Digest:
        return self._blobs.put_file(path)

    def get(self, digest: Digest) -> bytes:
        self._require(digest)
        return self._blobs.get(digest)

    def path(self, digest: Digest) -> str:
        self._require(digest)
        return self._blobs.path(digest)

    def has(self, digest: Digest) -> bool:
        return self._sight.sees(self._session, digest) and self._blobs.has(digest)

    def digests(self) -> Iterator[Digest]:
        yield from self._sight.among(self._session, set(self._blobs.digests()))

    def delete(self, digest: Digest) -> None:
        if self._sight.sees(self._session, digest):
            self._blobs.delete(digest)

    def _require(self, digest: Digest) -> None:
        if not self._sight.sees(self._session, digest):
            raise unseen(self._session.actor, digest)


def unseen(actor: str, digest: Digest) -> BlobMissing:
    """The one answer about a blob that is not here and about one that somebody may not read."""
    return BlobMissing(
        f"there is no blob {digest} that {actor} may read",
        remedy="bring it, if you have it; if it belongs to a namespace that you do not read, ask an admin: "
        "lockgate access grant NAME viewer --namespace NAMESPACE",
        digest=digest,
    )


class Told:
    """What the events of a journal lead to, for a store that was written without homes.

    Here the past is believed: whoever named a blob is taken to have had it.
    """

    def __init__(self) -> None:
        self._named: dict[str, set[Digest]] = {}
        self._lists: dict[str, set[Digest]] = {}

    def apply(self, stored: StoredEntry, event: Event) -> None:
        home = _home_of(scope_of_event(event))
        if home:
            self._named.setdefault(home, set()).update(mentioned(stored.body))
            self._lists.setdefault(home, set()).update(_lists_of(event))

    def homes(self, kept: Mapping[Digest, int], read: Read) -> tuple[tuple[Digest, str], ...]:
        """The blobs among `kept` (digest -> size in bytes), each with each of its homes."""
        found = set[tuple[Digest, str]]()
        for home, named in self._named.items():
            digests = set(named)
            for one in self._lists[home]:
                if kept.get(one, MAX_READ_BYTES + 1) <= MAX_READ_BYTES:
                    with suppress(BlobMissing, BlobCorrupt):
                        digests |= listed(read(one))
            found.update((digest, home) for digest in digests if digest in kept)
        return tuple(sorted(found))


def fill(journal: Journal, homes: Homes, kept: Callable[[], Mapping[Digest, int]], read: Read) -> bool:
    """Find the homes of what a store of an earlier release holds; whether that was to do.

    Safe to call from many processes at once, and again after one that died: what is there already stays.

    Args:
        kept: digest -> size in bytes of the blobs that are here.
    """
    if homes.is_filled():
        return False
    told = Told()
    with no_collector():
        for page in pages(journal):
            for stored in page:
                event, _ = read_entry(stored)
                told.apply(stored, event)
    homes.fill(told.homes(kept(), read) if journal.head().seq else ())
    return True


def listed(data: bytes) -> set[Digest]:
    """What a list of blobs lists; nothing when the bytes are none."""
    try:
        found = msgspec.json.decode(data, type=_List)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return set()
    held = (*found.files, *found.layers, *(step.output for step in found.steps))
    return {one.digest for one in held} | ({found.config.digest} if found.config is not None else set())


class _Held(msgspec.Struct):
    digest: Digest


class _Step(msgspec.Struct):
    output: _Held


class _List(msgspec.Struct):
    """The manifest of a snapshot, that of a package, or the record of a run."""

    files: tuple[_Held, ...] = ()
    config: _Held | None = None
    layers: tuple[_Held, ...] = ()
    steps: tuple[_Step, ...] = ()


def _lists_of(message: Command | Event) -> set[Digest]:
    """The lists that a message names, by the fields that hold them in whatever room."""
    named: list[Any] = [getattr(message, field, None) for field in _LISTS]
    snapshots = getattr(message, "snapshots", None)
    named += snapshots.values() if isinstance(snapshots, dict) else ()
    return {one for one in named if isinstance(one, str)}


def _home_of(scope: Scope) -> str:
    """`NAMESPACE/MODEL`, or `NAMESPACE/` for what is of no single model; empty for what is of no namespace."""
    return f"{scope.namespace}/{scope.model}" if scope.namespace else ""


def _scope_of(home: str) -> Scope | None:
    """None for who has brought a blob, which is no place."""
    namespace, _, model = home.partition("/")
    return None if home.startswith("@") else Scope(namespace=namespace, model=model)


def _bringer(session: Session) -> str:
    """The credential is part of it: a token does what it was made for, and not what another one of its holder was."""
    return f"@{session.credential} {session.actor}"


def _no_tier(model: str) -> str | None:
    return None
