from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockgate.adapters.sql.step_cache import SqliteStepCache, StepCacheCorrupt
from lockgate.core.digests import sha256
from lockgate.testing.memory_steps import MemoryStepCache
from lockgate.testing.step_cache_suite import MakeCache, StepCacheContract, a_record


class TestMemoryStepCache(StepCacheContract):
    @pytest.fixture
    def make(self) -> MakeCache:
        caches: dict[str, MemoryStepCache] = defaultdict(MemoryStepCache)
        return lambda scope: caches[scope]


class TestSqliteStepCache(StepCacheContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[MakeCache]:
        opened: list[SqliteStepCache] = []

        def make(scope: str) -> SqliteStepCache:
            opened.append(SqliteStepCache(tmp_path / "steps.db", scope))
            return opened[-1]

        yield make
        for cache in opened:
            cache.close()


def test_records_survive_closing(tmp_path: Path) -> None:
    with SqliteStepCache(tmp_path / "steps.db", "m") as cache:
        cache.put(a_record())
    with SqliteStepCache(tmp_path / "steps.db", "m") as cache:
        assert cache.get(sha256(b"k1")) == a_record()


def test_a_row_of_another_shape_counts_as_absent(tmp_path: Path) -> None:
    with SqliteStepCache(tmp_path / "steps.db", "m") as cache:
        cache.put(a_record())
        db = sqlite3.connect(tmp_path / "steps.db")
        db.execute("UPDATE step_records SET body = ?", (b'{"name":"train"}',))
        db.commit()
        db.close()
        assert cache.get(sha256(b"k1")) is None
        assert cache.last("train") is None
        cache.put(a_record())
        assert cache.last("train") == a_record()


def test_a_file_that_is_no_database_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "steps.db").write_bytes(b"not a database, but long enough to be taken for one" * 50)
    with pytest.raises(StepCacheCorrupt) as caught:
        SqliteStepCache(tmp_path / "steps.db")
    assert "steps.db" in caught.value.message
    assert "move the file away" in caught.value.remedy


def test_the_cache_may_live_beside_other_tables(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "hub.db")
    db.execute("CREATE TABLE events (seq INTEGER)")
    db.execute("PRAGMA user_version=7")
    db.close()
    with SqliteStepCache(tmp_path / "hub.db", "m") as cache:
        cache.put(a_record())
    db = sqlite3.connect(tmp_path / "hub.db")
    assert db.execute("PRAGMA user_version").fetchone() == (7,)
    names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    db.close()
    assert names == {"events", "step_records"}
