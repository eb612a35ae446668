"""Documents of governance: the policy of a namespace, the approvals of a version in an environment."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Event, Stamp
from lockgate.governance.messages import PolicyAdopted, VersionApproved
from lockgate.governance.policy import Policy


class PolicyState(msgspec.Struct, frozen=True, kw_only=True):
    namespace: str
    digest: Digest
    policy: Policy
    adopted_at: Micros
    adopted_by: str


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """One person's agreement, and exactly what it was given on."""

    approver: str
    evidence_set: Digest
    policy: Digest
    approved_at: Micros
    comment: str


class ApprovalState(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    environment: str
    approvals: tuple[Approval, ...]


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


def _fold_approval(body: ApprovalState | None, event: Event, stamp: Stamp) -> ApprovalState:
    assert isinstance(event, VersionApproved)
    given = Approval(
        approver=stamp.actor,
        evidence_set=event.evidence_set,
        policy=event.policy,
        approved_at=stamp.at,
        comment=event.comment,
    )
    earlier = () if body is None else body.approvals
    return ApprovalState(version=event.version, environment=event.environment, approvals=(*earlier, given))


APPROVAL = DocumentKind(
    name="approval",
    type=ApprovalState,
    keys=lambda event: (
        (approval_key(event.version, event.environment),) if isinstance(event, VersionApproved) else ()
    ),
    fold=_fold_approval,
    columns=lambda body: Columns(body.version, body.environment, ""),
)
