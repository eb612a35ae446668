"""Materialization: the rows of a model's feature views, brought into the online store as they became known.

A view's rows come from the very SQL, snapshots and `cluster` that training uses, mostly from its cached steps, so
both sides see the same values to the bit. A row becomes known at the later of `event_at` and `available_at`; nothing
is pushed before that. Of the rows that one push covers only the last to win is written per key, because the store
would keep no other; so a push of everything costs as much as there are keys, and a push of an hour as much as there
was news. Rows that can never win are not pushed at all (features/join.py says which these are).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.adapters.runners.artifacts import load
from lockgate.adapters.sql.step_cache import SqliteStepCache
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.errors import Unsupported, did_you_mean
from lockgate.core.names import ModelName
from lockgate.features.columns import Ints
from lockgate.features.definition import FeatureView, UnknownName, service_views
from lockgate.features.join import ViewRows, cluster
from lockgate.features.keys import Keys
from lockgate.features.messages import OnlineView, RecordMaterialization
from lockgate.features.ports import Key, OnlineRow, OnlineStore
from lockgate.hub.kernel import Hub
from lockgate.pipeline.artifact import RunRecord
from lockgate.pipeline.execute import Progress, execute
from lockgate.pipeline.graph import Node
from lockgate.pipeline.ports import StepCache
from lockgate.pipeline.recipe import graph_of, view_hashes
from lockgate.workshop.assembly import assemble_runner
from lockgate.workshop.build import ContractViolated, Workshop
from lockgate.workshop.premises import Premises
from lockgate.workshop.unpacked import SideCache, given

Observer = Callable[[Progress], None]


class KeyNotServable(Unsupported):
    """A view's key is neither text nor whole numbers, so no request can name it."""

    code = "features.key-not-servable"


class Extent(NamedTuple):
    """What of a view is known at some moment.

    Attributes:
        newest_at: the greatest `event_at` among it; None when nothing is known.
    """

    n_rows: int
    n_keys: int
    newest_at: Micros | None


class Feed:
    """The rows of one view in the order in which they became known; sorted once, then only cut.

    Raises:
        KeyNotServable: a key column is neither text nor whole numbers.
    """

    def __init__(self, rows: ViewRows) -> None:
        self._rows = rows
        self._keys = _keys(rows.view, rows.keys)
        timeline = rows.timeline
        order = np.argsort(timeline.known_at, kind="stable")
        owners = np.repeat(np.arange(len(self._keys), dtype=np.int64), np.diff(timeline.starts))
        self._known_at: Ints = timeline.known_at[order]
        self._winners: Ints = timeline.rows[order]
        self._codes: Ints = owners[order]

    def between(self, since: Micros | None, until: Micros) -> list[tuple[Key, OnlineRow]]:
        """For each key with news in (since, until], the row that won last; None for from the beginning."""
        first = 0 if since is None else int(np.searchsorted(self._known_at, since, side="right"))
        last = int(np.searchsorted(self._known_at, until, side="right"))
        if first >= last:
            return []
        _, from_behind = np.unique(self._codes[first:last][::-1], return_index=True)
        places = np.sort(last - 1 - from_behind)
        winners, rows = self._winners[places], self._rows
        taken: Any = pa.array(winners)
        columns = [column.chunk(0).take(taken).to_pylist() for column in rows.values.columns]
        return [
            (self._keys[code], OnlineRow(event_at, available_at, values))
            for code, event_at, available_at, values in zip(
                self._codes[places].tolist(),
                rows.event_at[winners].tolist(),
                rows.available_at[winners].tolist(),
                zip(*columns, strict=True),
                strict=True,
            )
        ]

    def extent(self, until: Micros) -> Extent:
        last = int(np.searchsorted(self._known_at, until, side="right"))
        known = np.maximum(self._rows.event_at, self._rows.available_at) <= until
        return Extent(
            n_rows=int(np.count_nonzero(known)),
            n_keys=len(np.unique(self._codes[:last])),
            newest_at=int(self._rows.event_at[known].max()) if last else None,
        )


