"""Documents of governance: policies, in force and proposed; what was approved, planned and signed off for a version in
an environment; waivers; emergency rights and the reviews they owe."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp
from lockgate.governance.messages import (
    ApprovalRevoked,
    BreakGlassSeconded,
    ConsumerSignedOff,
    GlassBroken,
    PolicyAdopted,
    PolicyProposed,
    ReleasePlanWritten,
    ReviewClosed,
    VersionApproved,
    VersionDeclined,
    WaiverEnded,
    WaiverGranted,
    WaiverRequested,
)
from lockgate.governance.policies.policy import AnyPolicy, ApproverRole
from lockgate.governance.release_plan import ReleasePlan


class PolicyState(msgspec.Struct, frozen=True, kw_only=True):
    namespace: str
    digest: Digest
    policy: AnyPolicy
    adopted_at: Micros
    adopted_by: str


class ProposalState(msgspec.Struct, frozen=True, kw_only=True):
    """The policy last proposed in a namespace; open until it, or any other, is adopted."""

    namespace: str
    digest: Digest
    policy: AnyPolicy
    laxer: tuple[str, ...]
    proposed_at: Micros
    proposed_by: str

    def is_open(self, in_force: PolicyState | None) -> bool:
        return in_force is None or self.proposed_at > in_force.adopted_at


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """One person's agreement, and exactly what it was given on. One that was taken back says why in `revoked`."""

    approver: str
    evidence_set: Digest
    policy: Digest
    approved_at: Micros
    comment: str
    role: ApproverRole = "owner"
    revoked: str | None = None


class Objection(msgspec.Struct, frozen=True, kw_only=True):
    """One person's no, and what it was said about."""

    by: str
    role: ApproverRole
    evidence_set: Digest
    policy: Digest
    declined_at: Micros
    reason: str


class ApprovalState(msgspec.Struct, frozen=True, kw_only=True):
    """All approvals ever given, and the objections that nobody took back."""

    version: str
    environment: str
    approvals: tuple[Approval, ...]
    objections: tuple[Objection, ...] = ()


class PlanState(msgspec.Struct, frozen=True, kw_only=True):
    """The release plan of a version for an environment, as it was written last."""

    version: str
    environment: str
    plan: ReleasePlan
    written_at: Micros
    written_by: str


class SignedOff(msgspec.Struct, frozen=True, kw_only=True):
    consumer: str
    by: str
    at: Micros
    comment: str


class SignOffState(msgspec.Struct, frozen=True, kw_only=True):
    """Which consumers agreed to a version in an environment."""

    version: str
    environment: str
    signed: tuple[SignedOff, ...]


