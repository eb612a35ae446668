"""What happens in governance: policies are adopted, versions validated, approved and declined."""

from __future__ import annotations

from typing import ClassVar

from lockgate.core.digests import Digest, short
from lockgate.core.messages import Command, Event, Scope
from lockgate.governance.policy import AnyPolicy, ApproverRole, Policy1
from lockgate.registry.messages import model_scope


def environment_scope(version: str, environment: str, target: str = "") -> Scope:
    scope = model_scope(version)
    return Scope(namespace=scope.namespace, model=scope.model, environment=environment, target=target)


class AdoptPolicy(Command, frozen=True, kw_only=True, tag="governance.adopt-policy"):
    """Make `policy` the rule of a namespace from now on; a laxer one waits for the consent of risk."""

    permission: ClassVar[str] = "governance.policy"
    namespace: str
    policy: AnyPolicy

    def scope(self) -> Scope:
        return Scope(namespace=self.namespace)


class ConsentToPolicy(Command, frozen=True, kw_only=True, tag="governance.consent-to-policy"):
    """Agree, for risk, to the laxer policy that somebody else has proposed."""

    permission: ClassVar[str] = "governance.approve"
    namespace: str
    digest: Digest

    def scope(self) -> Scope:
        return Scope(namespace=self.namespace, target="risk")


class ValidateVersion(Command, frozen=True, kw_only=True, tag="governance.validate-version"):
    """Turn a candidate into a validated version when its evidence satisfies the tier."""

    permission: ClassVar[str] = "governance.validate"
    version: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class ApproveVersion(Command, frozen=True, kw_only=True, tag="governance.approve-version"):
    """Agree to a version in an environment, in the name of a role, on exactly the evidence named."""

    permission: ClassVar[str] = "governance.approve"
    version: str
    environment: str
    evidence_set: Digest
    comment: str = ""
    role: ApproverRole = "owner"

    def scope(self) -> Scope:
        return environment_scope(self.version, self.environment, self.role)


class RevokeApproval(Command, frozen=True, kw_only=True, tag="governance.revoke-approval"):
    """Take one's own approval back, in the role it was given in. What is live stays."""

    permission: ClassVar[str] = "governance.approve"
    version: str
    environment: str
    reason: str
    role: ApproverRole = "owner"

    def scope(self) -> Scope:
        return environment_scope(self.version, self.environment, self.role)


class DeclineVersion(Command, frozen=True, kw_only=True, tag="governance.decline-version"):
    """Say no to a version in an environment: it stays out until the same person approves, or the evidence is new."""

    permission: ClassVar[str] = "governance.approve"
    version: str
    environment: str
    evidence_set: Digest
    reason: str
    role: ApproverRole = "owner"

    def scope(self) -> Scope:
        return environment_scope(self.version, self.environment, self.role)


class PolicyAdopted1(Event, frozen=True, kw_only=True, tag="governance.policy-adopted/1"):
    """The adoption of a policy of the first shape, before there was another."""

    namespace: str
    policy: Policy1
    digest: Digest

    def summary(self) -> str:
        return f"policy {self.policy.name} version {self.policy.version} adopted in {self.namespace}"


class PolicyAdopted(Event, frozen=True, kw_only=True, tag="governance.policy-adopted/2"):
    """`proposed_by` is set when it took a second person; the actor is then whoever consented."""

    namespace: str
    policy: AnyPolicy
    digest: Digest
    proposed_by: str

    def summary(self) -> str:
        by = f", proposed by {self.proposed_by}" if self.proposed_by else ""
        return f"policy {self.policy.name} version {self.policy.version} adopted in {self.namespace}{by}"


class PolicyProposed(Event, frozen=True, kw_only=True, tag="governance.policy-proposed/1"):
    """A policy that is laxer than the one in force, and in what; it changes nothing before somebody consents."""

    namespace: str
    policy: AnyPolicy
    digest: Digest
    laxer: tuple[str, ...]

    def summary(self) -> str:
        return (
            f"policy {self.policy.name} version {self.policy.version} proposed for {self.namespace}: "
            + "; ".join(self.laxer)
        )


class VersionApproved1(Event, frozen=True, kw_only=True, tag="governance.version-approved/1"):
    """An approval from before they were given in the name of a role."""

    version: str
    environment: str
    evidence_set: Digest
    policy: Digest
    comment: str

    def summary(self) -> str:
        return f"{self.version} approved for {self.environment} on evidence {short(self.evidence_set)}"


class VersionApproved(Event, frozen=True, kw_only=True, tag="governance.version-approved/2"):
    version: str
    environment: str
    role: ApproverRole
    evidence_set: Digest
    policy: Digest
    comment: str

    def summary(self) -> str:
        return (
            f"{self.version} approved for {self.environment} in the name of {self.role} "
            f"on evidence {short(self.evidence_set)}"
        )


class ApprovalRevoked(Event, frozen=True, kw_only=True, tag="governance.approval-revoked/1"):
    version: str
    environment: str
    role: ApproverRole
    reason: str

    def summary(self) -> str:
        return f"approval of {self.version} for {self.environment} taken back by {self.role}: {self.reason}"


class VersionDeclined(Event, frozen=True, kw_only=True, tag="governance.version-declined/1"):
    version: str
    environment: str
    role: ApproverRole
    evidence_set: Digest
    policy: Digest
    reason: str

    def summary(self) -> str:
        return f"{self.version} declined for {self.environment} in the name of {self.role}: {self.reason}"


def adopted_of_old(old: PolicyAdopted1) -> PolicyAdopted:
    """The event in today's shape; the policy keeps its own, and so its digest."""
    return PolicyAdopted(namespace=old.namespace, policy=old.policy, digest=old.digest, proposed_by="")


def approved_by_owner(old: VersionApproved1) -> VersionApproved:
    """The event in today's shape: who approved before there were roles approved for the owner."""
    return VersionApproved(
        version=old.version,
        environment=old.environment,
        role="owner",
        evidence_set=old.evidence_set,
        policy=old.policy,
        comment=old.comment,
    )
