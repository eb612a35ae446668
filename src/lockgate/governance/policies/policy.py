"""The policy: what a tier asks for before a version may be validated and released, by how sensitive the
environment is. A policy is plain data, named by its digest; editing it makes approvals stale.

There are two shapes. `lockgate.policy/1` knew gates, a number of people and the age of evidence; it is still read, and
`rule` gives it in today's terms. `lockgate.policy/2` says in whose name people approve, and the rest of what is below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from lockgate.core.digests import Digest, digest_of
from lockgate.core.errors import Invalid
from lockgate.governance.policies.pattern import PatternRefused, ticket_pattern
from lockgate.registry.messages import Tier

Sensitivity = Literal["open", "guarded", "production"]
ApproverRole = Literal["owner", "product", "risk", "validation"]
"""In whose name somebody approves."""
Seat = Literal["owner", "product", "risk", "validation", "technical"]
"""An approval that a policy asks for; `technical` is taken by whoever speaks for owner, risk or validation."""

TIERS: tuple[Tier, ...] = get_args(Tier)
TECHNICAL: frozenset[ApproverRole] = frozenset({"owner", "risk", "validation"})
MAX_STAGE_HOURS = 31 * 24.0
"""A step of a rollout lasts no longer, so no policy can ask for more."""
NEVER_WAIVED = frozenset({"data.contract", "model.infra", "security.format"})
"""What these gates find makes bytes unfit to be served by anybody's leave."""


class PolicyInvalid(Invalid):
    code = "governance.policy-invalid"


class TierRule1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tier asked for in a policy of the first shape; see `TierRule`."""

    gates: tuple[str, ...]
    relative: dict[Sensitivity, tuple[str, ...]] = {}
    approvals: dict[Sensitivity, int] = {}
    evidence_max_age_days: int


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit of the policy for what a gate measured, beside the project's own; the stricter of the two decides.

    What `perf.vs_champion` measures is a difference to the champion, so a limit on it is one against the champion.

    Attributes:
        slice: which slice; empty for the figure of all rows.
        bound: `ci` asks the whole confidence interval to keep the limit, `measured` the figure alone.

    Raises:
        ValueError: not exactly one of `at_least` and `at_most`.
    """

    gate: str
    metric: str
    slice: str = ""
    at_least: float | None = None
    at_most: float | None = None
    bound: Literal["measured", "ci"] = "ci"

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(
                f"the limit on {self.gate} {self.metric} needs exactly one of at_least and at_most"
            )

    @property
    def text(self) -> str:
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


class WaiverTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a failed gate may be waived.

    Attributes:
        max_days: the longest a waiver lasts.
        roles: who may grant one.
        renewals: how often the same gate of the same model is waived again before only `risk` may.
    """

    max_days: float = 30.0
    roles: tuple[ApproverRole, ...] = ("owner", "risk")
    renewals: int = 1


class BreakGlassTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an emergency right lasts at most, and when its use must have been reviewed, in hours."""

    max_hours: float = 4.0
    review_hours: float = 72.0


Stage = Literal["shadow", "canary", "soak"]
"""The stages of a rollout, in the order in which it passes them."""


class StageTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage that the rollout of a release has to pass.

    Attributes:
        levels: how many steps of this stage there are at least.
        max_share: the share of the traffic that the first of them takes at most.
        min_units: what each of them has met at least, in units (routing keys, pairs in shadow).
        min_hours: how long all of them together last at least.
    """

    stage: Stage
    levels: int = 1
    max_share: float = 1.0
    min_units: int = 1
    min_hours: float = 0.0

    @property
    def text(self) -> str:
        """`canary in 2 steps, the first of at most 10 %, of 100 units each, for 24 h`."""
        parts = []
        if self.levels > 1:
            parts.append(f"in {self.levels} steps")
        if self.stage == "canary" and self.max_share < 1:
            first = "the first of" if self.levels > 1 else "of"
            parts.append(f"{first} at most {self.max_share * 100:g} %")
        if self.min_units > 1:
            parts.append(f"of {self.min_units} units{' each' if self.levels > 1 else ''}")
        if self.min_hours > 0:
            parts.append(f"for {self.min_hours:g} h")
        return " ".join([self.stage, ", ".join(parts)]).strip()


class TierRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tier asks for.

    Attributes:
        gates: gates whose evidence a version needs to become `validated`.
        relative: per sensitivity, gates that compare with what runs in the environment.
        limits: further limits for what those gates measured.
        approvals: per sensitivity, the approvals that are asked for, each by another person and none by the author.
        people: per sensitivity, how many people must agree at least, in whosever name.
        evidence_max_age_days: evidence older than this no longer counts for a promotion.
        revalidate_days: what is live is judged and approved anew within this time.
        ticket: per sensitivity, the `TicketPattern` that the ticket of a promotion matches in full.
        tracker: sensitivities in which the tracker is asked about that ticket as well: it is known, open, and not
            unapproved.
        release_plan: sensitivities in which a promotion carries a release plan.
        known_makers: sensitivities in which everybody who made a version must be known: no approver is one of them.
        drill_max_age_days: per sensitivity, how long ago the way back was rehearsed at most.
        rollout: per sensitivity, the stages that a release which follows another one passes, in their order.
    """

    gates: tuple[str, ...]
    relative: dict[Sensitivity, tuple[str, ...]] = {}
    limits: tuple[Limit, ...] = ()
    approvals: dict[Sensitivity, tuple[Seat, ...]] = {}
    people: dict[Sensitivity, int] = {}
    evidence_max_age_days: int
    revalidate_days: int | None = None
    waivers: WaiverTerms = WaiverTerms()
    ticket: dict[Sensitivity, str] = {}
    tracker: tuple[Sensitivity, ...] = ()
    release_plan: tuple[Sensitivity, ...] = ()
    drill_max_age_days: dict[Sensitivity, int] = {}
    rollout: dict[Sensitivity, tuple[StageTerms, ...]] = {}
    # Left out where it says nothing, so that policies of before it keep the digests that approvals name.
    known_makers: tuple[Sensitivity, ...] | msgspec.UnsetType = msgspec.UNSET

    def knows_makers(self, sensitivity: Sensitivity) -> bool:
        """Whether everybody who made a version must be known there."""
        return sensitivity in (self.known_makers or ())

    @property
    def asked(self) -> frozenset[str]:
        """Every gate that the tier asks for anywhere."""
        return frozenset(self.gates).union(*self.relative.values())


class Policy1(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="schema",
    tag="lockgate.policy/1",
):
    """A policy of the first shape, kept as it was adopted."""

    name: str
    version: int
    tiers: dict[Tier, TierRule1]

    @property
    def digest(self) -> Digest:
        return digest_of(self)

    def rule(self, tier: Tier) -> TierRule:
        """A tier's rule in today's terms: its number of people says nothing about in whose name they agree."""
        old = self.tiers[tier]
        return TierRule(
            gates=old.gates,
            relative=old.relative,
            people=old.approvals,
            evidence_max_age_days=old.evidence_max_age_days,
        )

    @property
    def kpi(self) -> dict[Sensitivity, tuple[Seat, ...]]:
        return {}

    @property
    def sign_off(self) -> tuple[Sensitivity, ...]:
        return ()

    @property
    def never_waived(self) -> tuple[str, ...]:
        return ()

    @property
    def break_glass(self) -> BreakGlassTerms:
        return BreakGlassTerms()


class Policy(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="schema",
    tag="lockgate.policy/2",
):
    """A versioned set of tier rules.

    Attributes:
        kpi: per sensitivity, approvals that any model asks for which declares a KPI, whatever its tier.
        sign_off: sensitivities in which the consumers of an endpoint agree to a major version first.
        never_waived: gates that may not be waived, beside `NEVER_WAIVED`.
    """

    name: str
    version: int
    tiers: dict[Tier, TierRule]
    kpi: dict[Sensitivity, tuple[Seat, ...]] = {}
    sign_off: tuple[Sensitivity, ...] = ()
    never_waived: tuple[str, ...] = ()
    break_glass: BreakGlassTerms = BreakGlassTerms()

    @property
    def digest(self) -> Digest:
        return digest_of(self)

    def rule(self, tier: Tier) -> TierRule:
        return self.tiers[tier]


AnyPolicy = Policy1 | Policy


def named(policy: AnyPolicy) -> tuple[str, int]:
    """What people call a policy; one name has one content wherever it rules."""
    return policy.name, policy.version


class Quorum(msgspec.Struct, frozen=True, kw_only=True):
    """Whose approvals are asked for: one person per seat, and so many people at least."""

    seats: tuple[Seat, ...] = ()
    people: int = 0

    @property
    def size(self) -> int:
        return max(self.people, len(self.seats))


