from __future__ import annotations

import pytest

from lockgate.core.blobs import StorageFull
from lockgate.testing.blobs_suite import Age, BlobStoreContract, Damage, SweptBlobsContract
from lockgate.testing.memory_blobs import MemoryBlobs


class TestMemoryBlobs(BlobStoreContract):
    @pytest.fixture
    def make(self) -> MemoryBlobs:
        return MemoryBlobs()

    @pytest.fixture
    def damage(self, make: MemoryBlobs) -> Damage:
        return make.flip_byte


class TestMemoryBlobsAreSwept(SweptBlobsContract):
    @pytest.fixture
    def make(self) -> MemoryBlobs:
        return MemoryBlobs()

    @pytest.fixture
    def age(self, make: MemoryBlobs) -> Age:
        return make.age


def test_a_full_store_keeps_what_it_has() -> None:
    store = MemoryBlobs(capacity_bytes=8)
    digest = store.put(b"12345678")
    with pytest.raises(StorageFull):
        store.put(b"9")
    assert list(store.digests()) == [digest]
    store.put(b"12345678")
