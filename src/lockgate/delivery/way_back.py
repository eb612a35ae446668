"""Decisions about the way back: rollback, a release called off, a version shut away or ended, an endpoint taken down.

Whatever happens, a plan that should not serve does not stay published: a data plane that restarts would meet it
again. So each of these publishes a newer plan of what is live, and is undone the same way when it does not take.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lockgate.core.digests import Digest
from lockgate.core.documents import DocRef, Docs
from lockgate.core.errors import did_you_mean
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import parse_endpoint
from lockgate.delivery.messages import (
    AdoptLocalPlan,
    ApplyPlan,
    CapturesErased,
    EndpointRemoved,
    EndpointRolledBack,
    EraseCaptures,
    LocalPlanOverruled,
    LocalRollbackAdopted,
    ReleaseFailed,
    RemovalSignedOff,
    RemoveEndpoint,
    RetireVersion,
    RollBackEndpoint,
    RollbackFailed,
    Served,
    SignOffRemoval,
)
from lockgate.delivery.state import (
    ENDPOINT,
    ENVIRONMENT,
    SETTINGS,
    EndpointState,
    EnvironmentState,
    Live,
    Rollout,
)
from lockgate.governance.judgement import by_a_person
from lockgate.registry import decide as registry
from lockgate.registry.decide import known_version, model_of, proposed_lowering, wrong_state
from lockgate.registry.messages import (
    CollectPackage,
    PackageCollected,
    QuarantineVersion,
    RejectVersion,
    VersionRetired,
)
from lockgate.registry.state import LOWERING, MODEL, VERSION, VersionState
from lockgate.traffic.capture import CaptureMode
from lockgate.traffic.plan import FLIP_PATIENCE_S, Fallback

_DAY_US = 86_400_000_000
TERMS_FACT = "delivery.terms"
"""The fact about a collection: how many days this hub keeps packages at least, by tier."""


def publish(
    environment: EnvironmentState,
    endpoint: EndpointState,
    generation: int,
    live: Served | None,
    previous: Served | None,
    capture: CaptureMode,
) -> ApplyPlan:
    """The effect that brings a target to versions it has, or can have at once."""
    return ApplyPlan(
        subject=endpoint.endpoint,
        fence=generation,
        target=environment.target,
        live=live,
        previous=previous,
        fallback=endpoint.fallback,
        patience_s=FLIP_PATIENCE_S,
        capture=capture,
        adopted=endpoint.adopted,
    )


def capture_of(docs: Docs, endpoint: str) -> CaptureMode:
    """What is kept of an endpoint's traffic outside of rollouts."""
    known = docs.get(SETTINGS, endpoint)
    return "off" if known is None else known.settings.capture


def served_of(live: Live | None) -> Served | None:
    return None if live is None else live.served


def call_off(
    environment: EnvironmentState,
    endpoint: EndpointState,
    rollout: Rollout,
    detail: str,
    capture: CaptureMode,
) -> Decision:
    """End a release on its way; what is live stays, and is published again."""
    failed = ReleaseFailed(
        endpoint=endpoint.endpoint,
        release=rollout.release,
        generation=rollout.generation,
        restored=endpoint.generation + 1,
        detail=detail,
    )
    live, previous = served_of(endpoint.live), served_of(endpoint.previous)
    effect = publish(environment, endpoint, failed.restored, live, previous, capture)
    return Decision((failed,), (effect,))


def undo_rollback(
    environment: EnvironmentState,
    endpoint: EndpointState,
    rollout: Rollout,
    detail: str,
    capture: CaptureMode,
) -> Decision:
    """A rollback that did not take is taken back: the record says what answers, not what was wished."""
    live, previous = endpoint.live, endpoint.previous
    if rollout.swapped:
        live, previous = previous, live
    failed = RollbackFailed(
        endpoint=endpoint.endpoint,
        release=rollout.release,
        to_release=rollout.to_release,
        swapped=rollout.swapped,
        generation=rollout.generation,
        restored=endpoint.generation + 1,
        detail=detail,
    )
    effect = publish(environment, endpoint, failed.restored, served_of(live), served_of(previous), capture)
    return Decision((failed,), (effect,))


def needs_rollback(command: RollBackEndpoint, docs: Docs) -> tuple[DocRef, ...]:
    ref = DocRef(ENDPOINT.name, command.endpoint)
    environment = parse_endpoint(command.endpoint).environment
    refs = [ref, DocRef(ENVIRONMENT.name, environment), DocRef(SETTINGS.name, command.endpoint)]
    endpoint = docs.get(ENDPOINT, command.endpoint) if docs.has(ref) else None
    back = None if endpoint is None else _way_back(endpoint)
    if back is not None:
        refs.append(DocRef(VERSION.name, back.served.version))
    return tuple(refs)


