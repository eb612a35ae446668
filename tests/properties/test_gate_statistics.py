"""The statistics of the gates against definitions, scikit-learn, the bootstrap and simulation."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from lockgate.core.digests import canonical
from lockgate.gates.decide import set_digest
from lockgate.gates.evidence import explain, line_of
from lockgate.gates.latency import bound_ranks, latency, quantile_bounds
from lockgate.gates.performance import (
    absolute,
    against_champion,
    auc,
    auc_variance,
    brier,
    difference,
    log_loss,
    measure,
)

QUICK = settings(max_examples=60, deadline=None)
Floats = npt.NDArray[np.float64]

# Few distinct scores, so that ties are the rule.
SCORES = st.integers(0, 8).map(lambda eighth: eighth / 8)
ROWS = st.lists(st.tuples(st.booleans(), SCORES, SCORES), min_size=2, max_size=60)


def both_classes(rows: list[tuple[bool, float, float]]) -> tuple[Any, Floats, Floats]:
    y = np.array([row[0] for row in rows])
    assume(0 < y.sum() < y.size)
    return y, np.array([row[1] for row in rows]), np.array([row[2] for row in rows])


def kernel(y: Any, p: Floats) -> Floats:
    """The definition: 1, 1/2 or 0 for every (event, other) pair; O(mn)."""
    events, others = p[y == 1][:, None], p[y == 0][None, :]
    return (events > others) + 0.5 * (events == others)


def delong_by_definition(y: Any, p: Floats, q: Floats) -> float:
    """Variance of AUC(p) - AUC(q) from the two full kernels."""
    apart = kernel(y, p) - kernel(y, q)
    rows, columns = apart.mean(axis=1), apart.mean(axis=0)
    spread = 0.0
    for part in (rows, columns):
        if part.size > 1:
            spread += float(part.var(ddof=1)) / part.size
    return spread


@QUICK
@given(ROWS)
def test_metrics_equal_scikit_learn(rows: list[tuple[bool, float, float]]) -> None:
    y, p, _ = both_classes(rows)
    assert auc(y, p) == pytest.approx(float(roc_auc_score(y, p)), abs=1e-13)
    assert auc(y, p) == pytest.approx(float(kernel(y, p).mean()), abs=1e-13)
    assert brier(y, p) == pytest.approx(float(brier_score_loss(y, p)), abs=1e-13)
    assert log_loss(y, p) == pytest.approx(float(sklearn_log_loss(y, p)), rel=1e-9)


@QUICK
@given(ROWS)
def test_delong_equals_its_definition(rows: list[tuple[bool, float, float]]) -> None:
    y, p, q = both_classes(rows)
    assert auc_variance(y, p) == pytest.approx(delong_by_definition(y, p, np.zeros_like(p)), abs=1e-12)
    new, old, delta, ci = difference("auc", y, p, q)
    assert delta == pytest.approx(new - old)
    half = NormalDist().inv_cdf(0.95) * math.sqrt(delong_by_definition(y, p, q))
    assert ci.low == pytest.approx(delta - half, abs=1e-9)
    assert ci.high == pytest.approx(delta + half, abs=1e-9)


@QUICK
@given(ROWS, st.randoms(use_true_random=False))
def test_evidence_does_not_depend_on_the_order_of_the_rows(rows: Any, random: Any) -> None:
    y, p, q = both_classes(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    for metric in ("auc", "brier", "log_loss"):
        one = against_champion(metric, y, p, q, 0.1, champion="1.0.0", min_n=0)
        two = against_champion(metric, y[order], p[order], q[order], 0.1, champion="1.0.0", min_n=0)
        assert canonical(one) == canonical(two)
        assert explain(one) == explain(two)


@QUICK
@given(ROWS)
def test_swapping_the_models_mirrors_the_interval(rows: list[tuple[bool, float, float]]) -> None:
    y, p, q = both_classes(rows)
    for metric in ("auc", "brier"):
        _, _, delta, ci = difference(metric, y, p, q)
        _, _, mirrored, mirror = difference(metric, y, q, p)
        assert delta == pytest.approx(-mirrored, abs=1e-15)
        assert (ci.low, ci.high) == (pytest.approx(-mirror.high), pytest.approx(-mirror.low))


@QUICK
@given(ROWS)
def test_the_auc_of_the_opposite_is_the_rest(rows: list[tuple[bool, float, float]]) -> None:
    y, p, _ = both_classes(rows)
    assert auc(y, 1 - p) == pytest.approx(1 - auc(y, p), abs=1e-15)
    assert auc_variance(y, 1 - p) == pytest.approx(auc_variance(y, p), abs=1e-15)


@QUICK
@given(ROWS, st.floats(0, 1))
def test_a_pass_is_always_backed_by_its_interval(rows: Any, limit: float) -> None:
    y, p, _ = both_classes(rows)
    evidence = absolute("auc", y, p, limit, min_n=0)
    assert evidence.ci is not None
    assert evidence.value is not None
    assert evidence.ci.low <= evidence.value <= evidence.ci.high
    if evidence.verdict == "pass":
        assert evidence.ci.low >= limit


@QUICK
@given(st.permutations(range(6)))
def test_the_set_digest_knows_no_order(order: list[int]) -> None:
    items = [absolute("auc", [0, 1], [0.1, 0.9], limit / 10) for limit in range(6)]
    lines = tuple(line_of(item) for item in items)
    assert set_digest(tuple(lines[i] for i in order)) == set_digest(lines)


def binomial_at_most(k: int, n: int, share: float) -> float:
    return math.fsum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k + 1))


@QUICK
@given(st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.99]), st.sampled_from([0.01, 0.05, 0.1]))
def test_order_statistic_bounds_are_the_tightest_that_hold(n: int, quantile: float, alpha: float) -> None:
    low, high = bound_ranks(n, quantile, alpha)
    if high is None:
        assert binomial_at_most(n - 1, n, quantile) < 1 - alpha
    else:
        assert binomial_at_most(high - 1, n, quantile) >= 1 - alpha - 1e-9
        assert high == 1 or binomial_at_most(high - 2, n, quantile) < 1 - alpha
    if low is None:
        assert binomial_at_most(0, n, quantile) > alpha
    else:
        assert binomial_at_most(low - 1, n, quantile) <= alpha + 1e-9
        assert binomial_at_most(low, n, quantile) > alpha


def test_the_variance_of_the_auc_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(3)
    m, n, reps = 150, 250, 1_500
    events, others = rng.normal(1.0, 1.0, m), rng.normal(0.0, 1.0, n)
    y = np.repeat([1, 0], [m, n])
    pairs = kernel(y, np.concatenate([events, others]))
    rows = rng.multinomial(m, np.full(m, 1 / m), reps) / m
    columns = rng.multinomial(n, np.full(n, 1 / n), reps) / n
    resampled = np.einsum("ri,ij,rj->r", rows, pairs, columns, optimize=True)
    assert auc_variance(y, np.concatenate([events, others])) == pytest.approx(resampled.var(ddof=1), rel=0.12)


def share_of(verdicts: list[str], verdict: str) -> float:
    return verdicts.count(verdict) / len(verdicts)


def test_a_model_worse_by_exactly_the_margin_passes_one_time_in_twenty_auc() -> None:
    rng = np.random.default_rng(4)
    m = n = 250
    margin = NormalDist().cdf(1.0 / math.sqrt(2)) - NormalDist().cdf(0.85 / math.sqrt(2))
    y = np.repeat([1, 0], [m, n])
    verdicts = []
    for _ in range(800):
        shared, own_old, own_new = rng.normal(size=(3, m + n))
        old = 1.0 * y + math.sqrt(0.7) * shared + math.sqrt(0.3) * own_old
        new = 0.85 * y + math.sqrt(0.7) * shared + math.sqrt(0.3) * own_new
        verdicts.append(
            against_champion("auc", y, new, old, margin, champion="1.0.0", unsettled="warn").verdict
        )
    # 0.05 +- 3.3 standard errors of 800 trials
    assert 0.025 < share_of(verdicts, "pass") < 0.076
    assert 0.025 < share_of(verdicts, "fail") < 0.076
    assert "error" not in verdicts


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_a_model_worse_by_exactly_the_margin_passes_one_time_in_twenty_losses(metric: str) -> None:
    rng = np.random.default_rng(5)
    n, off = 600, 0.08
    truth = np.tile([0.2, 0.4, 0.6, 0.8], n // 4)
    # The old model knows the truth; the new one is off by `off` up or down. Expected extra loss, exactly:
    if metric == "brier":
        margin = off**2
    else:
        margin = float(
            np.mean(
                [
                    truth * np.log(truth / (truth + s * off))
                    + (1 - truth) * np.log((1 - truth) / (1 - truth - s * off))
                    for s in (-1, 1)
                ]
            )
        )
    verdicts = []
    for _ in range(800):
        y = (rng.random(n) < truth).astype(float)
        new = truth + off * rng.choice([-1.0, 1.0], n)
        verdicts.append(
            against_champion(metric, y, new, truth, margin, champion="1.0.0", unsettled="warn").verdict
        )
    assert 0.025 < share_of(verdicts, "pass") < 0.076
    assert 0.025 < share_of(verdicts, "fail") < 0.076


def test_an_equally_good_model_is_rarely_failed_and_mostly_passed_with_enough_rows() -> None:
    rng = np.random.default_rng(6)
    y = np.repeat([1, 0], [1_000, 1_000])
    verdicts = []
    for _ in range(120):
        shared, own_old, own_new = rng.normal(size=(3, 2_000))
        old = y + math.sqrt(0.9) * shared + math.sqrt(0.1) * own_old
        new = y + math.sqrt(0.9) * shared + math.sqrt(0.1) * own_new
        verdicts.append(
            against_champion("auc", y, new, old, 0.02, champion="1.0.0", unsettled="warn").verdict
        )
    assert share_of(verdicts, "pass") > 0.9
    assert "fail" not in verdicts


@pytest.mark.parametrize(("separation", "ceiling"), [(1.0, 0.076), (2.0, 0.08), (3.0, 0.12)])
def test_the_interval_of_the_auc_misses_the_truth_as_often_as_the_module_says(
    separation: float, ceiling: float
) -> None:
    """0.05 on either side, but up to 0.09 below for an AUC of 0.98 (separation 3), plus 3 standard errors."""
    rng = np.random.default_rng(8)
    truth = NormalDist().cdf(separation / math.sqrt(2))
    y = np.repeat([1, 0], [60, 200])
    missed_below = missed_above = 0
    for _ in range(800):
        _, ci = measure("auc", y, rng.normal(size=260) + separation * y)
        missed_below += truth < ci.low
        missed_above += truth > ci.high
    assert missed_below / 800 < ceiling
    assert missed_above / 800 < 0.076


def test_near_a_perfect_auc_the_margin_leaks_no_more_than_the_module_says() -> None:
    rng = np.random.default_rng(12)
    y = np.repeat([1, 0], [60, 200])
    margin = NormalDist().cdf(3.0 / math.sqrt(2)) - NormalDist().cdf(2.7 / math.sqrt(2))
    verdicts = []
    for _ in range(800):
        shared, own_old, own_new = rng.normal(size=(3, 260))
        old = 3.0 * y + math.sqrt(0.7) * shared + math.sqrt(0.3) * own_old
        new = 2.7 * y + math.sqrt(0.7) * shared + math.sqrt(0.3) * own_new
        verdicts.append(
            against_champion("auc", y, new, old, margin, champion="1.0.0", unsettled="warn").verdict
        )
    assert share_of(verdicts, "pass") < 0.12


def test_a_latency_above_its_budget_passes_one_time_in_twenty_at_most() -> None:
    rng = np.random.default_rng(9)
    true_p99 = math.log(100) * 100
    missed = sum(quantile_bounds(rng.exponential(100, 600), 0.99)[2] < true_p99 for _ in range(800))  # type: ignore[operator]
    assert missed / 800 < 0.076
    verdicts = [
        latency(rng.exponential(100, 600), true_p99, source="simulated")[0].verdict for _ in range(400)
    ]
    assert share_of(verdicts, "pass") < 0.09


def test_a_model_slower_by_exactly_the_share_passes_one_time_in_twenty_at_most() -> None:
    rng = np.random.default_rng(10)
    verdicts = []
    for _ in range(500):
        new, old = rng.exponential(120, 2_000), rng.exponential(100, 2_000)
        _, ratio = latency(
            new, 10**9, source="simulated", champion_samples_us=old, slower_share=0.2, unsettled="warn"
        )
        verdicts.append(ratio.verdict)
    assert share_of(verdicts, "pass") < 0.085
    assert share_of(verdicts, "fail") < 0.085
