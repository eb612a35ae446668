"""What happens in governance: policies are adopted, versions validated and approved, gates waived, glass broken."""

from __future__ import annotations

from typing import ClassVar

from lockgate.core.clock import Micros, iso
from lockgate.core.digests import Digest, short
from lockgate.core.messages import Command, Event, Scope
from lockgate.governance.policies.policy import AnyPolicy, ApproverRole, Policy1
from lockgate.governance.release_plan import ReleasePlan, Risk
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
        return Scope(namespace=self.namespace, target="risk", whole=True)


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


class WriteReleasePlan(Command, frozen=True, kw_only=True, tag="governance.write-release-plan"):
    """Say what could fail when a version is released, and which guard would show it.

    Where a rollback would lead and how long it took when it was rehearsed is filled in from the journal.
    """

    permission: ClassVar[str] = "governance.document"
    version: str
    environment: str
    risks: tuple[Risk, ...]
    note: str = ""

    def scope(self) -> Scope:
        return environment_scope(self.version, self.environment)


class SignOff(Command, frozen=True, kw_only=True, tag="governance.sign-off"):
    """Agree, for a consumer of an endpoint, to a new major version of what it reads."""

    permission: ClassVar[str] = "governance.sign-off"
    version: str
    environment: str
    consumer: str
    comment: str = ""

    def scope(self) -> Scope:
        return environment_scope(self.version, self.environment)


class RequestWaiver(Command, frozen=True, kw_only=True, tag="governance.request-waiver"):
    """Ask that a gate's failure be passed over for a time.

    Attributes:
        versions: `1.4.2`, or `1.4.*` and `1.*` for all that begin so.
        environment: where it shall hold; on the way there it holds too.
        control: what is done instead, so that nothing bad comes of it.
        until: the last instant at which it holds.
    """

    permission: ClassVar[str] = "governance.document"
    model: str
    versions: str
    environment: str
    gate: str
    reason: str
    control: str
    ticket: str
    until: Micros

    def scope(self) -> Scope:
        return environment_scope(self.model, self.environment)


class GrantWaiver(Command, frozen=True, kw_only=True, tag="governance.grant-waiver"):
    """Grant what somebody else has asked for, in the name of a role. `environment` is the one it was asked for."""

    permission: ClassVar[str] = "governance.waive"
    model: str
    environment: str
    number: int
    role: ApproverRole
    comment: str = ""

    def scope(self) -> Scope:
        return environment_scope(self.model, self.environment, self.role)


class EndWaiver(Command, frozen=True, kw_only=True, tag="governance.end-waiver"):
    """Say no to a waiver that was asked for, or end one that holds. What is live stays, out of policy."""

    permission: ClassVar[str] = "governance.waive"
    model: str
    environment: str
    number: int
    role: ApproverRole
    reason: str

    def scope(self) -> Scope:
        return environment_scope(self.model, self.environment, self.role)


class BreakGlass(Command, frozen=True, kw_only=True, tag="governance.break-glass"):
    """Take the right to release to an endpoint in an emergency, for a few hours. Its use is reviewed afterwards."""

    permission: ClassVar[str] = "governance.break-glass"
    model: str
    environment: str
    incident: str
    reason: str
    hours: float

    def scope(self) -> Scope:
        return environment_scope(self.model, self.environment)


class SecondBreakGlass(Command, frozen=True, kw_only=True, tag="governance.second-break-glass"):
    """Stand by somebody else's emergency right, so that it reaches versions that never were live."""

    permission: ClassVar[str] = "governance.break-glass"
    model: str
    environment: str
    number: int

    def scope(self) -> Scope:
        return environment_scope(self.model, self.environment)


class CloseReview(Command, frozen=True, kw_only=True, tag="governance.close-review"):
    """Say what a review of an emergency found; by somebody who took no part in it."""

    permission: ClassVar[str] = "governance.review"
    model: str
    environment: str
    number: int
    finding: str

    def scope(self) -> Scope:
        return environment_scope(self.model, self.environment)


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


class ReleasePlanWritten(Event, frozen=True, kw_only=True, tag="governance.release-plan-written/1"):
    version: str
    environment: str
    plan: ReleasePlan

    def summary(self) -> str:
        plan = self.plan
        return (
            f"release plan of {self.version} for {self.environment}: {len(plan.risks)} risks, "
            f"rollback to {plan.back_to}"
        )


class ConsumerSignedOff(Event, frozen=True, kw_only=True, tag="governance.consumer-signed-off/1"):
    version: str
    environment: str
    consumer: str
    comment: str

    def summary(self) -> str:
        return f"{self.version} signed off for {self.environment} by its consumer {self.consumer}"


class WaiverRequested(Event, frozen=True, kw_only=True, tag="governance.waiver-requested/1"):
    """`started_by` are the names of whoever started the CI job that asked; none when a person did."""

    model: str
    number: int
    versions: str
    environment: str
    gate: str
    reason: str
    control: str
    ticket: str
    until: Micros
    started_by: tuple[str, ...] = ()

    def summary(self) -> str:
        return (
            f"waiver W-{self.number} of {self.gate} asked for: {self.model}@{self.versions} in {self.environment} "
            f"until {iso(self.until)[:10]}, {self.reason}"
        )


class WaiverGranted(Event, frozen=True, kw_only=True, tag="governance.waiver-granted/1"):
    model: str
    number: int
    role: ApproverRole
    comment: str

    def summary(self) -> str:
        return f"waiver W-{self.number} of {self.model} granted in the name of {self.role}"


class WaiverEnded(Event, frozen=True, kw_only=True, tag="governance.waiver-ended/1"):
    model: str
    number: int
    role: ApproverRole
    reason: str

    def summary(self) -> str:
        return f"waiver W-{self.number} of {self.model} refused or ended by {self.role}: {self.reason}"


class GlassBroken(Event, frozen=True, kw_only=True, tag="governance.glass-broken/1"):
    """Critical: somebody may release past the policy until `until`; a review of it is due at `review_due`."""

    model: str
    number: int
    environment: str
    incident: str
    reason: str
    until: Micros
    review_due: Micros

    def summary(self) -> str:
        return (
            f"BREAK-GLASS B-{self.number} on {self.environment}/{self.model}, incident {self.incident}, "
            f"until {iso(self.until)[:16]}Z: {self.reason}"
        )


class BreakGlassSeconded(Event, frozen=True, kw_only=True, tag="governance.break-glass-seconded/1"):
    model: str
    number: int

    def summary(self) -> str:
        return f"break-glass B-{self.number} of {self.model} has a second person"


class ReviewClosed(Event, frozen=True, kw_only=True, tag="governance.review-closed/1"):
    model: str
    number: int
    finding: str

    def summary(self) -> str:
        return f"break-glass B-{self.number} of {self.model} reviewed: {self.finding}"


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
