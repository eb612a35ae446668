"""Gate `perf.slices` by simulation: how often it stops releases that change nothing, and finds harm to one part.

Thirty slices of 400 rows; both models rank by the same signal with a little noise of their own. "Stopped" is the
gate's blocking verdict. The bare rule beside it, any slice more than one point of AUC lower, is what the gate replaces.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.core.digests import canonical
from lockgate.gates.evidence import Evidence
from lockgate.gates.slices import by_slice, holm

Floats = npt.NDArray[np.float64]
N_SLICES, SIZE, EFFECT = 30, 400, 0.02
PARTS: list[object] = [f"part-{number:02d}" for number in np.repeat(np.arange(N_SLICES), SIZE)]


class Release(NamedTuple):
    y: Floats
    new: Floats
    old: Floats


def release(rng: np.random.Generator, *, harmed: int = 0, noise: float = 0.0) -> Release:
    """A release whose model is as good as before, but for the first `harmed` rows, which it ranks with more noise."""
    n = N_SLICES * SIZE
    y = (rng.random(n) < 0.3).astype(np.float64)
    shared, own_old, own_new = rng.normal(size=(3, n))
    old = 1.2 * y + math.sqrt(0.95) * shared + math.sqrt(0.05) * own_old
    new = 1.2 * y + math.sqrt(0.95) * shared + math.sqrt(0.05) * own_new
    new[:harmed] += noise * rng.normal(size=harmed)
    return Release(y, new, old)


def judged(made: Release, **more: Any) -> tuple[Evidence, ...]:
    return by_slice(
        "auc",
        made.y,
        made.new,
        made.old,
        {"part": PARTS[: made.y.size]},
        min_effect=EFFECT,
        champion="1.0.0",
        **more,
    )


def stopped(found: tuple[Evidence, ...]) -> bool:
    assert all(one.verdict != "error" for one in found)
    return any(one.blocks for one in found)


def a_point_lower_somewhere(made: Release) -> bool:
    """The bare rule: some slice's AUC is a point lower, whatever its uncertainty."""

    def ranks(scores: Floats) -> Floats:
        return scores.argsort(axis=1).argsort(axis=1) + 1.0

    y = made.y.reshape(N_SLICES, SIZE)
    events = y.sum(axis=1)

    def aucs(scores: Floats) -> Floats:
        summed = (ranks(scores.reshape(N_SLICES, SIZE)) * y).sum(axis=1)
        return np.asarray((summed - events * (events + 1) / 2) / (events * (SIZE - events)))

    return bool((aucs(made.new) < aucs(made.old) - 0.01).any())


def test_releases_that_change_nothing_are_rarely_stopped_and_a_bare_rule_stops_most() -> None:
    rng = np.random.default_rng(20131110)
    made = [release(rng) for _ in range(150)]
    share = np.mean([stopped(judged(one)) for one in made])
    bare = np.mean([a_point_lower_somewhere(one) for one in made])
    assert share <= 0.08
    assert bare > 0.9


def test_harm_in_one_slice_of_adequate_size_is_found() -> None:
    rng = np.random.default_rng(20131111)
    found = caught = 0
    for _ in range(60):
        # The first slice is four times as large; there the AUC falls from 0.80 to about 0.75.
        made = release(rng, harmed=4 * SIZE, noise=0.75)
        parts = ["part-00"] * (4 * SIZE) + PARTS[4 * SIZE :]
        evidence = by_slice(
            "auc", made.y, made.new, made.old, {"part": parts}, min_effect=EFFECT, champion="1.0.0"
        )
        failed = {one.slice["part"] for one in evidence if one.verdict == "fail"}
        found += bool(failed)
        caught += "part-00" in failed
    assert caught / 60 >= 0.8
    assert found >= caught


def test_a_critical_slice_that_is_worse_by_the_tolerance_passes_one_time_in_twenty() -> None:
    rng = np.random.default_rng(20131112)
    n = 1_000
    verdicts = []
    for _ in range(300):
        y = (rng.random(n) < 0.4).astype(np.float64)
        shared, own_old, own_new = rng.normal(size=(3, n))
        old = 1.0 * y + math.sqrt(0.9) * shared + math.sqrt(0.1) * own_old
        # By how much the separation must shrink for an AUC that is 0.02 lower: 0.7602 to 0.7402.
        new = 0.9107 * y + math.sqrt(0.9) * shared + math.sqrt(0.1) * own_new
        (one,) = by_slice(
            "auc",
            y,
            new,
            old,
            {"part": ["all"] * n},
            min_effect=EFFECT,
            champion="1.0.0",
            critical=["part=all"],
        )
        verdicts.append(one.verdict)
    # 0.05 and three standard errors of 300 trials
    assert verdicts.count("pass") / 300 < 0.09
    assert set(verdicts) <= {"pass", "fail"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_keeps_order_and_lies_between_the_p_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= 1.0
        assert q <= max(1.0 * len(p_values) * p, max(adjusted))
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [q for _, q in pairs] == sorted(adjusted)
    # The definition: step down from the smallest.
    assert adjusted == [
        max(min(1.0, (len(p_values) - i) * x) for i, x in enumerate(sorted(p_values)) if x <= p)
        for p in p_values
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["auc", "brier", "log_loss"]))
def test_the_records_do_not_depend_on_the_order_of_the_rows(seed: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    n = 600
    y = (rng.random(n) < 0.4).astype(np.float64)
    old, new = rng.random((2, n)).round(2)
    parts = rng.choice(["a", "b", "c"], n)
    order = rng.permutation(n)
    one, two = (
        by_slice(
            metric,
            y[rows],
            new[rows],
            old[rows],
            {"part": parts[rows].tolist()},
            min_effect=0.01,
            min_n=50,
            champion="1.0.0",
        )
        for rows in (np.arange(n), order)
    )
    assert [canonical(item) for item in one] == [canonical(item) for item in two]
