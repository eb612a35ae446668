"""`audit verify`: the chain, the documents and the checkpoints against one another.

Three things can be changed behind our back, and each check catches one: an entry (its bytes no longer hash to
the next link), a document (folding the journal again gives something else), the whole chain consistently (a
signed checkpoint from outside names another root).
"""

from __future__ import annotations

import gc
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, Union

import msgspec

from lockgate.core.errors import Corrupt, Invalid, NotFound
from lockgate.core.journal import (
    GENESIS,
    Checkpoint,
    Head,
    JournalAltered,
    NoteVerifiers,
    Tree,
    leaf,
    open_checkpoint,
)
from lockgate.core.messages import Event, Stamp
from lockgate.governance import proof
from lockgate.governance.proof import ConsistencyProof, InclusionProof, prove_inclusion
from lockgate.hub.kernel import Folded
from lockgate.hub.messages import AuditAnswer
from lockgate.hub.ports import Edge, Journal, StoredDocument, StoredEntry
from lockgate.hub.reports.vouching import Vouching
from lockgate.hub.table import EVENTS, KINDS, UPCASTS

_PAGE = 2000
_MAX_FINDINGS = 100
_MAX_DIGITS = 18


class _Read(Stamp, frozen=True):
    """An entry, its event decoded with it. It is its own stamp."""

    event: Union[EVENTS]  # type: ignore[valid-type]  # noqa: UP007


_DECODER = msgspec.json.Decoder(_Read)


class EntryUnreadable(Corrupt):
    code = "journal.entry-unreadable"


class NoSuchEntry(NotFound):
    code = "journal.no-such-entry"


class NoSuchCheckpoint(NotFound):
    code = "journal.no-such-checkpoint"


class ForeignCheckpoint(Invalid):
    """What was given as a checkpoint is none that a key of this journal has signed."""

    code = "journal.foreign-checkpoint"


def read_entry(stored: StoredEntry) -> tuple[Event, Stamp]:
    """An entry's event, in its newest form, and its stamp.

    Raises:
        EntryUnreadable: the bytes are no entry, or hold an event of no known tag.
    """
    event, stamp = read_as_stored(stored)
    upcast = UPCASTS.get(type(event))
    return upcast(event) if upcast else event, stamp


