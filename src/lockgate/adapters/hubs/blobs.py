"""`HubBlobs`: the blob store of a hub, over HTTP, with a verified cache on this machine.

What is large is sent in one stream that goes on where it broke, also after the hub was killed; what is fetched is
hashed on the way and kept only when it is what its name says. A large blob that the hub has already is not sent
again, unless it was found damaged there. Nothing can be deleted from here: what a registry holds is removed by its
own rules.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import httpx
import msgspec

from lockgate.adapters.hubs.wire import HubUnreachable, Wire
from lockgate.core.blobs import BlobCorrupt, BlobMissing, BlobStore, StorageFull
from lockgate.core.digests import Digest, check_digest, sha256
from lockgate.core.errors import LockgateError, Unsupported

_SMALL_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18
_N_STALLS = 3
"""So many times in a row a transfer may break without having got any further."""
_BY_CODE: dict[str, type[LockgateError]] = {
    each.code: each for each in (BlobMissing, BlobCorrupt, StorageFull)
}


class DeletionElsewhere(Unsupported):
    """What a registry holds is removed by the registry's own rules, never by name over the wire."""

    code = "blobs.deletion-elsewhere"


class _Page(msgspec.Struct):
    digests: list[Digest]
    next: Digest | None = None


class HubBlobs:
    """A `BlobStore` that a hub keeps. Safe for threads and processes.

    Args:
        cache: holds verified copies; may be the store of a project.
        incoming: a folder for what is just being fetched, on the same disk as the cache if possible.
    """

    def __init__(self, wire: Wire, cache: BlobStore, incoming: str | os.PathLike[str]) -> None:
        self._wire = wire
        self._cache = cache
        self._incoming = Path(incoming)
        self._damaged: set[Digest] = set()

    def put(self, data: bytes) -> Digest:
        digest = sha256(data)
        if len(data) > _SMALL_BYTES:
            # From its file, so that it can be sent from anywhere in it.
            self._cache.put(data)
            return self.put_file(self._cache.path(digest))
        self._bring(digest, lambda: data, {})
        self._cache.put(data)
        return digest

    def put_file(self, path: str) -> Digest:
        with Path(path).open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        size = Path(path).stat().st_size
        if size <= _SMALL_BYTES:
            data = Path(path).read_bytes()
            self._bring(digest, lambda: data, {})
            return digest
        n_stalls, before = 0, 0
        while True:
            offset = self._offset(digest)
            if offset is None:
                return digest
            if offset >= size:
                # All of it came and was not kept: the hub ended in between, or is about to keep it for somebody else.
                offset = 0
            n_stalls = n_stalls + 1 if offset <= before else 0
            before = offset
            span = {
                "Content-Range": f"bytes {offset}-{size - 1}/{size}",
                "Content-Length": str(size - offset),
            }
            try:
                self._bring(digest, lambda offset=offset: _from(path, offset), span)  # type: ignore[misc]
                return digest
            except (HubUnreachable, LockgateError) as error:
                if n_stalls >= _N_STALLS or not error.retryable:
                    raise

    def get(self, digest: Digest) -> bytes:
        return Path(self.path(digest)).read_bytes()

    def path(self, digest: Digest) -> str:
        check_digest(digest)
        if self._cache.has(digest):
            # A copy that is damaged is fetched anew: the hub has the original.
            with suppress(BlobCorrupt):
                return self._cache.path(digest)
        return self._fetch(digest)

    def has(self, digest: Digest) -> bool:
        with _told_as_blobs(digest):
            return (
                self._wire.send("HEAD", f"/v1/blobs/{check_digest(digest)}", fine=(200, 404)).status_code
                == 200
            )

    def digests(self) -> Iterator[Digest]:
        after = ""
        while True:
            answer = self._wire.send("GET", f"/v1/blobs?after={after}")
            page = msgspec.json.decode(answer.content, type=_Page)
            yield from page.digests
            if page.next is None:
                return
            after = page.next

    def delete(self, digest: Digest) -> None:
        raise DeletionElsewhere(
            f"{digest} is kept by the hub at {self._wire.url}",
            remedy="remove what nobody needs where the hub is: lockgate collect --config hub.toml",
            digest=digest,
        )

    def _offset(self, digest: Digest) -> int | None:
        """How much of a blob the hub has; None for all of it, whole as far as anybody knows."""
        with _told_as_blobs(digest):
            answer = self._wire.send("HEAD", f"/v1/blobs/{digest}", fine=(200, 404))
        if answer.status_code == 200:
            return 0 if digest in self._damaged else None
        offset = answer.headers.get("upload-offset", "0")
        return int(offset) if offset.isdecimal() else 0

    def _bring(
        self, digest: Digest, content: Callable[[], bytes | Iterator[bytes]], headers: dict[str, str]
    ) -> None:
        kind = {"Content-Type": "application/octet-stream"}
        with _told_as_blobs(digest):
            self._wire.send(
                "PUT",
                f"/v1/blobs/{digest}",
                content=content,
                headers={**kind, **headers},
                fine=(200, 201),
                # A stream that broke goes on elsewhere than at its beginning.
                again=not headers,
            )
        self._damaged.discard(digest)

    def _fetch(self, digest: Digest) -> str:
        """Bring a blob into the cache; goes on where a connection broke."""
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="fetch-", dir=self._incoming)
        try:
            with os.fdopen(descriptor, "wb") as file:
                found = self._receive(digest, file)
            if found != digest:
                raise BlobCorrupt(
                    f"what the hub at {self._wire.url} sent as {digest} hashes to {found}",
                    remedy="find out what stands between here and the hub",
                    digest=digest,
                )
            self._cache.put_file(name)
            return self._cache.path(digest)
        except BlobCorrupt:
            self._damaged.add(digest)
            raise
        finally:
            Path(name).unlink(missing_ok=True)

    def _receive(self, digest: Digest, file: BinaryIO) -> Digest:
        hashed, n_bytes, n_stalls = hashlib.sha256(), 0, 0
        while True:
            with _told_as_blobs(digest):
                answer = self._wire.send(
                    "GET",
                    f"/v1/blobs/{digest}",
                    headers={"Range": f"bytes={n_bytes}-"} if n_bytes else {},
                    fine=(200, 206),
                    stream=True,
                )
            begun = n_bytes
            try:
                for chunk in answer.iter_raw(_CHUNK_BYTES):
                    file.write(chunk)
                    hashed.update(chunk)
                    n_bytes += len(chunk)
                return f"sha256:{hashed.hexdigest()}"
            except httpx.TransportError as error:
                n_stalls = n_stalls + 1 if n_bytes == begun else 0
                if n_stalls >= _N_STALLS:
                    raise self._wire.unreachable(error) from error
            finally:
                answer.close()


def _from(path: str, offset: int) -> Iterator[bytes]:
    with Path(path).open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


@contextmanager
def _told_as_blobs(digest: Digest) -> Iterator[None]:
    """What a hub says of blobs, in the words of the port."""
    try:
        yield
    except LockgateError as error:
        kind = _BY_CODE.get(error.code)
        if kind is None:
            raise
        raise kind(error.message, remedy=error.remedy, **{**error.facts, "digest": digest}) from error
