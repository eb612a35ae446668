"""What happens on the way to traffic: environments and endpoints are declared, versions released, rolled back."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from lockgate.core.digests import Digest
from lockgate.core.messages import Command, Effect, Event, Scope
from lockgate.governance.policy import Sensitivity
from lockgate.registry.messages import model_scope
from lockgate.traffic.plan import Fallback


def endpoint_scope(endpoint: str) -> Scope:
    environment, _, model = endpoint.partition("/")
    namespace, _, name = model.partition("/")
    return Scope(namespace=namespace, model=name, environment=environment)


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A version as a data plane needs to know it."""

    version: str
    package: Digest
    signatures: tuple[Digest, ...]


class DeclareEnvironment(Command, frozen=True, kw_only=True, tag="delivery.declare-environment"):
    """Give an environment its place on the ladder and its sensitivity."""

    permission: ClassVar[str] = "delivery.declare"
    environment: str
    order: int
    sensitivity: Sensitivity
    target: str
    trust: tuple[str, ...]

    def scope(self) -> Scope:
        return Scope(environment=self.environment)


class DeclareEndpoint(Command, frozen=True, kw_only=True, tag="delivery.declare-endpoint"):
    """Name who depends on an endpoint and what it answers without a model."""

    permission: ClassVar[str] = "delivery.declare"
    endpoint: str
    fallback: Fallback
    consumers: tuple[str, ...] = ()
    dashboards: tuple[str, ...] = ()

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class PromoteVersion(Command, frozen=True, kw_only=True, tag="delivery.promote-version"):
    """Release a version to an environment."""

    permission: ClassVar[str] = "delivery.promote"
    version: str
    environment: str
    ticket: str = ""

    def scope(self) -> Scope:
        scope = model_scope(self.version)
        return Scope(namespace=scope.namespace, model=scope.model, environment=self.environment)


class ConfirmPlan(Command, frozen=True, kw_only=True, tag="delivery.confirm-plan"):
    """Report what the target was seen to do with generation `generation` of an endpoint's plan."""

    permission: ClassVar[str] = "delivery.confirm"
    endpoint: str
    generation: int
    applied: bool
    detail: str = ""
    took_us: int

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class RollBackEndpoint(Command, frozen=True, kw_only=True, tag="delivery.roll-back-endpoint"):
    """Put the version before back, without any policy in between.

    `leave` names the version that was seen live; when another one is live by now, nothing happens.
    """

    permission: ClassVar[str] = "delivery.rollback"
    endpoint: str
    reason: str = ""
    leave: str = ""

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class RetireVersion(Command, frozen=True, kw_only=True, tag="delivery.retire-version"):
    """End the life of a version that no endpoint serves or may fall back to."""

    permission: ClassVar[str] = "registry.retire"
    version: str
    reason: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class EnvironmentDeclared(Event, frozen=True, kw_only=True, tag="delivery.environment-declared/1"):
    environment: str
    order: int
    sensitivity: Sensitivity
    target: str
    trust: tuple[str, ...]

    def summary(self) -> str:
        return f"environment {self.environment} declared: step {self.order}, {self.sensitivity}"


class EndpointDeclared(Event, frozen=True, kw_only=True, tag="delivery.endpoint-declared/1"):
    endpoint: str
    fallback: Fallback
    consumers: tuple[str, ...]
    dashboards: tuple[str, ...]

    def summary(self) -> str:
        return f"endpoint {self.endpoint} declared for {', '.join(self.consumers) or 'no consumer yet'}"


class ReleaseStarted(Event, frozen=True, kw_only=True, tag="delivery.release-started/1"):
    """A version is on its way to an endpoint; `generation` names the plan that will carry it."""

    endpoint: str
    release: int
    generation: int
    strategy: Literal["direct"]
    served: Served
    ticket: str
    approved_by: tuple[str, ...]
    evidence_set: Digest
    policy: Digest

    def summary(self) -> str:
        ticket = f", ticket {self.ticket}" if self.ticket else ""
        return f"release {self.release} of {self.served.version} to {self.endpoint} started{ticket}"


class ReleaseWentLive(Event, frozen=True, kw_only=True, tag="delivery.release-went-live/1"):
    """Release `release` answers; `supersedes` is the one that did until now."""

    endpoint: str
    release: int
    supersedes: int | None
    generation: int
    took_us: int

    def summary(self) -> str:
        return f"release {self.release} is live on {self.endpoint}"


class ReleaseFailed(Event, frozen=True, kw_only=True, tag="delivery.release-failed/1"):
    """The target did not take generation `generation`; `restored` is the plan that keeps what was live."""

    endpoint: str
    release: int
    generation: int
    restored: int
    detail: str

    def summary(self) -> str:
        return f"release {self.release} to {self.endpoint} failed: {self.detail}"


class EndpointRolledBack(Event, frozen=True, kw_only=True, tag="delivery.endpoint-rolled-back/1"):
    """The pointer went back from `from_version` (release `release`) to `to` (release `to_release`).

    Recorded before the switch is carried out.
    """

    endpoint: str
    release: int
    to_release: int
    generation: int
    from_version: str
    to: Served
    reason: str

    def summary(self) -> str:
        return f"{self.endpoint} rolled back from {self.from_version} to {self.to.version}"


class RollbackConfirmed(Event, frozen=True, kw_only=True, tag="delivery.rollback-confirmed/1"):
    endpoint: str
    generation: int
    took_us: int

    def summary(self) -> str:
        return f"rollback of {self.endpoint} in effect after {self.took_us / 1000:.1f} ms"


class RollbackFailed(Event, frozen=True, kw_only=True, tag="delivery.rollback-failed/1"):
    """The target did not take a rollback; `restored` is the plan of what goes on answering."""

    endpoint: str
    release: int
    to_release: int
    swapped: bool
    generation: int
    restored: int
    detail: str

    def summary(self) -> str:
        return f"rollback of {self.endpoint} failed, release {self.release} stays: {self.detail}"


class ApplyPlan(Effect, frozen=True, kw_only=True, tag="delivery.apply-plan"):
    """Bring the target of `subject` (an endpoint) to this plan; `fence` is the plan's generation."""

    target: str
    live: Served | None
    previous: Served | None
    fallback: Fallback
    patience_s: float
