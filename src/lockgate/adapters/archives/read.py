"""Reading an archive: checking it where there is no store, and making a store of it."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec

from lockgate.adapters.archives import layout
from lockgate.adapters.archives.layout import (
    ArchiveAltered,
    ArchiveUnsigned,
    HomeLine,
    Manifest,
    NotAnArchive,
    ReceiptLine,
    StoreNotEmpty,
)
from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Micros
from lockgate.core.digests import canonical, sha256
from lockgate.core.errors import NotFound
from lockgate.core.journal import (
    EMPTY_HEAD,
    Checkpoint,
    Head,
    JournalAltered,
    NoteVerifiers,
    Tree,
    leaf,
    link,
    open_checkpoint,
)
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.delivery.state import ENDPOINT, ON_A_STEP
from lockgate.governance.proof import check_proof, claim_of, read_proof
from lockgate.hub.audit import no_collector, read_entry
from lockgate.hub.homes import Told
from lockgate.hub.kernel import Folded, read_body
from lockgate.hub.ports import CheckpointSink, Commit, Journal, Store, StoredEntry

IMPORT_NOTE = "import:archive"
"""The id under which a store keeps, among the receipts, what it was made of: no event, because the head must stay."""
_PAGE = 2000


class NoSuchFile(NotFound):
    code = "archives.no-such-file"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What holds.

    Attributes:
        kind: `inclusion`, `consistency` or `archive`.
        size: of the newest checkpoint it rests on; 0 when an archive has none.
        claim: the entry that was proved.
        stranded: endpoints of an imported store whose plan was on its way when the archive was written. What was still
            to be done is no part of a history.
    """

    kind: str
    size: int
    key: str
    after: int = 0
    events: int = 0
    blobs: int = 0
    claim: Any = None
    stranded: tuple[str, ...] = ()

    def text(self) -> str:
        signed = f"a checkpoint of {self.size} entries, signed by {self.key}"
        if self.kind == "inclusion":
            return f"ok: entry {self.claim['seq']} is in {signed}\n{canonical(self.claim).decode()}"
        if self.kind == "consistency":
            return f"ok: nothing was changed or taken away up to {signed}"
        held = f"entries {self.after + 1} to {self.events}, {self.blobs} blobs"
        rest = f", {self.events - self.size} of them newer than it" if self.size < self.events else ""
        return (
            f"ok: {held}, as in {signed}{rest}"
            if self.size
            else f"ok in itself: {held}; no checkpoint signs it"
        )


class ImportNote(msgspec.Struct, frozen=True, kw_only=True):
    """That a store was made of an archive; by whom, when, and of which."""

    archive: str
    head: str
    imported_at: Micros
    imported_by: str
    release: str
    without: tuple[str, ...] = ()


def text_of(path: Path) -> str:
    """A checkpoint from a file of its own. Raises `NoSuchFile`."""
    try:
        return path.read_bytes().decode(errors="replace").partition(layout.SEPARATOR)[0]
    except OSError as error:
        raise NoSuchFile(
            f"{path} cannot be read: {error.strerror}",
            remedy="give the number of entries, or a file",
            file=str(path),
        ) from error


def check_file(path: Path, verifiers: NoteVerifiers) -> Checked:
    """Check a proof or an archive, whichever the file is.

    Raises:
        NoSuchFile, NotAProof, NotAnArchive: it is neither.
        JournalAltered, ProofFails, ArchiveAltered: it does not hold.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(1)
            proof = read_proof(begins + file.read()) if begins == b"{" else None
    except OSError as error:
        raise NoSuchFile(
            f"{path} cannot be read: {error.strerror}", remedy="give a proof or an archive", file=str(path)
        ) from error
    if proof is None:
        with opened(path) as archive:
            return archive.check(verifiers)
    checkpoint = check_proof(proof, verifiers)
    kind = "consistency" if claim_of(proof) is None else "inclusion"
    return Checked(kind=kind, size=checkpoint.size, key=checkpoint.key, claim=claim_of(proof))


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Raises `NotAnArchive` or `NoSuchFile`."""
    try:
        with tarfile.open(path, mode="r:") as tar:
            yield Archive(path, tar)
    except FileNotFoundError as error:
        raise NoSuchFile(f"there is no {path}", remedy="give the archive's path", file=str(path)) from error
    except tarfile.TarError as error:
        raise _no_archive(path, f"it is no tar that can be read: {error}") from error


