"""What asks for people: exceptions only. What goes its way by the rules is not among them.

A release that is live stays live when its grounds lapse; it is called *out of policy* and asks for somebody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from lockgate.core.clock import Micros, iso
from lockgate.core.names import parse_endpoint, parse_model, parse_version
from lockgate.gates.state import EvidenceState
from lockgate.governance.judgement import DAY_US
from lockgate.governance.policies.policy import TierRule
from lockgate.governance.state import ApprovalState, BreakGlassState, ProposalState, WaiverState
from lockgate.registry.state import LoweringState, VersionState

Matter = Literal[
    "approval", "waiver", "review", "revalidation", "out-of-policy", "policy", "declaration", "quarantine"
]
_SOON_US: dict[Matter, int] = {"waiver": 7 * DAY_US, "revalidation": 30 * DAY_US}


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """Something that waits for a person.

    Attributes:
        subject: the version, endpoint or model it is about, as people write it.
        due: until when; None when there is no date.
        remedy: what to type.
    """

    matter: Matter
    subject: str
    what: str
    due: Micros | None
    remedy: str

    @property
    def lines(self) -> list[str]:
        """For people."""
        due = "" if self.due is None else f", by {iso(self.due)[:16].replace('T', ' ')}Z"
        return [f"{self.matter:<14} {self.subject}: {self.what}{due}", f"{'':<15}next: {self.remedy}"]


def day(at: Micros) -> str:
    return iso(at)[:10]


def revalidation_due(
    rule: TierRule, evidence: EvidenceState | None, given: ApprovalState | None
) -> Micros | None:
    """When what is live has to have been judged, and by people approved, anew; None when the tier never asks.

    The older of the two dates counts, where people have approved at all.
    """
    if rule.revalidate_days is None or evidence is None:
        return None
    approved = [one.approved_at for one in (given.approvals if given else ()) if one.revoked is None]
    since = min(evidence.measured_at, max(approved, default=evidence.measured_at))
    return since + rule.revalidate_days * DAY_US


def lapsed(
    version: VersionState,
    names: Iterable[str],
    waivers: Iterable[WaiverState],
    right: BreakGlassState | None,
    due: Micros | None,
    now: Micros,
) -> tuple[str, ...]:
    """Why a live release is out of policy, one line each; empty when it is within.

    Args:
        names: of the waivers it was released by.
        right: by which emergency right it was released, if it was.
        due: when its revalidation is.
    """
    found = []
    if version.state in ("quarantined", "rejected"):
        found.append(f"it is {version.state}: {version.reason}")
    by_name = {one.name: one for one in waivers}
    for waiver in (by_name[name] for name in names if name in by_name):
        if waiver.ended_at is not None:
            found.append(f"waiver {waiver.name} of {waiver.gate} was ended: {waiver.ended}")
        elif not waiver.holds(now):
            found.append(f"waiver {waiver.name} of {waiver.gate} ended on {day(waiver.until)}")
    if right is not None and right.reviewed_at is None:
        found.append(
            f"it came in by break-glass {right.name}, whose review is due on {day(right.review_due)}"
        )
    if due is not None and now > due:
        found.append(f"its revalidation was due on {day(due)}")
    return tuple(found)


def of_endpoint(
    endpoint: str, version: str, out_of_policy: Iterable[str], due: Micros | None, now: Micros
) -> list[Attention]:
    """What a live release asks for."""
    shown = parse_version(version).shown
    found = [
        Attention(
            matter="out-of-policy",
            subject=endpoint,
            what=f"{shown} is live out of policy: {why}",
            due=None,
            remedy=f"lockgate explain {endpoint}",
        )
        for why in out_of_policy
    ]
    if due is not None and now <= due <= now + _SOON_US["revalidation"]:
        found.append(
            Attention(
                matter="revalidation",
                subject=endpoint,
                what=f"{shown} is to be judged and approved anew",
                due=due,
                remedy=f"lockgate judge {shown}, then approve it again",
            )
        )
    return found


def of_waivers(waivers: Iterable[WaiverState], now: Micros) -> list[Attention]:
    """Waivers that wait for an answer, and those that end soon."""
    found = []
    for one in waivers:
        model = parse_model(one.model).shown
        what = f"{one.name} of {one.gate} for {one.versions} in {one.environment}"
        if one.is_asked and one.until >= now:
            what = f"{what} is asked for by {one.requested_by}: {one.reason}"
            remedy = f"lockgate waive {model} --for {one.environment} --grant {one.name} --as NAME"
        elif one.holds(now) and one.until <= now + _SOON_US["waiver"]:
            what, remedy = f"{what} ends", "mend what the gate finds, or ask for it anew: lockgate waive"
        else:
            continue
        found.append(Attention(matter="waiver", subject=model, what=what, due=one.until, remedy=remedy))
    return found


def of_reviews(rights: Iterable[BreakGlassState]) -> list[Attention]:
    """Emergencies whose review is owed."""
    return [
        Attention(
            matter="review",
            subject=f"{one.environment}/{parse_model(one.model).shown}",
            what=f"{one.name} was broken by {one.broken_by} for {one.incident}: {one.reason}",
            due=one.review_due,
            remedy=f"lockgate review close {one.environment}/{parse_model(one.model).shown} {one.name} "
            "--finding TEXT --as NAME",
        )
        for one in rights
        if one.reviewed_at is None
    ]


def of_proposal(proposal: ProposalState) -> Attention:
    return Attention(
        matter="policy",
        subject=proposal.namespace,
        what=f"{proposal.proposed_by} proposes a laxer policy: {'; '.join(proposal.laxer)}",
        due=None,
        remedy=f"lockgate policy consent {proposal.digest}",
    )


def of_lowering(lowering: LoweringState) -> Attention:
    kind, _, name = lowering.subject.partition(" ")
    if kind == "version":
        return Attention(
            matter="quarantine",
            subject=parse_version(name).shown,
            what=f"{lowering.proposed_by} proposes to let it out: {'; '.join(lowering.lowers)}",
            due=None,
            remedy=f"lockgate quarantine {parse_version(name).shown} --lift --reason TEXT, by another of security",
        )
    if kind == "removal":
        shown = parse_endpoint(name).shown
        return Attention(
            matter="declaration",
            subject=f"endpoint {shown}",
            what=f"{lowering.proposed_by} proposes to take it down: {'; '.join(lowering.lowers)}",
            due=None,
            remedy=f"lockgate endpoint remove {shown} --reason TEXT, by another admin, with the same --live; "
            "else it stays",
        )
    return Attention(
        matter="declaration",
        subject=lowering.subject,
        what=f"{lowering.proposed_by} declares that less is asked for: {'; '.join(lowering.lowers)}",
        due=None,
        remedy="lockgate declare, by another admin with the same lockgate.toml; else it stays as it is",
    )


def of_approval(version: str, environment: str, missing: Iterable[str]) -> Attention:
    shown = parse_version(version).shown
    return Attention(
        matter="approval",
        subject=shown,
        what=f"waits for {environment}: {'; '.join(missing)}",
        due=None,
        remedy=f"lockgate evidence {shown} --for {environment}",
    )
