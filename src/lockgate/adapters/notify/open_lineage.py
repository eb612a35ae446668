"""Runs and datasets of the journal as OpenLineage run events, spec 2-0-2 (openlineage.io/spec/2-0-2).

    data.snapshot-taken         job DATASET.extract   -> the dataset, its version the snapshot
    pipeline.run-finished       job MODEL.train       datasets -> the model, its version the package
    features.views-materialized job MODEL.materialize   datasets -> a view in an online store, its version what it means
    registry.package-imported   job MODEL.import      what another system held -> the model
    registry.version-registered a further event of that run: under which name its output is known from now on

A run begins and ends with an event. The journal knows only when a run was recorded, so both carry that instant. The
columns an input of a model is made from come out of its package; what was only guessed from names is not told.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from lockgate.adapters.notify.cloud_events import Message
from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Micros, iso
from lockgate.core.digests import Digest, canonical
from lockgate.core.errors import LockgateError
from lockgate.core.messages import Event, Stamp
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.data.manifest import read_snapshot
from lockgate.data.messages import SnapshotTaken
from lockgate.features.messages import OnlineView, ViewsMaterialized
from lockgate.hub.audit import read_entry
from lockgate.hub.kernel import iter_entries, read_body
from lockgate.hub.ports import Journal
from lockgate.pipeline.messages import RunFinished
from lockgate.pipeline.state import RUN
from lockgate.registry.messages import PackageImported, VersionRegistered
from lockgate.registry.packages.package import ColumnUse, PackageConfig, open_package
from lockgate.registry.state import IMPORT, VersionState

CONTENT_TYPE = "application/json"
SPEC = "https://openlineage.io/spec"
RUN_EVENT = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
PRODUCER = f"urn:lockgate:producer:{VERSION_OF_LOCKGATE}"
_FACETS = {
    "columnLineage": "1-2-0/ColumnLineageDatasetFacet",
    "datasetType": "1-0-1/DatasetTypeDatasetFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
    "schema": "1-2-0/SchemaDatasetFacet",
    "symlinks": "1-0-1/SymlinksDatasetFacet",
    "tags": "1-0-0/TagsRunFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
}
# How a column reaches a feature, in the words of the column lineage facet.
_TRANSFORMATIONS = {
    "value": {"type": "DIRECT", "subtype": "TRANSFORMATION"},
    "rows": {"type": "INDIRECT", "subtype": "FILTER"},
}

Json = dict[str, Any]


class OpenLineage:
    """Renders entries of one journal. What is no longer in the blob store is left out of the facets.

    Args:
        origin: asked for the name of the journal when there is something to tell; jobs and datasets stand in the
            namespace `lockgate://ORIGIN`.
    """

    def __init__(self, journal: Journal, blobs: BlobStore, origin: Callable[[], str]) -> None:
        self._journal = journal
        self._blobs = blobs
        self._name = origin

    @cached_property
    def _origin(self) -> str:
        return self._name()

    @property
    def _namespace(self) -> str:
        return f"lockgate://{self._origin}"

    def __call__(self, event: Event, stamp: Stamp) -> Sequence[Message]:
        """The run events of one entry, in order; none for an entry that is about no run."""
        return tuple(
            Message(f"{self._origin}/{stamp.seq}/{told['eventType'].lower()}", CONTENT_TYPE, canonical(told))
            for told in self.run_events(event, stamp)
        )

    def run_events(self, event: Event, stamp: Stamp) -> list[Json]:
        match event:
            case SnapshotTaken():
                return self._extracted(event, stamp)
            case RunFinished():
                return self._trained(event, stamp)
            case ViewsMaterialized():
                return self._materialized(event, stamp)
            case PackageImported():
                return self._imported(event, stamp)
            case VersionRegistered():
                return [self._registered(event, stamp)]
        return []

    def of_version(self, version: VersionState) -> Iterator[Json]:
        """The run events of a version: of the datasets it was made from, of its run, of its registration, and of what
        online stores were filled with of the views it reads."""
        stored = self._journal.document(RUN.name, version.run)
        snapshots = {} if stored is None else read_body(RUN, stored).snapshots
        read: frozenset[Digest] = frozenset()
        with suppress(LockgateError):
            read = frozenset(open_package(version.package, self._blobs).config.views.values())
        for entry in iter_entries(self._journal):
            event, stamp = read_entry(entry)
            match event:
                case SnapshotTaken(snapshot=snapshot):
                    wanted = snapshot in snapshots.values()
                case RunFinished(run=run) | PackageImported(record=run):
                    wanted = run == version.run
                case ViewsMaterialized(views=views):
                    wanted = any(one.hash in read for one in views)
                case VersionRegistered(version=named):
                    wanted = named == version.version
                case _:
                    continue
            if wanted:
                yield from self.run_events(event, stamp)

    def _extracted(self, event: SnapshotTaken, stamp: Stamp) -> list[Json]:
        output = self._dataset(event.dataset, event.snapshot)
        output["outputFacets"] = _facets(outputStatistics={"rowCount": event.n_rows})
        run = {"runId": _uuid(self._origin, str(stamp.seq))}
        job = self._job(event.dataset, "extract", "EXTRACTION")
        return _begun_and_ended(run, job, [], [output], event.extracted_at)

    def _trained(self, event: RunFinished, stamp: Stamp) -> list[Json]:
        tags = [{"key": "dirty", "value": str(event.dirty).lower(), "source": "LOCKGATE"}]
        if event.commit:
            tags.append({"key": "commit", "value": event.commit, "source": "LOCKGATE"})
        run = {"runId": _uuid(self._origin, event.run), "facets": _facets(tags={"tags": tags})}
        outputs = [self._model(event.model, event.package)]
        job = self._job(event.model, "train", "TRAINING")
        return _begun_and_ended(run, job, self._read(event.model, event.snapshots), outputs, stamp.at)

    def _read(self, model: str, snapshots: Mapping[str, Digest]) -> list[Json]:
        namespace = model.partition("/")[0]
        return [
            self._dataset(f"{namespace}/{name.rpartition('/')[2]}", snapshot)
            for name, snapshot in sorted(snapshots.items())
        ]

    def _materialized(self, event: ViewsMaterialized, stamp: Stamp) -> list[Json]:
        until = {"key": "until", "value": iso(event.until), "source": "LOCKGATE"}
        run = {"runId": _uuid(self._origin, str(stamp.seq)), "facets": _facets(tags={"tags": [until]})}
        read = {name: snapshot for one in event.views for name, snapshot in one.snapshots.items()}
        outputs = [self._online(event, one) for one in event.views]
        job = self._job(event.model, "materialize", "MATERIALIZATION")
        return _begun_and_ended(run, job, self._read(event.model, read), outputs, stamp.at)

    def _online(self, event: ViewsMaterialized, view: OnlineView) -> Json:
        """A view in a store is a dataset of its own, apart from what it was computed from."""
        return {
            "namespace": self._namespace,
            "name": f"{event.model.partition('/')[0]}/{view.view}@{event.store}",
            "facets": _facets(
                version={"datasetVersion": view.hash},
                datasetType={"datasetType": "VIEW", "subType": "MATERIALIZED"},
                schema={"fields": [{"name": name} for name in view.features]},
            ),
            "outputFacets": _facets(outputStatistics={"rowCount": view.n_new}),
        }

    def _imported(self, event: PackageImported, stamp: Stamp) -> list[Json]:
        origin = event.origin
        run = {"runId": _uuid(self._origin, event.record)}
        inputs = [{"namespace": origin.system, "name": origin.uri}]
        outputs = [self._model(event.model, event.package)]
        return _begun_and_ended(run, self._job(event.model, "import", "IMPORT"), inputs, outputs, stamp.at)

    def _registered(self, event: VersionRegistered, stamp: Stamp) -> Json:
        imported = self._journal.document(IMPORT.name, event.run) is not None
        job = self._job(event.model, *(("import", "IMPORT") if imported else ("train", "TRAINING")))
        known_as = {"namespace": self._namespace, "name": event.version, "type": "MODEL_VERSION"}
        output = self._model(event.model, event.package)
        output["facets"] |= _facets(symlinks={"identifiers": [known_as]})
        return _run_event("OTHER", {"runId": _uuid(self._origin, event.run)}, job, [], [output], stamp.at)

    def _job(self, owner: str, verb: str, kind: str) -> Json:
        typed = {"processingType": "BATCH", "integration": "LOCKGATE", "jobType": kind}
        return {
            "namespace": self._namespace,
            "name": f"{owner}.{verb}",
            "facets": _facets(jobType=typed),
        }

    def _dataset(self, name: str, snapshot: Digest) -> Json:
        told: dict[str, Json] = {"version": {"datasetVersion": snapshot}}
        with suppress(LockgateError):
            columns = read_snapshot(snapshot, self._blobs).columns
            told["schema"] = {"fields": [{"name": one.name, "type": one.type} for one in columns]}
        return {"namespace": self._namespace, "name": name, "facets": _facets(**told)}

    def _model(self, model: str, package: Digest) -> Json:
        told: dict[str, Json] = {
            "version": {"datasetVersion": package},
            "datasetType": {"datasetType": "MODEL"},
        }
        with suppress(LockgateError):
            config = open_package(package, self._blobs).config
            told["schema"] = {"fields": _fields(config)}
            lineage = self._column_lineage(config)
            if lineage:
                told["columnLineage"] = {"fields": lineage}
        return {"namespace": self._namespace, "name": model, "facets": _facets(**told)}

    def _column_lineage(self, config: PackageConfig) -> Json:
        namespace = config.model.partition("/")[0]
        found = {}
        for trace in config.traces:
            columns = [
                self._column(namespace, use) for use in trace.columns if use.how not in ("name", "code")
            ]
            if trace.input and columns:
                found[trace.input] = {"inputFields": columns}
        return found

    def _column(self, namespace: str, use: ColumnUse) -> Json:
        told: Json = {
            "namespace": self._namespace,
            "name": f"{namespace}/{use.dataset}",
            "field": use.column,
        }
        known = _TRANSFORMATIONS.get(use.how)
        return told if known is None else told | {"transformations": [known]}


def _fields(config: PackageConfig) -> list[Json]:
    contract = config.contract
    inputs = [
        {"name": one.name, "type": one.dtype, "description": f"input, from {one.source}"}
        for one in contract.inputs
    ]
    return [*inputs, {"name": contract.output.name, "type": contract.output.kind, "description": "output"}]


def _facets(**told: Mapping[str, Any]) -> Json:
    return {
        name: {
            "_producer": PRODUCER,
            "_schemaURL": f"{SPEC}/facets/{_FACETS[name]}.json#/$defs/{_FACETS[name].partition('/')[2]}",
            **facet,
        }
        for name, facet in told.items()
    }


def _begun_and_ended(run: Json, job: Json, inputs: list[Json], outputs: list[Json], at: Micros) -> list[Json]:
    return [
        _run_event("START", run, job, inputs, [], at),
        _run_event("COMPLETE", run, job, inputs, outputs, at),
    ]


def _run_event(kind: str, run: Json, job: Json, inputs: list[Json], outputs: list[Json], at: Micros) -> Json:
    return {
        "eventType": kind,
        "eventTime": iso(at),
        "producer": PRODUCER,
        "schemaURL": RUN_EVENT,
        "run": run,
        "job": job,
        "inputs": inputs,
        "outputs": outputs,
    }


def _uuid(origin: str, name: str) -> str:
    """The same run has the same id, whoever tells of it and however often."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:lockgate:run:{origin}:{name}"))
