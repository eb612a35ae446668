"""Blobs in an object store that speaks S3, with a verified cache on this machine; and checkpoints in one.

    BUCKET/PREFIX/blobs/sha256/<hex>     one object per blob, created and never replaced
    BUCKET/PREFIX/parts/<hex>/<a>-<b>    the bytes of a large blob from a to b; its own object then speaks of parts
    BUCKET/PREFIX/renewed/<hex>          empty; a blob was put again when this was written
    BUCKET/PREFIX/sweeping/<hex>         somebody is just removing the blob
    BUCKET/PREFIX/checkpoints/<size>     one object per signed note

The store is believed in one thing only: that it keeps `If-None-Match` and `If-Match`. Some that call themselves
compatible take the header and overwrite all the same, so `open_bucket` tries it out first and refuses such a store.
Bytes are hashed whenever they come back; a request carries the hash of its body, so the store refuses what the wire
has changed.

An object store cannot compare and remove in one step, so whoever removes and whoever puts look at each other. To remove
is: say so in `sweeping` (created, so one does it at a time); then look how old the blob is; only then remove it. To put
is: write the blob, or `renewed` when it is there; then look into `sweeping`, and wait while there is something; then
look that the blob is there, or begin again. Of two who write first and look afterwards one sees the other, because the
store shows everybody at once what was written. Whoever dies while he removes leaves `sweeping` behind; after an hour
somebody takes it over, which is far longer than a request of his can be on its way. Left is this: a process that stands
still for that hour between looking at the clock and sending its request, while another one puts the same blob.

A large blob is sent part by part, each an object, and its own object last. So an upload that ended, with its process or
without, goes on where it was: no library and no credential of a role has to know of an upload's id. What is read is the
blob or its parts, whichever hashes to the name; there is no third. Who sends parts writes `renewed` and waits for a
sweep before he looks which are there; who removes takes the own object last. So whoever finds none knows its parts.

What is verified: `get` hashes on every read. `path` hashes what it brings into the cache, and asks the store each time
whether the object is still the one it hashed (its ETag). When the store cannot be reached, a verified file of the cache
is still handed out; when the store says the blob is gone, the file goes too.
"""

from __future__ import annotations

import mmap
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec
import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.core.blobs import BlobCorrupt, BlobMissing, KeptBlob, StorageFull
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, canonical, check_digest, sha256
from lockgate.core.errors import Corrupt, Forbidden, Invalid, Unavailable, Unsupported, did_you_mean
from lockgate.core.journal import Checkpoint

if TYPE_CHECKING:
    from obstore.store import S3Config

_SINGLE_BYTES = 64 * 1024 * 1024
_PART_BYTES = 16 * 1024 * 1024
_PARTS_AT_ONCE = 4
_MAX_PARTS = 1_000_000
_MAX_INDEX_BYTES = 256
_ROUNDS = 5
_SECRETS = {
    "access_key": "access_key_id",
    "secret_key": "secret_access_key",
    "session_token": "session_token",
}
_PARAMETERS = ("endpoint", "region", *_SECRETS)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_STATUS = re.compile(r"status code: ([45]\d\d)")
_FULL = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})
_DIGITS = 20
_RENEW_AFTER_US = 3_600_000_000
_ABANDONED_US = 3_600_000_000
_GOES_ON_WITHIN_US = 12 * 3_600_000_000
"""Parts older than this are sent again: they may not be there for as long as a sweep spares what is young."""
_HASTE_US = 60_000_000
_WAITS, _WAIT_S = 200, 0.05

Secret = Callable[[str, str], str]
"""Turns a reference to a secret, `env:NAME` or `file:PATH`, and where it stands into the secret."""


class BucketUnreachable(Unavailable):
    code = "blobs.bucket-unreachable"


class BucketDenied(Forbidden):
    """The object store does not accept the credentials, or they do not reach so far."""

    code = "blobs.bucket-denied"


class ConditionalWritesIgnored(Unsupported):
    """The object store overwrites what it was asked to create; two writers would undo each other silently."""

    code = "blobs.conditional-writes-ignored"


class BlobBeingRemoved(Unavailable):
    """A sweep is at the blob, or was killed in the midst of it."""

    code = "blobs.being-removed"


class BucketUrlInvalid(Invalid):
    code = "blobs.bucket-url"


class CheckpointContested(Corrupt):
    """Another note of the same size lies there already: two journals, or one that was rewritten."""

    code = "blobs.checkpoint-contested"


