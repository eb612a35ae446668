"""What happens on the way to traffic: environments and endpoints are declared, versions released, rolled back."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.messages import Command, Effect, Event, Scope
from lockgate.delivery.rollouts.policy import EndpointSettings, RolloutPolicy, Stage
from lockgate.delivery.rollouts.verdict import Look, Verdict
from lockgate.governance.messages import environment_scope
from lockgate.governance.policies.policy import Sensitivity
from lockgate.governance.tickets.tracker import ConfirmedTicket
from lockgate.registry.messages import model_scope
from lockgate.traffic.capture import CaptureMode
from lockgate.traffic.plan import Fallback


def endpoint_scope(endpoint: str) -> Scope:
    environment, _, model = endpoint.partition("/")
    namespace, _, name = model.partition("/")
    return Scope(namespace=namespace, model=name, environment=environment)


Strategy = Literal["direct", "canary"]


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


class ConfigureEndpoint(Command, frozen=True, kw_only=True, tag="delivery.configure-endpoint"):
    """Say how an endpoint is served and how its releases roll out. Rollouts under way keep what they began with."""

    permission: ClassVar[str] = "delivery.declare"
    endpoint: str
    settings: EndpointSettings

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class SignOffRemoval(Command, frozen=True, kw_only=True, tag="delivery.sign-off-removal"):
    """Say in the name of a consumer that it no longer needs an endpoint."""

    permission: ClassVar[str] = "governance.sign-off"
    endpoint: str
    consumer: str
    comment: str = ""

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class RemoveEndpoint(Command, frozen=True, kw_only=True, tag="delivery.remove-endpoint"):
    """Take an endpoint down for good. Its history stays, its release numbers go on if it is declared again.

    Attributes:
        live: the version that the sender knows to be live, and takes from its callers; empty for none.
        despite_consumers: go on although consumers have not signed off.
    """

    permission: ClassVar[str] = "delivery.declare"
    endpoint: str
    reason: str
    live: str = ""
    despite_consumers: bool = False

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class PromoteVersion(Command, frozen=True, kw_only=True, tag="delivery.promote-version"):
    """Release a version to an environment."""

    permission: ClassVar[str] = "delivery.promote"
    version: str
    environment: str
    ticket: str = ""
    pull_request: str = ""

    def scope(self) -> Scope:
        return environment_scope(self.version, self.environment)


class ReleaseInEmergency(Command, frozen=True, kw_only=True, tag="delivery.release-in-emergency"):
    """Release a version at once, by the emergency right `number`, whatever the policy says."""

    permission: ClassVar[str] = "governance.break-glass"
    version: str
    environment: str
    number: int

    def scope(self) -> Scope:
        return environment_scope(self.version, self.environment)


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


class JudgeRollout(Command, frozen=True, kw_only=True, tag="delivery.judge-rollout"):
    """Report what was seen of step `step` of a rollout, and have its verdict acted on.

    The verdict is computed where it is decided, from the counts in `look`: who reports does not judge.
    """

    permission: ClassVar[str] = "delivery.confirm"
    endpoint: str
    release: int
    step: int
    look: Look

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class PauseRollout(Command, frozen=True, kw_only=True, tag="delivery.pause-rollout"):
    """Hold a rollout at its step. Guards stay on watch: proven harm still takes it back."""

    permission: ClassVar[str] = "delivery.pause"
    endpoint: str
    reason: str

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class ResumeRollout(Command, frozen=True, kw_only=True, tag="delivery.resume-rollout"):
    """Let a paused rollout go on from the step it stands on."""

    permission: ClassVar[str] = "delivery.promote"
    endpoint: str

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class AdvanceRollout(Command, frozen=True, kw_only=True, tag="delivery.advance-rollout"):
    """Move a rollout on by hand, over the statistics: to its next step, or with `full` to all of the traffic.

    `release` and `step` name what was looked at; when the rollout is elsewhere by now, nothing happens.
    """

    permission: ClassVar[str] = "delivery.promote"
    endpoint: str
    release: int
    step: int
    full: bool = False
    reason: str

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class StartDrill(Command, frozen=True, kw_only=True, tag="delivery.start-drill"):
    """Reserve generations for a rehearsal of the way back: `n_flips` there, `n_flips` back, one to end with.

    Whoever starts it walks it and tells what came of it; with `by_hub`, the hub on the machine of the data plane does.
    """

    permission: ClassVar[str] = "delivery.rollback"
    endpoint: str
    n_flips: int
    by_hub: bool = False

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class DrillFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a rehearsal found. Times in microseconds, from the plan's publication.

    Attributes:
        first_p50_us, first_p99_us: to the first answer of the other version.
        all_p50_us, all_p99_us: until every worker answered with it.
        n_wrong: answers by another version than the plan in force said; n_failed: requests without an answer.
        interrupted: why it ended early; empty when it did not.
    """

    n_flips: int
    n_requests: int
    n_failed: int
    n_wrong: int
    n_workers: int
    first_p50_us: int
    first_p99_us: int
    all_p50_us: int
    all_p99_us: int
    interrupted: str = ""

    @property
    def passed(self) -> bool:
        return not (self.n_failed or self.n_wrong or self.interrupted) and self.n_flips > 0


