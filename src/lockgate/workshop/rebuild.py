"""`reproduce`: a version built again from its package and its snapshots alone.

Nothing of the working tree is looked at. The package carries the code, the recipe, the contracts and the lock it was
built with; the snapshots lie in the blob store by id. They are unpacked into an empty folder, every step runs anew
without any cache, and the manifest digests are compared. When they differ, the first step whose output differs from
the recorded run is named.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lockgate.adapters.sql.step_cache import SqliteStepCache
from lockgate.core.clock import iso
from lockgate.core.digests import Digest, short
from lockgate.core.errors import NotFound
from lockgate.data.manifest import read_snapshot
from lockgate.hub.messages import VersionAnswer
from lockgate.pipeline.artifact import Artifact, RunRecord
from lockgate.pipeline.execute import Progress, execute
from lockgate.pipeline.graph import Node
from lockgate.pipeline.recipe import PACKAGE_STEP, rebuild_graph
from lockgate.registry.packages.package import Package
from lockgate.workshop.assembly import assemble_runner, environment_of
from lockgate.workshop.premises import Premises
from lockgate.workshop.unpacked import given, unpacked


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: `identical`, or `different` with where it first parts.

    `environment_matches` compares what the run record names: the minor version of Python here with the one it was
    built by, and the package's lock with the one that was recorded. What is really installed is not looked at.
    """

    verdict: str
    expected: Digest
    rebuilt: Digest
    first_difference: str | None
    environment_matches: bool
    n_steps: int


class InputsErased(NotFound):
    """The rows that the version was built from were erased; nobody can build it again."""

    code = "workshop.erased-inputs"


class PackageGone(NotFound):
    """The package was collected."""

    code = "workshop.package-collected"


def require_inputs(known: VersionAnswer) -> None:
    """Say first what is on record to be gone. Raises `InputsErased` or `PackageGone`."""
    version = known.version
    if known.erased:
        told = "; ".join(
            f"the rows of {one.dataset} snapshot {short(one.snapshot)} were erased by {one.erasure.erased_by} at "
            f"{iso(one.erasure.erased_at)}: {one.erasure.reason}"
            for one in known.erased
            if one.erasure is not None
        )
        raise InputsErased(
            f"erased inputs: {told}",
            remedy=f"lockgate explain {version.version} shows what is on record",
            version=version.version,
            snapshots=[one.snapshot for one in known.erased],
        )
    if version.collected_at is not None:
        raise PackageGone(
            f"the package of {version.version} was collected at {iso(version.collected_at)}",
            remedy=f"lockgate explain {version.version} shows what is on record",
            version=version.version,
        )


def rebuild(
    premises: Premises, package: Package, run: Digest, observer: Callable[[Progress], None]
) -> Rebuilt:
    """Build `package` again and compare.

    Args:
        run: digest of the run record that made it.

    Raises:
        LayerCorrupt, BlobMissing, SnapshotCorrupt: what it would be rebuilt from does not hold.
    """
    with unpacked(package, premises.blobs) as project:
        nodes = rebuild_graph(
            project.recipe, project.sources, project.definitions, _tables(premises, package)
        )
        runner = assemble_runner(
            project.root,
            premises.blobs,
            premises.tools,
            project.recipe,
            project.sources,
            project.definitions,
        )
        environment = environment_of(project.sources.lock)
        record = execute(
            nodes,
            SqliteStepCache(project.root / "steps.db", project.recipe.model),
            runner,
            environment,
            premises.clock,
            observer,
            model=project.recipe.model,
            settings=runner.settings,
        )
    made = record.output(PACKAGE_STEP).digest
    before = msgspec.json.decode(premises.blobs.get(run), type=RunRecord)
    return Rebuilt(
        verdict="identical" if made == package.digest else "different",
        expected=package.digest,
        rebuilt=made,
        first_difference=None if made == package.digest else _first_difference(before, record),
        environment_matches=before.environment == environment,
        n_steps=len(record.steps),
    )


def _tables(premises: Premises, package: Package) -> dict[str, Node]:
    """Each dataset as it was, from its snapshot."""
    nodes = {}
    for name, snapshot_id in package.config.snapshots.items():
        (file,) = read_snapshot(snapshot_id, premises.blobs).files
        nodes[name] = given(name, Artifact(digest=file.digest, format="parquet", n_bytes=file.n_bytes))
    return nodes


def _first_difference(before: RunRecord, after: RunRecord) -> str:
    recorded = {step.name: step.output.digest for step in before.steps}
    for step in after.steps:
        if recorded.get(step.name) != step.output.digest:
            return step.name
    return PACKAGE_STEP
