"""In what one policy is laxer than another. What cannot be shown to be as strict counts as laxer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

import msgspec

from lockgate.governance.policies.policy import (
    AnyPolicy,
    Limit,
    Quorum,
    Sensitivity,
    StageTerms,
    TierRule,
    fits,
    quorum_of,
)
from lockgate.registry.messages import Tier

_TIERS: tuple[Tier, ...] = get_args(Tier)
_PLACES: tuple[Sensitivity, ...] = get_args(Sensitivity)


def laxer(before: AnyPolicy, after: AnyPolicy) -> list[str]:
    """What `after` no longer asks for, one line each; empty when it is nowhere laxer than `before`."""
    found = [
        f"{tier}: {line}"
        for tier in _TIERS
        for line in (
            *_rule_lines(before.rule(tier), after.rule(tier)),
            *_quorum_lines(before, after, tier),
        )
    ]
    if gone := sorted(set(before.never_waived) - set(after.never_waived)):
        found.append(f"may be waived: {', '.join(gone)}")
    if gone := sorted(set(before.sign_off) - set(after.sign_off)):
        found.append(f"no sign-off of consumers in {', '.join(gone)}")
    old, new = before.break_glass, after.break_glass
    if new.max_hours > old.max_hours or new.review_hours > old.review_hours:
        found.append("break-glass lasts longer or is reviewed later")
    return found


def differing(before: AnyPolicy, after: AnyPolicy) -> list[str]:
    """The keys in which two policies differ, as they stand in a file: `tiers.high.ticket`."""
    old, new = (dict(_keys(msgspec.to_builtins(policy), "")) for policy in (before, after))
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _keys(table: dict[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value


def _rule_lines(old: TierRule, new: TierRule) -> Iterator[str]:
    yield from _gone("gates", old.gates, new.gates)
    for place in _PLACES:
        # A gate that became intrinsic is asked for everywhere.
        yield from _gone(
            f"gates in {place}", old.relative.get(place, ()), (*new.relative.get(place, ()), *new.gates)
        )
    for limit in old.limits:
        if not any(_as_strict(limit, other) for other in new.limits):
            yield f"limit {limit.text} on {limit.gate} {limit.metric}"
    if new.evidence_max_age_days > old.evidence_max_age_days:
        yield f"evidence may be {new.evidence_max_age_days} days old, not {old.evidence_max_age_days}"
    if old.revalidate_days is not None and (new.revalidate_days or 10**9) > old.revalidate_days:
        yield f"revalidation after {new.revalidate_days or 'no'} days, not {old.revalidate_days}"
    terms, former = new.waivers, old.waivers
    if (
        terms.max_days > former.max_days
        or terms.renewals > former.renewals
        or not set(terms.roles) <= set(former.roles)
    ):
        yield "waivers last longer, are renewed more often or are granted by more roles"
    for place, pattern in old.ticket.items():
        # Whether one expression matches less than another is not asked; another one counts as laxer.
        if new.ticket.get(place) != pattern:
            yield f"tickets in {place} no longer match {pattern}"
    yield from _gone("the tracker is not asked", old.tracker, new.tracker)
    yield from _gone("release plans", old.release_plan, new.release_plan)
    yield from _gone("known makers", old.known_makers or (), new.known_makers or ())
    for place, days in old.drill_max_age_days.items():
        if new.drill_max_age_days.get(place, 10**9) > days:
            yield f"drills in {place} may be older than {days} days"
    for place, stages in old.rollout.items():
        now_asked = {one.stage: one for one in new.rollout.get(place, ())}
        for stage in stages:
            if not _passes_as_much(stage, now_asked.get(stage.stage)):
                yield f"rollouts in {place} without {stage.text}"


def _gone(what: str, old: Iterable[str], new: Iterable[str]) -> Iterator[str]:
    if gone := sorted(set(old) - set(new)):
        yield f"{what} without {', '.join(gone)}"


def _passes_as_much(old: StageTerms, new: StageTerms | None) -> bool:
    return (
        new is not None
        and new.levels >= old.levels
        and new.max_share <= old.max_share
        and new.min_units >= old.min_units
        and new.min_hours >= old.min_hours
    )


def _as_strict(old: Limit, new: Limit) -> bool:
    if (old.gate, old.metric, old.slice) != (new.gate, new.metric, new.slice):
        return False
    if old.bound == "ci" and new.bound != "ci":
        return False
    if old.at_least is not None:
        return new.at_least is not None and new.at_least >= old.at_least
    return new.at_most is not None and old.at_most is not None and new.at_most <= old.at_most


def _quorum_lines(before: AnyPolicy, after: AnyPolicy, tier: Tier) -> Iterator[str]:
    for place in _PLACES:
        for kpi in ("", "any"):
            old, new = (quorum_of(policy, tier, kpi, place) for policy in (before, after))
            if new.size < old.size or not _seats_kept(old, new):
                yield f"approvals in {place}: {_said(new)}, not {_said(old)}"
                break


def _seats_kept(old: Quorum, new: Quorum) -> bool:
    """Whether whoever fills the new seats has filled the old ones, each old one by a new one of its own."""
    free = list(new.seats)
    # Single roles first: a seat that any technical role fills takes what they leave.
    for seat in sorted(old.seats, key=lambda seat: seat == "technical"):
        match = next((one for one in free if one == seat or (one != "technical" and fits(one, seat))), None)
        if match is None:
            return False
        free.remove(match)
    return True


def _said(quorum: Quorum) -> str:
    seats: Sequence[str] = quorum.seats
    return f"{quorum.size} ({', '.join(seats)})" if seats else str(quorum.size)
