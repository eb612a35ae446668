from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.app.declare import default_policy
from lockgate.core.digests import canonical
from lockgate.governance.judgement import empty_seats
from lockgate.governance.policies.file import parse_policy
from lockgate.governance.policies.laxity import laxer
from lockgate.governance.policies.policy import Limit, Policy, Policy1, PolicyInvalid, Quorum, quorum_of
from lockgate.governance.state import Approval
from lockgate.testing.hub_world import POLICY

DEFAULT = default_policy()
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
    assert (policy.name, policy.version, type(policy)) == ("p", 3, Policy1)
    assert policy.rule("high").gates == ("perf.absolute",)
    assert policy.rule("high").people == {"production": 1}
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
        ('name = "p"', 'name = "p', "policy.toml:1: "),
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
    again = msgspec.json.decode(canonical(POLICY), type=Policy1)
    assert again.digest == POLICY.digest
    assert msgspec.structs.replace(POLICY, version=2).digest != POLICY.digest


NEW = """
schema = "lockgate.policy/2"
name = "p"
version = 4
never_waived = ["latency"]
[kpi]
production = ["technical", "product"]
""" + "".join(
    f"""
[tiers.{tier}]
gates = ["perf.absolute"]
relative.production = ["perf.vs_champion"]
approvals.production = ["owner"]
limits = [{{ gate = "perf.vs_champion", metric = "auc", at_least = -0.005 }}]
ticket.production = "OPS-[0-9]+"
evidence_max_age_days = 7
"""
    for tier in ("low", "moderate", "high", "critical")
)


