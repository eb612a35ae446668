"""Blobs and checkpoints in a real object store: SeaweedFS, which honours conditional writes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from seaweed import Seaweed, seaweed, secret

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
