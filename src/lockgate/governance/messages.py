"""What happens in governance: policies are adopted, versions validated and approved."""

from __future__ import annotations

from typing import ClassVar, Literal

from lockgate.core.digests import Digest, short
from lockgate.core.messages import Command, Event, Scope
from lockgate.governance.policy import Policy
from lockgate.registry.messages import model_scope

ApproverRole = Literal["owner", "product", "risk", "validation"]
"""In whose name somebody approves."""


class AdoptPolicy(Command, frozen=True, kw_only=True, tag="governance.adopt-policy"):
    """Make `policy` the rule of a namespace from now on."""

    permission: ClassVar[str] = "governance.policy"
    namespace: str
    policy: Policy

    def scope(self) -> Scope:
        return Scope(namespace=self.namespace)


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
        scope = model_scope(self.version)
        return Scope(
            namespace=scope.namespace, model=scope.model, environment=self.environment, target=self.role
        )


class PolicyAdopted(Event, frozen=True, kw_only=True, tag="governance.policy-adopted/1"):
    namespace: str
    policy: Policy
    digest: Digest

    def summary(self) -> str:
        return f"policy {self.policy.name} version {self.policy.version} adopted in {self.namespace}"


class VersionApproved(Event, frozen=True, kw_only=True, tag="governance.version-approved/1"):
    version: str
    environment: str
    evidence_set: Digest
    policy: Digest
    comment: str

    def summary(self) -> str:
        return f"{self.version} approved for {self.environment} on evidence {short(self.evidence_set)}"
