from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.core.digests import BadDigest, canonical, sha256
from lockgate.core.names import BadName
from lockgate.testing.target_suite import package_digest, sample_plan
from lockgate.traffic.errors import ERROR_CLASSES, BadPlan, held_against_version
from lockgate.traffic.plan import N_SLOTS, Fallback, LocalOrigin, PackageRef, Plan, Route, route, slot_of

BY_HAND = LocalOrigin(by="ann", account="ops", at=1, reason="hub down", left=sha256(b"left"))
ONE, TWO = package_digest("1.0.0"), package_digest("2.0.0")


def test_a_plan_reads_back_equal_and_keeps_its_digest() -> None:
    plan = sample_plan(3, {"1.0.0": 9_000, "2.0.0": 1_000}, previous=TWO)
    again = msgspec.json.decode(canonical(plan), type=Plan)
    assert again == plan and again.digest == plan.digest == sha256(canonical(plan))


def test_who_wrote_a_plan_without_the_hub_travels_with_it_and_no_plan_of_the_hub_knows_the_field() -> None:
    plan = sample_plan(3, "1.0.0", origin="local", local=BY_HAND)
    assert msgspec.json.decode(canonical(plan), type=Plan) == plan
    assert b'"local"' not in canonical(sample_plan(3, "1.0.0"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": "lockgate.plan/2"}, "schema"),
        ({"endpoint": "prod/flight-delay"}, "full form"),
        ({"generation": 0}, "generation is 0"),
        ({"generation": 2**62}, "generation"),
        ({"salt": "é" * 33}, "salt is longer"),
        ({"live": sha256(b"else")}, "live version is not among"),
        ({"previous": sha256(b"else")}, "previous version is not among"),
        ({"previous": ONE}, "same package"),
        ({"routes": (Route(package=ONE, weight=9_999),)}, "weights sum to 9999"),
        ({"routes": (Route(package=ONE, weight=0), Route(package=TWO, weight=N_SLOTS))}, "a weight is 0"),
        ({"routes": (Route(package=ONE, weight=5_000),) * 2}, "two routes"),
        ({"routes": (Route(package=sha256(b"else"), weight=N_SLOTS),)}, "has no package"),
        ({"packages": (PackageRef(version="main/flight-delay@1.0.0", digest=ONE),) * 2}, "named twice"),
        ({"packages": (PackageRef(version="main/other@1.0.0", digest=ONE),), "routes": ()}, "no version of"),
        ({"packages": (PackageRef(version="flight-delay@1.0.0", digest=ONE),), "routes": ()}, "full form"),
        ({"fallback": Fallback(kind="none", value=1.0)}, "no fallback"),
        ({"fallback": Fallback(kind="constant")}, "constant is None"),
        ({"fallback": Fallback(kind="constant", value=float("nan"))}, "constant is nan"),
        ({"local": BY_HAND}, "that the hub did"),
        (
            {"origin": "local", "local": msgspec.structs.replace(BY_HAND, reason="x" * 1001)},
            "more than 1000",
        ),
    ],
)
def test_what_cannot_be_served_cannot_be_a_plan(change: dict[str, Any], why: str) -> None:
    fields = msgspec.structs.asdict(sample_plan(1, {"1.0.0": N_SLOTS, "2.0.0": 0}))
    with pytest.raises(BadPlan, match=why) as refused:
        Plan(**{**fields, **change})
    assert refused.value.remedy


def test_names_and_digests_are_checked_by_their_own_rules() -> None:
    with pytest.raises(BadName):
        sample_plan(1, {}, endpoint="prod//x")
    with pytest.raises(BadDigest):
        Plan(
            endpoint="prod/main/flight-delay",
            generation=1,
            packages=(PackageRef(version="main/flight-delay@1.0.0", digest="sha256:short"),),
        )


def test_an_invalid_plan_does_not_decode() -> None:
    text = canonical(sample_plan(1, "1.0.0")).replace(b'"weight":10000', b'"weight":9999')
    with pytest.raises(BadPlan):
        msgspec.json.decode(text, type=Plan)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"endpoint":"prod/main/x","generation":1,"shadow":1}', type=Plan)


def test_slots_of_keys_never_change() -> None:
    assert [slot_of(key, "s") for key in ("", "user-1", "user-2", "üñí", b"user-1")] == KNOWN_SLOTS
    assert slot_of("user-1", "other") != slot_of("user-1", "s")
    assert 0 <= slot_of("\ud800", "\udfff") < N_SLOTS


KNOWN_SLOTS = [9003, 7085, 5844, 7285, 7085]


def test_each_route_gets_its_weight_of_slots() -> None:
    plan = sample_plan(1, {"1.0.0": 9_000, "2.0.0": 1_000, "3.0.0": 0})
    got = [route(plan, slot) for slot in range(N_SLOTS)]
    assert got == [ONE] * 9_000 + [TWO] * 1_000
    assert (plan.weight_of(ONE), plan.weight_of(package_digest("3.0.0"))) == (9_000, 0)
    assert route(sample_plan(1, {}), 0) is None
    for slot in (-1, N_SLOTS):
        with pytest.raises(ValueError, match="slot"):
            route(plan, slot)


def test_a_growing_canary_keeps_the_keys_it_has() -> None:
    keys = [f"user-{number}" for number in range(2_000)]
    inside: set[str] = set()
    for weight in (100, 500, 2_500, 5_000):
        plan = sample_plan(1, {"1.0.0": N_SLOTS - weight, "2.0.0": weight})
        now = {key for key in keys if route(plan, slot_of(key, plan.salt)) == TWO}
        assert inside <= now
        # Six standard deviations of a binomial count.
        share = weight / N_SLOTS
        assert abs(len(now) - 2_000 * share) < 6 * (2_000 * share * (1 - share)) ** 0.5
        inside = now


def test_a_callers_mistake_is_never_held_against_a_version() -> None:
    assert [name for name in ERROR_CLASSES if not held_against_version(name)] == ["client_error", "shed"]
