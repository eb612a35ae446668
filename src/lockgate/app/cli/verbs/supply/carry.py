"""Verbs that carry packages and look through them: push, pull, verify."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import msgspec

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.identity.checkpoints import read_key
from lockgate.adapters.identity.keys import KeyMissing, PublicKey
from lockgate.adapters.identity.secrets import resolve as resolve_secret
from lockgate.adapters.registries.oci import OciReference, OciRegistry
from lockgate.app.cli.main import Refused
from lockgate.app.cli.session import Session, verb
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import short
from lockgate.core.errors import Invalid, NotFound
from lockgate.core.journal import NoteVerifier, verifier_key
from lockgate.core.messages import Refusal, Scope
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.core.secrets import parse_secret_ref
from lockgate.hub.messages import (
    ExplainVersion,
    KeysAnswer,
    PackageVersionAnswer,
    ProveVersion,
    RevokedKeys,
    VersionAnswer,
    VersionOfPackage,
    VersionProofs,
)
from lockgate.registry.messages import AttachAttestation, RegisterVersion
from lockgate.registry.packages.ports import Verifier
from lockgate.workshop.config import NoProject
from lockgate.workshop.transport.attesting import Attesting, Required, unmet
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
from lockgate.workshop.transport.repositories import PushedTo
from lockgate.workshop.transport.statements import KINDS, About, statements


class NotRegistered(NotFound):
    """A package lies in the store and is no version of its model."""

    code = "cli.not-registered"


_login = click.option(
    "--login", metavar="REF", help="Where USER:PASSWORD is: env:NAME or file:PATH. Else as docker keeps it."
)
_trust = click.option(
    "--trust", multiple=True, metavar="PEM", help="Trust these public keys instead of the project's."
)
without = click.option(
    "--without",
    multiple=True,
    type=click.Choice([*KINDS, "all"]),
    help="Do not attest this. Each names who did it.",
)


@verb
@click.argument("version")
@click.argument("reference")
@_login
@without
@click.option(
    "--mount-from",
    multiple=True,
    metavar="REPOSITORY",
    help="Of the same registry: where it may take shared files from; those pushed to from here are known.",
)
def push(
    session: Session,
    version: str,
    reference: str,
    login: str | None,
    without: tuple[str, ...],
    mount_from: tuple[str, ...],
) -> None:
    """Bring a version's package to an OCI registry, with its signatures and with what the journal attests of it: its
    build, its evidence, who approved it, where it was let in, and where it went in an emergency.

    Without a tag, the version's number is the tag. What is there is not sent again.

    Example: lockgate push flight-delay@1.0.0 registry.example.com/models/flight-delay
    """
    to = OciReference.parse(reference)
    parcel, blobs, name = of_version(session, version)
    to = to._replace(tag=to.tag or str(parse_version(name).version))
    look_through(parcel, blobs, _keys(session, ()))
    said = attesting(session, name, parcel, blobs, without)
    pushed = PushedTo(session.layout.pushed)
    named = [OciReference.parse(f"{to.host}/{one}").repository for one in mount_from]
    with _registry(to, login) as registry:
        done = send(registry, to, parcel, blobs, said, (*named, *pushed.at(to.host)))
    pushed.note(to.host, to.repository)
    session.answer(
        done,
        f"{done.reference}: {done.digest}, {done.n_sent} blobs sent, {done.n_there} were there, "
        f"{done.n_mounted} came from another repository, "
        f"{done.n_referrers} signatures and attestations, {done.n_signed} of them new",
    )


def attesting(
    session: Session, version: str, parcel: Parcel, blobs: BlobStore, without: tuple[str, ...]
) -> Attesting | None:
    """What the journal attests of a version and is to go out with it."""
    if "all" in without:
        return None
    try:
        signer, keys = session.control.signer, _keys(session, ())
    except NoProject:
        session.note("nothing is attested: there is no project here, and so no key that signs")
        return None
    session.seal()
    proofs: VersionProofs = session.deciding.ask(ProveVersion(version=version))
    words = [one for one in statements(proofs, About.of(parcel.digest, blobs)) if one.kind not in without]
    return Attesting(words, signer, keys)


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
        found = look_through(parcel, layout, keys, _journals(session, ()))
        take_in(parcel, layout, session.control.blobs)
    session.say(_text(found))
    name = _register(session, found, parcel, source.tag) if register else None
    session.answer(
        {**msgspec.to_builtins(found), "version": name},
        f"in the store as {name}"
        if name
        else "in the store; with --register it becomes a version of its model",
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
@click.option(
    "--require", multiple=True, metavar="KIND", help="provenance, evidence, approval[:ROLE] or promotion."
)
@click.option("--for", "environment", default="", metavar="ENV", help="For which environment.")
@click.option(
    "--journal-key", multiple=True, metavar="KEY", help="Verifier key of a journal, or its public key's file."
)
def verify(
    session: Session,
    ref: str,
    trust: tuple[str, ...],
    login: str | None,
    require: tuple[str, ...],
    environment: str,
    journal_key: tuple[str, ...],
) -> None:
    """Check who signed a package, every byte of it, and what is attested about it. Exit 7 names what does not hold.

    REF is NAME@VERSION, ENV/NAME, a package digest, the folder of an OCI image layout, or REGISTRY/REPOSITORY:TAG.
    What is asked for with --require must be attested, and borne out by a journal whose key is known; else exit 3.

    Example: lockgate verify registry.example.com/models/flight-delay:1.0.0 --require approval:risk --for prod
    """
    required = [Required.parse(one, environment) for one in require]
    keys, journals = _keys(session, trust), _journals(session, journal_key)
    if required and not journals:
        raise click.UsageError("what is required is checked with the key of a journal: --journal-key KEY")
    if is_layout(ref):
        layout, parcel = read_layout(Path(ref))
        found = look_through(parcel, layout, keys, journals)
    elif OciReference.fits(ref):
        source = OciReference.parse(ref)
        with tempfile.TemporaryDirectory(prefix="lockgate-") as folder, _registry(source, login) as registry:
            away = DirectoryBlobs(folder)
            found = look_through(fetch(registry, source, away, keys), away, keys, journals)
    else:
        parcel, blobs, _ = of_version(session, ref)
        found = look_through(parcel, blobs, keys, journals)
    reasons = unmet(required, [one.claim for one in found.attestations if one.claim is not None])
    if reasons:
        raise Refused(Refusal(reasons=reasons), headline=f"{ref} is not attested as required")
    session.answer({"ok": True, **msgspec.to_builtins(found)}, "ok: " + _text(found))


def _text(found: Inspected) -> str:
    rows = [
        f"{found.digest}, {found.layers} layers, {found.n_bytes:,} bytes, "
        f"signed by {', '.join(map(short, found.signed_by))}"
    ]
    for one in found.attestations:
        rows += [f"  {one.predicate_type}", *(f"    {line}" for line in one.lines())]
    return "\n".join(rows)


def of_version(session: Session, ref: str) -> tuple[Parcel, BlobStore, str]:
    """A version's package with all that is signed about it, where its blobs are, and its full name."""
    if ref.startswith("sha256:"):
        ref = _version_of(session, session.package(ref).config.model, ref)
    query = (
        ExplainVersion(version=str(parse_version(ref)))
        if "@" in ref
        else ExplainVersion(endpoint=str(parse_endpoint(ref)))
    )
    answer: VersionAnswer = session.ask(query)
    envelopes = envelopes_of(answer.version.signatures, (one.envelope for one in answer.attestations))
    return Parcel(digest=answer.version.package, envelopes=envelopes), session.blobs, answer.version.version


