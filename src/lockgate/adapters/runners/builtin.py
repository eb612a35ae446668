"""The built-in steps of a model's graph: snapshots, contracts, views, the join, the package, its evidence.

Each is a thin meeting of a room's function with the blob store; what is computed is decided in the rooms.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import msgspec
import numpy as np
import pyarrow as pa

from lockgate.adapters.runners.judging import CheckedDataset, Judge
from lockgate.adapters.runners.local import Builtin, Inputs
from lockgate.adapters.runners.probe import PackageProbe
from lockgate.adapters.runners.project import Failure, call, describe, importable
from lockgate.adapters.runners.results import as_table, evaluation_rows, require_booster
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, canonical, digest_of
from lockgate.core.errors import Invalid, LockgateError
from lockgate.data.contract import check_contract
from lockgate.data.odcs import parse_contract
from lockgate.data.ports import TableEngine
from lockgate.data.snapshot import take_snapshot
from lockgate.features.definition import Definitions, FeatureView, collect, service_views
from lockgate.features.hashes import service_hash
from lockgate.features.join import cluster, join_as_of
from lockgate.gates.parity import probe_rows
from lockgate.pipeline.artifact import Artifact
from lockgate.pipeline.code.closure import closure
from lockgate.pipeline.graph import Node
from lockgate.pipeline.origins import input_traces
from lockgate.pipeline.recipe import Recipe, Sources, model_contract, upstream, view_hashes
from lockgate.registry.packages.contract import ModelContract
from lockgate.registry.packages.package import (
    CODE_PATH,
    ENVIRONMENT_PATH,
    GOLDEN_PATH,
    LIGHTGBM_PATH,
    ONNX_PATH,
    Golden,
    KeyField,
    ModelForm,
    OnlineView,
    PackageConfig,
    build_package,
    encode_golden,
    pack_tar,
    store_package,
)
from lockgate.registry.packages.ports import Engine

N_GOLDEN = 16
# The answers of two runtimes on golden rows may differ by the rounding of float32 sums.
GOLDEN_TOLERANCE = 1e-5


class DefinitionsFailed(Invalid):
    """The project's feature module raised on import."""

    code = "pipeline.definitions-failed"


class Tools(NamedTuple):
    """What built-in steps work with.

    Attributes:
        engines: inference by format; `onnx` and `lightgbm-text`.
        convert: a native model and its number of inputs -> ONNX bytes.
    """

    tables: TableEngine
    engines: Mapping[str, Engine]
    convert: Callable[[Any, int], bytes]


