"""Documents of the registry: models, their versions, which package holds which number, what was imported.

Life cycle of a version:

    candidate -> validated -> retired
        |            |
        +------------+--> rejected (terminal)
    candidate, validated --> quarantined --> back to where it was, or rejected
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec.structs import replace

from lockgate.access.subjects import is_service
from lockgate.core import semver
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp
from lockgate.registry.messages import (
    AttestationAttached,
    HoldLifted,
    KeyRevoked,
    LoweringAgreed,
    LoweringProposed,
    Maker,
    MakersNamed,
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
        author: who registered it.
        makers: everybody who had a hand in it, the author first.
        told_since: the version since which every commit is told, empty for all there are; None when some are not.
        claimed: nobody proved who registered it.
        signed_by: ids of the keys that vouch for the package; each later signature adds one at the end.
        quarantined_at: since when it is shut away; None when it is not.
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
    makers: tuple[Maker, ...] = ()
    told_since: str | None = None
    claimed: bool = False
    state: VersionLife = "candidate"
    before_quarantine: VersionLife | None = None
    quarantined_by: str | None = None
    evidence_set: Digest | None = None
    policy: Digest | None = None
    reason: str | None = None
    ended_at: Micros | None = None
    holds: tuple[Hold, ...] = ()
    collected_at: Micros | None = None
    quarantined_at: Micros | None = None

    @property
    def way_on(self) -> str:
        """What somebody types next who wanted what its state does not allow."""
        ways = {
            "candidate": f"lockgate judge {self.version}",
            "validated": f"lockgate explain {self.version} says where it stands",
            "quarantined": f"look into it, then: lockgate quarantine {self.version} --lift --reason TEXT",
        }
        return ways.get(self.state, "its way is over; train another one: lockgate train")

    def tells_since(self, live: str | None) -> bool:
        """Whether every commit is told that came since a version; None for all there are."""
        if not self.told_since:
            return self.told_since is not None
        return live is not None and semver.order(self.told_since) <= semver.order(live.rpartition("@")[2])


class PackageClaim(msgspec.Struct, frozen=True, kw_only=True):
    """Which version of a model a package digest became; a digest gets one number only."""

    model: str
    package: Digest
    version: str


def _declared(body: ModelState | None, event: ModelDeclared, stamp: Stamp) -> ModelState:
    known = body or ModelState(model=event.model, tier=event.tier, owner=event.owner, purpose=event.purpose)
    return replace(known, tier=event.tier, owner=event.owner, purpose=event.purpose, kpi=event.kpi)


def _has_another(body: ModelState, event: VersionRegistered, stamp: Stamp) -> ModelState:
    return replace(body, latest=event.version, latest_package=event.package, n_versions=body.n_versions + 1)


MODEL = DocumentKind(
    name="model",
    type=ModelState,
    keys=lambda event: (event.model,),
    made_by={ModelDeclared: _declared},
    changed_by={VersionRegistered: _has_another},
    fold_version=2,
    columns=lambda body: Columns(body.model.partition("/")[0], body.tier, body.latest_package or ""),
)


def _registered(body: VersionState | None, event: VersionRegistered, stamp: Stamp) -> VersionState:
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
        makers=(Maker(name=stamp.actor, did="registered"), *event.makers),
        told_since=event.told_since,
        # A person by whom an old version was registered may have been anybody; an account is one of a team's hub.
        claimed=not is_service(stamp.actor) if event.claimed is None else event.claimed,
    )


def _makers_named(body: VersionState, event: MakersNamed, stamp: Stamp) -> VersionState:
    told = tuple(dict.fromkeys((*body.makers, *event.makers)))
    return replace(body, makers=told, told_since=earlier(body.told_since, event.told_since))


def earlier(one: str | None, other: str | None) -> str | None:
    """Of two numbers of versions since which everything is told, the one that covers more."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other, key=semver.order) if one and other else ""


def _signed(body: VersionState, event: VersionSigned, stamp: Stamp) -> VersionState:
    signers = (*body.signed_by, event.signed_by)
    return replace(body, signatures=(*body.signatures, event.signature), signed_by=signers)


def _validated(body: VersionState, event: VersionValidated, stamp: Stamp) -> VersionState:
    return replace(body, state="validated", evidence_set=event.evidence_set, policy=event.policy)


def _quarantined(body: VersionState, event: VersionQuarantined, stamp: Stamp) -> VersionState:
    return replace(
        body,
        state="quarantined",
        before_quarantine=body.state,
        quarantined_by=stamp.actor,
        quarantined_at=stamp.at,
        reason=event.reason,
    )


def _let_out(body: VersionState, event: QuarantineLifted, stamp: Stamp) -> VersionState:
    return replace(
        body,
        state=body.before_quarantine or "candidate",
        before_quarantine=None,
        quarantined_by=None,
        quarantined_at=None,
        reason=event.reason,
    )


