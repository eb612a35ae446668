"""Which blobs a registry rests on, found from its documents: for an archive, and for a sweep of what nobody needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import msgspec

from lockgate.core.blobs import BlobMissing, SweptBlobs
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import DocRef, DocumentKind
from lockgate.core.messages import Context, Refusal
from lockgate.core.names import parse_version
from lockgate.data.state import DATASET, SNAPSHOT
from lockgate.delivery.way_back import collect_package, needs_collect
from lockgate.gates.state import EVIDENCE
from lockgate.hub.audit import documents_of
from lockgate.hub.kernel import gather, read_body
from lockgate.hub.ports import Journal
from lockgate.hub.table import KIND_BY_NAME, KINDS
from lockgate.pipeline.artifact import RunRecord, RunStep, StepRecord, derived_rows
from lockgate.pipeline.state import RUN
from lockgate.registry.messages import CollectPackage
from lockgate.registry.packages.package import CONFIG_PATH, Descriptor, Manifest, path_of
from lockgate.registry.reach import mentioned, package_descriptor, reachable, referring, require_package
from lockgate.registry.state import MODEL, VERSION

Read = Callable[[Digest], bytes]
D = TypeVar("D")


class Archived(NamedTuple):
    """What an archive holds: blobs with their sizes, and packages by name."""

    blobs: dict[Digest, int]
    packages: dict[str, Descriptor]
    without: tuple[str, ...]


def archived(journal: Journal, blobs: SweptBlobs, *, data: bool) -> Archived:
    """To be asked inside a snapshot of the journal.

    Args:
        data: false leaves out the rows: the files of snapshots, and what runs made on the way.

    Raises:
        BlobMissing: a package that was not collected is not whole.
    """
    kept = {one.digest: one.n_bytes for one in blobs.kept()}
    read, packages = blobs.get, {}
    for version in bodies_of(journal, VERSION):
        if version.collected_at is not None:
            continue
        if version.package not in kept:
            raise BlobMissing(
                f"the package of {version.version} is missing: no blob {version.package}",
                remedy="restore it from a backup",
                digest=version.package,
            )
        manifest = read(version.package)
        require_package(version.version, manifest, kept)
        ref = parse_version(version.version)
        packages[f"{ref.model}:{ref.version}"] = package_descriptor(version.package, manifest)
    found = _with_referrers(reachable(_roots(journal), kept, read), kept, read)
    if not data:
        needed = {digest for one in packages.values() for digest in mentioned(read(one.digest))}
        found -= _rows(journal, kept, read) - needed - _roots(journal)
    without = () if data else ("the rows of snapshots", "what runs made on the way")
    return Archived({digest: kept[digest] for digest in found}, packages, without)


def due(
    journal: Journal, terms: Mapping[str, int], now: Micros, actor: str
) -> tuple[list[CollectPackage], list[Kept]]:
    """Which versions would be collected now, by the rule that decides it; and which that ended would not, and why.

    Args:
        terms: days after the end of a version's life, by tier.
    """
    asked: list[CollectPackage] = []
    kept: list[Kept] = []
    models = {one.model: one for one in bodies_of(journal, MODEL)}
    context = Context(actor=actor, now=now)
    for version in bodies_of(journal, VERSION):
        if version.collected_at is not None or version.state not in ("rejected", "retired"):
            continue
        term = terms[models[version.model].tier]
        command = CollectPackage(id="", version=version.version, term_days=term)
        docs = gather(needs_collect, command, lambda ref: _read(journal, ref))
        outcome = collect_package(docs, command, context)
        if isinstance(outcome, Refusal):
            kept.append(Kept(version.version, tuple(reason.message for reason in outcome.reasons)))
        else:
            asked.append(command)
    return asked, kept


class Kept(msgspec.Struct, frozen=True):
    """A version that ended and is kept all the same."""

    version: str
    reasons: tuple[str, ...]


def needed(
    journal: Journal,
    kept: Mapping[Digest, int],
    read: Read,
    *,
    since: Micros,
    as_if_gone: Collection[str] = (),
) -> set[Digest]:
    """The blobs that nothing may take away. To be asked inside a snapshot of the journal.

    What a document names stays for ever: manifests, evidence, signatures, run records, so that everything can be
    explained. What those lead to (weights, rows, what runs made on the way) stays as long as it is somebody's: of a
    version that was not collected, of the newest snapshot of a dataset, of a run or snapshot not older than `since`.

    Args:
        as_if_gone: versions to be taken for collected already.
    """
    roots, closed = _roots(journal), set[Digest]()
    versions = list(bodies_of(journal, VERSION))
    gone = {version.version for version in versions if version.collected_at is not None} | set(as_if_gone)
    own = {digest for one in versions if one.version not in gone for digest in (one.package, one.run)}
    own |= {one.latest for one in bodies_of(journal, DATASET)}
    for run in bodies_of(journal, RUN):
        if run.run in own or run.finished_at >= since:
            own |= {run.run, run.package, *run.snapshots.values()}
        else:
            closed.add(run.run)
    for version in versions:
        if version.version in gone:
            # What it says of itself is no weight and no row, and explains it for good.
            about = _about(version.package, kept, read)
            roots |= about
            closed |= {version.package, version.run, *about}
    for evidence in bodies_of(journal, EVIDENCE):
        if evidence.version in gone:
            closed |= {line.digest for line in evidence.lines}
    erased = set[Digest]()
    for snapshot in bodies_of(journal, SNAPSHOT):
        if snapshot.state == "erased":
            erased.add(snapshot.snapshot)
        elif snapshot.extracted_at >= since:
            own.add(snapshot.snapshot)
        else:
            closed.add(snapshot.snapshot)
    # What is somebody's opens whatever it leads to; an erased snapshot stays shut for everybody.
    closed -= reachable(own, kept, read, closed=erased)
    return _with_referrers(reachable(roots, kept, read, closed=closed | erased), kept, read, closed | erased)


class Rows(NamedTuple):
    """Where rows of snapshots lie.

    Attributes:
        blobs: their files, and what steps made of them.
        shared: which of the snapshots have files of another one that is not erased, whose rows these are, too.
        packages: what was made of them; their golden rows are some of the rows, and go only with the package.
    """

    blobs: set[Digest]
    shared: set[Digest]
    packages: set[Digest]


def rows_of(
    snapshots: Collection[Digest],
    journal: Journal,
    kept: Mapping[Digest, int],
    read: Read,
    steps: Iterable[StepRecord],
) -> Rows:
    """Of all these that share no rows. To be asked inside a snapshot of the journal.

    Args:
        steps: what the step cache remembers, of runs that nobody registered too.
    """
    others = _others(journal, read, snapshots)
    foreign = {file for files in others.values() for file in files}
    mine = {one: _files(one, read) for one in snapshots}
    shared = {one for one, files in mine.items() if not foreign.isdisjoint(files)}
    files = {file for one in mine.keys() - shared for file in mine[one]}
    runs = list(bodies_of(journal, RUN))
    known: list[RunStep | StepRecord] = list(steps)
    for run in runs if files else ():
        if run.run in kept:
            with suppress(msgspec.MsgspecError):
                # What was brought in from elsewhere has a record of another form, and no steps.
                known += msgspec.json.decode(read(run.run), type=RunRecord).steps
    packages = [one.package for one in bodies_of(journal, VERSION) if one.collected_at is None]
    packed = {digest for one in packages if one in kept for digest in mentioned(read(one))}
    found = derived_rows(known, files) | files
    return Rows(
        blobs={one for one in found - packed - _roots(journal) if one in kept},
        shared=shared,
        packages={run.package for run in runs if not mine.keys().isdisjoint(run.snapshots.values())},
    )


def same_rows(snapshot: Digest, journal: Journal, read: Read) -> tuple[Digest, ...]:
    """The other snapshots with files of this one, that are not erased."""
    files = _files(snapshot, read)
    return tuple(one for one, theirs in _others(journal, read, (snapshot,)).items() if files & theirs)


def _others(journal: Journal, read: Read, but: Collection[Digest]) -> dict[Digest, set[Digest]]:
    """The files of every snapshot that is not erased, but for these."""
    standing = (one.snapshot for one in bodies_of(journal, SNAPSHOT) if one.state != "erased")
    return {one: _files(one, read) for one in standing if one not in but}


def _files(snapshot: Digest, read: Read) -> set[Digest]:
    """The files of a snapshot. Its manifest stays when they are erased; one that is nowhere lists none."""
    with suppress(BlobMissing):
        return {file.digest for file in msgspec.json.decode(read(snapshot), type=_Manifest).files}
    return set()


class _File(msgspec.Struct):
    digest: Digest


class _Manifest(msgspec.Struct):
    files: tuple[_File, ...]


def bodies_of(journal: Journal, kind: DocumentKind[D]) -> Iterator[D]:
    return (read_body(kind, stored) for stored in documents_of(journal, kind.name))


def _roots(journal: Journal) -> set[Digest]:
    """Every digest that any document names."""
    return {
        digest
        for kind in KINDS
        for stored in documents_of(journal, kind.name)
        for digest in mentioned(stored.body)
    }


def _about(package: Digest, kept: Mapping[Digest, int], read: Read) -> set[Digest]:
    """The file of a package that describes it."""
    if package not in kept:
        return set()
    layers = msgspec.json.decode(read(package), type=Manifest).layers
    return {layer.digest for layer in layers if path_of(layer) == CONFIG_PATH}


def _with_referrers(
    found: set[Digest], kept: Mapping[Digest, int], read: Read, closed: Collection[Digest] = ()
) -> set[Digest]:
    about = referring(found, kept, read)
    return found | reachable(about, kept, read, closed=closed)


def _read(journal: Journal, ref: DocRef) -> Any:
    kind = KIND_BY_NAME[ref.kind]
    if ref.key.endswith("*"):
        return tuple(read_body(kind, one) for one in journal.documents(ref.kind, ref.key[:-1]))
    stored = journal.document(ref.kind, ref.key)
    return None if stored is None else read_body(kind, stored)


def _rows(journal: Journal, kept: Mapping[Digest, int], read: Read) -> set[Digest]:
    """What snapshots and run records lead to."""
    lists = [one.snapshot for one in bodies_of(journal, SNAPSHOT)]
    lists += [one.run for one in bodies_of(journal, RUN)]
    return {digest for one in lists if one in kept for digest in mentioned(read(one))}
