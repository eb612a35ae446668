"""Is it good enough, and is it no worse than the champion? Metrics with intervals, and the two gates on them.

Three decisions, by interval and never by bare figures (a tolerance on point estimates passes half of all
models that sit exactly at the tolerance, and "must beat the champion" rejects half of all equally good
ones): *pass* when the whole interval keeps the limit, *fail* when the whole interval is beyond it, else
*inconclusive*, which the policy maps to warn or fail. The comparison is paired: both models on the same rows.

The intervals are two-sided with coverage 1 - 2 alpha, so a pass and a fail are each wrong with probability
alpha. That is an approximation for large samples. Simulated, a nominal 0.05 is 0.04 to 0.06 for an AUC up to
0.92 with 60 rows of the rarer class; it grows to 0.09 for an AUC of 0.98 with 60 to 200 of them, and to 0.09
when two nearly identical models are compared on 30. Judge such models with more rows or a smaller alpha.

Sources: AUC and its variance, E. DeLong et al. 1988, by mid-ranks as X. Sun and W. Xu, "Fast Implementation
of DeLong's Algorithm", IEEE Signal Processing Letters 21 (2014); interval on the logit scale, M. Pepe, "The
Statistical Evaluation of Medical Tests" (2003). Non-inferiority by interval: CONSORT extension, Piaggio et
al. 2012. Oracles: scikit-learn, the bootstrap, the O(mn) definition and simulation, in tests/.

Every sum is exactly rounded, so figures do not depend on the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lockgate.core.digests import Digest
from lockgate.core.errors import NotFound, did_you_mean
from lockgate.gates.evidence import (
    ANYTHING,
    Baseline,
    Comparator,
    Evidence,
    GateInputInvalid,
    Interval,
    Subject,
    TooFewRows,
    Unsettled,
    guarded,
    interval,
    kept,
    record,
    settle,
)

Floats = npt.NDArray[np.float64]
_EPSILON = float(np.finfo(np.float64).eps)


class UnknownMetric(NotFound):
    code = "gates.unknown-metric"


class Metric(NamedTuple):
    """One way to score predictions.

    Attributes:
        better: `higher` or `lower`.
        labels: `binary` (0 or 1) or `number`.
        losses: the loss of each row, for metrics that are its mean; None for the AUC.
    """

    name: str
    better: Literal["higher", "lower"]
    labels: Literal["binary", "number"]
    losses: Callable[[Floats, Floats], Floats] | None


def _log_losses(y: Floats, p: Floats) -> Floats:
    # As scikit-learn does: a certain and wrong prediction costs 36, not infinity.
    sure = np.clip(p, _EPSILON, 1 - _EPSILON)
    return -np.where(y == 1, np.log(sure), np.log1p(-sure))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("auc", "higher", "binary", None),
        Metric("log_loss", "lower", "binary", _log_losses),
        Metric("brier", "lower", "binary", lambda y, p: (p - y) ** 2),
        Metric("mean_absolute_error", "lower", "number", lambda y, p: np.abs(p - y)),
        Metric("mean_squared_error", "lower", "number", lambda y, p: (p - y) ** 2),
    )
}


def metric_of(name: str) -> Metric:
    """Raises `UnknownMetric` with the near matches."""
    if name not in METRICS:
        raise UnknownMetric(f"there is no metric {name!r}", remedy=did_you_mean(name, METRICS), metric=name)
    return METRICS[name]


def vector(values: Any, what: str) -> Floats:
    """`values` as (n,) float64.

    Raises:
        GateInputInvalid: not one-dimensional, not numbers, masked, or not all finite.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise GateInputInvalid(f"the {what} are a masked array", remedy="drop the masked rows beforehand")
    array = np.asarray(values)
    if array.ndim != 1:
        raise GateInputInvalid(
            f"the {what} have shape {array.shape}", remedy="give one number per row, shape (n,)"
        )
    if array.dtype.kind not in "fiub" and array.size:
        raise GateInputInvalid(f"the {what} are {array.dtype}, not numbers", remedy="give floats")
    floats = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(floats))
    if bad.size:
        raise GateInputInvalid(
            f"{bad.size:,} of {floats.size:,} {what} are not finite, first at row {bad[0]:,}",
            remedy=f"find out why the {what} hold NaN or infinity",
        )
    return floats


