"""The contract of `core.blobs.BlobStore`, as tests. An adapter passes by subclassing and saying how it is made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from lockgate.core.blobs import BlobCorrupt, BlobMissing, BlobStore, SweptBlobs
from lockgate.core.clock import Micros
from lockgate.core.digests import BadDigest, Digest, sha256
from lockgate.core.errors import Unsupported

_ABSENT = sha256(b"never put")
Damage = Callable[[Digest], None]
Age = Callable[[Digest, Micros], None]
LONG_AGO, DAY = 1_700_000_000_000_000, 86_400_000_000


class BlobStoreContract:
    """Override both fixtures; `deletes` is false for a store whose blobs somebody else removes."""

    deletes: ClassVar[bool] = True

    @pytest.fixture
    def make(self) -> BlobStore:
        """An empty store."""
        raise NotImplementedError

    @pytest.fixture
    def damage(self, make: BlobStore) -> Damage:
        """Changes one byte of a stored blob behind the back of the store `make` returned."""
        raise NotImplementedError

    @pytest.mark.parametrize(
        "data", [b"", b"hello", bytes(range(256)) * 4096], ids=["empty", "small", "1 MiB"]
    )
    def test_what_was_put_is_got(self, make: BlobStore, data: bytes) -> None:
        digest = make.put(data)
        assert digest == sha256(data)
        assert make.get(digest) == data
        assert Path(make.path(digest)).read_bytes() == data
        assert make.has(digest)
        assert list(make.digests()) == [digest]

    @pytest.mark.parametrize("data", [b"", bytes(range(256)) * 16384], ids=["empty", "4 MiB"])
    def test_a_file_is_put_as_its_bytes_are(self, make: BlobStore, tmp_path: Path, data: bytes) -> None:
        for name in ("one", "two"):
            (tmp_path / name).write_bytes(data)
            assert make.put_file(str(tmp_path / name)) == sha256(data)
        assert make.get(sha256(data)) == data
        assert list(make.digests()) == [sha256(data)]

    def test_a_file_of_the_original_bytes_heals(
        self, make: BlobStore, damage: Damage, tmp_path: Path
    ) -> None:
        digest = make.put(b"hello")
        damage(digest)
        (tmp_path / "whole").write_bytes(b"hello")
        assert make.put_file(str(tmp_path / "whole")) == digest
        assert make.get(digest) == b"hello"

    def test_putting_twice_is_putting_once(self, make: BlobStore) -> None:
        assert make.put(b"hello") == make.put(b"hello")
        assert len(list(make.digests())) == 1

    def test_an_absent_blob_is_missing(self, make: BlobStore) -> None:
        assert not make.has(_ABSENT)
        for read in (make.get, make.path):
            with pytest.raises(BlobMissing) as caught:
                read(_ABSENT)
            assert caught.value.facts["digest"] == _ABSENT

    @pytest.mark.parametrize("name", ["hello", "sha256:../../../etc/passwd", "md5:00", "sha256:" + "A" * 64])
    def test_what_is_no_digest_is_never_a_path(self, make: BlobStore, name: str) -> None:
        try:
            make.get(name)
        except (BadDigest, BlobMissing):
            return
        pytest.fail("got something")

    def test_damaged_bytes_are_never_returned(self, make: BlobStore, damage: Damage) -> None:
        digest = make.put(b"hello")
        damage(digest)
        for read in (make.get, make.path):
            with pytest.raises(BlobCorrupt) as caught:
                read(digest)
            assert caught.value.facts["digest"] == digest
            assert digest in caught.value.message

    def test_damage_after_a_first_reading_is_noticed(self, make: BlobStore, damage: Damage) -> None:
        digest = make.put(b"hello")
        make.path(digest)
        damage(digest)
        with pytest.raises(BlobCorrupt):
            make.path(digest)

    def test_putting_the_original_bytes_heals(self, make: BlobStore, damage: Damage) -> None:
        digest = make.put(b"hello")
        damage(digest)
        assert make.put(b"hello") == digest
        assert make.get(digest) == b"hello"
        assert Path(make.path(digest)).read_bytes() == b"hello"

    def test_deleting(self, make: BlobStore) -> None:
        digest = make.put(b"hello")
        make.path(digest)
        if not self.deletes:
            with pytest.raises(Unsupported):
                make.delete(digest)
            assert make.get(digest) == b"hello"
            return
        make.delete(digest)
        make.delete(digest)
        assert not make.has(digest)
        assert list(make.digests()) == []
        with pytest.raises(BlobMissing):
            make.path(digest)
        make.put(b"hello")
        assert make.get(digest) == b"hello"

    def test_many_threads_put_the_same_blobs(self, make: BlobStore) -> None:
        blobs = [bytes([number]) * 1000 for number in range(8)]
        with ThreadPoolExecutor(4) as pool:
            digests = list(pool.map(make.put, blobs * 4))
        assert set(make.digests()) == set(digests) == {sha256(data) for data in blobs}
        assert all(make.get(sha256(data)) == data for data in blobs)


class SweptBlobsContract:
    """What `core.blobs.SweptBlobs` promises beyond that. Override both fixtures."""

    @pytest.fixture
    def make(self) -> SweptBlobs:
        """An empty store."""
        raise NotImplementedError

    @pytest.fixture
    def age(self, make: SweptBlobs) -> Age:
        """Lets a blob have been put at another time, in whole seconds."""
        raise NotImplementedError

    def test_a_blob_is_listed_with_its_size_and_its_time(self, make: SweptBlobs, age: Age) -> None:
        made = {make.put(b"x" * n): n for n in (0, 1, 70_000)}
        old = next(iter(made))
        age(old, LONG_AGO)
        listed = {one.digest: one for one in make.kept()}
        assert {digest: one.n_bytes for digest, one in listed.items()} == made
        assert listed[old].put_at == LONG_AGO
        assert all(one.put_at > LONG_AGO for digest, one in listed.items() if digest != old)

    def test_only_what_is_old_is_discarded(self, make: SweptBlobs, age: Age) -> None:
        old, young = make.put(b"old"), make.put(b"young")
        age(old, LONG_AGO)
        assert not make.discard(old, LONG_AGO)
        assert not make.discard(young, LONG_AGO + DAY)
        assert make.discard(old, LONG_AGO + DAY)
        assert not make.discard(old, LONG_AGO + DAY)
        assert list(make.digests()) == [young]
        with pytest.raises(BlobMissing):
            make.get(old)

    def test_what_is_there_is_renewed_without_its_bytes(self, make: SweptBlobs, age: Age) -> None:
        digest = make.put(b"hello")
        age(digest, LONG_AGO)
        assert make.renew(digest)
        assert not make.discard(digest, LONG_AGO + DAY)
        assert make.get(digest) == b"hello"
        (listed,) = make.kept()
        assert listed.put_at > LONG_AGO + DAY
        assert not make.renew(_ABSENT)
        assert list(make.digests()) == [digest]

    @pytest.mark.parametrize("again", ["put", "put_file", "renew"])
    def test_whoever_puts_what_a_sweep_removes_has_it_when_his_call_returns(
        self, make: SweptBlobs, age: Age, tmp_path: Path, again: str
    ) -> None:
        made = {make.put(data): data for data in (b"blob %d" % number for number in range(24))}
        for digest, data in made.items():
            age(digest, LONG_AGO)
            (tmp_path / digest[7:]).write_bytes(data)

        def put(digest: Digest) -> bool:
            if again == "renew":
                return make.renew(digest)
            done = make.put(made[digest]) if again == "put" else make.put_file(str(tmp_path / digest[7:]))
            return done == digest

        with ThreadPoolExecutor(6) as pool:
            removed = [pool.submit(make.discard, digest, LONG_AGO + DAY) for digest in made]
            kept = {digest: pool.submit(put, digest) for digest in made}
            also = [pool.submit(make.discard, digest, LONG_AGO + DAY) for digest in reversed(made)]
        assert len([one for one in (*removed, *also) if one.result()]) <= len(made)
        for digest, done in kept.items():
            # Only a renewal has no bytes to bring: it says that they are gone.
            assert make.has(digest) == done.result()
            assert done.result() or again == "renew"

    def test_putting_again_renews(self, make: SweptBlobs, age: Age) -> None:
        digest = make.put(b"hello")
        age(digest, LONG_AGO)
        assert make.put(b"hello") == digest
        assert not make.discard(digest, LONG_AGO + DAY)
        assert make.get(digest) == b"hello"
        assert Path(make.path(digest)).read_bytes() == b"hello"
