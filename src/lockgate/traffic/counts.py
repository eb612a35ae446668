"""Mergeable counts: what one worker saw in one window, and the sum over workers and windows.

Merging is addition, so it is associative and commutative and the order in which reports arrive is of no
concern. Latencies are kept as a histogram whose buckets widen with the value: eight per power of two, so a
quantile read from it is at most one eighth too large, from 1 microsecond to about a minute in 200 integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lockgate.traffic.errors import ERROR_CLASSES, ErrorClass

N_BUCKETS = 200
_PER_OCTAVE_BITS = 3
_EXACT = 1 << _PER_OCTAVE_BITS


class Counts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Counts of one version (or of an endpoint, where no version was reached).

    Attributes:
        n_requests: all requests, answered or not.
        n_rows: rows that got a prediction.
        n_fallback: requests answered by the fallback.
        errors: requests without a prediction, by class; classes with none are left out.
        latency_us: requests with a prediction per bucket (see `bucket_of`); trailing zeros are left out.
    """

    n_requests: int = 0
    n_rows: int = 0
    n_fallback: int = 0
    errors: dict[ErrorClass, int] = msgspec.field(default_factory=dict)
    latency_us: tuple[int, ...] = ()


def merge(parts: Iterable[Counts]) -> Counts:
    """The sum of counts; of none, zero."""
    n_requests = n_rows = n_fallback = 0
    errors: dict[ErrorClass, int] = {}
    latency = [0] * N_BUCKETS
    for part in parts:
        n_requests += part.n_requests
        n_rows += part.n_rows
        n_fallback += part.n_fallback
        for error_class, n in part.errors.items():
            errors[error_class] = errors.get(error_class, 0) + n
        for bucket, n in enumerate(part.latency_us):
            latency[bucket] += n
    return Counts(
        n_requests=n_requests,
        n_rows=n_rows,
        n_fallback=n_fallback,
        errors={name: errors[name] for name in ERROR_CLASSES if errors.get(name)},
        latency_us=trimmed(latency),
    )


def bucket_of(latency_us: int) -> int:
    """The bucket of a latency; below 1 us counts as 0, above about a minute as the last bucket."""
    if latency_us < _EXACT:
        return max(latency_us, 0)
    octave = latency_us.bit_length() - 1 - _PER_OCTAVE_BITS
    return min((octave << _PER_OCTAVE_BITS) + (latency_us >> octave), N_BUCKETS - 1)


def bucket_end_us(bucket: int) -> int:
    """The first latency above a bucket, in microseconds."""
    if bucket < _EXACT:
        return bucket + 1
    octave, step = divmod(bucket, _EXACT)
    return (_EXACT + step + 1) << (octave - 1)


def quantile_us(counts: Counts, share: float) -> int | None:
    """An upper bound of the latency quantile, at most one eighth (and 1 us) too large; None without a
    request.

    Args:
        share: 0 < share <= 1, for example 0.99.
    """
    total = sum(counts.latency_us)
    if total == 0:
        return None
    seen = 0
    for bucket, n in enumerate(counts.latency_us):
        seen += n
        if seen >= share * total:
            return bucket_end_us(bucket)
    return bucket_end_us(len(counts.latency_us) - 1)


def trimmed(buckets: Sequence[int]) -> tuple[int, ...]:
    """The buckets without their trailing zeros."""
    end = len(buckets)
    while end and not buckets[end - 1]:
        end -= 1
    return tuple(buckets[:end])
