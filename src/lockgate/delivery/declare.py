"""Decisions about what is declared: environments, endpoints, and how these are served.

To ask for more is free. What asks for less than is declared now waits, where identities are proven, until a second
person declares the same; see `registry.decide.proposed_lowering`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from lockgate.core.clock import Micros
from lockgate.core.digests import digest_of
from lockgate.core.documents import DocRef, Docs, DocumentKind
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import check_full, check_part, parse_endpoint
from lockgate.delivery.advance import settings_of
from lockgate.delivery.messages import (
    ConfigureEndpoint,
    DeclareEndpoint,
    DeclareEnvironment,
    EndpointConfigured,
    EndpointDeclared,
    EnvironmentDeclared,
)
from lockgate.delivery.rollouts.asked import loosened
from lockgate.delivery.rollouts.policy import EndpointSettings, complaints
from lockgate.delivery.state import ENDPOINT, ENVIRONMENT, SETTINGS, EndpointState, EnvironmentState
from lockgate.delivery.way_back import to_be_removed, unknown_endpoint, without_a_word
from lockgate.governance.policies.policy import Sensitivity
from lockgate.registry.decide import Agreement, declared_of, proposed_lowering, quarantine_of
from lockgate.registry.state import LOWERING, MODEL, VERSION, LoweringState
from lockgate.traffic.plan import Fallback


def needs_environment(command: DeclareEnvironment, docs: Docs) -> tuple[DocRef, ...]:
    return (
        DocRef(ENVIRONMENT.name, command.environment),
        DocRef(LOWERING.name, f"environment {command.environment}"),
    )


def declare_environment(docs: Docs, command: DeclareEnvironment, context: Context) -> Decision | Refusal:
    check_part(command.environment, what="environment")
    declared = EnvironmentState(
        environment=command.environment,
        order=command.order,
        sensitivity=command.sensitivity,
        target=command.target,
        trust=command.trust,
    )
    known = docs.get(ENVIRONMENT, command.environment)
    agreed: Agreement = ()
    if known == declared:
        return Decision(())
    if known is not None:
        lowers, about = _lowered(known, declared), f"environment {command.environment}"
        agreed = proposed_lowering(docs, context, about, known, declared, lowers)
        if isinstance(agreed, Decision):
            return agreed
    return Decision(
        (
            *agreed,
            EnvironmentDeclared(
                environment=command.environment,
                order=command.order,
                sensitivity=command.sensitivity,
                target=command.target,
                trust=command.trust,
            ),
        )
    )


def _lowered(known: EnvironmentState, declared: EnvironmentState) -> list[str]:
    """Another place on the ladder counts: it may be one with fewer steps before it."""
    order = get_args(Sensitivity)
    lowers = []
    if order.index(declared.sensitivity) < order.index(known.sensitivity):
        lowers.append(f"{declared.sensitivity}, not {known.sensitivity}")
    if known.sensitivity != "open" and declared.order != known.order:
        lowers.append(f"step {declared.order} of the ladder, not {known.order}")
    return lowers


def needs_endpoint(command: DeclareEndpoint, docs: Docs) -> tuple[DocRef, ...]:
    environment = parse_endpoint(command.endpoint).environment
    return (
        DocRef(ENDPOINT.name, command.endpoint),
        DocRef(ENVIRONMENT.name, environment),
        DocRef(LOWERING.name, f"endpoint {command.endpoint}"),
    )


def declare_endpoint(docs: Docs, command: DeclareEndpoint, context: Context) -> Decision | Refusal:
    """A consumer that is dropped and has not let go, and a fallback that is given up, take a second person.

    An endpoint that was removed counts as it was: its name cannot be had again with fewer consumers.
    """
    name = parse_endpoint(command.endpoint)
    check_full(command.endpoint, name)
    environment = docs.get(ENVIRONMENT, name.environment)
    if environment is None:
        return refuse(
            Reason(
                rule="delivery.environment-unknown",
                message=f"there is no environment {name.environment}",
                remedy="declare it in lockgate.toml",
            )
        )
    known = docs.get(ENDPOINT, command.endpoint)
    agreed: Agreement = ()
    declared = (command.fallback, command.consumers, command.dashboards)
    if known is not None:
        before = _declared_of(known)
        if before == (*declared, None):
            return Decision(())
        lowers = _asks_less(known, command, context) if environment.sensitivity != "open" else []
        about = f"endpoint {command.endpoint}"
        agreed = proposed_lowering(docs, context, about, before, declared, lowers)
        if isinstance(agreed, Decision):
            return agreed
    return Decision(
        (
            *agreed,
            EndpointDeclared(
                endpoint=command.endpoint,
                fallback=command.fallback,
                consumers=command.consumers,
                dashboards=command.dashboards,
            ),
        )
    )


def _declared_of(
    endpoint: EndpointState,
) -> tuple[Fallback, tuple[str, ...], tuple[str, ...], Micros | None]:
    return endpoint.fallback, endpoint.consumers, endpoint.dashboards, endpoint.removed_at


def is_open(proposal: LoweringState, get: Callable[[DocumentKind[Any], str], Any]) -> bool:
    """Whether a declaration that asks for less still waits: nothing else was declared of its subject since."""
    kind, _, name = proposal.subject.partition(" ")
    now: Any
    match kind:
        case "model":
            now = get(MODEL, name) and declared_of(get(MODEL, name))
        case "environment":
            now = get(ENVIRONMENT, name)
        case "version":
            now = quarantine_of(get(VERSION, name))
        case "endpoint":
            now = get(ENDPOINT, name) and _declared_of(get(ENDPOINT, name))
        case "removal":
            now = get(ENDPOINT, name) and to_be_removed(get(ENDPOINT, name))
        case _:
            known = get(SETTINGS, name)
            now = EndpointSettings() if known is None else known.settings
    return not proposal.agreed_by and digest_of(now) == proposal.base


def _asks_less(known: EndpointState, command: DeclareEndpoint, context: Context) -> list[str]:
    """Whoever drops a consumer does not count as the one who has spoken for it."""
    lowers = without_a_word(known, command.consumers, context.actor)
    if known.fallback.kind != "none" and command.fallback.kind == "none":
        lowers.append("no fallback")
    return lowers


def needs_configure(command: ConfigureEndpoint, docs: Docs) -> tuple[DocRef, ...]:
    return (
        DocRef(ENDPOINT.name, command.endpoint),
        DocRef(SETTINGS.name, command.endpoint),
        DocRef(ENVIRONMENT.name, parse_endpoint(command.endpoint).environment),
        DocRef(LOWERING.name, f"rollout {command.endpoint}"),
    )


def configure_endpoint(docs: Docs, command: ConfigureEndpoint, context: Context) -> Decision | Refusal:
    """Guards and steps that are dropped or loosened take a second person."""
    name = parse_endpoint(command.endpoint)
    check_full(command.endpoint, name)
    if docs.get(ENDPOINT, command.endpoint) is None:
        return unknown_endpoint(command.endpoint)
    policy = command.settings.rollout
    wrong = () if policy is None else complaints(policy)
    if wrong:
        remedy = f"correct steps and guards of {name.shown} in lockgate.toml"
        return refuse(*(Reason(rule="delivery.rollout-policy", message=one, remedy=remedy) for one in wrong))
    known = settings_of(docs, command.endpoint)
    if known == command.settings:
        return Decision(())
    environment = docs.get(ENVIRONMENT, name.environment)
    free = environment is None or environment.sensitivity == "open"
    lowers = [] if free else loosened(known.rollout, policy)
    about = f"rollout {command.endpoint}"
    agreed = proposed_lowering(docs, context, about, known, command.settings, lowers)
    if isinstance(agreed, Decision):
        return agreed
    return Decision(
        (
            *agreed,
            EndpointConfigured(endpoint=command.endpoint, settings=command.settings),
        )
    )
