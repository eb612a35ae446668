"""Blobs and checkpoints in a real object store: SeaweedFS, which honours conditional writes."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE
from typing import Any

import obstore
import pytest
from relays import counting
from seaweed import Seaweed, environment, seaweed, secret

from lockgate.adapters.blobs import object_store
from lockgate.adapters.blobs.object_store import (
    BucketDenied,
    CheckpointContested,
    ObjectBlobs,
    open_blobs,
    open_bucket,
    open_sink,
)
from lockgate.core.blobs import BlobMissing
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


PUTS = """\
import sys
from pathlib import Path
from lockgate.adapters.blobs.object_store import open_blobs
import os
print(open_blobs(sys.argv[1], lambda name, where: os.environ[name[4:]], Path(sys.argv[3])).put_file(sys.argv[2]))
"""


def test_a_killed_upload_goes_on_in_another_process_and_sends_what_is_missing(
    server: Seaweed, url: str, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    file, part = tmp_path / "large", 16 * 1024 * 1024
    file.write_bytes(os.urandom(1 << 20) * 100)
    digest, size = sha256(file.read_bytes()), file.stat().st_size
    host = server.endpoint.removeprefix("http://")

    def puts(way: str, cache: str) -> subprocess.Popen[str]:
        where = url.replace(server.endpoint, f"http://{way}")
        command = [sys.executable, "-P", "-c", PUTS, where, str(file), str(tmp_path / cache)]
        return subprocess.Popen(command, env={**os.environ, **environment()}, stdout=PIPE, text=True)

    # By then at least one part is kept: what is more than those that may be under way at once.
    enough = (object_store._PARTS_AT_ONCE + 1) * part
    with counting(host, holds_at=enough) as (way, sent):
        first = puts(way, "one")
        eventually(lambda: sent[0] >= enough)
        first.kill()
        first.communicate(timeout=60)
    store = open_blobs(url, secret, tmp_path / "cache")
    there = sum(one.n_bytes for one in store.kept())
    assert not store.has(digest) and 0 < there < size
    with pytest.raises(BlobMissing):
        store.get(digest)

    with counting(host) as (way, sent):
        second = puts(way, "two")
        out, _ = second.communicate(timeout=120)
    assert (second.returncode, out.strip()) == (0, digest)
    assert size - there <= sent[0] < size - there + part / 16
    assert sha256(store.get(digest)) == digest
    assert [(one.digest, one.n_bytes) for one in store.kept()] == [(digest, size)]
    store.delete(digest)
    assert list(store.kept()) == []


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
