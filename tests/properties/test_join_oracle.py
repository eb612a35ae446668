"""The point-in-time join against a brute-force reading of its definition, and what must hold of any join."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.features.definition import Entity, Feature, FeatureView
from lockgate.features.join import Mode, cluster, join_as_of

AIRCRAFT = Entity("aircraft", keys=("tailnum", "line"))
SECOND = 1_000_000


class Row(NamedTuple):
    tailnum: str | None
    line: int | None
    event_at: int
    available_at: int
    x: float | None
    c: str | None


class Example(NamedTuple):
    tailnum: str | None
    line: int | None
    as_of: int


# Few keys and few instants, so that ties, corrections and exact ttl edges are the rule, not the exception.
TAILNUMS = st.sampled_from(["N1", "N2", "N3", None])
LINES = st.sampled_from([0, 7, None])
INSTANTS = st.integers(0, 12).map(lambda i: i * SECOND) | st.integers(0, 4 * SECOND).map(lambda i: i - SECOND)
TTLS = st.sampled_from([None, 1, 3, 6])
MODES: st.SearchStrategy[Mode] = st.sampled_from(["as_known", "as_corrected"])


@st.composite
def histories(draw: st.DrawFn) -> list[Row]:
    rows: dict[tuple[object, ...], Row] = {}
    for _ in range(draw(st.integers(0, 25))):
        key = (draw(TAILNUMS), draw(LINES))
        event_at = draw(INSTANTS)
        available_at = event_at + draw(st.sampled_from([0, 0, 1, SECOND, 3 * SECOND, 9 * SECOND, -SECOND]))
        x = draw(st.none() | st.sampled_from([0.0, 1.5, -2.0]))
        row = Row(*key, event_at, available_at, x, draw(st.sampled_from(["a", "b", None])))
        rows.setdefault(row[:4], row)
    listed = list(rows.values())
    again = draw(st.lists(st.sampled_from(listed), max_size=4)) if listed else []
    return draw(st.permutations(listed + again))


SPINES = st.lists(st.builds(Example, TAILNUMS, LINES, INSTANTS), max_size=15)


def view(ttl_s: int | None) -> FeatureView:
    return FeatureView(
        "fleet",
        entity=AIRCRAFT,
        sql="SELECT * FROM planes",
        dataset="planes",
        features=(Feature("x", "float"), Feature("c", "category", categories=("a", "b"))),
        ttl_s=ttl_s,
    )


def view_table(rows: list[Row]) -> pa.Table:
    types = [pa.string(), pa.int64(), pa.int64(), pa.int64(), pa.float64(), pa.string()]
    columns = zip(*rows, strict=True) if rows else [[]] * 6
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=Row._fields
    )


def spine_table(examples: list[Example]) -> pa.Table:
    types = [pa.string(), pa.int32(), pa.timestamp("us", "UTC")]
    columns = zip(*examples, strict=True) if examples else [[]] * 3
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=Example._fields
    )


def oracle(rows: list[Row], example: Example, ttl_s: int | None, mode: Mode) -> dict[str, Any]:
    """The definition, read aloud."""
    known = [
        row
        for row in rows
        if None not in (row.tailnum, row.line)
        and (row.tailnum, row.line) == (example.tailnum, example.line)
        and row.event_at <= example.as_of
        and (mode == "as_corrected" or row.available_at <= example.as_of)
    ]
    if not known:
        return {"x": None, "c": None, "fleet__status": "MISSING", "fleet__age_s": None}
    winner = max(known, key=lambda row: (row.event_at, row.available_at))
    age = example.as_of - winner.event_at
    if ttl_s is not None and age > ttl_s * SECOND:
        return {"x": None, "c": None, "fleet__status": "EXPIRED", "fleet__age_s": age / 1e6}
    state = "NULL" if winner.x is None and winner.c is None else "PRESENT"
    return {"x": winner.x, "c": winner.c, "fleet__status": state, "fleet__age_s": age / 1e6}


def joined(rows: list[Row], examples: list[Example], ttl_s: int | None, mode: Mode) -> pa.Table:
    clustered = cluster(view(ttl_s), view_table(rows))
    return join_as_of(spine_table(examples), [clustered], mode=mode, status=True)


@settings(max_examples=300, deadline=None)
@given(histories(), SPINES, TTLS, MODES)
def test_equals_the_definition(rows: list[Row], spine: list[Example], ttl_s: int | None, mode: Mode) -> None:
    table = joined(rows, spine, ttl_s, mode)
    assert table.num_rows == len(spine)
    assert table.select(Example._fields).equals(spine_table(spine))
    names = ["x", "c", "fleet__status", "fleet__age_s"]
    assert table.select(names).to_pylist() == [oracle(rows, example, ttl_s, mode) for example in spine]


@settings(max_examples=100, deadline=None)
@given(histories(), SPINES, TTLS, st.randoms(use_true_random=False))
def test_the_order_of_arrival_never_decides(
    rows: list[Row], spine: list[Example], ttl_s: int | None, shuffler: random.Random
) -> None:
    other = [*rows, *rows[:3]]
    shuffler.shuffle(other)
    assert joined(rows, spine, ttl_s, "as_known").equals(joined(other, spine, ttl_s, "as_known"))


@settings(max_examples=100, deadline=None)
@given(histories(), SPINES, TTLS, INSTANTS)
def test_what_comes_to_be_known_later_changes_nothing_before(
    rows: list[Row], spine: list[Example], ttl_s: int | None, now: int
) -> None:
    past = [example for example in spine if example.as_of <= now]
    until_now = [row for row in rows if max(row.event_at, row.available_at) <= now]
    assert joined(rows, past, ttl_s, "as_known").equals(joined(until_now, past, ttl_s, "as_known"))


@settings(max_examples=100, deadline=None)
@given(histories(), SPINES, TTLS, MODES)
def test_each_row_is_answered_for_itself(
    rows: list[Row], spine: list[Example], ttl_s: int | None, mode: Mode
) -> None:
    together = joined(rows, spine, ttl_s, mode).to_pylist()
    alone = [joined(rows, [example], ttl_s, mode).to_pylist()[0] for example in spine[:4]]
    assert together[:4] == alone
    assert joined(rows, spine[::-1], ttl_s, mode).to_pylist() == together[::-1]


@settings(max_examples=100, deadline=None)
@given(histories(), SPINES)
def test_a_longer_memory_only_turns_expired_into_known(rows: list[Row], spine: list[Example]) -> None:
    short = joined(rows, spine, 3, "as_known").to_pylist()
    long = joined(rows, spine, 6, "as_known").to_pylist()
    for one, other in zip(short, long, strict=True):
        assert one == other or one["fleet__status"] == "EXPIRED"
