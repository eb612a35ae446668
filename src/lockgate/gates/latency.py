"""Does it answer in time? Quantiles of measured latencies, judged by bounds that assume no distribution.

The bounds of a quantile are order statistics: the number of samples below the true quantile is binomial,
whatever the distribution, ties included (H. David and H. Nagaraja, "Order Statistics" 3rd ed., ch. 7). So the
99th percentile has an upper bound only from 299 samples on (0.99 ** 299 < 0.05); with fewer the gate says
`insufficient_n`. The bounds take the samples as independent: spread the load over the run, or they are
narrower than the truth.

The ratio to the champion comes from both models' bounds by MOVER on the logarithms (G. Zou and A. Donner,
"Construction of confidence limits about effect measures", Statistics in Medicine 27 (2008)): no bootstrap,
so no seed. Oracles in tests/: the binomial summed term by term, and simulated coverage.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lockgate.core.digests import Digest
from lockgate.gates.evidence import (
    ANYTHING,
    Baseline,
    Evidence,
    GateInputInvalid,
    Interval,
    MissingInput,
    Subject,
    TooFewRows,
    Unsettled,
    guarded,
    interval,
    kept,
    record,
    settle,
)
from lockgate.gates.performance import Floats, vector

_GATE = "latency"


class QuantileBounds(NamedTuple):
    """A sample quantile (nearest rank) and its bounds, each missed with probability alpha; None: too few."""

    value: float
    low: float | None
    high: float | None


def bound_ranks(n: int, quantile: float, alpha: float) -> tuple[int | None, int | None]:
    """Ranks (1-based) of the order statistics that bound a quantile from below and above.

    Each side is missed with probability `alpha` at most. None where `n` samples cannot bound that side.
    """
    k = np.arange(n + 1, dtype=np.float64)
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(k[1:]))))
    terms = log_factorial[n] - log_factorial - log_factorial[::-1]
    at_most = np.cumsum(np.exp(terms + k * math.log(quantile) + (n - k) * math.log1p(-quantile)))
    low = int(np.searchsorted(at_most[:n], alpha, side="right"))
    high = int(np.searchsorted(at_most[:n], 1 - alpha, side="left")) + 1
    return low or None, high if high <= n else None


def quantile_bounds(samples: Any, quantile: float, *, alpha: float = 0.05) -> QuantileBounds:
    """The `quantile` of (n,) samples and its bounds; all three are samples that were measured.

    Raises:
        GateInputInvalid: not numbers, not finite, not above zero; alpha or quantile out of range.
        TooFewRows: no samples.
    """
    if not (0 < alpha < 0.5 and 0 < quantile < 1):
        raise GateInputInvalid(f"quantile {quantile} at alpha {alpha}", remedy="keep alpha inside (0, 0.5)")
    ordered = _samples(samples)
    low, high = bound_ranks(ordered.size, quantile, alpha)
    return QuantileBounds(
        float(ordered[max(math.ceil(quantile * ordered.size - 1e-9), 1) - 1]),
        None if low is None else float(ordered[low - 1]),
        None if high is None else float(ordered[high - 1]),
    )


def _samples(samples: Any) -> Floats:
    ordered = np.sort(vector(samples, "latencies"))
    if ordered.size == 0:
        raise TooFewRows("there are no latencies", remedy="measure some requests first")
    if ordered[0] <= 0:
        raise GateInputInvalid(
            f"a latency of {ordered[0]:g} us was never measured", remedy="give microseconds above zero"
        )
    return ordered


def latency(
    samples_us: Any,
    p99_budget_us: float,
    *,
    source: str,
    p50_budget_us: float | None = None,
    champion_samples_us: Any = None,
    champion: str = "champion",
    champion_digest: Digest | None = None,
    slower_share: float = 0.10,
    alpha: float = 0.05,
    unsettled: Unsettled = "fail",
    subject: Subject = ANYTHING,
) -> tuple[Evidence, ...]:
    """Gate `latency`: p50 and p99 within budget and, given the champion's samples, p99 not much slower.

    Args:
        samples_us: (n,) microseconds per request of the judged package.
        p99_budget_us: the upper bound of the 99th percentile must not exceed it.
        source: how the samples were taken, for example `loopback, 200 requests/s`; it becomes the slice
            `source`.
        p50_budget_us: the same for the median; None: not judged.
        champion_samples_us: (m,) of the champion, taken the same way at the same time; None: not compared.
        slower_share: 0.10 allows ten percent more than the champion's p99.
        alpha: one-sided error rate of a pass, and of a fail.
        unsettled: the verdict when the budget lies inside the bounds, or when there are too few samples.
    Returns:
        One record each for `p50_us` (when asked), `p99_us` and `p99_ratio` (when asked). Never raises.
    """
    subject = subject.of(source=source or "unnamed")
    budgets = [("p99_us", 0.99, p99_budget_us)]
    if p50_budget_us is not None:
        budgets.insert(0, ("p50_us", 0.50, p50_budget_us))
    found = [
        guarded(
            _GATE,
            metric,
            partial(_within, metric, quantile, samples_us, budget, source, alpha, unsettled, subject),
            subject=subject,
            comparator="at_most",
            threshold=budget,
        )
        for metric, quantile, budget in budgets
    ]
    if champion_samples_us is not None:
        baseline = Baseline(kind="champion", ref=champion, digest=champion_digest)
        found.append(
            guarded(
                _GATE,
                "p99_ratio",
                partial(
                    _ratio, samples_us, champion_samples_us, baseline, slower_share, alpha, unsettled, subject
                ),
                subject=subject,
                comparator="at_most",
                threshold=1 + slower_share,
                baseline=baseline,
            )
        )
    return tuple(found)


def _within(
    metric: str,
    quantile: float,
    samples: Any,
    budget: float,
    source: str,
    alpha: float,
    unsettled: Unsettled,
    subject: Subject,
) -> Evidence:
    if not source:
        raise MissingInput("nobody says how the latencies were measured", remedy="name the source")
    if not (math.isfinite(budget) and budget > 0):
        raise GateInputInvalid(f"a budget of {budget} us is no budget", remedy="give microseconds above zero")
    found = quantile_bounds(samples, quantile, alpha=alpha)
    ci = _interval(found, alpha)
    verdict, reason = settle(kept(found.value), ci, "at_most", budget, unsettled)
    details = [f"source: {source}"]
    if ci is None:
        verdict, reason = unsettled, "insufficient_n"
        details.append(f"{_needed(quantile, alpha):,} samples bound this quantile")
    return record(
        _GATE,
        metric,
        subject,
        n=len(samples),
        value=kept(found.value),
        comparator="at_most",
        threshold=budget,
        ci=ci,
        verdict=verdict,
        reason=reason,
        details=details,
    )


def _ratio(
    samples: Any,
    champion_samples: Any,
    baseline: Baseline,
    slower_share: float,
    alpha: float,
    unsettled: Unsettled,
    subject: Subject,
) -> Evidence:
    if not (math.isfinite(slower_share) and slower_share >= 0):
        raise GateInputInvalid(f"slower_share {slower_share} is no share", remedy="give 0 or more")
    new = quantile_bounds(samples, 0.99, alpha=alpha)
    old = quantile_bounds(champion_samples, 0.99, alpha=alpha)
    ratio, threshold = kept(new.value / old.value), 1 + slower_share
    ci = _ratio_interval(new, old, alpha)
    verdict, reason = settle(ratio, ci, "at_most", threshold, unsettled)
    details = [
        f"p99 {new.value:,.0f} us of {len(samples):,} requests, "
        f"{baseline.ref} {old.value:,.0f} us of {len(champion_samples):,}"
    ]
    if ci is None:
        verdict, reason = unsettled, "insufficient_n"
        details.append(f"{_needed(0.99, alpha):,} samples of each bound this quantile")
    return record(
        _GATE,
        "p99_ratio",
        subject,
        n=min(len(samples), len(champion_samples)),
        value=ratio,
        baseline=Baseline(
            kind=baseline.kind, ref=baseline.ref, digest=baseline.digest, value=kept(old.value)
        ),
        comparator="at_most",
        threshold=threshold,
        ci=ci,
        verdict=verdict,
        reason=reason,
        details=details,
    )


def _interval(found: QuantileBounds, alpha: float) -> Interval | None:
    if found.low is None or found.high is None:
        return None
    return interval(found.low, found.high, 1 - 2 * alpha, "order_statistics")


def _ratio_interval(new: QuantileBounds, old: QuantileBounds, alpha: float) -> Interval | None:
    if new.low is None or new.high is None or old.low is None or old.high is None:
        return None
    centre = math.log(new.value / old.value)
    down = math.hypot(math.log(new.value / new.low), math.log(old.high / old.value))
    up = math.hypot(math.log(new.high / new.value), math.log(old.value / old.low))
    return interval(math.exp(centre - down), math.exp(centre + up), 1 - 2 * alpha, "order_statistics_mover")


def _needed(quantile: float, alpha: float) -> int:
    """Fewest samples whose largest and smallest bound the quantile on both sides."""
    return math.ceil(math.log(alpha) / math.log(max(quantile, 1 - quantile)))
