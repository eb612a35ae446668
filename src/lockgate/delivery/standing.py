"""What stands between a version and an environment, over everything that a promotion would read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import DocRef, Docs, DocumentKind
from lockgate.core.messages import Reason
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.delivery.messages import PromoteVersion, ReleaseStarted, Served
from lockgate.delivery.rollouts.asked import rollout_reasons
from lockgate.delivery.state import (
    DRILL,
    ENDPOINT,
    ENVIRONMENT,
    SETTINGS,
    EndpointState,
    EnvironmentState,
    ReleaseState,
    RolloutState,
)
from lockgate.gates.messages import EvidenceLine
from lockgate.gates.state import EVIDENCE, EvidenceState, evidence_key
from lockgate.governance.break_glass import frozen_reasons
from lockgate.governance.decide import bound_of
from lockgate.governance.judgement import (
    DAY_US,
    WAITS_FOR_PEOPLE,
    Waived,
    age_reasons,
    approval_reasons,
    approvers,
    baseline_reasons,
    counting_approvals,
    empty_seats,
    gate_reasons,
    limit_reasons,
    pass_over,
    reaching,
    unknown_maker_reasons,
)
from lockgate.governance.policies.policy import AnyPolicy, Seat, StageTerms, TierRule, quorum_of
from lockgate.governance.release_plan import Mishap, ReleasePlan, plan_reasons
from lockgate.governance.state import (
    APPROVAL,
    BREAK_GLASS,
    POLICY,
    RELEASE_PLAN,
    SIGN_OFF,
    WAIVER,
    Approval,
    PlanState,
    PolicyState,
    approval_key,
)
from lockgate.governance.tickets.tracker import (
    ConfirmedTicket,
    TicketQuestion,
    asked_in,
    fact_of,
    ticket_reasons,
)
from lockgate.registry.decide import model_of
from lockgate.registry.makers import MakerLine, Makers, maker_refs, makers_of
from lockgate.registry.state import MODEL, VERSION, VersionState
from lockgate.registry.trust import EVERY_KEY, revocation_reasons, revoked


def needs_promote(command: PromoteVersion, docs: Docs) -> tuple[DocRef, ...]:
    model = model_of(command.version)
    every, here = DocRef(ENVIRONMENT.name, "*"), DocRef(ENDPOINT.name, f"{command.environment}/{model}")
    refs = [
        every,
        here,
        *maker_refs(docs, command.version),
        DocRef(MODEL.name, str(model)),
        DocRef(POLICY.name, model.namespace),
        DocRef(EVIDENCE.name, evidence_key(command.version)),
        DocRef(EVIDENCE.name, evidence_key(command.version, command.environment)),
        DocRef(APPROVAL.name, approval_key(command.version, command.environment)),
        DocRef(SETTINGS.name, f"{command.environment}/{model}"),
        EVERY_KEY,
        DocRef(DRILL.name, f"{command.environment}/{model}"),
        DocRef(RELEASE_PLAN.name, approval_key(command.version, command.environment)),
        DocRef(SIGN_OFF.name, approval_key(command.version, command.environment)),
        DocRef(WAIVER.name, f"{model}#*"),
        DocRef(BREAK_GLASS.name, f"{model}#*"),
    ]
    if docs.has(every):
        below = _steps_below(docs.all(ENVIRONMENT, ""), command.environment)
        refs += [DocRef(ENDPOINT.name, f"{step.environment}/{model}") for step in below]
    endpoint = docs.get(ENDPOINT, here.key) if docs.has(here) else None
    if endpoint is not None and endpoint.last_live is not None:
        refs.append(DocRef(VERSION.name, endpoint.last_live.served.version))
    return tuple(dict.fromkeys(refs))


def _steps_below(ladder: tuple[EnvironmentState, ...], environment: str) -> tuple[EnvironmentState, ...]:
    """The environments a version must run in before `environment`: all of the next lower order."""
    here = next((step for step in ladder if step.environment == environment), None)
    lower = [step for step in ladder if here is not None and step.order < here.order]
    next_lower = max((step.order for step in lower), default=None)
    return tuple(step for step in lower if step.order == next_lower)


class Consent(NamedTuple):
    """What people are asked to agree to, whose word about it does not count, and who has agreed."""

    bound: Digest
    makers: Makers
    judged_by: frozenset[str]
    approvals: tuple[Approval, ...]


class Findings(NamedTuple):
    """What stands in the way; empty when it is free. `waived` is what would, had nobody passed over it for a time."""

    reasons: list[Reason]
    waived: list[Waived]
    consent: Consent


def standing_of(
    docs: Docs,
    key: str,
    environment: EnvironmentState,
    endpoint: EndpointState,
    policy: PolicyState,
    now: Micros,
) -> Findings:
    """Everything that still stands between a version and an environment."""
    version = docs.get(VERSION, key)
    model = None if version is None else docs.get(MODEL, version.model)
    assert version is not None and model is not None
    rule, sensitivity = policy.policy.rule(model.tier), environment.sensitivity
    name = environment.environment
    consent = consent_of(docs, version, environment, policy)
    reasons = _life_reasons(version, environment)
    reasons += revocation_reasons(version.version, version.signed_by, revoked(docs))
    reasons += _ladder_reasons(docs, version, environment)
    makers = consent.makers
    judged, waived = _evidence_reasons(docs, rule, environment, endpoint, makers, policy, now)
    reasons += judged
    if sensitivity in rule.release_plan:
        reasons += _plan_reasons(docs, key, endpoint, docs.get(RELEASE_PLAN, approval_key(key, name)))
    reasons += unknown_reasons(makers, rule, environment, endpoint)
    reasons += approval_reasons(
        makers,
        docs.get(APPROVAL, approval_key(key, name)),
        consent.approvals,
        bound=consent.bound,
        policy=policy.digest,
        quorum=quorum_of(policy.policy, model.tier, model.kpi, sensitivity),
        environment=name,
        judged_by=consent.judged_by,
    )
    if sensitivity in policy.policy.sign_off:
        reasons += _sign_off_reasons(docs, makers, environment, endpoint)
    if sensitivity != "open":
        reasons += frozen_reasons(docs.all(BREAK_GLASS, f"{version.model}#"), now)
    reasons += _rollout_reasons(docs, rule.rollout.get(sensitivity, ()), endpoint, version)
    reasons += _drill_reasons(docs, rule.drill_max_age_days.get(sensitivity), endpoint, now)
    return Findings(reasons + way_back_reasons(environment, endpoint), waived, consent)


def consent_of(
    docs: Docs, version: VersionState, environment: EnvironmentState, policy: PolicyState
) -> Consent:
    key, name = version.version, environment.environment
    makers, bound = makers_there(docs, version, environment, policy), bound_of(docs, key, name)
    given = docs.get(APPROVAL, approval_key(key, name))
    judged_by = _judged_by(docs, version, name)
    approvals = counting_approvals(makers, given, bound, policy.digest, judged_by)
    return Consent(bound, makers, judged_by, approvals)


def _judged_by(docs: Docs, version: VersionState, environment: str) -> frozenset[str]:
    """Who recorded the evidence that approvals rest on. Not asked where names are only claimed."""
    found = [docs.get(EVIDENCE, evidence_key(version.version, place)) for place in ("", environment)]
    return frozenset() if version.claimed else frozenset(one.recorded_by for one in found if one is not None)


def makers_there(
    docs: Docs, version: VersionState, environment: EnvironmentState, policy: PolicyState
) -> Makers:
    """Who made a version, held as strictly against approvers as the policy asks in that environment."""
    model = docs.get(MODEL, version.model)
    strict = model is not None and policy.policy.rule(model.tier).knows_makers(environment.sensitivity)
    return makers_of(docs, version, strict=strict and not version.claimed)


def unknown_reasons(
    makers: Makers, rule: TierRule, environment: EnvironmentState, endpoint: EndpointState | None
) -> list[Reason]:
    """Whom nobody knows of the makers, where the policy asks to know them."""
    if not rule.knows_makers(environment.sensitivity):
        return []
    live = endpoint.live.served.version if endpoint is not None and endpoint.live is not None else None
    return unknown_maker_reasons(makers, live, environment.environment)


def _life_reasons(version: VersionState, environment: EnvironmentState) -> list[Reason]:
    allowed = ("candidate", "validated") if environment.sensitivity == "open" else ("validated",)
    if version.state in allowed:
        return []
    return [
        Reason(
            rule="registry.state",
            message=f"{version.version} is {version.state}",
            measured=version.state,
            limit=" or ".join(allowed),
            remedy=version.way_on,
        )
    ]


def _ladder_reasons(docs: Docs, version: VersionState, environment: EnvironmentState) -> list[Reason]:
    reasons = []
    for below in _steps_below(docs.all(ENVIRONMENT, ""), environment.environment):
        there = docs.get(ENDPOINT, f"{below.environment}/{version.model}")
        served = None if there is None or there.live is None else there.live.served
        if served is None or served.package != version.package:
            reasons.append(_not_there(version, below, served))
    return reasons


def _not_there(version: VersionState, below: EnvironmentState, served: Served | None) -> Reason:
    return Reason(
        rule="delivery.ladder",
        message=f"the same bytes must run in {below.environment} first",
        measured=served.version if served else "nothing live",
        limit=version.version,
        evidence=version.package,
        remedy=f"lockgate promote {version.version} --to {below.environment}",
    )


def champion_of(docs: Docs, endpoint: EndpointState, package: Digest) -> Served | None:
    """What a package is compared with: what is live; on an endpoint that was taken down and declared again, what was
    live then, as long as its bytes are kept. Nothing is compared with itself."""
    if endpoint.live is not None:
        return endpoint.live.served
    last = endpoint.last_live
    if last is None or last.served.package == package:
        return None
    known = docs.get(VERSION, last.served.version)
    return None if known is None or known.collected_at is not None else last.served


def _evidence_reasons(
    docs: Docs,
    rule: TierRule,
    environment: EnvironmentState,
    endpoint: EndpointState,
    makers: Makers,
    policy: PolicyState,
    now: Micros,
) -> tuple[list[Reason], list[Waived]]:
    """What evidence has against it, and what of that is waived."""
    if environment.sensitivity == "open":
        return [], []
    version = makers.version
    name, key = environment.environment, version.version
    wanted = rule.relative.get(environment.sensitivity, ())
    order = {step.environment: step.order for step in docs.all(ENVIRONMENT, "")}
    waivers = reaching(docs.all(WAIVER, f"{version.model}#"), name, order)
    champion = champion_of(docs, endpoint, version.package)
    standing, passed = list[Reason](), list[Waived]()
    for gates, environment_of, asked in ((rule.gates, "", True), (wanted, name, bool(wanted))):
        if not asked:
            continue
        evidence = docs.get(EVIDENCE, evidence_key(key, environment_of))
        judge = f"lockgate judge {key}" + (f" --for {name}" if environment_of else "")
        reasons = gate_reasons(gates, evidence, remedy=judge)
        reasons += limit_reasons(rule.limits, gates, evidence, remedy=judge)
        left, waived = pass_over(reasons, evidence, waivers, makers, policy.policy, now)
        if environment_of:
            left += baseline_reasons(evidence, champion.package if champion else None, name)
        standing += left + age_reasons(evidence, rule, now)
        passed += waived
    return standing, passed


def way_back_of(endpoint: EndpointState) -> str:
    """Where a rollback of the next release would lead, in the words of a release plan."""
    return "fallback" if endpoint.live is None else endpoint.live.served.version


def guards_of(docs: Docs, endpoint: str) -> Mapping[str, str]:
    """The guards that watch releases to an endpoint, each with what it would show."""
    known = docs.get(SETTINGS, endpoint)
    rollout = None if known is None else known.settings.rollout
    return (
        {} if rollout is None else {name: rollout.guards[name].shows(name) for name in sorted(rollout.guards)}
    )


def _plan_reasons(docs: Docs, key: str, endpoint: EndpointState, plan: PlanState | None) -> list[Reason]:
    """A plan there must be, about the way back as it is now, with signals that still exist."""
    environment = parse_endpoint(endpoint.endpoint).environment
    remedy = f"lockgate release-plan {key} --for {environment}"
    if plan is None:
        return [
            Reason(
                rule="governance.release-plan",
                message=f"{environment} asks for a release plan: what could fail, and what would show it",
                measured="none",
                remedy=remedy,
            )
        ]
    reasons = plan_reasons(plan.plan.risks, guards_of(docs, endpoint.endpoint), endpoint.endpoint)
    back = way_back_of(endpoint)
    if plan.plan.back_to != back:
        reasons.append(
            Reason(
                rule="governance.release-plan",
                message="the release plan is about another way back than there is now",
                measured=plan.plan.back_to,
                limit=back,
                remedy=remedy,
            )
        )
    return reasons


def _sign_off_reasons(
    docs: Docs, makers: Makers, environment: EnvironmentState, endpoint: EndpointState
) -> list[Reason]:
    """Who reads an endpoint agrees to a version that may break them, also when it was taken down meanwhile; not by the
    word of who made it."""
    version, known_there = makers.version, endpoint.live or endpoint.last_live
    if known_there is None:
        return []
    live, new = parse_version(known_there.served.version).version, parse_version(version.version).version
    if new.major <= live.major:
        return []
    known = docs.get(SIGN_OFF, approval_key(version.version, environment.environment))
    signed = {one.consumer for one in known.signed if not makers.include(one.by)} if known else set()
    return [
        Reason(
            rule="governance.sign-off",
            message=f"{consumer} reads {endpoint.endpoint} and has not agreed to a new major version",
            measured=f"{live} -> {new}",
            limit="agreement of every consumer",
            evidence=version.package,
            remedy=f"lockgate sign-off {version.version} --for {environment.environment} "
            f"--consumer {consumer} --as NAME",
        )
        for consumer in endpoint.consumers
        if consumer not in signed
    ]


def _rollout_reasons(
    docs: Docs, asked: tuple[StageTerms, ...], endpoint: EndpointState, version: VersionState
) -> list[Reason]:
    """The stages that the policy asks for, where there is something to be held against. A first release has nothing.

    A name that was removed is no way round them: what ran there last comes first, as long as it may.
    """
    if not asked:
        return []
    shown = parse_endpoint(endpoint.endpoint).shown
    if endpoint.live is not None:
        if endpoint.live.served.package == version.package:
            return []
        known = docs.get(SETTINGS, endpoint.endpoint)
        planned = None if known is None else known.settings.rollout
        return rollout_reasons(planned, asked, version=version.version, endpoint=shown)
    last = endpoint.last_live
    if last is None or last.served.package == version.package:
        return []
    before = docs.get(VERSION, last.served.version)
    if before is None or before.state != "validated" or before.collected_at is not None:
        return []
    environment = shown.partition("/")[0]
    return [
        Reason(
            rule="governance.rollout",
            message=f"{before.version} ran on {shown} when it was removed: {version.version} goes out beside it",
            measured="nothing live",
            limit=", then ".join(terms.text for terms in asked),
            remedy=f"lockgate promote {before.version} --to {environment}; "
            f"if it is not to come back: lockgate retire {before.version}",
        )
    ]


def _drill_reasons(docs: Docs, days: int | None, endpoint: EndpointState, now: Micros) -> list[Reason]:
    """The way back was rehearsed lately. Before a second version was live there is none to rehearse."""
    if days is None or endpoint.previous is None:
        return []
    drill = docs.get(DRILL, endpoint.endpoint)
    passed = drill is not None and drill.figures is not None and drill.figures.passed
    at = drill.finished_at if drill is not None and passed else None
    if at is not None and now - at <= days * DAY_US:
        return []
    return [
        Reason(
            rule="governance.drill-age",
            message=f"the way back of {endpoint.endpoint} was not rehearsed lately",
            measured="never with success" if at is None else f"{(now - at) // DAY_US} days ago",
            limit=f"{days} days",
            remedy=f"lockgate drill rollback {endpoint.endpoint}",
        )
    ]


def way_back_reasons(environment: EnvironmentState, endpoint: EndpointState) -> list[Reason]:
    if endpoint.rollout is not None:
        return [
            Reason(
                rule="delivery.rollout-active",
                message=f"{endpoint.rollout.served.version} is on its way to {endpoint.endpoint}",
                measured=endpoint.rollout.state,
                remedy=f"lockgate rollback {endpoint.endpoint} takes it back; lockgate status says how far it is",
            )
        ]
    guarded = environment.sensitivity != "open"
    if guarded and endpoint.live is None and endpoint.fallback.kind == "none":
        return [
            Reason(
                rule="delivery.no-way-back",
                message=f"{endpoint.endpoint} has no previous version and declares no fallback",
                remedy='declare fallback = { kind = "constant", value = ... } for it in lockgate.toml',
            )
        ]
    return []


def mishaps_of(ended: Sequence[tuple[ReleaseState, RolloutState | None]]) -> list[Mishap]:
    """What has gone wrong on an endpoint, newest first; its releases come in their order."""
    found = []
    for release, rollout in reversed(ended):
        if release.state not in ("failed", "rolled_back"):
            continue
        verdict = None if rollout is None else rollout.verdict
        failed = [guard for guard in (verdict.guards if verdict else ()) if guard.outcome == "fail"]
        found.append(
            Mishap(
                version=parse_version(release.version).shown,
                how="was taken back" if release.state == "rolled_back" else "did not get there",
                why=" ".join(release.detail.split()),
                guards=tuple(guard.guard for guard in failed),
            )
        )
    return found


# What no command on the way can remove: something else has to happen first.
ENDS = frozenset(
    {
        "delivery.ladder",
        "delivery.no-way-back",
        "governance.declined",
        "governance.drill-age",
        "governance.no-risk",
        "governance.no-signal",
        "governance.review-overdue",
        "governance.rollout",
        "governance.unknown-maker",
    }
)


def of_itself(reasons: list[Reason], rule: TierRule, intrinsic: EvidenceState | None) -> list[Reason]:
    """The reasons that evidence on the version alone would remove: a gate without any, or evidence too old."""
    known = None if intrinsic is None else intrinsic.evidence_set
    return [
        reason
        for reason in reasons
        if (reason.rule in rule.gates and reason.evidence is None)
        or (reason.rule == "governance.evidence-age" and reason.evidence == known)
    ]


def next_step(
    version: VersionState, endpoint: EndpointState, reasons: list[Reason], alone: list[Reason]
) -> str:
    """The one thing to do next on the way of `version` to `endpoint`.

    Args:
        alone: those of the reasons that new evidence on the version alone would remove.
    """
    rules = {reason.rule for reason in reasons}
    live = endpoint.live.served.package if endpoint.live else None
    if live == version.package and endpoint.rollout is None:
        return "done"
    if "delivery.rollout-active" in rules:
        return "wait"
    if version.state in ("rejected", "retired", "quarantined"):
        return "stop"
    if not reasons:
        return "promote"
    if any(reason.rule == "governance.evidence-age" for reason in alone):
        return "judge"
    if rules & {"gates.baseline-moved", "governance.evidence-age"}:
        # What the old judgement said no longer counts, for or against.
        return "judge-for"
    if any(reason.evidence and reason.remedy is None for reason in reasons):
        return "stop"
    if alone:
        return "judge"
    if "registry.state" in rules:
        return "validate"
    if rules & ENDS:
        return "stop"
    if rules <= WAITS_FOR_PEOPLE:
        return "approve"
    return "plan" if rules <= WAITS_FOR_PEOPLE | {"governance.release-plan"} else "judge-for"


def asks_tracker(get: Callable[[DocumentKind[Any], str], Any], command: PromoteVersion) -> bool:
    """Whether the policy has the tracker asked about the ticket of a promotion, as the journal stands now."""
    model = get(MODEL, str(model_of(command.version)))
    policy = get(POLICY, model_of(command.version).namespace)
    step = get(ENVIRONMENT, command.environment)
    if model is None or policy is None or step is None:
        return False
    return asked_in(policy.policy.rule(model.tier), step.sensitivity, command.ticket)


def question_of(command: PromoteVersion, actor: str, now: Micros) -> TicketQuestion:
    """What the tracker is asked about a promotion."""
    return TicketQuestion(
        ticket=command.ticket,
        version=command.version,
        environment=command.environment,
        actor=actor,
        requested_at=now,
        command=command.id,
    )


def stopped_by(
    docs: Docs, event: ReleaseStarted, ticket: ConfirmedTicket | None, policy: AnyPolicy, now: Micros
) -> list[Reason] | None:
    """What a policy has against a release that was started; None where its documents are not known.

    Approvals count as they did under the policy that was in force; of a ticket counts what its tracker said then.
    """
    name, version = parse_endpoint(event.endpoint), docs.get(VERSION, event.served.version)
    endpoint, then = docs.get(ENDPOINT, event.endpoint), docs.get(POLICY, name.model.namespace)
    ladder = docs.all(ENVIRONMENT, "")
    step = next((one for one in ladder if one.environment == name.environment), None)
    model = None if version is None else docs.get(MODEL, version.model)
    if endpoint is None or step is None or model is None or then is None:
        return None
    of_then = msgspec.structs.replace(then, policy=policy)
    reasons = standing_of(docs, event.served.version, step, endpoint, of_then, now).reasons
    rule = policy.rule(model.tier)
    fact = None if ticket is None else fact_of(ticket)
    return reasons + ticket_reasons(rule, step.sensitivity, name.environment, event.ticket, fact)


Decided = Literal["allowed", "waiting", "refused"]


class StandingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How far a version is from an environment.

    Attributes:
        next: one of `judge`, `validate`, `judge-for`, `plan`, `approve`, `promote`, `wait`, `stop`, `done`.
        bound: the digest an approval must name.
        quorum, seats: how many approvals are asked for, and in whose name; `empty` are those that are still missing.
        standing, approvals: who has approved so far, and in which roles.
        waived: what failed and is passed over for a time; its verdict stays what it is.
        ticket: what the ticket of a promotion has to match; empty when none is asked for.
        tracker: whether the tracker is asked about it too.
        decision: what a promotion would be told at this moment, its ticket aside.
        makers: who made the version, none of whom counts as approver.
    """

    next: str
    reasons: tuple[Reason, ...]
    bound: Digest
    baseline: str | None
    baseline_version: str | None
    quorum: int
    standing: tuple[str, ...]
    evidence: tuple[EvidenceLine, ...]
    intrinsic_gates: tuple[str, ...]
    relative_gates: tuple[str, ...]
    seats: tuple[Seat, ...] = ()
    empty: tuple[Seat, ...] = ()
    approvals: tuple[Approval, ...] = ()
    waived: tuple[Waived, ...] = ()
    plan: ReleasePlan | None = None
    ticket: str = ""
    tracker: bool = False
    decision: Decided = "refused"
    makers: tuple[MakerLine, ...] = ()


