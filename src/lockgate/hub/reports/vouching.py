"""What of the journal vouches for one version, and is worth proving to somebody who has no journal."""

from __future__ import annotations

from typing import NamedTuple

from lockgate.core.messages import Event
from lockgate.delivery.messages import ReleaseStarted
from lockgate.gates.messages import EvidenceRecorded
from lockgate.governance.messages import ApprovalRevoked, VersionApproved, VersionDeclined
from lockgate.hub.ports import StoredEntry
from lockgate.pipeline.messages import RunFinished
from lockgate.registry.messages import VersionRegistered


class _Matter(NamedTuple):
    """What an entry settles; a later one about the same takes its place."""

    kind: str
    where: str = ""
    role: str = ""
    who: str = ""


def matter_of(event: Event, actor: str, version: str, run: str) -> _Matter | None:
    """What an event settles about a version; None when it is about something else.

    An emergency is left out: it let the version in past its policy, so that it says nothing good of it.
    """
    match event:
        case RunFinished(run=found) if found == run:
            return _Matter("run")
        case EvidenceRecorded(version=found) if found == version:
            return _Matter("evidence", event.environment)
        case VersionApproved(version=found) | ApprovalRevoked(version=found) if found == version:
            return _Matter("approval", event.environment, event.role, actor)
        case VersionDeclined(version=found) if found == version:
            return _Matter("declined", event.environment, "", actor)
        case ReleaseStarted() if event.served.version == version and not event.break_glass:
            return _Matter("promotion", event.endpoint)
    return None


class Vouching:
    """Gathers the entries that stand, and those that a promotion was decided on, while the journal goes by."""

    def __init__(self, version: str, run: str) -> None:
        self._version, self._run = version, run
        self._names = (version.encode(), run.encode())
        self._registered: StoredEntry | None = None
        self._kept: dict[_Matter, StoredEntry] = {}
        self._grounds: dict[_Matter, tuple[StoredEntry, ...]] = {}

    def may_concern(self, body: bytes) -> bool:
        """Whether an entry's bytes are worth decoding."""
        return any(name in body for name in self._names)

    def note(self, event: Event, actor: str, stored: StoredEntry) -> None:
        if isinstance(event, VersionRegistered) and event.version == self._version:
            self._registered = stored
        elif (matter := matter_of(event, actor, self._version, self._run)) is not None:
            self._kept[matter] = stored
            if matter.kind == "promotion":
                there = ("", matter.where.partition("/")[0])
                self._grounds[matter] = tuple(
                    entry
                    for of, entry in self._kept.items()
                    if of.kind in ("evidence", "approval") and of.where in there
                )

    @property
    def pairs(self) -> list[tuple[tuple[int, bytes], tuple[int, bytes]]]:
        """Number and bytes of the registration and of each entry."""
        first = self._registered
        entries = {*self._kept.values(), *(one for each in self._grounds.values() for one in each)}
        return [] if first is None else [(first[:2], one[:2]) for one in sorted(entries)]
