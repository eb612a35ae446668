"""What every step cache must do; subclass `StepCacheContract` and override the fixture `make`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lockgate.core.digests import sha256
from lockgate.pipeline.artifact import Artifact, StepRecord
from lockgate.pipeline.ports import StepCache

MakeCache = Callable[[str], StepCache]


def a_record(name: str = "train", key: str = "k1", *, finished_at: int = 10) -> StepRecord:
    """A record whose every field holds something that must survive."""
    return StepRecord(
        name=name,
        key=sha256(key.encode()),
        parts={"train() in flights/model.py": sha256(b"code"), "COLUMNS in flights/b.py": sha256(b"more")},
        params={"rounds": 200, "rate": 0.1, "tags": ["a", None, True], "nested": {"x": 1}},
        inputs={"flights": sha256(b"input")},
        environment=sha256(b"lock"),
        output=Artifact(digest=sha256(b"output"), format="json", n_bytes=6),
        took_ms=1_500,
        finished_at=finished_at,
    )


class StepCacheContract:
    """`make(scope)` gives a cache of that scope; the same scope again sees what the first one kept."""

    @pytest.fixture
    def make(self) -> MakeCache:
        raise NotImplementedError("override the fixture `make`")

    def test_an_empty_cache_knows_nothing(self, make: MakeCache) -> None:
        cache = make("main/delay")
        assert cache.get(sha256(b"k1")) is None
        assert cache.last("train") is None

    def test_a_record_comes_back_equal(self, make: MakeCache) -> None:
        cache = make("main/delay")
        cache.put(a_record())
        assert cache.get(sha256(b"k1")) == a_record()
        assert cache.last("train") == a_record()

    def test_the_last_put_of_a_key_wins(self, make: MakeCache) -> None:
        cache = make("main/delay")
        cache.put(a_record(finished_at=10))
        cache.put(a_record(finished_at=5))
        assert cache.get(sha256(b"k1")) == a_record(finished_at=5)

    def test_last_follows_the_order_of_puts_not_the_time(self, make: MakeCache) -> None:
        cache = make("main/delay")
        cache.put(a_record(key="k1", finished_at=10))
        cache.put(a_record(key="k2", finished_at=5))
        assert cache.last("train") == a_record(key="k2", finished_at=5)
        cache.put(a_record(key="k1", finished_at=1))
        assert cache.last("train") == a_record(key="k1", finished_at=1)

    def test_last_is_kept_by_step(self, make: MakeCache) -> None:
        cache = make("main/delay")
        cache.put(a_record("train", "k1"))
        cache.put(a_record("evaluate", "k2"))
        assert cache.last("train") == a_record("train", "k1")
        assert cache.last("evaluate") == a_record("evaluate", "k2")
        assert cache.last("score") is None

    def test_touch_makes_a_record_the_last_one(self, make: MakeCache) -> None:
        cache = make("main/delay")
        cache.put(a_record(key="k1"))
        cache.put(a_record(key="k2"))
        cache.touch(sha256(b"k1"))
        assert cache.last("train") == a_record(key="k1")
        assert cache.get(sha256(b"k2")) == a_record(key="k2")

    def test_touching_an_unknown_key_does_nothing(self, make: MakeCache) -> None:
        cache = make("main/delay")
        cache.put(a_record())
        cache.touch(sha256(b"never"))
        assert cache.last("train") == a_record()

    def test_scopes_do_not_see_one_another(self, make: MakeCache) -> None:
        one, other = make("main/delay"), make("main/churn")
        one.put(a_record())
        assert other.get(sha256(b"k1")) is None
        assert other.last("train") is None
        other.put(a_record(finished_at=99))
        assert one.get(sha256(b"k1")) == a_record()

    def test_the_same_scope_again_sees_the_records(self, make: MakeCache) -> None:
        make("main/delay").put(a_record())
        assert make("main/delay").last("train") == a_record()
