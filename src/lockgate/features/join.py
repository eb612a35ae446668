"""The point-in-time join: for each row of a spine, what each view knew at that row's instant.

**Semantics.** All instants are int64 microseconds, UTC. A view's row is *known* at `as_of` if
`event_at <= as_of` and, in mode `as_known`, `available_at <= as_of`. The winner is the known row with the
greatest `(event_at, available_at)`. It is taken as a whole: a null in it is a value and is never filled from
an older row. A winner with `as_of - event_at > ttl` is expired and gives nulls; both ends of the interval are
inclusive. The result has exactly one row per spine row, in the spine's order. Mode `as_corrected` asks what we
know *today* about then, and so leaks later corrections into the past; it must be asked for by name.

Rows equal in key, `event_at` and `available_at` are one statement made twice when they are equal in every
feature, and are kept once; otherwise nothing can say which is right, and `cluster` refuses the view. So the
order of `(event_at, available_at)` is total per key and the order of arrival never decides.

**How.** `cluster` pays once per view: rows sorted by (key, event_at, available_at), keys replaced by dense
codes. A row is eligible from `known_at = max(event_at, available_at)` on. If a *later* row of the same key
becomes eligible no later than this one, this one can never win: whenever it is eligible, so is the better
one. Dropping all such rows (a minimum taken from the end of each key's history) leaves a `Timeline` in which
`known_at` rises strictly with the clustered order, however late corrections came in. Finding the winner is
then one binary search, which runs for all spine rows at once; it is as cheap for messy histories as for tidy
ones, and its steps grow with the longest history of a key, not with the table.

**Types.** Features come out as declared: `float` as float64, `int` as int64, `bool`, `category` as string. NaN
becomes null, as a model would see it. Keys compare by value: int32 and int64 are the same kind of key, text
and number are not. A null key knows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lockgate.core.clock import iso
from lockgate.core.errors import Invalid, did_you_mean
from lockgate.data.ports import TableEngine
from lockgate.features.columns import (
    ArrowColumn,
    BadSpine,
    Bools,
    Ints,
    arrow,
    feature_column,
    mask,
    spine_instants,
    view_column,
    view_instants,
)
from lockgate.features.definition import FeatureView
from lockgate.features.keys import Keys, find_keys, given_keys, learn_keys, show_key
from lockgate.features.sql import UndeclaredDataset, check_sql

Mode = Literal["as_known", "as_corrected"]

_MISSING, _EXPIRED, _NULL, _PRESENT = range(4)
_STATUS: Final = ("MISSING", "EXPIRED", "NULL", "PRESENT")


class ViewAmbiguous(Invalid):
    """Two rows agree in key, event_at and available_at, and differ in a feature."""

    code = "features.view-ambiguous"


@dataclass(frozen=True, eq=False)
class Timeline:
    """Per key the rows that can win, in the order in which they take over.

    Attributes:
        starts: (n_keys + 1,) where each key's part begins.
        known_at: (n,) microseconds, strictly rising within a key.
        rows: (n,) positions in the view's clustered rows.
    """

    starts: Ints
    known_at: Ints
    rows: Ints


@dataclass(frozen=True, eq=False)
class ViewRows:
    """A view's rows, clustered by key, event_at and available_at, ready to be joined many times.

    Attributes:
        event_at, available_at: (n,) microseconds.
        values: (n rows) the features, one column each, in declared order and declared type.
        timeline: who wins in mode `as_known`.
        n_collapsed: rows dropped because they repeated another one exactly.
        n_without_key: rows dropped because a key column was null.
    """

    view: FeatureView
    keys: Keys
    starts: Ints
    event_at: Ints
    available_at: Ints
    values: pa.Table
    timeline: Timeline
    n_collapsed: int
    n_without_key: int

    @property
    def n_rows(self) -> int:
        return len(self.event_at)


def read_view(view: FeatureView, tables: Mapping[str, pa.Table], engine: TableEngine) -> ViewRows:
    """Run a view's SQL over `tables`, keyed by the names in `view.reads`, and cluster the result.

    Raises:
        BadSql, UndeclaredDataset, UnstableSql: the SQL is not what the view declares.
        QueryFailed: from `engine`.
        ViewInvalid, ViewAmbiguous: from `cluster`.
    """
    check_sql(view)
    for dataset in view.reads:
        if dataset not in tables:
            raise UndeclaredDataset(
                f"view {view.name!r} reads dataset {dataset!r}, which was not handed over",
                remedy=did_you_mean(dataset, tables),
                view=view.name,
                dataset=dataset,
            )
    return cluster(view, engine.query(view.sql, {name: tables[name] for name in view.reads}))


def cluster(view: FeatureView, table: pa.Table) -> ViewRows:
    """Check and sort the rows that a view's SQL gave; columns are found without regard to case.

    Args:
        table: key columns, the two instants (TIMESTAMP of any unit, or BIGINT microseconds; without a zone
            they are UTC, see definition.py) and the features. Further columns are ignored.

    Raises:
        ViewInvalid: a column is missing or has values that do not fit its declaration, or an instant is null.
        ViewAmbiguous: two rows agree in key and both instants and differ in a feature.
    """
    found = {name.lower(): name for name in table.column_names}
    given = given_keys(view, table, found)
    n_without_key = table.num_rows - given.num_rows
    event_at = view_instants(view, given, found, view.event_at)
    available_at = view_instants(view, given, found, view.available_at)
    values = pa.table(
        {f.name: feature_column(view, f, view_column(view, given, found, f.name)) for f in view.features}
    )
    keys, codes = learn_keys(view, given, found)

    order = np.lexsort((available_at, event_at, codes))
    codes, event_at, available_at = codes[order], event_at[order], available_at[order]
    values = values.take(arrow(order)).combine_chunks()
    repeats = _repeats(view, keys, codes, event_at, available_at, values)
    n_collapsed = int(repeats.sum())
    if n_collapsed:
        kept = ~repeats
        codes, event_at, available_at = codes[kept], event_at[kept], available_at[kept]
        values = values.filter(arrow(kept)).combine_chunks()
    starts = np.searchsorted(codes, np.arange(len(keys.combined) + 1)).astype(np.int64)
    return ViewRows(
        view=view,
        keys=keys,
        starts=starts,
        event_at=event_at,
        available_at=available_at,
        values=values,
        timeline=_timeline(starts, codes, np.maximum(event_at, available_at)),
        n_collapsed=n_collapsed,
        n_without_key=n_without_key,
    )


def join_as_of(
    spine: pa.Table,
    views: Sequence[ViewRows],
    *,
    as_of: str = "as_of",
    mode: Mode = "as_known",
    status: bool = False,
    naive_is_utc: bool = False,
) -> pa.Table:
    """The spine with every feature of every view, as of each row's instant.

    Args:
        spine: one row per example; holds the key columns of all views and the instant.
        as_of: the instant's column: a TIMESTAMP with zone, or BIGINT microseconds UTC.
        mode: see the module; `as_corrected` leaks and belongs in the training set's record.
        status: also append `VIEW__status` (PRESENT, NULL: all features of the winner are null, EXPIRED,
            MISSING) and `VIEW__age_s`, the age of the winner in seconds, expired or not.
        naive_is_utc: accept a TIMESTAMP without zone as UTC. Off by default, because a local time read as
            UTC makes the past know the future.

    Returns:
        As many rows as `spine`, in its order; the spine's columns first and untouched, then per view its
        features in declared order.

    Raises:
        BadSpine: a key or the instant is missing or of the wrong type, an instant is null, or two columns
            of the result would have one name.
    """
    _check_names(spine, views, status)
    at = spine_instants(spine, as_of, naive_is_utc)
    names: list[str] = list(spine.column_names)
    columns: list[ArrowColumn] = list(spine.columns)
    for rows in views:
        winner, age, state = _winners(rows, find_keys(rows.keys, rows.view, spine), at, mode)
        taken = arrow(winner, mask=state <= _EXPIRED)
        features = [rows.values.column(i).chunk(0).take(taken) for i in range(rows.values.num_columns)]
        names += rows.view.feature_names
        columns += features
        if status:
            nulls = np.logical_and.reduce([mask(column.is_null()) for column in features])
            state = np.where(nulls & (state == _PRESENT), np.int8(_NULL), state)
            shown = pa.DictionaryArray.from_arrays(arrow(state), pa.array(_STATUS)).cast(pa.string())
            names += [f"{rows.view.name}__status", f"{rows.view.name}__age_s"]
            columns += [shown, arrow(age / 1e6, mask=state == _MISSING)]
    return pa.Table.from_arrays(columns, names=names)


def _winners(rows: ViewRows, codes: Ints, at: Ints, mode: Mode) -> tuple[Ints, Ints, npt.NDArray[np.int8]]:
    """Per spine row: the winner's position, its age in microseconds, and its state."""
    timeline = rows.timeline
    if mode == "as_corrected":
        owner = np.repeat(np.arange(len(rows.starts) - 1, dtype=np.int64), np.diff(rows.starts))
        timeline = _timeline(rows.starts, owner, rows.event_at)
    position, exists = _search(timeline, codes, at)
    state = np.full(len(at), _MISSING, dtype=np.int8)
    if not len(timeline.rows):
        return np.zeros(len(at), dtype=np.int64), np.zeros(len(at), dtype=np.int64), state
    winner = timeline.rows[position]
    age = at - rows.event_at[winner]
    ttl_s = rows.view.ttl_s
    fresh = np.ones(len(at), dtype=np.bool_) if ttl_s is None else age <= ttl_s * 1_000_000
    state[exists] = np.where(fresh[exists], _PRESENT, _EXPIRED)
    return winner, age, state


