"""Documents of the registry: models, their versions, which package holds which number, what was imported.

Life cycle of a version:

    candidate -> validated -> retired
        |            |
        +------------+--> rejected (terminal)
    candidate, validated --> quarantined --> back to where it was, or rejected
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Event, Stamp
from lockgate.registry.messages import (
    AttestationAttached,
    HoldLifted,
    KeyRevoked,
    ModelDeclared,
    Origin,
    PackageCollected,
    PackageImported,
    QuarantineLifted,
    Tier,
    TracedInput,
    VersionHeld,
    VersionQuarantined,
    VersionRegistered,
    VersionRejected,
    VersionRetired,
    VersionSigned,
    VersionTraced,
    VersionValidated,
)

VersionLife = Literal["candidate", "validated", "rejected", "quarantined", "retired"]


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """A named line of versions."""

    model: str
    tier: Tier
    owner: str
    purpose: str
    latest: str | None = None
    latest_package: Digest | None = None
    n_versions: int = 0
    kpi: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """That a version must be kept, whatever its terms say, until the matter is closed."""

    matter: str
    reason: str
    held_at: Micros
    held_by: str


class VersionState(msgspec.Struct, frozen=True, kw_only=True):
    """A registry entry: model, number, package digest, and where it stands in its life.

    Attributes:
        signed_by: ids of the keys that vouch for the package; each later signature adds one at the end.
        ended_at: when it was rejected or retired.
        collected_at: since when its bytes may be gone. The number is never given again.
    """

    version: str
    model: str
    package: Digest
    run: Digest
    signatures: tuple[Digest, ...]
    signed_by: tuple[str, ...]
    commit: str
    dirty: bool
    bump: str
    why: tuple[str, ...]
    previous: str | None
    author: str
    registered_at: Micros
    state: VersionLife = "candidate"
    before_quarantine: VersionLife | None = None
    quarantined_by: str | None = None
    evidence_set: Digest | None = None
    policy: Digest | None = None
    reason: str | None = None
    ended_at: Micros | None = None
    holds: tuple[Hold, ...] = ()
    collected_at: Micros | None = None


class PackageClaim(msgspec.Struct, frozen=True, kw_only=True):
    """Which version of a model a package digest became; a digest gets one number only."""

    model: str
    package: Digest
    version: str


def _fold_model(body: ModelState | None, event: Event, stamp: Stamp) -> ModelState:
    if isinstance(event, ModelDeclared):
        known = body or ModelState(
            model=event.model, tier=event.tier, owner=event.owner, purpose=event.purpose
        )
        return msgspec.structs.replace(
            known, tier=event.tier, owner=event.owner, purpose=event.purpose, kpi=event.kpi
        )
    assert isinstance(event, VersionRegistered) and body is not None
    return msgspec.structs.replace(
        body, latest=event.version, latest_package=event.package, n_versions=body.n_versions + 1
    )


MODEL = DocumentKind(
    name="model",
    type=ModelState,
    keys=lambda event: (event.model,) if isinstance(event, ModelDeclared | VersionRegistered) else (),
    fold=_fold_model,
    fold_version=2,
    columns=lambda body: Columns(body.model.partition("/")[0], body.tier, body.latest_package or ""),
)

_LIFE_EVENTS = (
    VersionRegistered,
    VersionValidated,
    VersionRejected,
    VersionQuarantined,
    QuarantineLifted,
    VersionRetired,
    VersionSigned,
    VersionHeld,
    HoldLifted,
    PackageCollected,
)


def _fold_version(body: VersionState | None, event: Event, stamp: Stamp) -> VersionState:
    if isinstance(event, VersionRegistered):
        return _registered(event, stamp)
    assert body is not None
    change = msgspec.structs.replace
    match event:
        case VersionSigned():
            signers = (*body.signed_by, event.signed_by)
            return change(body, signatures=(*body.signatures, event.signature), signed_by=signers)
        case VersionValidated():
            return change(body, state="validated", evidence_set=event.evidence_set, policy=event.policy)
        case VersionRejected():
            return change(body, state="rejected", reason=event.reason, ended_at=stamp.at)
        case VersionQuarantined():
            return change(
                body,
                state="quarantined",
                before_quarantine=body.state,
                quarantined_by=stamp.actor,
                reason=event.reason,
            )
        case QuarantineLifted():
            return change(
                body,
                state=body.before_quarantine or "candidate",
                before_quarantine=None,
                quarantined_by=None,
                reason=event.reason,
            )
        case VersionRetired():
            return change(body, state="retired", reason=event.reason, ended_at=stamp.at)
        case VersionHeld():
            hold = Hold(matter=event.matter, reason=event.reason, held_at=stamp.at, held_by=stamp.actor)
            return change(body, holds=(*body.holds, hold))
        case HoldLifted():
            return change(body, holds=tuple(one for one in body.holds if one.matter != event.matter))
        case PackageCollected():
            return change(body, collected_at=stamp.at)
        case _:
            raise AssertionError(f"no fold of {type(event).__name__} into a version")


def _registered(event: VersionRegistered, stamp: Stamp) -> VersionState:
    return VersionState(
        version=event.version,
        model=event.model,
        package=event.package,
        run=event.run,
        signatures=event.signatures,
        signed_by=event.signed_by,
        commit=event.commit,
        dirty=event.dirty,
        bump=event.bump,
        why=event.why,
        previous=event.previous,
        author=stamp.actor,
        registered_at=stamp.at,
    )


def _version_edges(event: Event) -> tuple[tuple[str, str, str], ...]:
    if not isinstance(event, VersionRegistered):
        return ()
    return ((f"package:{event.package}", "registered_as", f"version:{event.version}"),)


VERSION = DocumentKind(
    name="version",
    type=VersionState,
    keys=lambda event: (event.version,) if isinstance(event, _LIFE_EVENTS) else (),
    fold=_fold_version,
    columns=lambda body: Columns(body.model, body.state, body.package),
    fold_version=2,
    edges=_version_edges,
)


def claim_key(model: str, package: Digest) -> str:
    return f"{model}#{package}"


def _fold_claim(body: PackageClaim | None, event: Event, stamp: Stamp) -> PackageClaim:
    assert isinstance(event, VersionRegistered)
    return PackageClaim(model=event.model, package=event.package, version=event.version)


CLAIM = DocumentKind(
    name="claim",
    type=PackageClaim,
    keys=lambda event: (
        (claim_key(event.model, event.package),) if isinstance(event, VersionRegistered) else ()
    ),
    fold=_fold_claim,
    columns=lambda body: Columns(body.model, "", body.package),
)


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """A signed statement about a version's package; the words lie in the blob store, in the envelope.

    Attributes:
        statement: digest of what was signed.
        signed_by: id of the trusted key.
    """

    predicate_type: str
    statement: Digest
    envelope: Digest
    signed_by: str
    attached_at: Micros
    attached_by: str


class AttestationsState(msgspec.Struct, frozen=True, kw_only=True):
    """What has been attested of a version, oldest first. Nothing is ever taken off the list."""

    version: str
    package: Digest
    attestations: tuple[Attestation, ...]

    def newest(self, predicate_type: str) -> Attestation | None:
        found = [one for one in self.attestations if one.predicate_type == predicate_type]
        return found[-1] if found else None


def _fold_attestations(body: AttestationsState | None, event: Event, stamp: Stamp) -> AttestationsState:
    assert isinstance(event, AttestationAttached)
    one = Attestation(
        predicate_type=event.predicate_type,
        statement=event.statement,
        envelope=event.envelope,
        signed_by=event.signed_by,
        attached_at=stamp.at,
        attached_by=stamp.actor,
    )
    before = () if body is None else body.attestations
    return AttestationsState(version=event.version, package=event.package, attestations=(*before, one))


ATTESTATION = DocumentKind(
    name="attestation",
    type=AttestationsState,
    keys=lambda event: (event.version,) if isinstance(event, AttestationAttached) else (),
    fold=_fold_attestations,
    columns=lambda body: Columns(body.version, "", body.package),
)


class ImportState(msgspec.Struct, frozen=True, kw_only=True):
    """What a package was made of that was not trained here, and who brought it."""

    record: Digest
    model: str
    package: Digest
    origin: Origin
    imported_by: str
    imported_at: Micros


def _fold_import(body: ImportState | None, event: Event, stamp: Stamp) -> ImportState:
    assert isinstance(event, PackageImported)
    return ImportState(
        record=event.record,
        model=event.model,
        package=event.package,
        origin=event.origin,
        imported_by=stamp.actor,
        imported_at=stamp.at,
    )


IMPORT = DocumentKind(
    name="import",
    type=ImportState,
    keys=lambda event: (event.record,) if isinstance(event, PackageImported) else (),
    fold=_fold_import,
    columns=lambda body: Columns(body.model, body.origin.system, body.package),
    edges=lambda event: (
        ((f"import:{event.record}", "made", f"package:{event.package}"),)
        if isinstance(event, PackageImported)
        else ()
    ),
)


class RevokedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is trusted nowhere any more.

    Attributes:
        since: from when somebody else may have had it.
    """

    key_id: str
    reason: str
    since: Micros
    revoked_at: Micros
    revoked_by: str


