"""Blobs up and down by digest, streamed: never is one whole in memory.

    HEAD /v1/blobs/DIGEST   200 when it is here; 404 with `Upload-Offset` when only so much of it is
    PUT  /v1/blobs/DIGEST   the whole of it, or with `Content-Range: bytes FIRST-LAST/TOTAL` the next part
    GET  /v1/blobs/DIGEST   all of it, or a `Range`
    GET  /v1/blobs          digests, page by page, of what the sender may read

A blob that somebody may not read (`hub.homes`) is answered about as one that is not here. Whoever has it brings it, and
may read it then; nobody goes on with what another began to send.

What arrives is written to a file of the upload folder and hashed on the way; it enters the blob store when it is whole
and hashes to its name. A sending that breaks leaves its part there, and goes on from `Upload-Offset`, also after the
hub was killed; what nobody goes on with for a day is removed. Nothing can be removed from here: what a registry holds
is removed by its own rules.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import heapq
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from litestar import Response, get, put, route
from litestar.enums import HttpMethod
from litestar.response import Stream

from lockgate.access.roles import BRINGING
from lockgate.adapters.http.gate import AnyRequest, BodyTooLarge, Gate, arriving
from lockgate.adapters.http.lanes import Lane
from lockgate.core.blobs import BlobStore, StorageFull, SweptBlobs
from lockgate.core.digests import Digest, canonical, check_digest
from lockgate.core.errors import Conflict, Forbidden, Invalid
from lockgate.hub.authority import Session, holds
from lockgate.hub.homes import BlobSight, unseen

_CHUNK_BYTES = 1 << 20
# Whoever reads slowly, or not at all, holds about two of these.
_SENT_BYTES = 1 << 17
_STALE_S = 24 * 3600.0
_MAX_PAGE = 1_000
_READING = ("read",)
_SPAN = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})\Z")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BlobsRefused(Forbidden):
    """No role of the actor has to do with blobs in that way."""

    code = "http.blobs-refused"


class DigestDiffers(Invalid):
    """The bytes that came do not hash to the name they were sent under; they are gone again."""

    code = "http.digest-differs"


class OffsetDiffers(Conflict):
    """The part does not begin where what is here ends; `Upload-Offset` says where that is."""

    code = "http.offset-differs"


class BadRange(Invalid):
    code = "http.bad-range"


class RangeUnsatisfiable(Invalid):
    """The range begins behind the end of the blob."""

    code = "http.range-unsatisfiable"


class BlobPage(msgspec.Struct, frozen=True, kw_only=True):
    digests: tuple[Digest, ...]
    next: Digest | None = None


class Span(NamedTuple):
    """Which part of a blob a request brings."""

    first: int
    length: int | None
    total: int | None

    @property
    def is_last(self) -> bool:
        return self.total is None or self.length is None or self.first + self.length == self.total


class Uploads:
    """What has arrived of blobs that are not whole yet, a file each.

    Args:
        folder: of this hub alone; made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[Path, tuple[asyncio.Lock, int]] = {}

    def offset(self, digest: Digest, session: Session) -> int:
        with suppress(FileNotFoundError):
            return self._file(digest, session).stat().st_size
        return 0

    @asynccontextmanager
    async def alone(self, digest: Digest, session: Session) -> AsyncIterator[Path]:
        """The file of a blob that somebody sends, one sending at a time."""
        file = self._file(digest, session)
        lock, n_users = self._locks.get(file, (asyncio.Lock(), 0))
        self._locks[file] = (lock, n_users + 1)
        try:
            async with lock:
                yield file
        finally:
            lock, n_users = self._locks.pop(file)
            if n_users > 1:
                self._locks[file] = (lock, n_users - 1)

    def sweep(self) -> None:
        """Remove what nobody went on with."""
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._folder):
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime < time.time() - _STALE_S:
                        Path(entry.path).unlink()

    def prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _file(self, digest: Digest, session: Session) -> Path:
        # Whoever sent the last byte of what somebody else began would pass for one who has the whole.
        sender = hashlib.sha256(f"{session.credential} {session.actor}".encode()).hexdigest()
        return self._folder / f"{digest.removeprefix('sha256:')}.{sender[:32]}"


