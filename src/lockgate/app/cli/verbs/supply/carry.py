"""Verbs that carry packages and look through them: push, pull, verify."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import msgspec

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.identity.keys import PublicKey
from lockgate.adapters.identity.secrets import resolve as resolve_secret
from lockgate.adapters.registries.oci import OciReference, OciRegistry
from lockgate.app.cli.session import Session, verb
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import short
from lockgate.core.errors import NotFound
from lockgate.core.messages import Scope
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.core.secrets import parse_secret_ref
from lockgate.hub.messages import (
    ExplainVersion,
    KeysAnswer,
    PackageVersionAnswer,
    RevokedKeys,
    VersionAnswer,
    VersionOfPackage,
)
from lockgate.registry.messages import AttachAttestation, RegisterVersion
from lockgate.registry.ports import Verifier
from lockgate.workshop.transport.carriage import envelopes_of, fetch, login_to, take_in
from lockgate.workshop.transport.carriage import push as send
from lockgate.workshop.transport.inspection import (
    Inspected,
    Parcel,
    is_layout,
    look_through,
    number_of,
    origin_of,
    read_layout,
)


class NotRegistered(NotFound):
    """A package lies in the store and is no version of its model."""

    code = "cli.not-registered"


_login = click.option(
    "--login", metavar="REF", help="Where USER:PASSWORD is: env:NAME or file:PATH. Else as docker keeps it."
)
_trust = click.option(
    "--trust", multiple=True, metavar="PEM", help="Trust these public keys instead of the project's."
)


@verb
@click.argument("version")
@click.argument("reference")
@_login
def push(session: Session, version: str, reference: str, login: str | None) -> None:
    """Bring a version's package to an OCI registry, with its signatures and attestations.

    Without a tag, the version's number is the tag. What is there is not sent again.

    Example: lockgate push flight-delay@1.0.0 registry.example.com/models/flight-delay
    """
    parcel, blobs, number = _of_version(session, version)
    to = OciReference.parse(reference)
    to = to._replace(tag=to.tag or number)
    look_through(parcel, blobs, _keys(session, ()))
    with _registry(to, login) as registry:
        done = send(registry, to, parcel, blobs)
    session.answer(
        done,
        f"{done.reference}: {done.digest}, {done.n_sent} blobs sent, {done.n_there} were there, "
        f"{done.n_referrers} signatures and attestations",
    )


@verb
@click.argument("reference")
@click.option("--register", is_flag=True, help="Make it a candidate of its model, numbered as its tag.")
@_login
def pull(session: Session, reference: str, register: bool, login: str | None) -> None:
    """Bring a package from an OCI registry into the project's store, once every byte and signature holds.

    Example: lockgate pull registry.example.com/models/flight-delay:1.0.0 --register
    """
    source = OciReference.parse(reference)
    if register:
        # Of which model it is, only the package says.
        session.require((RegisterVersion, Scope(within=True)))
    with tempfile.TemporaryDirectory(prefix="lockgate-") as folder, _registry(source, login) as registry:
        layout, keys = DirectoryBlobs(folder), _keys(session, ())
        parcel = fetch(registry, source, layout, keys)
        found = look_through(parcel, layout, keys)
        take_in(parcel, layout, session.control.blobs)
    session.say(_text(found))
    name = _register(session, found, parcel, source.tag) if register else None
    session.answer(
        {**msgspec.to_builtins(found), "version": name}, f"in the store{f' as {name}' if name else ''}"
    )


def _register(session: Session, found: Inspected, parcel: Parcel, tag: str | None) -> str:
    run, commit, dirty = origin_of(found)
    session.declare()
    known = {one.envelope for one in found.attestations}
    command = RegisterVersion(
        id=session.new_id(),
        model=found.model,
        package=found.digest,
        run=run,
        signatures=tuple(one for one in parcel.envelopes if one not in known),
        version=number_of(tag),
        commit=commit,
        dirty=dirty,
    )
    session.tell(command, headline=f"{found.digest} is not registered", through=session.working)
    name = _version_of(session, found.model, found.digest)
    for one in found.attestations:
        if one.standing == "trusted":
            attach = AttachAttestation(
                id=session.new_id(), version=name, predicate_type=one.predicate_type, envelope=one.envelope
            )
            headline = f"{one.predicate_type} is not attached"
            session.tell(attach, headline=headline, through=session.working)
    return name


@verb
@click.argument("ref")
@_trust
@_login
def verify(session: Session, ref: str, trust: tuple[str, ...], login: str | None) -> None:
    """Check who signed a package, and every byte of it. Exit 7 names the blob that does not hold.

    REF is NAME@VERSION, ENV/NAME, a package digest, the folder of an OCI image layout, or REGISTRY/REPOSITORY:TAG.
    """
    keys = _keys(session, trust)
    if is_layout(ref):
        layout, parcel = read_layout(Path(ref))
        found = look_through(parcel, layout, keys)
    elif OciReference.fits(ref):
        source = OciReference.parse(ref)
        with tempfile.TemporaryDirectory(prefix="lockgate-") as folder, _registry(source, login) as registry:
            away = DirectoryBlobs(folder)
            found = look_through(fetch(registry, source, away, keys), away, keys)
    else:
        parcel, blobs, _ = _of_version(session, ref)
        found = look_through(parcel, blobs, keys)
    session.answer({"ok": True, **msgspec.to_builtins(found)}, "ok: " + _text(found))


def _text(found: Inspected) -> str:
    rows = [
        f"{found.digest}, {found.layers} layers, {found.n_bytes:,} bytes, "
        f"signed by {', '.join(map(short, found.signed_by))}"
    ]
    for one in found.attestations:
        by = f"signed by {short(one.signed_by)}" if one.standing == "trusted" else f"not trusted: {one.why}"
        rows.append(f"  {one.predicate_type}  {by}")
    return "\n".join(rows)


def _of_version(session: Session, ref: str) -> tuple[Parcel, BlobStore, str]:
    """A version's package with all that is signed about it, where its blobs are, and its number."""
    if ref.startswith("sha256:"):
        ref = _version_of(session, session.package(ref).config.model, ref)
    query = (
        ExplainVersion(version=str(parse_version(ref)))
        if "@" in ref
        else ExplainVersion(endpoint=str(parse_endpoint(ref)))
    )
    answer: VersionAnswer = session.ask(query)
    envelopes = envelopes_of(answer.version.signatures, (one.envelope for one in answer.attestations))
    number = str(parse_version(answer.version.version).version)
    return Parcel(digest=answer.version.package, envelopes=envelopes), session.blobs, number


def _version_of(session: Session, model: str, package: str) -> str:
    answer: PackageVersionAnswer = session.ask(VersionOfPackage(model=model, package=package))
    if answer.version is None:
        raise NotRegistered(
            f"no version of {model} has the package {package}",
            remedy="lockgate status lists the versions there are",
            package=package,
        )
    return answer.version


def _keys(session: Session, trust: tuple[str, ...]) -> list[Verifier]:
    """The keys that are trusted: those that were named, else the project's, less those that are revoked."""
    if trust:
        return [PublicKey.from_file(path) for path in trust]
    answer: KeysAnswer = session.deciding.ask(RevokedKeys())
    revoked = {one.key_id for one in answer.revoked}
    return [key for key in session.control.trusted() if key.key_id not in revoked]


def _registry(at: OciReference, login: str | None) -> OciRegistry:
    def secret(reference: str) -> str:
        return resolve_secret(parse_secret_ref(reference, where="--login"), base=Path())

    return OciRegistry(at.host, login_to(at.host, login, secret))