def judged_rows(metric: Metric, y: Any, *predictions: Any) -> tuple[Floats, tuple[Floats, ...]]:
    """Labels and predictions, checked for what the metric needs.

    Raises:
        GateInputInvalid, TooFewRows: see `vector`; shapes that do not fit, one class is missing.
    """
    labels = vector(y, "labels")
    checked = tuple(vector(p, "predictions") for p in predictions)
    for p in checked:
        if p.shape != labels.shape:
            raise GateInputInvalid(
                f"{p.size:,} predictions for {labels.size:,} labels", remedy="predict exactly the judged rows"
            )
    if labels.size == 0:
        raise TooFewRows("there are no rows to judge by", remedy="give an evaluation set that has rows")
    if metric.labels == "binary":
        if not np.isin(labels, (0.0, 1.0)).all():
            raise GateInputInvalid("labels other than 0 and 1", remedy="give 1 for the event, 0 otherwise")
        if labels.min() == labels.max():
            raise TooFewRows(
                f"all {labels.size:,} rows are of class {int(labels[0])}", remedy="judge rows of both classes"
            )
        for p in checked if metric.name != "auc" else ():
            if p.min() < 0 or p.max() > 1:
                raise GateInputInvalid(
                    f"predictions from {p.min():g} to {p.max():g} are no probabilities",
                    remedy="predict probabilities, or judge by auc",
                )
    return labels, checked


def doubled_midranks(values: Floats) -> npt.NDArray[np.int64]:
    """Twice the rank of each value, ties sharing their middle; integers, so that nothing is rounded."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.append(starts[1:], values.size)
    ranks = np.empty(values.size, dtype=np.int64)
    ranks[order] = np.repeat(starts + ends + 1, ends - starts)
    return ranks


class _Placements(NamedTuple):
    """DeLong's structural components: of each positive among the negatives, and the other way round."""

    auc: float
    positives: Floats
    negatives: Floats


def _placements(y: Floats, p: Floats) -> _Placements:
    event = y == 1
    m, n = int(event.sum()), int(y.size - event.sum())
    pooled = doubled_midranks(p)
    above = pooled[event] - doubled_midranks(p[event])
    below = pooled[~event] - doubled_midranks(p[~event])
    auc_ = int(above.sum()) / (2 * m * n)
    return _Placements(auc_, above / (2 * n), 1.0 - below / (2 * m))


def mean_and_square_error(values: Floats) -> tuple[float, float]:
    """The mean and the variance of that mean (n - 1 in the denominator); exactly rounded sums."""
    n = values.size
    mean = math.fsum(values.tolist()) / n
    if n < 2:
        return mean, 0.0
    return mean, math.fsum(((values - mean) ** 2).tolist()) / (n - 1) / n


def auc(y: Any, p: Any) -> float:
    """Share of (event, other) pairs that `p` puts in order, ties counting half; exact but for one division.

    Args:
        y: (n,) labels, 0 or 1, both present.
        p: (n,) finite scores; any increasing transform gives the same.
    Raises:
        GateInputInvalid, TooFewRows: see `vector`; one class is missing.
    """
    labels, (scores,) = judged_rows(METRICS["auc"], y, p)
    return _placements(labels, scores).auc


def auc_variance(y: Any, p: Any) -> float:
    """DeLong's variance of the AUC, O(n log n); zero when all pairs are in order.

    A class of one row adds nothing to it: its part is unknown.
    """
    labels, (scores,) = judged_rows(METRICS["auc"], y, p)
    placed = _placements(labels, scores)
    return mean_and_square_error(placed.positives)[1] + mean_and_square_error(placed.negatives)[1]


def log_loss(y: Any, p: Any) -> float:
    """Mean negative log likelihood (natural logarithm); p is clipped to [2.2e-16, 1 - 2.2e-16]."""
    return measure("log_loss", y, p)[0]


def brier(y: Any, p: Any) -> float:
    """Mean squared difference of probability and label."""
    return measure("brier", y, p)[0]


def measure(metric: str, y: Any, p: Any, *, alpha: float = 0.05) -> tuple[float, Interval]:
    """A metric and its interval of coverage 1 - 2 `alpha`.

    The interval is DeLong's on the logit scale for the AUC, normal for a mean loss. When all pairs are in
    order (or none is) DeLong's variance is zero and says nothing; then the bound is the exact one for
    k = min(class sizes) independent pairs that are all in order, alpha ** (1 / k).

    Raises:
        GateInputInvalid, TooFewRows, UnknownMetric.
    """
    chosen, z = metric_of(metric), z_of(alpha)
    labels, (scores,) = judged_rows(chosen, y, p)
    level = 1 - 2 * alpha
    if chosen.losses is None:
        placed = _placements(labels, scores)
        spread = mean_and_square_error(placed.positives)[1] + mean_and_square_error(placed.negatives)[1]
        return placed.auc, _auc_interval(placed, math.sqrt(spread), alpha, z)
    mean, spread = mean_and_square_error(_losses(chosen, labels, scores))
    half = z * math.sqrt(spread)
    return mean, interval(mean - half, mean + half, level, "normal_mean")


