"""The performance gates: verdicts, and every way of feeding them wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from lockgate.core.digests import canonical
from lockgate.gates.evidence import Evidence, Subject, explain
from lockgate.gates.performance import (
    METRICS,
    UnknownMetric,
    absolute,
    against_champion,
    auc,
    brier,
    difference,
    log_loss,
    measure,
    metric_of,
    no_baseline,
)

N = 4_000
RNG = np.random.default_rng(20131101)
Y = (RNG.random(N) < 0.3).astype(np.int64)
SCORE = RNG.normal(size=N) + 1.2 * Y
P = 1 / (1 + np.exp(0.9 - SCORE))
WORSE = 1 / (1 + np.exp(0.9 - SCORE - RNG.normal(size=N)))
PACKAGE = "sha256:" + "c" * 64


def test_metrics_agree_with_scikit_learn() -> None:
    assert auc(Y, P) == pytest.approx(roc_auc_score(Y, P), abs=1e-14)
    assert log_loss(Y, P) == pytest.approx(sklearn_log_loss(Y, P), abs=1e-12)
    assert brier(Y, P) == pytest.approx(brier_score_loss(Y, P), abs=1e-14)


def test_ties_count_half() -> None:
    assert auc([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]) == 0.5
    assert auc([0, 1], [0.2, 0.9]) == 1.0
    assert auc([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9]) == 0.875


def test_a_certain_and_wrong_prediction_costs_a_finite_amount() -> None:
    assert log_loss([0, 1], [1.0, 1.0]) == pytest.approx(sklearn_log_loss([0, 1], [1.0, 1.0]))


def test_absolute_passes_fails_and_hesitates() -> None:
    value, ci = measure("auc", Y, P)
    passed = absolute("auc", Y, P, ci.low - 0.01)
    assert (passed.verdict, passed.reason, passed.n) == ("pass", None, N)
    assert passed.ci == ci
    failed = absolute("auc", Y, P, ci.high + 0.01)
    assert (failed.verdict, failed.reason) == ("fail", "beyond_limit")
    assert absolute("auc", Y, P, value).verdict == "fail"
    hesitant = absolute("auc", Y, P, value, unsettled="warn")
    assert (hesitant.verdict, hesitant.reason) == ("warn", "inconclusive")


def test_for_a_loss_the_limit_is_a_ceiling() -> None:
    _, ci = measure("brier", Y, P)
    assert absolute("brier", Y, P, ci.high + 0.01).verdict == "pass"
    assert absolute("brier", Y, P, ci.low - 0.01).verdict == "fail"


@pytest.mark.parametrize("metric", ["auc", "log_loss", "brier"])
def test_a_worse_model_fails_a_better_one_passes(metric: str) -> None:
    worse = against_champion(metric, Y, WORSE, P, 0.001, champion="1.1.0")
    assert worse.verdict == "fail"
    assert worse.value is not None
    assert worse.baseline is not None
    assert worse.baseline.value is not None
    assert worse.delta == pytest.approx(worse.value - worse.baseline.value, abs=1e-11)
    assert against_champion(metric, Y, P, WORSE, 0.0, champion="1.1.0").verdict == "pass"


@pytest.mark.parametrize("metric", ["auc", "log_loss", "brier"])
def test_the_same_model_is_not_inferior_even_without_a_margin(metric: str) -> None:
    evidence = against_champion(metric, Y, P, P, 0.0, champion="1.1.0")
    assert (evidence.verdict, evidence.delta) == ("pass", 0.0)
    assert evidence.ci is not None
    assert (evidence.ci.low, evidence.ci.high) == (0.0, 0.0)


def test_few_rows_are_inconclusive_not_equal() -> None:
    few = slice(0, 300)
    evidence = against_champion("auc", Y[few], WORSE[few], P[few], 0.05, champion="1.1.0", unsettled="warn")
    assert (evidence.verdict, evidence.reason) == ("warn", "inconclusive")


def test_pairing_narrows_the_interval() -> None:
    nearly = P * 0.999 + 0.0005 * RNG.random(N)
    _, _, _, paired = difference("auc", Y, nearly, P)
    _, alone = measure("auc", Y, P)
    assert paired.high - paired.low < (alone.high - alone.low) / 10


def test_no_champion_is_a_pass_that_says_so() -> None:
    evidence = no_baseline("auc", subject=Subject(environment="prod"))
    assert (evidence.verdict, evidence.reason, evidence.environment) == ("pass", "no_baseline", "prod")


def test_all_pairs_in_order_is_not_certainty() -> None:
    y = np.array([0] * 40 + [1] * 35)
    value, ci = measure("auc", y, np.arange(75) / 75)
    assert (value, ci.high, ci.method) == (1.0, 1.0, "exact_pairs")
    assert ci.low == pytest.approx(0.05 ** (1 / 35))
    _, reverse = measure("auc", y, 1 - np.arange(75) / 75)
    assert (reverse.low, reverse.high) == (0.0, pytest.approx(1 - 0.05 ** (1 / 35)))


def test_a_constant_prediction_orders_nothing() -> None:
    value, ci = measure("auc", Y, np.full(N, 0.3))
    assert (value, ci.low, ci.high) == (0.5, 0.5, 0.5)
    assert absolute("auc", Y, np.full(N, 0.3), 0.6).verdict == "fail"


def test_a_rising_transform_keeps_the_bytes_of_the_auc_record() -> None:
    assert canonical(absolute("auc", Y, P, 0.7)) == canonical(absolute("auc", Y, P * 2 - 7, 0.7))


def test_the_order_of_the_rows_does_not_matter() -> None:
    shuffled = np.random.default_rng(5).permutation(N)
    for metric in ("auc", "log_loss", "brier"):
        one = against_champion(metric, Y, WORSE, P, 0.01, champion="1.1.0")
        two = against_champion(metric, Y[shuffled], WORSE[shuffled], P[shuffled], 0.01, champion="1.1.0")
        assert canonical(one) == canonical(two)


def test_lists_arrays_and_float32_are_the_same_rows() -> None:
    single = P.astype(np.float32)
    one = absolute("brier", Y, single, 0.3)
    assert canonical(one) == canonical(absolute("brier", Y.tolist(), single.astype(float).tolist(), 0.3))
    assert canonical(one) == canonical(absolute("brier", Y.astype(bool), single, 0.3))


def test_numbers_are_judged_by_their_errors() -> None:
    y = RNG.normal(size=500)
    p = y + RNG.normal(size=500) * 0.1
    assert absolute("mean_absolute_error", y, p, 0.2).verdict == "pass"
    assert against_champion("mean_squared_error", y, p, y, 0.001, champion="1.0.0").verdict == "fail"
    overflow = absolute("mean_squared_error", y, p * 1e300, 0.2)
    assert (overflow.verdict, overflow.reason) == ("error", "exception")


def test_unknown_metric() -> None:
    with pytest.raises(UnknownMetric) as raised:
        metric_of("log_los")
    assert "'log_loss'" in raised.value.remedy
    assert set(METRICS) >= {"auc", "log_loss", "brier"}


NAN = np.where(np.arange(N) == 17, np.nan, P)
BROKEN: dict[str, tuple[Any, Any]] = {
    "a NaN prediction": (Y, NAN),
    "all predictions NaN": (Y, np.full(N, np.nan)),
    "an infinite prediction": (Y, np.where(np.arange(N) == 3, np.inf, P)),
    "a NaN label": (np.where(np.arange(N) == 3, np.nan, Y), P),
    "a column of predictions": (Y, P[:, None]),
    "a row per class": (Y, np.stack([1 - P, P], axis=1)),
    "too few predictions": (Y, P[:-1]),
    "one prediction for all": (Y, P[:1]),
    "a single number": (Y, 0.5),
    "no rows": ([], []),
    "no predictions": (Y, []),
    "nothing": (None, None),
    "no predictions at all": (Y, None),
    "only class 0": (np.zeros(N), P),
    "only class 1": (np.ones(N), P),
    "labels 1 and 2": (Y + 1, P),
    "labels in words": (np.where(Y, "late", "in time"), P),
    "predictions in words": (Y, [str(p) for p in P]),
    "objects": (Y, np.array([object()] * N)),
    "ragged": (Y, [[0.1], [0.1, 0.2]]),
    "complex": (Y, P.astype(complex)),
    "instants": (Y, P.astype("datetime64[s]")),
    "a masked array": (Y, np.ma.masked_greater(P, 0.5)),
}


@pytest.mark.parametrize("metric", ["auc", "log_loss", "brier"])
@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_judged_never_passes(metric: str, case: str) -> None:
    y, p = BROKEN[case]
    limit = 0.0 if metric == "auc" else 100.0
    found = [
        absolute(metric, y, p, limit, unsettled="warn"),
        against_champion(metric, y, p, p, 100.0, champion="1.1.0", unsettled="warn"),
        against_champion(metric, y, p, P, 100.0, champion="1.1.0", unsettled="warn"),
    ]
    if y is Y:
        found.append(against_champion(metric, y, P, p, 100.0, champion="1.1.0", unsettled="warn"))
    for evidence in found:
        assert evidence.verdict == "error", explain(evidence)
        assert evidence.reason in ("exception", "insufficient_n")
        assert evidence.details
        assert evidence.threshold is not None
        assert evidence.digest


@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_scores_that_are_no_probabilities_are_an_error(metric: str) -> None:
    assert absolute(metric, Y, SCORE, 100.0).verdict == "error"
    assert absolute("auc", Y, SCORE, 0.5).verdict == "pass"


@pytest.mark.parametrize("verdict", ["warn", "fail"])
def test_too_few_rows_of_a_class_is_not_a_pass(verdict: Any) -> None:
    y = np.array([1] * 29 + [0] * 500)
    p = np.where(y == 1, 0.9, 0.1)
    evidence = absolute("auc", y, p, 0.5, unsettled=verdict)
    assert (evidence.verdict, evidence.reason) == (verdict, "insufficient_n")
    assert explain(evidence).endswith(": too few rows to judge: 29 rows of class 1, 500 of class 0")
    assert absolute("auc", y, p, 0.5, min_n=29).verdict == "pass"
    alone = absolute("auc", [0, 1], [0.1, 0.9], 0.0, min_n=0, unsettled=verdict)
    assert (alone.verdict, alone.reason) == (verdict, "insufficient_n")


def bad_settings() -> list[Evidence]:
    bad: Any = "pass"
    return [
        absolute("auc", Y, P, float("nan")),
        absolute("auc", Y, P, float("-inf")),
        absolute("auc", Y, P, 0.5, alpha=0.0),
        absolute("auc", Y, P, 0.5, alpha=0.7),
        absolute("auc", Y, P, 0.8, unsettled=bad),
        absolute("auc", Y, P, 0.5, min_n=10**6, unsettled=bad),
        absolute("accuracy", Y, P, 0.5),
        against_champion("auc", Y, P, WORSE, float("nan"), champion="1.1.0"),
        against_champion("auc", Y, P, WORSE, -0.01, champion="1.1.0"),
        against_champion("auc", Y, P, P, 0.01, champion="1.1.0", min_n=10**6, unsettled=bad),
    ]


def test_settings_that_make_no_sense_are_errors() -> None:
    for evidence in bad_settings():
        if evidence.verdict == "fail":
            assert evidence.reason == "beyond_limit"
        else:
            assert evidence.verdict == "error", explain(evidence)


def test_the_line_of_a_failed_floor() -> None:
    line = explain(absolute("auc", Y, WORSE, 0.9, subject=Subject(inputs={"package": PACKAGE})))
    assert line.startswith("fail  perf.absolute auc 0.7")
    assert line.endswith(f", limit 0.9000, n={N:,}")