class Arrival:
    """One sending into the file of a blob. Methods do blocking work: for a thread."""

    def __init__(self, digest: Digest, file: Path, span: Span) -> None:
        self._digest = digest
        self._path = file
        self._span = span
        self._hash = hashlib.sha256()

    def begin(self) -> None:
        """Raises `OffsetDiffers` when the part does not follow what is here."""
        with _storage(self._digest):
            here = self._path.stat().st_size if self._path.exists() else 0
            if self._span.first and self._span.first != here:
                raise OffsetDiffers(
                    f"{here} bytes of {self._digest} are here, the part begins at {self._span.first}",
                    remedy=f"go on at {here}",
                    offset=here,
                )
            if self._span.first:
                with self._path.open("rb") as before:
                    while chunk := before.read(_CHUNK_BYTES):
                        self._hash.update(chunk)
            else:
                # Not emptied: somebody who gave up waiting may have left it to the store under another name.
                self._path.unlink(missing_ok=True)
            flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._path, flags | os.O_APPEND, 0o600), "ab", buffering=0)

    def write(self, chunk: bytes) -> None:
        """Raises `StorageFull`, and then nothing is left of it: the journal may want room on the same disk."""
        try:
            with _storage(self._digest):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
        except StorageFull:
            self._path.unlink(missing_ok=True)
            raise
        self._hash.update(chunk)

    def close(self) -> None:
        self._file.close()

    def finish(self, blobs: BlobStore) -> None:
        """Give the whole blob to the store. Raises `DigestDiffers`, and then nothing is left of it."""
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._digest:
            self._path.unlink()
            raise DigestDiffers(
                f"the bytes hash to {found}, not to {self._digest}",
                remedy="send the original bytes from their beginning",
                digest=self._digest,
                found=found,
            )
        # A store may take longer than the sender waits, who then sends it again: into a file of its own.
        whole = self._path.with_name(f"{self._path.name}.{os.urandom(8).hex()}")
        self._path.rename(whole)
        try:
            kept = blobs.put_file(str(whole))
        except BaseException:
            whole.rename(self._path)
            raise
        whole.unlink(missing_ok=True)
        if kept != self._digest:
            raise DigestDiffers(
                f"somebody else wrote into what arrived of {self._digest}",
                remedy="give each hub an uploads folder of its own, then send the bytes from their beginning",
                digest=self._digest,
                found=kept,
            )