def test_a_policy_of_today_is_read() -> None:
    policy = parse_policy(NEW, where="policy.toml")
    assert isinstance(policy, Policy)
    rule = policy.rule("high")
    assert rule.approvals == {"production": ("owner",)}
    assert rule.limits[0].bound == "ci"
    assert rule.waivers.max_days == 30
    again = msgspec.json.decode(canonical(policy), type=Policy1 | Policy)
    assert (again, again.digest) == (policy, policy.digest)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('["owner"]', '["boss"]', "boss"),
        (", at_least = -0.005", "", "exactly one of at_least and at_most"),
        ('gate = "perf.vs_champion", metric', 'gate = "latency", metric', "does not ask for"),
        ("OPS-[0-9]+", "OPS-[0-9", "ticket pattern for production"),
        ('never_waived = ["latency"]', 'never_waived = ["latenzy"]', "latenzy"),
        ("version = 4", "version = 4\nbreak_glass = { max_hours = 48 }", "break_glass"),
        ("evidence_max_age_days = 7", "evidence_max_age_days = 0", "days of less than one"),
    ],
)
def test_a_mistake_of_today_is_named(old: str, new: str, place: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(NEW.replace(old, new, 1), where="policy.toml")
    assert place in caught.value.message


def test_a_policy_of_the_first_shape_keeps_its_digest_and_asks_for_people_in_whosever_name() -> None:
    stored = b'{"schema":"lockgate.policy/1",' + canonical(POLICY)[len('{"schema":"lockgate.policy/1",') :]
    assert stored == canonical(POLICY)
    assert quorum_of(POLICY, "critical", "revenue", "production") == Quorum(people=2)


@pytest.mark.parametrize(
    ("tier", "kpi", "seats"),
    [
        ("low", "", ()),
        ("low", "missed connections", ("technical", "product")),
        ("moderate", "", ("owner",)),
        ("moderate", "missed connections", ("owner", "product")),
        ("high", "", ("owner", "risk", "product")),
        ("high", "missed connections", ("owner", "risk", "product")),
        ("critical", "", ("owner", "risk", "validation", "product")),
    ],
)
def test_who_is_asked_in_production_by_the_default_pack(tier: Any, kpi: str, seats: tuple[str, ...]) -> None:
    quorum = quorum_of(DEFAULT, tier, kpi, "production")
    assert (quorum.seats, quorum.people) == (seats, 0)
    assert quorum_of(DEFAULT, tier, kpi, "open") == Quorum()


def approval(person: str, role: Any) -> Approval:
    return Approval(approver=person, evidence_set="e", policy="p", approved_at=1, comment="", role=role)


@pytest.mark.parametrize(
    ("seats", "given", "empty"),
    [
        ((), {}, ()),
        (("owner",), {}, ("owner",)),
        (("owner",), {"bob": ["risk"]}, ("owner",)),
        (("owner", "risk"), {"bob": ["owner", "risk"]}, ("risk",)),
        (("owner", "risk"), {"bob": ["owner", "risk"], "cy": ["owner"]}, ()),
        (("owner", "risk"), {"cy": ["owner"], "bob": ["owner", "risk"]}, ()),
        (("technical", "product"), {"bob": ["risk"], "cy": ["product"]}, ()),
        (("technical", "product"), {"bob": ["product"]}, ("technical",)),
        (("technical", "owner"), {"bob": ["owner"], "cy": ["validation"]}, ()),
        (("technical", "owner"), {"bob": ["owner"], "cy": ["product"]}, ("owner",)),
    ],
)
def test_every_seat_is_for_a_person_of_its_own(
    seats: Any, given: dict[str, list[str]], empty: tuple[str, ...]
) -> None:
    approvals = [approval(person, role) for person, roles in given.items() for role in roles]
    assert empty_seats(seats, approvals) == empty


def changed(**fields: Any) -> Policy:
    """The policy NEW with another rule for the high tier."""
    policy = parse_policy(NEW, where="p")
    assert isinstance(policy, Policy)
    rule = msgspec.structs.replace(policy.rule("high"), **fields)
    return msgspec.structs.replace(policy, tiers={**policy.tiers, "high": rule})


BEFORE = changed(
    revalidate_days=100,
    release_plan=("production",),
    drill_max_age_days={"production": 30},
    known_makers=("production",),
)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"gates": ()}, "high: gates without perf.absolute"),
        ({"relative": {}}, "high: gates in production without perf.vs_champion"),
        ({"limits": ()}, "high: limit at least -0.005 on perf.vs_champion auc"),
        ({"approvals": {}}, "high: approvals in production: 0, not 1 (owner)"),
        ({"approvals": {"production": ("risk",)}}, "high: approvals in production: 1 (risk), not 1 (owner)"),
        ({"evidence_max_age_days": 8}, "high: evidence may be 8 days old, not 7"),
        ({"revalidate_days": None}, "high: revalidation after no days, not 100"),
        ({"ticket": {"production": ".*"}}, "high: tickets in production no longer match OPS-[0-9]+"),
        ({"release_plan": ()}, "high: release plans without production"),
        ({"drill_max_age_days": {"production": 31}}, "high: drills in production may be older than 30 days"),
        ({"known_makers": ()}, "high: known makers without production"),
        ({"known_makers": msgspec.UNSET}, "high: known makers without production"),
    ],
)
def test_what_a_policy_no_longer_asks_for_is_told(fields: dict[str, Any], line: str) -> None:
    before = {
        "revalidate_days": 100,
        "release_plan": ("production",),
        "drill_max_age_days": {"production": 30},
        "known_makers": ("production",),
    }
    assert laxer(BEFORE, changed(**{**before, **fields})) == [line]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"gates": ("perf.absolute", "calibration")},
        {"approvals": {"production": ("owner", "risk"), "guarded": ("owner",)}},
        {"evidence_max_age_days": 1},
        {"known_makers": ("guarded", "production")},
        {"limits": (Limit(gate="perf.vs_champion", metric="auc", at_least=0.0),)},
    ],
)
def test_a_stricter_policy_is_nowhere_laxer(fields: dict[str, Any]) -> None:
    before = {
        "revalidate_days": 100,
        "release_plan": ("production",),
        "drill_max_age_days": {"production": 30},
        "known_makers": ("production",),
    }
    assert laxer(BEFORE, changed(**{**before, **fields})) == []


def test_a_seat_for_anybody_technical_may_become_one_for_the_owner_and_not_the_other_way_round() -> None:
    anybody = changed(approvals={"production": ("technical",)})
    owner = changed(approvals={"production": ("owner",)})
    assert laxer(anybody, owner) == []
    assert laxer(owner, anybody) == ["high: approvals in production: 1 (technical), not 1 (owner)"]


def test_the_default_pack_is_nowhere_laxer_than_itself() -> None:
    assert laxer(DEFAULT, DEFAULT) == []


def test_a_policy_that_asks_for_no_known_makers_has_the_digest_it_had_before_there_were_any() -> None:
    plain = changed()
    assert b"known_makers" not in canonical(plain)
    assert changed(known_makers=("production",)).digest != plain.digest
