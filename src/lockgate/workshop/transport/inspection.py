"""A package looked through from the first byte to the last: who vouches for it, whether it is what they vouched for.

In this order: a trusted key has signed the digest; the manifest and each blob it names hash to their names, on all
cores at once; every form of the model is of an allowed format; what else is attested is about this package and signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import msgspec

from lockgate.adapters.blobs.checking import Damage, Wanted, damages
from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.core import semver
from lockgate.core.blobs import BlobCorrupt, BlobMissing, BlobStore
from lockgate.core.digests import Digest, check_digest, short
from lockgate.core.errors import NotFound, Unsupported
from lockgate.core.journal import NoteVerifier
from lockgate.registry.packages.package import (
    ARTIFACT_TYPE,
    Descriptor,
    LayerCorrupt,
    Manifest,
    Package,
    check_form,
    manifest_of,
    open_package,
)
from lockgate.registry.packages.ports import Verifier
from lockgate.registry.packages.signing import (
    CHUNK_BYTES,
    ENVELOPE_MEDIA_TYPE,
    PACKAGE_PREDICATE,
    SignatureInvalid,
    Vouched,
    open_attestation,
    predicate_type_of,
    vouched,
)
from lockgate.workshop.transport.statements import About, Claim, Proved, check


class NoPackageHere(NotFound):
    """A folder is no OCI layout, or holds no package, or several."""

    code = "transport.no-package-here"


class OriginUnknown(Unsupported):
    """A signature does not say which run made the package, so it cannot be entered in a registry."""

    code = "transport.origin-unknown"


class Attested(msgspec.Struct, frozen=True, kw_only=True):
    """One attestation. `trusted`: signed by a trusted key; `unknown`: by somebody nobody trusts here.

    Attributes:
        proved: whether a journal bears it out: `holds`; `none`, it does not say so; `unchecked`, no key of a journal
            was given; `unknown-journal`, it rests on one whose key was not.
        journal: the verifier key that `proved` speaks of.
        claim: what it then says.
    """

    predicate_type: str
    envelope: Digest
    standing: Literal["trusted", "unknown"]
    signed_by: str = ""
    why: str = ""
    proved: Proved = "none"
    journal: str = ""
    claim: Claim | None = None

    def lines(self) -> list[str]:
        """What is to be known of it, for people."""
        if self.standing == "unknown":
            return [f"not trusted: {self.why}"]
        key = "+".join(self.journal.split("+")[:2])
        proved = {
            "none": [],
            "holds": [f"in the journal of {key}"],
            "unchecked": ["not held against its journal: give the journal's key with --journal-key"],
            "unknown-journal": [f"rests on the journal of {key}, whose key is not known here"],
        }
        said = [self.claim.says] if self.claim else []
        return [*said, f"signed by {short(self.signed_by)}", *proved[self.proved]]


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """A package that holds.

    Attributes:
        n_bytes: of everything its manifest names.
        n_chunks: parts of large layers that were checked by themselves.
        facts: what its signer said of where it comes from: run, commit, dirty; empty when nothing was said.
    """

    digest: Digest
    model: str
    signed_by: tuple[str, ...]
    layers: int
    n_bytes: int
    n_chunks: int
    attestations: tuple[Attested, ...]
    facts: dict[str, Any] = {}


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A package and all envelopes about it, by the digests of their blobs in one store."""

    digest: Digest
    envelopes: tuple[Digest, ...]


def look_through(
    parcel: Parcel,
    blobs: BlobStore,
    verifiers: Sequence[Verifier],
    journals: Sequence[NoteVerifier] = (),
    *,
    workers: int | None = None,
) -> Inspected:
    """Check everything about a package.

    Args:
        verifiers: the keys that are trusted, less those that are revoked.
        journals: the verifier keys of the journals that are believed.
    Raises:
        AttestationForged: a statement does not follow from the journal that it names.
        SignatureInvalid: nobody trusted vouches for it, or an attestation was tampered with; nothing else is looked at.
        BlobMissing, BlobCorrupt, LayerCorrupt: name the blob; facts `damaged` lists all of them.
        NotAPackage, FormatRefused.
    """
    envelopes = [blobs.get(digest) for digest in parcel.envelopes]
    kinds = [predicate_type_of(envelope) for envelope in envelopes]
    signatures = [one for one, kind in zip(envelopes, kinds, strict=True) if kind == PACKAGE_PREDICATE]
    found = vouched(signatures, parcel.digest, verifiers)
    manifest = manifest_of(blobs.get(parcel.digest), parcel.digest)
    n_chunks = _check_blobs(parcel.digest, manifest, blobs, found, workers)
    package = open_package(parcel.digest, blobs)
    _check_forms(package, blobs)
    about = About.of(parcel.digest, blobs)
    attestations = [
        _attested(about, name, envelope, kind, verifiers, journals)
        for name, envelope, kind in zip(parcel.envelopes, envelopes, kinds, strict=True)
        if kind != PACKAGE_PREDICATE
    ]
    return Inspected(
        digest=parcel.digest,
        model=package.config.model,
        signed_by=found.signed_by,
        layers=len(package.layers),
        n_bytes=sum(one.size for one in (manifest.config, *manifest.layers)),
        n_chunks=n_chunks,
        attestations=tuple(attestations),
        facts={name: value for name, value in found.facts.items() if name != "chunks"},
    )


