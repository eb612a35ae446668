"""How far a version is from an environment, and the one thing to do next."""

from __future__ import annotations

from lockgate.core.clock import Micros
from lockgate.core.documents import Docs
from lockgate.core.messages import Reason
from lockgate.delivery.standing import standing_of
from lockgate.delivery.state import EndpointState, EnvironmentState
from lockgate.gates.state import EVIDENCE, EvidenceState, evidence_key
from lockgate.governance.decide import bound_of
from lockgate.governance.judgement import WAITS_FOR_PEOPLE, approvers, counting_approvals, empty_seats
from lockgate.governance.policy import TierRule, quorum_of
from lockgate.governance.state import APPROVAL, RELEASE_PLAN, PolicyState, approval_key
from lockgate.hub.messages import Decided, StandingAnswer
from lockgate.registry.state import MODEL, VersionState

# What no command on the way can remove: something else has to happen first.
_ENDS = frozenset(
    {
        "delivery.ladder",
        "delivery.no-way-back",
        "governance.declined",
        "governance.drill-age",
        "governance.no-risk",
        "governance.no-signal",
        "governance.review-overdue",
    }
)


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
    bound = bound_of(docs, key, name)
    rule, quorum = (
        policy.policy.rule(model.tier),
        quorum_of(policy.policy, model.tier, model.kpi, sensitivity),
    )
    approvals = counting_approvals(version, docs.get(APPROVAL, approval_key(key, name)), bound, policy.digest)
    plan = docs.get(RELEASE_PLAN, approval_key(key, name))
    live = endpoint.live.served if endpoint.live else None
    step = _next_step(version, endpoint, found.reasons, _of_itself(found.reasons, rule, intrinsic))
    return StandingAnswer(
        next=step,
        reasons=tuple(found.reasons),
        bound=bound,
        baseline=live.package if live else None,
        baseline_version=live.version if live else None,
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
        decision=_DECISIONS.get(step, "refused"),
    )


_DECISIONS: dict[str, Decided] = {
    "done": "allowed",
    "promote": "allowed",
    "approve": "waiting",
    "wait": "waiting",
}


def _of_itself(reasons: list[Reason], rule: TierRule, intrinsic: EvidenceState | None) -> list[Reason]:
    """The reasons that evidence on the version alone would remove: a gate without any, or evidence too old."""
    known = None if intrinsic is None else intrinsic.evidence_set
    return [
        reason
        for reason in reasons
        if (reason.rule in rule.gates and reason.evidence is None)
        or (reason.rule == "governance.evidence-age" and reason.evidence == known)
    ]


def _next_step(
    version: VersionState, endpoint: EndpointState, reasons: list[Reason], of_itself: list[Reason]
) -> str:
    """The one thing to do next on the way of `version` to `endpoint`.

    Args:
        of_itself: those of the reasons that new evidence on the version alone would remove.
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
    if any(reason.rule == "governance.evidence-age" for reason in of_itself):
        return "judge"
    if rules & {"gates.baseline-moved", "governance.evidence-age"}:
        # What the old judgement said no longer counts, for or against.
        return "judge-for"
    if any(reason.evidence and reason.remedy is None for reason in reasons):
        return "stop"
    if of_itself:
        return "judge"
    if "registry.state" in rules:
        return "validate"
    if rules & _ENDS:
        return "stop"
    if rules <= WAITS_FOR_PEOPLE:
        return "approve"
    return "plan" if rules <= WAITS_FOR_PEOPLE | {"governance.release-plan"} else "judge-for"