def _ended(
    state: VersionLife,
) -> Callable[[VersionState, VersionRejected | VersionRetired, Stamp], VersionState]:
    return lambda body, event, stamp: replace(body, state=state, reason=event.reason, ended_at=stamp.at)


def _held(body: VersionState, event: VersionHeld, stamp: Stamp) -> VersionState:
    hold = Hold(matter=event.matter, reason=event.reason, held_at=stamp.at, held_by=stamp.actor)
    return replace(body, holds=(*body.holds, hold))


def _held_no_more(body: VersionState, event: HoldLifted, stamp: Stamp) -> VersionState:
    return replace(body, holds=tuple(one for one in body.holds if one.matter != event.matter))


def _version_edges(event: VersionRegistered) -> tuple[tuple[str, str, str], ...]:
    return ((f"package:{event.package}", "registered_as", f"version:{event.version}"),)


VERSION = DocumentKind(
    name="version",
    type=VersionState,
    keys=lambda event: (event.version,),
    made_by={VersionRegistered: _registered},
    changed_by={
        MakersNamed: _makers_named,
        VersionSigned: _signed,
        VersionValidated: _validated,
        VersionQuarantined: _quarantined,
        QuarantineLifted: _let_out,
        VersionRejected: _ended("rejected"),
        VersionRetired: _ended("retired"),
        VersionHeld: _held,
        HoldLifted: _held_no_more,
        PackageCollected: lambda body, event, stamp: replace(body, collected_at=stamp.at),
    },
    columns=lambda body: Columns(body.model, body.state, body.package),
    fold_version=3,
    edges={VersionRegistered: _version_edges},
)


def claim_key(model: str, package: Digest) -> str:
    return f"{model}#{package}"


def _claimed(body: PackageClaim | None, event: VersionRegistered, stamp: Stamp) -> PackageClaim:
    return PackageClaim(model=event.model, package=event.package, version=event.version)


CLAIM = DocumentKind(
    name="claim",
    type=PackageClaim,
    keys=lambda event: (claim_key(event.model, event.package),),
    made_by={VersionRegistered: _claimed},
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


def _attested(body: AttestationsState | None, event: AttestationAttached, stamp: Stamp) -> AttestationsState:
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
    keys=lambda event: (event.version,),
    made_by={AttestationAttached: _attested},
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


def _imported(body: ImportState | None, event: PackageImported, stamp: Stamp) -> ImportState:
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
    keys=lambda event: (event.record,),
    made_by={PackageImported: _imported},
    columns=lambda body: Columns(body.model, body.origin.system, body.package),
    edges={PackageImported: lambda event: ((f"import:{event.record}", "made", f"package:{event.package}"),)},
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


def _revoked(body: RevokedKey | None, event: KeyRevoked, stamp: Stamp) -> RevokedKey:
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
    keys=lambda event: (event.key_id,),
    made_by={KeyRevoked: _revoked},
    columns=lambda body: Columns("", "revoked", body.key_id),
)


class TraceState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the inputs of a version come from. Versions of before that was traced have none."""

    version: str
    inputs: tuple[TracedInput, ...]


def _traced(body: TraceState | None, event: VersionTraced, stamp: Stamp) -> TraceState:
    return TraceState(version=event.version, inputs=event.inputs)


def _trace_edges(event: VersionTraced) -> tuple[tuple[str, str, str], ...]:
    """Column to feature to input to version; code that names a column leads straight to the version."""
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
    keys=lambda event: (event.version,),
    made_by={VersionTraced: _traced},
    columns=lambda body: Columns(body.version),
    edges={VersionTraced: _trace_edges},
)


class LoweringState(msgspec.Struct, frozen=True, kw_only=True):
    """The declaration that asks for less, as it was proposed last; open while `base` is what is declared, and until
    somebody has agreed."""

    subject: str
    lowers: tuple[str, ...]
    base: Digest
    wanted: Digest
    proposed_at: Micros
    proposed_by: str
    agreed_by: str = ""


def _lowering(body: LoweringState | None, event: LoweringProposed, stamp: Stamp) -> LoweringState:
    return LoweringState(
        subject=event.subject,
        lowers=event.lowers,
        base=event.base,
        wanted=event.wanted,
        proposed_at=stamp.at,
        proposed_by=stamp.actor,
    )


LOWERING = DocumentKind(
    name="lowering",
    type=LoweringState,
    keys=lambda event: (event.subject,),
    made_by={LoweringProposed: _lowering},
    changed_by={LoweringAgreed: lambda body, event, stamp: replace(body, agreed_by=stamp.actor)},
    fold_version=2,
    columns=lambda body: Columns(body.subject, "", body.wanted),
)