class Archive:
    """An opened archive. Nothing in it is believed before `check` returned.

    Attributes:
        head: where its entries end, once they were checked.
    """

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self.path = path
        self.head = EMPTY_HEAD
        self._tar = tar
        try:
            self._members = {member.name: member for member in tar}
            self.manifest = msgspec.json.decode(self._read(layout.MANIFEST), type=Manifest)
        except (KeyError, msgspec.MsgspecError) as error:
            raise _no_archive(path, f"{layout.MANIFEST} cannot be read: {error}") from error
        if self.manifest.schema != layout.SCHEMA:
            raise _no_archive(path, f"it is written as {self.manifest.schema!r}")

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._read(layout.NOTES).decode(errors="replace").split(layout.SEPARATOR)[:-1])

    def check(
        self, verifiers: NoteVerifiers, observe: Callable[[StoredEntry], None] = lambda stored: None
    ) -> Checked:
        """Check that every entry, checkpoint and blob is what the signed roots and digests say.

        Args:
            observe: told every entry.

        Raises:
            JournalAltered: a checkpoint is not signed by any of the keys.
            ArchiveAltered: says what does not hold.
        """
        signed = [self._opened(note, verifiers) for note in self.notes]
        if len(signed) != self.manifest.n_checkpoints:
            raise self.altered(f"it holds {len(signed)} of {self.manifest.n_checkpoints} checkpoints")
        head = self._check_events(signed, observe)
        told = (self.manifest.size, self.manifest.hash, self.manifest.root)
        tree = Tree(head.seq, head.frontier)
        if (head.seq, head.hash.hex(), tree.root.hex()) != told:
            raise self.altered("its entries do not lead to the head that it names")
        n_blobs = 0
        for name, data in self.blobs():
            if sha256(data) != name:
                raise self.altered(f"the bytes of blob {name} do not hash to that name")
            n_blobs += 1
        if n_blobs != self.manifest.n_blobs:
            raise self.altered(f"it holds {n_blobs} of {self.manifest.n_blobs} blobs")
        self.head = head
        last = max(signed, key=lambda one: one.size, default=Checkpoint(0, b"", ""))
        return Checked(
            kind="archive",
            size=last.size,
            key=last.key,
            after=self.manifest.after,
            events=head.seq,
            blobs=n_blobs,
        )

    @staticmethod
    def _opened(note: str, verifiers: NoteVerifiers) -> Checkpoint:
        try:
            return open_checkpoint(note, verifiers)
        except JournalAltered as error:
            # There is no second sink to look at; mostly the archive is of another journal, with a key of its own.
            raise JournalAltered(
                error.message,
                remedy="if it comes from another journal, ask there for lockgate audit key, and give each it names "
                "with --key",
                **error.facts,
            ) from error

    def entries(self) -> Iterator[StoredEntry]:
        """The entries, each with its chain hash."""
        last, seq = bytes.fromhex(self.manifest.after_hash), self.manifest.after
        for body in self._lines(layout.EVENTS):
            seq, last = seq + 1, link(last, body)
            yield StoredEntry(seq, body, last)

    def receipts(self) -> Iterator[tuple[str, bytes]]:
        for line in self._lines(layout.RECEIPTS):
            kept = msgspec.json.decode(line, type=ReceiptLine)
            yield kept.command_id, bytes(kept.receipt)

    def homes(self) -> set[tuple[str, str]] | None:
        """Where the blobs were at home (digest, home); None when the release that wrote it knew of no homes."""
        if layout.HOMES not in self._members:
            return None
        try:
            lines = [msgspec.json.decode(line, type=HomeLine) for line in self._lines(layout.HOMES)]
        except msgspec.MsgspecError as error:
            raise self.altered(f"{layout.HOMES} cannot be read: {error}") from error
        return {(one.digest, one.home) for one in lines}

    def blobs(self) -> Iterator[tuple[str, bytes]]:
        for digest in self.sizes():
            yield digest, self.blob(digest)

    def blob(self, digest: str) -> bytes:
        return self._read(layout.BLOBS + digest.removeprefix("sha256:"))

    def sizes(self) -> dict[str, int]:
        """The blobs that it holds, each with its size in bytes."""
        return {
            "sha256:" + name.removeprefix(layout.BLOBS): member.size
            for name, member in self._members.items()
            if name.startswith(layout.BLOBS)
        }

    def digest(self) -> str:
        """Of the file itself."""
        with self.path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

    def _check_events(self, signed: Sequence[Checkpoint], observe: Callable[[StoredEntry], None]) -> Head:
        manifest = self.manifest
        try:
            frontier = tuple(map(bytes.fromhex, manifest.after_frontier))
            start = Head(manifest.after, bytes.fromhex(manifest.after_hash), frontier)
        except ValueError as error:
            raise self.altered(f"its start is no hash: {error}") from error
        roots: dict[int, set[bytes]] = {}
        for one in signed:
            roots.setdefault(one.size, set()).add(one.root)
        halts = sorted(size for size in roots if size > start.seq)
        tree, last, stream = Tree(start.seq, start.frontier), start.hash, self.entries()
        self._hold(roots, tree)
        for halt in (*halts, None):
            while page := list(islice(stream, _PAGE if halt is None else min(_PAGE, halt - tree.size))):
                tree.grow([leaf(body) for _, body, _ in page])
                last = page[-1].hash
                for stored in page:
                    observe(stored)
            if halt is not None and tree.size < halt:
                raise self.altered(f"a checkpoint knows {halt} entries, it holds {tree.size}")
            self._hold(roots, tree)
        return Head(tree.size, last, tree.frontier)

    def _hold(self, roots: dict[int, set[bytes]], tree: Tree) -> None:
        if roots.get(tree.size, {tree.root}) != {tree.root}:
            raise self.altered(
                f"entries 1 to {tree.size} are not those of the signed checkpoint of that size"
            )

    def _lines(self, name: str) -> Iterator[bytes]:
        file = self._file(name)
        for line in file:
            if not line.endswith(b"\n"):
                raise self.altered(f"{name} ends in the middle of a line")
            yield line[:-1]

    def _file(self, name: str) -> IO[bytes]:
        file = self._tar.extractfile(self._members[name])
        if file is None:
            raise KeyError(name)
        return file

    def _read(self, name: str) -> bytes:
        return self._file(name).read()

    def altered(self, why: str) -> ArchiveAltered:
        return ArchiveAltered(
            f"{self.path} does not hold: {why}",
            remedy="take another copy of it; where it was written, lockgate audit verify",
            file=str(self.path),
        )


