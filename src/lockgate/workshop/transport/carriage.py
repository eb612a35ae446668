"""A package to a registry and back, with everything that is signed about it; the same digest at both ends.

Out: blobs first, then the manifest by digest, then what refers to it, the tag last; whoever finds the tag finds all.
In: the manifest and the envelopes, and only when a trusted key vouches for it the layers, into a layout of its own.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.registries.oci import Held, InFile, Login, OciReference, OciRegistry
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, sha256
from lockgate.core.errors import Invalid
from lockgate.registry.packages.package import (
    ARTIFACT_TYPE,
    MANIFEST_TYPE,
    BuiltPackage,
    Descriptor,
    Manifest,
    NotAPackage,
    manifest_of,
    open_package,
)
from lockgate.registry.packages.ports import Signer, Verifier
from lockgate.registry.packages.signing import (
    ENVELOPE_MEDIA_TYPE,
    PACKAGE_PREDICATE,
    package_facts,
    predicate_type_of,
    signature_envelope,
    signature_referrer,
    store_signature,
    verify_any,
)
from lockgate.registry.state import VersionState
from lockgate.workshop.transport.attesting import Attesting
from lockgate.workshop.transport.inspection import Parcel

_AT_ONCE = 4
_MAX_ENVELOPE_BYTES = 64 * 1024 * 1024


class LoginUnreadable(Invalid):
    """A login is no USER:PASSWORD, or the file other tools keep logins in cannot be read."""

    code = "transport.login-unreadable"


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a push came to.

    Attributes:
        n_sent, n_there: blobs that were sent, and that were there; n_mounted: taken from another repository there.
        n_referrers: statements beside the package, signatures among them; n_signed: those signed for this push.
    """

    digest: Digest
    reference: str
    n_sent: int
    n_there: int
    n_mounted: int = 0
    n_referrers: int
    n_signed: int = 0


def push(
    registry: OciRegistry,
    to: OciReference,
    parcel: Parcel,
    blobs: BlobStore,
    attesting: Attesting | None = None,
    origins: Sequence[str] = (),
) -> Pushed:
    """Bring a package to a registry. What is there already is not sent again; repeating it changes nothing.

    Args:
        to: with a tag.
        attesting: statements that are to be there too.
        origins: other repositories of that registry, which may hold some of its blobs.
    """
    repository, manifest = to.repository, blobs.get(parcel.digest)
    named = manifest_of(manifest, parcel.digest)
    wanted = {one.digest: one for one in (named.config, *named.layers)}

    def send(one: Descriptor) -> Literal["there", "mounted", "sent"]:
        if registry.has_blob(repository, one.digest):
            return "there"
        if registry.mount_blob(repository, one.digest, origins):
            return "mounted"
        # `path` has the bytes hashed before they leave.
        registry.push_blob(repository, one.digest, InFile(Path(blobs.path(one.digest)), one.size))
        return "sent"

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ways = list(pool.map(send, wanted.values()))
    registry.push_manifest(repository, parcel.digest, manifest)
    subject = BuiltPackage(digest=parcel.digest, manifest=manifest, blobs={}).descriptor
    carried, signed = [blobs.get(digest) for digest in parcel.envelopes], list[bytes]()
    if attesting is not None and attesting.words:
        there = [found.envelope for found in _referring(registry, repository, parcel.digest)]
        signed = attesting.sealed([*carried, *there])
    for envelope in (*carried, *signed):
        referrer = signature_referrer(subject, envelope, predicate_type_of(envelope))
        _send_referrer(registry, repository, parcel.digest, referrer)
    registry.push_manifest(repository, to.tag or "latest", manifest)
    return Pushed(
        digest=parcel.digest,
        reference=str(to),
        n_sent=ways.count("sent"),
        n_there=ways.count("there"),
        n_mounted=ways.count("mounted"),
        n_referrers=len(carried) + (len(attesting.words) if attesting is not None else 0),
        n_signed=len(signed),
    )


