"""Decisions of the pipeline room."""

from __future__ import annotations

from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal
from lockgate.data.state import SNAPSHOT
from lockgate.pipeline.messages import RecordRun, RunFinished
from lockgate.pipeline.state import RUN


def needs_run(command: RecordRun, docs: Docs) -> tuple[DocRef, ...]:
    snapshots = tuple(DocRef(SNAPSHOT.name, snapshot) for snapshot in command.snapshots.values())
    return (DocRef(RUN.name, command.run), *snapshots)


def record_run(docs: Docs, command: RecordRun, context: Context) -> Decision | Refusal:
    """A run counts only when every snapshot it read is recorded and keeps its contract."""
    reasons = []
    for dataset, snapshot in sorted(command.snapshots.items()):
        known = docs.get(SNAPSHOT, snapshot)
        if known is None:
            reasons.append(
                Reason(
                    rule="data.snapshot-unknown",
                    message=f"the snapshot of {dataset} that the run read is not recorded",
                    evidence=snapshot,
                    remedy="lockgate snapshot",
                )
            )
        elif known.state != "kept":
            reasons.append(
                Reason(
                    rule="data.contract",
                    message=f"the snapshot of {dataset} that the run read is {known.state}",
                    measured="; ".join(known.violations[:3]) or known.state,
                    limit="contract kept",
                    evidence=snapshot,
                    remedy="lockgate contract check",
                )
            )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    if docs.get(RUN, command.run) is not None:
        return Decision(())
    return Decision(
        (
            RunFinished(
                model=command.model,
                run=command.run,
                package=command.package,
                commit=command.commit,
                dirty=command.dirty,
                snapshots=command.snapshots,
            ),
        )
    )
