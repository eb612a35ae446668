"""Decisions of the data room."""

from __future__ import annotations

from collections.abc import Mapping

from lockgate.core.digests import Digest
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import check_full, parse_model
from lockgate.data.messages import (
    ContractBroken,
    ContractKept,
    RecordContractCheck,
    RecordSnapshot,
    SnapshotTaken,
)
from lockgate.data.state import DATASET, SNAPSHOT, SnapshotState


def needs_snapshot(command: RecordSnapshot, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(SNAPSHOT.name, command.snapshot), DocRef(DATASET.name, command.dataset))


def record_snapshot(docs: Docs, command: RecordSnapshot, context: Context) -> Decision | Refusal:
    """A snapshot that is already the latest is no news; a name never changes hands between datasets."""
    check_full(command.dataset, parse_model(command.dataset))
    known = docs.get(SNAPSHOT, command.snapshot)
    dataset = docs.get(DATASET, command.dataset)
    if known is not None and known.dataset != command.dataset:
        # Whoever may not read over there is not told what there is.
        near = known.dataset.partition("/")[0] == command.dataset.partition("/")[0]
        owner = f"dataset {known.dataset}" if near else "a dataset of another namespace"
        return refuse(
            Reason(
                rule="data.snapshot-owner",
                message=f"the snapshot belongs to {owner}, not to {command.dataset}",
                remedy="lockgate snapshot takes one of each dataset",
            )
        )
    if known is not None and known.state == "erased":
        return _erased(known)
    if known is not None and dataset is not None and dataset.latest == command.snapshot:
        return Decision(())
    return Decision(
        (
            SnapshotTaken(
                dataset=command.dataset,
                snapshot=command.snapshot,
                n_rows=command.n_rows,
                extracted_at=command.extracted_at,
                source=command.source,
                transformation=command.transformation,
                storage=command.storage,
            ),
        )
    )


def needs_contract_check(command: RecordContractCheck, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(SNAPSHOT.name, command.snapshot),)


def record_contract_check(docs: Docs, command: RecordContractCheck, context: Context) -> Decision | Refusal:
    known = docs.get(SNAPSHOT, command.snapshot)
    if known is None or known.dataset != command.dataset:
        return refuse(
            Reason(
                rule="data.snapshot-unknown",
                message=f"no such snapshot of {command.dataset} is recorded",
                remedy="lockgate snapshot",
            )
        )
    if known.state == "erased":
        return _erased(known)
    state = "broken" if command.violations else "kept"
    if (known.contract, known.state, known.violations) == (command.contract, state, command.violations):
        return Decision(())
    if command.violations:
        return Decision(
            (
                ContractBroken(
                    dataset=command.dataset,
                    snapshot=command.snapshot,
                    contract=command.contract,
                    violations=command.violations,
                ),
            )
        )
    return Decision(
        (ContractKept(dataset=command.dataset, snapshot=command.snapshot, contract=command.contract),)
    )


def unfit(docs: Docs, snapshots: Mapping[str, Digest], use: str) -> tuple[Reason, ...]:
    """What stands against relying on snapshots, by dataset: each must be recorded and keep its contract.

    Args:
        use: the relative clause of a message, such as "the run read".
    """
    reasons = []
    for dataset, snapshot in sorted(snapshots.items()):
        known = docs.get(SNAPSHOT, snapshot)
        if known is None:
            reasons.append(
                Reason(
                    rule="data.snapshot-unknown",
                    message=f"the snapshot of {dataset} that {use} is not recorded",
                    evidence=snapshot,
                    remedy="lockgate snapshot",
                )
            )
        elif known.state != "kept":
            reasons.append(
                Reason(
                    rule="data.contract",
                    message=f"the snapshot of {dataset} that {use} is {known.state}",
                    measured="; ".join(known.violations[:3]) or known.state,
                    limit="contract kept",
                    evidence=snapshot,
                    remedy="lockgate contract check",
                )
            )
    return tuple(reasons)


def _erased(known: SnapshotState) -> Refusal:
    """Rows that had to go do not come back by being extracted again."""
    return refuse(
        Reason(
            rule="data.snapshot-erased",
            message=f"these are the rows of {known.dataset} that were erased; they may not come back",
            measured="erased",
            evidence=known.snapshot,
            remedy="take it out at the source; what was stored just now goes by the same lockgate erase again",
        )
    )
