from __future__ import annotations

import datetime
from typing import Any

import pyarrow as pa
import pytest

from lockgate.adapters.engines.duckdb_tables import DuckDBTables
from lockgate.features.columns import BadSpine, ViewInvalid
from lockgate.features.definition import Entity, Feature, FeatureView
from lockgate.features.join import ViewAmbiguous, cluster, join_as_of, read_view
from lockgate.features.sql import UndeclaredDataset

AIRCRAFT = Entity("aircraft", keys=("tailnum",))
HOUR = 3_600_000_000


def view(*features: Feature, **changes: Any) -> FeatureView:
    given: dict[str, Any] = {"entity": AIRCRAFT, "sql": "SELECT * FROM planes", "dataset": "planes"}
    return FeatureView("fleet", features=features or (Feature("seats", "int"),), **(given | changes))


def rows(**changes: Any) -> pa.Table:
    given: dict[str, Any] = {
        "tailnum": ["N1", "N1", "N2"],
        "event_at": [0, HOUR, 0],
        "available_at": [0, 5 * HOUR, 0],
        "seats": [1, 2, 3],
    }
    return pa.table(given | changes)


def spine(at: list[int], tailnum: list[str | None] | None = None, **more: Any) -> pa.Table:
    keys = pa.array(tailnum or ["N1"] * len(at), pa.string())
    return pa.table({"tailnum": keys, "as_of": pa.array(at, pa.int64()), **more})


def test_a_late_correction_is_known_late() -> None:
    fleet = cluster(view(), rows())
    at = spine([HOUR, 5 * HOUR - 1, 5 * HOUR])
    assert join_as_of(at, [fleet]).column("seats").to_pylist() == [1, 1, 2]
    assert join_as_of(at, [fleet], mode="as_corrected").column("seats").to_pylist() == [2, 2, 2]


def test_the_ttl_is_inclusive_and_expiry_has_an_age() -> None:
    fleet = cluster(view(ttl_s=3600), rows())
    table = join_as_of(spine([HOUR, HOUR + 1, 5 * HOUR]), [fleet], status=True)
    assert table.column("fleet__status").to_pylist() == ["PRESENT", "EXPIRED", "EXPIRED"]
    assert table.column("seats").to_pylist() == [1, None, None]
    assert table.column("fleet__age_s").to_pylist() == [3600.0, 3600.000001, 4 * 3600.0]


def test_a_late_row_that_was_overtaken_never_comes_back() -> None:
    overtaken = rows(event_at=[0, HOUR, 2 * HOUR], available_at=[0, 9 * HOUR, 3 * HOUR], tailnum=["N1"] * 3)
    fleet = cluster(view(), overtaken)
    at = spine([2 * HOUR, 3 * HOUR, 10 * HOUR])
    assert join_as_of(at, [fleet]).column("seats").to_pylist() == [1, 3, 3]


def test_a_null_is_a_value() -> None:
    fleet = cluster(view(), rows(seats=[1, None, 3]))
    table = join_as_of(spine([6 * HOUR]), [fleet], status=True)
    assert table.select(["seats", "fleet__status"]).to_pylist() == [{"seats": None, "fleet__status": "NULL"}]


def test_every_row_of_the_spine_stays() -> None:
    fleet = cluster(view(), rows())
    table = join_as_of(spine([HOUR] * 4, ["N2", None, "N9", "N2"], label=[1, 2, 3, 4]), [fleet])
    assert table.column_names == ["tailnum", "as_of", "label", "seats"]
    assert table.column("label").to_pylist() == [1, 2, 3, 4]
    assert table.column("seats").to_pylist() == [3, None, None, 3]


@pytest.mark.parametrize("n", [0, 3])
def test_empty_tables_join(n: int) -> None:
    fleet = cluster(view(), rows().slice(0, 0))
    table = join_as_of(spine([HOUR] * n), [fleet], status=True)
    assert table.column("seats").to_pylist() == [None] * n
    assert table.column("fleet__status").to_pylist() == ["MISSING"] * n
    assert join_as_of(spine([HOUR] * n), [fleet], mode="as_corrected").num_rows == n


def test_keys_meet_by_value_across_types_and_need_all_their_columns() -> None:
    both = Entity("leg", keys=("carrier", "flight"))
    table = pa.table(
        {
            "carrier": pa.array(["UA", "UA", "AA", None]).dictionary_encode(),
            "flight": pa.array([1, 2, 1, 1], pa.int16()),
            "event_at": [0, 0, 0, 0],
            "available_at": [0, 0, 0, 0],
            "seats": [11, 12, 21, 99],
        }
    )
    legs = cluster(view(entity=both), table)
    assert (legs.n_rows, legs.n_without_key) == (3, 1)
    at = pa.table(
        {
            "flight": pa.array([1, 2, 2, 3, 1, None], pa.int64()),
            "carrier": pa.array(["AA", "UA", "AA", "UA", None, "UA"], pa.large_string()),
            "as_of": [HOUR] * 6,
        }
    )
    assert join_as_of(at, [legs]).column("seats").to_pylist() == [21, 12, None, None, None, None]
    with pytest.raises(BadSpine):
        join_as_of(at.set_column(0, "flight", pa.array(["1"] * 6)), [legs])