class FinishDrill(Command, frozen=True, kw_only=True, tag="delivery.finish-drill"):
    """Record what a rehearsal found; `drill` is the number that `StartDrill` gave it."""

    permission: ClassVar[str] = "delivery.drill"
    endpoint: str
    drill: int
    figures: DrillFigures

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


class ByHand(msgspec.Struct, frozen=True, kw_only=True):
    """Who went back without the hub, by what the plan they wrote says.

    Attributes:
        by: the name that was claimed; account: the user of the operating system that wrote the run directory.
        at: by the clock of that machine.
    """

    by: str
    account: str
    at: Micros
    reason: str
    incident: str = ""

    def __str__(self) -> str:
        incident = f" ({self.incident})" if self.incident else ""
        told = f"by hand by {self.by or 'somebody'} ({self.account or 'unknown'}): {self.reason}{incident}"
        # Somebody wrote this into a file; it is told in one line all the same.
        return " ".join(told.split())


class AdoptLocalPlan(Command, frozen=True, kw_only=True, tag="delivery.adopt-local-plan"):
    """Take over a plan that somebody wrote without the hub, as it was found at the target.

    Attributes:
        generation: of the plan that was found.
        answers: the package that all of its traffic goes to; None when there is no such one.
        version: what the plan calls it; left: what it calls the package that answered before.
    """

    permission: ClassVar[str] = "delivery.confirm"
    endpoint: str
    generation: int
    answers: Digest | None
    version: str
    left: str
    hand: ByHand

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class RetireVersion(Command, frozen=True, kw_only=True, tag="delivery.retire-version"):
    """End the life of a version that no endpoint serves or may fall back to."""

    permission: ClassVar[str] = "registry.retire"
    version: str
    reason: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class EraseCaptures(Command, frozen=True, kw_only=True, tag="delivery.erase-captures"):
    """Give up what was written down of a caller's requests. Neither his key nor its hash goes on record."""

    permission: ClassVar[str] = "registry.erase"
    endpoint: str
    reason: str

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


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


class RemovalSignedOff(Event, frozen=True, kw_only=True, tag="delivery.removal-signed-off/1"):
    endpoint: str
    consumer: str
    comment: str

    def summary(self) -> str:
        return f"{self.consumer} no longer needs {self.endpoint}"


class EndpointRemoved(Event, frozen=True, kw_only=True, tag="delivery.endpoint-removed/1"):
    """An endpoint answers nobody any more; `generation` is the plan that says so.

    Attributes:
        release, live: what was live until then; None and empty for nothing.
        overridden: the consumers that had not signed off.
    """

    endpoint: str
    generation: int
    release: int | None
    live: str
    reason: str
    overridden: tuple[str, ...]

    def summary(self) -> str:
        left = f", with {self.live} live" if self.live else ""
        over = f", without the word of {', '.join(self.overridden)}" if self.overridden else ""
        return f"endpoint {self.endpoint} removed{left}{over}: {self.reason}"


class EndpointConfigured(Event, frozen=True, kw_only=True, tag="delivery.endpoint-configured/1"):
    endpoint: str
    settings: EndpointSettings

    def summary(self) -> str:
        rollout = self.settings.rollout
        how = "at once" if rollout is None else f"in {len(rollout.steps)} steps"
        return f"{self.endpoint} releases {how}, features by {self.settings.features}"


