"""Documents of governance: policies, in force and proposed; what was approved, planned and signed off for a version in
an environment; waivers; emergency rights and the reviews they owe."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Event, Stamp
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
from lockgate.governance.policy import AnyPolicy, ApproverRole
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
    """A gate's failure that is passed over until `until`, or that somebody asks to be."""

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


def _fold_policy(body: PolicyState | None, event: Event, stamp: Stamp) -> PolicyState:
    assert isinstance(event, PolicyAdopted)
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
    keys=lambda event: (event.namespace,) if isinstance(event, PolicyAdopted) else (),
    fold=_fold_policy,
    columns=lambda body: Columns(body.namespace, "", body.digest),
)


def _fold_proposal(body: ProposalState | None, event: Event, stamp: Stamp) -> ProposalState:
    assert isinstance(event, PolicyProposed)
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
    keys=lambda event: (event.namespace,) if isinstance(event, PolicyProposed) else (),
    fold=_fold_proposal,
    columns=lambda body: Columns(body.namespace, "", body.digest),
)

_APPROVAL_EVENTS = (VersionApproved, ApprovalRevoked, VersionDeclined)


def _fold_approval(body: ApprovalState | None, event: Event, stamp: Stamp) -> ApprovalState:
    assert isinstance(event, _APPROVAL_EVENTS)
    known = body or ApprovalState(version=event.version, environment=event.environment, approvals=())
    others = tuple(one for one in known.objections if one.by != stamp.actor)
    change = msgspec.structs.replace
    if isinstance(event, ApprovalRevoked):
        kept = tuple(
            change(one, revoked=event.reason)
            if (one.approver, one.role) == (stamp.actor, event.role) and one.revoked is None
            else one
            for one in known.approvals
        )
        return change(known, approvals=kept)
    if isinstance(event, VersionDeclined):
        objection = Objection(
            by=stamp.actor,
            role=event.role,
            evidence_set=event.evidence_set,
            policy=event.policy,
            declined_at=stamp.at,
            reason=event.reason,
        )
        return change(known, objections=(*others, objection))
    given = Approval(
        approver=stamp.actor,
        evidence_set=event.evidence_set,
        policy=event.policy,
        approved_at=stamp.at,
        comment=event.comment,
        role=event.role,
    )
    return change(known, approvals=(*known.approvals, given), objections=others)


APPROVAL = DocumentKind(
    name="approval",
    type=ApprovalState,
    keys=lambda event: (
        (approval_key(event.version, event.environment),) if isinstance(event, _APPROVAL_EVENTS) else ()
    ),
    fold=_fold_approval,
    fold_version=2,
    columns=lambda body: Columns(body.version, body.environment, ""),
)


def _fold_plan(body: PlanState | None, event: Event, stamp: Stamp) -> PlanState:
    assert isinstance(event, ReleasePlanWritten)
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
    keys=lambda event: (
        (approval_key(event.version, event.environment),) if isinstance(event, ReleasePlanWritten) else ()
    ),
    fold=_fold_plan,
    columns=lambda body: Columns(body.version, body.environment, body.plan.digest),
)


def _fold_sign_off(body: SignOffState | None, event: Event, stamp: Stamp) -> SignOffState:
    assert isinstance(event, ConsumerSignedOff)
    signed = SignedOff(consumer=event.consumer, by=stamp.actor, at=stamp.at, comment=event.comment)
    others = () if body is None else tuple(one for one in body.signed if one.consumer != event.consumer)
    return SignOffState(version=event.version, environment=event.environment, signed=(*others, signed))


SIGN_OFF = DocumentKind(
    name="sign-off",
    type=SignOffState,
    keys=lambda event: (
        (approval_key(event.version, event.environment),) if isinstance(event, ConsumerSignedOff) else ()
    ),
    fold=_fold_sign_off,
    columns=lambda body: Columns(body.version, body.environment, ""),
)


def _fold_waiver(body: WaiverState | None, event: Event, stamp: Stamp) -> WaiverState:
    change = msgspec.structs.replace
    if isinstance(event, WaiverRequested):
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
        )
    assert body is not None
    if isinstance(event, WaiverGranted):
        return change(body, granted_at=stamp.at, granted_by=stamp.actor, role=event.role)
    assert isinstance(event, WaiverEnded)
    return change(body, ended_at=stamp.at, ended=event.reason)


_WAIVER_EVENTS = (WaiverRequested, WaiverGranted, WaiverEnded)
WAIVER = DocumentKind(
    name="waiver",
    type=WaiverState,
    keys=lambda event: (
        (numbered_key(event.model, event.number),) if isinstance(event, _WAIVER_EVENTS) else ()
    ),
    fold=_fold_waiver,
    columns=lambda body: Columns(
        body.model, "asked" if body.is_asked else "ended" if body.ended_at else "granted", ""
    ),
)


def _fold_break_glass(body: BreakGlassState | None, event: Event, stamp: Stamp) -> BreakGlassState:
    change = msgspec.structs.replace
    if isinstance(event, GlassBroken):
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
    assert body is not None
    if isinstance(event, BreakGlassSeconded):
        return change(body, seconded_by=stamp.actor)
    assert isinstance(event, ReviewClosed)
    return change(body, reviewed_at=stamp.at, reviewed_by=stamp.actor, finding=event.finding)


_BREAK_GLASS_EVENTS = (GlassBroken, BreakGlassSeconded, ReviewClosed)
BREAK_GLASS = DocumentKind(
    name="break-glass",
    type=BreakGlassState,
    keys=lambda event: (
        (numbered_key(event.model, event.number),) if isinstance(event, _BREAK_GLASS_EVENTS) else ()
    ),
    fold=_fold_break_glass,
    columns=lambda body: Columns(body.model, "owed" if body.reviewed_at is None else "reviewed", ""),
)
