"""Decisions of governance."""

from __future__ import annotations

from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import check_part
from lockgate.gates.state import EVIDENCE, evidence_key
from lockgate.governance.judgement import age_reasons, bound_set, gate_reasons
from lockgate.governance.messages import (
    AdoptPolicy,
    ApproveVersion,
    PolicyAdopted,
    ValidateVersion,
    VersionApproved,
)
from lockgate.governance.state import APPROVAL, POLICY, PolicyState, approval_key
from lockgate.registry.decide import known_version, model_of, wrong_state
from lockgate.registry.messages import VersionValidated
from lockgate.registry.state import MODEL, VERSION


def needs_policy(command: AdoptPolicy, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(POLICY.name, command.namespace),)


def adopt_policy(docs: Docs, command: AdoptPolicy, context: Context) -> Decision | Refusal:
    check_part(command.namespace, what="namespace")
    known = docs.get(POLICY, command.namespace)
    digest = command.policy.digest
    if known is not None and known.digest == digest:
        return Decision(())
    return Decision((PolicyAdopted(namespace=command.namespace, policy=command.policy, digest=digest),))


def policy_of(docs: Docs, namespace: str) -> PolicyState | Refusal:
    policy = docs.get(POLICY, namespace)
    if policy is None:
        return refuse(
            Reason(
                rule="governance.no-policy",
                message=f"namespace {namespace} has adopted no policy",
                remedy="lockgate policy adopt",
            )
        )
    return policy


def needs_validate(command: ValidateVersion, docs: Docs) -> tuple[DocRef, ...]:
    model = model_of(command.version)
    return (
        DocRef(VERSION.name, command.version),
        DocRef(MODEL.name, str(model)),
        DocRef(EVIDENCE.name, evidence_key(command.version)),
        DocRef(POLICY.name, model.namespace),
    )


def validate_version(docs: Docs, command: ValidateVersion, context: Context) -> Decision | Refusal:
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    model = docs.get(MODEL, version.model)
    assert model is not None, "a version's model is declared before it"
    policy = policy_of(docs, model.model.partition("/")[0])
    if isinstance(policy, Refusal):
        return policy
    evidence = docs.get(EVIDENCE, evidence_key(command.version))
    if version.state not in ("candidate", "validated"):
        return wrong_state(version, "validated")
    rule = policy.policy.rule(model.tier)
    reasons = gate_reasons(rule.gates, evidence, remedy=f"lockgate judge {command.version}")
    reasons += age_reasons(evidence, rule, context.now)
    if reasons:
        return Refusal(reasons=tuple(reasons))
    assert evidence is not None
    if version.state == "validated" and version.evidence_set == evidence.evidence_set:
        return Decision(())
    return Decision(
        (VersionValidated(version=command.version, evidence_set=evidence.evidence_set, policy=policy.digest),)
    )


def needs_approve(command: ApproveVersion, docs: Docs) -> tuple[DocRef, ...]:
    return (
        DocRef(VERSION.name, command.version),
        DocRef(EVIDENCE.name, evidence_key(command.version)),
        DocRef(EVIDENCE.name, evidence_key(command.version, command.environment)),
        DocRef(APPROVAL.name, approval_key(command.version, command.environment)),
        DocRef(POLICY.name, model_of(command.version).namespace),
    )


def approve_version(docs: Docs, command: ApproveVersion, context: Context) -> Decision | Refusal:
    """An approval is refused when it comes from the author, or is about other evidence than there is now."""
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    policy = policy_of(docs, model_of(command.version).namespace)
    if isinstance(policy, Refusal):
        return policy
    if version.state != "validated":
        return wrong_state(version, "approved; only validated versions can be")
    bound = bound_set(
        docs.get(EVIDENCE, evidence_key(command.version)),
        docs.get(EVIDENCE, evidence_key(command.version, command.environment)),
    )
    reasons = []
    if context.actor == version.author:
        reasons.append(
            Reason(
                rule="governance.separation-of-duties",
                message=f"{context.actor} made {command.version} and cannot approve it",
                measured=context.actor,
                limit=f"not {version.author}",
                remedy="ask somebody else: lockgate approve ... --as NAME",
            )
        )
    if command.evidence_set != bound:
        reasons.append(
            Reason(
                rule="governance.evidence-changed",
                message="the evidence is no longer what the approver saw",
                measured=command.evidence_set,
                limit=bound,
                remedy=f"lockgate evidence {command.version} --for {command.environment}",
            )
        )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    given = docs.get(APPROVAL, approval_key(command.version, command.environment))
    repeated = given is not None and any(
        (approval.approver, approval.evidence_set, approval.policy) == (context.actor, bound, policy.digest)
        for approval in given.approvals
    )
    if repeated:
        return Decision(())
    return Decision(
        (
            VersionApproved(
                version=command.version,
                environment=command.environment,
                evidence_set=bound,
                policy=policy.digest,
                comment=command.comment,
            ),
        )
    )