def _auc_interval(placed: _Placements, error: float, alpha: float, z: float) -> Interval:
    level, value = 1 - 2 * alpha, placed.auc
    if value in (0.0, 1.0):
        bound = alpha ** (1 / min(placed.positives.size, placed.negatives.size))
        low, high = (bound, 1.0) if value == 1.0 else (0.0, 1.0 - bound)
        return interval(low, high, level, "exact_pairs")
    centre, half = math.log(value / (1 - value)), z * error / (value * (1 - value))
    return interval(_logistic(centre - half), _logistic(centre + half), level, "delong_logit")


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))


class Paired(NamedTuple):
    """Two models on the same rows: their figures, new minus old, and the standard error of that difference."""

    new: float
    old: float
    delta: float
    error: float
    method: str

    def interval(self, alpha: float) -> Interval:
        """Of the difference, normal, with coverage 1 - 2 `alpha`."""
        half = z_of(alpha) * self.error
        return interval(self.delta - half, self.delta + half, 1 - 2 * alpha, self.method)


def paired(metric: str, y: Any, p_new: Any, p_old: Any) -> Paired:
    """Compare two models row by row.

    DeLong's variance for the AUC (the covariance is in the difference of the structural components), that of the
    mean of the row-wise difference for losses. Models that agree on every row differ by 0 with an error of 0.

    Raises:
        GateInputInvalid, TooFewRows, UnknownMetric.
    """
    chosen = metric_of(metric)
    labels, (new, old) = judged_rows(chosen, y, p_new, p_old)
    if chosen.losses is None:
        a, b = _placements(labels, new), _placements(labels, old)
        spread = (
            mean_and_square_error(a.positives - b.positives)[1]
            + mean_and_square_error(a.negatives - b.negatives)[1]
        )
        return Paired(a.auc, b.auc, a.auc - b.auc, math.sqrt(spread), "delong_paired")
    new_losses, old_losses = _losses(chosen, labels, new), _losses(chosen, labels, old)
    delta, spread = mean_and_square_error(new_losses - old_losses)
    return Paired(
        math.fsum(new_losses.tolist()) / labels.size,
        math.fsum(old_losses.tolist()) / labels.size,
        delta,
        math.sqrt(spread),
        "normal_paired",
    )


def difference(
    metric: str, y: Any, p_new: Any, p_old: Any, *, alpha: float = 0.05
) -> tuple[float, float, float, Interval]:
    """New value, old value, new minus old, and the paired interval of the difference (see `paired`).

    Raises:
        GateInputInvalid, TooFewRows, UnknownMetric.
    """
    found = paired(metric, y, p_new, p_old)
    return found.new, found.old, found.delta, found.interval(alpha)


def _losses(metric: Metric, y: Floats, p: Floats) -> Floats:
    assert metric.losses is not None
    with np.errstate(over="raise", invalid="raise"):
        return metric.losses(y, p)


def z_of(alpha: float) -> float:
    if not 0 < alpha < 0.5:
        raise GateInputInvalid(f"alpha {alpha} is no error rate", remedy="give alpha between 0 and 0.5")
    return NormalDist().inv_cdf(1 - alpha)