class WaiverState(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's failure that is passed over until `until`, or that somebody asks to be.

    Attributes:
        started_by: the names of whoever started the CI job that asked.
    """

    model: str
    number: int
    versions: str
    environment: str
    gate: str
    reason: str
    control: str
    ticket: str
    until: Micros
    requested_at: Micros
    requested_by: str
    granted_at: Micros | None = None
    granted_by: str = ""
    role: ApproverRole | None = None
    ended_at: Micros | None = None
    ended: str = ""
    started_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"W-{self.number}"

    @property
    def is_asked(self) -> bool:
        return self.granted_at is None and self.ended_at is None

    def holds(self, now: Micros) -> bool:
        return self.granted_at is not None and self.ended_at is None and now <= self.until


class BreakGlassState(msgspec.Struct, frozen=True, kw_only=True):
    """An emergency right, and the review that it owes."""

    model: str
    number: int
    environment: str
    incident: str
    reason: str
    until: Micros
    review_due: Micros
    broken_at: Micros
    broken_by: str
    seconded_by: str = ""
    reviewed_at: Micros | None = None
    reviewed_by: str = ""
    finding: str = ""

    @property
    def name(self) -> str:
        return f"B-{self.number}"

    def is_overdue(self, now: Micros) -> bool:
        return self.reviewed_at is None and now > self.review_due


def numbered_key(model: str, number: int) -> str:
    """Of a waiver or an emergency right; `MODEL#*` names all of a model."""
    return f"{model}#{number:06d}"


def approval_key(version: str, environment: str) -> str:
    """Of the approvals, the release plan and the sign-offs of a version in an environment."""
    return f"{version}#{environment}"


def _adopted(body: PolicyState | None, event: PolicyAdopted, stamp: Stamp) -> PolicyState:
    return PolicyState(
        namespace=event.namespace,
        digest=event.digest,
        policy=event.policy,
        adopted_at=stamp.at,
        adopted_by=stamp.actor,
    )


POLICY = DocumentKind(
    name="policy",
    type=PolicyState,
    keys=lambda event: (event.namespace,),
    made_by={PolicyAdopted: _adopted},
    columns=lambda body: Columns(body.namespace, "", body.digest),
)


def _proposed(body: ProposalState | None, event: PolicyProposed, stamp: Stamp) -> ProposalState:
    return ProposalState(
        namespace=event.namespace,
        digest=event.digest,
        policy=event.policy,
        laxer=event.laxer,
        proposed_at=stamp.at,
        proposed_by=stamp.actor,
    )


PROPOSAL = DocumentKind(
    name="policy-proposal",
    type=ProposalState,
    keys=lambda event: (event.namespace,),
    made_by={PolicyProposed: _proposed},
    columns=lambda body: Columns(body.namespace, "", body.digest),
)


def _approval_of(event: VersionApproved | ApprovalRevoked | VersionDeclined) -> ApprovalState:
    return ApprovalState(version=event.version, environment=event.environment, approvals=())


def _objections_of_others(known: ApprovalState, actor: str) -> tuple[Objection, ...]:
    return tuple(one for one in known.objections if one.by != actor)


def _approved(body: ApprovalState | None, event: VersionApproved, stamp: Stamp) -> ApprovalState:
    known = body or _approval_of(event)
    given = Approval(
        approver=stamp.actor,
        evidence_set=event.evidence_set,
        policy=event.policy,
        approved_at=stamp.at,
        comment=event.comment,
        role=event.role,
    )
    others = _objections_of_others(known, stamp.actor)
    return replace(known, approvals=(*known.approvals, given), objections=others)


def _taken_back(body: ApprovalState | None, event: ApprovalRevoked, stamp: Stamp) -> ApprovalState:
    known = body or _approval_of(event)
    kept = tuple(
        replace(one, revoked=event.reason)
        if (one.approver, one.role) == (stamp.actor, event.role) and one.revoked is None
        else one
        for one in known.approvals
    )
    return replace(known, approvals=kept)


def _declined(body: ApprovalState | None, event: VersionDeclined, stamp: Stamp) -> ApprovalState:
    known = body or _approval_of(event)
    objection = Objection(
        by=stamp.actor,
        role=event.role,
        evidence_set=event.evidence_set,
        policy=event.policy,
        declined_at=stamp.at,
        reason=event.reason,
    )
    return replace(known, objections=(*_objections_of_others(known, stamp.actor), objection))


APPROVAL = DocumentKind(
    name="approval",
    type=ApprovalState,
    keys=lambda event: (approval_key(event.version, event.environment),),
    made_by={VersionApproved: _approved, ApprovalRevoked: _taken_back, VersionDeclined: _declined},
    fold_version=2,
    columns=lambda body: Columns(body.version, body.environment, ""),
)


def _planned(body: PlanState | None, event: ReleasePlanWritten, stamp: Stamp) -> PlanState:
    return PlanState(
        version=event.version,
        environment=event.environment,
        plan=event.plan,
        written_at=stamp.at,
        written_by=stamp.actor,
    )


RELEASE_PLAN = DocumentKind(
    name="release-plan",
    type=PlanState,
    keys=lambda event: (approval_key(event.version, event.environment),),
    made_by={ReleasePlanWritten: _planned},
    columns=lambda body: Columns(body.version, body.environment, body.plan.digest),
)


def _signed_off(body: SignOffState | None, event: ConsumerSignedOff, stamp: Stamp) -> SignOffState:
    signed = SignedOff(consumer=event.consumer, by=stamp.actor, at=stamp.at, comment=event.comment)
    others = () if body is None else tuple(one for one in body.signed if one.consumer != event.consumer)
    return SignOffState(version=event.version, environment=event.environment, signed=(*others, signed))


SIGN_OFF = DocumentKind(
    name="sign-off",
    type=SignOffState,
    keys=lambda event: (approval_key(event.version, event.environment),),
    made_by={ConsumerSignedOff: _signed_off},
    columns=lambda body: Columns(body.version, body.environment, ""),
)


def _requested(body: WaiverState | None, event: WaiverRequested, stamp: Stamp) -> WaiverState:
    return WaiverState(
        model=event.model,
        number=event.number,
        versions=event.versions,
        environment=event.environment,
        gate=event.gate,
        reason=event.reason,
        control=event.control,
        ticket=event.ticket,
        until=event.until,
        requested_at=stamp.at,
        requested_by=stamp.actor,
        started_by=event.started_by,
    )


def _granted(body: WaiverState, event: WaiverGranted, stamp: Stamp) -> WaiverState:
    return replace(body, granted_at=stamp.at, granted_by=stamp.actor, role=event.role)


def _ended(body: WaiverState, event: WaiverEnded, stamp: Stamp) -> WaiverState:
    return replace(body, ended_at=stamp.at, ended=event.reason)


WAIVER = DocumentKind(
    name="waiver",
    type=WaiverState,
    keys=lambda event: (numbered_key(event.model, event.number),),
    made_by={WaiverRequested: _requested},
    changed_by={WaiverGranted: _granted, WaiverEnded: _ended},
    fold_version=2,
    columns=lambda body: Columns(
        body.model, "asked" if body.is_asked else "ended" if body.ended_at else "granted", ""
    ),
)


def _glass_broken(body: BreakGlassState | None, event: GlassBroken, stamp: Stamp) -> BreakGlassState:
    return BreakGlassState(
        model=event.model,
        number=event.number,
        environment=event.environment,
        incident=event.incident,
        reason=event.reason,
        until=event.until,
        review_due=event.review_due,
        broken_at=stamp.at,
        broken_by=stamp.actor,
    )


def _seconded(body: BreakGlassState, event: BreakGlassSeconded, stamp: Stamp) -> BreakGlassState:
    return replace(body, seconded_by=stamp.actor)


def _reviewed(body: BreakGlassState, event: ReviewClosed, stamp: Stamp) -> BreakGlassState:
    return replace(body, reviewed_at=stamp.at, reviewed_by=stamp.actor, finding=event.finding)


BREAK_GLASS = DocumentKind(
    name="break-glass",
    type=BreakGlassState,
    keys=lambda event: (numbered_key(event.model, event.number),),
    made_by={GlassBroken: _glass_broken},
    changed_by={BreakGlassSeconded: _seconded, ReviewClosed: _reviewed},
    columns=lambda body: Columns(body.model, "owed" if body.reviewed_at is None else "reviewed", ""),
)
