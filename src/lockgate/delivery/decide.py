"""Decisions of delivery: what may be released. How it comes back is decided in way_back.py."""

from __future__ import annotations

from typing import cast

import msgspec

from lockgate.core.documents import DocRef, Docs
from lockgate.core.errors import did_you_mean
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import parse_endpoint
from lockgate.delivery.advance import (
    advance_rollout,
    begin,
    needs_rollout,
    rollout_of,
    settings_of,
    stages_left_out,
    step_plan,
    step_served,
)
from lockgate.delivery.messages import (
    AdvanceRollout,
    ApplyPlan,
    ConfirmPlan,
    PromoteVersion,
    ReleaseInEmergency,
    ReleaseStarted,
    ReleaseWentLive,
    RollbackConfirmed,
    Served,
    TicketConfirmed,
)
from lockgate.delivery.rollouts.policy import RolloutPolicy
from lockgate.delivery.standing import (
    Consent,
    consent_of,
    guards_of,
    makers_there,
    needs_promote,
    standing_of,
    unknown_reasons,
    way_back_of,
    way_back_reasons,
)
from lockgate.delivery.state import (
    DRILL,
    ENDPOINT,
    ENVIRONMENT,
    RELEASE,
    EndpointState,
    EnvironmentState,
    Rollout,
)
from lockgate.delivery.way_back import call_off, capture_of, served_of, undo_rollback
from lockgate.governance.break_glass import close_review as close
from lockgate.governance.break_glass import expired, frozen_reasons, named_right, needs_break_glass
from lockgate.governance.decide import approve_version as approve
from lockgate.governance.decide import needs_approve, policy_of
from lockgate.governance.judgement import (
    WAITS_FOR_PEOPLE,
    approvers,
    by_a_person,
)
from lockgate.governance.messages import (
    ApproveVersion,
    CloseReview,
    ConsumerSignedOff,
    ReleasePlanWritten,
    SignOff,
    WriteReleasePlan,
)
from lockgate.governance.release_plan import ReleasePlan, plan_reasons
from lockgate.governance.state import (
    BREAK_GLASS,
    POLICY,
    RELEASE_PLAN,
    SIGN_OFF,
    BreakGlassState,
    PolicyState,
    approval_key,
)
from lockgate.governance.tickets.tracker import (
    TICKET_FACT,
    WAITS_FOR_TRACKER,
    TicketFact,
    confirmed,
    line_reasons,
    ticket_reasons,
)
from lockgate.registry.decide import known_version, model_of, wrong_state
from lockgate.registry.makers import maker_refs, makers_of, not_by_a_maker
from lockgate.registry.state import MODEL, VERSION, VersionState
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


def promote_version(docs: Docs, command: PromoteVersion, context: Context) -> Decision | Refusal:
    """Start a release when nothing stands in its way; otherwise name everything that does."""
    known = _known(docs, command.version, command.environment)
    if isinstance(known, Refusal):
        return known
    version, environment, endpoint, policy = known
    model = docs.get(MODEL, version.model)
    assert model is not None, "a version's model is declared before it"
    fact = cast(TrustFact, context.facts[TRUST_FACT])
    asked: TicketFact | None = None
    found = standing_of(docs, command.version, environment, endpoint, policy, context.now)
    if _is_live(endpoint, version) and not endpoint.rollout:
        if endpoint.live is not None and endpoint.live.served.signatures == version.signatures:
            return Decision(())
        # The same bytes, vouched for anew: nothing is let in that was not let in before.
        reasons = load_reasons(version, fact, revoked(docs))
    else:
        rule, place = policy.policy.rule(model.tier), environment.environment
        asked = cast("TicketFact | None", context.facts.get(TICKET_FACT))
        reasons = found.reasons
        reasons += ticket_reasons(rule, environment.sensitivity, place, command.ticket, asked)
        reasons += line_reasons(command.pull_request, "pull request")
        told = {reason.rule for reason in reasons}
        reasons += [one for one in trust_reasons(version, fact, revoked(docs)) if one.rule not in told]
    if reasons:
        waiting = all(reason.rule in WAITS_FOR_PEOPLE | WAITS_FOR_TRACKER for reason in reasons)
        return Refusal(reasons=tuple(reasons), waiting=waiting)
    started = _started(docs, version, environment, endpoint, policy, found.consent)
    started = msgspec.structs.replace(
        started,
        ticket=command.ticket,
        pull_request=command.pull_request,
        waivers=tuple(dict.fromkeys(waived.waiver for waived in found.waived)),
    )
    # Without another version to be held against there is nothing to roll out over: a first release goes at once.
    at_once = endpoint.live is None or _is_live(endpoint, version)
    stepwise = None if at_once else settings_of(docs, endpoint.endpoint).rollout
    decision, ticket = _set_out(docs, environment, endpoint, started, stepwise), confirmed(asked)
    if ticket is None:
        return decision
    known_there = TicketConfirmed(
        endpoint=endpoint.endpoint, release=started.release, ticket=command.ticket, confirmed=ticket
    )
    begun, *rest = decision.events
    return Decision((begun, known_there, *rest), decision.effects)