def _send_referrer(registry: OciRegistry, repository: str, subject: Digest, referrer: BuiltPackage) -> None:
    for digest, data in referrer.blobs.items():
        if not registry.has_blob(repository, digest):
            registry.push_blob(repository, digest, Held(data))
    registry.push_referrer(repository, subject, referrer.manifest, referrer.descriptor)


def fetch(
    registry: OciRegistry,
    source: OciReference,
    into: DirectoryBlobs,
    verifiers: Sequence[Verifier],
) -> Parcel:
    """Bring a package from a registry into a layout. Its layers are not asked for before somebody trusted vouches.

    Raises:
        NotInRegistry, BytesDiffer, NotAPackage.
        SignatureInvalid: nobody trusted has signed it.
    """
    repository = source.repository
    manifest = registry.pull_manifest(repository, source.name)
    digest = sha256(manifest)
    named = manifest_of(manifest, digest)
    if named.artifact_type != ARTIFACT_TYPE:
        raise NotAPackage(
            f"{source} is no model package: its artifact type is {named.artifact_type}",
            remedy="name the repository and tag of a package",
            package=digest,
        )
    envelopes = _fetch_envelopes(registry, repository, digest, into)
    texts = [into.get(envelope) for envelope in envelopes]
    signatures = [text for text in texts if predicate_type_of(text) == PACKAGE_PREDICATE]
    verify_any(signatures, digest, verifiers)

    def bring(one: Descriptor) -> None:
        if not into.has(one.digest):
            into.put(registry.pull_blob(repository, one.digest, one.size))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(bring, {one.digest: one for one in (named.config, *named.layers)}.values()))
    into.put(manifest)
    built = BuiltPackage(digest=digest, manifest=manifest, blobs={})
    into.tag(source.tag, msgspec.to_builtins(built.descriptor))
    return Parcel(digest=digest, envelopes=envelopes)


class _Referring(NamedTuple):
    """An envelope at a registry, and the manifest that ties it to its package."""

    envelope: bytes
    manifest: bytes
    referrer: Manifest


def _referring(registry: OciRegistry, repository: str, package: Digest) -> Iterator[_Referring]:
    """All DSSE envelopes that refer to the package; other things may refer to it as well."""
    for entry in registry.referrers(repository, package):
        if entry.artifact_type not in (None, ENVELOPE_MEDIA_TYPE) or entry.media_type != MANIFEST_TYPE:
            continue
        data = registry.pull_manifest(repository, entry.digest)
        referrer = manifest_of(data, entry.digest)
        if referrer.artifact_type != ENVELOPE_MEDIA_TYPE or not _is_small(referrer, package):
            continue
        (layer,) = referrer.layers
        yield _Referring(registry.pull_blob(repository, layer.digest, layer.size), data, referrer)


def _fetch_envelopes(
    registry: OciRegistry, repository: str, package: Digest, into: DirectoryBlobs
) -> tuple[Digest, ...]:
    found: list[Digest] = []
    for envelope, data, referrer in _referring(registry, repository, package):
        found.append(into.put(envelope))
        into.put(registry.pull_blob(repository, referrer.config.digest, referrer.config.size))
        into.put(data)
        descriptor = BuiltPackage(digest=sha256(data), manifest=data, blobs={}).descriptor
        into.tag(None, msgspec.to_builtins(descriptor))
    return tuple(dict.fromkeys(found))


def _is_small(referrer: Manifest, package: Digest) -> bool:
    """Whether it is one envelope about the package, and not so large that it cannot be one."""
    about = referrer.subject is not None and referrer.subject.digest == package
    sizes = (referrer.config.size, *(layer.size for layer in referrer.layers))
    return about and len(referrer.layers) == 1 and max(sizes) <= _MAX_ENVELOPE_BYTES


