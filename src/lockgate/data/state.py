"""Documents of the data room."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp
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


def _taken(body: SnapshotState | None, event: SnapshotTaken, stamp: Stamp) -> SnapshotState:
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


def _kept(body: SnapshotState, event: ContractKept, stamp: Stamp) -> SnapshotState:
    return replace(body, contract=event.contract, state="kept", violations=())


def _broken(body: SnapshotState, event: ContractBroken, stamp: Stamp) -> SnapshotState:
    return replace(body, contract=event.contract, state="broken", violations=event.violations)


def _erased(body: SnapshotState, event: SnapshotErased, stamp: Stamp) -> SnapshotState:
    erasure = Erasure(reason=event.reason, erased_at=stamp.at, erased_by=stamp.actor)
    return replace(body, state="erased", erasure=erasure)


SNAPSHOT = DocumentKind(
    name="snapshot",
    type=SnapshotState,
    keys=lambda event: (event.snapshot,),
    made_by={SnapshotTaken: _taken},
    changed_by={ContractKept: _kept, ContractBroken: _broken, SnapshotErased: _erased},
    columns=lambda body: Columns(body.dataset, body.state, body.snapshot),
    fold_version=2,
)


def _newest(body: DatasetState | None, event: SnapshotTaken, stamp: Stamp) -> DatasetState:
    n_before = 0 if body is None else body.n_snapshots
    return DatasetState(dataset=event.dataset, latest=event.snapshot, n_snapshots=n_before + 1)


DATASET = DocumentKind(
    name="dataset",
    type=DatasetState,
    keys=lambda event: (event.dataset,),
    made_by={SnapshotTaken: _newest},
    columns=lambda body: Columns(body.dataset.partition("/")[0], "", body.latest),
)