@dataclass(frozen=True)
class BucketUrl:
    """`s3://BUCKET/PREFIX?endpoint=URL&region=NAME&access_key=env:NAME&secret_key=file:PATH`.

    Without `access_key` the credentials are those of the environment (AWS_ACCESS_KEY_ID and the like), or of the
    machine's role. Secrets are references; the URL may be shown.
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    secrets: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> BucketUrl:
        """Raises `BucketUrlInvalid`; the URL's parameters are not repeated, a secret may stand there."""
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query))
        unknown = sorted(set(given) - set(_PARAMETERS))
        if parts.scheme != "s3" or not parts.hostname or parts.username or parts.password or parts.fragment:
            raise _bad_url("an object store is written s3://BUCKET/PREFIX?endpoint=URL")
        if unknown:
            raise _bad_url(f"{unknown[0]!r} is no parameter of it", did_you_mean(unknown[0], _PARAMETERS))
        endpoint = given.get("endpoint")
        where = urlsplit(endpoint) if endpoint else None
        if where is not None and where.scheme != "https" and where.hostname not in _LOOPBACK:
            raise _bad_url("its endpoint must be https; plain http only on this machine")
        if ("access_key" in given) != ("secret_key" in given):
            raise _bad_url("access_key and secret_key belong together")
        secrets = tuple((name, given[name]) for name in _SECRETS if name in given)
        prefix = parts.path.strip("/")
        return cls(
            parts.netloc, f"{prefix}/" if prefix else "", endpoint, given.get("region", "us-east-1"), secrets
        )

    @property
    def shown(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class Look(NamedTuple):
    """What a store knows of an object. `written_at` by the store's own clock."""

    etag: str
    n_bytes: int
    written_at: Micros


class Bucket:
    """A place in an object store: small conditional operations, with the store's errors translated.

    Args:
        where: for messages; holds no secret.
    """

    def __init__(self, store: S3Store, prefix: str, where: str) -> None:
        self.store = store
        self.prefix = prefix
        self.where = where

    def create(self, key: str, data: bytes) -> str | None:
        """Write a new object; its ETag, or None when there is one already, which then stays as it is."""
        with self._errors():
            try:
                done = obstore.put(self.store, self.prefix + key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return None
        return done["e_tag"] or ""

    def replace(self, key: str, data: bytes, etag: str) -> str | None:
        """Write over the object that has this ETag; None when it is another by now."""
        with self._errors():
            try:
                done = obstore.put(self.store, self.prefix + key, data, mode={"e_tag": etag})
            except (PreconditionError, AlreadyExistsError):
                # The second is what a race is answered with.
                return None
        return done["e_tag"] or ""

    def write(self, key: str, data: bytes) -> None:
        """Write an object, whatever is there."""
        with self._errors():
            obstore.put(self.store, self.prefix + key, data, use_multipart=False)

    def etag(self, key: str) -> str | None:
        """Of the object; None when there is none."""
        found = self.head(key)
        return None if found is None else found.etag

    def head(self, key: str) -> Look | None:
        """A look at the object; None when there is none."""
        with self._errors():
            try:
                meta = obstore.head(self.store, self.prefix + key)
            except FileNotFoundError:
                return None
        return Look(meta["e_tag"] or "", meta["size"], _micros(meta["last_modified"]))

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The object and its ETag; None when there is none."""
        with self._errors():
            try:
                found = obstore.get(self.store, self.prefix + key)
                return bytes(found.bytes()), found.meta["e_tag"] or ""
            except FileNotFoundError:
                return None

    def delete(self, key: str) -> None:
        with self._errors(), suppress(FileNotFoundError):
            obstore.delete(self.store, self.prefix + key)

    def names(self, folder: str) -> Iterator[str]:
        """What follows `folder` in the keys below it."""
        return (name for name, _ in self.listing(folder))

    def listing(self, folder: str) -> Iterator[tuple[str, Look]]:
        """As `names`, with a look at each."""
        start = self.prefix + folder
        with self._errors():
            for page in obstore.list(self.store, prefix=start.rstrip("/")):
                for entry in page:
                    if entry["path"].startswith(start):
                        found = Look(entry["e_tag"] or "", entry["size"], _micros(entry["last_modified"]))
                        yield entry["path"].removeprefix(start), found

    def require_conditional_writes(self) -> None:
        """Try it out, on an object of its own that goes again.

        Raises:
            ConditionalWritesIgnored: what was to be created, or replaced by its old ETag, was overwritten.
        """
        key = f".probe/{os.urandom(12).hex()}"
        try:
            first = self.create(key, b"first")
            if first is None or self.create(key, b"second") is not None:
                raise self._ignored("If-None-Match")
            second = self.replace(key, b"third", first)
            if second is None or self.replace(key, b"fourth", first) is not None:
                raise self._ignored("If-Match")
        finally:
            self.delete(key)

    def _ignored(self, header: str) -> ConditionalWritesIgnored:
        return ConditionalWritesIgnored(
            f"{self.where} does not keep {header}: it overwrote what it was asked to leave alone",
            remedy="use a store with conditional writes (S3, SeaweedFS, R2, recent MinIO or Ceph), or file:PATH",
            store=self.where,
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The store's complaint without its text, which repeats what was sent; its code and status are enough."""
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise BucketDenied(
                f"{self.where} refuses the credentials ({_code(error)})",
                remedy="check the access key and what it may do in this bucket",
                store=self.where,
            ) from None
        except (BaseError, FileNotFoundError) as error:
            code = _code(error)
            if code in _FULL:
                raise StorageFull(
                    f"no room left in {self.where} ({code})",
                    remedy="free space or raise the quota, then run the same command again",
                    store=self.where,
                ) from None
            raise BucketUnreachable(
                f"the object store {self.where} cannot be used ({code})",
                remedy="check the endpoint and that the bucket exists; then run the same command again",
                store=self.where,
            ) from None


class _Index(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the own object of a large blob holds: how many bytes it has, and how many are in each part."""

    schema: Literal["lockgate.parts/1"] = "lockgate.parts/1"
    size: int
    part: int

    @property
    def n_parts(self) -> int:
        return -(-self.size // self.part)

    def bounds(self, number: int) -> tuple[int, int]:
        return number * self.part, min(self.size, (number + 1) * self.part)

    def key(self, digest: Digest, number: int) -> str:
        start, end = self.bounds(number)
        return f"{_parts(digest)}{start:0{_DIGITS}d}-{end:0{_DIGITS}d}"


class _Found(NamedTuple):
    """What lies under the name of a blob.

    Attributes:
        data: the blob's bytes; None when what is there does not hash to the name.
        own: the blob's own object, its ETag in `etag`.
        seal: the ETags of all that was read, one after another.
    """

    data: bytes | None
    own: bytes
    etag: str
    seal: str


class ObjectBlobs:
    """A `BlobStore` over a bucket.

    Args:
        bucket: one whose conditional writes were tried out (`open_bucket`).
        cache: a directory for verified copies; may be shared by processes, and removed at any time.
        single_bytes: a blob above this size goes up in parts of `part_bytes`.
    """

    def __init__(
        self,
        bucket: Bucket,
        cache: str | os.PathLike[str],
        *,
        single_bytes: int = _SINGLE_BYTES,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        self._bucket = bucket
        self._cache = DirectoryBlobs(cache)
        self._single_bytes, self._part_bytes = single_bytes, part_bytes
        self._verified: dict[Digest, str] = {}
        self._lock = threading.Lock()

    def put(self, data: bytes) -> Digest:
        digest = sha256(data)
        for _ in range(_ROUNDS):
            if self._write(digest, data) and self._stays(digest):
                return digest
        raise BucketUnreachable(
            f"{digest} kept changing in {self._bucket.where} while it was stored",
            remedy="run the same command again; if it stays so, find out who else writes there",
            store=self._bucket.where,
            digest=digest,
        )

    def _write(self, digest: Digest, data: bytes) -> bool:
        """Make the blob whole and young; false when somebody came in between."""
        key, own, etag = _key(digest), data, None
        if len(data) > self._single_bytes:
            own = canonical(_Index(size=len(data), part=self._part_bytes))
            if (etag := self._bucket.etag(key)) is None:
                self._send(digest, data)
        if etag is None and (etag := self._bucket.create(key, own)) is not None:
            self._remember(digest, etag)
            return True
        found = self._find(digest)
        if found is None:
            return False
        if found.data is not None:
            self._make_young(digest)
            return True
        # The bytes under this name are damaged; ours hash to it, so they may take the place.
        if own is not data:
            self._send(digest, data, whole=True)
        healed = self._bucket.replace(key, own, found.etag)
        if healed is not None:
            self._remember(digest, healed)
        return healed is not None

    def _send(self, digest: Digest, data: bytes, *, whole: bool = False) -> None:
        """Send the parts of a blob, several at once. What is there of late is not sent again, unless `whole` says so.

        A part is written over at will: its key says which bytes it holds, so whoever is faster writes the same.
        """
        index = _Index(size=len(data), part=self._part_bytes)
        self._bucket.write(_renewed(digest), b"")
        self._await_sweep(digest)
        late = _now() - _GOES_ON_WITHIN_US
        there = {
            name: found.n_bytes
            for name, found in ([] if whole else self._bucket.listing(_parts(digest)))
            if found.written_at >= late
        }

        def send(number: int) -> None:
            start, end = index.bounds(number)
            key = index.key(digest, number)
            if there.get(key.removeprefix(_parts(digest))) != end - start:
                self._bucket.write(key, data[start:end])

        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            list(pool.map(send, range(index.n_parts)))

    def _find(self, digest: Digest) -> _Found | None:
        """The blob, or its parts, or what is wrong there; None for nothing at all. What hashes to the name is noted."""
        read = self._bucket.read(_key(digest))
        if read is None:
            return None
        found = _Found(read[0], read[0], read[1], read[1])
        if sha256(read[0]) != digest:
            found = self._joined(digest, found)
        if found.data is not None:
            self._remember(digest, found.seal)
        else:
            with self._lock:
                self._verified.pop(digest, None)
        return found

    def _joined(self, digest: Digest, found: _Found) -> _Found:
        """With the parts that the blob's own object speaks of; with nothing when those are not the blob."""
        nothing = found._replace(data=None)
        try:
            index = msgspec.json.decode(found.own[: _MAX_INDEX_BYTES + 1], type=_Index)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return nothing
        if index.size < 1 or index.part < 1 or index.n_parts > _MAX_PARTS:
            return nothing
        keys = [index.key(digest, number) for number in range(index.n_parts)]
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            read = list(pool.map(self._bucket.read, keys))
        parts = [one for one in read if one is not None]
        whole = b"".join(data for data, _ in parts)
        if len(parts) != len(keys) or sha256(whole) != digest:
            return nothing
        return found._replace(data=whole, seal="".join((found.etag, *(etag for _, etag in parts))))

    def _seal(self, digest: Digest) -> str | None:
        """The ETags of all that lies there for a blob now; None when there is no such blob."""
        own = self._bucket.head(_key(digest))
        if own is None or own.n_bytes > _MAX_INDEX_BYTES:
            return None if own is None else own.etag
        # Only a small object can be one that speaks of parts.
        return "".join((own.etag, *(part.etag for _, part in sorted(self._bucket.listing(_parts(digest))))))

    def put_file(self, path: str) -> Digest:
        with Path(path).open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return self.put(b"")
            # Mapped: pages that were read may go again, however large the file.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return self.put(cast("bytes", data))

    def get(self, digest: Digest) -> bytes:
        found = self._find(check_digest(digest))
        # Of a blob that is just being removed, the parts go first.
        if found is None or (found.data is None and self._bucket.head(_sweeping(digest)) is not None):
            raise self._missing(digest)
        if found.data is None:
            raise BlobCorrupt(
                f"the bytes kept as {digest} in {self._bucket.where} do not hash to that name",
                remedy="put the original bytes again, or copy the blob from another store",
                digest=digest,
                store=self._bucket.where,
            )
        return found.data

    def path(self, digest: Digest) -> str:
        check_digest(digest)
        cached = self._cache.has(digest)
        try:
            seal = self._seal(digest)
        except BucketUnreachable:
            if not cached:
                raise
            return self._cache.path(digest)
        if seal is None:
            raise self._missing(digest)
        # A copy of before this process began hashes to its name, whatever became of the object it came from.
        if cached and self._verified.get(digest, seal) == seal:
            with suppress(BlobCorrupt, BlobMissing):
                path = self._cache.path(digest)
                self._remember(digest, seal)
                return path
        self._cache.put(self.get(digest))
        return self._cache.path(digest)

    def has(self, digest: Digest) -> bool:
        return self._bucket.etag(_key(check_digest(digest))) is not None

    def digests(self) -> Iterator[Digest]:
        return (f"sha256:{name}" for name in self._bucket.names("blobs/sha256/"))

    def delete(self, digest: Digest) -> None:
        own = self._bucket.head(_key(check_digest(digest)))
        with self._lock:
            self._verified.pop(digest, None)
        # Only a small object can be one that speaks of parts.
        if own is None or own.n_bytes <= _MAX_INDEX_BYTES:
            for name in self._bucket.names(_parts(digest)):
                self._bucket.delete(_parts(digest) + name)
        self._bucket.delete(_key(digest))
        self._bucket.delete(_renewed(digest))
        self._cache.delete(digest)

    def kept(self) -> Iterator[KeptBlob]:
        """Parts belong to their blob. Those of an upload without an end are one too, until a sweep takes them."""
        renewed = {name: found.written_at for name, found in self._bucket.listing("renewed/")}
        parts: dict[str, list[Look]] = {}
        for name, part in self._bucket.listing("parts/"):
            parts.setdefault(name.partition("/")[0], []).append(part)
        for name, own in self._bucket.listing("blobs/sha256/"):
            n_bytes = sum(part.n_bytes for part in parts.pop(name)) if name in parts else own.n_bytes
            put_at = max(own.written_at, renewed.get(name, own.written_at))
            yield KeptBlob(f"sha256:{name}", n_bytes, put_at)
        for name, left in parts.items():
            put_at = max(renewed.get(name, 0), *(part.written_at for part in left))
            yield KeptBlob(f"sha256:{name}", sum(part.n_bytes for part in left), put_at)

    def renew(self, digest: Digest) -> bool:
        if self._put_at(check_digest(digest)) is None:
            return False
        self._make_young(digest)
        return self._stays(digest)

    def discard(self, digest: Digest, before: Micros) -> bool:
        """See the head of this file. What a sweep that was killed has begun is taken up after an hour."""
        if not self._is_older(check_digest(digest), before):
            return False
        begun = _now()
        if not self._take(digest):
            return False
        # Whoever stood still for long may have been taken for dead, and removes nothing that others count on by now.
        removed = self._is_older(digest, before) and _now() - begun < _HASTE_US
        if removed:
            self.delete(digest)
        if _now() - begun < _ABANDONED_US // 2:
            self._bucket.delete(_sweeping(digest))
        return removed

    def _take(self, digest: Digest) -> bool:
        """Say that the blob is being removed; false when somebody else just does."""
        key, mine = _sweeping(digest), os.urandom(12).hex().encode()
        if self._bucket.create(key, mine) is not None:
            return True
        found = self._bucket.head(key)
        if found is None or _now() - found.written_at < _ABANDONED_US:
            return False
        return self._bucket.replace(key, mine, found.etag) is not None

    def _stays(self, digest: Digest) -> bool:
        """Whether a blob that was just written or made young is there and stays; waits for a sweep that is at it."""
        self._await_sweep(digest)
        return self._bucket.head(_key(digest)) is not None

    def _await_sweep(self, digest: Digest) -> None:
        """Wait until nobody is removing the blob.

        Raises:
            BlobBeingRemoved: for longer than anybody waits.
        """
        for _ in range(_WAITS):
            found = self._bucket.head(_sweeping(digest))
            if found is None:
                return
            if _now() - found.written_at >= _ABANDONED_US and self._take(digest):
                self._bucket.delete(_sweeping(digest))
            else:
                time.sleep(_WAIT_S)
        raise BlobBeingRemoved(
            f"{digest} is just being removed from {self._bucket.where}",
            remedy="run the same command again; when a sweep was killed in the midst of it, in an hour",
            store=self._bucket.where,
            digest=digest,
        )

    def _put_at(self, digest: Digest) -> Micros | None:
        """When the blob was put; None when there is none."""
        own = self._bucket.head(_key(digest))
        return None if own is None else self._last((own,), digest)

    def _last(self, looks: Iterable[Look], digest: Digest) -> Micros:
        renewed = self._bucket.head(_renewed(digest))
        return max(one.written_at for one in (*looks, *([renewed] if renewed else [])))

    def _is_older(self, digest: Digest, before: Micros) -> bool:
        """Whether there is a blob, or what an upload left of one, and it is that old."""
        put_at = self._put_at(digest)
        if put_at is None and (left := [part for _, part in self._bucket.listing(_parts(digest))]):
            put_at = self._last(left, digest)
        return put_at is not None and put_at < before

    def _make_young(self, digest: Digest) -> None:
        put_at = self._put_at(digest)
        if put_at is None or _now() - put_at >= _RENEW_AFTER_US:
            self._bucket.write(_renewed(digest), b"")

    def _remember(self, digest: Digest, seal: str) -> Digest:
        with self._lock:
            self._verified[digest] = seal
        return digest

    def _missing(self, digest: Digest) -> BlobMissing:
        self._cache.delete(digest)
        return BlobMissing(
            f"no blob {digest} in {self._bucket.where}",
            remedy="check the digest, or copy the blob into this store",
            digest=digest,
        )


class ObjectSink:
    """A `CheckpointSink`: each signed note an object of its own, created and never replaced.

    Nothing is ever written over or deleted, so the bucket may lock its objects for as long as the law asks.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def write(self, checkpoint: Checkpoint) -> None:
        """Create the note's object. The same note again is no news.

        Raises:
            CheckpointContested: there is another note of that size.
        """
        key, note = f"checkpoints/{checkpoint.size:0{_DIGITS}d}", checkpoint.note.encode()
        if self._bucket.create(key, note) is not None:
            return
        found = self._bucket.read(key)
        if found is None or found[0] != note:
            raise CheckpointContested(
                f"{self._bucket.where} holds another checkpoint of {checkpoint.size} entries",
                remedy="lockgate audit verify; give every journal a prefix of its own",
                store=self._bucket.where,
                size=checkpoint.size,
            )

    def read(self) -> Sequence[str]:
        notes = []
        for name in self._sizes():
            found = self._bucket.read(f"checkpoints/{name}")
            if found is not None:
                notes.append(found[0].decode(errors="replace"))
        return tuple(notes)

    def last_size(self) -> int:
        sizes = self._sizes()
        return int(sizes[-1]) if sizes else 0

    def _sizes(self) -> list[str]:
        names = self._bucket.names("checkpoints/")
        return sorted(name for name in names if len(name) == _DIGITS and name.isascii() and name.isdigit())


def open_bucket(url: str, secret: Secret, *, writes: bool = True) -> Bucket:
    """Open a place in an object store.

    Args:
        url: see `BucketUrl`.
        secret: resolves the references in it.
        writes: try out the conditional writes; a reader that may not write leaves it.

    Raises:
        BucketUrlInvalid, BucketUnreachable, BucketDenied, ConditionalWritesIgnored.
    """
    parsed = BucketUrl.parse(url)
    given = {
        _SECRETS[name]: secret(reference, f"{name} of {parsed.shown}") for name, reference in parsed.secrets
    }
    if parsed.endpoint is not None:
        given["endpoint"] = parsed.endpoint
    store = S3Store(
        parsed.bucket,
        config=cast("S3Config", given),
        region=parsed.region,
        virtual_hosted_style_request=False,
        disable_bulk_delete=True,
        client_options={
            "allow_http": parsed.endpoint is not None and parsed.endpoint.startswith("http:"),
            "connect_timeout": "5s",
            "timeout": "300s",
        },
        retry_config={
            "max_retries": 3,
            "retry_timeout": timedelta(seconds=30),
            "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=2)},
        },
    )
    bucket = Bucket(store, parsed.prefix, parsed.shown)
    if writes:
        bucket.require_conditional_writes()
    return bucket


def open_blobs(url: str, secret: Secret, cache: Path, *, writes: bool = True) -> ObjectBlobs:
    """A blob store at an `s3:` URL. Raises as `open_bucket` does."""
    return ObjectBlobs(open_bucket(url, secret, writes=writes), cache)


def open_sink(url: str, secret: Secret) -> ObjectSink:
    """A checkpoint sink at an `s3:` URL. Raises as `open_bucket` does."""
    return ObjectSink(open_bucket(url, secret))


def _parts(digest: Digest) -> str:
    return f"parts/{digest.removeprefix('sha256:')}/"


def _key(digest: Digest) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _renewed(digest: Digest) -> str:
    return f"renewed/{digest.removeprefix('sha256:')}"


def _sweeping(digest: Digest) -> str:
    return f"sweeping/{digest.removeprefix('sha256:')}"


def _now() -> Micros:
    return time.time_ns() // 1000


def _micros(at: datetime) -> Micros:
    return round(at.timestamp() * 1_000_000)


def _code(error: Exception) -> str:
    found = _CODE.search(str(error)) or _STATUS.search(str(error))
    return found[1] if found else "no answer"


def _bad_url(
    why: str, remedy: str = "s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME"
) -> BucketUrlInvalid:
    return BucketUrlInvalid(f"the URL of the object store: {why}", remedy=remedy)
