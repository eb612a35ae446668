from __future__ import annotations

import msgspec
import pytest

from lockgate.core.digests import canonical
from lockgate.governance.policy import Policy
from lockgate.governance.policy_file import PolicyInvalid, parse_policy
from lockgate.testing.hub_world import POLICY

TIER = """
[tiers.{tier}]
gates = ["perf.absolute"]
approvals = {{ production = 1 }}
evidence_max_age_days = 7
"""
GOOD = 'name = "p"\nversion = 3\n' + "".join(
    TIER.format(tier=t) for t in ("low", "moderate", "high", "critical")
)


def test_a_policy_is_read() -> None:
    policy = parse_policy(GOOD, where="policy.toml")
    assert (policy.name, policy.version, policy.schema) == ("p", 3, "lockgate.policy/1")
    assert policy.rule("high").gates == ("perf.absolute",)
    assert policy.rule("high").approvals == {"production": 1}
    assert policy.rule("low").relative == {}


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("version = 3", "version = 'three'", "version"),
        ('name = "p"\n', "", "name"),
        ("gates =", "gate =", "gate"),
        ("[tiers.high]", "[tiers.highest]", "highest"),
        ("[tiers.critical]", "[tiers.low.more]", "more"),
        ("production = 1", "prod = 1", "prod"),
        ("production = 1", "production = 1.5", "approvals"),
        ('name = "p"', 'name = "p', "line 1"),
        ('name = "p"', 'name = "p"\nschema = "lockgate.policy/9"', "schema"),
        ("evidence_max_age_days = 7", "", "evidence_max_age_days"),
    ],
)
def test_a_mistake_is_named_by_its_place(old: str, new: str, place: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(GOOD.replace(old, new, 1), where="policy.toml")
    assert place in caught.value.message
    assert caught.value.facts == {"where": "policy.toml"}


def test_every_tier_has_its_rule() -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(GOOD.replace(TIER.format(tier="moderate"), ""), where="policy.toml")
    assert "moderate" in caught.value.message
    assert caught.value.remedy == "add a [tiers.moderate] table"


@pytest.mark.parametrize("old", ['gates = ["perf.absolute"]', "approvals = { production = 1 }"])
def test_a_gate_that_does_not_exist_is_named_with_its_near_matches(old: str) -> None:
    new = (
        'gates = ["perf.absolut"]' if old.startswith("gates") else 'relative = { guarded = ["perf.absolut"] }'
    )
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(GOOD.replace(old, new, 1), where="policy.toml")
    assert "tiers.low" in caught.value.message and "'perf.absolut'" in caught.value.message
    assert "'perf.absolute'" in caught.value.remedy


def test_the_digest_is_that_of_the_content() -> None:
    again = msgspec.json.decode(canonical(POLICY), type=Policy)
    assert again.digest == POLICY.digest
    assert msgspec.structs.replace(POLICY, version=2).digest != POLICY.digest