def _fold_key(body: RevokedKey | None, event: Event, stamp: Stamp) -> RevokedKey:
    assert isinstance(event, KeyRevoked)
    return RevokedKey(
        key_id=event.key_id,
        reason=event.reason,
        since=event.since,
        revoked_at=stamp.at if body is None else body.revoked_at,
        revoked_by=stamp.actor,
    )


KEY = DocumentKind(
    name="key",
    type=RevokedKey,
    keys=lambda event: (event.key_id,) if isinstance(event, KeyRevoked) else (),
    fold=_fold_key,
    columns=lambda body: Columns("", "revoked", body.key_id),
)


class TraceState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the inputs of a version come from. Versions of before that was traced have none."""

    version: str
    inputs: tuple[TracedInput, ...]


def _fold_trace(body: TraceState | None, event: Event, stamp: Stamp) -> TraceState:
    assert isinstance(event, VersionTraced)
    return TraceState(version=event.version, inputs=event.inputs)


def _trace_edges(event: Event) -> tuple[tuple[str, str, str], ...]:
    """Column to feature to input to version; code that names a column leads straight to the version."""
    if not isinstance(event, VersionTraced):
        return ()
    version = f"version:{event.version}"
    edges = []
    for traced in event.inputs:
        here = f"input:{event.version}:{traced.input}" if traced.input else version
        first = f"feature:{traced.feature}" if traced.feature else here
        edges += [(f"column:{one.column}", one.how, first) for one in traced.columns]
        edges += [(first, "feeds", here)] if traced.feature else []
        edges += [(here, "input_of", version)] if traced.input else []
    return tuple(edges)


TRACE = DocumentKind(
    name="trace",
    type=TraceState,
    keys=lambda event: (event.version,) if isinstance(event, VersionTraced) else (),
    fold=_fold_trace,
    columns=lambda body: Columns(body.version),
    edges=_trace_edges,
)
