"""What happens to datasets: snapshots are taken, contracts are kept or broken."""

from __future__ import annotations

from typing import ClassVar

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, short
from lockgate.core.messages import Command, Event, Scope


class RecordSnapshot(Command, frozen=True, kw_only=True, tag="data.record-snapshot"):
    """State that the immutable snapshot `snapshot` of `dataset` lies in the blob store."""

    permission: ClassVar[str] = "data.write"
    dataset: str
    snapshot: Digest
    n_rows: int
    extracted_at: Micros
    source: str
    transformation: Digest
    storage: str

    def scope(self) -> Scope:
        return Scope(namespace=self.dataset.partition("/")[0])


class RecordContractCheck(Command, frozen=True, kw_only=True, tag="data.record-contract-check"):
    """State how a snapshot fared against a data contract."""

    permission: ClassVar[str] = "data.write"
    dataset: str
    snapshot: Digest
    contract: Digest
    violations: tuple[str, ...] = ()

    def scope(self) -> Scope:
        return Scope(namespace=self.dataset.partition("/")[0])


class EraseSnapshot(Command, frozen=True, kw_only=True, tag="data.erase-snapshot"):
    """Give up the rows of a snapshot for good, because somebody in them has the right to it.

    That it was there, what was made of it and why it went stays on record; `reason` does too, so it names no person.

    Attributes:
        together: snapshots that are erased in the same breath, because they hold the same rows.
    """

    permission: ClassVar[str] = "registry.erase"
    snapshot: Digest
    dataset: str
    reason: str
    together: tuple[Digest, ...] = ()

    def scope(self) -> Scope:
        return Scope(namespace=self.dataset.partition("/")[0])


class SnapshotTaken(Event, frozen=True, kw_only=True, tag="data.snapshot-taken/1"):
    dataset: str
    snapshot: Digest
    n_rows: int
    extracted_at: Micros
    source: str
    transformation: Digest
    storage: str

    def summary(self) -> str:
        return f"snapshot {short(self.snapshot)} of {self.dataset}: {self.n_rows:,} rows from {self.source}"


class ContractKept(Event, frozen=True, kw_only=True, tag="data.contract-kept/1"):
    dataset: str
    snapshot: Digest
    contract: Digest

    def summary(self) -> str:
        return f"snapshot {short(self.snapshot)} of {self.dataset} keeps its contract {short(self.contract)}"


class ContractBroken(Event, frozen=True, kw_only=True, tag="data.contract-broken/1"):
    dataset: str
    snapshot: Digest
    contract: Digest
    violations: tuple[str, ...]

    def summary(self) -> str:
        return f"snapshot {short(self.snapshot)} of {self.dataset} breaks its contract: {self.violations[0]}"


class SnapshotErased(Event, frozen=True, kw_only=True, tag="data.snapshot-erased/1"):
    dataset: str
    snapshot: Digest
    reason: str

    def summary(self) -> str:
        return f"the rows of snapshot {short(self.snapshot)} of {self.dataset} erased: {self.reason}"