def _way_back(endpoint: EndpointState) -> Live | None:
    """Where a rollback leads: to what is live while a release is still on its way, else to the version before."""
    underway = endpoint.rollout is not None and endpoint.rollout.underway
    return endpoint.live if underway else endpoint.previous


def roll_back_endpoint(docs: Docs, command: RollBackEndpoint, context: Context) -> Decision | Refusal:
    """Flip to the previous version. No policy is asked; only quarantined or withdrawn bytes are refused.

    With `leave`, the flip happens only if that version is still the one to leave: two people who press the button
    at once roll back once.
    """
    endpoint = docs.get(ENDPOINT, command.endpoint)
    environment = docs.get(ENVIRONMENT, parse_endpoint(command.endpoint).environment)
    if endpoint is None or environment is None:
        return unknown_endpoint(command.endpoint)
    rollout = endpoint.rollout
    if rollout is not None and rollout.state == "rolling_back":
        return refuse(
            Reason(
                rule="delivery.rollback-underway",
                message=f"{command.endpoint} is already on its way back to {rollout.served.version}",
                measured=rollout.state,
                remedy=f"lockgate status {command.endpoint}; without a data plane: lockgate up",
            ),
            waiting=True,
        )
    leaving = rollout.served if rollout else served_of(endpoint.live)
    if command.leave and leaving is not None and leaving.version != command.leave:
        return Decision(())
    capture = capture_of(docs, command.endpoint)
    if rollout is not None and endpoint.live is None:
        detail = f"called off by {context.actor}: {command.reason}"
        return call_off(environment, endpoint, rollout, detail, capture)
    back = _way_back(endpoint)
    if endpoint.live is None or back is None:
        return nothing_before(endpoint)
    target = docs.get(VERSION, back.served.version)
    assert target is not None, "a released version is registered"
    # While a release is on its way, what is live answers its share anyway: nothing worse comes of going back to it.
    if rollout is None and target.state in ("quarantined", "rejected"):
        return wrong_state(target, "rolled back to")
    return take_back(environment, endpoint, command.reason, capture)


def take_back(
    environment: EnvironmentState, endpoint: EndpointState, reason: str, capture: CaptureMode
) -> Decision:
    """The pointer goes back: from a release on its way to what is live, or from what is live to the one before."""
    back = _way_back(endpoint)
    assert endpoint.live is not None and back is not None
    # The abandoned version stays loaded as the new `previous`: a rollback can itself be rolled back.
    underway = endpoint.rollout
    left = underway.served if underway else endpoint.live.served
    rolled = EndpointRolledBack(
        endpoint=endpoint.endpoint,
        release=underway.release if underway else endpoint.live.release,
        to_release=back.release,
        generation=endpoint.generation + 1,
        from_version=left.version,
        to=back.served,
        reason=reason,
    )
    kept = served_of(endpoint.previous) if underway else left
    effect = publish(environment, endpoint, rolled.generation, back.served, kept, capture)
    return Decision((rolled,), (effect,))


def needs_adoption(command: AdoptLocalPlan, docs: Docs) -> tuple[DocRef, ...]:
    ref = DocRef(ENDPOINT.name, command.endpoint)
    environment = parse_endpoint(command.endpoint).environment
    refs = [ref, DocRef(ENVIRONMENT.name, environment), DocRef(SETTINGS.name, command.endpoint)]
    endpoint = docs.get(ENDPOINT, command.endpoint) if docs.has(ref) else None
    if endpoint is not None and endpoint.previous is not None:
        refs.append(DocRef(VERSION.name, endpoint.previous.served.version))
    return tuple(refs)


