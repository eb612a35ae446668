"""What stands between a version and an environment: pure judgement over evidence, approvals and policy.

Every function returns all reasons, never only the first, so that one look tells what is still to be done.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import get_args

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, digest_of
from lockgate.core.messages import Context, Reason
from lockgate.gates.messages import EvidenceLine
from lockgate.gates.state import EvidenceState
from lockgate.governance.policies.policy import (
    NEVER_WAIVED,
    AnyPolicy,
    ApproverRole,
    Limit,
    Quorum,
    Seat,
    TierRule,
    fits,
)
from lockgate.governance.state import Approval, ApprovalState, PlanState, WaiverState
from lockgate.registry.makers import Makers
from lockgate.registry.messages import Maker

WAITS_FOR_PEOPLE = frozenset({"governance.approval", "governance.sign-off"})
"""Rules of reasons that another person's consent removes."""
DAY_US = 24 * 3600 * 1_000_000


def bound_set(
    intrinsic: EvidenceState | None, relative: EvidenceState | None, plan: PlanState | None = None
) -> Digest:
    """The digest an approval is bound to: intrinsic and relative evidence, and the release plan when there is one."""
    sets = [evidence.evidence_set if evidence else "" for evidence in (intrinsic, relative)]
    return bound_digest(sets[0], sets[1], None if plan is None else plan.plan.digest)


def bound_digest(intrinsic: str, relative: str, plan: Digest | None) -> Digest:
    """The same, by the digests of its parts; empty text for evidence that there is none of."""
    return digest_of([intrinsic, relative] if plan is None else [intrinsic, relative, plan])


def by_a_person(context: Context) -> list[Reason]:
    if context.person:
        return []
    return [
        Reason(
            rule="governance.not-a-person",
            message=f"{context.actor} is a service, and this takes a person",
            measured="service",
            limit="person",
            remedy="ask one of the approvers",
        )
    ]


def unknown_maker_reasons(makers: Makers, live: str | None, environment: str) -> list[Reason]:
    """Whom nobody knows of those who made a version: an approver who is one of them would not be noticed.

    Args:
        live: the version that it follows in `environment`; all that came since then has to be told.
    """
    version = makers.version
    if version.claimed:
        # Where names are only claimed, nothing is proven of anybody.
        return []
    since = "its first commit" if live is None else live
    reasons = [_unknown_maker(one) for one in makers.unknown()]
    if not any(one.is_person for one in makers.found):
        reasons.append(
            Reason(
                rule="governance.unknown-maker",
                message=f"no person is known to have made {version.version}",
                measured=makers.shown,
                limit="somebody",
                remedy=f"lockgate makers {version.version} --add ADDRESS",
            )
        )
    if not version.tells_since(live):
        reasons.append(
            Reason(
                rule="governance.unknown-maker",
                message=f"not everybody is told who made {version.version}: the checkout did not hold every commit "
                f"since {since}",
                measured="not told" if version.told_since is None else f"since {version.told_since}",
                limit=f"since {since}",
                remedy="fetch the whole history (fetch-depth: 0) and lockgate train there again; without any, "
                f"lockgate makers {version.version} --add ADDRESS --all",
            )
        )
    return reasons


def _unknown_maker(maker: Maker) -> Reason:
    what = f" of {maker.commit[:7]}" if maker.commit else ""
    name = shlex.quote(maker.name)
    return Reason(
        rule="governance.unknown-maker",
        message=f"nobody knows who {maker.name} is ({maker.did}{what}), and an approver could be",
        measured=maker.name,
        limit="somebody known",
        remedy=f"an admin: lockgate access alias {name} PERSON; for a machine, service:NAME instead of PERSON",
    )


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
        measured=line.value or None,
        limit=line.threshold or None,
        evidence=line.digest,
    )


def limit_reasons(
    limits: Iterable[Limit], gates: Sequence[str], evidence: EvidenceState | None, *, remedy: str
) -> list[Reason]:
    """Where the policy is stricter than the project: figures beyond a limit of its own, and figures it cannot see.

    Args:
        gates: those that are asked for here; limits on others do not apply.
    """
    lines = () if evidence is None else evidence.lines
    seen = {line.gate for line in lines}
    reasons = []
    # A gate without any evidence is told as that, not once more as a limit that was not met.
    for limit in (limit for limit in limits if limit.gate in gates and limit.gate in seen):
        about = [
            line
            for line in lines
            if (line.gate, line.metric, line.slice) == (limit.gate, limit.metric, limit.slice)
        ]
        name = ":".join(part for part in (limit.gate, limit.metric, limit.slice) if part)
        if not about:
            reasons.append(
                Reason(
                    rule=name,
                    message=f"the policy limits {limit.metric}, which {limit.gate} did not measure",
                    measured="none",
                    limit=limit.text,
                    remedy=remedy,
                )
            )
        reasons += [reason for line in about for reason in _beyond(limit, line, remedy)]
    return reasons


