"""Facts about the bytes that a command names: made before the lock, from the blob store and the keys that are trusted.

One way for every composition root, so that the hub of a team asks of a package what the embedded one does.
"""

from __future__ import annotations

from collections.abc import Sequence

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest
from lockgate.registry.decide import AttestationFact, PackageFact
from lockgate.registry.difference import minimum_bump
from lockgate.registry.messages import AttachAttestation, RegisterVersion
from lockgate.registry.package import open_package
from lockgate.registry.ports import Verifier
from lockgate.registry.signing import open_attestation, verify_any


def package_fact(
    command: RegisterVersion, blobs: BlobStore, trusted: Sequence[Verifier], latest: Digest | None
) -> PackageFact:
    """What a package is and who signed it; every byte of it has been read.

    Args:
        latest: the package of the model's newest version, to compare with; None for the first.
    Raises:
        BlobMissing, BlobCorrupt: and what a package or a signature that does not hold raises.
    """
    package = open_package(command.package, blobs)
    for layer in package.layers:
        package.read(layer.path, blobs)
    signatures = tuple(blobs.get(digest) for digest in command.signatures)
    key_id = verify_any(signatures, command.package, trusted)
    against = None if latest is None else open_package(latest, blobs)
    bump, why = minimum_bump(against, package) if against is not None else ("major", ("first version",))
    return PackageFact(
        package=package.digest,
        model=package.config.model,
        signed_by=(key_id,),
        against=latest,
        minimum_bump=bump,
        why=why,
    )


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