def test_repeats_collapse_and_contradictions_are_refused() -> None:
    twice = pa.concat_tables([rows(), rows()])
    fleet = cluster(view(), twice)
    assert (fleet.n_rows, fleet.n_collapsed) == (3, 3)
    unknown = pa.concat_tables([rows(seats=pa.array([None] * 3, pa.int64()))] * 2)
    assert cluster(view(), unknown).n_collapsed == 3
    for contradiction in ([9, 2, 3], [None, 2, 3]):
        with pytest.raises(ViewAmbiguous) as caught:
            cluster(view(), pa.concat_tables([rows(), rows(seats=pa.array(contradiction, pa.int64()))]))
        assert "tailnum='N1' at 1970-01-01T00:00:00" in caught.value.message
        assert "seats is 1 and" in caught.value.message


def test_features_come_out_as_declared() -> None:
    declared = view(
        Feature("f", "float"),
        Feature("i", "int"),
        Feature("b", "bool"),
        Feature("c", "category", categories=("x",)),
    )
    values = {
        "F": pa.array([1, 2, 3], pa.decimal128(38, 0)),
        "i": pa.array([1, 2, None], pa.decimal128(38, 0)),
        "b": [True, None, False],
        "C": pa.array(["x", "y", None]).dictionary_encode(),
    }
    fleet = cluster(declared, rows().drop_columns("seats").append_column("i", values.pop("i")).append_column(
        "F", values["F"]).append_column("b", pa.array(values["b"])).append_column("C", values["C"]))  # fmt: skip
    assert [str(field.type) for field in fleet.values.schema] == ["double", "int64", "bool", "string"]
    missing = cluster(view(Feature("seats", "float")), rows(seats=[float("nan"), 1.0, 2.0]))
    assert missing.values.column(0).null_count == 1


@pytest.mark.parametrize(
    ("feature", "changes", "fragment"),
    [
        (Feature("seat", "int"), {}, "no column 'seat'"),
        (Feature("seats", "bool"), {}, "declared bool"),
        (Feature("seats", "int"), {"seats": [1.5, 2.0, 3.0]}, "does not fit int"),
        (Feature("seats", "int"), {"seats": ["1", "2", "3"]}, "declared int"),
        (Feature("seats", "int", nullable=False), {"seats": [1, None, 2]}, "not nullable"),
        (Feature("seats", "int", minimum=2), {}, "outside 2 to any in 1 rows"),
        (Feature("seats", "int", maximum=0), {}, "outside any to 0 in 3 rows"),
        (Feature("seats", "int"), {"event_at": [0, None, 1]}, "event_at of view 'fleet' is null in 1 rows"),
        (Feature("seats", "int"), {"available_at": [0.0, 1.0, 1.0]}, "not an instant"),
        (Feature("seats", "int"), {"event_at": [0, 2**62, 1]}, "years 1 to 9999"),
        (Feature("seats", "int"), {"event_at": pa.array([0, 1, 2], pa.timestamp("ns"))}, "microseconds"),
        (Feature("seats", "int"), {"tailnum": [1.0, 2.0, 3.0]}, "key 'tailnum'"),
    ],
)
def test_rows_that_break_the_declaration_are_refused(feature: Feature, changes: Any, fragment: str) -> None:
    with pytest.raises(ViewInvalid) as caught:
        cluster(view(feature), rows(**changes))
    assert fragment in caught.value.message
    assert caught.value.remedy


def test_a_spine_must_say_its_zone() -> None:
    fleet = cluster(view(), rows())
    moment = datetime.datetime(1970, 1, 1, 1)
    naive = pa.table({"tailnum": ["N1"], "as_of": [moment]})
    with pytest.raises(BadSpine) as caught:
        join_as_of(naive, [fleet])
    assert "AT TIME ZONE" in caught.value.remedy
    assert join_as_of(naive, [fleet], naive_is_utc=True).column("seats").to_pylist() == [1]
    local = pa.table({"tailnum": ["N1"], "as_of": pa.array([HOUR], pa.timestamp("us", "America/New_York"))})
    assert join_as_of(local, [fleet]).column("seats").to_pylist() == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        spine([0]).rename_columns(["tail", "as_of"]),
        spine([0]).rename_columns(["tailnum", "at"]),
        spine([0], seats=[1]),
        pa.table({"tailnum": ["N1"], "as_of": pa.array([None], pa.int64())}),
        pa.table({"tailnum": ["N1"], "as_of": [datetime.date(2013, 1, 1)]}),
        pa.table([["N1"], [0], [1]], names=["tailnum", "as_of", "as_of"]),
    ],
)
def test_a_spine_that_cannot_be_joined_is_refused(wrong: pa.Table) -> None:
    with pytest.raises(BadSpine):
        join_as_of(wrong, [cluster(view(), rows())])


def test_two_views_may_not_bring_one_name() -> None:
    fleet = cluster(view(), rows())
    with pytest.raises(BadSpine):
        join_as_of(spine([0]), [fleet, fleet])


def test_a_view_is_read_by_its_sql() -> None:
    sql = """
        SELECT tailnum, seats, make_timestamp(year, 1, 1, 0, 0, 0) AS event_at, event_at AS available_at
        FROM planes
    """
    planes = pa.table(
        {"tailnum": ["N1", "N2"], "seats": [100, 200], "year": pa.array([1999, 2004], pa.int64())}
    )
    fleet = read_view(view(sql=sql), {"planes": planes, "unused": planes}, DuckDBTables())
    year_2000 = 946_684_800_000_000
    table = join_as_of(spine([year_2000] * 2, ["N1", "N2"]), [fleet], status=True)
    assert table.column("fleet__status").to_pylist() == ["PRESENT", "MISSING"]
    with pytest.raises(UndeclaredDataset):
        read_view(view(sql=sql), {"plane": planes}, DuckDBTables())
