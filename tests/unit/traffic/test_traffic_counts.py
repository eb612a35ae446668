from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.traffic.counts import (
    N_BUCKETS,
    Counts,
    bucket_end_us,
    bucket_of,
    merge,
    quantile_us,
    trimmed,
)
from lockgate.traffic.errors import ERROR_CLASSES

some_counts = st.builds(
    Counts,
    n_requests=st.integers(0, 9),
    n_rows=st.integers(0, 9),
    n_fallback=st.integers(0, 9),
    errors=st.dictionaries(st.sampled_from(ERROR_CLASSES), st.integers(1, 9)),
    latency_us=st.lists(st.integers(0, 9), max_size=N_BUCKETS).map(trimmed),
)


@given(some_counts, some_counts, some_counts)
def test_merging_is_addition(a: Counts, b: Counts, c: Counts) -> None:
    assert merge([merge([a, b]), c]) == merge([a, merge([b, c])]) == merge([c, a, b])
    assert merge([a, merge([])]) == merge([a])
    assert merge([a, b]).n_requests == a.n_requests + b.n_requests


@given(st.integers(1, 2**40))
def test_a_bucket_ends_at_most_one_eighth_above_its_latencies(latency_us: int) -> None:
    bucket = bucket_of(latency_us)
    assert 0 <= bucket < N_BUCKETS
    if bucket < N_BUCKETS - 1:
        assert latency_us < bucket_end_us(bucket) <= latency_us + max(1, latency_us / 8)
        assert bucket_of(bucket_end_us(bucket)) == bucket + 1


def test_buckets_reach_from_a_microsecond_to_a_minute() -> None:
    assert [bucket_of(value) for value in (-5, 0, 1, 7, 8, 9, 16)] == [0, 0, 1, 7, 8, 9, 16]
    assert bucket_of(60_000_000) < N_BUCKETS - 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 101), (0.99, 101), (1.0, 10_001)])
def test_a_quantile_is_an_upper_bound(share: float, expected: int) -> None:
    buckets = [0] * N_BUCKETS
    buckets[bucket_of(100)] = 99
    buckets[bucket_of(10_000)] = 1
    found = quantile_us(Counts(latency_us=trimmed(buckets)), share)
    assert found is not None and expected <= found <= expected * 9 / 8


def test_no_requests_have_no_quantile() -> None:
    assert quantile_us(Counts(), 0.5) is None
