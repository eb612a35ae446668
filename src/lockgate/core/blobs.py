"""The port through which bytes are kept: content-addressed, immutable, verified on the way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.errors import Corrupt, NotFound, Unavailable


class BlobMissing(NotFound):
    code = "blobs.missing"


class BlobCorrupt(Corrupt):
    code = "blobs.corrupt"


class StorageFull(Unavailable):
    """No room left (or a quota was met); nothing was stored under the digest."""

    code = "blobs.full"


class BlobStore(Protocol):
    """Keeps bytes under their SHA-256 digest.

    Promises every adapter keeps: `put` is atomic and durable (after it returns, the bytes survive kill -9 and
    a power cut) and idempotent; a reader never sees part of a blob; bytes that do not hash to their name are
    never returned. Safe for use by many threads and processes at once.
    """

    def put(self, data: bytes) -> Digest:
        """Store `data`; returns its digest. Raises `StorageFull` when there is no room."""
        ...

    def put_file(self, path: str) -> Digest:
        """Store the bytes of a file, never all of them in memory; returns their digest. The file may be taken over."""
        ...

    def get(self, digest: Digest) -> bytes:
        """The bytes, verified. Raises `BlobMissing`, or `BlobCorrupt` naming the digest."""
        ...

    def path(self, digest: Digest) -> str:
        """A local file holding the verified bytes, for readers that map files; read-only.

        Raises as `get` does; a remote store downloads to its cache first.
        """
        ...

    def has(self, digest: Digest) -> bool:
        """Whether a blob of that name is there; its bytes are not verified."""
        ...

    def digests(self) -> Iterator[Digest]:
        """All names, in no particular order."""
        ...

    def delete(self, digest: Digest) -> None:
        """Remove a blob; nothing happens when it is not there. Raises `Unsupported` where others decide that."""
        ...


class KeptBlob(NamedTuple):
    """A blob as a listing knows it. `put_at` is when it was last put, also when it was there already."""

    digest: Digest
    n_bytes: int
    put_at: Micros


class SweptBlobs(BlobStore, Protocol):
    """A blob store from which what nobody needs any more can be taken away while others go on putting.

    Whoever puts a blob may rely on it for as long as a sweep spares what is young: putting it again renews it.
    """

    def kept(self) -> Iterator[KeptBlob]:
        """All blobs, in no particular order."""
        ...

    def renew(self, digest: Digest) -> bool:
        """As if the blob had been put again, without its bytes; false when it is not there."""
        ...

    def discard(self, digest: Digest, before: Micros) -> bool:
        """Remove the blob unless it was put at `before` or later; whether this call removed it. What somebody else puts
        or renews at the same time is there when his call returns.

        Args:
            before: more than an hour ago, for a blob that is younger than that need not be renewed.
        """
        ...