def blob_routes(gate: Gate, lane: Lane, blobs: SweptBlobs, uploads: Uploads, sight: BlobSight) -> list[Any]:
    """The routes of blobs: uploads need a permission that makes something, downloads `read` where a blob is at home."""
    uploads.prepare()
    door = BlobDoor(gate, lane, blobs, uploads, sight)

    @put("/v1/blobs/{digest:str}")
    async def bring(request: AnyRequest) -> Response[bytes]:
        return await door.bring(request, _digest(request))

    @route("/v1/blobs/{digest:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def fetch(request: AnyRequest) -> Response[Any]:
        digest = _digest(request)
        return await (door.see(request, digest) if request.method == "HEAD" else door.fetch(request, digest))

    @get("/v1/blobs")
    async def digests(request: AnyRequest) -> Response[bytes]:
        return await door.page(request)

    return [bring, fetch, digests]


class BlobDoor:
    """What the routes do."""

    def __init__(self, gate: Gate, lane: Lane, blobs: SweptBlobs, uploads: Uploads, sight: BlobSight) -> None:
        self._gate = gate
        self._lane = lane
        self._blobs = blobs
        self._uploads = uploads
        self._sight = sight

    def _demand(self, request: AnyRequest, what: str, permissions: Sequence[str]) -> Session:
        session = self._gate.session(request)
        if not holds(session, permissions):
            raise BlobsRefused(
                f"{session.actor} may not {what}",
                remedy="ask an admin for a role with one of: " + ", ".join(permissions),
                actor=session.actor,
            )
        return session

    async def bring(self, request: AnyRequest, digest: Digest) -> Response[bytes]:
        self._gate.check(request)
        span = _span(request, self._gate.limits.blob_bytes)
        session = await self._lane.run(lambda: self._demand(request, "bring blobs", BRINGING))
        async with self._uploads.alone(digest, session) as file:
            arrival = Arrival(digest, file, span)
            await self._lane.run(arrival.begin)
            await self._receive(request, arrival, span)
            if not span.is_last:
                here = self._uploads.offset(digest, session)
                return Response(b"", status_code=202, headers={"Upload-Offset": str(here)})

            def keep() -> None:
                arrival.finish(self._blobs)
                self._sight.brought(session, digest)

            await self._lane.run(keep, begun=True)
        self._gate.tally.add("blobs.brought")
        return Response(b"", status_code=201, headers={"ETag": f'"{digest}"'})

    async def _receive(self, request: AnyRequest, arrival: Arrival, span: Span) -> None:
        """Write what comes in; what has come stays when the connection breaks."""
        limits = self._gate.limits
        left = limits.blob_bytes - span.first if span.length is None else span.length
        gathered = bytearray()
        try:
            try:
                async for chunk in arriving(request, limits, left):
                    gathered += chunk
                    if len(gathered) >= _CHUNK_BYTES:
                        await self._write(arrival, gathered)
            finally:
                await self._write(arrival, gathered)
        finally:
            arrival.close()

    async def _write(self, arrival: Arrival, gathered: bytearray) -> None:
        chunk = bytes(gathered)
        gathered.clear()
        await self._lane.run(lambda: arrival.write(chunk), begun=True)

    async def see(self, request: AnyRequest, digest: Digest) -> Response[bytes]:
        """Whether a blob is here; its bytes are not verified for that. Who may bring one and hears that it is here will
        rely on it, so for him it is made as young as if he had brought it."""
        self._gate.check(request)

        def look() -> tuple[bool, int]:
            session = self._demand(request, "read blobs", _READING)
            here = self._sight.sees(session, digest) and (
                self._blobs.renew(digest) if holds(session, BRINGING) else self._blobs.has(digest)
            )
            return here, 0 if here else self._uploads.offset(digest, session)

        here, offset = await self._lane.run(look)
        if here:
            return Response(b"", headers=_headers_of(digest), media_type="application/octet-stream")
        return Response(b"", status_code=404, headers={"Upload-Offset": str(offset)})

    async def fetch(self, request: AnyRequest, digest: Digest) -> Response[Any]:
        """The bytes, verified by the store before the first of them goes out."""
        self._gate.check(request)
        known = f'"{digest}"' in request.headers.get("if-none-match", "")

        def find() -> str:
            session = self._demand(request, "read blobs", _READING)
            if not self._sight.sees(session, digest):
                self._gate.tally.add("refused.blob")
                raise unseen(session.actor, digest)
            return "" if known else self._blobs.path(digest)

        found = await self._lane.run(find)
        if known:
            return Response(b"", status_code=304, headers=_headers_of(digest))
        size = Path(found).stat().st_size
        wanted = _range(request, size)
        first, last = wanted or (0, size - 1)
        headers = {**_headers_of(digest), "Content-Length": str(last - first + 1)}
        if wanted is not None:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Stream(
            _sending(Path(found), first, last - first + 1, self._lane),
            status_code=200 if wanted is None else 206,
            headers=headers,
            media_type="application/octet-stream",
        )

    async def page(self, request: AnyRequest) -> Response[bytes]:
        self._gate.check(request)
        after = request.query_params.get("after", "")
        limit = request.query_params.get("limit", "")
        n = min(int(limit), _MAX_PAGE) if limit.isdecimal() and len(limit) < 9 else _MAX_PAGE

        def page() -> bytes:
            session = self._demand(request, "list blobs", ("read.audit",))
            found = heapq.nsmallest(n + 1, self._listed(session, after))
            more = len(found) > n > 0
            return canonical(BlobPage(digests=tuple(found[:n]), next=found[n - 1] if more else None))

        return Response(await self._lane.run(page), media_type="application/json")

    def _listed(self, session: Session, after: str) -> Iterator[Digest]:
        """All digests after one that the session may read, some thousand looked up at a time."""
        later = (one for one in self._blobs.digests() if one > after)
        while some := list(islice(later, _MAX_PAGE)):
            yield from self._sight.among(session, some)


def _digest(request: AnyRequest) -> Digest:
    return check_digest(str(request.path_params["digest"]))


async def _sending(path: Path, first: int, length: int, lane: Lane) -> AsyncIterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(first)
        while length > 0:
            chunk = await lane.run(partial(file.read, min(length, _SENT_BYTES)), begun=True)
            if not chunk:
                return
            length -= len(chunk)
            yield chunk


def _span(request: AnyRequest, max_bytes: int) -> Span:
    text = request.headers.get("content-range", "")
    if not text:
        return Span(0, None, None)
    found = _SPAN.match(text)
    first, last, total = (int(one) for one in found.groups()) if found else (0, -1, -1)
    if not first <= last < total:
        raise BadRange(
            f"{text[:80]!r} is no part of a blob", remedy="send Content-Range: bytes FIRST-LAST/TOTAL"
        )
    if total > max_bytes:
        raise BodyTooLarge(
            f"a blob has at most {max_bytes} bytes here, this one {total}",
            remedy="raise blob_bytes in [limits] of the hub",
            limit_bytes=max_bytes,
        )
    return Span(first, last - first + 1, total)


def _range(request: AnyRequest, size: int) -> tuple[int, int] | None:
    """First and last byte of what is wanted; None for all. What is no single range is answered with all of it."""
    found = _RANGE.match(request.headers.get("range", ""))
    if found is None or found.group(0) == "bytes=-":
        return None
    low, high = found.groups()
    first = int(low) if low else max(size - int(high), 0)
    last = min(int(high), size - 1) if low and high else size - 1
    if first >= size:
        raise RangeUnsatisfiable(
            f"the blob has {size} bytes, the range begins at {first}",
            remedy="ask for less",
            size=size,
        )
    return (first, last) if first <= last else None


def _headers_of(digest: Digest) -> dict[str, str]:
    return {
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }


@contextmanager
def _storage(digest: Digest) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(
            f"no room on the hub for {digest}", remedy="free space there, then send it again", digest=digest
        ) from error