def adopt_local_plan(docs: Docs, command: AdoptLocalPlan, context: Context) -> Decision | Refusal:
    """What was done without the hub is what stands, when it leads to what is live here or to the version before.

    Anything else is put back, and said. Either way a newer plan of the hub follows, and whatever was decided without
    knowing of this one is older than both.
    """
    endpoint = docs.get(ENDPOINT, command.endpoint)
    environment = docs.get(ENVIRONMENT, parse_endpoint(command.endpoint).environment)
    if endpoint is None or environment is None:
        return unknown_endpoint(command.endpoint)
    if command.generation <= endpoint.adopted:
        return Decision(())
    why = _misfit(docs, endpoint, command.answers)
    generation = max(endpoint.generation, command.generation) + 1
    underway = endpoint.rollout is not None and endpoint.rollout.underway
    ended = endpoint.rollout.release if endpoint.rollout is not None and underway else None
    live, previous = endpoint.live, endpoint.previous
    event: LocalRollbackAdopted | LocalPlanOverruled
    if why or live is None:
        event = LocalPlanOverruled(
            endpoint=command.endpoint,
            found=command.generation,
            generation=generation,
            release=ended,
            version=command.version,
            why=why,
            hand=command.hand,
        )
    else:
        swapped = command.answers != live.served.package
        left = [ended] if ended is not None else []
        to = live
        if swapped:
            assert previous is not None
            left.append(live.release)
            to, live, previous = previous, previous, live
        event = LocalRollbackAdopted(
            endpoint=command.endpoint,
            found=command.generation,
            generation=generation,
            left=tuple(left),
            to_release=to.release,
            swapped=swapped,
            from_version=command.left,
            to=to.served,
            hand=command.hand,
        )
    capture = capture_of(docs, command.endpoint)
    effect = publish(environment, endpoint, generation, served_of(live), served_of(previous), capture)
    return Decision((event,), (msgspec.structs.replace(effect, adopted=command.generation),))


def _misfit(docs: Docs, endpoint: EndpointState, answers: Digest | None) -> str:
    """Why a plan that was found cannot be what stands; empty when it can."""
    if answers is None:
        return "it does not give all of the traffic to one version"
    if endpoint.live is not None and answers == endpoint.live.served.package:
        return ""
    back = endpoint.previous
    if back is None or answers != back.served.package:
        return "what it serves is neither live here nor the version before"
    version = docs.get(VERSION, back.served.version)
    # As for any rollback: bytes that were shut away stay shut away.
    if version is None or version.state in ("quarantined", "rejected"):
        return f"{back.served.version} is {'unknown' if version is None else version.state}"
    return ""


def needs_everywhere(
    command: RetireVersion | QuarantineVersion | RejectVersion | CollectPackage, docs: Docs
) -> tuple[DocRef, ...]:
    """The version, and every endpoint of its model."""
    every = DocRef(ENVIRONMENT.name, "*")
    refs = [DocRef(VERSION.name, command.version), every]
    if docs.has(every):
        model = model_of(command.version)
        names = [f"{step.environment}/{model}" for step in docs.all(ENVIRONMENT, "")]
        refs += [DocRef(kind.name, name) for name in names for kind in (ENDPOINT, SETTINGS)]
    return tuple(refs)


def _endpoints(docs: Docs, model: str) -> list[tuple[EnvironmentState, EndpointState]]:
    found = []
    for step in docs.all(ENVIRONMENT, ""):
        endpoint = docs.get(ENDPOINT, f"{step.environment}/{model}")
        if endpoint is not None:
            found.append((step, endpoint))
    return found


def _uses(docs: Docs, version: VersionState) -> tuple[Reason, ...]:
    """The endpoints that still need a version."""
    return tuple(
        Reason(
            rule="delivery.in-use",
            message=f"{endpoint.endpoint} serves it, is about to, or may fall back to it",
            remedy=f"release two others there, or take it down: lockgate endpoint remove {endpoint.endpoint}",
        )
        for _, endpoint in _endpoints(docs, version.model)
        if any(
            use is not None and use.served.version == version.version
            for use in (endpoint.live, endpoint.previous, endpoint.rollout)
        )
    )


def retire_version(docs: Docs, command: RetireVersion, context: Context) -> Decision | Refusal:
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    if version.state not in ("candidate", "validated"):
        return wrong_state(version, "retired")
    if reasons := _uses(docs, version):
        return Refusal(reasons=reasons)
    return Decision((VersionRetired(version=command.version, reason=command.reason),))


def needs_collect(command: CollectPackage, docs: Docs) -> tuple[DocRef, ...]:
    return (*needs_everywhere(command, docs), DocRef(MODEL.name, str(model_of(command.version))))