def take_in(parcel: Parcel, layout: DirectoryBlobs, blobs: BlobStore) -> None:
    """Copy a package that was looked through into a store, its manifest last."""
    manifest = layout.get(parcel.digest)
    named = manifest_of(manifest, parcel.digest)
    for digest in (*parcel.envelopes, named.config.digest, *(one.digest for one in named.layers)):
        blobs.put(layout.get(digest))
    blobs.put(manifest)


def lay_out(parcel: Parcel, blobs: BlobStore, folder: Path, attesting: Attesting | None = None) -> None:
    """Copy a package with all that is said about it into an OCI image layout of its own, every byte verified."""
    out, manifest = DirectoryBlobs(folder), blobs.get(parcel.digest)
    named = manifest_of(manifest, parcel.digest)
    for one in (named.config, *named.layers):
        out.put(blobs.get(one.digest))
    out.put(manifest)
    subject = BuiltPackage(digest=parcel.digest, manifest=manifest, blobs={}).descriptor
    carried = [blobs.get(digest) for digest in parcel.envelopes]
    signed = attesting.sealed([*carried, *_lying_there(out)]) if attesting is not None else []
    for envelope in (*carried, *signed):
        stored = store_signature(subject, envelope, out, predicate_type_of(envelope))
        out.tag(None, msgspec.to_builtins(stored.referrer))
    out.tag(open_package(parcel.digest, out).config.model, msgspec.to_builtins(subject))


def _lying_there(layout: DirectoryBlobs) -> Iterator[bytes]:
    """The envelopes in a layout, about whatever package."""
    for entry in layout.manifests():
        manifest = manifest_of(layout.get(entry["digest"]), entry["digest"])
        if manifest.artifact_type == ENVELOPE_MEDIA_TYPE:
            yield from (layout.get(layer.digest) for layer in manifest.layers)


def sign_again(version: VersionState, signer: Signer, blobs: BlobStore) -> Digest:
    """Another signature over a version's package, kept beside it; returns the envelope's digest."""
    manifest = blobs.get(version.package)
    facts = package_facts(manifest, blobs, run=version.run, commit=version.commit, dirty=version.dirty)
    envelope = signature_envelope(version.package, signer, model=version.model, predicate=facts)
    built = BuiltPackage(digest=version.package, manifest=manifest, blobs={})
    return store_signature(built.descriptor, envelope, blobs).envelope


def login_to(host: str, reference: str | None, secret: Callable[[str], str]) -> Login | None:
    """The login for a registry: what a secret holds as USER:PASSWORD, else what other tools keep for that host.

    Args:
        reference: `env:NAME` or `file:PATH`; None to look into `config.json` of DOCKER_CONFIG or ~/.docker.
    Raises:
        LoginUnreadable: its text is not repeated.
    """
    if reference is not None:
        return _login(secret(reference), reference)
    folder = os.environ.get("DOCKER_CONFIG")
    path = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
    try:
        known = msgspec.json.decode(path.read_bytes(), type=_Logins).auths
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError):
        raise LoginUnreadable(
            f"{path} cannot be read", remedy="repair it, or give --login env:NAME"
        ) from None
    kept = known.get(host)
    if kept is None or not kept.auth:
        return None
    try:
        return _login(base64.b64decode(kept.auth, validate=True).decode(), str(path))
    except (binascii.Error, UnicodeDecodeError):
        raise LoginUnreadable(
            f"the login for {host} in {path} cannot be read", remedy="log in again"
        ) from None


class _Kept(msgspec.Struct):
    auth: str = ""


class _Logins(msgspec.Struct):
    auths: dict[str, _Kept] = {}


def _login(text: str, where: str) -> Login:
    user, colon, password = text.partition(":")
    if not colon or not user:
        raise LoginUnreadable(f"{where} holds no USER:PASSWORD", remedy="put USER:PASSWORD there")
    return Login(user, password)


def envelopes_of(signatures: Iterable[Digest], attestations: Iterable[Digest]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys((*signatures, *attestations)))
