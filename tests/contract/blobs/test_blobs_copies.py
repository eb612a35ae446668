"""Copies of a store that is only read: what was read once is read again while the store cannot be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.adapters.blobs.copies import Copies, StoreOnlyRead
from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.core.blobs import BlobMissing
from lockgate.core.digests import Digest, sha256
from lockgate.core.errors import Unavailable
from lockgate.testing.memory_blobs import MemoryBlobs


class FarAway(MemoryBlobs):
    """A store behind a line that may be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False
        self.n_read = 0

    def get(self, digest: Digest) -> bytes:
        if self.cut:
            raise Unavailable("no answer", remedy="wait")
        self.n_read += 1
        return super().get(digest)


@pytest.fixture
def there() -> FarAway:
    return FarAway()


@pytest.fixture
def copies(there: FarAway, tmp_path: Path) -> Copies:
    return Copies(DirectoryBlobs(tmp_path), there)


def test_each_blob_is_fetched_once_and_read_without_the_store_from_then_on(
    copies: Copies, there: FarAway
) -> None:
    one, two = there.put(b"one"), there.put(b"two")
    assert (copies.get(one), Path(copies.path(two)).read_bytes()) == (b"one", b"two")
    there.cut = True
    assert (copies.get(two), Path(copies.path(one)).read_bytes()) == (b"two", b"one")
    assert there.n_read == 2
    with pytest.raises(Unavailable):
        copies.get(sha256(b"three"))


def test_a_damaged_copy_is_fetched_anew(copies: Copies, there: FarAway) -> None:
    digest = there.put(b"weights")
    file = Path(copies.path(digest))
    file.chmod(0o600)
    file.write_bytes(b"wEights")
    assert copies.get(digest) == b"weights"
    assert Path(copies.path(digest)).read_bytes() == b"weights"


def test_what_is_nowhere_is_missing_and_nothing_is_written(copies: Copies, there: FarAway) -> None:
    with pytest.raises(BlobMissing):
        copies.get(sha256(b"nothing"))
    assert not copies.has(sha256(b"nothing"))
    digest = there.put(b"there")
    assert copies.has(digest)
    assert list(copies.digests()) == [digest]
    for write in (lambda: copies.put(b"x"), lambda: copies.delete(digest), lambda: copies.put_file(__file__)):
        with pytest.raises(StoreOnlyRead):
            write()