def promotion_is_stale(docs: Docs, command: PromoteVersion | ReleaseInEmergency, context: Context) -> bool:
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


def _started(
    docs: Docs,
    version: VersionState,
    environment: EnvironmentState,
    endpoint: EndpointState,
    policy: PolicyState,
    consent: Consent,
) -> ReleaseStarted:
    """The start of the next release to an endpoint, with what is known of the version there."""
    plan = docs.get(RELEASE_PLAN, approval_key(version.version, environment.environment))
    return ReleaseStarted(
        endpoint=endpoint.endpoint,
        release=endpoint.n_releases + 1,
        generation=endpoint.generation + 1,
        strategy="direct",
        served=Served(version=version.version, package=version.package, signatures=version.signatures),
        ticket="",
        pull_request="",
        approved_by=approvers(consent.approvals),
        evidence_set=consent.bound,
        policy=policy.digest,
        plan=None if plan is None else plan.plan.digest,
        waivers=(),
        break_glass="",
    )


def _set_out(
    docs: Docs,
    environment: EnvironmentState,
    endpoint: EndpointState,
    started: ReleaseStarted,
    stepwise: RolloutPolicy | None,
) -> Decision:
    """The decision that starts a release: by steps, or at once."""
    settings = settings_of(docs, endpoint.endpoint)
    again = endpoint.live is not None and endpoint.live.served.package == started.served.package
    if stepwise is not None:
        started = msgspec.structs.replace(started, strategy="canary")
        planned = begin(endpoint, settings, stepwise, started.release, started.served)
        effect = step_plan(environment, endpoint, planned, 0, started.generation, LOAD_PATIENCE_S)
        return Decision((started, planned), (effect,))
    effect = ApplyPlan(
        subject=endpoint.endpoint,
        fence=started.generation,
        target=environment.target,
        live=started.served,
        previous=served_of(endpoint.previous if again else endpoint.live),
        fallback=endpoint.fallback,
        patience_s=LOAD_PATIENCE_S,
        capture=settings.capture,
        adopted=endpoint.adopted,
    )
    return Decision((started,), (effect,))


def needs_emergency(command: ReleaseInEmergency, docs: Docs) -> tuple[DocRef, ...]:
    """What a promotion would need, and every release there was to the endpoint."""
    promotion = PromoteVersion(id="", version=command.version, environment=command.environment)
    releases = DocRef(RELEASE.name, f"{command.environment}/{model_of(command.version)}#*")
    return (*needs_promote(promotion, docs), releases)


def release_in_emergency(docs: Docs, command: ReleaseInEmergency, context: Context) -> Decision | Refusal:
    """At once and past the policy: what was live there before by one person's right, else by that of two."""
    known = _known(docs, command.version, command.environment)
    if isinstance(known, Refusal):
        return known
    version, environment, endpoint, policy = known
    right = named_right(docs, version.model, command.environment, command.number)
    if isinstance(right, Refusal):
        return right
    if endpoint.live is not None and endpoint.live.served.package == version.package and not endpoint.rollout:
        return Decision(())
    reasons = _emergency_reasons(docs, version, endpoint, right, context)
    reasons += way_back_reasons(environment, endpoint)
    if reasons:
        waiting = all(reason.rule == "governance.second-person" for reason in reasons)
        return Refusal(reasons=tuple(reasons), waiting=waiting)
    consent = consent_of(docs, version, environment, policy)
    started = _started(docs, version, environment, endpoint, policy, consent)
    started = msgspec.structs.replace(started, ticket=right.incident, break_glass=right.name)
    return _set_out(docs, environment, endpoint, started, None)


