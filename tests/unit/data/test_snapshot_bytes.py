from __future__ import annotations

import datetime

import pyarrow as pa
import pytest

from lockgate.core.blobs import BlobCorrupt, BlobMissing
from lockgate.core.digests import canonical, sha256
from lockgate.core.names import BadName
from lockgate.data.manifest import Column, SnapshotCorrupt, SnapshotUnsupported, read_snapshot
from lockgate.data.snapshot import BadTable, UnknownColumn, columns_of, load_table, take_snapshot
from lockgate.testing.memory_blobs import MemoryBlobs


def flights() -> pa.Table:
    at = datetime.datetime(2013, 1, 1, 5, 15, 0, 250_000)
    return pa.table(
        {
            "carrier": ["UA", "AA", None, "UA"],
            "delay": pa.array([2.0, None, -1.5, 33.0]),
            "at": pa.array([at, at, None, at], pa.timestamp("us", "UTC")),
            "seats": pa.array([1, 2, 3, None], pa.int64()),
        }
    )


def test_the_same_rows_give_the_same_id_and_round_trip() -> None:
    blobs = MemoryBlobs()
    snapshot = take_snapshot("flights", flights(), blobs)
    assert snapshot.dataset == "main/flights"
    assert snapshot.n_rows == 4
    assert take_snapshot("main/flights", flights(), MemoryBlobs()).id == snapshot.id
    assert snapshot.id == sha256(canonical(snapshot))
    assert blobs.get(snapshot.id) == canonical(snapshot)
    assert read_snapshot(snapshot.id, blobs) == snapshot
    assert load_table(snapshot, blobs).equals(flights())
    assert columns_of(flights()) == snapshot.columns
    assert Column("at", "timestamp[us, tz=UTC]") in snapshot.columns


def test_accidents_of_how_a_table_was_made_do_not_reach_the_id() -> None:
    table = flights()
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
    wide = table.set_column(0, "carrier", table["carrier"].cast(pa.large_string()))
    encoded = table.set_column(0, "carrier", table["carrier"].dictionary_encode())
    noted = table.replace_schema_metadata({"pandas": "whatever"})
    elsewhere = table.set_column(2, "at", table["at"].cast(pa.timestamp("us", "America/New_York")))
    coarse = pa.table({"at": pa.array([1, 2], pa.timestamp("s"))})
    fine = pa.table({"at": pa.array([1_000_000, 2_000_000], pa.timestamp("us"))})
    expected = take_snapshot("flights", table, MemoryBlobs()).id
    for other in (chunked, wide, encoded, noted, elsewhere):
        assert take_snapshot("flights", other, MemoryBlobs()).id == expected
    assert take_snapshot("x", coarse, MemoryBlobs()).id == take_snapshot("x", fine, MemoryBlobs()).id


def test_row_order_name_and_transformation_are_part_of_the_identity() -> None:
    table = flights()
    ids = {
        take_snapshot("flights", table, MemoryBlobs()).id,
        take_snapshot("flights", table.take([1, 0, 2, 3]), MemoryBlobs()).id,
        take_snapshot("lab/flights", table, MemoryBlobs()).id,
        take_snapshot("flights", table, MemoryBlobs(), transformation=sha256(b"clean")).id,
        take_snapshot("flights", table.rename_columns(["c", "delay", "at", "seats"]), MemoryBlobs()).id,
    }
    assert len(ids) == 5


def test_columns_are_loaded_in_the_order_asked_for() -> None:
    blobs = MemoryBlobs()
    snapshot = take_snapshot("flights", flights(), blobs)
    assert load_table(snapshot, blobs, columns=["seats", "carrier"]).column_names == ["seats", "carrier"]
    with pytest.raises(UnknownColumn) as caught:
        load_table(snapshot, blobs, columns=["seat"])
    assert "'seats'" in caught.value.remedy


def test_an_empty_table_has_a_snapshot_too() -> None:
    blobs = MemoryBlobs()
    snapshot = take_snapshot("flights", flights().slice(0, 0), blobs)
    assert snapshot.n_rows == 0
    assert load_table(snapshot, blobs).schema == flights().schema


def test_a_table_that_cannot_be_kept_is_refused_and_leaves_nothing() -> None:
    blobs = MemoryBlobs()
    finer = pa.table({"at": pa.array([1], pa.timestamp("ns"))})
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    for table in (finer, twice, pa.table({})):
        with pytest.raises(BadTable):
            take_snapshot("flights", table, blobs)
    with pytest.raises(BadName):
        take_snapshot("Flights!", flights(), blobs)
    assert list(blobs.digests()) == []


def test_damage_is_named() -> None:
    blobs = MemoryBlobs()
    snapshot = take_snapshot("flights", flights(), blobs)
    blobs.flip_byte(snapshot.files[0].digest, 40)
    with pytest.raises(BlobCorrupt) as caught:
        load_table(snapshot, blobs)
    assert snapshot.files[0].digest in caught.value.message
    blobs.delete(snapshot.files[0].digest)
    with pytest.raises(BlobMissing):
        load_table(snapshot, blobs)


def test_a_blob_that_is_no_manifest_is_not_taken_for_one() -> None:
    blobs = MemoryBlobs()
    snapshot = take_snapshot("flights", flights(), blobs)
    for data in (b"{}", b"[1]", b'{"schema":"other/1"}', canonical(snapshot) + b" ", b"\x00"):
        with pytest.raises(SnapshotCorrupt):
            read_snapshot(blobs.put(data), blobs)
    with pytest.raises(SnapshotUnsupported):
        read_snapshot(blobs.put(b'{"schema":"lockgate.snapshot/2"}'), blobs)


def test_a_manifest_over_other_data_does_not_load() -> None:
    blobs = MemoryBlobs()
    one = take_snapshot("flights", flights(), blobs)
    other = take_snapshot("flights", flights().slice(0, 2), blobs)
    narrow = take_snapshot("flights", flights().select(["carrier"]), blobs)
    for wrong in (other.files, narrow.files):
        forged = type(one)(dataset=one.dataset, columns=one.columns, n_rows=one.n_rows, files=wrong)
        with pytest.raises(SnapshotCorrupt):
            load_table(forged, blobs)
