"""Which blobs are needed: everything that a kept document mentions, and everything that those blobs mention in turn.

What counts as a mention is any digest in the text, whatever field it stands in. A room that one day names a blob in a
new kind of document has nothing to tell anybody here; the price is that a blob may stay that nobody will ask for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from lockgate.core.blobs import BlobMissing
from lockgate.core.digests import Digest, short
from lockgate.registry.packages.package import BuiltPackage, Descriptor

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
MAX_READ_BYTES = 4 << 20
"""Larger blobs are weights and tables; nothing small enough to list others is larger."""

_MAX_REFERRER_BYTES = 1 << 16


class _Subject(msgspec.Struct):
    digest: Digest


class _Referrer(msgspec.Struct):
    subject: _Subject


def mentioned(text: bytes) -> set[Digest]:
    return {found.decode() for found in _DIGEST.findall(text)}


def reachable(
    roots: Iterable[Digest],
    kept: Mapping[Digest, int],
    read: Callable[[Digest], bytes],
    *,
    closed: Collection[Digest] = (),
) -> set[Digest]:
    """The blobs among `kept` that `roots` lead to, themselves included.

    Args:
        kept: digest -> size in bytes, of what is there.
        read: the bytes of one of them; asked for such as may be text only.
        closed: kept when they are reached, and not looked into.
    """
    todo = [digest for digest in set(roots) if digest in kept]
    found = set(todo)
    while todo:
        digest = todo.pop()
        if digest in closed or kept[digest] > MAX_READ_BYTES:
            continue
        data = read(digest)
        if data[:1] not in (b"{", b"["):
            continue
        more = {one for one in mentioned(data) if one in kept} - found
        found |= more
        todo += more
    return found


def referring(
    found: Collection[Digest], kept: Mapping[Digest, int], read: Callable[[Digest], bytes]
) -> set[Digest]:
    """The manifests among `kept` that say something about one of `found`: how an OCI registry finds signatures. No
    document names them."""
    about = set()
    for digest, n_bytes in kept.items():
        if digest in found or n_bytes > _MAX_REFERRER_BYTES:
            continue
        data = read(digest)
        if b'"subject"' in data:
            try:
                subject = msgspec.json.decode(data, type=_Referrer).subject
            except msgspec.MsgspecError:
                continue
            if subject.digest in found:
                about.add(digest)
    return about


def package_descriptor(package: Digest, manifest: bytes) -> Descriptor:
    """The OCI descriptor of a package from its manifest's bytes."""
    return BuiltPackage(digest=package, manifest=manifest, blobs={}).descriptor


def require_package(version: str, manifest: bytes, kept: Mapping[Digest, int]) -> None:
    """Raises `BlobMissing` when a file of a package is not there."""
    for digest in sorted(mentioned(manifest)):
        if digest not in kept:
            raise BlobMissing(
                f"a file of {version} is missing: no blob {short(digest)}",
                remedy="lockgate package verify; restore it from a backup",
                digest=digest,
                version=version,
            )
