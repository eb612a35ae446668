"""`Copies`: a store that is only read, through verified copies on this machine.

What was fetched once is read here from then on, whether or not the store elsewhere can be reached: a blob never
changes. A copy that is damaged is fetched anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from lockgate.core.blobs import BlobCorrupt, BlobMissing, BlobStore
from lockgate.core.digests import Digest
from lockgate.core.errors import Unsupported


class StoreOnlyRead(Unsupported):
    """Whoever only reads packages neither adds nor removes any."""

    code = "blobs.store-only-read"


class Copies:
    """A `BlobStore` without its writing half.

    Args:
        here: where the copies are kept; may be emptied at any time.
        there: the store with everything.
    """

    def __init__(self, here: BlobStore, there: BlobStore) -> None:
        self._here = here
        self._there = there

    def get(self, digest: Digest) -> bytes:
        with suppress(BlobMissing, BlobCorrupt):
            return self._here.get(digest)
        data = self._there.get(digest)
        self._here.put(data)
        return data

    def path(self, digest: Digest) -> str:
        with suppress(BlobMissing, BlobCorrupt):
            return self._here.path(digest)
        self._here.put(self._there.get(digest))
        return self._here.path(digest)

    def has(self, digest: Digest) -> bool:
        return self._here.has(digest) or self._there.has(digest)

    def digests(self) -> Iterator[Digest]:
        return self._there.digests()

    def put(self, data: bytes) -> Digest:
        raise self._refused()

    def put_file(self, path: str) -> Digest:
        raise self._refused()

    def delete(self, digest: Digest) -> None:
        raise self._refused()

    def _refused(self) -> StoreOnlyRead:
        return StoreOnlyRead(
            "packages are only read here", remedy="bring them through the hub: lockgate train, or pull"
        )
