"""Which blobs a registry rests on, found from its documents: for an archive, and for a sweep of what nobody needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from lockgate.core.blobs import BlobMissing, SweptBlobs
from lockgate.core.digests import Digest
from lockgate.core.documents import DocumentKind
from lockgate.core.names import parse_version
from lockgate.data.state import SNAPSHOT
from lockgate.hub.audit import documents_of
from lockgate.hub.kernel import read_body
from lockgate.hub.ports import Journal
from lockgate.hub.table import KINDS
from lockgate.pipeline.state import RUN
from lockgate.registry.package import Descriptor
from lockgate.registry.reach import mentioned, package_descriptor, reachable, referring, require_package
from lockgate.registry.state import VERSION

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


def _with_referrers(found: set[Digest], kept: Mapping[Digest, int], read: Read) -> set[Digest]:
    about = referring(found, kept, read)
    return found | reachable(about, kept, read)


def _rows(journal: Journal, kept: Mapping[Digest, int], read: Read) -> set[Digest]:
    """What snapshots and run records lead to."""
    lists = [one.snapshot for one in bodies_of(journal, SNAPSHOT)]
    lists += [one.run for one in bodies_of(journal, RUN)]
    return {digest for one in lists if one in kept for digest in mentioned(read(one))}