def read_layout(folder: Path, name: str | None = None) -> tuple[DirectoryBlobs, Parcel]:
    """The package in an OCI image layout, and what refers to it.

    Args:
        name: which one, when there are several; None for the only one.
    Raises:
        NoPackageHere: there is none, or several and no name.
    """
    if not (folder / "oci-layout").is_file():
        raise NoPackageHere(
            f"{folder} is no OCI image layout",
            remedy="lockgate package export NAME@VERSION FOLDER makes one",
            folder=str(folder),
        )
    blobs = DirectoryBlobs(folder)
    entries = [msgspec.convert(one, Descriptor) for one in blobs.manifests()]
    read = {one.digest: manifest_of(blobs.get(one.digest), one.digest) for one in entries}
    named = blobs.tags()
    packages = sorted(
        digest
        for digest, manifest in read.items()
        if manifest.artifact_type == ARTIFACT_TYPE and name in (None, digest, *_names_of(named, digest))
    )
    if len(packages) != 1:
        raise NoPackageHere(
            f"{folder} holds {len(packages) or 'no'} packages" + (f" called {name}" if name else ""),
            remedy="name one of: " + (", ".join(sorted(named)) or "nothing is named there"),
            folder=str(folder),
        )
    (digest,) = packages
    envelopes = tuple(
        manifest.layers[0].digest
        for manifest in read.values()
        if manifest.artifact_type == ENVELOPE_MEDIA_TYPE and _is_about(manifest, digest)
    )
    return blobs, Parcel(digest=digest, envelopes=envelopes)


def is_layout(text: str) -> bool:
    """Whether it names a folder, which `read_layout` is to look into."""
    return Path(text).is_dir()


def origin_of(found: Inspected) -> tuple[Digest, str, bool]:
    """Run, commit and whether there were uncommitted changes, as its signer says. Raises `OriginUnknown`."""
    run, commit, dirty = (found.facts.get(name) for name in ("run", "commit", "dirty"))
    if not isinstance(run, str):
        raise OriginUnknown(
            f"the signature of {found.digest} does not say which run made it",
            remedy="sign it again where it was made: lockgate package sign NAME@VERSION; then push and pull it again",
            package=found.digest,
        )
    return check_digest(run), commit if isinstance(commit, str) else "", dirty is True


def number_of(tag: str | None) -> str | None:
    """The version number that a tag is; None for any other tag."""
    try:
        return None if tag is None else str(semver.parse(tag))
    except semver.BadVersion:
        return None


def _is_about(manifest: Manifest, digest: Digest) -> bool:
    return manifest.subject is not None and manifest.subject.digest == digest and len(manifest.layers) == 1


def _names_of(named: dict[str, Digest], digest: Digest) -> list[str]:
    return [name for name, named_digest in named.items() if named_digest == digest]


def _check_blobs(
    package: Digest, manifest: Manifest, blobs: BlobStore, found: Vouched, workers: int | None
) -> int:
    """Hash everything the manifest names; returns how many chunks were checked by themselves."""
    named = (manifest.config, *manifest.layers)
    if isinstance(blobs, DirectoryBlobs):
        wanted = [
            Wanted(
                one.digest, one.size, blobs.file(one.digest), found.chunks.get(one.digest, ()), CHUNK_BYTES
            )
            for one in named
        ]
        damaged = damages(wanted, workers=workers)
        n_chunks = sum(len(one.chunks) for one in wanted)
    else:
        with ThreadPoolExecutor(workers) as pool:
            results = pool.map(lambda one: _fetch(one, blobs), named)
            damaged = [one for one in results if one is not None]
        n_chunks = 0
    if not damaged:
        return n_chunks
    paths = {one.digest: one.annotations.get("org.opencontainers.image.title", "its config") for one in named}
    told = "; ".join(f"{paths[one.digest]} ({one.digest}): {one.why}" for one in damaged)
    raise LayerCorrupt(
        f"package {package} does not hold: {told}",
        remedy="do not use it; take the package from a place where it is whole",
        package=package,
        digest=damaged[0].digest,
        path=paths[damaged[0].digest],
        damaged=[one.digest for one in damaged],
    )


def _fetch(one: Descriptor, blobs: BlobStore) -> Damage | None:
    try:
        data = blobs.get(one.digest)
    except (BlobCorrupt, BlobMissing) as error:
        return Damage(one.digest, error.message)
    return None if len(data) == one.size else Damage(one.digest, f"it has {len(data)} bytes, not {one.size}")


def _check_forms(package: Package, blobs: BlobStore) -> None:
    for form in package.config.forms:
        check_form(form, package.read(form.path, blobs))


def _attested(
    about: About,
    name: Digest,
    envelope: bytes,
    kind: str,
    verifiers: Sequence[Verifier],
    journals: Sequence[NoteVerifier],
) -> Attested:
    try:
        found = open_attestation(envelope, verifiers)
    except SignatureInvalid as error:
        if error.facts["reason"] != "untrusted-key":
            raise
        return Attested(predicate_type=kind, envelope=name, standing="unknown", why=error.facts["why"])
    if found.package != about.package:
        raise SignatureInvalid(
            f"the {kind} in {name} is about package {found.package}",
            remedy="it was put beside the wrong package; take it away",
            reason="other-subject",
            why="another package",
            digest=about.package,
        )
    checked = check(found, about, journals, name)
    return Attested(
        predicate_type=kind,
        envelope=name,
        standing="trusted",
        signed_by=found.signed_by,
        proved=checked.proved,
        journal=checked.key,
        claim=checked.claim,
    )
