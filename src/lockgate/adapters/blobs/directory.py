"""`DirectoryBlobs`: blobs as files, laid out as an OCI image layout so that other tools can read the store.

    ROOT/oci-layout            the version marker of the layout
    ROOT/index.json            names for manifests (written by `tag`), replaced as a whole
    ROOT/blobs/sha256/<hex>    one read-only file per blob
    ROOT/.sweep.lock           held while a blob is renewed, or removed for its age
    ROOT/.incoming/            files being written; whatever a killed process left is swept on the next open

A `put` writes a file of its own under `.incoming`, fsyncs it, links it to its final name and fsyncs the
directory. The link either exists with all bytes behind it or does not exist, and it never replaces a blob, so
readers need no lock. A writer holds an flock on its file; the sweep removes only files nobody holds, which
works across containers where process ids mean nothing.

A blob's time is when it was last put; putting it again renews the time once it is an hour old. `discard` looks at the
time and removes the file under a lock that a renewal waits for, so a blob that somebody has just put again stays.

What is verified: `get` hashes on every read. `path` hashes once per process and file state (inode, mtime,
size), because its readers map the file again and again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from lockgate.core.blobs import BlobCorrupt, BlobMissing, KeptBlob, StorageFull
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, canonical, check_digest, sha256
from lockgate.core.errors import Corrupt, Unavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RENEW_AFTER_S = 3600.0
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_REF_NAME = "org.opencontainers.image.ref.name"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_CHUNK_BYTES = 1 << 20
_FileState = tuple[int, int, int]


class StoreUnreadable(Unavailable):
    """The directory is there but the operating system refuses to work with it."""

    code = "blobs.store-unreadable"


class IndexDamaged(Corrupt):
    code = "blobs.index-damaged"


class DirectoryBlobs:
    """A `BlobStore` in one directory of a local (or well-behaved network) file system.

    Opening makes the directory when it is missing; an existing one may be read-only.

    Args:
        root: the directory of the layout.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._blobs = self.root / "blobs" / "sha256"
        self._incoming = self.root / ".incoming"
        self._verified: dict[Digest, _FileState] = {}
        self._lock = threading.Lock()
        with _storage_errors(self.root):
            if not self._blobs.is_dir() or not (self.root / "oci-layout").is_file():
                self._create()
        self._sweep()

    def put(self, data: bytes) -> Digest:
        digest = sha256(data)
        final = self._file(digest)
        with _storage_errors(self.root, digest=digest):
            if self._is_whole(digest, final) and self._renew(digest, final):
                return digest
            with self._incoming_file((data,)) as temporary:
                self._place(temporary, digest, final)
        return digest

    def put_file(self, path: str) -> Digest:
        source = Path(path)
        with _storage_errors(self.root):
            digest = _hash(source)
            final = self._file(digest)
            if self._is_whole(digest, final) and self._renew(digest, final):
                return digest
            if source.stat().st_dev == self._blobs.stat().st_dev:
                # As if written just now: a sweep takes what is old and nobody names yet.
                os.utime(source)
                source.chmod(0o444)
                _fsync_file(source)
                self._place(source, digest, final)
                return digest
            with self._incoming_file(_chunks(source)) as temporary:
                if _hash(temporary) != digest:
                    raise _corrupt(digest, source)
                self._place(temporary, digest, final)
        return digest

    def _place(self, whole: Path, digest: Digest, final: Path) -> None:
        """Give a durable file that hashes to `digest` its name."""
        state = _state(whole)
        try:
            os.link(whole, final)
        except FileExistsError:
            if self._is_whole(digest, final) and self._renew(digest, final):
                return
            # The bytes under this name are damaged, or another user's; ours hash to it and may take the place.
            whole.rename(final)
        _fsync_directory(self._blobs)
        self._verified[digest] = state

    def get(self, digest: Digest) -> bytes:
        file = self._file(check_digest(digest))
        with _storage_errors(self.root, digest=digest):
            try:
                data = file.read_bytes()
            except FileNotFoundError:
                raise _missing(digest, self.root) from None
        if sha256(data) != digest:
            self._verified.pop(digest, None)
            raise _corrupt(digest, file)
        return data

    def path(self, digest: Digest) -> str:
        file = self._file(check_digest(digest))
        with _storage_errors(self.root, digest=digest):
            try:
                state = _state(file)
            except FileNotFoundError:
                raise _missing(digest, self.root) from None
            if self._verified.get(digest) != state:
                if _hash(file) != digest:
                    raise _corrupt(digest, file)
                self._verified[digest] = state
        return str(file)

    def has(self, digest: Digest) -> bool:
        return self._file(check_digest(digest)).is_file()

    def digests(self) -> Iterator[Digest]:
        with _storage_errors(self.root):
            names = sorted(entry.name for entry in os.scandir(self._blobs))
        return iter([f"sha256:{name}" for name in names])

    def delete(self, digest: Digest) -> None:
        file = self._file(check_digest(digest))
        with _storage_errors(self.root, digest=digest):
            self._verified.pop(digest, None)
            with suppress(FileNotFoundError):
                file.unlink()
                _fsync_directory(self._blobs)

    def kept(self) -> Iterator[KeptBlob]:
        with _storage_errors(self.root):
            for name in sorted(entry.name for entry in os.scandir(self._blobs)):
                with suppress(FileNotFoundError):
                    status = (self._blobs / name).stat()
                    yield KeptBlob(f"sha256:{name}", status.st_size, status.st_mtime_ns // 1000)

    def renew(self, digest: Digest) -> bool:
        with _storage_errors(self.root, digest=digest):
            return self._renew(digest, self._file(check_digest(digest)))

    def discard(self, digest: Digest, before: Micros) -> bool:
        file = self._file(check_digest(digest))
        with _storage_errors(self.root, digest=digest), self._sweep_lock(fcntl.LOCK_EX):
            try:
                if file.stat().st_mtime_ns // 1000 >= before:
                    return False
                file.unlink()
            except FileNotFoundError:
                return False
            self._verified.pop(digest, None)
            _fsync_directory(self._blobs)
        return True

    def tag(self, name: str | None, descriptor: Mapping[str, Any]) -> None:
        """List a manifest in `index.json`, under `name` when one is given; a name moves, it is never doubled.

        Args:
            name: the reference, for example `flight-delay-1.0.0`; None lists the manifest without one
                (referrers: a signature is found by its subject).
            descriptor: the manifest's OCI descriptor: mediaType, digest, size and what else belongs to it.
        """
        entry: dict[str, Any] = {k: v for k, v in descriptor.items() if v is not None}
        annotations = {k: v for k, v in entry.pop("annotations", {}).items() if k != _REF_NAME}
        if name is not None:
            annotations[_REF_NAME] = name
        if annotations:
            entry["annotations"] = annotations
        with _storage_errors(self.root), self._index_lock():
            kept = [
                other
                for other in self._index()
                if other != entry and (name is None or _ref_name(other) != name)
            ]
            index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [*kept, entry]}
            with self._incoming_file((canonical(index),)) as temporary:
                temporary.rename(self.root / "index.json")
            _fsync_directory(self.root)

    def tags(self) -> dict[str, Digest]:
        """The names of `index.json` and the manifest each one stands for."""
        return {name: entry["digest"] for entry in self._index() if (name := _ref_name(entry)) is not None}

    def manifests(self) -> list[dict[str, Any]]:
        """The descriptors of `index.json`, named or not."""
        return self._index()

    def file(self, digest: Digest) -> Path:
        """Where a blob's file is, or would be; whoever reads it hashes it."""
        return self._file(check_digest(digest))

    def _file(self, digest: Digest) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _create(self) -> None:
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(exist_ok=True)
        with self._incoming_file((_LAYOUT,)) as temporary, suppress(FileExistsError):
            os.link(temporary, self.root / "oci-layout")
        _fsync_directory(self._blobs)
        _fsync_directory(self._blobs.parent)
        _fsync_directory(self.root)

    def _is_whole(self, digest: Digest, file: Path) -> bool:
        """Whether the blob is already there, intact and durable. Never writes its bytes again."""
        try:
            state = _state(file)
            if self._verified.get(digest) == state:
                return True
            if _hash(file) != digest:
                return False
        except FileNotFoundError:
            return False
        # The writer that linked it may have died before its own fsync of the directory.
        _fsync_directory(self._blobs)
        self._verified[digest] = state
        return True

    def _renew(self, digest: Digest, file: Path) -> bool:
        """Make sure that no sweep takes a blob that was put again; false when it is gone, or not ours to renew."""
        try:
            with self._sweep_lock(fcntl.LOCK_SH):
                if time.time() - file.stat().st_mtime > _RENEW_AFTER_S:
                    os.utime(file)
                    self._verified[digest] = _state(file)
                return True
        except (FileNotFoundError, PermissionError):
            return False
        except OSError as error:
            # Nobody sweeps a store that cannot be written.
            if error.errno == errno.EROFS:
                return True
            raise

    @contextmanager
    def _sweep_lock(self, how: int) -> Iterator[None]:
        descriptor = os.open(self.root / ".sweep.lock", os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _incoming_file(self, chunks: Iterable[bytes]) -> Iterator[Path]:
        """A file of our own holding `chunks`, fsynced; gone afterwards unless it was renamed."""
        self._incoming.mkdir(exist_ok=True)
        path, descriptor = self._claim()
        try:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)
            yield path
        finally:
            with suppress(FileNotFoundError):
                path.unlink()
            os.close(descriptor)

    def _claim(self) -> tuple[Path, int]:
        while True:
            path = self._incoming / f"{os.getpid()}-{os.urandom(8).hex()}"
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink == 1:
                    return path, descriptor
            except BlockingIOError:
                pass
            # A sweep came between creation and lock and took the file away; take another name.
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove what killed writers left. A read-only store, or one just being used, is left as it is."""
        with suppress(OSError):
            for entry in os.scandir(self._incoming):
                with suppress(OSError):
                    descriptor = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        Path(entry.path).unlink()
                    finally:
                        os.close(descriptor)

    def _index(self) -> list[dict[str, Any]]:
        try:
            data = (self.root / "index.json").read_bytes()
        except FileNotFoundError:
            return []
        try:
            return msgspec.convert(msgspec.json.decode(data)["manifests"], list[dict[str, Any]])
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise IndexDamaged(
                f"{self.root / 'index.json'} is no OCI index: {error}",
                remedy="restore index.json from a backup; the blobs themselves are not affected",
                file=str(self.root / "index.json"),
            ) from error

    @contextmanager
    def _index_lock(self) -> Iterator[None]:
        descriptor = os.open(self.root / ".index.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            with self._lock:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
        finally:
            os.close(descriptor)


@contextmanager
def _storage_errors(root: Path, digest: Digest | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        facts = {"store": str(root), "errno": errno.errorcode.get(error.errno or 0, "unknown")}
        if digest is not None:
            facts["digest"] = digest
        if error.errno in _FULL:
            raise StorageFull(
                f"no room left in {root}: {error.strerror}",
                remedy="free space or raise the quota, then run the same command again",
                **facts,
            ) from error
        raise StoreUnreadable(
            f"the blob store {root} cannot be used: {error}",
            remedy="check that the directory exists and that this user may read and write it",
            **facts,
        ) from error


def _missing(digest: Digest, root: Path) -> BlobMissing:
    return BlobMissing(
        f"no blob {digest} in {root}",
        remedy="check the digest, or copy the blob into this store",
        digest=digest,
    )


def _corrupt(digest: Digest, file: Path) -> BlobCorrupt:
    return BlobCorrupt(
        f"the bytes kept as {digest} do not hash to that name",
        remedy=f"restore {file} from a backup, or put the original bytes again",
        digest=digest,
        file=str(file),
    )


def _ref_name(entry: Mapping[str, Any]) -> str | None:
    name = entry.get("annotations", {}).get(_REF_NAME)
    return name if isinstance(name, str) else None


def _state(file: Path) -> _FileState:
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk


def _hash(file: Path) -> Digest:
    with file.open("rb") as source:
        return f"sha256:{hashlib.file_digest(source, 'sha256').hexdigest()}"


def _fsync_file(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
