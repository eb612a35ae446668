"""Decisions of the pipeline room."""

from __future__ import annotations

from lockgate.core.digests import Digest, short
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.data.decide import unfit
from lockgate.data.messages import EraseSnapshot, SnapshotErased
from lockgate.data.state import SNAPSHOT
from lockgate.pipeline.messages import RecordRun, RunFinished
from lockgate.pipeline.state import RUN, RunState
from lockgate.registry import decide as registry
from lockgate.registry.messages import RegisterVersion
from lockgate.registry.state import VERSION

SAME_ROWS_FACT = "pipeline.same-rows"
"""The fact about an erasure: which other snapshots that are not erased have files of this one."""


def needs_run(command: RecordRun, docs: Docs) -> tuple[DocRef, ...]:
    snapshots = tuple(DocRef(SNAPSHOT.name, snapshot) for snapshot in command.snapshots.values())
    return (DocRef(RUN.name, command.run), *snapshots)


def record_run(docs: Docs, command: RecordRun, context: Context) -> Decision | Refusal:
    """A run counts only when every snapshot it read is recorded and keeps its contract."""
    reasons = unfit(docs, command.snapshots, "the run read")
    if reasons:
        return Refusal(reasons=reasons)
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


def needs_register(command: RegisterVersion, docs: Docs) -> tuple[DocRef, ...]:
    return (*registry.needs_register(command, docs), DocRef(RUN.name, command.run))


def register_version(docs: Docs, command: RegisterVersion, context: Context) -> Decision | Refusal:
    """Number a package; whoever ran its training has made it as well."""
    run = docs.get(RUN, command.run)
    return registry.register_version(docs, command, context, () if run is None else (run.author,))


def needs_erase(command: EraseSnapshot, docs: Docs) -> tuple[DocRef, ...]:
    """The snapshot, every run, and the versions of the models that read it."""
    every = DocRef(RUN.name, "*")
    refs = [DocRef(SNAPSHOT.name, command.snapshot), every]
    if docs.has(every):
        models = {run.model for run in _readers(docs, command.snapshot)}
        refs += [DocRef(VERSION.name, f"{model}@*") for model in sorted(models)]
    return tuple(refs)


def erase_snapshot(docs: Docs, command: EraseSnapshot, context: Context) -> Decision | Refusal:
    """Give up a snapshot's rows, unless a version made of them is held. Versions that live go on, and can no longer be
    built again."""
    known = docs.get(SNAPSHOT, command.snapshot)
    if known is None or known.dataset != command.dataset:
        return refuse(
            Reason(
                rule="data.snapshot-unknown",
                message=f"no such snapshot of {command.dataset} is recorded",
                evidence=command.snapshot,
                remedy="lockgate explain names the snapshots of a version",
            )
        )
    if known.state == "erased":
        return Decision(())
    if not command.reason.strip():
        return refuse(
            Reason(
                rule="data.erasure-reason",
                message="an erasure needs a reason, without any name",
                remedy="give --reason TEXT",
            )
        )
    same = sorted(set(context.facts.get(SAME_ROWS_FACT, ())) - set(command.together))
    if same:
        reasons = tuple(
            Reason(
                rule="data.rows-shared",
                message=f"the same rows are those of snapshot {short(one)} too",
                evidence=one,
                remedy="name all of them in one erasure",
            )
            for one in same
        )
        return Refusal(reasons=reasons)
    readers = _readers(docs, command.snapshot)
    runs = {run.run for run in readers}
    held = [
        Reason(
            rule="registry.held",
            message=f"{version.version} was made of it and is held for {hold.matter}: {hold.reason}",
            remedy="a hold and an erasure exclude each other: whoever held it must decide",
        )
        for model in sorted({run.model for run in readers})
        for version in docs.all(VERSION, f"{model}@")
        if version.run in runs
        for hold in version.holds
    ]
    if held:
        return Refusal(reasons=tuple(held))
    erased = SnapshotErased(dataset=command.dataset, snapshot=command.snapshot, reason=command.reason)
    return Decision((erased,))


def _readers(docs: Docs, snapshot: Digest) -> tuple[RunState, ...]:
    return tuple(run for run in docs.all(RUN, "") if snapshot in run.snapshots.values())