def collect_package(docs: Docs, command: CollectPackage, context: Context) -> Decision | Refusal:
    """Give up the bytes of a version that ended, unless an endpoint may need it, somebody holds it, or the next version
    is to be compared with it."""
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    if version.collected_at is not None:
        return Decision(())
    model = docs.get(MODEL, version.model)
    terms = context.facts.get(TERMS_FACT, {})
    term = max(command.term_days, 0 if model is None else terms.get(model.tier, 0))
    days = None if version.ended_at is None else (context.now - version.ended_at) / _DAY_US
    reasons = list(_uses(docs, version))
    if version.state not in ("rejected", "retired"):
        reasons += wrong_state(version, "collected").reasons
    elif command.term_days < 0 or days is None or days < term:
        reasons.append(
            Reason(
                rule="registry.term",
                message=f"the term of {version.version} has not run out",
                measured="unknown"
                if days is None
                else f"{max(days, 0):.1f} days since it was {version.state}",
                limit=f"{term} days",
                remedy="lockgate collect again when it has; terms stand in [retention]",
            )
        )
    reasons += [
        Reason(
            rule="registry.held",
            message=f"{version.version} is held for {hold.matter} by {hold.held_by}: {hold.reason}",
            remedy=f"lockgate hold {version.version} --lift --matter {hold.matter}",
        )
        for hold in version.holds
    ]
    if model is not None and model.latest == version.version:
        reasons.append(
            Reason(
                rule="registry.latest",
                message=f"the next version of {version.model} is compared with it",
                measured="newest version",
                remedy="lockgate collect again when there is a newer one: lockgate train",
            )
        )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    collected = PackageCollected(version=version.version, package=version.package, term_days=term)
    return Decision((collected,))


def needs_erase_captures(command: EraseCaptures, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(ENDPOINT.name, command.endpoint),)


def erase_captures(docs: Docs, command: EraseCaptures, context: Context) -> Decision | Refusal:
    if docs.get(ENDPOINT, command.endpoint) is None:
        return unknown_endpoint(command.endpoint)
    if not command.reason.strip():
        return refuse(
            Reason(
                rule="data.erasure-reason",
                message="an erasure needs a reason, without any name",
                remedy="give --reason TEXT",
            )
        )
    return Decision((CapturesErased(endpoint=command.endpoint, reason=command.reason),))


def quarantine_version(docs: Docs, command: QuarantineVersion, context: Context) -> Decision | Refusal:
    """Shut a version away, and call off its releases that are still on their way."""
    return _withdrawn(docs, command, registry.quarantine_version(docs, command, context), "quarantined")


def reject_version(docs: Docs, command: RejectVersion, context: Context) -> Decision | Refusal:
    """End a version's way, and call off its releases that are still on their way."""
    return _withdrawn(docs, command, registry.reject_version(docs, command, context), "rejected")


def _withdrawn(
    docs: Docs,
    command: QuarantineVersion | RejectVersion,
    decided: Decision | Refusal,
    how: str,
) -> Decision | Refusal:
    if isinstance(decided, Refusal):
        return decided
    for environment, endpoint in _endpoints(docs, str(model_of(command.version))):
        rollout = endpoint.rollout
        if rollout is not None and rollout.underway and rollout.served.version == command.version:
            capture = capture_of(docs, endpoint.endpoint)
            more = call_off(environment, endpoint, rollout, f"{how}: {command.reason}", capture)
            decided = Decision(decided.events + more.events, decided.effects + more.effects)
    return decided


def needs_removal(command: RemoveEndpoint | SignOffRemoval, docs: Docs) -> tuple[DocRef, ...]:
    environment = parse_endpoint(command.endpoint).environment
    return (
        DocRef(ENDPOINT.name, command.endpoint),
        DocRef(ENVIRONMENT.name, environment),
        DocRef(LOWERING.name, f"removal {command.endpoint}"),
    )


def sign_off_removal(docs: Docs, command: SignOffRemoval, context: Context) -> Decision | Refusal:
    """A consumer lets an endpoint go, by a person. Said twice, it is no news."""
    endpoint = docs.get(ENDPOINT, command.endpoint)
    if endpoint is None:
        return unknown_endpoint(command.endpoint)
    if command.consumer not in endpoint.consumers:
        return refuse(
            Reason(
                rule="delivery.consumer-unknown",
                message=f"{command.consumer} is no consumer of {command.endpoint}",
                limit=", ".join(endpoint.consumers) or "no consumer is declared",
                remedy=did_you_mean(command.consumer, endpoint.consumers),
            )
        )
    if machine := by_a_person(context):
        return Refusal(reasons=tuple(machine))
    if command.consumer in endpoint.let_go:
        return Decision(())
    signed = RemovalSignedOff(endpoint=command.endpoint, consumer=command.consumer, comment=command.comment)
    return Decision((signed,))


