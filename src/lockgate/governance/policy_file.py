"""A policy as a file that people write: TOML, read strictly, its gates held against the catalogue of gates."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import msgspec

from lockgate.core.errors import Invalid, did_you_mean
from lockgate.gates.evidence import GATES
from lockgate.governance.policy import AnyPolicy, Policy, Policy1, TierRule
from lockgate.registry.messages import Tier

_TIERS: tuple[Tier, ...] = ("low", "moderate", "high", "critical")
_SHAPES: dict[str, type[Policy1] | type[Policy]] = {"lockgate.policy/1": Policy1, "lockgate.policy/2": Policy}


class PolicyInvalid(Invalid):
    code = "governance.policy-invalid"


def parse_policy(text: str, *, where: str) -> AnyPolicy:
    """Read a policy from TOML. A file without `schema` is of the first shape.

    Raises:
        PolicyInvalid: with the place of the offending key; all four tiers must be there, and every gate it names.
    """
    try:
        raw = tomllib.loads(text)
        shape = _SHAPES.get(str(raw.get("schema", "lockgate.policy/1")), Policy)
        policy = msgspec.convert(raw, shape)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PolicyInvalid(
            f"{where} is not a policy: {error}", remedy=f"correct {where}", where=where
        ) from error
    for tier in _TIERS:
        if tier not in policy.tiers:
            raise PolicyInvalid(
                f"{where} has no rule for tier {tier}", remedy=f"add a [tiers.{tier}] table", where=where
            )
    for complaint, remedy in _complaints(policy):
        raise PolicyInvalid(f"{where}: {complaint}", remedy=remedy, where=where)
    return policy


def _complaints(policy: AnyPolicy) -> Iterator[tuple[str, str]]:
    """What is wrong, and what to write instead."""
    for gate in policy.never_waived:
        if gate not in GATES:
            yield f"never_waived names gate {gate!r}, which does not exist", did_you_mean(gate, GATES)
    terms = policy.break_glass
    if not (0 < terms.max_hours <= 24 and terms.review_hours > 0):
        yield "break_glass lasts from more than 0 to 24 hours", "write max_hours = 4, review_hours = 72"
    for tier in _TIERS:
        for complaint, remedy in _complaints_about(policy.rule(tier)):
            yield f"tiers.{tier} {complaint}", remedy


def _complaints_about(rule: TierRule) -> Iterator[tuple[str, str]]:
    asked = {*rule.gates, *(gate for gates in rule.relative.values() for gate in gates)}
    for gate in sorted(asked):
        if gate not in GATES:
            yield f"asks for gate {gate!r}, which does not exist", did_you_mean(gate, GATES)
    for limit in rule.limits:
        if limit.gate not in asked:
            yield (
                f"limits gate {limit.gate!r}, which it does not ask for",
                f"add {limit.gate} to its gates or relative, or leave the limit out",
            )
    for sensitivity, pattern in rule.ticket.items():
        try:
            re.compile(pattern)
        except re.error as error:
            yield (
                f"has a ticket pattern for {sensitivity} that cannot be read: {error}",
                "correct the pattern",
            )
    days = (rule.evidence_max_age_days, rule.revalidate_days or 1, *rule.drill_max_age_days.values())
    if min(days) < 1 or rule.waivers.max_days <= 0 or rule.waivers.renewals < 0:
        yield "counts with days of less than one", "write whole days"
    if min(rule.people.values(), default=0) < 0:
        yield "asks for fewer than no people", "write 0 or more"


def rule_lines(pack: AnyPolicy, tier: Tier) -> Iterator[str]:
    """What a tier asks for, in a few lines."""
    rule = pack.rule(tier)
    yield f"gates {', '.join(rule.gates)}"
    yield from (f"{place} also {', '.join(gates)}" for place, gates in rule.relative.items())
    yield from (
        f"limit on {one.gate} {one.metric}: {one.text}" + (" by its interval" if one.bound == "ci" else "")
        for one in rule.limits
    )
    people = [f"{place} {' + '.join(seats)}" for place, seats in rule.approvals.items()]
    people += [f"{place} {number}" for place, number in rule.people.items()]
    yield f"approvals {', '.join(people) or 'none'}; evidence at most {rule.evidence_max_age_days} days old"
    more = [f"a ticket in {place}" for place in rule.ticket]
    more += [f"a release plan in {place}" for place in rule.release_plan]
    more += [
        f"a drill in {place}, at most {days} days ago" for place, days in rule.drill_max_age_days.items()
    ]
    more += [f"revalidation after {rule.revalidate_days} days"] if rule.revalidate_days else []
    if more:
        yield "asks for " + "; ".join(more)
