"""Blobs and checkpoints in a real object store: SeaweedFS, which honours conditional writes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from seaweed import Seaweed, seaweed, secret

from lockgate.adapters.blobs import object_store
from lockgate.adapters.blobs.object_store import (
    BucketDenied,
    CheckpointContested,
    ObjectBlobs,
    open_blobs,
    open_bucket,
    open_sink,
)
from lockgate.core.digests import sha256
from lockgate.core.journal import Checkpoint
from lockgate.testing.blobs_suite import BlobStoreContract, Damage

pytestmark = pytest.mark.service

_places = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Seaweed]:
    with seaweed() as running:
        yield running


@pytest.fixture
def url(server: Seaweed) -> str:
    return server.url(f"models/t{next(_places)}")


@pytest.fixture
def store(url: str, tmp_path: Path) -> ObjectBlobs:
    return open_blobs(url, secret, tmp_path / "cache")


class TestSeaweedBlobs(BlobStoreContract):
    @pytest.fixture
    def make(self, store: ObjectBlobs) -> ObjectBlobs:
        return store

    @pytest.fixture
    def damage(self, make: ObjectBlobs, url: str) -> Damage:
        def flip(digest: str) -> None:
            bucket = open_bucket(url, secret)
            key = f"{bucket.prefix}blobs/sha256/{digest.removeprefix('sha256:')}"
            data = bytes(obstore.get(bucket.store, key).bytes())
            obstore.put(bucket.store, key, bytes([data[0] ^ 1]) + data[1:])

        return flip


def test_what_is_put_while_a_sweep_removes_it_is_there(
    store: ObjectBlobs,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., object],
) -> None:
    """Nobody can make an object of a real store old, so here a second is as good as an hour."""
    monkeypatch.setattr(object_store, "_RENEW_AFTER_US", 0)
    made = {store.put(data): data for data in (b"blob %d" % number for number in range(40))}
    before = max(one.put_at for one in store.kept()) + 1_000_000
    eventually(lambda: time.time_ns() // 1000 > before + 1_000_000)
    sweeper = open_blobs(url, secret, tmp_path / "sweeper")
    putters = [open_blobs(url, secret, tmp_path / f"putter-{number}") for number in range(2)]
    with ThreadPoolExecutor(8) as pool:
        removed = [pool.submit(sweeper.discard, digest, before) for digest in made]
        put = [pool.submit(putters[0].put, data) for data in reversed(made.values())]
        renewed = {digest: pool.submit(putters[1].renew, digest) for digest in made}
        again = [pool.submit(sweeper.discard, digest, before) for digest in made]
    assert {one.result() for one in put} == set(made)
    assert {one.result() for one in renewed.values()} <= {True, False}
    n_removed = len([one for one in (*removed, *again) if one.result()])
    assert 0 < n_removed <= len(made), "the sweep and the putters did not meet"
    for digest, data in made.items():
        assert store.get(digest) == data
        assert not sweeper.discard(digest, before)
    assert list(open_bucket(url, secret).names("sweeping/")) == []


def test_a_large_blob_goes_up_in_parts_and_comes_back_whole(store: ObjectBlobs) -> None:
    data = os.urandom(1024) * (70 * 1024)
    digest = store.put(data)
    assert digest == sha256(data) == store.put(data)
    assert sha256(Path(store.path(digest)).read_bytes()) == digest


def test_of_many_who_create_one_object_one_wins(url: str) -> None:
    bucket = open_bucket(url, secret)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: bucket.create("pointer", b"%d" % number), range(16)))
    assert len([etag for etag in made if etag is not None]) == 1
    first = bucket.etag("pointer")
    assert first is not None
    with ThreadPoolExecutor(8) as pool:
        moved = list(pool.map(lambda number: bucket.replace("pointer", b"n%d" % number, first), range(16)))
    assert len([etag for etag in moved if etag is not None]) == 1


def test_wrong_credentials_are_told_without_being_repeated(server: Seaweed) -> None:
    with pytest.raises(BucketDenied) as caught:
        open_bucket(server.url("models/x"), lambda reference, where: "guessed-secret")
    assert "guessed-secret" not in f"{caught.value.record()}"


def test_checkpoints_are_created_once(url: str) -> None:
    sink = open_sink(url, secret)
    notes = [Checkpoint(size, b"", f"lockgate/journal\n{size}\nroot\n") for size in (9, 10, 1000)]
    for one in notes:
        sink.write(one)
    assert (sink.read(), sink.last_size()) == (tuple(one.note for one in notes), 1000)
    with pytest.raises(CheckpointContested):
        sink.write(notes[0]._replace(note="lockgate/journal\n9\nother\n"))