def import_archive(
    archive: Archive,
    store: Store,
    blobs: BlobStore,
    sink: CheckpointSink,
    verifiers: NoteVerifiers,
    *,
    actor: str,
    now: Micros,
    unsigned: bool = False,
) -> Checked:
    """Make an empty store what the archive's was: same entries, same head, same roots, same digests.

    Everything is checked before anything is written. Blobs come first, then the whole journal in one transaction, then
    the checkpoints: a process that dies leaves a store that is empty or whole, and the same command again goes on.

    Raises:
        NotAnArchive: it holds the journal alone, or begins after the first entry.
        ArchiveAltered, JournalAltered: it does not hold.
        ArchiveUnsigned: no checkpoint signs its end, and nobody said that it need not be.
        StoreNotEmpty: there is a history already, and not this one.
        StorageFull, BlobCorrupt: from `blobs`.
    """
    manifest, journal = archive.manifest, store.journal
    if not manifest.whole or manifest.after:
        raise _no_archive(
            archive.path, "it holds a journal alone; a store is made of what `lockgate export` writes"
        )
    _refuse_other_history(journal, manifest)
    folded, told = Folded(), Told()
    with no_collector():
        checked = archive.check(verifiers, lambda stored: _fold(archive, folded, told, stored))
    if checked.size < checked.events and not unsigned:
        raise ArchiveUnsigned(
            f"{archive.path}: no checkpoint signs its last {checked.events - checked.size} entries",
            remedy="export it again where the checkpoint key is; or take its word for it with --unsigned",
            file=str(archive.path),
        )
    homes = _homes(archive, told)
    for _, data in archive.blobs():
        blobs.put(data)
    note = ImportNote(
        archive=archive.digest(),
        head=manifest.hash,
        imported_at=now,
        imported_by=actor,
        release=VERSION_OF_LOCKGATE,
        without=manifest.without,
    )
    # The homes come with the commit: nobody shall look for them in its entries afterwards.
    store.homes.fill(())
    with journal.transaction() as transaction:
        if transaction.head() == EMPTY_HEAD:
            transaction.commit(_commit(archive, folded, note, homes))
    _refuse_other_history(journal, manifest)
    # Subscribers heard of the past where it happened.
    store.deliveries.owe(manifest.size, ())
    known = set(sink.read())
    for text in archive.notes:
        if text not in known:
            sink.write(open_checkpoint(text, verifiers))
    return msgspec.structs.replace(checked, stranded=_stranded(journal))


