"""The latency gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lockgate.core.digests import canonical
from lockgate.gates.evidence import explain, kept
from lockgate.gates.latency import bound_ranks, latency, quantile_bounds

SOURCE = "loopback, 200 requests/s"
RNG = np.random.default_rng(7)
FAST = 400 + RNG.exponential(100, size=5_000)


def test_within_budget() -> None:
    median, tail = latency(FAST, 2_000, source=SOURCE, p50_budget_us=600)
    assert (median.metric, median.verdict) == ("p50_us", "pass")
    assert (tail.metric, tail.verdict, tail.n) == ("p99_us", "pass", 5_000)
    assert tail.value == kept(float(np.sort(FAST)[4_949]))
    assert tail.ci is not None
    assert tail.value is not None
    assert tail.ci.low <= tail.value <= tail.ci.high
    assert tail.slice == {"source": SOURCE}
    assert f"source: {SOURCE}" in tail.details


def test_beyond_budget_and_on_the_edge() -> None:
    (slow,) = latency(FAST * 10, 2_000, source=SOURCE)
    assert (slow.verdict, slow.reason) == ("fail", "beyond_limit")
    bounds = quantile_bounds(FAST, 0.99)
    (edge,) = latency(FAST, bounds.value, source=SOURCE, unsettled="warn")
    assert (edge.verdict, edge.reason) == ("warn", "inconclusive")
    assert bounds.high is not None
    (met,) = latency(np.round(FAST), np.ceil(bounds.high), source=SOURCE)
    assert met.verdict == "pass"


def test_298_samples_do_not_bound_a_p99_and_299_do() -> None:
    (few,) = latency(np.full(298, 5.0), 2_000, source=SOURCE, unsettled="warn")
    assert (few.verdict, few.reason, few.ci, few.value) == ("warn", "insufficient_n", None, 5.0)
    assert "299 samples" in few.details[1]
    (enough,) = latency(np.full(299, 5.0), 2_000, source=SOURCE)
    assert enough.verdict == "pass"


def test_compared_with_the_champion() -> None:
    champion = 400 + np.random.default_rng(8).exponential(100, size=5_000)
    same = latency(
        FAST, 2_000, source=SOURCE, champion_samples_us=champion, champion="1.1.0", slower_share=0.2
    )
    assert [item.metric for item in same] == ["p99_us", "p99_ratio"]
    ratio = same[1]
    assert (ratio.verdict, ratio.threshold) == ("pass", 1.2)
    assert ratio.value == pytest.approx(np.quantile(FAST, 0.99) / np.quantile(champion, 0.99), rel=0.02)
    slower = latency(FAST * 1.5, 2_000, source=SOURCE, champion_samples_us=champion, champion="1.1.0")[1]
    assert slower.verdict == "fail"
    assert "against 1.1.0, limit 1.1000" in explain(slower)
    few = latency(FAST, 2_000, source=SOURCE, champion_samples_us=champion[:100])[1]
    assert few.reason == "insufficient_n"


def test_the_same_samples_give_the_same_bytes_in_any_order() -> None:
    one = latency(FAST, 2_000, source=SOURCE, champion_samples_us=FAST * 1.01)
    two = latency(FAST[::-1], 2_000, source=SOURCE, champion_samples_us=(FAST * 1.01)[::-1])
    assert canonical(one) == canonical(two)


def test_the_line_names_the_source() -> None:
    (slow,) = latency(np.full(400, 3_000), 2_000, source="loopback")
    assert explain(slow) == ("fail  latency p99_us{source=loopback} 3,000 [3,000, 3,000], limit 2,000, n=400")


@pytest.mark.parametrize(
    "samples",
    [[], None, [np.nan] * 500, np.ones((500, 2)), [0.0] * 500, [-1.0] * 500, ["1"] * 500, 5, [np.inf] * 500],
)
def test_samples_that_were_never_measured_are_errors(samples: Any) -> None:
    for evidence in latency(samples, 2_000, source=SOURCE, p50_budget_us=10, champion_samples_us=FAST):
        assert evidence.verdict == "error", explain(evidence)
    ratio = latency(FAST, 2_000, source=SOURCE, champion_samples_us=[] if samples is None else samples)[1]
    assert ratio.verdict == "error"


def test_settings_that_make_no_sense_are_errors() -> None:
    bad: Any = "pass"
    for evidence in (
        *latency(FAST, 2_000, source=""),
        *latency(FAST, float("nan"), source=SOURCE),
        *latency(FAST, 0, source=SOURCE),
        *latency(FAST, 2_000, source=SOURCE, alpha=0.9),
        *latency(FAST[:10], 2_000, source=SOURCE, unsettled=bad),
        latency(FAST, 2_000, source=SOURCE, champion_samples_us=FAST, slower_share=-0.5)[1],
    ):
        assert evidence.verdict == "error", explain(evidence)


def test_bound_ranks_of_small_samples() -> None:
    # P(Bin(5, 1/2) <= 0) = 1/32 < 0.05 <= P(Bin(5, 1/2) <= 1) = 6/32
    assert bound_ranks(5, 0.5, 0.05) == (1, 5)
    assert bound_ranks(4, 0.5, 0.05) == (None, None)
