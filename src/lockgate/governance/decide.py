"""Decisions of governance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from lockgate.core.clock import iso
from lockgate.core.digests import Digest
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import check_part
from lockgate.gates.state import EVIDENCE, evidence_key
from lockgate.governance.judgement import (
    age_reasons,
    bound_set,
    by_a_person,
    counting_approvals,
    gate_reasons,
    limit_reasons,
    pass_over,
)
from lockgate.governance.messages import (
    AdoptPolicy,
    ApprovalRevoked,
    ApproveVersion,
    ConsentToPolicy,
    DeclineVersion,
    PolicyAdopted,
    PolicyProposed,
    RevokeApproval,
    ValidateVersion,
    VersionApproved,
    VersionDeclined,
)
from lockgate.governance.policies.laxity import differing, laxer
from lockgate.governance.policies.policy import Sensitivity, complaints, named
from lockgate.governance.state import (
    APPROVAL,
    POLICY,
    PROPOSAL,
    RELEASE_PLAN,
    WAIVER,
    ApprovalState,
    PolicyState,
    approval_key,
)
from lockgate.registry import decide as registry
from lockgate.registry.decide import known_version, model_of, wrong_state
from lockgate.registry.makers import Makers, maker_refs, makers_of, not_by_a_maker
from lockgate.registry.messages import LiftQuarantine, VersionValidated
from lockgate.registry.state import MODEL, VERSION, ModelState, VersionState

# Approving again renews the date that revalidation counts from; doing so twice a day is no news.
_STILL_FRESH_US = 12 * 3600 * 1_000_000


def needs_policy(command: AdoptPolicy | ConsentToPolicy, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(POLICY.name, command.namespace), DocRef(PROPOSAL.name, command.namespace))


def adopt_policy(docs: Docs, command: AdoptPolicy, context: Context) -> Decision | Refusal:
    """The first policy, and one that is nowhere laxer, rules at once; any other waits for the consent of risk.

    Where names are only claimed, one person could consent to their own proposal, so nobody is asked: the event says
    who changed what.
    """
    check_part(command.namespace, what="namespace")
    wrong = [
        Reason(rule="governance.policy-invalid", message=f"the policy is none: {complaint}", remedy=remedy)
        for complaint, remedy in complaints(command.policy)
    ]
    if wrong:
        return Refusal(reasons=tuple(wrong))
    known = docs.get(POLICY, command.namespace)
    digest = command.policy.digest
    if known is not None and known.policy == command.policy:
        return Decision(())
    if known is not None and named(known.policy) == named(command.policy):
        return refuse(_of_same_version(known, command))
    lax = () if known is None or context.claimed else laxer(known.policy, command.policy)
    if not lax:
        return Decision(
            (
                PolicyAdopted(
                    namespace=command.namespace, policy=command.policy, digest=digest, proposed_by=""
                ),
            )
        )
    proposal = docs.get(PROPOSAL, command.namespace)
    if proposal is not None and proposal.is_open(known) and proposal.digest == digest:
        return Decision(())
    return Decision(
        (PolicyProposed(namespace=command.namespace, policy=command.policy, digest=digest, laxer=tuple(lax)),)
    )


def _of_same_version(known: PolicyState, command: AdoptPolicy) -> Reason:
    """People speak of a policy by its name and version; two of one name would be told apart by nobody."""
    policy, changed = command.policy, differing(known.policy, command.policy)
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return Reason(
        rule="governance.policy-version",
        message=f"policy {policy.name} version {policy.version} rules {command.namespace} with other content: "
        f"{', '.join(changed[:3])}{more}",
        measured=policy.digest,
        limit=known.digest,
        remedy=f"write version = {policy.version + 1} into the file, or another name",
    )


def consent_to_policy(docs: Docs, command: ConsentToPolicy, context: Context) -> Decision | Refusal:
    """Put the proposed policy in force; by a person who did not propose it."""
    known, proposal = docs.get(POLICY, command.namespace), docs.get(PROPOSAL, command.namespace)
    if known is not None and known.digest == command.digest:
        return Decision(())
    if proposal is None or not proposal.is_open(known) or proposal.digest != command.digest:
        return refuse(
            Reason(
                rule="governance.no-proposal",
                message=f"no such policy is proposed for {command.namespace}",
                measured=command.digest,
                limit=proposal.digest if proposal is not None and proposal.is_open(known) else "none is",
                remedy="lockgate policy show",
            )
        )
    reasons = by_a_person(context)
    if context.actor == proposal.proposed_by:
        reasons.append(
            Reason(
                rule="governance.separation-of-duties",
                message=f"{context.actor} proposed this policy and cannot consent to it",
                measured=context.actor,
                limit=f"not {proposal.proposed_by}",
                remedy="ask somebody who approves in the name of risk",
            )
        )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    return Decision(
        (
            PolicyAdopted(
                namespace=command.namespace,
                policy=proposal.policy,
                digest=proposal.digest,
                proposed_by=proposal.proposed_by,
            ),
        )
    )


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


def model_and_policy(docs: Docs, key: str) -> tuple[ModelState, PolicyState] | Refusal:
    """A model and the policy in force over it, or which of them nobody knows."""
    model = docs.get(MODEL, key)
    if model is None:
        return refuse(
            Reason(
                rule="registry.model-unknown",
                message=f"model {key} is not declared",
                remedy="lockgate status lists what there is",
            )
        )
    policy = policy_of(docs, key.partition("/")[0])
    return policy if isinstance(policy, Refusal) else (model, policy)


def needs_validate(command: ValidateVersion, docs: Docs) -> tuple[DocRef, ...]:
    model = model_of(command.version)
    return (
        *maker_refs(docs, command.version),
        DocRef(MODEL.name, str(model)),
        DocRef(EVIDENCE.name, evidence_key(command.version)),
        DocRef(POLICY.name, model.namespace),
        DocRef(WAIVER.name, f"{model}#*"),
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
    judge = f"lockgate judge {command.version}"
    reasons = gate_reasons(rule.gates, evidence, remedy=judge)
    reasons += limit_reasons(rule.limits, rule.gates, evidence, remedy=judge)
    # A waiver for any environment: where the version may then go, each promotion asks again.
    waivers = docs.all(WAIVER, f"{version.model}#")
    makers = makers_of(docs, version)
    reasons, _ = pass_over(reasons, evidence, waivers, makers, policy.policy, context.now)
    reasons += age_reasons(evidence, rule, context.now)
    if not context.claimed:
        reasons += not_by_a_maker(context, makers, "say that it is validated")
    if evidence is None and not reasons:
        reasons.append(
            Reason(
                rule="gates.no-evidence",
                message=f"nobody has judged {command.version}",
                measured="none",
                remedy=judge,
            )
        )
    if reasons or evidence is None:
        return Refusal(reasons=tuple(reasons))
    if version.state == "validated" and version.evidence_set == evidence.evidence_set:
        return Decision(())
    return Decision(
        (VersionValidated(version=command.version, evidence_set=evidence.evidence_set, policy=policy.digest),)
    )


def needs_lift(command: LiftQuarantine, docs: Docs) -> tuple[DocRef, ...]:
    model = model_of(command.version)
    return (
        *registry.needs_lift(command, docs),
        DocRef(EVIDENCE.name, evidence_key(command.version)),
        DocRef(MODEL.name, str(model)),
        DocRef(POLICY.name, model.namespace),
    )


def lift_quarantine(docs: Docs, command: LiftQuarantine, context: Context) -> Decision | Refusal:
    """What was found out before a version was shut away says nothing of why it was: it is judged anew first.

    Where names are only claimed, that is left to the people.
    """
    decided = registry.lift_quarantine(docs, command, context, strict=_knows_makers(docs, command.version))
    version, evidence = docs.get(VERSION, command.version), docs.get(EVIDENCE, evidence_key(command.version))
    if isinstance(decided, Refusal) or context.claimed or version is None:
        return decided
    judged_at = None if evidence is None else evidence.measured_at
    if judged_at is not None and judged_at > (version.quarantined_at or 0):
        return decided
    return refuse(
        Reason(
            rule="governance.not-judged-since",
            message=f"{command.version} was not judged since it was quarantined",
            measured="never" if judged_at is None else iso(judged_at),
            limit=f"after {iso(version.quarantined_at or 0)}",
            evidence=None if evidence is None else evidence.evidence_set,
            remedy=f"lockgate judge {command.version}",
        )
    )


def _knows_makers(docs: Docs, key: str) -> bool:
    """Whether the policy asks, anywhere that a version may get to, to know who made it."""
    version, model = docs.get(VERSION, key), docs.get(MODEL, str(model_of(key)))
    policy = docs.get(POLICY, model_of(key).namespace)
    if version is None or model is None or policy is None or version.claimed:
        return False
    rule = policy.policy.rule(model.tier)
    return any(rule.knows_makers(sensitivity) for sensitivity in get_args(Sensitivity))


def needs_approve(
    command: ApproveVersion | RevokeApproval | DeclineVersion, docs: Docs
) -> tuple[DocRef, ...]:
    return (
        *maker_refs(docs, command.version),
        DocRef(EVIDENCE.name, evidence_key(command.version)),
        DocRef(EVIDENCE.name, evidence_key(command.version, command.environment)),
        DocRef(APPROVAL.name, approval_key(command.version, command.environment)),
        DocRef(RELEASE_PLAN.name, approval_key(command.version, command.environment)),
        DocRef(POLICY.name, model_of(command.version).namespace),
    )


def approve_version(
    docs: Docs,
    command: ApproveVersion,
    context: Context,
    makers: Makers | None = None,
    unknown: Sequence[Reason] = (),
) -> Decision | Refusal:
    """An approval is refused when it comes from a maker or a service, or is about other evidence than there is.

    Args:
        makers: who made the version, as strictly as it is asked where it is to go.
        unknown: why that is not known well enough there.
    """
    found = _about(docs, command)
    if isinstance(found, Refusal):
        return found
    version, policy, given = found
    if version.state != "validated":
        return wrong_state(version, "approved; only validated versions can be")
    makers = makers or makers_of(docs, version)
    reasons = [*by_a_person(context), *not_by_a_maker(context, makers, "approve it"), *unknown]
    reasons += _not_on_own_evidence(docs, command, context)
    bound = bound_of(docs, command.version, command.environment)
    reasons += _evidence_seen(command, bound)
    if reasons:
        return Refusal(reasons=tuple(reasons))
    repeated = any(
        (one.approver, one.role) == (context.actor, command.role)
        and context.now - one.approved_at < _STILL_FRESH_US
        for one in counting_approvals(makers, given, bound, policy.digest)
    )
    objected = given is not None and any(one.by == context.actor for one in given.objections)
    if repeated and not objected:
        return Decision(())
    return Decision(
        (
            VersionApproved(
                version=command.version,
                environment=command.environment,
                role=command.role,
                evidence_set=bound,
                policy=policy.digest,
                comment=command.comment,
            ),
        )
    )


def _not_on_own_evidence(docs: Docs, command: ApproveVersion, context: Context) -> list[Reason]:
    """Whoever brought the evidence would agree with himself. Not asked where names are only claimed."""
    records = [
        docs.get(EVIDENCE, evidence_key(command.version, environment))
        for environment in ("", command.environment)
    ]
    own = [record for record in records if record is not None and record.recorded_by == context.actor]
    if context.claimed or not own:
        return []
    return [
        Reason(
            rule="governance.separation-of-duties",
            message=f"{context.actor} recorded the evidence on {command.version} and cannot approve on it",
            measured=context.actor,
            limit=f"not {context.actor}",
            evidence=own[0].evidence_set,
            remedy="ask another approver, or let somebody else judge it",
        )
    ]


def revoke_approval(docs: Docs, command: RevokeApproval, context: Context) -> Decision | Refusal:
    """Whoever approved takes it back, as often as they like; nobody does it for them."""
    found = _about(docs, command)
    if isinstance(found, Refusal):
        return found
    given = found[2]
    own = [] if given is None else [one for one in given.approvals if one.approver == context.actor]
    if not any(one.role == command.role and one.revoked is None for one in own):
        roles = ", ".join(sorted({one.role for one in own if one.revoked is None}))
        return refuse(
            Reason(
                rule="governance.not-approved",
                message=f"{context.actor} has not approved {command.version} for {command.environment} "
                f"in the name of {command.role}",
                measured=roles or "no approval",
                limit=command.role,
                remedy=f"lockgate evidence {command.version} --for {command.environment}",
            )
        )
    return Decision(
        (
            ApprovalRevoked(
                version=command.version,
                environment=command.environment,
                role=command.role,
                reason=command.reason,
            ),
        )
    )


def decline_version(docs: Docs, command: DeclineVersion, context: Context) -> Decision | Refusal:
    """A person's no, on exactly the evidence they read."""
    found = _about(docs, command)
    if isinstance(found, Refusal):
        return found
    version, policy, given = found
    if version.state not in ("candidate", "validated"):
        return wrong_state(version, "declined")
    bound = bound_of(docs, command.version, command.environment)
    reasons = by_a_person(context) + _evidence_seen(command, bound)
    if reasons:
        return Refusal(reasons=tuple(reasons))
    about = (context.actor, command.role, bound, policy.digest)
    objections = () if given is None else given.objections
    if any((one.by, one.role, one.evidence_set, one.policy) == about for one in objections):
        return Decision(())
    return Decision(
        (
            VersionDeclined(
                version=command.version,
                environment=command.environment,
                role=command.role,
                evidence_set=bound,
                policy=policy.digest,
                reason=command.reason,
            ),
        )
    )


def _about(
    docs: Docs, command: ApproveVersion | RevokeApproval | DeclineVersion
) -> tuple[VersionState, PolicyState, ApprovalState | None] | Refusal:
    """What an approver speaks about: the version, the policy in force, what was said before."""
    check_part(command.environment, what="environment")
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    policy = policy_of(docs, model_of(command.version).namespace)
    if isinstance(policy, Refusal):
        return policy
    return version, policy, docs.get(APPROVAL, approval_key(command.version, command.environment))


def bound_of(docs: Docs, version: str, environment: str) -> Digest:
    """What an approval of a version for an environment is bound to at this moment."""
    return bound_set(
        docs.get(EVIDENCE, evidence_key(version)),
        docs.get(EVIDENCE, evidence_key(version, environment)),
        docs.get(RELEASE_PLAN, approval_key(version, environment)),
    )


def _evidence_seen(command: ApproveVersion | DeclineVersion, bound: str) -> list[Reason]:
    if command.evidence_set == bound:
        return []
    return [
        Reason(
            rule="governance.evidence-changed",
            message="the evidence, or the release plan, is no longer what the approver saw",
            measured=command.evidence_set,
            limit=bound,
            remedy=f"lockgate evidence {command.version} --for {command.environment}",
        )
    ]
