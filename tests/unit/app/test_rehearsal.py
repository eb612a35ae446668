"""A drill on a target in memory: what it counts, and how it ends when something is in its way."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from lockgate.adapters.targets.rehearsal import Rehearsal
from lockgate.core.digests import Digest
from lockgate.testing.hub_world import named_digest
from lockgate.testing.memory_target import MemoryTarget
from lockgate.traffic.plan import N_SLOTS, PackageRef, Plan, Route

NAME = "prod/main/flight-delay"
ONE, TWO = named_digest("one"), named_digest("two")
PLAN = Plan(
    endpoint=NAME,
    generation=7,
    packages=(
        PackageRef(version="main/flight-delay@1.0.0", digest=ONE),
        PackageRef(version="main/flight-delay@1.1.0", digest=TWO),
    ),
    routes=(Route(package=TWO, weight=N_SLOTS),),
    live=TWO,
    previous=ONE,
    capture="scores",
)


@pytest.fixture
def target() -> MemoryTarget:
    target = MemoryTarget()
    target.apply(PLAN)
    return target


def answering(target: MemoryTarget) -> Callable[[], Digest | None]:
    """A data plane that does what the plan in force says about requests under the drill's key."""

    def ask() -> Digest | None:
        plan = target.observe(NAME).plan
        assert plan is not None
        assert plan.routes == PLAN.routes, "a drill moves no caller"
        return plan.drill or plan.live

    return ask


def ticking() -> Callable[[], int]:
    now = 0

    def tick() -> int:
        nonlocal now
        now += 500_000
        return now

    return tick


def test_a_drill_flips_there_and_back_and_leaves_everything_as_it_was(target: MemoryTarget) -> None:
    figures = Rehearsal(target, answering(target), now_ns=ticking()).run(PLAN, ONE, first=8, n_flips=3)
    assert figures.passed
    assert (figures.n_flips, figures.n_requests, figures.n_failed, figures.n_wrong) == (3, 12, 0, 0)
    assert (figures.first_p50_us, figures.all_p50_us) == (500, 1_000)
    assert target.observe(NAME).plan == msgspec.structs.replace(PLAN, generation=14)


def test_an_answer_by_the_wrong_version_fails_it(target: MemoryTarget) -> None:
    honest, n_asked = answering(target), 0

    def ask() -> Digest | None:
        nonlocal n_asked
        n_asked += 1
        return TWO if n_asked == 2 else honest()

    figures = Rehearsal(target, ask, now_ns=ticking()).run(PLAN, ONE, first=8, n_flips=1)
    assert (figures.n_wrong, figures.passed) == (1, False)


def test_no_answer_is_counted_and_ends_it_in_time(target: MemoryTarget) -> None:
    figures = Rehearsal(target, lambda: None, now_ns=ticking()).run(PLAN, ONE, first=8, n_flips=2)
    assert (figures.n_flips, figures.passed) == (0, False)
    assert figures.n_failed == figures.n_requests > 5
    assert "did not answer" in figures.interrupted
    assert target.observe(NAME).plan == msgspec.structs.replace(PLAN, generation=12)


def test_a_version_that_does_not_load_ends_it(target: MemoryTarget) -> None:
    target.broken[ONE] = "no such blob"
    figures = Rehearsal(target, lambda: ONE, now_ns=ticking()).run(PLAN, ONE, first=8, n_flips=1)
    assert "generation 8" in figures.interrupted
    plan = target.observe(NAME).plan
    assert plan is not None and plan.drill is None


def test_a_rollback_does_not_wait_for_a_drill(target: MemoryTarget) -> None:
    """Its plan is newer than all of the drill's, which end."""
    honest, n_asked = answering(target), 0
    rolled_back = msgspec.structs.replace(
        PLAN, generation=20, live=ONE, previous=TWO, routes=(Route(package=ONE, weight=N_SLOTS),)
    )

    def ask() -> Digest | None:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 2:
            target.apply(rolled_back)
            return ONE
        return honest()

    figures = Rehearsal(target, ask, now_ns=ticking()).run(PLAN, ONE, first=8, n_flips=5)
    assert figures.n_flips == 1
    assert "generation 20" in figures.interrupted
    assert target.observe(NAME).plan == rolled_back