def quorum_of(policy: AnyPolicy, tier: Tier, kpi: str, sensitivity: Sensitivity) -> Quorum:
    """What is asked for a model of this tier; a declared KPI adds the seats that the tier does not ask for already."""
    rule = policy.rule(tier)
    seats = list(rule.approvals.get(sensitivity, ()))
    for seat in policy.kpi.get(sensitivity, ()) if kpi else ():
        filled = TECHNICAL & set(seats) if seat == "technical" else {seat} & set(seats)
        if not filled and seat not in seats:
            seats.append(seat)
    return Quorum(seats=tuple(seats), people=rule.people.get(sensitivity, 0))


def fits(role: ApproverRole, seat: Seat) -> bool:
    return role == seat or (seat == "technical" and role in TECHNICAL)


def complaints(policy: AnyPolicy) -> Iterator[tuple[str, str]]:
    """Why a policy does not hold together, by whatever door it came, and what to write instead.

    A rule that only seems to ask for something is among them. Nothing here knows which gates there are.
    """
    missing = [tier for tier in TIERS if tier not in policy.tiers]
    yield from ((f"it has no rule for tier {tier}", f"add a [tiers.{tier}] table") for tier in missing)
    terms = policy.break_glass
    if not (0 < terms.max_hours <= 24 and terms.review_hours > 0):
        yield "break_glass lasts from more than 0 to 24 hours", "write max_hours = 4, review_hours = 72"
    if not math.isfinite(terms.review_hours):
        yield "break_glass names no review_hours that end", "write review_hours = 72"
    for tier in (tier for tier in TIERS if tier in policy.tiers):
        for complaint, remedy in _complaints_about(policy.rule(tier)):
            yield f"tiers.{tier} {complaint}", remedy


def _complaints_about(rule: TierRule) -> Iterator[tuple[str, str]]:
    for limit in rule.limits:
        if limit.gate not in rule.asked:
            yield (
                f"limits gate {limit.gate!r}, which it does not ask for",
                f"add {limit.gate} to its gates or relative, or leave the limit out",
            )
        if not math.isfinite(limit.at_most or limit.at_least or 0.0):
            yield f"limits {limit.gate} {limit.metric} by no number", "write a number"
    for sensitivity, pattern in rule.ticket.items():
        try:
            asks_for_none = ticket_pattern(pattern).matches("")
        except PatternRefused as error:
            yield f"has a ticket pattern for {sensitivity} that is of no use: {error.message}", error.remedy
            continue
        if asks_for_none:
            yield (
                f"has a ticket pattern for {sensitivity} that no ticket at all matches as well: {pattern}",
                "write one that asks for something, as '[A-Z]+-[0-9]+', or leave it out",
            )
    for sensitivity in rule.tracker:
        if sensitivity not in rule.ticket:
            yield (
                f"has the tracker asked in {sensitivity}, and asks for no ticket there",
                f"write ticket.{sensitivity} = '[A-Z]+-[0-9]+', or leave tracker out",
            )
    for sensitivity, stages in rule.rollout.items():
        for complaint in _about_stages(stages):
            yield (
                f"has a rollout for {sensitivity} {complaint}",
                'write [{ stage = "shadow" }, { stage = "canary" }]',
            )
    days = (rule.evidence_max_age_days, rule.revalidate_days or 1, *rule.drill_max_age_days.values())
    if min(days) < 1 or rule.waivers.max_days <= 0 or rule.waivers.renewals < 0:
        yield "counts with days of less than one", "write whole days"
    if not math.isfinite(rule.waivers.max_days):
        yield "has waivers whose max_days is no number of days", "write max_days = 30"
    if min(rule.people.values(), default=0) < 0:
        yield "asks for fewer than no people", "write 0 or more"


def _about_stages(stages: tuple[StageTerms, ...]) -> Iterator[str]:
    """Why no rollout could pass these stages, or why they ask for none."""
    named, order = [one.stage for one in stages], get_args(Stage)
    if not stages:
        yield "that names no stage"
    if named != sorted(set(named), key=order.index):
        yield f"whose stages are not in the order {', '.join(order)}, each once"
    if "soak" in named and "canary" not in named:
        yield "with a soak and no canary before it"
    for one in stages:
        if one.levels < 1 or one.min_units < 1 or not 0 < one.max_share <= 1:
            yield f"whose {one.stage} has no step, no unit or no share from 0 to 1"
        if not 0 <= one.min_hours <= MAX_STAGE_HOURS:
            yield f"whose {one.stage} lasts {one.min_hours:g} h: from 0 to {MAX_STAGE_HOURS:g}"
        if one.stage != "canary" and one.levels > 1:
            yield f"with {one.levels} steps of {one.stage}, of which there is one"