class Builtins:
    """The built-in steps for one project. `definitions` is what its features module defines; `tools` is asked
    when a step first needs one, because a run in which everything is cached needs none and they load slowly."""

    def __init__(
        self,
        root: Path,
        blobs: BlobStore,
        recipe: Recipe,
        sources: Sources,
        definitions: Definitions,
        tools: Callable[[], Tools],
    ) -> None:
        self._root = str(root.resolve())
        self._blobs = blobs
        self._recipe = recipe
        self._sources = sources
        self._definitions = definitions
        self._fetch_tools = tools

    @cached_property
    def _tools(self) -> Tools:
        return self._fetch_tools()

    def kinds(self) -> dict[str, Builtin]:
        return {
            "dataset": self._dataset,
            "contract": self._contract,
            "view": self._view,
            "join": self._join,
            "model-contract": self._model_contract,
            "package": self._package,
            "evidence": self._evidence,
            "given": self._given,
        }

    def _dataset(self, node: Node, key: Digest, inputs: Inputs, seed: int) -> Artifact:
        with importable(self._root, self._sources.code):
            table = call(node.call or "", {}, seed=seed, wants=(), root=self._root)
        snapshot = take_snapshot(node.params["dataset"], as_table(table, node.call or ""), self._blobs)
        (file,) = snapshot.files
        return Artifact(digest=file.digest, format="parquet", n_bytes=file.n_bytes)

    def _given(self, node: Node, key: Digest, inputs: Inputs, seed: int) -> Artifact:
        """A step whose result is at hand already, for rebuilding from snapshots."""
        return msgspec.convert(node.params, Artifact)

    def _contract(self, node: Node, key: Digest, inputs: Inputs, seed: int) -> object:
        table = cast("pa.Table", inputs["table"])
        path = node.params["contract"]
        snapshot = take_snapshot(node.params["dataset"], table, self._blobs)
        contract = parse_contract(self._sources.contracts[path], where=path)
        checked = CheckedDataset(
            dataset=node.params["dataset"],
            snapshot=snapshot.id,
            n_rows=snapshot.n_rows,
            source=node.params["source"],
            transformation=closure(self._sources.code, node.params["source"]).digest,
            report=check_contract(contract, snapshot.columns, self._tools.tables, table),
        )
        return self._blob("json", canonical(checked))

    def _blob(self, format: str, data: bytes) -> Artifact:
        return Artifact(digest=self._blobs.put(data), format=format, n_bytes=len(data))

    def _view(self, node: Node, key: Digest, inputs: Inputs, seed: int) -> object:
        view = self._definitions.view(node.params["view"])
        tables = {name: cast("pa.Table", inputs[name]) for name in inputs}
        return self._tools.tables.query(view.sql, tables)

    def _join(self, node: Node, key: Digest, inputs: Inputs, seed: int) -> object:
        service = self._definitions.service(node.params["service"])
        views = service_views(service, self._definitions)
        clustered = [cluster(view, cast("pa.Table", inputs[view.name])) for view in views]
        examples = as_table(inputs["examples"], self._recipe.examples)
        return join_as_of(examples, clustered, mode=node.params["mode"])

    def _model_contract(self, node: Node, key: Digest, inputs: Inputs, seed: int) -> object:
        return model_contract(self._recipe, self._definitions)

    def _package(self, node: Node, key: Digest, inputs: Inputs, seed: int) -> Artifact:
        contract = model_contract(self._recipe, self._definitions)
        recipe = self._recipe
        require_booster(inputs.artifact("model"), recipe.train)
        evaluation = evaluation_rows(inputs["evaluation_set"], recipe.evaluation_set, contract, recipe.label)
        native = self._blobs.get(inputs.artifact("model").digest)
        forms = {
            ONNX_PATH: self._tools.convert(inputs["model"], len(contract.inputs)),
            LIGHTGBM_PATH: native,
        }
        files = {
            **forms,
            GOLDEN_PATH: encode_golden(self._golden(forms[ONNX_PATH], contract, evaluation)),
            ENVIRONMENT_PATH: self._sources.lock,
            CODE_PATH: pack_tar({**dict(self._sources.code), **self._sources.contracts}),
            **{f"include/{path}": data for path, data in self._sources.include.items()},
        }
        built = build_package(self._config(node, inputs, contract), files)
        digest = store_package(built, self._blobs)
        return Artifact(digest=digest, format="package", n_bytes=len(built.manifest))

    def _config(self, node: Node, inputs: Inputs, contract: ModelContract) -> PackageConfig:
        recipe, sources, definitions = self._recipe, self._sources, self._definitions
        service = definitions.service(recipe.service)
        code = {label: digest for label, digest in node.parts.items() if " in " in label}
        return PackageConfig(
            model=recipe.model,
            contract=contract,
            service=recipe.service,
            service_hash=service_hash(service, definitions, upstream(recipe, sources)),
            views=view_hashes(recipe, sources, definitions),
            forms=(
                ModelForm(format="onnx", path=ONNX_PATH),
                ModelForm(format="lightgbm-text", path=LIGHTGBM_PATH),
            ),
            params=recipe.params,
            code=digest_of(code),
            closure=code,
            snapshots={
                name: take_snapshot(
                    f"{recipe.model.partition('/')[0]}/{name}",
                    cast("pa.Table", inputs[f"data.{name}"]),
                    self._blobs,
                ).id
                for name in recipe.datasets
            },
            environment=digest_of(sources.lock.decode()),
            recipe=msgspec.to_builtins(recipe),
            online=online_views(
                service_views(service, definitions),
                view_hashes(recipe, sources, definitions),
                cast("pa.Table", inputs["examples"]),
            ),
            traces=input_traces(
                recipe,
                sources,
                definitions,
                {name: cast("pa.Table", inputs[f"data.{name}"]).column_names for name in recipe.datasets},
                code,
            ),
        )

    def _golden(self, model: bytes, contract: ModelContract, evaluation: pa.Table) -> Golden:
        """Rows spread over the evaluation set, and the odd ones: nulls, unseen categories, bounds."""
        names = [field.name for field in contract.inputs]
        places = np.linspace(0, evaluation.num_rows - 1, num=N_GOLDEN, dtype=np.int64)
        spread = evaluation.select(names).take(places).to_pylist()
        rows = [*spread, *(probe.row for probe in probe_rows(contract.inputs, spread[:1]))]
        probe = PackageProbe(self._tools.engines["onnx"], model, contract)
        return Golden(
            rows=tuple(dict(row) for row in rows),
            predictions=tuple(float(answer) for answer in probe.predict_rows(rows)),
            tolerance=GOLDEN_TOLERANCE,
        )

    def _evidence(self, node: Node, key: Digest, inputs: Inputs, seed: int) -> object:
        found = Judge(self._blobs, self._tools.engines).intrinsic(
            inputs.artifact("package").digest,
            cast("pa.Table", inputs["evaluation_set"]),
            dataset=inputs.artifact("evaluation_set").digest,
            checked=[
                msgspec.convert(inputs[name], CheckedDataset)
                for name in sorted(inputs)
                if name.endswith(".contract")
            ],
            limits=node.params["gates"],
            advisories=self._sources.advisories,
        )
        return self._blob("json", canonical(found))


