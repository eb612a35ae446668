"""Decisions of delivery: what may be released. How it comes back is decided in way_back.py."""

from __future__ import annotations

from typing import cast

from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import check_full, check_part, parse_endpoint
from lockgate.delivery.advance import (
    advance_rollout,
    begin,
    needs_rollout,
    rollout_of,
    settings_of,
    step_plan,
    step_served,
)
from lockgate.delivery.messages import (
    AdvanceRollout,
    ApplyPlan,
    ConfirmPlan,
    DeclareEndpoint,
    DeclareEnvironment,
    EndpointDeclared,
    EnvironmentDeclared,
    PromoteVersion,
    ReleaseStarted,
    ReleaseWentLive,
    RollbackConfirmed,
    Served,
)
from lockgate.delivery.standing import needs_promote, standing_of
from lockgate.delivery.state import (
    ENDPOINT,
    ENVIRONMENT,
    EndpointState,
    EnvironmentState,
    Rollout,
)
from lockgate.delivery.way_back import call_off, capture_of, served_of, undo_rollback
from lockgate.gates.state import EVIDENCE, evidence_key
from lockgate.governance.decide import policy_of
from lockgate.governance.judgement import approvers, bound_set, counting_approvals
from lockgate.governance.state import APPROVAL, PolicyState, approval_key
from lockgate.registry.decide import known_version, model_of
from lockgate.registry.state import VERSION, VersionState
from lockgate.registry.trust import (
    TRUST_FACT,
    TrustFact,
    load_reasons,
    revoked,
    trust_is_stale,
    trust_reasons,
)

# How long a target may take to load a package before the release counts as failed.
LOAD_PATIENCE_S = 60.0


def needs_environment(command: DeclareEnvironment, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(ENVIRONMENT.name, command.environment),)


def declare_environment(docs: Docs, command: DeclareEnvironment, context: Context) -> Decision | Refusal:
    check_part(command.environment, what="environment")
    declared = EnvironmentState(
        environment=command.environment,
        order=command.order,
        sensitivity=command.sensitivity,
        target=command.target,
        trust=command.trust,
    )
    if docs.get(ENVIRONMENT, command.environment) == declared:
        return Decision(())
    return Decision(
        (
            EnvironmentDeclared(
                environment=command.environment,
                order=command.order,
                sensitivity=command.sensitivity,
                target=command.target,
                trust=command.trust,
            ),
        )
    )


def needs_endpoint(command: DeclareEndpoint, docs: Docs) -> tuple[DocRef, ...]:
    environment = parse_endpoint(command.endpoint).environment
    return (DocRef(ENDPOINT.name, command.endpoint), DocRef(ENVIRONMENT.name, environment))


def declare_endpoint(docs: Docs, command: DeclareEndpoint, context: Context) -> Decision | Refusal:
    name = parse_endpoint(command.endpoint)
    check_full(command.endpoint, name)
    environment = name.environment
    if docs.get(ENVIRONMENT, environment) is None:
        return refuse(
            Reason(
                rule="delivery.environment-unknown",
                message=f"there is no environment {environment}",
                remedy="declare it in lockgate.toml",
            )
        )
    known = docs.get(ENDPOINT, command.endpoint)
    declared = (command.fallback, command.consumers, command.dashboards)
    standing = known is not None and known.removed_at is None
    if standing and known is not None and (known.fallback, known.consumers, known.dashboards) == declared:
        return Decision(())
    return Decision(
        (
            EndpointDeclared(
                endpoint=command.endpoint,
                fallback=command.fallback,
                consumers=command.consumers,
                dashboards=command.dashboards,
            ),
        )
    )


def promote_version(docs: Docs, command: PromoteVersion, context: Context) -> Decision | Refusal:
    """Start a release when nothing stands in its way; otherwise name everything that does."""
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    environment = _environment(docs, command.environment)
    if isinstance(environment, Refusal):
        return environment
    policy = policy_of(docs, model_of(command.version).namespace)
    if isinstance(policy, Refusal):
        return policy
    endpoint = docs.get(ENDPOINT, f"{command.environment}/{version.model}")
    if endpoint is None or endpoint.removed_at is not None:
        return refuse(
            Reason(
                rule="delivery.endpoint-unknown",
                message=f"endpoint {command.environment}/{version.model} is "
                + ("not declared" if endpoint is None else "removed"),
                remedy="declare it in lockgate.toml: consumers, dashboards and the fallback of a first release",
            )
        )
    fact = cast(TrustFact, context.facts[TRUST_FACT])
    if _is_live(endpoint, version) and not endpoint.rollout:
        if endpoint.live is not None and endpoint.live.served.signatures == version.signatures:
            return Decision(())
        # The same bytes, vouched for anew: nothing is let in that was not let in before.
        standing = load_reasons(version, fact, revoked(docs))
    else:
        standing = standing_of(docs, command.version, environment, endpoint, policy, context.now)
        known = {reason.rule for reason in standing}
        standing += [one for one in trust_reasons(version, fact, revoked(docs)) if one.rule not in known]
    if standing:
        waiting = all(reason.rule == "governance.approval" for reason in standing)
        return Refusal(reasons=tuple(standing), waiting=waiting)
    return _start_release(docs, command, version, environment, endpoint, policy)


def promotion_is_stale(docs: Docs, command: PromoteVersion, context: Context) -> bool:
    """Whether the facts about the version's signatures were made before its newest signature."""
    return trust_is_stale(docs.get(VERSION, command.version), context)


