"""Gate `calibration`: of the flights it gives 30 percent, are 30 percent late?

Two figures are judged, each by its interval: the *gap*, mean prediction minus share of events (calibration in
the large), and the *slope* of the logistic recalibration logit P(event) = a + b logit(p). A slope of 1 is right; below
1 the predictions are too extreme, above 1 too timid. Both are known well enough from a few hundred rows.

The expected calibration error (ECE), which people know, is told in the details and judges nothing: it depends on
the bins, and counted plainly it is too large for small samples, since chance alone moves every bin off its mean. What
is told has 15 bins of equal mass and is corrected for that, by the closed form of the bootstrap correction of A.
Kumar et al., "Verified Uncertainty Calibration" (2019): each bin's gap is taken as normal with the spread of its
events, and the excess of the mean absolute value over the absolute mean is subtracted. That removes the excess where
there is an error to be seen, and four tenths of it where there is none.

Sources: D. Cox, "Two further applications of a model for binary regression", Biometrika 45 (1958); E. Steyerberg,
"Clinical Prediction Models", 2nd ed., ch. 15. Oracles in tests/: scikit-learn, simulation.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from lockgate.gates.evidence import (
    ANYTHING,
    Comparator,
    Evidence,
    GateInputInvalid,
    Interval,
    Subject,
    Unsettled,
    guarded,
    interval,
    kept,
    record,
    settle,
)
from lockgate.gates.performance import (
    Floats,
    doubled_midranks,
    judged_rows,
    mean_and_square_error,
    metric_of,
    size_of,
    z_of,
)

_GATE = "calibration"
N_BINS = 15
CLIP = 1e-6
"""Predictions closer than this to 0 or 1 count as this: one certain and wrong row must not decide on the slope."""
_MAX_STEPS = 100


class Slope(NamedTuple):
    """The logistic recalibration: slope, intercept, and the standard error of the slope (Fisher information)."""

    slope: float
    intercept: float
    error: float


def gap(y: Any, p: Any) -> tuple[float, float]:
    """Mean prediction minus share of events, and its standard error.

    Raises:
        GateInputInvalid, TooFewRows: see `performance.judged_rows`; predictions outside 0 to 1.
    """
    labels, (answers,) = judged_rows(metric_of("brier"), y, p)
    mean, spread = mean_and_square_error(answers - labels)
    return mean, math.sqrt(spread)


def recalibration(y: Any, p: Any) -> Slope:
    """Maximum likelihood of y on a + b logit(p), by Newton's method with exactly rounded sums.

    Raises:
        GateInputInvalid, TooFewRows: see `gap`; there is no finite slope, because all predictions are alike or
            a threshold divides the classes without an error.
    """
    labels, (answers,) = judged_rows(metric_of("brier"), y, p)
    clipped = np.clip(answers, CLIP, 1 - CLIP)
    x = np.log(clipped) - np.log1p(-clipped)
    _refuse_degenerate(labels, x)
    # Centred, so that the two unknowns hardly depend on one another.
    centre = _sum(x) / x.size
    x = x - centre
    share = _sum(labels) / labels.size
    a, b = math.log(share / (1 - share)), 0.0
    likelihood = _log_likelihood(labels, x, a, b)
    for _ in range(_MAX_STEPS):
        expected = 1 / (1 + np.exp(-(a + b * x)))
        weight = expected * (1 - expected)
        s0, s1, s2 = _sum(weight), _sum(weight * x), _sum(weight * x * x)
        g0, g1 = _sum(labels - expected), _sum((labels - expected) * x)
        determinant = s0 * s2 - s1 * s1
        if not determinant > 0:
            break
        step_a, step_b = (s2 * g0 - s1 * g1) / determinant, (s0 * g1 - s1 * g0) / determinant
        while (tried := _log_likelihood(labels, x, a + step_a, b + step_b)) < likelihood - 1e-9:
            step_a, step_b = step_a / 2, step_b / 2
        a, b, likelihood = a + step_a, b + step_b, tried
        if abs(step_a) + abs(step_b) < 1e-12 * (1 + abs(a) + abs(b)):
            return Slope(b, a - b * centre, math.sqrt(s0 / determinant))
    raise GateInputInvalid(
        "the logistic recalibration does not settle",
        remedy="look at the predictions: are nearly all of them 0 or 1?",
    )


def _refuse_degenerate(y: Floats, x: Floats) -> None:
    events, others = x[y == 1], x[y == 0]
    if x.min() == x.max():
        raise GateInputInvalid("all predictions are alike; they have no slope", remedy="train a model")
    if events.min() >= others.max() or others.min() >= events.max():
        raise GateInputInvalid(
            "a threshold divides the classes without an error; the slope is beyond all bounds",
            remedy="find out whether the label has leaked into the features",
        )


def _log_likelihood(y: Floats, x: Floats, a: float, b: float) -> float:
    odds = a + b * x
    return _sum(y * odds - np.logaddexp(0.0, odds))


def _sum(values: Floats) -> float:
    return math.fsum(values.tolist())


class CalibrationError(NamedTuple):
    """ECE, corrected and as counted; and the bin that is furthest off: mean prediction, share of events, rows."""

    corrected: float
    counted: float
    worst: tuple[float, float, int]


def calibration_error(y: Any, p: Any, *, n_bins: int = N_BINS) -> CalibrationError:
    """Expected calibration error over bins of equal mass; rows of equal predictions share a bin.

    Raises:
        GateInputInvalid, TooFewRows: see `gap`.
    """
    labels, (answers,) = judged_rows(metric_of("brier"), y, p)
    n = labels.size
    places = (doubled_midranks(answers) - 1) * n_bins // (2 * n)
    counted = expected = 0.0
    worst = (0.0, 0.0, 0)
    for place in np.unique(places):
        inside = places == place
        size = int(inside.sum())
        predicted, happened = _sum(answers[inside]) / size, _sum(labels[inside]) / size
        off = abs(predicted - happened)
        counted += size / n * off
        expected += size / n * _mean_of_folded(off, math.sqrt(happened * (1 - happened) / size))
        if off > abs(worst[0] - worst[1]):
            worst = (predicted, happened, size)
    return CalibrationError(max(0.0, 2 * counted - expected), counted, worst)


def _mean_of_folded(mean: float, spread: float) -> float:
    """E|X| of a normal X."""
    if spread == 0:
        return abs(mean)
    z = mean / spread
    return spread * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + mean * math.erf(z / math.sqrt(2))


def calibration(
    y: Any,
    p: Any,
    *,
    max_gap: float,
    slope: tuple[float, float],
    alpha: float = 0.05,
    unsettled: Unsettled = "fail",
    min_n: int = 30,
    subject: Subject = ANYTHING,
) -> tuple[Evidence, ...]:
    """Gate `calibration`: the probabilities are right on the whole, and neither too extreme nor too timid.

    Args:
        y: (n,) labels, 0 or 1.
        p: (n,) predicted probabilities.
        max_gap: the largest difference of mean prediction and share of events, either way.
        slope: the smallest and the largest slope of the logistic recalibration.
        alpha: one-sided error rate of a pass, and of a fail, per limit.
        unsettled: the verdict when a limit lies inside the interval, or when there are too few rows.
        min_n: fewest rows of either class.
    Returns:
        Three records: `gap` (its absolute value, the sign is in the details), and `slope` against either limit.
        The ECE is in the details of the first. Never raises.
    """
    low, high = slope
    sides: tuple[tuple[str, Comparator, float], ...] = (
        ("lower", "at_least", low),
        ("upper", "at_most", high),
    )

    @cache
    def fitted() -> Slope:
        return recalibration(y, p)

    def judge_gap() -> Evidence:
        return _judge_gap(y, p, max_gap, alpha, unsettled, min_n, subject)

    found = [
        guarded(_GATE, "gap", judge_gap, subject=subject, comparator="at_most", threshold=max_gap),
    ]
    for side, comparator, limit in sides:
        about = subject.of(limit=side)

        def judge_slope(
            comparator: Comparator = comparator, limit: float = limit, about: Subject = about
        ) -> Evidence:
            _check_slope(low, high)
            return _judge_slope(y, fitted(), comparator, limit, alpha, unsettled, min_n, about)

        found.append(
            guarded(_GATE, "slope", judge_slope, subject=about, comparator=comparator, threshold=limit)
        )
    return tuple(found)


def _check_slope(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and 0 <= low < high):
        raise GateInputInvalid(
            f"slopes from {low} to {high} are no range", remedy="give for example 0.8, 1.25"
        )


def _judge_gap(
    y: Any, p: Any, max_gap: float, alpha: float, unsettled: Unsettled, min_n: int, subject: Subject
) -> Evidence:
    if not (math.isfinite(max_gap) and max_gap >= 0):
        raise GateInputInvalid(f"max_gap {max_gap} is no limit", remedy="give 0 or more")
    off, error = gap(y, p)
    half = z_of(alpha) * error
    ci = _absolute(off - half, off + half, 1 - 2 * alpha)
    verdict, reason = settle(kept(abs(off)), ci, "at_most", max_gap, unsettled)
    n, enough, sizes = size_of(metric_of("brier"), y, min_n)
    if not enough:
        verdict, reason = unsettled, "insufficient_n"
    labels, (answers,) = judged_rows(metric_of("brier"), y, p)
    binned = calibration_error(y, p)
    predicted, happened, size_of_bin = binned.worst
    return record(
        _GATE,
        "gap",
        subject,
        n=n,
        value=kept(abs(off)),
        comparator="at_most",
        threshold=max_gap,
        ci=ci,
        verdict=verdict,
        reason=reason,
        details=(
            f"predicted {_sum(answers) / n:.4f} on average, happened {_sum(labels) / n:.4f}",
            f"expected calibration error {binned.corrected:.4f} over {N_BINS} bins of equal mass, corrected for "
            f"chance ({binned.counted:.4f} as counted)",
            f"furthest off: predicted {predicted:.4f}, happened {happened:.4f} in {size_of_bin:,} rows",
            *sizes,
        ),
    )


def _absolute(low: float, high: float, level: float) -> Interval:
    """The interval of an absolute value: it lies below a limit exactly when both ends lie within +- the limit."""
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return interval(nearest, max(abs(low), abs(high)), level, "normal_mean_absolute")


def _judge_slope(
    y: Any,
    found: Slope,
    comparator: Comparator,
    limit: float,
    alpha: float,
    unsettled: Unsettled,
    min_n: int,
    subject: Subject,
) -> Evidence:
    half = z_of(alpha) * found.error
    ci = interval(found.slope - half, found.slope + half, 1 - 2 * alpha, "logistic_wald")
    verdict, reason = settle(kept(found.slope), ci, comparator, limit, unsettled)
    n, enough, sizes = size_of(metric_of("brier"), y, min_n)
    if not enough:
        verdict, reason = unsettled, "insufficient_n"
    return record(
        _GATE,
        "slope",
        subject,
        n=n,
        value=kept(found.slope),
        comparator=comparator,
        threshold=limit,
        ci=ci,
        verdict=verdict,
        reason=reason,
        details=(f"intercept {found.intercept:+.4f}", *sizes),
    )
