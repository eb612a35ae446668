"""The erasure of rows that somebody has a right to. That they were there stays on record.

The command is told first, then the bytes are removed; the same again finishes what a crash has left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from lockgate.core.blobs import SweptBlobs
from lockgate.core.clock import Ids
from lockgate.core.digests import Digest, short
from lockgate.core.errors import Conflict, NotFound, did_you_mean
from lockgate.core.messages import Command, Receipt
from lockgate.data.messages import EraseSnapshot
from lockgate.data.state import SNAPSHOT
from lockgate.delivery.messages import EraseCaptures
from lockgate.delivery.state import ROLLOUT
from lockgate.hub.holdings import bodies_of, rows_of
from lockgate.hub.kernel import read_body
from lockgate.hub.ports import Journal
from lockgate.pipeline.artifact import StepRecord
from lockgate.traffic.capture import unit_of
from lockgate.workshop.upkeep.collecting import told


class UnknownSnapshot(NotFound):
    code = "data.unknown-snapshot"


class RowsShared(Conflict):
    """The same bytes are the rows of another snapshot too."""

    code = "data.rows-shared"
    retryable = False


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure took away; `packages` are made of those rows and keep their golden rows."""

    snapshots: tuple[Digest, ...]
    n_blobs: int
    n_bytes: int
    packages: tuple[Digest, ...]


def erase(
    execute: Callable[[Command], Receipt],
    journal: Journal,
    blobs: SweptBlobs,
    ids: Ids,
    steps: Iterable[StepRecord],
    *,
    named: Sequence[str],
    reason: str,
) -> Erased:
    """Take away the rows of snapshots for good, with all that steps made of them.

    Args:
        named: digests of snapshots, or the beginnings of some; several when they share rows.

    Raises:
        UnknownSnapshot: nothing, or more than one, begins like that.
        RowsShared: another snapshot has the same files; name it too.
        Refused: a version made of it is held.
    """
    with journal.snapshot():
        known = {one.snapshot: one for one in bodies_of(journal, SNAPSHOT)}
        chosen = [known[_one(known, text)] for text in named]
        sizes = {one.digest: one.n_bytes for one in blobs.kept()}
        remembered = list(steps)
        found = [rows_of(one.snapshot, journal, sizes, blobs.get, remembered) for one in chosen]
    shared = {digest for rows in found for digest in rows.also} - {one.snapshot for one in chosen}
    if shared:
        names = ", ".join(f"{known[one].dataset} snapshot:{short(one)}" for one in sorted(shared))
        raise RowsShared(
            f"the same rows are those of {names} too", remedy="name all of them", snapshots=sorted(shared)
        )
    for one in chosen:
        told(execute(EraseSnapshot(id=ids.new(), snapshot=one.snapshot, dataset=one.dataset, reason=reason)))
    digests = {digest for rows in found for digest in rows.blobs}
    for digest in sorted(digests):
        blobs.delete(digest)
    return Erased(
        snapshots=tuple(one.snapshot for one in chosen),
        n_blobs=len(digests),
        n_bytes=sum(sizes[digest] for digest in digests),
        packages=tuple(sorted({package for rows in found for package in rows.packages})),
    )


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
        Refused: there is no such endpoint.
        TargetUnavailable: the files cannot be changed.
    """
    told(execute(EraseCaptures(id=ids.new(), endpoint=endpoint, reason=reason)))
    rollouts = [read_body(ROLLOUT, one) for one in journal.documents(ROLLOUT.name, f"{endpoint}#")]
    salts = {endpoint[:64], *(one.salt for one in rollouts)}
    return files.erase(endpoint, {unit_of(key, salt) for salt in salts})


def _one(known: Mapping[Digest, object], text: str) -> Digest:
    start = "sha256:" + text.removeprefix("snapshot:").removeprefix("sha256:")
    found = [digest for digest in known if digest.startswith(start)]
    if len(found) == 1 and len(start) >= len("sha256:") + 8:
        return found[0]
    shown = [short(digest) for digest in known]
    raise UnknownSnapshot(
        f"{text!r} names {len(found) or 'no'} snapshots" if len(found) != 1 else f"{text!r} is too short",
        remedy="give at least eight digits; " + did_you_mean(text.partition(":")[2] or text, shown),
        snapshot=text,
    )