def _version_of(session: Session, model: str, package: str) -> str:
    answer: PackageVersionAnswer = session.ask(VersionOfPackage(model=model, package=package))
    if answer.version is None:
        raise NotRegistered(
            f"no version of {model} has the package {package}",
            remedy="lockgate status lists the versions there are",
            package=package,
        )
    return answer.version


class NobodyTrusted(Invalid):
    """Neither a project here nor whoever asks has said whose signatures count."""

    code = "cli.nobody-trusted"


def _keys(session: Session, trust: tuple[str, ...]) -> list[Verifier]:
    """The keys that are trusted: those that were named, else the project's, less those that are revoked."""
    if trust:
        return [PublicKey.from_file(path) for path in trust]
    try:
        trusted = session.control.trusted()
    except NoProject as error:
        raise NobodyTrusted(
            "whose signatures count is said by a project, and there is none here",
            remedy="name the keys: --trust FILE, the public half; or say where the project is: --project DIR",
        ) from error
    answer: KeysAnswer = session.deciding.ask(RevokedKeys())
    revoked = {one.key_id for one in answer.revoked}
    return [key for key in trusted if key.key_id not in revoked]


def _journals(session: Session, named: tuple[str, ...]) -> list[NoteVerifier]:
    """The keys of the journals that are believed: those that were named, else that of the project here, if there is."""
    if named:
        return [read_key(one) for one in named]
    try:
        return [] if session.hub_url else [read_key(verifier_key(one)) for one in session.control.note_keys]
    except (NoProject, KeyMissing):
        return []


def _registry(at: OciReference, login: str | None) -> OciRegistry:
    def secret(reference: str) -> str:
        return resolve_secret(parse_secret_ref(reference, where="--login"), base=Path())

    return OciRegistry(at.host, login_to(at.host, login, secret))
