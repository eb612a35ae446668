"""What stands between a version and an environment: pure judgement over evidence, approvals and policy.

Every function returns all reasons, never only the first, so that one look tells what is still to be done.
"""

from __future__ import annotations

from collections.abc import Iterable

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, digest_of
from lockgate.core.messages import Reason
from lockgate.gates.messages import EvidenceLine
from lockgate.gates.state import EvidenceState
from lockgate.governance.policy import Sensitivity, TierRule
from lockgate.governance.state import Approval, ApprovalState
from lockgate.registry.state import VersionState

_DAY_US = 24 * 3600 * 1_000_000


def bound_set(intrinsic: EvidenceState | None, relative: EvidenceState | None) -> Digest:
    """The digest an approval is bound to: intrinsic and relative evidence together."""
    return digest_of([evidence.evidence_set if evidence else "" for evidence in (intrinsic, relative)])


def gate_reasons(gates: Iterable[str], evidence: EvidenceState | None, *, remedy: str) -> list[Reason]:
    """A reason for each required gate without evidence, and for each blocking verdict.

    A gate that did not run blocks like one that failed; a gate nobody asked for still blocks when it failed.
    """
    lines = () if evidence is None else evidence.lines
    seen = {line.gate for line in lines}
    missing = [
        Reason(rule=gate, message=f"gate {gate} has no evidence", measured="none", remedy=remedy)
        for gate in gates
        if gate not in seen
    ]
    return missing + [
        _blocking(line) for line in lines if line.verdict in ("fail", "error") and _blocks(line)
    ]


def _blocks(line: EvidenceLine) -> bool:
    return line.severity == "block" or line.verdict == "error"


def _blocking(line: EvidenceLine) -> Reason:
    return Reason(
        rule=line.name,
        message=line.summary,
        measured=line.value,
        limit=line.threshold,
        evidence=line.digest,
    )


def age_reasons(evidence: EvidenceState | None, rule: TierRule, now: Micros) -> list[Reason]:
    if evidence is None or now - evidence.recorded_at <= rule.evidence_max_age_days * _DAY_US:
        return []
    place = f" --for {evidence.environment}" if evidence.environment else ""
    return [
        Reason(
            rule="governance.evidence-age",
            message=f"evidence on {evidence.version} is too old",
            measured=f"{(now - evidence.recorded_at) // _DAY_US} days",
            limit=f"{rule.evidence_max_age_days} days",
            evidence=evidence.evidence_set,
            remedy=f"lockgate judge {evidence.version}{place}",
        )
    ]


def baseline_reasons(
    relative: EvidenceState | None, live_package: Digest | None, environment: str
) -> list[Reason]:
    """Relative evidence is about the champion of its day; a champion that moved makes it stale."""
    if relative is None or (relative.baseline or None) == live_package:
        return []
    return [
        Reason(
            rule="gates.baseline-moved",
            message=f"another version runs in {environment} than the one this was judged against",
            measured=relative.baseline or "no baseline",
            limit=live_package or "no baseline",
            evidence=relative.evidence_set,
            remedy=f"lockgate judge {relative.version} --for {environment}",
        )
    ]


def counting_approvals(
    version: VersionState, given: ApprovalState | None, bound: Digest, policy: Digest
) -> tuple[Approval, ...]:
    """Approvals that still stand: on this evidence and policy, one per person, none by the author."""
    standing: dict[str, Approval] = {}
    for approval in () if given is None else given.approvals:
        fresh = approval.evidence_set == bound and approval.policy == policy
        if fresh and approval.approver != version.author:
            standing[approval.approver] = approval
    return tuple(standing.values())


def approval_reasons(
    version: VersionState,
    given: ApprovalState | None,
    *,
    bound: Digest,
    policy: Digest,
    rule: TierRule,
    sensitivity: Sensitivity,
    environment: str,
) -> list[Reason]:
    quorum = rule.approvals.get(sensitivity, 0)
    standing = counting_approvals(version, given, bound, policy)
    if len(standing) >= quorum:
        return []
    stale = 0 if given is None else len({approval.approver for approval in given.approvals})
    note = f"; {stale} given on other evidence or policy no longer count" if stale > len(standing) else ""
    return [
        Reason(
            rule="governance.approval",
            message=f"{environment} asks for {quorum} approval by somebody other than {version.author}{note}",
            measured=f"{len(standing)} of {quorum}",
            limit=str(quorum),
            evidence=bound,
            remedy=f"lockgate approve {version.version} --for {environment} --as NAME",
        )
    ]
