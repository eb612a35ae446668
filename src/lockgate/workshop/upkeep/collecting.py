"""The sweep of what nobody needs.

It decides by commands like everything else; what is its own is to take the bytes away afterwards. They are told before
they are removed, so a crash leaves bytes that are said to be gone, never a hole that nobody knows of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from lockgate.core.blobs import KeptBlob, SweptBlobs
from lockgate.core.clock import Clock, Ids, Micros
from lockgate.core.messages import Command, Receipt
from lockgate.core.names import parse_version
from lockgate.delivery.state import ENDPOINT, ROLLOUT, release_key
from lockgate.hub.holdings import Kept, due, needed
from lockgate.hub.kernel import read_body
from lockgate.hub.ports import Journal
from lockgate.pipeline.artifact import StepRecord
from lockgate.registry.messages import RecordSweep
from lockgate.workshop.upkeep.erasing import accepted, carry_out

_DAY_US = 86_400_000_000
_AT_ONCE = 500


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection did, or would do.

    Attributes:
        versions: those whose packages were given up.
        kept: versions that ended and are kept all the same, with the reasons.
        n_young: blobs that nobody needs and that are too young to go.
        n_erased: blobs with rows of erased snapshots that were still, or again, there.
    """

    versions: tuple[str, ...]
    kept: tuple[Kept, ...]
    n_blobs: int
    n_bytes: int
    n_young: int
    dry_run: bool
    n_erased: int = 0

    def text(self) -> str:
        would = "would be " * self.dry_run
        rows = [f"{parse_version(one).shown}: package {would}collected" for one in self.versions]
        rows += [f"{parse_version(one.version).shown}: kept, {'; '.join(one.reasons)}" for one in self.kept]
        rows += [f"{self.n_erased} blobs of erased rows removed"] * bool(self.n_erased)
        counts = f"{self.n_blobs} blobs, {self.n_bytes:,} bytes {would}removed"
        return "\n".join([*rows, f"{counts}; {self.n_young} are too young"])


def collect(
    execute: Callable[[Command], Receipt],
    journal: Journal,
    blobs: SweptBlobs,
    clock: Clock,
    ids: Ids,
    steps: Iterable[StepRecord] = (),
    *,
    actor: str,
    terms: Mapping[str, int],
    unneeded_days: int,
    dry_run: bool = False,
) -> Collected:
    """Give up the packages whose terms have run out, then remove every blob that nothing needs and that is old enough.

    What an erasure has left goes first. Safe beside others who put blobs and register versions: what is put, or put
    again, is young.

    Args:
        steps: what a step cache remembers; see `erasing.carry_out`.
        terms: days after the end of a version's life, by tier.
        unneeded_days: how long a blob must not have been put.
    """
    now = clock.now()
    asked, kept = due(journal, terms, now, actor)
    collected = []
    for command in asked:
        receipt = None if dry_run else execute(msgspec.structs.replace(command, id=ids.new()))
        if receipt is not None and receipt.refusal is not None:
            kept.append(Kept(command.version, tuple(one.message for one in receipt.refusal.reasons)))
        else:
            collected.append(command.version)
    n_erased = 0 if dry_run else carry_out(journal, blobs, steps).n_blobs
    before = now - unneeded_days * _DAY_US
    with journal.snapshot():
        listed = {one.digest: one for one in blobs.kept()}
        sizes = {digest: one.n_bytes for digest, one in listed.items()}
        gone = frozenset(collected) if dry_run else frozenset[str]()
        wanted = needed(journal, sizes, blobs.get, since=before, as_if_gone=gone)
    unneeded = [one for digest, one in listed.items() if digest not in wanted]
    old = sorted((one for one in unneeded if one.put_at < before), key=lambda one: one.digest)
    if not dry_run:
        old = [one for batch in _batches(old) for one in _sweep(execute, blobs, ids, batch, before)]
    return Collected(
        versions=tuple(collected),
        kept=tuple(kept),
        n_blobs=len(old),
        n_bytes=sum(one.n_bytes for one in old),
        n_young=len([one for one in unneeded if one.put_at >= before]),
        dry_run=dry_run,
        n_erased=n_erased,
    )


class OldCaptures(Protocol):
    """What was written down of the traffic of endpoints, by the generation of their plans."""

    def prune(self, endpoint: str, before_generation: int, *, last_at: Micros) -> int: ...


def prune_captures(journal: Journal, files: OldCaptures, now: Micros, days: int) -> int:
    """Remove the captures of plans that are over, and were last added to before so many days; how many files.

    A rollout that is on its way is judged by all its captures, so they stay, however old they are.

    Raises:
        TargetUnavailable: the files cannot be removed.
    """
    n_removed = 0
    for stored in journal.documents(ENDPOINT.name):
        endpoint = read_body(ENDPOINT, stored)
        first = endpoint.generation + (endpoint.removed_at is not None)
        if endpoint.rollout is not None:
            known = journal.document(ROLLOUT.name, release_key(stored.key, endpoint.rollout.release))
            runs = () if known is None else read_body(ROLLOUT, known).runs
            first = min([first, endpoint.rollout.generation, *(run.generation for run in runs)])
        n_removed += files.prune(stored.key, first, last_at=now - days * _DAY_US)
    return n_removed


def _sweep(
    execute: Callable[[Command], Receipt], blobs: SweptBlobs, ids: Ids, batch: Sequence[KeptBlob], before: int
) -> Iterator[KeptBlob]:
    """Tell, then remove; those that were put again meanwhile stay."""
    digests = tuple(one.digest for one in batch)
    accepted(execute(RecordSweep(id=ids.new(), digests=digests, n_bytes=sum(one.n_bytes for one in batch))))
    return (one for one in batch if blobs.discard(one.digest, before))


def _batches(blobs: Sequence[KeptBlob]) -> Iterator[Sequence[KeptBlob]]:
    return (blobs[at : at + _AT_ONCE] for at in range(0, len(blobs), _AT_ONCE))
