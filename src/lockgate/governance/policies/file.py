"""A policy as a file that people write: TOML, read strictly, its gates held against the catalogue of gates."""

from __future__ import annotations

from collections.abc import Iterator

from lockgate.core.errors import did_you_mean
from lockgate.core.toml_lines import Misfit, fitted, parse_toml
from lockgate.gates.evidence import GATES
from lockgate.governance.policies.policy import AnyPolicy, Policy, Policy1, PolicyInvalid, complaints
from lockgate.registry.messages import Tier

_SHAPES: dict[str, type[Policy1] | type[Policy]] = {"lockgate.policy/1": Policy1, "lockgate.policy/2": Policy}


def parse_policy(text: str, *, where: str) -> AnyPolicy:
    """Read a policy from TOML. A file without `schema` is of the first shape.

    Raises:
        PolicyInvalid: with the place of the offending key; all four tiers must be there, and every gate it names.
    """
    try:
        raw = parse_toml(text)
        shape = _SHAPES.get(str(raw.get("schema", "lockgate.policy/1")), Policy)
        policy: AnyPolicy = fitted(raw, text, shape)
    except Misfit as error:
        raise PolicyInvalid(error.said(where), remedy=error.remedy, where=where) from error
    for complaint, remedy in (*complaints(policy), *_unknown_gates(policy)):
        raise PolicyInvalid(f"{where}: {complaint}", remedy=remedy, where=where)
    return policy


def _unknown_gates(policy: AnyPolicy) -> Iterator[tuple[str, str]]:
    """Gates that are named and do not exist; only what judges knows their catalogue."""
    for gate in policy.never_waived:
        if gate not in GATES:
            yield f"never_waived names gate {gate!r}, which does not exist", did_you_mean(gate, GATES)
    for tier in policy.tiers:
        for gate in sorted(policy.rule(tier).asked):
            if gate not in GATES:
                yield (
                    f"tiers.{tier} asks for gate {gate!r}, which does not exist",
                    did_you_mean(gate, GATES),
                )


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
    more = [
        f"a ticket in {place}" + (", which the tracker knows" if place in rule.tracker else "")
        for place in rule.ticket
    ]
    more += [f"a release plan in {place}" for place in rule.release_plan]
    more += [f"makers that are known in {place}" for place in rule.known_makers or ()]
    more += [
        f"a drill in {place}, at most {days} days ago" for place, days in rule.drill_max_age_days.items()
    ]
    more += [
        f"a rollout in {place}: {', then '.join(stage.text for stage in stages)}"
        for place, stages in rule.rollout.items()
    ]
    more += [f"revalidation after {rule.revalidate_days} days"] if rule.revalidate_days else []
    if more:
        yield "asks for " + "; ".join(more)
