"""The rows of a view as pushes: whatever the increments, the store ends with what the join would take."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.adapters.runners.builtin import online_views
from lockgate.core.digests import sha256
from lockgate.features.definition import Entity, Feature, FeatureView
from lockgate.features.join import cluster
from lockgate.features.ports import OnlineRow
from lockgate.registry.packages.package import KeyField
from lockgate.testing.memory_online import MemoryOnline
from lockgate.workshop.online import Extent, Feed, KeyNotServable

HASH = sha256(b"view")


def view(*keys: str, name: str = "legs", ttl_s: int | None = None) -> FeatureView:
    features = (Feature("delay", "float"), Feature("n", "int"), Feature("late", "bool"))
    entity = Entity("leg", keys=keys or ("plane", "flight"))
    return FeatureView(
        name, entity=entity, dataset="legs", sql="SELECT * FROM legs", features=features, ttl_s=ttl_s
    )


def table(rows: list[tuple[str, int, int, int]]) -> pa.Table:
    """Rows (plane, flight, event_at, lag); the features are made of these."""
    return pa.table(
        {
            "plane": pa.array([row[0] for row in rows], pa.string()),
            "flight": pa.array([row[1] for row in rows], pa.int32()),
            "event_at": pa.array([row[2] for row in rows], pa.int64()),
            "available_at": pa.array([row[2] + row[3] for row in rows], pa.int64()),
            "delay": pa.array([row[2] + row[3] / 16 for row in rows], pa.float64()),
            "n": pa.array([row[3] for row in rows], pa.int32()),
            "late": pa.array([row[3] > 2 or None for row in rows], pa.bool_()),
        }
    )


ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 2), st.integers(0, 20), st.integers(0, 6)),
    max_size=30,
    unique=True,
)


@given(rows=ROWS, cuts=st.lists(st.integers(-1, 30), max_size=6))
def test_any_increments_end_with_the_same_rows(
    rows: list[tuple[str, int, int, int]], cuts: list[int]
) -> None:
    feed, pushed, at_once = Feed(cluster(view(), table(rows))), MemoryOnline(), MemoryOnline()
    before = None
    for until in [*sorted(cuts), 30]:
        pushed.write(HASH, feed.between(before, until))
        before = until
    at_once.write(HASH, feed.between(None, 30))
    keys = [(plane, flight) for plane in "ab" for flight in (1, 2)]
    known = [max(((row[2], row[2] + row[3]) for row in rows if row[:2] == key), default=None) for key in keys]
    assert pushed.read(HASH, keys) == at_once.read(HASH, keys)
    assert [row and row[:2] for row in at_once.read(HASH, keys)] == known
    # Again, in whatever pieces: nothing is new.
    assert pushed.write(HASH, feed.between(None, 30)) == 0


@given(rows=ROWS, until=st.integers(-1, 30))
def test_nothing_is_pushed_before_it_is_known(rows: list[tuple[str, int, int, int]], until: int) -> None:
    feed = Feed(cluster(view(), table(rows)))
    assert all(max(row[:2]) <= until for _, row in feed.between(None, until))
    known = [row for row in rows if row[2] + row[3] <= until]
    newest = max((row[2] for row in known), default=None)
    assert feed.extent(until) == Extent(len(known), len({row[:2] for row in known}), newest)


def test_rows_have_the_types_that_training_saw() -> None:
    feed = Feed(cluster(view(), table([("a", 7, 5, 3), ("b", 7, 6, 0)])))
    (first_key, first), (second_key, second) = feed.between(None, 100)
    assert (second_key, second) == (("a", 7), OnlineRow(5, 8, (5.1875, 3, True)))
    assert (first_key, first) == (("b", 7), OnlineRow(6, 6, (6.0, 0, None)))
    assert [type(value) for value in (*second_key, *second.values)] == [str, int, float, int, bool]
    assert feed.between(8, 100) == [] and feed.between(None, 5) == []


def test_a_key_that_no_request_can_name_is_told() -> None:
    rows = table([("a", 1, 5, 3)]).append_column("day", pa.array([datetime.date(2013, 1, 1)], pa.date32()))
    with pytest.raises(KeyNotServable) as raised:
        Feed(cluster(view("plane", "day"), rows))
    assert raised.value.facts == {"view": "legs", "key": "day"}


def test_packages_say_how_views_are_asked() -> None:
    spine = pa.schema(
        [
            ("plane", pa.dictionary(pa.int8(), pa.string())),
            ("flight", pa.int16()),
            ("day", pa.date32()),
            ("crew", pa.large_string()),
        ]
    ).empty_table()
    views = [view(name="legs", ttl_s=60), view("day", name="days"), view("crew", name="crews")]
    crews, legs = online_views(views, {one.name: sha256(one.name.encode()) for one in views}, spine)
    assert (crews.name, crews.keys, crews.ttl_s) == ("crews", (KeyField(name="crew", dtype="string"),), None)
    assert (legs.name, legs.view, legs.ttl_s) == ("legs", sha256(b"legs"), 60)
    assert legs.keys == (KeyField(name="plane", dtype="string"), KeyField(name="flight", dtype="int"))
    assert legs.features == ("delay", "n", "late")
