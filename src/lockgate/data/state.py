"""Documents of the data room."""

from __future__ import annotations

from typing import Literal

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Event, Stamp
from lockgate.data.messages import ContractBroken, ContractKept, SnapshotErased, SnapshotTaken


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    erased_at: Micros
    erased_by: str


class SnapshotState(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable snapshot: where it came from, where it lies, whether it keeps its contract.

    An erased one stays on record without its rows.
    """

    snapshot: Digest
    dataset: str
    n_rows: int
    extracted_at: Micros
    source: str
    transformation: Digest
    storage: str
    contract: Digest | None = None
    state: Literal["unchecked", "kept", "broken", "erased"] = "unchecked"
    violations: tuple[str, ...] = ()
    erasure: Erasure | None = None


class DatasetState(msgspec.Struct, frozen=True, kw_only=True):
    """A named dataset and its newest snapshot."""

    dataset: str
    latest: Digest
    n_snapshots: int


_SNAPSHOT_EVENTS = (SnapshotTaken, ContractKept, ContractBroken, SnapshotErased)


def _snapshot_keys(event: Event) -> tuple[str, ...]:
    return (event.snapshot,) if isinstance(event, _SNAPSHOT_EVENTS) else ()


def _fold_snapshot(body: SnapshotState | None, event: Event, stamp: Stamp) -> SnapshotState:
    if isinstance(event, SnapshotTaken):
        if body is not None:
            return body
        return SnapshotState(
            snapshot=event.snapshot,
            dataset=event.dataset,
            n_rows=event.n_rows,
            extracted_at=event.extracted_at,
            source=event.source,
            transformation=event.transformation,
            storage=event.storage,
        )
    assert body is not None
    if isinstance(event, SnapshotErased):
        erasure = Erasure(reason=event.reason, erased_at=stamp.at, erased_by=stamp.actor)
        return msgspec.structs.replace(body, state="erased", erasure=erasure)
    if isinstance(event, ContractKept):
        return msgspec.structs.replace(body, contract=event.contract, state="kept", violations=())
    assert isinstance(event, ContractBroken)
    return msgspec.structs.replace(body, contract=event.contract, state="broken", violations=event.violations)


SNAPSHOT = DocumentKind(
    name="snapshot",
    type=SnapshotState,
    keys=_snapshot_keys,
    fold=_fold_snapshot,
    columns=lambda body: Columns(body.dataset, body.state, body.snapshot),
    fold_version=2,
)


def _dataset_keys(event: Event) -> tuple[str, ...]:
    return (event.dataset,) if isinstance(event, SnapshotTaken) else ()


def _fold_dataset(body: DatasetState | None, event: Event, stamp: Stamp) -> DatasetState:
    assert isinstance(event, SnapshotTaken)
    n_before = 0 if body is None else body.n_snapshots
    return DatasetState(dataset=event.dataset, latest=event.snapshot, n_snapshots=n_before + 1)


DATASET = DocumentKind(
    name="dataset",
    type=DatasetState,
    keys=_dataset_keys,
    fold=_fold_dataset,
    columns=lambda body: Columns(body.dataset.partition("/")[0], "", body.latest),
)