def _search(timeline: Timeline, codes: Ints, at: Ints) -> tuple[Ints, Bools]:
    """Per spine row the last position of its key with `known_at <= at`, and whether there is one.

    A binary search in which every step moves all rows; `np.searchsorted` over one combined key would walk the
    whole table per row and has to squeeze key and instant into 64 bits.
    """
    known = codes >= 0
    key = np.where(known, codes, 0)
    low = timeline.starts[key]
    high = np.where(known, timeline.starts[key + 1], low) if len(timeline.starts) > 1 else low
    first, last = low, max(len(timeline.known_at) - 1, 0)
    longest = int((high - low).max(initial=0))
    for _ in range(longest.bit_length()):
        middle = (low + high) >> 1
        passed = (timeline.known_at[np.minimum(middle, last)] <= at) & (low < high)
        low = np.where(passed, middle + 1, low)
        high = np.where(passed, high, middle)
    return np.maximum(low - 1, 0), low > first


def _timeline(starts: Ints, codes: Ints, known_at: Ints) -> Timeline:
    """Keep the rows after which no row of the same key becomes known as early; see the module."""
    if not len(codes):
        return Timeline(np.zeros(len(starts), dtype=np.int64), known_at, np.empty(0, dtype=np.int64))
    same_key = codes[1:] == codes[:-1]
    if bool(np.all(known_at[1:][same_key] > known_at[:-1][same_key])):
        return Timeline(starts, known_at, np.arange(len(codes), dtype=np.int64))
    # Key and rank of known_at in one number that rises with the key, so that one running minimum from the
    # end starts afresh at each key. Both parts are at most n, so the number fits for any n below 3e9.
    distinct, rank = np.unique(known_at, return_inverse=True)
    combined = codes * len(distinct) + rank
    best_after = np.minimum.accumulate(combined[::-1])[::-1]
    keep = np.ones(len(codes), dtype=np.bool_)
    keep[:-1] = ~same_key | (combined[:-1] < best_after[1:])
    rows = np.flatnonzero(keep).astype(np.int64)
    return Timeline(np.searchsorted(rows, starts).astype(np.int64), known_at[rows], rows)


