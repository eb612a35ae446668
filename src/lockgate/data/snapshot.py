"""Snapshots: the immutable state of a dataset, named by its content.

A snapshot is a manifest (`Snapshot`) over Parquet blobs. Its id is the digest of the manifest's canonical
bytes, so the id is at the same time the manifest's own blob name, and whoever holds the id can prove every
byte below it. When a snapshot was taken, by whom and from where is *not* in the manifest: extracting the same
rows twice gives the same id, which is what lets a pipeline see that nothing changed. Those facts go to the
journal.

The Parquet bytes are a function of the table (names, types, rows and their order) and of the writer.
Chunking, schema metadata, dictionary order and string width are accidents of how a table came to be, so they
are removed first. The writer's options are fixed here; a new pyarrow may still encode differently, in which
case a table extracted again gets a new id, while old snapshots keep theirs and stay readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, canonical, check_digest
from lockgate.core.errors import Invalid, did_you_mean
from lockgate.core.names import DEFAULT_NAMESPACE, BadName, check_part
from lockgate.data.manifest import Column, Snapshot, SnapshotCorrupt, SnapshotFile

_ROW_GROUP_ROWS: Final = 262_144


class BadTable(Invalid):
    """The table cannot become a snapshot: no columns, a name twice, or a type Parquet has no form for."""

    code = "data.bad-table"


class UnknownColumn(Invalid):
    code = "data.unknown-column"


def dataset_name(text: str) -> str:
    """The full name `NAMESPACE/NAME` of `NAME` or `NAMESPACE/NAME`; raises `BadName`."""
    parts = text.split("/")
    if len(parts) == 1:
        parts = [DEFAULT_NAMESPACE, *parts]
    if len(parts) != 2:
        raise BadName(f"{text!r} is not a dataset name", remedy="write NAME or NAMESPACE/NAME", value=text)
    return f"{check_part(parts[0], what='namespace')}/{check_part(parts[1], what='dataset')}"


def columns_of(table: pa.Table) -> tuple[Column, ...]:
    return tuple(Column(field.name, str(field.type)) for field in table.schema)


def take_snapshot(
    dataset: str, table: pa.Table, blobs: BlobStore, transformation: Digest | None = None
) -> Snapshot:
    """Store `table` and its manifest; returns the manifest, whose `id` names it from now on.

    The data goes in before the manifest: a crash in between leaves an unreferenced blob, never a snapshot
    that cannot be loaded. Row order is part of the identity. Timestamps are kept in microseconds.

    Raises:
        BadTable: the table has no columns, a column twice, a type without a Parquet form, or timestamps
            finer than a microsecond.
        StorageFull: from `blobs`.
    """
    name = dataset_name(dataset)
    if transformation is not None:
        check_digest(transformation)
    plain = _plain(table)
    data = _parquet(plain)
    file = SnapshotFile(
        path="part-00000.parquet", digest=blobs.put(data), n_bytes=len(data), n_rows=plain.num_rows
    )
    snapshot = Snapshot(
        dataset=name,
        columns=columns_of(plain),
        n_rows=plain.num_rows,
        files=(file,),
        transformation=transformation,
    )
    blobs.put(canonical(snapshot))
    return snapshot


def load_table(snapshot: Snapshot, blobs: BlobStore, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of `snapshot`, in their order; only `columns`, in that order, when given.

    Raises:
        UnknownColumn: a name in `columns` is not in the snapshot.
        SnapshotCorrupt: a blob holds other columns or another number of rows than the manifest says.
        BlobMissing, BlobCorrupt: from `blobs`.
    """
    known = {column.name: column for column in snapshot.columns}
    wanted = list(known) if columns is None else list(columns)
    for name in wanted:
        if name not in known:
            raise UnknownColumn(
                f"dataset {snapshot.dataset} has no column {name!r}",
                remedy=did_you_mean(name, known),
                dataset=snapshot.dataset,
                column=name,
            )
    parts = [_read(file, snapshot, wanted, blobs) for file in snapshot.files]
    table = pa.concat_tables(parts)
    if table.num_rows != snapshot.n_rows:
        raise _unfit(snapshot, f"it holds {table.num_rows} rows, the manifest says {snapshot.n_rows}")
    return table


def _read(file: SnapshotFile, snapshot: Snapshot, wanted: list[str], blobs: BlobStore) -> pa.Table:
    try:
        parquet = pq.ParquetFile(pa.BufferReader(blobs.get(file.digest)))
        if tuple(Column(f.name, str(f.type)) for f in parquet.schema_arrow) != snapshot.columns:
            raise _unfit(snapshot, f"blob {file.digest} has other columns than the manifest")
        part = parquet.read(columns=wanted, use_threads=False).select(wanted)
    except pa.ArrowException as error:
        raise _unfit(snapshot, f"blob {file.digest} is no Parquet file: {error}") from error
    if part.num_rows != file.n_rows:
        raise _unfit(snapshot, f"blob {file.digest} holds {part.num_rows} rows, not {file.n_rows}")
    return part


def _plain(table: pa.Table) -> pa.Table:
    """`table` without the accidents of its making."""
    if table.num_columns == 0:
        raise BadTable("a table without columns cannot be a snapshot", remedy="select at least one column")
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadTable(
            f"column {twice[0]!r} appears more than once",
            remedy="give every column its own name",
            columns=twice,
        )
    arrays, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        target = _plain_type(field.type)
        try:
            plain = column if target == field.type else pc.cast(column, target)
        except pa.ArrowException as error:
            raise BadTable(
                f"column {field.name!r} of type {field.type} does not fit {target}: {error}",
                remedy="round timestamps to microseconds before taking the snapshot",
                column=field.name,
                type=str(field.type),
            ) from error
        arrays.append(plain.combine_chunks() if isinstance(plain, pa.ChunkedArray) else plain)
        fields.append(pa.field(field.name, target, nullable=True))
    return pa.table(arrays, schema=pa.schema(fields))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=None if kind.tz is None else "UTC")
    return kind


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(
            table,
            sink,
            row_group_size=_ROW_GROUP_ROWS,
            version="2.6",
            data_page_version="1.0",
            compression="zstd",
            compression_level=3,
            use_dictionary=True,
            write_statistics=True,
            store_schema=True,
        )
    except pa.ArrowException as error:
        raise BadTable(
            f"the table has no Parquet form: {error}", remedy="cast the column it names to a plain type"
        ) from error
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _unfit(snapshot: Snapshot, why: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(
        f"snapshot {snapshot.id} of {snapshot.dataset} does not hold: {why}",
        remedy="restore its blobs from a backup",
        snapshot=snapshot.id,
    )