def _emergency_reasons(
    docs: Docs, version: VersionState, endpoint: EndpointState, right: BreakGlassState, context: Context
) -> list[Reason]:
    reasons = by_a_person(context) + expired(right, context.now)
    if context.actor not in (right.broken_by, right.seconded_by):
        reasons.append(
            Reason(
                rule="governance.break-glass-terms",
                message=f"{right.name} is not {context.actor}'s",
                measured=context.actor,
                limit=right.broken_by + (f" or {right.seconded_by}" if right.seconded_by else ""),
                remedy=f"lockgate break-glass {endpoint.endpoint} --second {right.name}",
            )
        )
    fact = cast(TrustFact, context.facts[TRUST_FACT])
    reasons += trust_reasons(version, fact, revoked(docs))
    releases = docs.all(RELEASE, f"{endpoint.endpoint}#")
    was_live = any(one.live_at is not None and one.package == version.package for one in releases)
    allowed = ("candidate", "validated") if was_live else ("validated",)
    if version.state not in allowed:
        reasons.append(
            Reason(
                rule="registry.state",
                message=f"{version.version} is {version.state}",
                measured=version.state,
                limit=" or ".join(allowed),
                remedy=version.way_on,
            )
        )
    if was_live:
        return reasons
    if not right.seconded_by:
        reasons.append(
            Reason(
                rule="governance.second-person",
                message=f"{version.version} was never live on {endpoint.endpoint}: that takes two people",
                measured=f"{right.broken_by} alone",
                limit="two people",
                remedy=f"lockgate break-glass {endpoint.endpoint} --second {right.name} --as NAME",
            )
        )
    else:
        reasons += _second_of_two(docs, version, endpoint, right)
    return reasons + frozen_reasons(docs.all(BREAK_GLASS, f"{version.model}#"), context.now)


def _second_of_two(
    docs: Docs, version: VersionState, endpoint: EndpointState, right: BreakGlassState
) -> list[Reason]:
    """Whoever stands by an emergency as the second person brings in nothing that he made himself."""
    makers = makers_of(docs, version)
    deed = makers.deed_of(right.seconded_by)
    if deed is None:
        return []
    return [
        Reason(
            rule="governance.separation-of-duties",
            message=f"{right.seconded_by} {deed} and cannot be the second person who lets it in",
            measured=right.seconded_by,
            limit=f"not {makers.shown}",
            remedy=f"break the glass again, with another second person: lockgate break-glass {endpoint.endpoint}",
        )
    ]


def needs_review(command: CloseReview, docs: Docs) -> tuple[DocRef, ...]:
    """What the review reads, and who made what went out by the right."""
    every = DocRef(RELEASE.name, f"{command.environment}/{command.model}#*")
    refs = [
        *needs_break_glass(command, docs),
        every,
        DocRef(ENVIRONMENT.name, command.environment),
    ]
    for version in _let_in(docs, command) if docs.has(every) else ():
        refs += maker_refs(docs, version)
    return tuple(dict.fromkeys(refs))


def _let_in(docs: Docs, command: CloseReview) -> tuple[str, ...]:
    """The versions that went out by a right, each once."""
    releases = docs.all(RELEASE, f"{command.environment}/{command.model}#")
    return tuple(dict.fromkeys(one.version for one in releases if one.break_glass == f"B-{command.number}"))


def close_review(docs: Docs, command: CloseReview, context: Context) -> Decision | Refusal:
    """The end of an emergency's review; nobody reviews that what he made was let in."""
    policy, environment = (
        docs.get(POLICY, command.model.partition("/")[0]),
        docs.get(ENVIRONMENT, command.environment),
    )
    let_in = []
    for key in _let_in(docs, command):
        version = docs.get(VERSION, key)
        assert version is not None and policy is not None and environment is not None, "it was released there"
        let_in.append(makers_there(docs, version, environment, policy))
    return close(docs, command, context, let_in)


def needs_approval(command: ApproveVersion, docs: Docs) -> tuple[DocRef, ...]:
    model = model_of(command.version)
    return (
        *needs_approve(command, docs),
        DocRef(MODEL.name, str(model)),
        DocRef(ENVIRONMENT.name, command.environment),
        DocRef(ENDPOINT.name, f"{command.environment}/{model}"),
    )


def approve_version(docs: Docs, command: ApproveVersion, context: Context) -> Decision | Refusal:
    """A person's agreement; where the policy asks to know who made a version, not before that is known."""
    version = docs.get(VERSION, command.version)
    model = None if version is None else docs.get(MODEL, version.model)
    policy = docs.get(POLICY, model_of(command.version).namespace)
    environment = docs.get(ENVIRONMENT, command.environment)
    if version is None or model is None or policy is None or environment is None:
        return approve(docs, command, context)
    makers = makers_there(docs, version, environment, policy)
    endpoint = docs.get(ENDPOINT, f"{command.environment}/{version.model}")
    unknown = unknown_reasons(makers, policy.policy.rule(model.tier), environment, endpoint)
    return approve(docs, command, context, makers, unknown)