def read_as_stored(stored: StoredEntry) -> tuple[Event, Stamp]:
    """An entry's event in the shape it was written in, for whoever reads the journal. Raises as `read_entry` does."""
    try:
        read = _DECODER.decode(stored.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EntryUnreadable(
            f"entry {stored.seq} cannot be read: {error}", remedy="lockgate audit verify", seq=stored.seq
        ) from error
    return read.event, read


def pages(journal: Journal, after: int = 0, until: int | None = None) -> Iterator[Sequence[StoredEntry]]:
    """The entries after `after` and up to `until`, some thousand at a time."""
    while until is None or after < until:
        limit = _PAGE if until is None else min(_PAGE, until - after)
        if not (page := journal.entries(after, limit)):
            return
        yield page
        after = page[-1].seq


def verify(
    journal: Journal, notes: Sequence[str], verifier: NoteVerifiers, *, documents: bool = True
) -> AuditAnswer:
    """Check everything from nothing. Reads the whole journal once; memory is that of the documents.

    The store may be written meanwhile; what is checked is the state of one moment.

    Args:
        documents: false leaves out folding the events and comparing documents and edges: chain, tree and
            checkpoints only.
    """
    with journal.snapshot(), no_collector():
        return _Check(journal, notes, verifier, documents).run()


@contextmanager
def no_collector() -> Iterator[None]:
    """For folding a whole journal: millions of small values come to life and none is part of a cycle; looking for
    cycles among them, again and again, would take longer than the folding itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Finding(NamedTuple):
    """Ordered as a reader of the journal meets them."""

    seq: int
    rank: int
    text: str


class _Check:
    def __init__(
        self, journal: Journal, notes: Sequence[str], verifier: NoteVerifiers, documents: bool
    ) -> None:
        self._journal = journal
        self._notes = notes
        self._verifier = verifier
        self._findings: list[_Finding] = []
        self._roots: dict[int, set[bytes]] = {}
        self._folded = Folded() if documents else None
        self._tree = Tree()
        self._hash = GENESIS
        self._expected = 1

    def run(self) -> AuditAnswer:
        before = self._open_notes()
        sizes = sorted(self._roots)
        for page in pages(self._journal):
            self._grow(self._chain(page), sizes)
            if self._folded is not None:
                self._fold(page, self._folded)
        texts = before + [finding.text for finding in sorted(self._findings)]
        head = Head(self._tree.size, self._hash, self._tree.frontier)
        texts += [
            f"a signed checkpoint knows {size} entries, the journal has {head.seq}"
            for size in sizes
            if size > head.seq
        ]
        if head != self._journal.head():
            texts.append(f"the stored head is not that of entry {head.seq}")
        if self._folded is not None:
            for kind in KINDS:
                differing = self._folded.compare(kind, documents_of(self._journal, kind.name))
                texts += [f"document {kind.name} {key} {what}" for key, what in differing]
            texts += _compare_edges(self._folded.edges, self._journal.edges())
        return AuditAnswer(
            ok=not texts,
            events=head.seq,
            head=head.hash.hex(),
            checkpoints=len(self._notes),
            findings=tuple(texts[:_MAX_FINDINGS]),
            documents=self._folded is not None,
        )

    def _open_notes(self) -> list[str]:
        """What is wrong with the notes themselves; those that are right say which root each size must have."""
        findings = []
        for number, note in enumerate(self._notes):
            try:
                checkpoint = open_checkpoint(note, self._verifier)
            except Corrupt as error:
                findings.append(f"checkpoint {number + 1}: {error.message}")
                continue
            self._roots.setdefault(checkpoint.size, set()).add(checkpoint.root)
        return findings

    def _chain(self, page: Sequence[StoredEntry]) -> list[bytes]:
        """Check the links of a page; returns its leaves. The innermost loop of all: two hashes, and little else."""
        sha256, last, expected = hashlib.sha256, self._hash, self._expected
        for seq, body, stored in page:
            if seq != expected:
                self._find(seq, 0, f"entry {expected} is missing; the next one is {seq}")
            expected = seq + 1
            if sha256(last + body).digest() != stored:
                self._find(seq, 1, f"entry {seq}: its bytes do not hash to its place in the chain")
            # Going on from the stored hash names each altered entry once instead of every one after it.
            last = stored
        self._hash, self._expected = last, expected
        return [sha256(b"\x00" + body).digest() for _, body, _ in page]

    def _grow(self, leaves: list[bytes], sizes: list[int]) -> None:
        """Let the tree grow, with a halt wherever a checkpoint says what its root must be."""
        start = self._tree.size
        for size in sizes[bisect_right(sizes, start) : bisect_right(sizes, start + len(leaves))]:
            self._tree.grow(leaves[self._tree.size - start : size - start])
            if self._roots[size] != {self._tree.root}:
                text = f"entries 1 to {size} are not those of the signed checkpoint of that size"
                self._find(self._expected - len(leaves) + size - start - 1, 3, text)
        self._tree.grow(leaves[self._tree.size - start :])

    def _fold(self, page: Sequence[StoredEntry], folded: Folded) -> None:
        decode, apply, upcasts = _DECODER.decode, folded.apply, UPCASTS
        for stored in page:
            seq = stored[0]
            try:
                read = decode(stored[1])
                if read.seq != seq:
                    self._find(seq, 2, f"entry {seq} calls itself entry {read.seq}")
                event = read.event
                upcast = upcasts.get(type(event))
                apply(upcast(event) if upcast else event, read)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._find(seq, 2, f"entry {seq} cannot be read: {error}")
            except Corrupt as error:
                self._find(seq, 2, error.message)
            except (AssertionError, AttributeError, KeyError, TypeError) as error:
                self._find(seq, 2, f"entry {seq} does not fit what came before it: {error}")

    def _find(self, seq: int, rank: int, text: str) -> None:
        self._findings.append(_Finding(seq, rank, text))


def prove_entry(
    journal: Journal,
    seq: int,
    checkpoint: str,
    notes: Sequence[str],
    verifier: NoteVerifiers,
    *,
    is_seen: Callable[[Event], bool] = lambda event: True,
) -> InclusionProof:
    """A proof about one entry that holds without this store. Reads every entry that the checkpoint signs, once.

    Args:
        is_seen: whether whoever asks may read it.

    Raises:
        NoSuchCheckpoint, ForeignCheckpoint, NoSuchEntry, NothingToProve, ProofFails.
    """
    with journal.snapshot():
        chosen = _checkpoint(checkpoint, notes, verifier)
        there = 1 <= seq <= journal.head().seq
        (stored,) = (journal.entries(seq - 1, 1) if there else ()) or (None,)
        if stored is None or stored.seq != seq or not is_seen(read_entry(stored)[0]):
            raise NoSuchEntry(
                f"there is no entry {seq}, the journal has {journal.head().seq}",
                remedy="lockgate audit log shows their numbers",
                seq=seq,
            )
        return prove_inclusion(_leaves(journal, chosen.size), stored.body, seq, chosen)


def prove_version(
    journal: Journal, version: str, run: str, notes: Sequence[str], verifier: NoteVerifiers
) -> tuple[tuple[tuple[InclusionProof, ...], ...], tuple[tuple[InclusionProof, ...], ...]]:
    """Each entry that vouches for a version, proved beside its registration; and each release by an emergency right,
    beside what became of that right. Reads the whole journal once, and keeps 32 bytes of each entry meanwhile.

    Raises:
        NothingToProve, ProofFails.
    """
    hashes, vouching = bytearray(), Vouching(version, run)
    with journal.snapshot():
        for page in pages(journal):
            for stored in page:
                hashes += leaf(stored.body)
                if vouching.may_concern(stored.body):
                    event, stamp = read_entry(stored)
                    vouching.note(event, stamp.actor, stored)
    proved = proof.prove_earliest(hashes, [*vouching.pairs, *vouching.emergencies], notes, verifier)
    return proved[: len(vouching.pairs)], proved[len(vouching.pairs) :]


def prove_consistency(
    journal: Journal, old: str, new: str, notes: Sequence[str], verifier: NoteVerifiers
) -> ConsistencyProof:
    """A proof about two checkpoints. Raises as `prove_entry` does."""
    with journal.snapshot():
        older, newer = _checkpoint(old, notes, verifier), _checkpoint(new, notes, verifier)
        return proof.prove_consistency(_leaves(journal, newer.size), older, newer)


def _leaves(journal: Journal, size: int) -> Iterator[bytes]:
    return (leaf(body) for page in pages(journal, 0, size) for _, body, _ in page)


def _checkpoint(named: str, notes: Sequence[str], verifier: NoteVerifiers) -> Checkpoint:
    """The checkpoint that was named: by its size, by its own text, or the newest."""
    if named and not (named.isdecimal() and len(named) <= _MAX_DIGITS):
        try:
            return open_checkpoint(named, verifier)
        except JournalAltered as error:
            # Of the journal this says nothing: somebody brought it along.
            raise ForeignCheckpoint(
                "what was given is no checkpoint that a key of this journal has signed",
                remedy="give the number of entries it signs, the file of one, or nothing for the newest",
            ) from error
    opened = []
    for note in notes:
        # One that does not hold is a finding of `verify`; here another is looked for.
        with suppress(Corrupt):
            opened.append(open_checkpoint(note, verifier))
    fitting = [one for one in opened if not named or one.size == int(named)]
    if not fitting:
        wanted = f"of {named} entries" if named else "that holds"
        raise NoSuchCheckpoint(
            f"there is no checkpoint {wanted} among {len(notes)}",
            remedy="leave it out for the newest, or give the file of one",
            sizes=sorted({one.size for one in opened})[-10:],
        )
    return max(fitting, key=lambda one: one.size)


def documents_of(journal: Journal, kind: str) -> Iterator[StoredDocument]:
    """All of a kind, page by page."""
    after: str | None = None
    while page := journal.documents(kind, after=after, limit=_PAGE):
        yield from page
        after = page[-1].key


def _compare_edges(folded: Iterable[Edge], stored: Iterable[Edge]) -> list[str]:
    difference = set(folded) ^ set(stored)
    return [
        f"lineage edge {edge.source} {edge.kind} {edge.target} does not follow from the events"
        for edge in sorted(difference)
    ]
