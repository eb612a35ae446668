"""A policy as a file that people write: TOML, read strictly, its gates held against the catalogue of gates."""

from __future__ import annotations

import tomllib

import msgspec

from lockgate.core.errors import Invalid, did_you_mean
from lockgate.gates.evidence import GATES
from lockgate.governance.policy import Policy


class PolicyInvalid(Invalid):
    code = "governance.policy-invalid"


def parse_policy(text: str, *, where: str) -> Policy:
    """Read a policy from TOML.

    Raises:
        PolicyInvalid: with the place of the offending key; all four tiers must be there, and every gate it names.
    """
    try:
        policy = msgspec.convert(tomllib.loads(text), Policy)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PolicyInvalid(
            f"{where} is not a policy: {error}", remedy=f"correct {where}", where=where
        ) from error
    missing = sorted({"low", "moderate", "high", "critical"} - set(policy.tiers))
    if missing:
        raise PolicyInvalid(
            f"{where} has no rule for tier {missing[0]}",
            remedy=f"add a [tiers.{missing[0]}] table",
            where=where,
        )
    for tier, rule in policy.tiers.items():
        for gate in (*rule.gates, *(gate for gates in rule.relative.values() for gate in gates)):
            if gate not in GATES:
                raise PolicyInvalid(
                    f"{where}: tiers.{tier} asks for gate {gate!r}, which does not exist",
                    remedy=did_you_mean(gate, GATES),
                    where=where,
                )
    return policy
