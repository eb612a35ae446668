"""The erasure of rows that somebody has a right to. That they were there stays on record.

It is decided by a command, here or over the wire; then whoever is next to the bytes removes them, as the journal says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from lockgate.core.blobs import SweptBlobs
from lockgate.core.clock import Ids
from lockgate.core.digests import Digest, short
from lockgate.core.errors import NotFound
from lockgate.core.messages import Command, Receipt, RefusedCommand
from lockgate.data.messages import EraseSnapshot
from lockgate.data.state import SNAPSHOT, SnapshotState
from lockgate.delivery.messages import EraseCaptures
from lockgate.delivery.state import ROLLOUT
from lockgate.hub.holdings import rows_of
from lockgate.hub.kernel import Hub, read_body
from lockgate.hub.messages import FindSnapshots
from lockgate.hub.ports import Journal
from lockgate.pipeline.artifact import StepRecord
from lockgate.traffic.capture import unit_of


class UnknownSnapshot(NotFound):
    code = "data.unknown-snapshot"


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure took away.

    Attributes:
        packages: what was made of those rows; they keep their golden rows.
        shared: snapshots whose rows stay for now, because another one, recorded meanwhile, has them as well.
    """

    snapshots: tuple[Digest, ...]
    n_blobs: int = 0
    n_bytes: int = 0
    packages: tuple[Digest, ...] = ()
    shared: tuple[Digest, ...] = ()

    def text(self) -> str:
        rows = [f"snapshot {short(one)} erased" for one in self.snapshots]
        rows.append(f"{self.n_blobs} blobs, {self.n_bytes:,} bytes removed")
        rows += [f"  golden rows remain in package {short(one)}" for one in self.packages]
        rows += [f"  rows that another snapshot has too remain of {short(one)}" for one in self.shared]
        return "\n".join(rows)


def decide(hub: Hub, new_id: Callable[[], str], *, named: Sequence[str], reason: str) -> tuple[Digest, ...]:
    """Have it decided that the rows of snapshots go; which those are. Whoever is next to the bytes removes them.

    Args:
        named: digests of snapshots, or the beginnings of some; several when they share rows.

    Raises:
        UnknownSnapshot: nothing, or more than one, begins like that.
        RefusedCommand: another snapshot has the same files, or a version made of it is held.
    """
    chosen = [_one(hub, text) for text in named]
    together = tuple(one.snapshot for one in chosen)
    for one in chosen:
        command = EraseSnapshot(
            id=new_id(), snapshot=one.snapshot, dataset=one.dataset, reason=reason, together=together
        )
        accepted(hub.execute(command))
    return together


def carry_out(
    journal: Journal,
    blobs: SweptBlobs,
    steps: Iterable[StepRecord] = (),
    *,
    snapshots: Collection[Digest] | None = None,
) -> Erased:
    """Remove the rows of snapshots that were erased, for good, with all that steps made of them.

    What it does follows from the journal alone, so it finishes what a crash has left, and takes away again what was
    put again. Not all of it can be known inside a command: whoever is next to the bytes does it, once more if in doubt.

    Args:
        snapshots: only these; None for all that were ever erased.
    """
    erased = tuple(
        stored.key
        for stored in journal.documents(SNAPSHOT.name, state="erased", bodies=False)
        if snapshots is None or stored.key in snapshots
    )
    if not erased:
        return Erased(snapshots=())
    with journal.snapshot():
        sizes = {one.digest: one.n_bytes for one in blobs.kept()}
        rows = rows_of(erased, journal, sizes, blobs.get, steps)
    for digest in sorted(rows.blobs):
        blobs.delete(digest)
    return Erased(
        snapshots=erased,
        n_blobs=len(rows.blobs),
        n_bytes=sum(sizes[digest] for digest in rows.blobs),
        packages=tuple(sorted(rows.packages)),
        shared=tuple(sorted(rows.shared)),
    )


class Eraser:
    """Carries out erasures that are decided elsewhere, each when it is first seen. For one thread."""

    def __init__(
        self, journal: Journal, blobs: SweptBlobs, steps: Callable[[], Iterable[StepRecord]]
    ) -> None:
        self._journal = journal
        self._blobs = blobs
        self._steps = steps
        self._seen = self._done = frozenset[Digest]()

    def look(self) -> None:
        """Raises what the stores raise; what was not done then is done the next time."""
        listed = self._journal.documents(SNAPSHOT.name, state="erased", bodies=False)
        seen = frozenset(stored.key for stored in listed)
        if seen != self._seen:
            new = seen - self._done
            left = carry_out(self._journal, self._blobs, self._steps(), snapshots=new)
            self._done |= new.difference(left.shared)
            self._seen = seen


class CaptureFiles(Protocol):
    """Where the traffic of endpoints is written down."""

    def erase(self, endpoint: str, units: Collection[str]) -> int: ...


def erase_captures(
    execute: Callable[[Command], Receipt],
    journal: Journal,
    files: CaptureFiles,
    ids: Ids,
    *,
    endpoint: str,
    key: str,
    reason: str,
) -> int:
    """Blank what was written down of the requests of one routing key; how many lines that were.

    Under every salt that the endpoint's plans ever had, because the key is kept as a hash only.

    Raises:
        RefusedCommand: there is no such endpoint.
        TargetUnavailable: the files cannot be changed.
    """
    accepted(execute(EraseCaptures(id=ids.new(), endpoint=endpoint, reason=reason)))
    rollouts = [read_body(ROLLOUT, one) for one in journal.documents(ROLLOUT.name, f"{endpoint}#")]
    salts = {endpoint[:64], *(one.salt for one in rollouts)}
    return files.erase(endpoint, {unit_of(key, salt) for salt in salts})


def accepted(receipt: Receipt) -> None:
    """Raises `RefusedCommand`."""
    if receipt.refusal is not None:
        raise RefusedCommand(receipt.refusal)


def _one(hub: Hub, text: str) -> SnapshotState:
    start = "sha256:" + text.removeprefix("snapshot:").removeprefix("sha256:")
    found: tuple[SnapshotState, ...] = hub.ask(FindSnapshots(beginning=start)).snapshots
    if len(found) == 1 and len(start) >= len("sha256:") + 8:
        return found[0]
    raise UnknownSnapshot(
        f"{text!r} names {len(found) or 'no'} snapshots" if len(found) != 1 else f"{text!r} is too short",
        remedy="give at least eight digits; lockgate explain NAME@VERSION says of which snapshots it is made",
        snapshot=text,
    )
