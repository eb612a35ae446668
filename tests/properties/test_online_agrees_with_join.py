"""Rows pushed one by one and read online at `as_of` give what the offline join gives, bit for bit."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core.digests import sha256
from lockgate.features.definition import Entity, Feature, FeatureView
from lockgate.features.join import cluster, join_as_of
from lockgate.features.online import known_at, values_at
from lockgate.features.ports import OnlineRow
from lockgate.testing.memory_online import MemoryOnline

SECOND = 1_000_000
TTL_S = 10
VIEW = FeatureView(
    "recent",
    entity=Entity("plane", keys=("plane",)),
    dataset="events",
    sql="SELECT * FROM events",
    features=(Feature("delay", "float"),),
    ttl_s=TTL_S,
)
HASH = sha256(b"recent")

# What is known in the order in which it becomes known: an online store only ever sees the past.
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(0, 20),
        st.integers(0, 8),
        st.one_of(st.none(), st.floats(-100, 100)),
    ),
    max_size=25,
    unique_by=lambda row: row[:3],
)


@given(rows=ROWS, as_of=st.integers(0, 40))
def test_online_equals_offline(rows: list[tuple[str, int, int, float | None]], as_of: int) -> None:
    table = pa.table(
        {
            "plane": pa.array([row[0] for row in rows], pa.string()),
            "event_at": pa.array([row[1] * SECOND for row in rows], pa.int64()),
            "available_at": pa.array([(row[1] + row[2]) * SECOND for row in rows], pa.int64()),
            "delay": pa.array([row[3] for row in rows], pa.float64()),
        }
    )
    planes = ["a", "b", "c"]
    spine = pa.table({"plane": planes, "as_of": pa.array([as_of * SECOND] * 3, pa.int64())})
    offline = join_as_of(spine, [cluster(VIEW, table)])["delay"].to_pylist()

    store = MemoryOnline()
    for plane, event_at, lag, delay in sorted(rows, key=lambda row: row[1] + row[2]):
        if event_at + lag <= as_of:
            pushed = OnlineRow(event_at * SECOND, (event_at + lag) * SECOND, (delay,))
            store.write(HASH, [((plane,), pushed)])
    found = store.read(HASH, [(plane,) for plane in planes])
    known = [known_at(row, as_of * SECOND, ttl_s=TTL_S, n_features=1) for row in found]
    assert [one.values[0] for one in known] == offline
    quick = [values_at(row, as_of * SECOND, TTL_S) for row in found]
    assert quick == [one.values if one.status == "PRESENT" else None for one in known]