def _repeats(
    view: FeatureView, keys: Keys, codes: Ints, event_at: Ints, available_at: Ints, values: pa.Table
) -> Bools:
    """Which clustered rows say again what the row before them said. Raises `ViewAmbiguous`."""
    repeats = np.zeros(len(codes), dtype=np.bool_)
    if len(codes) < 2:
        return repeats
    same = (codes[1:] == codes[:-1]) & (event_at[1:] == event_at[:-1])
    same &= available_at[1:] == available_at[:-1]
    after = np.flatnonzero(same) + 1
    if not len(after):
        return repeats
    for feature, column in zip(view.features, values.columns, strict=True):
        one: ArrowColumn = column.take(arrow(after - 1))
        other: ArrowColumn = column.take(arrow(after))
        equal: Any = pc.equal(one, other)
        both_null: Any = pc.and_(pc.is_null(one), pc.is_null(other))
        differ = np.flatnonzero(~mask(pc.or_(equal.fill_null(False), both_null)))
        if len(differ):
            row = int(after[differ[0]])
            raise ViewAmbiguous(
                f"view {view.name!r} says two things about {show_key(keys, int(codes[row]))} at "
                f"{iso(int(event_at[row]))}, both available at {iso(int(available_at[row]))}: {feature.name} is "
                f"{one[int(differ[0])].as_py()!r} and {other[int(differ[0])].as_py()!r}",
                remedy="aggregate in the view's SQL, or give the correction a later available_at",
                view=view.name,
                feature=feature.name,
                n_rows=len(differ),
            )
    repeats[after] = True
    return repeats


def _check_names(spine: pa.Table, views: Sequence[ViewRows], status: bool) -> None:
    owners = dict.fromkeys(spine.column_names, "the spine")
    if len(owners) != spine.num_columns:
        raise BadSpine("the spine has two columns of one name", remedy="rename one of them")
    for rows in views:
        added = list(rows.view.feature_names)
        if status:
            added += [f"{rows.view.name}__status", f"{rows.view.name}__age_s"]
        for name in added:
            if name in owners:
                raise BadSpine(
                    f"both {owners[name]} and view {rows.view.name!r} bring a column {name!r}",
                    remedy="rename one of them, or drop it from the spine",
                    column=name,
                )
            owners[name] = f"view {rows.view.name!r}"
