"""Blobs in an object store, against a server in this process that can be told to misbehave.

`tests/services/test_object_store_seaweed.py` runs the same suite against a real one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3_server import S3, s3

from lockgate.adapters.blobs import object_store
from lockgate.adapters.blobs.object_store import (
    BlobBeingRemoved,
    BucketDenied,
    BucketUnreachable,
    BucketUrl,
    BucketUrlInvalid,
    CheckpointContested,
    ConditionalWritesIgnored,
    ObjectBlobs,
    open_blobs,
    open_bucket,
    open_sink,
)
from lockgate.core.blobs import BlobCorrupt, BlobMissing, StorageFull
from lockgate.core.digests import sha256
from lockgate.core.errors import LockgateError
from lockgate.core.journal import Checkpoint
from lockgate.testing.blobs_suite import (
    DAY,
    LONG_AGO,
    Age,
    BlobStoreContract,
    Damage,
    SweptBlobsContract,
)

SECRETS = {"env:ACCESS": "the-access-key", "env:SECRET": "the-secret-key"}


def secret(reference: str, where: str) -> str:
    return SECRETS[reference]


@pytest.fixture
def server() -> Iterator[S3]:
    with s3() as running:
        yield running


@pytest.fixture
def store(server: S3, tmp_path: Path) -> ObjectBlobs:
    return open_blobs(server.url(), secret, tmp_path / "cache")


def key(digest: str, folder: str = "blobs/sha256") -> str:
    return f"models/team/{folder}/{digest.removeprefix('sha256:')}"


class TestObjectBlobsAreSwept(SweptBlobsContract):
    @pytest.fixture
    def make(self, store: ObjectBlobs) -> ObjectBlobs:
        return store

    @pytest.fixture
    def age(self, make: ObjectBlobs, server: S3) -> Age:
        def age(digest: str, at: int) -> None:
            server.written[key(digest)] = at / 1_000_000
            server.objects.pop(key(digest, "renewed"), None)

        return age


class TestObjectBlobs(BlobStoreContract):
    @pytest.fixture
    def make(self, store: ObjectBlobs) -> ObjectBlobs:
        return store

    @pytest.fixture
    def damage(self, make: ObjectBlobs, server: S3) -> Damage:
        def flip(digest: str) -> None:
            data = server.objects[key(digest)]
            server.objects[key(digest)] = bytes([data[0] ^ 1]) + data[1:]

        return flip


@pytest.mark.parametrize("answered", [True, False], ids=["at once", "when it is asked again"])
@pytest.mark.parametrize("moment", ["before it is gone", "when it is gone"])
def test_who_puts_while_a_sweep_removes_waits_and_puts_again(
    server: S3, store: ObjectBlobs, eventually: Callable[..., object], answered: bool, moment: str
) -> None:
    digest = store.put(b"hello")
    server.written[key(digest)] = LONG_AGO / 1_000_000
    deletions = iter([True])
    with ThreadPoolExecutor(1) as pool:
        putting: list[Future[str]] = []

        def put_meanwhile(deleted: str) -> None:
            if deleted == key(digest) and not putting:
                n_seen = len(server.seen)
                putting.append(pool.submit(store.put, b"hello"))
                # It has written what it had to, and has seen that somebody is at it.
                eventually(lambda: f"HEAD {key(digest, 'sweeping')}" in server.seen[n_seen:])

        def meanwhile(deleted: str) -> bool:
            if moment == "when it is gone":
                put_meanwhile(deleted)
            return answered or deleted != key(digest) or not next(deletions, False)

        if moment == "before it is gone":
            server.before = put_meanwhile
        server.after = meanwhile
        assert store.discard(digest, LONG_AGO + DAY)
        assert putting[0].result(timeout=30) == digest
    assert store.get(digest) == b"hello"
    assert not store.discard(digest, LONG_AGO + DAY)
    assert not [name for name in server.objects if "/sweeping/" in name]


def test_what_a_killed_sweep_left_is_waited_for_and_taken_over_after_an_hour(
    server: S3, store: ObjectBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_WAITS", 2)
    digest, lock = store.put(b"hello"), key(sha256(b"hello"), "sweeping")
    server.written[key(digest)] = LONG_AGO / 1_000_000
    server.objects[lock] = b"somebody"
    with pytest.raises(BlobBeingRemoved) as caught:
        store.put(b"hello")
    assert caught.value.retryable and caught.value.facts["digest"] == digest
    server.objects.pop(key(digest, "renewed"))
    assert not store.discard(digest, LONG_AGO + DAY)
    server.written[lock] = time.time() - 3700
    assert store.discard(digest, LONG_AGO + DAY)
    assert not store.has(digest) and lock not in server.objects
    server.objects[lock] = b"somebody"
    server.written[lock] = time.time() - 3700
    assert store.put(b"hello") == digest
    assert store.has(digest) and lock not in server.objects


def test_to_renew_a_large_blob_takes_none_of_its_bytes(server: S3, store: ObjectBlobs) -> None:
    digest = store.put(b"hello" * 1000)
    server.written[key(digest)] = LONG_AGO / 1_000_000
    server.seen.clear()
    assert store.renew(digest)
    assert not [one for one in server.seen if one == f"PUT {key(digest)}" or one.startswith("GET ")]
    # A blob that is young already is not written about.
    server.seen.clear()
    assert store.renew(digest)
    assert not [one for one in server.seen if one.startswith("PUT ")]


# -- blobs in parts: everything above four bytes


def in_parts(server: S3, cache: Path, part_bytes: int = 3) -> ObjectBlobs:
    return ObjectBlobs(open_bucket(server.url(), secret), cache, single_bytes=4, part_bytes=part_bytes)


def parts(server: S3, digest: str) -> list[str]:
    return sorted(name for name in server.objects if f"/parts/{digest.removeprefix('sha256:')}/" in name)


class TestBlobsInPartsAreSwept(SweptBlobsContract):
    @pytest.fixture
    def make(self, server: S3, tmp_path: Path) -> ObjectBlobs:
        return in_parts(server, tmp_path / "cache")

    @pytest.fixture
    def age(self, make: ObjectBlobs, server: S3) -> Age:
        def age(digest: str, at: int) -> None:
            for name in (key(digest), *parts(server, digest)):
                server.written[name] = at / 1_000_000
            server.objects.pop(key(digest, "renewed"), None)

        return age

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, make: ObjectBlobs, server: S3) -> Iterator[None]:
        yield
        for one in list(make.kept()):
            make.delete(one.digest)
        assert server.objects == {}


class TestBlobsInParts(BlobStoreContract):
    @pytest.fixture
    def make(self, server: S3, tmp_path: Path) -> ObjectBlobs:
        return in_parts(server, tmp_path / "cache", part_bytes=100_000)

    @pytest.fixture(params=["index", "part", "lost part"])
    def damage(self, request: pytest.FixtureRequest, make: ObjectBlobs, server: S3) -> Damage:
        def flip(digest: str) -> None:
            name = key(digest) if request.param == "index" else parts(server, digest)[-1]
            data = server.objects[name]
            server.objects[name] = bytes([data[0] ^ 1]) + data[1:]
            if request.param == "lost part":
                del server.objects[name]

        return flip


def test_an_upload_goes_on_where_another_process_left_it(server: S3, tmp_path: Path) -> None:
    data = b"0123456789abc"
    digest = sha256(data)
    in_parts(server, tmp_path / "first").put(data)
    there = parts(server, digest)
    assert len(there) == 5
    del server.objects[key(digest)], server.objects[there[1]], server.objects[there[4]]
    server.written[there[2]] = 1.0
    server.seen.clear()
    store = in_parts(server, tmp_path / "second")
    with pytest.raises(BlobMissing):
        store.get(digest)
    assert store.put(data) == digest
    sent = [line.removeprefix("PUT ") for line in server.seen if line.startswith("PUT")]
    sent = [name for name in sent if "/.probe/" not in name and "/renewed/" not in name]
    # What is missing, what is too old to be relied on, and at the end what makes a blob of them.
    assert sorted(sent[:-1]) == [there[1], there[2], there[4]] and sent[-1] == key(digest)
    assert store.get(digest) == data


def test_what_an_upload_left_behind_is_swept_when_all_of_it_is_old(server: S3, tmp_path: Path) -> None:
    store = in_parts(server, tmp_path / "cache")
    digest = store.put(b"0123456789abc")
    del server.objects[key(digest)]
    there = parts(server, digest)
    for name in there[1:]:
        server.written[name] = 10.0
    (left,) = store.kept()
    assert (left.digest, left.n_bytes) == (digest, 13)
    for name in (there[0], key(digest, "renewed")):
        assert not store.discard(digest, 20_000_000)
        server.written[name] = 11.0
    assert store.discard(digest, 20_000_000)
    assert server.objects == {}


def test_an_upload_that_goes_on_while_a_sweep_takes_what_is_left_of_it_is_whole(
    server: S3, tmp_path: Path
) -> None:
    store = in_parts(server, tmp_path / "cache")
    made = {store.put(data): data for data in (b"a large blob %d" % number for number in range(24))}
    for digest in made:
        for name in (*parts(server, digest), key(digest, "renewed")):
            server.written[name] = LONG_AGO / 1_000_000
        del server.objects[key(digest)]
    with ThreadPoolExecutor(6) as pool:
        removed = [pool.submit(store.discard, digest, LONG_AGO + DAY) for digest in made]
        put = [pool.submit(store.put, data) for data in made.values()]
        also = [pool.submit(store.discard, digest, LONG_AGO + DAY) for digest in reversed(made)]
    assert [one.result() for one in put] == list(made)
    assert {one.result() for one in (*removed, *also)} <= {True, False}
    for digest, data in made.items():
        assert store.get(digest) == data


def test_a_blob_of_which_a_sweep_was_killed_is_whole_when_it_is_put_again(server: S3, tmp_path: Path) -> None:
    """Its parts go first; who reads meanwhile hears that it is missing."""
    store = in_parts(server, tmp_path / "cache")
    digest = store.put(b"0123456789abc")
    for name in (key(digest), key(digest, "renewed"), *parts(server, digest)):
        server.written[name] = 10.0
    server.objects[key(digest, "sweeping")] = b"somebody"
    del server.objects[parts(server, digest)[2]]
    with pytest.raises(BlobMissing):
        store.get(digest)
    server.written[key(digest, "sweeping")] = time.time() - 3_601
    assert store.put(b"0123456789abc") == digest
    assert store.get(digest) == b"0123456789abc"
    assert key(digest, "sweeping") not in server.objects


@pytest.mark.parametrize(
    "own",
    [
        b"",
        b"{}",
        b'{"schema":"lockgate.parts/1","size":0,"part":3}',
        b'{"schema":"lockgate.parts/1","size":13,"part":0}',
        b'{"schema":"lockgate.parts/1","size":99999999999999,"part":1}',
        b'{"schema":"lockgate.parts/2","size":13,"part":3}',
        b"\xff\xfe",
    ],
)
def test_an_object_that_is_neither_the_blob_nor_speaks_of_its_parts_is_damage(
    server: S3, tmp_path: Path, own: bytes
) -> None:
    store = in_parts(server, tmp_path / "cache")
    digest = store.put(b"0123456789abc")
    server.objects[key(digest)] = own
    with pytest.raises(BlobCorrupt):
        store.get(digest)
    assert store.put(b"0123456789abc") == digest
    assert store.get(digest) == b"0123456789abc"


@given(st.binary(min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 12))
def test_a_blob_reads_the_same_however_it_was_cut(data: bytes, part: int, other: int) -> None:
    """Whoever wrote it, with whatever sizes; and what speaks of parts may be a blob itself."""
    with s3() as server, tempfile.TemporaryDirectory() as folder:
        bucket = open_bucket(server.url(), secret)
        one = ObjectBlobs(bucket, f"{folder}/1", single_bytes=0, part_bytes=part)
        two = ObjectBlobs(bucket, f"{folder}/2", single_bytes=other, part_bytes=other)
        digest = one.put(data)
        assert two.get(digest) == data == one.get(digest)
        assert two.put(data) == digest
        own = server.objects[key(digest)]
        assert two.get(two.put(own)) == own
        assert Path(two.path(digest)).read_bytes() == data


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_a_condition_is_refused_at_start(
    server: S3, tmp_path: Path, header: str
) -> None:
    server.heeds.discard(header)
    with pytest.raises(ConditionalWritesIgnored, match=header):
        open_blobs(server.url(), secret, tmp_path / "cache")
    assert server.objects == {}


def test_a_reader_writes_nothing(server: S3, store: ObjectBlobs, tmp_path: Path) -> None:
    digest = store.put(b"hello")
    server.seen.clear()
    reader = open_blobs(server.url(), secret, tmp_path / "other", writes=False)
    assert reader.get(digest) == b"hello"
    assert not [line for line in server.seen if line.startswith("PUT")]


def test_an_existing_blob_is_not_written_again(server: S3, store: ObjectBlobs, tmp_path: Path) -> None:
    store.put(b"hello")
    server.answers_with = (412, "PreconditionFailed")
    open_blobs(server.url(), secret, tmp_path / "other", writes=False).put(b"hello")


def test_a_large_blob_goes_up_in_parts_and_is_whole(server: S3, store: ObjectBlobs) -> None:
    """The parts themselves are for a real server; here, that what is there is not sent a second time."""
    data = bytes(65 * 1024 * 1024)
    server.objects[key(sha256(data))] = data
    server.seen.clear()
    assert store.put(data) == sha256(data)
    assert not [line for line in server.seen if line.startswith("PUT")]


def test_the_cache_answers_when_the_store_cannot_be_reached(tmp_path: Path) -> None:
    with s3() as server:
        store = open_blobs(server.url(), secret, tmp_path / "cache")
        kept, other = store.put(b"kept"), store.put(b"other")
        store.path(kept)
    assert Path(store.path(kept)).read_bytes() == b"kept"
    for act in (lambda: store.path(other), lambda: store.get(kept), lambda: store.put(b"new")):
        with pytest.raises(BucketUnreachable):
            act()


def test_what_the_store_no_longer_has_leaves_the_cache(
    server: S3, store: ObjectBlobs, tmp_path: Path
) -> None:
    digest = store.put(b"personal data")
    copy = Path(store.path(digest))
    open_blobs(server.url(), secret, tmp_path / "other").delete(digest)
    with pytest.raises(BlobMissing):
        store.path(digest)
    assert not copy.exists()


def test_a_copy_of_an_earlier_process_is_hashed_before_it_is_handed_out(
    server: S3, store: ObjectBlobs, tmp_path: Path
) -> None:
    digest = store.put(b"hello")
    copy = Path(store.path(digest))
    copy.chmod(0o600)
    copy.write_bytes(b"hullo")
    again = open_blobs(server.url(), secret, tmp_path / "cache")
    assert Path(again.path(digest)).read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (507, "InsufficientStorage", StorageFull),
        (400, "QuotaExceeded", StorageFull),
        (403, "InvalidAccessKeyId", BucketDenied),
        (404, "NoSuchBucket", BucketUnreachable),
        (400, "MalformedXML", BucketUnreachable),
    ],
)
def test_what_the_store_says_is_translated_and_no_secret_is_repeated(
    server: S3, store: ObjectBlobs, status: int, code: str, error: type[LockgateError]
) -> None:
    server.answers_with = (status, code)
    with pytest.raises(error) as caught:
        store.put(b"hello")
    told = f"{caught.value} {caught.value.record()} {caught.value.__cause__}"
    assert not [value for value in SECRETS.values() if value in told]
    assert "Signature" not in told


@pytest.mark.parametrize(
    "url",
    [
        "s3:///prefix",
        "https://models/team",
        "s3://key:secret@models/team",
        "s3://models?endpoint=http://10.0.0.7:9000",
        "s3://models?endpoint=https://s3.example&acces_key=env:A",
        "s3://models?access_key=env:A",
    ],
)
def test_a_wrong_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BucketUrlInvalid) as caught:
        BucketUrl.parse(url)
    assert "secret@" not in caught.value.message


def test_the_url_that_is_shown_has_no_parameters() -> None:
    parsed = BucketUrl.parse(
        "s3://models/team/?endpoint=https://s3.example&access_key=env:A&secret_key=env:B"
    )
    assert (parsed.shown, parsed.prefix) == ("s3://models/team", "team/")


def note(size: int, text: str = "") -> Checkpoint:
    return Checkpoint(size, b"", f"lockgate/journal\n{size}\nroot{text}\n")


def test_notes_are_objects_that_are_never_written_over(server: S3) -> None:
    sink = open_sink(server.url(), secret)
    assert (sink.read(), sink.last_size()) == ((), 0)
    for size in (2, 100, 11):
        sink.write(note(size))
    sink.write(note(11))
    assert [text.split("\n")[1] for text in sink.read()] == ["2", "11", "100"]
    assert sink.last_size() == 100
    with pytest.raises(CheckpointContested, match="11 entries"):
        sink.write(note(11, "another"))
    assert sink.read()[1] == note(11).note
    server.objects["models/team/checkpoints/strange"] = b"?"
    assert len(sink.read()) == 3
