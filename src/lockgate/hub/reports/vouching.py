"""What of the journal vouches for one version, and is worth proving to somebody who has no journal."""

from __future__ import annotations

from typing import NamedTuple

from lockgate.core.messages import Event, tag_of
from lockgate.delivery.messages import ReleaseStarted
from lockgate.gates.messages import EvidenceRecorded
from lockgate.governance.messages import (
    ApprovalRevoked,
    BreakGlassSeconded,
    GlassBroken,
    ReviewClosed,
    VersionApproved,
    VersionDeclined,
)
from lockgate.hub.ports import StoredEntry
from lockgate.pipeline.messages import RunFinished
from lockgate.registry.decide import model_of
from lockgate.registry.messages import VersionRegistered

_OF_RIGHTS = (GlassBroken, BreakGlassSeconded, ReviewClosed)


class _Matter(NamedTuple):
    """What an entry settles; a later one about the same takes its place. Of an emergency, `role` is its right."""

    kind: str
    where: str = ""
    role: str = ""
    who: str = ""


def matter_of(event: Event, actor: str, version: str, run: str) -> _Matter | None:
    """What an event settles about a version; None when it is about something else."""
    match event:
        case RunFinished(run=found) if found == run:
            return _Matter("run")
        case EvidenceRecorded(version=found) if found == version:
            return _Matter("evidence", event.environment)
        case VersionApproved(version=found) | ApprovalRevoked(version=found) if found == version:
            return _Matter("approval", event.environment, event.role, actor)
        case VersionDeclined(version=found) if found == version:
            return _Matter("declined", event.environment, "", actor)
        case ReleaseStarted() if event.served.version == version:
            # An emergency let it in past its policy: that is another matter, and one of each right.
            kind = "emergency" if event.break_glass else "promotion"
            return _Matter(kind, event.endpoint, event.break_glass)
    return None


class Vouching:
    """Gathers the entries that stand, and those that a promotion was decided on, while the journal goes by."""

    def __init__(self, version: str, run: str) -> None:
        self._version, self._run = version, run
        self._model = str(model_of(version))
        self._names = (version.encode(), run.encode(), *(tag_of(one).encode() for one in _OF_RIGHTS))
        self._registered: StoredEntry | None = None
        self._kept: dict[_Matter, StoredEntry] = {}
        self._grounds: dict[_Matter, tuple[StoredEntry, ...]] = {}
        self._rights: dict[str, list[StoredEntry]] = {}

    def may_concern(self, body: bytes) -> bool:
        """Whether an entry's bytes are worth decoding."""
        return any(name in body for name in self._names)

    def note(self, event: Event, actor: str, stored: StoredEntry) -> None:
        if isinstance(event, VersionRegistered) and event.version == self._version:
            self._registered = stored
        elif isinstance(event, _OF_RIGHTS):
            if event.model == self._model:
                self._rights.setdefault(f"B-{event.number}", []).append(stored)
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
        kept = {entry for matter, entry in self._kept.items() if matter.kind != "emergency"}
        entries = kept | {one for each in self._grounds.values() for one in each}
        return [] if first is None else [(first[:2], one[:2]) for one in sorted(entries)]

    @property
    def emergencies(self) -> list[tuple[tuple[int, bytes], ...]]:
        """The same of the registration, of each release by an emergency right, and of all that became of that right."""
        first = self._registered
        released = sorted((one, matter) for matter, one in self._kept.items() if matter.kind == "emergency")
        return [
            (first[:2], one[:2], *(entry[:2] for entry in self._rights.get(matter.role, ())))
            for one, matter in released
            if first is not None
        ]
