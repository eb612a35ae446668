"""The manifest of a snapshot: what it consists of, without a library that reads tables. snapshot.py says the rest."""

from __future__ import annotations

from typing import Final

import msgspec

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, check_digest, digest_of
from lockgate.core.errors import Corrupt, Unsupported

SCHEMA: Final = "lockgate.snapshot/1"


class SnapshotCorrupt(Corrupt):
    """Manifest and blobs do not fit together."""

    code = "data.snapshot-corrupt"


class SnapshotUnsupported(Unsupported):
    """The manifest was written by a newer Lockgate."""

    code = "data.snapshot-unsupported"


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column and its Arrow type as text: `int64`, `string`, `timestamp[us, tz=UTC]`."""

    name: str
    type: str


class SnapshotFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Parquet blob; `path` is its name when a snapshot is written out as a directory."""

    path: str
    digest: Digest
    n_bytes: int
    n_rows: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifest. Its fields are hashed in this order and never change meaning under `schema`.

    Attributes:
        dataset: full name, `main/flights`.
        transformation: digest of the code that made the table from another one; None for a plain extract.
    """

    schema: str = SCHEMA
    dataset: str
    columns: tuple[Column, ...]
    n_rows: int
    files: tuple[SnapshotFile, ...]
    transformation: Digest | None = None

    @property
    def id(self) -> Digest:
        return digest_of(self)


def read_snapshot(id: Digest, blobs: BlobStore) -> Snapshot:
    """The manifest named `id`.

    Raises:
        BlobMissing, BlobCorrupt: from `blobs`.
        SnapshotCorrupt: the blob is no snapshot manifest.
        SnapshotUnsupported: the manifest has a schema this version does not know.
    """
    data = blobs.get(check_digest(id))
    try:
        written_as = msgspec.json.decode(data, type=_Tag).schema
    except msgspec.MsgspecError as error:
        raise _no_manifest(id, str(error)) from error
    if written_as != SCHEMA:
        if not written_as.startswith("lockgate.snapshot/"):
            raise _no_manifest(id, f"its schema is {written_as!r}")
        raise SnapshotUnsupported(
            f"snapshot {id} is written as {written_as!r}, which this version cannot read",
            remedy="upgrade lockgate",
            snapshot=id,
            schema=written_as,
        )
    try:
        snapshot = msgspec.json.decode(data, type=Snapshot)
    except msgspec.MsgspecError as error:
        raise _no_manifest(id, str(error)) from error
    if snapshot.id != id:
        raise _no_manifest(id, "its bytes are not canonical")
    return snapshot


class _Tag(msgspec.Struct, frozen=True):
    schema: str


def _no_manifest(id: Digest, why: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(
        f"blob {id} is no snapshot manifest: {why}", remedy="check which digest was meant", snapshot=id
    )