def online_views(
    views: Sequence[FeatureView], hashes: Mapping[str, Digest], spine: pa.Table
) -> tuple[OnlineView, ...]:
    """How serving finds the rows of each view, by name; keys in the types that the examples have them in.

    A view with a key other than text and whole numbers is left out: it can be trained on, not asked by key.
    """
    found = []
    for view in views:
        keys = [(name, _key_dtype(spine.schema.field(name).type)) for name in view.entity.keys]
        fields = tuple(KeyField(name=name, dtype=dtype) for name, dtype in keys if dtype is not None)
        if len(fields) == len(keys):
            found.append(
                OnlineView(
                    name=view.name,
                    view=hashes[view.name],
                    keys=fields,
                    features=view.feature_names,
                    ttl_s=view.ttl_s,
                )
            )
    return tuple(sorted(found, key=lambda view: view.name))


def _key_dtype(kind: pa.DataType) -> Literal["string", "int"] | None:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_integer(inner):
        return "int"
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return "string" if any(is_text(inner) for is_text in texts) else None


def load_definitions(root: Path, code: Mapping[str, bytes], module: str) -> Definitions:
    """Import the project's feature module and collect what it defines.

    Raises:
        DefinitionsFailed: the import raised.
        BadDefinition, UnknownName: the definitions do not fit together.
    """
    with importable(str(root.resolve()), code), contextlib.redirect_stdout(sys.stderr):
        try:
            loaded = importlib.import_module(module)  # noqa: TID251
        except LockgateError:
            raise
        except (Exception, SystemExit) as error:
            raise _definitions_failed(module, describe(error, str(root))) from error
        return collect(vars(loaded))


def _definitions_failed(module: str, failure: Failure) -> DefinitionsFailed:
    place = f", at {failure.where}: {failure.line}" if failure.where else ""
    file, _, number = failure.where.partition(":")
    remedy = f"fix {file} line {number}" if file else f"fix {module}"
    if failure.exception == "ModuleNotFoundError":
        remedy = "add what it imports to the environment"
    return DefinitionsFailed(
        f"{module} cannot be imported: {failure.exception}: {failure.message}{place}",
        remedy=remedy,
        module=module,
        failure=msgspec.to_builtins(failure),
    )
