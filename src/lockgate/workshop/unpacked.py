"""A package's own project, unpacked: the code, recipe, contracts and lock it was built with.

Rebuilding a version needs it, and so does judging against a champion: the champion must see the features of *its*
definitions, not those of the version that wants its place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa

from lockgate.adapters.runners.artifacts import load, store
from lockgate.adapters.runners.builtin import Tools, load_definitions
from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Clock
from lockgate.core.digests import Digest
from lockgate.core.errors import Unsupported
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.features.definition import Definitions, service_views
from lockgate.pipeline.artifact import Artifact, StepRecord
from lockgate.pipeline.code.source import SourceTree
from lockgate.pipeline.execute import execute
from lockgate.pipeline.graph import Node
from lockgate.pipeline.ports import StepCache
from lockgate.pipeline.recipe import TRAINING_SET_STEP, Recipe, Sources, graph_of
from lockgate.registry.packages.package import (
    CODE_PATH,
    ENVIRONMENT_PATH,
    INCLUDE_PREFIX,
    Package,
    unpack_tar,
)
from lockgate.workshop.assembly import assemble_runner, environment_of


class NotBuiltHere(Unsupported):
    """An imported version holds no project that could be unpacked."""

    code = "workshop.not-built-here"


@dataclass(frozen=True)
class Unpacked:
    """A package's project in a folder that lives as long as the block that opened it."""

    root: Path
    recipe: Recipe
    sources: Sources
    definitions: Definitions


@contextmanager
def unpacked(package: Package, blobs: BlobStore) -> Iterator[Unpacked]:
    """Raises `NotBuiltHere`, and what reading the package's layers raises: `LayerCorrupt`, `LayerMissing`."""
    if package.config.imported:
        raise NotBuiltHere(
            "this version was imported: the code and data it was made of are not in its package",
            remedy="import it again with lockgate import mlflow: the same model gives the same package",
            package=package.digest,
        )
    recipe = msgspec.convert(package.config.recipe, Recipe)
    files = unpack_tar(package.read(CODE_PATH, blobs))
    contracts = {table["contract"]: files.pop(table["contract"]) for table in recipe.datasets.values()}
    include = {
        layer.path.removeprefix(INCLUDE_PREFIX): package.read(layer.path, blobs)
        for layer in package.layers
        if layer.path.startswith(INCLUDE_PREFIX)
    }
    sources = Sources(
        code=SourceTree(files),
        contracts=contracts,
        include=include,
        lock=package.read(ENVIRONMENT_PATH, blobs),
        lockgate=VERSION_OF_LOCKGATE,
    )
    with tempfile.TemporaryDirectory(prefix="lockgate-unpacked-") as folder:
        root = Path(folder)
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        yield Unpacked(root, recipe, sources, load_definitions(root, sources.code, recipe.definitions))


def given(name: str, artifact: Artifact) -> Node:
    """A step whose output is at hand."""
    return Node(name=name, kind="given", params=msgspec.to_builtins(artifact))


def rows_for(
    package: Package,
    blobs: BlobStore,
    tools: Callable[[], Tools],
    cache: StepCache,
    clock: Clock,
    *,
    tables: Mapping[str, Artifact],
    rows: pa.Table,
) -> pa.Table:
    """`rows` with the features of `package`'s own definitions, known at each row's `as_of`.

    Args:
        cache: where views of the same definition over the same data may already be.
        tables: the datasets, by name.
        rows: an entity frame: keys, `as_of` and the request features.
    """
    with unpacked(package, blobs) as project:
        views = service_views(project.definitions.service(project.recipe.service), project.definitions)
        own = {feature for view in views for feature in view.feature_names}
        spine = rows.drop_columns([name for name in rows.column_names if name in own])
        wanted = {f"view.{view.name}" for view in views} | {TRAINING_SET_STEP}
        graph = graph_of(project.recipe, project.sources, project.definitions, {})
        nodes = [node for node in graph if node.name in wanted]
        examples = project.recipe.examples.partition(":")[2]
        read = {source for node in nodes for source in node.inputs.values()} & set(tables)
        nodes += [given(name, tables[name]) for name in sorted(read)]
        nodes.append(given(examples, store(spine, blobs, step=examples)))
        runner = assemble_runner(
            project.root, blobs, tools, project.recipe, project.sources, project.definitions
        )
        environment = environment_of(project.sources.lock)
        record = execute(nodes, cache, runner, environment, clock, model=project.recipe.model)
        joined = load(record.output(TRAINING_SET_STEP), blobs)
    assert isinstance(joined, pa.Table)
    return joined


class SideCache:
    """A step cache that reads from two places and writes to the second only.

    Side work finds what the main line has computed, and leaves no trace in what `plan` tells of the main line.
    """

    def __init__(self, main: StepCache, side: StepCache) -> None:
        self._main = main
        self._side = side

    def get(self, key: Digest) -> StepRecord | None:
        return self._main.get(key) or self._side.get(key)

    def put(self, record: StepRecord) -> None:
        self._side.put(record)

    def last(self, name: str) -> StepRecord | None:
        return self._side.last(name)

    def touch(self, key: Digest) -> None:
        self._side.touch(key)
