"""What happens to features: those that serving reads by key are brought up to date."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from lockgate.core.clock import Micros, iso
from lockgate.core.digests import Digest, short
from lockgate.core.messages import Command, Event, Scope


class OnlineView(msgspec.Struct, frozen=True, kw_only=True):
    """A feature view as an online store holds it after a push.

    Attributes:
        view: its name; `hash` is what it meant then, the semantic hash that the store knows it by.
        features: their names, in the order of the layout.
        snapshots: what the rows were computed from, by dataset.
        n_rows, n_keys: how many rows were known by then, of how many keys.
        n_new: how many of the pushed rows the store had not.
        newest_at: the greatest `event_at` among the rows; None when nothing was known.
    """

    view: str
    hash: Digest
    features: tuple[str, ...]
    snapshots: dict[str, Digest]
    n_rows: int
    n_keys: int
    n_new: int
    newest_at: Micros | None


class RecordMaterialization(Command, frozen=True, kw_only=True, tag="features.record-materialization"):
    """State that `store` holds what was known of these views `until` then; told once a run, after its last push."""

    permission: ClassVar[str] = "data.write"
    model: str
    store: str
    until: Micros
    views: tuple[OnlineView, ...]

    def scope(self) -> Scope:
        namespace, _, model = self.model.partition("/")
        return Scope(namespace=namespace, model=model)


class ViewsMaterialized(Event, frozen=True, kw_only=True, tag="features.views-materialized/1"):
    model: str
    store: str
    until: Micros
    views: tuple[OnlineView, ...]

    def summary(self) -> str:
        told = ", ".join(f"{one.view} {short(one.hash)} ({one.n_new:,} new rows)" for one in self.views)
        return f"features of {self.model} brought to {self.store} up to {iso(self.until)}: {told}"
