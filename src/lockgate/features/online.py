"""Reading online by the same rule as offline.

A row is eligible at `as_of` iff it had happened, could be known, and is not older than the ttl: the very words of
`join.join_as_of`. The online store keeps the newest row only, so `as_of` is the time of the request; a row that cannot
be known yet is missing, never served early.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from lockgate.core.clock import Micros
from lockgate.features.ports import OnlineRow, Value

Status = Literal["PRESENT", "EXPIRED", "MISSING"]


class OnlineFeatures(NamedTuple):
    """What a request gets of one view: the values (nulls unless PRESENT), why, and how old [us]."""

    values: tuple[Value, ...]
    status: Status
    age_us: int | None


def known_at(row: OnlineRow | None, as_of: Micros, *, ttl_s: int | None, n_features: int) -> OnlineFeatures:
    """The features of `row` as known at `as_of`; all edges inclusive, no ttl is no limit."""
    if row is None:
        return OnlineFeatures((None,) * n_features, "MISSING", None)
    event_at, available_at, values = row
    if event_at > as_of or available_at > as_of:
        return OnlineFeatures((None,) * n_features, "MISSING", None)
    age_us = as_of - event_at
    if ttl_s is not None and age_us > ttl_s * 1_000_000:
        return OnlineFeatures((None,) * n_features, "EXPIRED", age_us)
    return OnlineFeatures(values, "PRESENT", age_us)


def supersedes(new: OnlineRow, old: OnlineRow) -> bool:
    """Whether `new` takes the place of `old`: the total order of the point-in-time join."""
    return new[:2] > old[:2]
