"""Documents of the features room."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp
from lockgate.features.messages import OnlineView, ViewsMaterialized


class MaterializedView(msgspec.Struct, frozen=True, kw_only=True):
    """A view in one store, after the push that reached furthest."""

    online: OnlineView
    store: str
    until: Micros
    at: Micros
    by: str

    @property
    def place(self) -> tuple[str, Digest]:
        return self.store, self.online.hash


class MaterializationState(msgspec.Struct, frozen=True, kw_only=True):
    """What online stores hold for one model. Earlier definitions of a view stay: their rows lie beside the new ones."""

    model: str
    views: tuple[MaterializedView, ...]


def _materialized(
    body: MaterializationState | None, event: ViewsMaterialized, stamp: Stamp
) -> MaterializationState:
    known = {one.place: one for one in (() if body is None else body.views)}
    for online in event.views:
        new = MaterializedView(
            online=online, store=event.store, until=event.until, at=stamp.at, by=stamp.actor
        )
        before = known.get(new.place)
        # A push of what was known earlier changes no row that is there.
        if before is None or before.until <= new.until:
            known[new.place] = new
    return MaterializationState(model=event.model, views=tuple(known.values()))


MATERIALIZATION = DocumentKind(
    name="materialization",
    type=MaterializationState,
    keys=lambda event: (event.model,),
    made_by={ViewsMaterialized: _materialized},
    columns=lambda body: Columns(body.model.partition("/")[0]),
)