class Materializer:
    """Pushes the views of one model's service, as the project defines them now.

    A dataset is read from the snapshot taken last, and from its source only when there is none. What is computed on
    the way is kept for the next time and leaves no trace in what `plan` says.

    Args:
        store: where to; default: the project's own, `.lockgate/online`.
        views: only these views of the service; default: all.
        observer: told of each step on the way to the rows.

    Raises, on first use:
        UnknownName: the service takes nothing from a view that is named.
        ContractViolated: the last snapshot of a dataset breaks its contract.
        KeyNotServable: see there.
        StepFailed, ViewInvalid, ViewAmbiguous: a view cannot be computed.
    """

    def __init__(
        self,
        premises: Premises,
        name: ModelName,
        store: OnlineStore | None = None,
        *,
        views: Collection[str] = (),
        observer: Observer | None = None,
    ) -> None:
        self._premises = premises
        self._workshop = Workshop(premises, name)
        self._name = name
        self._only = tuple(views)
        self._observer = observer
        self._at_hand: set[str] = set()
        self.store: OnlineStore = LmdbOnline(premises.layout.online) if store is None else store

    @cached_property
    def hashes(self) -> dict[str, Digest]:
        """The semantic hash of each view to push, by name; this is what the store knows it by."""
        workshop = self._workshop
        every = view_hashes(workshop.recipe, workshop.sources, workshop.definitions)
        for name in self._only:
            if name not in every:
                raise UnknownName(
                    f"service {workshop.recipe.service!r} takes nothing from a view {name!r}",
                    remedy=did_you_mean(name, every),
                    service=workshop.recipe.service,
                    view=name,
                )
        return {name: every[name] for name in every if not self._only or name in self._only}

    @cached_property
    def rows(self) -> dict[str, ViewRows]:
        """The rows of each view, as the training join gets them."""
        record = self._record
        views = {view.name: view for view in self._views()}
        blobs = self._premises.blobs
        return {
            name: cluster(views[name], cast("pa.Table", load(record.output(f"view.{name}"), blobs)))
            for name in self.hashes
        }

    @cached_property
    def feeds(self) -> dict[str, Feed]:
        return {name: Feed(rows) for name, rows in self.rows.items()}

    def push(self, until: Micros | None = None, *, since: Micros | None = None) -> dict[str, int]:
        """Write what became known in (since, until]; pushing it again changes nothing.

        Args:
            until: default: now.
            since: default: the beginning.

        Returns:
            Per view, how many rows were new to the store.
        """
        end = self._premises.clock.now() if until is None else until
        return {
            name: self.store.write(self.hashes[name], news) if (news := feed.between(since, end)) else 0
            for name, feed in self.feeds.items()
        }

    def materialize(self, hub: Hub, until: Micros, *, anew: bool = False) -> tuple[OnlineView, ...]:
        """Push all that was known `until` then, and put on record what was pushed from what.

        The snapshots come on record first, so rows that were erased stop this before anything is pushed.

        Args:
            anew: forget the rows of these views before; until theirs are pushed, requests find none.

        Raises:
            RefusedCommand: the hub says no.
        """
        feeds = self.feeds
        self._workshop.record_data(hub, self._record)
        if anew:
            for digest in self.hashes.values():
                self.store.drop(digest)
        taken = self.push(until)
        snapshots = {one.dataset: one.snapshot for one in self._workshop.checked(self._record)}
        reads = {view.name: view.reads for view in self._views()}
        views = []
        for name, feed in feeds.items():
            extent = feed.extent(until)
            views.append(
                OnlineView(
                    view=name,
                    hash=self.hashes[name],
                    features=self.rows[name].view.feature_names,
                    snapshots={
                        dataset: one
                        for dataset, one in snapshots.items()
                        if dataset.rpartition("/")[2] in reads[name]
                    },
                    n_rows=extent.n_rows,
                    n_keys=extent.n_keys,
                    n_new=taken[name],
                    newest_at=extent.newest_at,
                )
            )
        self._workshop.tell(
            hub,
            RecordMaterialization(
                id=self._premises.ids.new(),
                model=str(self._name),
                store=self._place,
                until=until,
                views=tuple(views),
            ),
        )
        return tuple(views)

    @property
    def _place(self) -> str:
        """The store by a name that says nothing of the machine but where in the project it lies."""
        layout = self._premises.layout
        return f"lmdb:{layout.online.relative_to(layout.root).as_posix()}"

    def _views(self) -> tuple[FeatureView, ...]:
        workshop = self._workshop
        return service_views(workshop.definitions.service(workshop.recipe.service), workshop.definitions)

    @cached_property
    def _record(self) -> RunRecord:
        """Every step up to the views, from the cache where it is there."""
        workshop, premises = self._workshop, self._premises
        recipe, sources, definitions = workshop.recipe, workshop.sources, workshop.definitions
        main = SqliteStepCache(premises.layout.steps, str(self._name))
        side = SqliteStepCache(premises.layout.steps, f"online:{self._name}")
        graph = {node.name: node for node in graph_of(recipe, sources, definitions, {})}
        views = [graph[f"view.{name}"] for name in self.hashes]
        datasets = sorted({dataset for node in views for dataset in node.inputs.values()})
        checks = [graph[f"{dataset}.contract"] for dataset in datasets]
        with main, side:
            record = execute(
                [*self._datasets(graph, datasets, (main, side)), *checks, *views],
                SideCache(main, side),
                assemble_runner(workshop.root, premises.blobs, premises.tools, recipe, sources, definitions),
                workshop.environment,
                premises.clock,
                self._tell,
                model=recipe.model,
            )
        self._require_contracts(record)
        return record

    def _tell(self, progress: Progress) -> None:
        """Tell of the steps that compute; a snapshot that is at hand is none."""
        if self._observer is not None and progress.name not in self._at_hand:
            self._observer(progress)

    def _datasets(
        self, graph: Mapping[str, Node], names: Collection[str], caches: Collection[StepCache]
    ) -> list[Node]:
        """The snapshot taken last of each dataset; where there is none, the step that takes one."""
        nodes = []
        for name in names:
            last = next((found for cache in caches if (found := cache.last(name)) is not None), None)
            if last is not None and self._premises.blobs.has(last.output.digest):
                self._at_hand.add(name)
                nodes.append(given(name, last.output))
            else:
                nodes.append(graph[name])
        return nodes

    def _require_contracts(self, record: RunRecord) -> None:
        for one in self._workshop.checked(record):
            broken = [check for check in one.report.checks if check.verdict in ("fail", "error")]
            if broken:
                raise ContractViolated(
                    f"the last snapshot of {one.dataset} breaks its contract: {broken[0].rule}: "
                    f"{broken[0].message}",
                    remedy="lockgate contract check shows all of it; nothing was pushed",
                    datasets=[one.dataset],
                )


def _keys(view: FeatureView, keys: Keys) -> list[Key]:
    """The key of each code, in the types that requests have."""
    for name, values in zip(keys.names, keys.values, strict=True):
        if not (pa.types.is_integer(values.type) or pa.types.is_string(values.type)):
            raise KeyNotServable(
                f"key {name!r} of view {view.name!r} is {values.type}, and requests have text and whole numbers",
                remedy=f"cast {name} in the view and in the examples, or push the other views with --view",
                view=view.name,
                key=name,
            )
    numbers, columns = keys.combined, []
    for values, radix in zip(reversed(keys.values), reversed(keys.radix), strict=True):
        numbers, places = np.divmod(numbers, radix)
        columns.append(values.take(pa.array(places)).to_pylist())
    return list(zip(*reversed(columns), strict=True))
