"""What stands between a version and an environment, over everything that a promotion would read."""

from __future__ import annotations

from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Reason
from lockgate.delivery.messages import PromoteVersion, Served
from lockgate.delivery.state import ENDPOINT, ENVIRONMENT, SETTINGS, EndpointState, EnvironmentState
from lockgate.gates.state import EVIDENCE, EvidenceState, evidence_key
from lockgate.governance.judgement import (
    age_reasons,
    approval_reasons,
    baseline_reasons,
    bound_set,
    gate_reasons,
    limit_reasons,
)
from lockgate.governance.policy import TierRule, quorum_of
from lockgate.governance.state import APPROVAL, POLICY, PolicyState, approval_key
from lockgate.registry.decide import model_of
from lockgate.registry.state import MODEL, VERSION, VersionState
from lockgate.registry.trust import EVERY_KEY, revocation_reasons, revoked


def needs_promote(command: PromoteVersion, docs: Docs) -> tuple[DocRef, ...]:
    model = model_of(command.version)
    every = DocRef(ENVIRONMENT.name, "*")
    refs = [
        every,
        DocRef(VERSION.name, command.version),
        DocRef(MODEL.name, str(model)),
        DocRef(POLICY.name, model.namespace),
        DocRef(EVIDENCE.name, evidence_key(command.version)),
        DocRef(EVIDENCE.name, evidence_key(command.version, command.environment)),
        DocRef(APPROVAL.name, approval_key(command.version, command.environment)),
        DocRef(ENDPOINT.name, f"{command.environment}/{model}"),
        DocRef(SETTINGS.name, f"{command.environment}/{model}"),
        EVERY_KEY,
    ]
    if docs.has(every):
        below = _steps_below(docs.all(ENVIRONMENT, ""), command.environment)
        refs += [DocRef(ENDPOINT.name, f"{step.environment}/{model}") for step in below]
    return tuple(refs)


def _steps_below(ladder: tuple[EnvironmentState, ...], environment: str) -> tuple[EnvironmentState, ...]:
    """The environments a version must run in before `environment`: all of the next lower order."""
    here = next((step for step in ladder if step.environment == environment), None)
    lower = [step for step in ladder if here is not None and step.order < here.order]
    next_lower = max((step.order for step in lower), default=None)
    return tuple(step for step in lower if step.order == next_lower)


def standing_of(
    docs: Docs,
    key: str,
    environment: EnvironmentState,
    endpoint: EndpointState,
    policy: PolicyState,
    now: int,
) -> list[Reason]:
    """Everything that still stands between a version and an environment; empty when the way is free."""
    version = docs.get(VERSION, key)
    model = None if version is None else docs.get(MODEL, version.model)
    assert version is not None and model is not None
    rule = policy.policy.rule(model.tier)
    intrinsic = docs.get(EVIDENCE, evidence_key(key))
    relative = docs.get(EVIDENCE, evidence_key(key, environment.environment))
    reasons = _life_reasons(version, environment)
    reasons += revocation_reasons(version.version, version.signed_by, revoked(docs))
    reasons += _ladder_reasons(docs, version, environment)
    reasons += _evidence_reasons(rule, environment, endpoint, intrinsic, relative, key, now)
    reasons += approval_reasons(
        version,
        docs.get(APPROVAL, approval_key(key, environment.environment)),
        bound=bound_set(intrinsic, relative),
        policy=policy.digest,
        quorum=quorum_of(policy.policy, model.tier, model.kpi, environment.sensitivity),
        environment=environment.environment,
    )
    return reasons + _way_back_reasons(environment, endpoint)


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
            remedy=f"lockgate judge {version.version}" if version.state == "candidate" else None,
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


def _evidence_reasons(
    rule: TierRule,
    environment: EnvironmentState,
    endpoint: EndpointState,
    intrinsic: EvidenceState | None,
    relative: EvidenceState | None,
    key: str,
    now: int,
) -> list[Reason]:
    if environment.sensitivity == "open":
        return []
    wanted = rule.relative.get(environment.sensitivity, ())
    judge = f"lockgate judge {key} --for {environment.environment}"
    judge_alone = f"lockgate judge {key}"
    reasons = gate_reasons(rule.gates, intrinsic, remedy=judge_alone)
    reasons += limit_reasons(rule.limits, rule.gates, intrinsic, remedy=judge_alone)
    reasons += age_reasons(intrinsic, rule, now)
    if wanted:
        live = endpoint.live.served.package if endpoint.live else None
        reasons += gate_reasons(wanted, relative, remedy=judge)
        reasons += limit_reasons(rule.limits, wanted, relative, remedy=judge)
        reasons += baseline_reasons(relative, live, environment.environment)
        reasons += age_reasons(relative, rule, now)
    return reasons


def _way_back_reasons(environment: EnvironmentState, endpoint: EndpointState) -> list[Reason]:
    if endpoint.rollout is not None:
        return [
            Reason(
                rule="delivery.rollout-active",
                message=f"{endpoint.rollout.served.version} is on its way to {endpoint.endpoint}",
                measured=endpoint.rollout.state,
                remedy=f"lockgate status {endpoint.endpoint}",
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
