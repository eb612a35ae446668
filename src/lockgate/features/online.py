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
    values = values_at(row, as_of, ttl_s)
    nulls: tuple[Value, ...] = (None,) * n_features if values is None else values
    if row is None or row.event_at > as_of or row.available_at > as_of:
        return OnlineFeatures(nulls, "MISSING", None)
    return OnlineFeatures(nulls, "EXPIRED" if values is None else "PRESENT", as_of - row.event_at)


def values_at(row: OnlineRow | None, as_of: Micros, ttl_s: int | None) -> tuple[Value, ...] | None:
    """The values of a row that is eligible at `as_of`, None of any other: the rule itself, without its reasons."""
    if row is None:
        return None
    event_at, available_at, values = row
    if event_at > as_of or available_at > as_of:
        return None
    if ttl_s is not None and as_of - event_at > ttl_s * 1_000_000:
        return None
    return values


def supersedes(new: OnlineRow, old: OnlineRow) -> bool:
    """Whether `new` takes the place of `old`: the total order of the point-in-time join."""
    return new[:2] > old[:2]
