"""The plan that takes an endpoint back without the hub, from nothing but what is seen of a data plane."""

from __future__ import annotations

from typing import Any

import pytest

from lockgate.core.digests import Digest
from lockgate.core.messages import Refusal
from lockgate.testing.target_suite import ENDPOINT, package_digest, sample_plan
from lockgate.traffic.by_hand import Hand, taken_back
from lockgate.traffic.observed import Observed, WorkerState
from lockgate.traffic.plan import N_SLOTS, LocalOrigin, Plan, Route

ONE, TWO, THREE = (package_digest(f"{n}.0.0") for n in (1, 2, 3))
HAND = Hand(by="ann", account="ops", at=7, reason="wrong delays", incident="INC-1")


def settled(**more: Any) -> Plan:
    """Version 2 answers, version 1 is the way back."""
    return sample_plan(5, {"1.0.0": 0, "2.0.0": N_SLOTS}, previous=ONE, capture="scores", **more)


def rolling(**more: Any) -> Plan:
    """Version 3 answers a share beside version 2, which is live."""
    weights = {"1.0.0": 0, "3.0.0": 1_000, "2.0.0": 9_000}
    return sample_plan(5, weights, **{"live": TWO, "previous": ONE, **more})


def seen(plan: Plan | None, *loaded: tuple[Digest, ...], state: Any = "serving") -> Observed:
    workers = tuple(
        WorkerState(pid=number, generation=5, seen=5, state=state, loaded=one)
        for number, one in enumerate(loaded, 1)
    )
    return Observed(endpoint=ENDPOINT, generation=5, plan=plan, workers=workers, alive=bool(workers))


def back(observed: Observed) -> Plan:
    plan = taken_back(observed, HAND)
    assert isinstance(plan, Plan)
    return plan


def why_not(observed: Observed) -> list[str]:
    refused = taken_back(observed, HAND)
    assert isinstance(refused, Refusal)
    assert all(reason.message for reason in refused.reasons)
    return [reason.rule for reason in refused.reasons]


def test_live_and_previous_change_places_and_the_plan_says_who_and_why() -> None:
    plan = back(seen(settled(), (ONE, TWO)))
    assert (plan.generation, plan.live, plan.previous) == (6, ONE, TWO)
    assert plan.routes == (Route(package=ONE, weight=N_SLOTS),)
    assert plan.origin == "local"
    assert plan.local == LocalOrigin(
        by="ann", account="ops", at=7, reason="wrong delays", incident="INC-1", left=TWO
    )
    # Everything else is as it was: what stays loaded, who meets which version later, what is written down.
    before = settled()
    assert (plan.packages, plan.salt, plan.capture) == (before.packages, before.salt, before.capture)


def test_going_back_twice_leads_to_where_one_was() -> None:
    first = back(seen(settled(), (ONE, TWO)))
    again = back(seen(first, (ONE, TWO)))
    assert (again.generation, again.live, again.previous) == (7, TWO, ONE)


@pytest.mark.parametrize(
    "plan",
    [
        rolling(),
        rolling(routes=(Route(package=THREE, weight=N_SLOTS),)),
        rolling(routes=(Route(package=TWO, weight=N_SLOTS),), shadow=THREE),
    ],
    ids=["canary", "soak", "shadow"],
)
def test_a_release_on_its_way_is_taken_back_to_what_is_live(plan: Plan) -> None:
    taken = back(seen(plan, (ONE, TWO, THREE)))
    assert (taken.live, taken.previous, taken.shadow) == (TWO, ONE, None)
    assert taken.weight_of(TWO) == N_SLOTS
    assert isinstance(taken.local, LocalOrigin) and taken.local.left == THREE
    assert THREE in {ref.digest for ref in taken.packages}


def test_a_rehearsal_ends_with_it() -> None:
    assert back(seen(settled(drill=ONE), (ONE, TWO))).drill is None


def test_nothing_is_done_where_there_is_nothing_to_go_back_to() -> None:
    assert why_not(seen(None, ())) == ["traffic.no-plan"]
    assert why_not(seen(sample_plan(5, "1.0.0"), (ONE,))) == ["delivery.nothing-before"]
    assert why_not(seen(sample_plan(5, {}), ())) == ["delivery.nothing-before"]


def test_every_worker_that_has_not_loaded_it_is_named() -> None:
    assert why_not(seen(settled(), (TWO,), (ONE, TWO), ())) == ["traffic.not-loaded"] * 2


def test_without_a_living_worker_the_plan_waits_for_the_next_one() -> None:
    assert back(seen(settled())).live == ONE
    assert back(seen(settled(), (), state="gone")).live == ONE