def _is_live(endpoint: EndpointState, version: VersionState) -> bool:
    return endpoint.live is not None and endpoint.live.served.package == version.package


def _environment(docs: Docs, name: str) -> EnvironmentState | Refusal:
    ladder = docs.all(ENVIRONMENT, "")
    for step in ladder:
        if step.environment == name:
            return step
    return refuse(
        Reason(
            rule="delivery.environment-unknown",
            message=f"there is no environment {name}",
            measured=name,
            limit=", ".join(step.environment for step in ladder),
            remedy="declare it in lockgate.toml",
        )
    )


def _start_release(
    docs: Docs,
    command: PromoteVersion,
    version: VersionState,
    environment: EnvironmentState,
    endpoint: EndpointState,
    policy: PolicyState,
) -> Decision:
    intrinsic = docs.get(EVIDENCE, evidence_key(command.version))
    relative = docs.get(EVIDENCE, evidence_key(command.version, command.environment))
    bound = bound_set(intrinsic, relative)
    given = docs.get(APPROVAL, approval_key(command.version, command.environment))
    approvals = counting_approvals(version, given, bound, policy.digest)
    served = Served(version=version.version, package=version.package, signatures=version.signatures)
    settings = settings_of(docs, endpoint.endpoint)
    # Without another version to be held against there is nothing to roll out over: a first release goes at once.
    again = _is_live(endpoint, version)
    stepwise = None if endpoint.live is None or again else settings.rollout
    started = ReleaseStarted(
        endpoint=endpoint.endpoint,
        release=endpoint.n_releases + 1,
        generation=endpoint.generation + 1,
        strategy="direct" if stepwise is None else "canary",
        served=served,
        ticket=command.ticket,
        approved_by=approvers(approvals),
        evidence_set=bound,
        policy=policy.digest,
    )
    if stepwise is not None:
        planned = begin(endpoint, settings, stepwise, started.release, served)
        effect = step_plan(environment, endpoint, planned, 0, started.generation, LOAD_PATIENCE_S)
        return Decision((started, planned), (effect,))
    effect = ApplyPlan(
        subject=endpoint.endpoint,
        fence=started.generation,
        target=environment.target,
        live=served,
        previous=served_of(endpoint.previous if again else endpoint.live),
        fallback=endpoint.fallback,
        patience_s=LOAD_PATIENCE_S,
        capture=settings.capture,
    )
    return Decision((started,), (effect,))


def needs_advance(command: AdvanceRollout, docs: Docs) -> tuple[DocRef, ...]:
    """All that a promotion of the version on its way would need."""
    refs = list(needs_rollout(command, docs))
    ref = DocRef(ENDPOINT.name, command.endpoint)
    endpoint = docs.get(ENDPOINT, command.endpoint) if docs.has(ref) else None
    if endpoint is not None and endpoint.rollout is not None:
        refs += needs_promote(_promotion(endpoint.endpoint, endpoint.rollout), docs)
    return tuple(dict.fromkeys(refs))


def _promotion(endpoint: str, rollout: Rollout) -> PromoteVersion:
    environment = parse_endpoint(endpoint).environment
    return PromoteVersion(id="", version=rollout.served.version, environment=environment)


def move_on(docs: Docs, command: AdvanceRollout, context: Context) -> Decision | Refusal:
    """Move a rollout on by hand: evidence and approvals must still hold, only the statistics are passed over."""
    endpoint = docs.get(ENDPOINT, command.endpoint)
    standing: list[Reason] = []
    if endpoint is not None and endpoint.rollout is not None:
        version = endpoint.rollout.served.version
        environment = _environment(docs, parse_endpoint(command.endpoint).environment)
        policy = policy_of(docs, model_of(version).namespace)
        for missing in (environment, policy):
            if isinstance(missing, Refusal):
                return missing
        assert not isinstance(environment, Refusal) and not isinstance(policy, Refusal)
        standing = [
            reason
            for reason in standing_of(docs, version, environment, endpoint, policy, context.now)
            if reason.rule != "delivery.rollout-active"
        ]
    return advance_rollout(docs, command, context, standing)


def confirm_plan(docs: Docs, command: ConfirmPlan, context: Context) -> Decision | Refusal:
    """Close the open rollout with what was seen. A report on another generation is old news."""
    endpoint = docs.get(ENDPOINT, command.endpoint)
    environment = docs.get(ENVIRONMENT, parse_endpoint(command.endpoint).environment)
    rollout = None if endpoint is None else endpoint.rollout
    if endpoint is None or environment is None or rollout is None:
        return Decision(())
    if rollout.generation != command.generation:
        return Decision(())
    capture = capture_of(docs, command.endpoint)
    if rollout.state == "rolling_back":
        if not command.applied:
            return undo_rollback(environment, endpoint, rollout, command.detail, capture)
        confirmed = RollbackConfirmed(
            endpoint=command.endpoint, generation=command.generation, took_us=command.took_us
        )
        return Decision((confirmed,))
    if not command.applied:
        return call_off(environment, endpoint, rollout, command.detail, capture)
    stepwise = rollout_of(docs, endpoint)
    if stepwise is not None and rollout.state in ("preparing", "moving"):
        return Decision((step_served(endpoint, stepwise[1], command.generation),))
    if rollout.state not in ("preparing", "completing"):
        return Decision(())
    live = ReleaseWentLive(
        endpoint=command.endpoint,
        release=rollout.release,
        supersedes=endpoint.live.release if endpoint.live else None,
        generation=command.generation,
        took_us=command.took_us,
    )
    return Decision((live,))