def _beyond(limit: Limit, line: EvidenceLine, remedy: str) -> list[Reason]:
    """Why a line does not keep a limit; nothing when it does, or when there was nothing to be compared with."""
    if line.verdict == "pass" and not line.value:
        return []
    end = line.low if limit.at_least is not None else line.high
    figure = line.measured if limit.bound == "measured" else end
    if figure is None:
        missing = "measured figure" if line.measured is None else "confidence interval"
        return [
            Reason(
                rule=line.name,
                message=f"the policy holds {line.gate} to a limit by its {missing}, which this evidence does not have",
                measured=line.value or "none",
                limit=limit.text,
                remedy=remedy,
            )
        ]
    kept = figure >= limit.at_least if limit.at_least is not None else figure <= (limit.at_most or 0.0)
    if kept:
        return []
    by = "" if limit.bound == "measured" else " by its confidence interval"
    return [
        Reason(
            rule=line.name,
            message=f"the policy asks for {line.metric} of {limit.text}{by}: {line.summary}",
            measured=f"{figure:g}",
            limit=limit.text,
            evidence=line.digest,
        )
    ]


def age_reasons(evidence: EvidenceState | None, rule: TierRule, now: Micros) -> list[Reason]:
    if evidence is None or now - evidence.measured_at <= rule.evidence_max_age_days * DAY_US:
        return []
    place = f" --for {evidence.environment}" if evidence.environment else ""
    return [
        Reason(
            rule="governance.evidence-age",
            message=f"evidence on {evidence.version} is too old"
            + ("" if evidence.judging else ": it came without a run of the gates that was begun here"),
            measured=f"{(now - evidence.measured_at) // DAY_US} days",
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
    makers: Makers,
    given: ApprovalState | None,
    bound: Digest,
    policy: Digest,
    judged_by: Collection[str] = (),
) -> tuple[Approval, ...]:
    """Approvals that still stand: on this evidence and policy, one per person and role, none by a maker, and none by
    whoever recorded the evidence (`judged_by`), be it afterwards."""
    standing: dict[tuple[str, ApproverRole], Approval] = {}
    for approval in () if given is None else given.approvals:
        fresh = approval.evidence_set == bound and approval.policy == policy
        own = approval.approver in judged_by or makers.include(approval.approver)
        if fresh and approval.revoked is None and not own:
            standing[(approval.approver, approval.role)] = approval
    return tuple(standing.values())


def approvers(approvals: Iterable[Approval]) -> tuple[str, ...]:
    """Who they are, each once."""
    return tuple(dict.fromkeys(approval.approver for approval in approvals))


def empty_seats(seats: Sequence[Seat], approvals: Sequence[Approval]) -> tuple[Seat, ...]:
    """The seats that nobody takes when every person takes at most one and as many as can be are taken.

    A maximum matching of seats and people by augmenting paths: who spoke for two roles makes room where that helps.
    """
    taken: dict[str, int] = {}

    def seat_somebody(seat: int, passed: set[str]) -> bool:
        for approval in approvals:
            person = approval.approver
            if person in passed or not fits(approval.role, seats[seat]):
                continue
            passed.add(person)
            if person not in taken or seat_somebody(taken[person], passed):
                taken[person] = seat
                return True
        return False

    return tuple(name for number, name in enumerate(seats) if not seat_somebody(number, set()))


def wanted_roles(empty: Sequence[Seat]) -> list[ApproverRole]:
    """In whose name the next approval helps, the first one most; that of the owner when none is missing."""
    everybody: tuple[ApproverRole, ...] = get_args(ApproverRole)
    return list(dict.fromkeys(role for seat in empty for role in everybody if fits(role, seat))) or ["owner"]


def own_role(approvals: Iterable[Approval], person: str) -> ApproverRole | None:
    """In whose name a person has approved last, if they have."""
    own = [approval.role for approval in approvals if approval.approver == person]
    return own[-1] if own else None


def approval_reasons(
    makers: Makers,
    given: ApprovalState | None,
    standing: Sequence[Approval],
    *,
    bound: Digest,
    policy: Digest,
    quorum: Quorum,
    environment: str,
    judged_by: Collection[str] = (),
) -> list[Reason]:
    """Approvals that are missing, and what people have said no to.

    Args:
        standing: those of what was given that count.
        judged_by: who recorded the evidence, and does not count for that.
    """
    version = makers.version
    n_people = len(approvers(standing))
    empty = empty_seats(quorum.seats, standing)
    reasons = _objections(given, bound, policy, environment)
    if not empty and n_people >= quorum.people:
        return reasons
    said = approvers(() if given is None else (one for one in given.approvals if one.revoked is None))
    own = [person for person in said if makers.include(person)]
    judges = [person for person in said if person in judged_by and person not in own]
    n_stale = len(set(said) - set(own) - set(judges) - set(approvers(standing)))
    counts = "counts" if n_stale == 1 else "count"
    note = f"; {n_stale} given on other evidence or policy no longer {counts}" if n_stale else ""
    note += f"; {', '.join(own)} had a hand in it" if own else ""
    note += f"; {', '.join(judges)} recorded the evidence" if judges else ""
    asked = f" in the name of {_listed(quorum.seats)}" if quorum.seats else ""
    lacking = f"; {_listed(empty)} missing" if empty and len(empty) < len(quorum.seats) else ""
    n_given = min(quorum.size - len(empty), n_people) if quorum.seats else n_people
    many = "s" if quorum.size > 1 and quorum.seats else ""
    return [
        *reasons,
        Reason(
            rule="governance.approval",
            message=f"{environment} asks for {quorum.size} approval{many} by somebody other than "
            f"{makers.shown}{asked}{lacking}{note}",
            measured=f"{n_given} of {quorum.size}",
            limit=str(quorum.size),
            evidence=bound,
            remedy=f"lockgate approve {version.version} --for {environment} --as NAME",
        ),
    ]


def _objections(given: ApprovalState | None, bound: Digest, policy: Digest, environment: str) -> list[Reason]:
    return [
        Reason(
            rule="governance.declined",
            message=f"{objection.by} declined it for {environment} in the name of {objection.role}: {objection.reason}",
            measured=f"declined by {objection.by}",
            evidence=bound,
            remedy="a new version, or new evidence; else only their own approval takes it back",
        )
        for objection in (() if given is None else given.objections)
        if (objection.evidence_set, objection.policy) == (bound, policy)
    ]


def _listed(seats: Sequence[Seat]) -> str:
    """`owner, risk and product`."""
    return " and ".join(filter(None, (", ".join(seats[:-1]), seats[-1])))


class Waived(msgspec.Struct, frozen=True, kw_only=True):
    """A reason that a waiver has passed over; `rule` and `message` are the reason's."""

    rule: str
    message: str
    waiver: str
    until: Micros


def matches(versions: str, number: str) -> bool:
    """Whether a version's number is one of `versions`: `1.4.2`, `1.4.*`, `1.*`."""
    return number == versions or (versions.endswith("*") and number.startswith(versions[:-1]))


def never_waived(policy: AnyPolicy) -> frozenset[str]:
    return NEVER_WAIVED | set(policy.never_waived)


def pass_over(
    reasons: Sequence[Reason],
    evidence: EvidenceState | None,
    waivers: Iterable[WaiverState],
    makers: Makers,
    policy: AnyPolicy,
    now: Micros,
) -> tuple[list[Reason], list[Waived]]:
    """What of `reasons` still stands, and what a waiver has passed over.

    Args:
        evidence: the record the reasons are about.
        waivers: of the model, for the environment in question or one that it leads to.
    """
    measured = {line.digest for line in evidence.lines if line.verdict != "error"} if evidence else set()
    hard, number = never_waived(policy), makers.version.version.partition("@")[2]
    holding = {
        waiver.gate: waiver
        for waiver in waivers
        if waiver.holds(now) and not makers.include(waiver.granted_by) and matches(waiver.versions, number)
    }
    left, passed = [], []
    for reason in reasons:
        gate = reason.rule.partition(":")[0]
        waiver = holding.get(gate)
        if waiver is None or gate in hard or reason.evidence not in measured:
            left.append(reason)
            continue
        passed.append(
            Waived(rule=reason.rule, message=reason.message, waiver=waiver.name, until=waiver.until)
        )
    return left, passed


def reaching(
    waivers: Iterable[WaiverState], environment: str, order: Mapping[str, int]
) -> tuple[WaiverState, ...]:
    """Waivers for an environment, and for those that the ladder leads to from there."""
    here = order.get(environment, 0)
    return tuple(
        one for one in waivers if one.environment == environment or order.get(one.environment, here) > here
    )