class ReleaseStarted1(Event, frozen=True, kw_only=True, tag="delivery.release-started/1"):
    """A start from before releases had plans, waivers and pull requests."""

    endpoint: str
    release: int
    generation: int
    strategy: Strategy
    served: Served
    ticket: str
    approved_by: tuple[str, ...]
    evidence_set: Digest
    policy: Digest

    def summary(self) -> str:
        ticket = f", ticket {self.ticket}" if self.ticket else ""
        return f"release {self.release} of {self.served.version} to {self.endpoint} started{ticket}"


class ReleaseStarted(Event, frozen=True, kw_only=True, tag="delivery.release-started/2"):
    """A version is on its way to an endpoint; `generation` names the plan of routing that will carry it.

    Attributes:
        evidence_set: what was approved: the evidence, and the release plan when there is one.
        plan: the release plan's digest.
        waivers: by which failed gates were passed over, `W-3`.
        break_glass: the emergency right that it went by; empty for a promotion.
    """

    endpoint: str
    release: int
    generation: int
    strategy: Strategy
    served: Served
    ticket: str
    pull_request: str
    approved_by: tuple[str, ...]
    evidence_set: Digest
    policy: Digest
    plan: Digest | None
    waivers: tuple[str, ...]
    break_glass: str

    def summary(self) -> str:
        ticket = f", ticket {self.ticket}" if self.ticket else ""
        waived = f", allowed by waiver {', '.join(self.waivers)}" if self.waivers else ""
        broken = f", by break-glass {self.break_glass}" if self.break_glass else ""
        return (
            f"release {self.release} of {self.served.version} to {self.endpoint} started"
            f"{ticket}{waived}{broken}"
        )


class TicketConfirmed(Event, frozen=True, kw_only=True, tag="delivery.ticket-confirmed/1"):
    """The tracker knew the ticket that release `release` began on, and had nothing against it."""

    endpoint: str
    release: int
    ticket: str
    confirmed: ConfirmedTicket

    def summary(self) -> str:
        return f"ticket {self.ticket} of release {self.release} to {self.endpoint}: {self.confirmed.said}"


def started_of_old(old: ReleaseStarted1) -> ReleaseStarted:
    """The event in today's shape."""
    return ReleaseStarted(
        endpoint=old.endpoint,
        release=old.release,
        generation=old.generation,
        strategy=old.strategy,
        served=old.served,
        ticket=old.ticket,
        pull_request="",
        approved_by=old.approved_by,
        evidence_set=old.evidence_set,
        policy=old.policy,
        plan=None,
        waivers=(),
        break_glass="",
    )


class RolloutPlanned(Event, frozen=True, kw_only=True, tag="delivery.rollout-planned/1"):
    """How release `release` will go, as the endpoint's settings were when it started.

    Attributes:
        control: what is live, and what the new version is held against.
        salt: places routing keys in this rollout; another one in each, so that nobody is always first.
    """

    endpoint: str
    release: int
    candidate: Served
    control: Served
    policy: RolloutPolicy
    salt: str
    capture: CaptureMode

    def summary(self) -> str:
        return (
            f"release {self.release} to {self.endpoint} goes in {len(self.policy.steps)} steps "
            f"against {self.control.version}"
        )


class RolloutStepStarted(Event, frozen=True, kw_only=True, tag="delivery.rollout-step-started/1"):
    """The target was seen to serve step `step`; its bake begins."""

    endpoint: str
    release: int
    step: int
    stage: Stage
    weight: int
    generation: int

    def summary(self) -> str:
        share = "" if self.stage == "shadow" else f" at {self.weight / 100:g} %"
        return f"release {self.release} on {self.endpoint}: {self.stage}{share}"


class RolloutJudged(Event, frozen=True, kw_only=True, tag="delivery.rollout-judged/1"):
    """The verdict about a step turned into another one."""

    endpoint: str
    release: int
    step: int
    verdict: Verdict

    def summary(self) -> str:
        return f"release {self.release} on {self.endpoint}: {self.verdict.outcome}, {self.verdict.reason}"


