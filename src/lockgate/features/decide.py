"""Decisions of the features room."""

from __future__ import annotations

from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Refusal
from lockgate.core.names import check_full, parse_model
from lockgate.data.decide import unfit
from lockgate.data.state import SNAPSHOT
from lockgate.features.messages import OnlineView, RecordMaterialization, ViewsMaterialized
from lockgate.features.state import MATERIALIZATION, MaterializationState


def needs_materialization(command: RecordMaterialization, docs: Docs) -> tuple[DocRef, ...]:
    read = {snapshot for one in command.views for snapshot in one.snapshots.values()}
    snapshots = (DocRef(SNAPSHOT.name, snapshot) for snapshot in sorted(read))
    return (DocRef(MATERIALIZATION.name, command.model), *snapshots)


def record_materialization(
    docs: Docs, command: RecordMaterialization, context: Context
) -> Decision | Refusal:
    """What the store holds counts when every snapshot behind it is recorded and keeps its contract; a push that took
    nothing up and reached no further is no news."""
    check_full(command.model, parse_model(command.model))
    read = {dataset: snapshot for one in command.views for dataset, snapshot in one.snapshots.items()}
    reasons = unfit(docs, read, "the rows were computed from")
    if reasons:
        return Refusal(reasons=reasons)
    known = docs.get(MATERIALIZATION, command.model)
    news = tuple(one for one in command.views if one.n_new or not _stands(one, command, known))
    if not news:
        return Decision(())
    return Decision(
        (ViewsMaterialized(model=command.model, store=command.store, until=command.until, views=news),)
    )


def _stands(view: OnlineView, command: RecordMaterialization, known: MaterializationState | None) -> bool:
    """Whether it is on record already that the store reaches so far, by the same snapshots."""
    return known is not None and any(
        one.place == (command.store, view.hash)
        and one.until >= command.until
        and one.online.snapshots == view.snapshots
        for one in known.views
    )