def _known(
    docs: Docs, key: str, name: str
) -> tuple[VersionState, EnvironmentState, EndpointState, PolicyState] | Refusal:
    """The version, where it is to go, and the policy in force; or which of them nobody knows."""
    version = known_version(docs, key)
    if isinstance(version, Refusal):
        return version
    environment = _environment(docs, name)
    if isinstance(environment, Refusal):
        return environment
    policy = policy_of(docs, model_of(key).namespace)
    if isinstance(policy, Refusal):
        return policy
    endpoint = docs.get(ENDPOINT, f"{name}/{version.model}")
    if endpoint is None or endpoint.removed_at is not None:
        return refuse(
            Reason(
                rule="delivery.endpoint-unknown",
                message=f"endpoint {name}/{version.model} is "
                + ("not declared" if endpoint is None else "removed"),
                remedy="declare it in lockgate.toml: consumers, dashboards and the fallback of a first release",
            )
        )
    return version, environment, endpoint, policy


def needs_written(command: WriteReleasePlan | SignOff, docs: Docs) -> tuple[DocRef, ...]:
    return needs_promote(
        PromoteVersion(id="", version=command.version, environment=command.environment), docs
    )


def write_release_plan(docs: Docs, command: WriteReleasePlan, context: Context) -> Decision | Refusal:
    """The risks as they were written, with the way back and its last rehearsal as the journal knows them."""
    known = _known(docs, command.version, command.environment)
    if isinstance(known, Refusal):
        return known
    version, _, endpoint, _ = known
    if version.state not in ("candidate", "validated"):
        return wrong_state(version, "planned for")
    guards = guards_of(docs, endpoint.endpoint)
    reasons = plan_reasons(command.risks, guards, parse_endpoint(endpoint.endpoint).shown)
    if reasons:
        return Refusal(reasons=tuple(reasons))
    drill = docs.get(DRILL, endpoint.endpoint)
    figures = drill.figures if drill is not None and drill.figures and drill.figures.passed else None
    plan = ReleasePlan(
        risks=command.risks,
        back_to=way_back_of(endpoint),
        drilled_at=drill.finished_at if drill is not None and figures else None,
        drilled_ms=figures.first_p99_us / 1000 if figures else None,
        note=command.note,
    )
    before = docs.get(RELEASE_PLAN, approval_key(command.version, command.environment))
    if before is not None and before.plan.digest == plan.digest:
        return Decision(())
    return Decision(
        (ReleasePlanWritten(version=command.version, environment=command.environment, plan=plan),)
    )


def sign_off(docs: Docs, command: SignOff, context: Context) -> Decision | Refusal:
    """A consumer's agreement, told by a person who did not make the version."""
    known = _known(docs, command.version, command.environment)
    if isinstance(known, Refusal):
        return known
    version, _, endpoint, _ = known
    reasons = by_a_person(context) + not_by_a_maker(context, makers_of(docs, version), "sign it off")
    if command.consumer not in endpoint.consumers:
        reasons.append(
            Reason(
                rule="governance.consumer-unknown",
                message=f"{command.consumer} is no consumer of {endpoint.endpoint}",
                measured=command.consumer,
                limit=", ".join(endpoint.consumers) or "none is declared",
                remedy=did_you_mean(command.consumer, endpoint.consumers)
                if endpoint.consumers
                else "nobody need sign: declare consumers under the endpoint in lockgate.toml",
            )
        )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    before = docs.get(SIGN_OFF, approval_key(command.version, command.environment))
    if before is not None and command.consumer in {one.consumer for one in before.signed}:
        return Decision(())
    return Decision(
        (
            ConsumerSignedOff(
                version=command.version,
                environment=command.environment,
                consumer=command.consumer,
                comment=command.comment,
            ),
        )
    )


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
    """Move a rollout on by hand, which takes a person: evidence and approvals must still hold, only the statistics are
    passed over."""
    if machine := by_a_person(context):
        return Refusal(reasons=tuple(machine))
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
            for reason in standing_of(docs, version, environment, endpoint, policy, context.now).reasons
            if reason.rule not in ("delivery.rollout-active", "governance.rollout")
        ]
        model = docs.get(MODEL, str(model_of(version)))
        if model is not None:
            asked = policy.policy.rule(model.tier).rollout.get(environment.sensitivity, ())
            standing += stages_left_out(docs, command, endpoint, asked, context.now)
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