def standing_answer(
    docs: Docs,
    version: VersionState,
    environment: EnvironmentState,
    endpoint: EndpointState,
    policy: PolicyState,
    now: Micros,
) -> StandingAnswer:
    model = docs.get(MODEL, version.model)
    assert model is not None, "a version's model is declared before it"
    key, name, sensitivity = version.version, environment.environment, environment.sensitivity
    found = standing_of(docs, key, environment, endpoint, policy, now)
    intrinsic, relative = docs.get(EVIDENCE, evidence_key(key)), docs.get(EVIDENCE, evidence_key(key, name))
    bound, makers, _, approvals = found.consent
    rule, quorum = (
        policy.policy.rule(model.tier),
        quorum_of(policy.policy, model.tier, model.kpi, sensitivity),
    )
    plan = docs.get(RELEASE_PLAN, approval_key(key, name))
    champion = champion_of(docs, endpoint, version.package)
    step = next_step(version, endpoint, found.reasons, of_itself(found.reasons, rule, intrinsic))
    return StandingAnswer(
        next=step,
        reasons=tuple(found.reasons),
        bound=bound,
        baseline=champion.package if champion else None,
        baseline_version=champion.version if champion else None,
        quorum=quorum.size,
        standing=approvers(approvals),
        evidence=tuple(line for record in (intrinsic, relative) if record for line in record.lines),
        intrinsic_gates=rule.gates,
        relative_gates=rule.relative.get(sensitivity, ()),
        seats=quorum.seats,
        empty=empty_seats(quorum.seats, approvals),
        approvals=approvals,
        waived=tuple(found.waived),
        plan=None if plan is None else plan.plan,
        ticket=rule.ticket.get(sensitivity, ""),
        tracker=sensitivity in rule.tracker,
        decision=_DECISIONS.get(step, "refused"),
        makers=makers.lines,
    )


_DECISIONS: dict[str, Decided] = {
    "done": "allowed",
    "promote": "allowed",
    "approve": "waiting",
    "wait": "waiting",
}
