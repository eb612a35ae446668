"""What every target promises. Run it over an adapter by overriding `make` in a subclass.

class TestMyTarget(TargetContract):
    @pytest.fixture
    def make(self): yield TargetRig(target, break_package=..., kill=...)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from lockgate.core.digests import Digest, sha256
from lockgate.delivery.ports import Target
from lockgate.traffic.errors import LocalPlanInForce, StalePlan
from lockgate.traffic.plan import N_SLOTS, Fallback, PackageRef, Plan, Route

ENDPOINT = "prod/main/flight-delay"
_TIMEOUT_S = 20.0


class TargetRig(NamedTuple):
    """A target with something behind it that serves.

    Attributes:
        break_package: from now on loading this package fails, with that detail.
        kill: end what serves.
    """

    target: Target
    break_package: Callable[[Digest, str], None]
    kill: Callable[[], None]


def package_digest(version: str) -> Digest:
    """The digest that `sample_plan` gives to a version."""
    return sha256(version.encode())


def sample_plan(
    generation: int, weights: Mapping[str, int] | str, *, endpoint: str = ENDPOINT, **more: Any
) -> Plan:
    """A plan over versions `1.0.0`, `2.0.0` ...; a version with weight 0 is only kept loaded.

    Args:
        weights: slots per version, or one version for all of them.
    """
    model = endpoint.partition("/")[2]
    given = {weights: N_SLOTS} if isinstance(weights, str) else dict(weights)
    refs = tuple(PackageRef(version=f"{model}@{one}", digest=package_digest(one)) for one in given)
    routes = tuple(Route(package=package_digest(one), weight=n) for one, n in given.items() if n)
    live = max(routes, key=lambda route: route.weight).package if routes else None
    return Plan(
        **{
            "endpoint": endpoint,
            "generation": generation,
            "packages": refs,
            "routes": routes,
            "live": live,
            "salt": "s",
            **more,
        }
    )


class TargetContract:
    @pytest.fixture
    def make(self) -> TargetRig:
        raise NotImplementedError("return a TargetRig of the adapter under test")

    def test_it_has_a_name(self, make: TargetRig) -> None:
        assert make.target.name

    def test_an_endpoint_without_a_plan_has_generation_zero(self, make: TargetRig) -> None:
        observed = make.target.observe(ENDPOINT)
        assert (observed.generation, observed.plan) == (0, None)
        assert all(worker.generation == 0 for worker in observed.workers)
        assert not observed.reached(1) and not observed.settled(1)

    def test_an_applied_plan_is_reached_and_observed(self, make: TargetRig) -> None:
        plan = sample_plan(1, "1.0.0")
        make.target.apply(plan)
        observed = make.target.wait(ENDPOINT, 1, _TIMEOUT_S)
        assert observed.reached(1) and observed.settled(1) and not observed.failed(1)
        assert observed.plan == plan and observed.generation == 1 and observed.alive
        assert [(worker.generation, worker.state) for worker in observed.workers] == [(1, "serving")]

    def test_short_and_full_names_are_one_endpoint(self, make: TargetRig) -> None:
        make.target.apply(sample_plan(1, "1.0.0"))
        assert make.target.wait("prod/flight-delay", 1, _TIMEOUT_S).endpoint == ENDPOINT

    def test_applying_the_plan_in_force_does_nothing(self, make: TargetRig) -> None:
        for _ in range(2):
            make.target.apply(sample_plan(3, "1.0.0"))
        assert make.target.wait(ENDPOINT, 3, _TIMEOUT_S).reached(3)

    @pytest.mark.parametrize("late", [sample_plan(4, "1.0.0"), sample_plan(5, "2.0.0")])
    def test_a_late_plan_is_refused_and_changes_nothing(self, make: TargetRig, late: Plan) -> None:
        plan = sample_plan(5, "1.0.0")
        make.target.apply(plan)
        with pytest.raises(StalePlan) as refused:
            make.target.apply(late)
        assert refused.value.facts == {"endpoint": ENDPOINT, "given": late.generation, "current": 5}
        assert make.target.observe(ENDPOINT).plan == plan

    def test_endpoints_do_not_know_one_another(self, make: TargetRig) -> None:
        other = "staging/main/flight-delay"
        make.target.apply(sample_plan(7, "1.0.0"))
        make.target.apply(sample_plan(1, "2.0.0", endpoint=other))
        assert make.target.wait(other, 1, _TIMEOUT_S).reached(1)
        assert make.target.wait(ENDPOINT, 7, _TIMEOUT_S).generation == 7

    def test_a_package_that_does_not_load_leaves_the_plan_before_in_place(self, make: TargetRig) -> None:
        make.target.apply(sample_plan(1, "1.0.0"))
        make.target.wait(ENDPOINT, 1, _TIMEOUT_S)
        make.break_package(package_digest("2.0.0"), "the disk ate it")
        make.target.apply(sample_plan(2, {"1.0.0": 0, "2.0.0": N_SLOTS}))
        observed = make.target.wait(ENDPOINT, 2, _TIMEOUT_S)
        assert observed.failed(2) and observed.settled(2) and not observed.reached(2)
        (worker,) = observed.workers
        assert (worker.generation, worker.seen, worker.state) == (1, 2, "failed")
        assert "the disk ate it" in worker.detail

    def test_after_a_failed_plan_a_newer_one_is_taken_up(self, make: TargetRig) -> None:
        make.break_package(package_digest("2.0.0"), "broken")
        make.target.apply(sample_plan(1, "2.0.0"))
        assert make.target.wait(ENDPOINT, 1, _TIMEOUT_S).failed(1)
        make.target.apply(sample_plan(2, "1.0.0"))
        observed = make.target.wait(ENDPOINT, 2, _TIMEOUT_S)
        assert observed.reached(2) and not observed.failed(2)

    def test_a_rollback_is_one_more_plan(self, make: TargetRig) -> None:
        make.target.apply(sample_plan(1, {"1.0.0": N_SLOTS, "2.0.0": 0}))
        make.target.apply(sample_plan(2, {"1.0.0": 0, "2.0.0": N_SLOTS}))
        assert make.target.wait(ENDPOINT, 2, _TIMEOUT_S).reached(2)
        make.target.apply(sample_plan(3, {"1.0.0": N_SLOTS, "2.0.0": 0}))
        assert make.target.wait(ENDPOINT, 3, _TIMEOUT_S).reached(3)

    def test_a_plan_that_routes_nowhere_is_reached(self, make: TargetRig) -> None:
        plan = sample_plan(1, {}, fallback=Fallback(kind="constant", value=0.5))
        make.target.apply(plan)
        assert make.target.wait(ENDPOINT, 1, _TIMEOUT_S).reached(1)

    def test_a_plan_of_local_origin_is_observed_as_such(self, make: TargetRig) -> None:
        make.target.apply(sample_plan(1, "1.0.0", origin="local"))
        plan = make.target.observe(ENDPOINT).plan
        assert plan is not None and plan.origin == "local"

    def test_what_was_done_without_the_hub_is_not_overwritten_before_it_is_adopted(
        self, make: TargetRig
    ) -> None:
        make.target.apply(sample_plan(1, {"1.0.0": N_SLOTS, "2.0.0": 0}))
        local = sample_plan(2, {"1.0.0": 0, "2.0.0": N_SLOTS}, origin="local")
        make.target.apply(local)
        newer = sample_plan(4, {"1.0.0": N_SLOTS, "2.0.0": 0})
        for adopted in (0, 1):
            with pytest.raises(LocalPlanInForce):
                make.target.apply(newer, adopted=adopted)
        assert make.target.observe(ENDPOINT).plan == local
        # By hand, and by whoever knows of it, the endpoint moves on.
        by_hand = sample_plan(3, {"1.0.0": N_SLOTS, "2.0.0": 0}, origin="local")
        make.target.apply(by_hand)
        with pytest.raises(LocalPlanInForce):
            make.target.apply(newer, adopted=2)
        make.target.apply(newer, adopted=3)
        assert make.target.observe(ENDPOINT).plan == newer

    def test_a_dead_worker_is_seen_as_gone_and_counts_for_nothing(self, make: TargetRig) -> None:
        make.target.apply(sample_plan(1, "1.0.0"))
        make.target.wait(ENDPOINT, 1, _TIMEOUT_S)
        make.kill()
        observed = make.target.observe(ENDPOINT)
        assert not observed.alive and not observed.reached(1) and not observed.settled(1)
        assert all(worker.state == "gone" for worker in observed.workers)

    def test_a_plan_can_be_applied_while_nobody_serves(self, make: TargetRig) -> None:
        make.kill()
        make.target.apply(sample_plan(1, "1.0.0"))
        observed = make.target.wait(ENDPOINT, 1, 0.01)
        assert observed.generation == 1 and not observed.reached(1)

    def test_keys_are_distrusted_again_and_again_and_plans_go_on(self, make: TargetRig) -> None:
        for key_ids in ((), ("sha256:a",), ("sha256:a", "sha256:b"), ("sha256:a",)):
            make.target.distrust(key_ids)
        make.target.apply(sample_plan(1, "1.0.0"))
        assert make.target.wait(ENDPOINT, 1, _TIMEOUT_S).reached(1)
