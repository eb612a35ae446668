"""`MemoryBlobs`: the blob store for tests. Keeps every promise of the port but durability."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from lockgate.core.blobs import BlobCorrupt, BlobMissing, KeptBlob, StorageFull
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, sha256


class MemoryBlobs:
    """Bytes in a dictionary.

    Args:
        capacity_bytes: how much fits before `put` raises `StorageFull`; None for no bound.
        now: the time at which blobs are put.
    """

    def __init__(
        self,
        capacity_bytes: int | None = None,
        *,
        now: Callable[[], Micros] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._put_at: dict[Digest, Micros] = {}
        self._now = now
        self._capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._directory: Path | None = None

    def put(self, data: bytes) -> Digest:
        digest = sha256(data)
        with self._lock:
            self._put_at[digest] = self._now()
            held = self._blobs.get(digest)
            if held is not None and sha256(held) == digest:
                return digest
            used = sum(map(len, self._blobs.values()))
            if self._capacity_bytes is not None and used + len(data) > self._capacity_bytes:
                raise StorageFull(
                    f"no room for a blob of {len(data)} bytes", remedy="raise capacity_bytes", digest=digest
                )
            self._blobs[digest] = bytes(data)
        return digest

    def put_file(self, path: str) -> Digest:
        return self.put(Path(path).read_bytes())

    def get(self, digest: Digest) -> bytes:
        data = self._blobs.get(digest)
        if data is None:
            raise BlobMissing(f"no blob {digest}", remedy="put it first", digest=digest)
        if sha256(data) != digest:
            raise BlobCorrupt(
                f"the bytes kept as {digest} do not hash to that name",
                remedy="restore the blob from a backup or put the original bytes again",
                digest=digest,
            )
        return data

    def path(self, digest: Digest) -> str:
        data = self.get(digest)
        with self._lock:
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="lockgate-blobs-"))
                weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
            file = self._directory / digest.removeprefix("sha256:")
            if not file.exists():
                file.write_bytes(data)
                file.chmod(0o444)
        return str(file)

    def has(self, digest: Digest) -> bool:
        return digest in self._blobs

    def digests(self) -> Iterator[Digest]:
        return iter(tuple(self._blobs))

    def delete(self, digest: Digest) -> None:
        with self._lock:
            self._blobs.pop(digest, None)

    def kept(self) -> Iterator[KeptBlob]:
        with self._lock:
            return iter([KeptBlob(name, len(data), self._put_at[name]) for name, data in self._blobs.items()])

    def renew(self, digest: Digest) -> bool:
        with self._lock:
            if digest in self._blobs:
                self._put_at[digest] = self._now()
            return digest in self._blobs

    def discard(self, digest: Digest, before: Micros) -> bool:
        with self._lock:
            if digest not in self._blobs or self._put_at[digest] >= before:
                return False
            del self._blobs[digest]
            return True

    def age(self, digest: Digest, put_at: Micros) -> None:
        """Let a blob have been put at another time."""
        self._put_at[digest] = put_at

    def flip_byte(self, digest: Digest, position: int = 0) -> None:
        """Damage a blob as a bad disk would: one bit of the byte at `position` changes, the name stays."""
        with self._lock:
            data = bytearray(self._blobs[digest])
            data[position] ^= 1
            self._blobs[digest] = bytes(data)
