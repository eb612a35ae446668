"""Writing an archive. Streams: what is in memory is one page of entries, or one blob."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

import msgspec

from lockgate.adapters.archives import layout
from lockgate.adapters.archives.layout import ArchiveUnwritable, HomeLine, Manifest, ReceiptLine
from lockgate.core.blobs import BlobStore, SweptBlobs
from lockgate.core.digests import canonical
from lockgate.core.errors import Corrupt
from lockgate.core.journal import Head, Tree, leaf, root
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.hub.audit import pages, read_entry
from lockgate.hub.holdings import Archived, archived
from lockgate.hub.ports import Homes, Journal

_REF_NAME = "org.opencontainers.image.ref.name"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def write_archive(
    out: Path,
    journal: Journal,
    notes: Sequence[str],
    keys: Sequence[str],
    *,
    after: int = 0,
    blobs: SweptBlobs | None = None,
    homes: Homes | None = None,
    data: bool = True,
) -> Manifest:
    """Write the journal, and with `blobs` all that it rests on. The file appears whole or not at all.

    The store may be written meanwhile: the archive is of one moment.

    Args:
        notes: the signed checkpoints; those beyond the moment are left out.
        keys: their verifier keys.
        after: only the entries behind this one; for the journal alone.
        homes: where the blobs are at home, for a store that is made of the archive.
        data: false leaves out rows: of snapshots, and what runs made on the way.

    Raises:
        ArchiveUnwritable: there is no room, or no right to write there.
        BlobMissing, BlobCorrupt: a blob that should be there does not hold.
        JournalAltered, EntryUnreadable: the journal itself does not hold.
    """
    with _whole_file(out) as file, journal.snapshot(), tempfile.TemporaryFile() as spooled:
        named = None if blobs is None else archived(journal, blobs, data=data)
        survey = _survey(journal, after, spooled if named is not None else None)
        fitting = [note for note in notes if _size_of(note) <= survey.head.seq]
        manifest = _manifest(survey, after, fitting, named)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, layout.MANIFEST, msgspec.json.format(canonical(manifest)) + b"\n")
            _add(archive, layout.KEYS, "".join(key + "\n" for key in keys).encode())
            _add(archive, layout.NOTES, "".join(note + layout.SEPARATOR for note in fitting).encode())
            lines = (body + b"\n" for page in pages(journal, after, survey.head.seq) for _, body, _ in page)
            _stream(archive, layout.EVENTS, survey.n_bytes, _Joined(lines))
            if named is not None and blobs is not None:
                size = spooled.tell()
                spooled.seek(0)
                _stream(archive, layout.RECEIPTS, size, spooled)
                if homes is not None:
                    _add(archive, layout.HOMES, _home_lines(homes, named))
                _add_layout(archive, named, blobs)
    return manifest


class _Survey(msgspec.Struct):
    """What a first pass over the entries finds."""

    head: Head
    start: Head
    n_bytes: int
    n_receipts: int


def _survey(journal: Journal, after: int, receipts: IO[bytes] | None) -> _Survey:
    tree, last, n_bytes, n_receipts = Tree(), bytes(32), 0, 0
    start = Head(0, last, ())
    command_id = None
    for page in pages(journal, 0, after):
        tree.grow([leaf(body) for _, body, _ in page])
        start = Head(tree.size, page[-1].hash, tree.frontier)
    for page in pages(journal, after):
        tree.grow([leaf(body) for _, body, _ in page])
        last = page[-1].hash
        n_bytes += sum(len(body) + 1 for _, body, _ in page)
        for stored in page if receipts is not None else ():
            # The entries of one command stand together.
            _, stamp = read_entry(stored)
            kept = journal.receipt(stamp.command_id) if stamp.command_id != command_id else None
            command_id = stamp.command_id
            if kept is not None and receipts is not None:
                receipts.write(canonical(ReceiptLine(command_id, msgspec.Raw(kept))) + b"\n")
                n_receipts += 1
    head = Head(tree.size, last if tree.size > after else start.hash, tree.frontier)
    if head != journal.head():
        raise Corrupt(
            "the stored head is not that of the entries",
            remedy="lockgate audit verify names what was altered",
        )
    return _Survey(head, start, n_bytes, n_receipts)


def _manifest(survey: _Survey, after: int, notes: Sequence[str], contents: Archived | None) -> Manifest:
    head, start = survey.head, survey.start
    return Manifest(
        release=VERSION_OF_LOCKGATE,
        after=start.seq,
        after_hash=start.hash.hex(),
        after_frontier=tuple(one.hex() for one in start.frontier),
        size=head.seq,
        hash=head.hash.hex(),
        root=root(head.frontier).hex(),
        n_checkpoints=len(notes),
        n_receipts=survey.n_receipts,
        n_blobs=0 if contents is None else len(contents.blobs),
        whole=contents is not None,
        without=() if contents is None else contents.without,
    )


def _size_of(note: str) -> int:
    """How many entries a note claims to sign; what cannot be read is for whoever checks to say."""
    lines = note.split("\n")
    return int(lines[1]) if len(lines) > 1 and lines[1].isdecimal() else 0


def _add_layout(archive: tarfile.TarFile, contents: Archived, blobs: BlobStore) -> None:
    _add(archive, layout.OCI_LAYOUT, b'{"imageLayoutVersion":"1.0.0"}')
    manifests = [
        {**msgspec.to_builtins(one), "annotations": {_REF_NAME: name}}
        for name, one in sorted(contents.packages.items())
    ]
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": manifests}
    _add(archive, layout.INDEX, canonical(index))
    for digest in sorted(contents.blobs):
        _add(archive, layout.BLOBS + digest.removeprefix("sha256:"), blobs.get(digest))


def _home_lines(homes: Homes, contents: Archived) -> bytes:
    found = homes.of(contents.blobs)
    return b"".join(
        canonical(HomeLine(digest, home)) + b"\n"
        for digest in sorted(found)
        for home, brought_at in sorted(found[digest].items())
        if not brought_at
    )


class _Readable(Protocol):
    def read(self, n: int, /) -> bytes: ...


class _Joined:
    """Pieces read as one file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, n: int, /) -> bytes:
        have, parts = len(self._rest), [self._rest]
        while have < n and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            have += len(piece)
        joined = b"".join(parts)
        self._rest = joined[n:]
        return joined[:n]


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    _stream(archive, name, len(data), _Joined(iter((data,))))


def _stream(archive: tarfile.TarFile, name: str, size: int, source: _Readable) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    archive.addfile(entry, source)  # type: ignore[arg-type]


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file beside `path` that takes its place at the end, when all of it is on the disk. A device or a folder is left
    what it is; a link is followed."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise ArchiveUnwritable(
            f"{path} is no file", remedy="name a file: it is there whole, or not at all", file=str(path)
        )
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except OSError as error:
        raise ArchiveUnwritable(
            f"{path} cannot be written: {error.strerror or error}",
            remedy="see that its folder is there, that you may write to it, and that it has room",
            file=str(path),
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink()
