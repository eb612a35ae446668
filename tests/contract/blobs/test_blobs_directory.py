from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from lockgate.adapters.blobs import directory
from lockgate.adapters.blobs.directory import DirectoryBlobs, IndexDamaged, StoreUnreadable
from lockgate.core.blobs import BlobCorrupt
from lockgate.core.digests import Digest, sha256
from lockgate.testing.blobs_suite import (
    DAY,
    LONG_AGO,
    Age,
    BlobStoreContract,
    Damage,
    SweptBlobsContract,
)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    before = file.stat()
    file.chmod(0o600)
    file.write_bytes(bytes(data))
    # One second later: a real change of the file moves its time, however fast the test is.
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))


def _files(store: DirectoryBlobs) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


class TestDirectoryBlobs(BlobStoreContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> DirectoryBlobs:
        return DirectoryBlobs(tmp_path / "store")

    @pytest.fixture
    def damage(self, make: DirectoryBlobs) -> Damage:
        return lambda digest: _flip(make.root / "blobs" / "sha256" / digest.removeprefix("sha256:"))


class TestDirectoryBlobsAreSwept(SweptBlobsContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> DirectoryBlobs:
        return DirectoryBlobs(tmp_path / "store")

    @pytest.fixture
    def age(self, make: DirectoryBlobs) -> Age:
        return lambda digest, at: os.utime(_blob(make, digest), ns=(at * 1000, at * 1000))


def _blob(store: DirectoryBlobs, digest: Digest) -> Path:
    return store.root / "blobs" / "sha256" / digest.removeprefix("sha256:")


def test_a_sweep_and_writers_at_once_lose_nothing_that_was_put(store: DirectoryBlobs) -> None:
    """Every writer finds his blob old and there, or old and just gone; either way it is there when put has returned."""
    data = [b"%d" % number for number in range(20)]
    digests = [store.put(one) for one in data]
    lost: list[Digest] = []

    def write(turn: int) -> None:
        mine = DirectoryBlobs(store.root)
        for one in data:
            digest = mine.put(one)
            if not mine.has(digest):
                lost.append(digest)

    for _ in range(5):
        # Aged first and swept while others put: what was renewed in between has to stay.
        for digest in digests:
            with suppress(FileNotFoundError):
                os.utime(_blob(store, digest), ns=(LONG_AGO * 1000, LONG_AGO * 1000))
        with ThreadPoolExecutor(4) as pool:
            writing = [pool.submit(write, turn) for turn in range(3)]
            swept = [pool.submit(store.discard, digest, LONG_AGO + DAY) for digest in digests]
            for one in (*writing, *swept):
                one.result()
        assert lost == []
        assert set(store.digests()) == set(digests)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "store")


def test_the_directory_is_an_oci_layout(store: DirectoryBlobs) -> None:
    digest = store.put(b"hello")
    assert json.loads((store.root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert _files(store) == [f"blobs/sha256/{digest[7:]}", "oci-layout"]


def test_an_existing_blob_is_not_written_again(store: DirectoryBlobs) -> None:
    digest = store.put(b"hello")
    before = Path(store.path(digest)).stat()
    DirectoryBlobs(store.root).put(b"hello")
    store.put(b"hello")
    after = Path(store.path(digest)).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_blob_cannot_be_written_to_by_mistake(store: DirectoryBlobs) -> None:
    assert Path(store.path(store.put(b"hello"))).stat().st_mode & 0o777 == 0o444


def test_path_hashes_once_per_state_of_the_file(
    store: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.put(b"hello")
    fresh = DirectoryBlobs(store.root)
    hashed: list[str] = []
    real = directory._hash
    monkeypatch.setattr(directory, "_hash", lambda file: hashed.append(file.name) or real(file))
    assert fresh.path(digest) == fresh.path(digest)
    assert hashed == [digest.removeprefix("sha256:")]
    _flip(Path(store.path(digest)))
    with pytest.raises(BlobCorrupt):
        fresh.path(digest)


def test_leftovers_of_a_killed_writer_are_swept_and_a_living_one_is_left_alone(store: DirectoryBlobs) -> None:
    (store.root / ".incoming" / "1-dead").write_bytes(b"half")
    with store._incoming_file([b"being written"]) as living:
        DirectoryBlobs(store.root)
        assert [path.name for path in (store.root / ".incoming").iterdir()] == [living.name]
    assert list((store.root / ".incoming").iterdir()) == []


def test_a_tag_names_a_manifest_and_moves(store: DirectoryBlobs) -> None:
    first, second = store.put(b"one"), store.put(b"two")
    for digest in (first, second):
        store.tag("flight-delay-1.0.0", {"mediaType": "m", "digest": digest, "size": 3})
    store.tag(None, {"mediaType": "m", "digest": first, "size": 3, "artifactType": None})
    store.tag(None, {"mediaType": "m", "digest": first, "size": 3, "artifactType": None})
    assert store.tags() == {"flight-delay-1.0.0": second}
    index = json.loads((store.root / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert [entry["digest"] for entry in index["manifests"]] == [second, first]
    assert DirectoryBlobs(store.root).tags() == store.tags()


def test_tags_of_many_writers_are_all_kept(store: DirectoryBlobs) -> None:
    def tag(number: int) -> None:
        own = DirectoryBlobs(store.root)
        own.tag(f"n{number}", {"mediaType": "m", "digest": sha256(b"x"), "size": number})

    threads = [threading.Thread(target=tag, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(store.tags()) == {f"n{number}" for number in range(8)}


def test_a_damaged_index_is_named(store: DirectoryBlobs) -> None:
    (store.root / "index.json").write_bytes(b'{"manifests": 3}')
    with pytest.raises(IndexDamaged, match=r"index\.json"):
        store.tags()


def test_a_file_in_the_way_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StoreUnreadable, match="store"):
        DirectoryBlobs(tmp_path / "store")


FILL = """
import errno, resource, sys
from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.core.blobs import StorageFull
store = DirectoryBlobs(sys.argv[1])
small = store.put(b"fits")
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
try:
    store.put(b"x" * (1 << 20))
except StorageFull as error:
    print(error.code, error.retryable, error.facts["errno"])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.get(small) == b"fits"
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk: the kernel cuts the write short and then refuses it."""
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "blobs.full True EFBIG\n"
    store = DirectoryBlobs(tmp_path / "store")
    assert list(store.digests()) == [sha256(b"fits")]
    assert _files(store) == [f"blobs/sha256/{sha256(b'fits')[7:]}", "oci-layout"]