def _commit(archive: Archive, folded: Folded, note: ImportNote, homes: tuple[tuple[str, str], ...]) -> Commit:
    return Commit(
        head=archive.head,
        entries=archive.entries(),
        documents=folded.changed(),
        edges=tuple(folded.edges),
        effects=(),
        command_id=IMPORT_NOTE,
        receipt=canonical(note),
        receipts=archive.receipts(),
        homes=homes,
    )


def _homes(archive: Archive, told: Told) -> tuple[tuple[str, str], ...]:
    """What the archive says of homes is signed by nobody, so it opens nothing that the entries do not lead to."""
    led_to, kept = told.homes(archive.sizes(), archive.blob), archive.homes()
    return led_to if kept is None else tuple(one for one in led_to if one in kept)


def _stranded(journal: Journal) -> tuple[str, ...]:
    endpoints = (read_body(ENDPOINT, stored) for stored in journal.documents(ENDPOINT.name))
    return tuple(
        one.endpoint for one in endpoints if one.rollout is not None and one.rollout.state not in ON_A_STEP
    )


def _fold(archive: Archive, folded: Folded, told: Told, stored: StoredEntry) -> None:
    try:
        event, stamp = read_entry(stored)
        folded.apply(event, stamp)
        told.apply(stored, event)
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        raise archive.altered(f"entry {stored.seq} does not fit what came before it") from error


def import_note(journal: Journal) -> ImportNote | None:
    """What a store was made of; None for one that began empty."""
    kept = journal.receipt(IMPORT_NOTE)
    try:
        return None if kept is None else msgspec.json.decode(kept, type=ImportNote)
    except msgspec.MsgspecError:
        # Somebody's own command of that id.
        return None


def _refuse_other_history(journal: Journal, manifest: Manifest) -> None:
    head = journal.head()
    if head != EMPTY_HEAD and (head.seq, head.hash.hex()) != (manifest.size, manifest.hash):
        raise StoreNotEmpty(
            f"the store has a history of {head.seq} entries of its own, and two histories cannot become one",
            remedy="import into an empty store: another project folder, or this one without its .lockgate/state.db; "
            "for a team, a hub.toml with an empty [store]",
            events=head.seq,
        )


def _no_archive(path: Path, why: str) -> NotAnArchive:
    return NotAnArchive(
        f"{path} cannot be read as an archive: {why}",
        remedy="give a file that lockgate export, or lockgate audit export, has written",
        file=str(path),
    )