class RolloutAdvanced(Event, frozen=True, kw_only=True, tag="delivery.rollout-advanced/1"):
    """A rollout leaves for step `step`; one past the last step is all of the traffic, for good.

    `overridden` is the reason of whoever moved it on over the statistics; empty when the verdict did.
    """

    endpoint: str
    release: int
    step: int
    final: bool
    generation: int
    overridden: str

    def summary(self) -> str:
        where = "all of the traffic" if self.final else f"step {self.step + 1}"
        why = f", statistics overridden: {self.overridden}" if self.overridden else ""
        return f"release {self.release} on {self.endpoint} goes on to {where}{why}"


class RolloutPaused(Event, frozen=True, kw_only=True, tag="delivery.rollout-paused/1"):
    endpoint: str
    release: int
    reason: str

    def summary(self) -> str:
        return f"release {self.release} on {self.endpoint} paused: {self.reason}"


class RolloutResumed(Event, frozen=True, kw_only=True, tag="delivery.rollout-resumed/1"):
    endpoint: str
    release: int
    stage: Stage

    def summary(self) -> str:
        return f"release {self.release} on {self.endpoint} resumed"


class DrillStarted(Event, frozen=True, kw_only=True, tag="delivery.drill-started/1"):
    """Generations `first` to `last` belong to a rehearsal; no caller's traffic moves with them."""

    endpoint: str
    drill: int
    from_version: str
    to_version: str
    first: int
    last: int
    by_hub: bool = False

    def summary(self) -> str:
        return f"rollback of {self.endpoint} to {self.to_version} is rehearsed"


class DrillFinished(Event, frozen=True, kw_only=True, tag="delivery.drill-finished/1"):
    endpoint: str
    drill: int
    to_version: str
    figures: DrillFigures

    def summary(self) -> str:
        figures = self.figures
        how = "passed" if figures.passed else f"failed {figures.interrupted}".rstrip()
        return (
            f"rollback drill of {self.endpoint} {how}: {figures.n_flips} flips, "
            f"p99 {figures.first_p99_us / 1000:.1f} ms"
        )


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
        stays = self.release if self.swapped else self.to_release
        return f"rollback of {self.endpoint} failed, release {stays} is published again: {self.detail}"


class LocalRollbackAdopted(Event, frozen=True, kw_only=True, tag="delivery.local-rollback-adopted/1"):
    """What somebody did without the hub was found at the target and is what stands from now on.

    Attributes:
        found: the generation of the plan that was found; generation: of the same as a plan of the hub.
        left: the releases that were left for it; none when it leads to where one was already.
        swapped: whether live and previous changed places.
    """

    endpoint: str
    found: int
    generation: int
    left: tuple[int, ...]
    to_release: int
    swapped: bool
    from_version: str
    to: Served
    hand: ByHand

    def summary(self) -> str:
        return f"{self.endpoint} was taken back from {self.from_version} to {self.to.version} {self.hand}"


class LocalPlanOverruled(Event, frozen=True, kw_only=True, tag="delivery.local-plan-overruled/1"):
    """A plan that somebody wrote without the hub fits nothing that is known; what was decided is published again.

    Attributes:
        release: the one that was on its way and is called off with it; None when none was.
        version: what the plan calls the package it served.
    """

    endpoint: str
    found: int
    generation: int
    release: int | None
    version: str
    why: str
    hand: ByHand

    def summary(self) -> str:
        return (
            f"{self.endpoint} was set to {self.version or 'nothing'} {self.hand}; it is put back: {self.why}"
        )


class CapturesErased(Event, frozen=True, kw_only=True, tag="delivery.captures-erased/1"):
    """Lines about one caller were blanked in the captures of an endpoint; verdicts from then on are without them."""

    endpoint: str
    reason: str

    def summary(self) -> str:
        return f"what was written down of a caller of {self.endpoint} erased: {self.reason}"


class ApplyPlan(Effect, frozen=True, kw_only=True, tag="delivery.apply-plan"):
    """Bring the target of `subject` (an endpoint) to this plan; `fence` is the plan's generation.

    Attributes:
        canary: answers `weight` slots of 10,000; None outside of rollouts.
        shadow: gets copies of what the others answer.
        adopted: the newest plan of local origin that was known when this was decided.
    """

    target: str
    live: Served | None
    previous: Served | None
    fallback: Fallback
    patience_s: float
    canary: Served | None = None
    weight: int = 0
    shadow: Served | None = None
    salt: str = ""
    capture: CaptureMode = "off"
    adopted: int = 0
