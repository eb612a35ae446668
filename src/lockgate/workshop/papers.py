"""The papers of a version: its bill of materials, signed, and what the gates need to know of the files around it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, sha256
from lockgate.core.errors import LockgateError, NotFound
from lockgate.core.names import parse_version
from lockgate.gates.scans.advisories import newest, parse_advisories
from lockgate.registry.content.lock import LockUnreadable, parse_lock
from lockgate.registry.content.sbom import bill_of_materials
from lockgate.registry.messages import AttachAttestation
from lockgate.registry.package import ENVIRONMENT_PATH, BuiltPackage, open_package
from lockgate.registry.ports import Verifier
from lockgate.registry.signing import (
    PAYLOAD_TYPE,
    SBOM_PREDICATE,
    open_attestation,
    seal,
    statement_bytes,
    store_signature,
)
from lockgate.registry.state import Attestation
from lockgate.workshop.config import SecurityTable
from lockgate.workshop.premises import Premises


class NoBill(NotFound):
    code = "registry.no-bill-of-materials"


_DAY_US = 24 * 3600 * 1_000_000


def attach_bill(
    premises: Premises, version: str, package: Digest, known: Sequence[Attestation]
) -> AttachAttestation | None:
    """Make and sign the bill of materials of a version and keep it beside the package; the command that says so.

    None when exactly this bill is attached already, and when the lock cannot be read: a bill without the third-party
    code would be a wrong one, and the gate `security.deps` tells of the lock.
    """
    opened = open_package(package, premises.blobs)
    number = str(parse_version(version).version)
    try:
        lock = parse_lock(opened.read(ENVIRONMENT_PATH, premises.blobs))
    except LockUnreadable:
        return None
    words = statement_bytes(
        package,
        opened.config.model,
        SBOM_PREDICATE,
        bill_of_materials(opened, lock, version=number),
    )
    if sha256(words) in [one.statement for one in known]:
        return None
    envelope = seal(words, PAYLOAD_TYPE, premises.signer())
    built = BuiltPackage(digest=package, manifest=premises.blobs.get(package), blobs={})
    stored = store_signature(built.descriptor, envelope, premises.blobs, SBOM_PREDICATE)
    return AttachAttestation(
        id=premises.ids.new(), version=version, predicate_type=SBOM_PREDICATE, envelope=stored.envelope
    )


def attested_bill(
    known: Sequence[Attestation], version: str, blobs: BlobStore, verifiers: Sequence[Verifier]
) -> dict[str, Any]:
    """The bill of materials that was attached to a version last.

    Raises:
        NoBill: there is none.
        SignatureInvalid: no trusted key signed it.
    """
    bills = [one for one in known if one.predicate_type == SBOM_PREDICATE]
    if not bills:
        raise NoBill(
            f"{version} has no bill of materials",
            remedy="lockgate train attaches one, once the environment lock can be read",
            version=version,
        )
    return open_attestation(blobs.get(bills[-1].envelope), verifiers).statement.predicate


def security_limits(table: SecurityTable | None, data: bytes | None, now: Micros) -> dict[str, Any] | None:
    """What `security.deps` is judged by; None when the project keeps no advisories.

    How old the file is enters as whether it is too old: evidence must not change with the hour it is made at.
    """
    if table is None:
        return None
    too_old = table.max_age_days is not None and data is not None and _is_older(data, table, now)
    return {
        "advisories": table.advisories,
        "digest": None if data is None else sha256(data),
        "severity": table.severity,
        "older_than_days": table.max_age_days if too_old else None,
    }


def _is_older(data: bytes, table: SecurityTable, now: Micros) -> bool:
    """Whether the newest record lies further back than allowed; what is not dated is old."""
    assert table.max_age_days is not None
    try:
        day = newest(parse_advisories(data, where=table.advisories))
        written = datetime.datetime.fromisoformat(f"{day}T00:00:00+00:00")
    except (LockgateError, ValueError):
        return True
    return now - int(written.timestamp()) * 1_000_000 > (table.max_age_days + 1) * _DAY_US