def absolute(
    metric: str,
    y: Any,
    p: Any,
    limit: float,
    *,
    alpha: float = 0.05,
    unsettled: Unsettled = "fail",
    min_n: int = 30,
    subject: Subject = ANYTHING,
) -> Evidence:
    """Gate `perf.absolute`: the unfavourable bound of the metric keeps `limit`.

    Args:
        metric: a name in `METRICS`.
        y: (n,) labels.
        p: (n,) predictions of the judged package.
        limit: floor for the AUC, ceiling for losses; meeting it exactly is keeping it.
        alpha: nominal one-sided error rate of a pass, and of a fail.
        unsettled: the verdict when the limit lies inside the interval, or when there are too few rows.
        min_n: fewest rows (of each class, for binary labels) the interval is trusted with.
    Returns:
        Evidence, always: NaN, shapes that do not fit, one class or no rows give `error`.
    """
    comparator = comparator_of(metric)

    def judge() -> Evidence:
        _check_limit(limit)
        value, ci = measure(metric, y, p, alpha=alpha)
        n, enough, details = size_of(metric_of(metric), y, min_n)
        verdict, reason = settle(kept(value), ci, comparator, limit, unsettled)
        if not enough:
            verdict, reason = unsettled, "insufficient_n"
        return record(
            "perf.absolute",
            metric,
            subject,
            n=n,
            value=kept(value),
            comparator=comparator,
            threshold=limit,
            ci=ci,
            verdict=verdict,
            reason=reason,
            details=details,
        )

    return guarded("perf.absolute", metric, judge, subject=subject, comparator=comparator, threshold=limit)


def against_champion(
    metric: str,
    y: Any,
    p_new: Any,
    p_old: Any,
    margin: float,
    *,
    champion: str,
    champion_digest: Digest | None = None,
    alpha: float = 0.05,
    unsettled: Unsettled = "fail",
    min_n: int = 30,
    subject: Subject = ANYTHING,
) -> Evidence:
    """Gate `perf.vs_champion`: not worse than the champion by more than `margin`, on the same rows.

    A model that is worse by exactly `margin` passes with probability `alpha` (how nearly, see the module's text).

    Args:
        metric: a name in `METRICS`.
        y: (n,) labels.
        p_new: (n,) predictions of the judged package.
        p_old: (n,) predictions of the champion for the same rows in the same order.
        margin: how much worse is still acceptable, >= 0, in the metric's unit (0.005 is half a point of AUC).
        champion: its version, for people.
        champion_digest: its package digest.
        alpha, unsettled, min_n: see `absolute`.
    Returns:
        Evidence, always. `delta` is new minus old, so for a loss a positive one is worse.
    """
    comparator = comparator_of(metric)
    threshold = 0.0 - margin if comparator == "at_least" else margin
    baseline = Baseline(kind="champion", ref=champion, digest=champion_digest)

    def judge() -> Evidence:
        _check_limit(margin)
        if margin < 0:
            raise GateInputInvalid(f"the margin {margin} is negative", remedy="give a margin of 0 or more")
        new, old, delta, ci = difference(metric, y, p_new, p_old, alpha=alpha)
        n, enough, details = size_of(metric_of(metric), y, min_n)
        verdict, reason = settle(kept(delta), ci, comparator, threshold, unsettled)
        if not enough:
            verdict, reason = unsettled, "insufficient_n"
        return record(
            "perf.vs_champion",
            metric,
            subject,
            n=n,
            value=kept(new),
            baseline=Baseline(kind="champion", ref=champion, digest=champion_digest, value=kept(old)),
            delta=kept(delta),
            comparator=comparator,
            threshold=threshold,
            ci=ci,
            verdict=verdict,
            reason=reason,
            details=details,
        )

    return guarded(
        "perf.vs_champion",
        metric,
        judge,
        subject=subject,
        comparator=comparator,
        threshold=threshold,
        baseline=baseline,
    )


def no_baseline(
    metric: str, *, gate: str = "perf.vs_champion", subject: Subject = ANYTHING, details: tuple[str, ...] = ()
) -> Evidence:
    """The pass of a comparison where no champion runs; the caller has looked and found none."""
    return record(gate, metric, subject, n=0, verdict="pass", reason="no_baseline", details=details)


def comparator_of(metric: str) -> Comparator:
    """Whether more of the metric is better; an unknown one is complained of elsewhere."""
    known = METRICS.get(metric)
    return "at_most" if known is not None and known.better == "lower" else "at_least"


def _check_limit(limit: float) -> None:
    if not math.isfinite(limit):
        raise GateInputInvalid(f"the limit {limit} is no limit", remedy="give a finite number")


def size_of(metric: Metric, y: Any, min_n: int) -> tuple[int, bool, tuple[str, ...]]:
    """Number of rows, whether they suffice, and how they are made up."""
    labels = vector(y, "labels")
    if metric.labels == "number":
        return labels.size, labels.size >= max(min_n, 2), ()
    events = int(labels.sum())
    others = labels.size - events
    return (
        labels.size,
        min(events, others) >= max(min_n, 2),
        (f"{events:,} rows of class 1, {others:,} of class 0",),
    )
