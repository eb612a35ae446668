"""Documents of governance: policies, in force and proposed; the approvals of a version in an environment."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Event, Stamp
from lockgate.governance.messages import (
    ApprovalRevoked,
    PolicyAdopted,
    PolicyProposed,
    VersionApproved,
    VersionDeclined,
)
from lockgate.governance.policy import AnyPolicy, ApproverRole


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


def approval_key(version: str, environment: str) -> str:
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
