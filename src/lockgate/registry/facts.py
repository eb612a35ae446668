"""Facts about the bytes that a command names: made before the lock, from the blob store and the keys that are trusted.

One way for every composition root, so that the hub of a team asks of a package what the embedded one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, short
from lockgate.core.errors import LockgateError, Unavailable
from lockgate.core.messages import Reason
from lockgate.registry.decide import AttestationFact, PackageFact
from lockgate.registry.messages import (
    AttachAttestation,
    RegisterVersion,
    SignVersion,
    TracedColumn,
    TracedInput,
)
from lockgate.registry.packages.difference import minimum_bump
from lockgate.registry.packages.formats import Refused, scan_file
from lockgate.registry.packages.package import Package, PackageConfig, check_form, open_package
from lockgate.registry.packages.ports import Verifier
from lockgate.registry.packages.signing import SignatureInvalid, open_attestation, signers, verify_envelope
from lockgate.registry.reach import mentioned
from lockgate.registry.state import VersionState
from lockgate.registry.trust import TrustFact


def package_fact(
    command: RegisterVersion, blobs: BlobStore, trusted: Sequence[Verifier], latest: Digest | None
) -> PackageFact:
    """What a package is and who signed it; every byte of it has been read, and held against what may not be inside.

    Args:
        latest: the package of the model's newest version, to compare with; None for the first.
    Raises:
        BlobMissing, BlobCorrupt, FormatRefused: and what a package or a signature that does not hold raises.
    """
    refused: list[Refused] = []

    def look(path: str, data: bytes) -> None:
        refused.extend(scan_file(path, data))
        # Put again, so that a sweep of what nobody needs does not take it for old before it is registered.
        blobs.put(data)

    package = _whole(command.package, blobs, look=look)
    rest = mentioned(blobs.get(command.package)) - {layer.digest for layer in package.layers}
    for digest in (command.package, command.run, *command.signatures, *rest):
        if blobs.has(digest):
            blobs.put(blobs.get(digest))
    signatures = tuple(blobs.get(digest) for digest in command.signatures)
    signed_by = signers(signatures, command.package, trusted)
    against = None if latest is None else open_package(latest, blobs)
    bump, why = minimum_bump(against, package) if against is not None else ("major", ("first version",))
    return PackageFact(
        package=package.digest,
        model=package.config.model,
        signed_by=signed_by,
        against=latest,
        minimum_bump=bump,
        why=why,
        refused=tuple(map(str, refused)),
        traces=_traces(package.config),
    )


def _traces(config: PackageConfig) -> tuple[TracedInput, ...]:
    """What the package says of its inputs, in names that hold outside of its project."""
    namespace = config.model.partition("/")[0]
    found = []
    for trace in config.traces:
        view = trace.source.partition(":")[0]
        feature = f"{namespace}/{trace.source}@{short(config.views[view])}" if view in config.views else ""
        columns = tuple(
            TracedColumn(f"{namespace}/{one.dataset}.{one.column}", one.how) for one in trace.columns
        )
        found.append(TracedInput(input=trace.input, source=trace.source, feature=feature, columns=columns))
    return tuple(found)


def attestation_fact(
    command: AttachAttestation, blobs: BlobStore, trusted: Sequence[Verifier]
) -> AttestationFact:
    """What an attestation says of which package, and who signed it. Raises as `package_fact` does."""
    found = open_attestation(blobs.get(command.envelope), trusted)
    return AttestationFact(
        envelope=command.envelope,
        predicate_type=found.statement.predicate_type,
        statement=found.digest,
        package=found.package,
        signed_by=found.signed_by,
    )


def trust_fact(
    version: VersionState, blobs: BlobStore, trusted: Sequence[Verifier], *, whole: bool = True
) -> TrustFact:
    """Whether a version's signatures and bytes hold where these keys are trusted. What does not is a complaint.

    Args:
        whole: every byte is read and each form's format checked; else manifest and description only.
    Raises:
        Unavailable: the blob store cannot be asked.
    """
    signed_by: tuple[str, ...] = ()
    complaints: list[Reason] = []
    try:
        envelopes = tuple(blobs.get(digest) for digest in version.signatures)
        signed_by = signers(envelopes, version.package, trusted)
    except LockgateError as error:
        complaints.append(_complaint("registry.signature", error, f"lockgate package sign {version.version}"))
    try:
        _whole(version.package, blobs) if whole else open_package(version.package, blobs)
    except LockgateError as error:
        complaints.append(_complaint("registry.bytes", error, error.remedy))
    return TrustFact(
        package=version.package,
        signatures=version.signatures,
        signed_by=signed_by,
        complaints=tuple(complaints),
    )


def signature_fact(
    command: SignVersion, version: VersionState, blobs: BlobStore, trusted: Sequence[Verifier]
) -> TrustFact:
    """Who made a further signature, and of which package. Raises what an envelope that does not hold raises."""
    envelope = blobs.get(command.signature)
    try:
        signed_by: tuple[str, ...] = (verify_envelope(envelope, version.package, trusted),)
        complaints: tuple[Reason, ...] = ()
    except SignatureInvalid as error:
        signed_by, complaints = (), (_complaint("registry.signature", error, error.remedy),)
    return TrustFact(
        package=version.package, signatures=version.signatures, signed_by=signed_by, complaints=complaints
    )


def _complaint(rule: str, error: LockgateError, remedy: str) -> Reason:
    if isinstance(error, Unavailable):
        raise error
    return Reason(rule=rule, message=error.message, evidence=error.facts.get("digest"), remedy=remedy)


def _whole(
    digest: Digest, blobs: BlobStore, *, look: Callable[[str, bytes], None] = lambda path, data: None
) -> Package:
    """A package of which every byte has been read, and every form is of an allowed format.

    Args:
        look: is shown each file on the way.
    """
    package = open_package(digest, blobs)
    package.check_description(blobs)
    forms = {form.path: form for form in package.config.forms}
    for path in forms:
        package.layer(path)
    for layer in package.layers:
        data = package.read(layer.path, blobs)
        if layer.path in forms:
            check_form(forms[layer.path], data)
        look(layer.path, data)
    return package