def remove_endpoint(docs: Docs, command: RemoveEndpoint, context: Context) -> Decision | Refusal:
    """Take an endpoint down, when nobody is surprised by it; otherwise name everybody who would be.

    Over the heads of its consumers it takes a second person, where not everything may go.
    """
    endpoint = docs.get(ENDPOINT, command.endpoint)
    environment = docs.get(ENVIRONMENT, parse_endpoint(command.endpoint).environment)
    if endpoint is None or environment is None:
        return unknown_endpoint(command.endpoint)
    if endpoint.removed_at is not None:
        return Decision(())
    holding = tuple(one for one in endpoint.consumers if one not in endpoint.let_go)
    reasons = _removal_reasons(endpoint, command, () if command.despite_consumers else holding)
    if reasons:
        return Refusal(reasons=tuple(reasons))
    lowers = [] if environment.sensitivity == "open" else without_a_word(endpoint, (), context.actor)
    about, taken = f"removal {command.endpoint}", ("removed", command.live)
    agreed = proposed_lowering(docs, context, about, to_be_removed(endpoint), taken, lowers)
    if isinstance(agreed, Decision):
        return agreed
    live = endpoint.live
    removed = EndpointRemoved(
        endpoint=command.endpoint,
        generation=endpoint.generation + 1,
        release=live.release if live else None,
        live=live.served.version if live else "",
        reason=command.reason,
        overridden=holding,
    )
    if not endpoint.generation:
        # No target ever heard of it.
        return Decision((*agreed, removed))
    bare = msgspec.structs.replace(endpoint, fallback=Fallback())
    return Decision((*agreed, removed), (publish(environment, bare, removed.generation, None, None, "off"),))


def without_a_word(endpoint: EndpointState, kept: Sequence[str], actor: str) -> list[str]:
    """The consumers that would be dropped without their word, one line each; of what `actor` himself has said for one,
    nothing counts."""
    return [
        f"without consumer {one}, who has not let go"
        for one in endpoint.consumers
        if one not in kept and endpoint.let_go_by.get(one, actor) == actor
    ]


def to_be_removed(endpoint: EndpointState) -> tuple[object, ...]:
    """Names what a removal would take away: once it is declared otherwise, or another release is live or on its way,
    that is something else."""
    live = None if endpoint.live is None else endpoint.live.release
    declared = (endpoint.fallback, endpoint.consumers, endpoint.dashboards, endpoint.removed_at)
    return (*declared, endpoint.n_releases, live)


def _removal_reasons(
    endpoint: EndpointState, command: RemoveEndpoint, holding: tuple[str, ...]
) -> list[Reason]:
    name, reasons = endpoint.endpoint, []
    if not command.reason.strip():
        reasons.append(
            Reason(
                rule="delivery.reason",
                message="an endpoint is not removed without a reason",
                remedy="give --reason TEXT",
            )
        )
    if endpoint.rollout is not None:
        reasons.append(
            Reason(
                rule="delivery.rollout-active",
                message=f"{endpoint.rollout.served.version} is on its way to or from {name}",
                measured=endpoint.rollout.state,
                remedy=f"lockgate rollback {name}, or wait until it is over",
            )
        )
    if holding:
        reasons.append(
            Reason(
                rule="delivery.consumers",
                message=f"consumers of {name} that have not signed off: {', '.join(holding)}",
                measured=f"{len(endpoint.let_go)} of {len(endpoint.consumers)}",
                limit="all of them",
                remedy=f"lockgate endpoint sign-off {name} --consumer NAME; over their heads: --despite-consumers",
            )
        )
    live = endpoint.live.served.version if endpoint.live else ""
    if live != command.live:
        reasons.append(
            Reason(
                rule="delivery.in-use",
                message=f"{live or 'nothing'} is live on {name}",
                measured=live or "nothing live",
                limit=command.live or "nothing live",
                remedy=f"look at it, then say so: --live {live}" if live else "leave out --live",
            )
        )
    return reasons


def unknown_endpoint(endpoint: str) -> Refusal:
    return refuse(
        Reason(
            rule="delivery.endpoint-unknown",
            message=f"there is no endpoint {endpoint}",
            remedy="lockgate status",
        )
    )


def nothing_before(endpoint: EndpointState) -> Refusal:
    return refuse(
        Reason(
            rule="delivery.nothing-before",
            message=f"{endpoint.endpoint} has no previous version to go back to",
            measured=endpoint.live.served.version if endpoint.live else "nothing live",
            remedy="release another version: lockgate promote; to take the endpoint down: lockgate endpoint remove",
        )
    )
