"""Gate `calibration`: gap, slope and calibration error, against scikit-learn and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lockgate.core.digests import canonical
from lockgate.gates.calibration import calibration, calibration_error, gap, recalibration
from lockgate.gates.evidence import Evidence, explain

RNG = np.random.default_rng(20131103)
N = 20_000
ODDS = RNG.normal(-1.5, 1.0, N)
TRUTH = 1 / (1 + np.exp(-ODDS))
Y = (RNG.random(N) < TRUTH).astype(np.int64)


def stretched(slope: float, shift: float = 0.0) -> Any:
    """Predictions whose recalibration has the slope 1 / `slope`."""
    return 1 / (1 + np.exp(-(ODDS * slope + shift)))


def judged(p: Any, y: Any = Y, **changes: Any) -> dict[str, Evidence]:
    given: dict[str, Any] = {"max_gap": 0.02, "slope": (0.8, 1.25), **changes}
    return {one.metric + one.slice.get("limit", ""): one for one in calibration(y, p, **given)}


def verdicts(found: dict[str, Evidence]) -> dict[str, str]:
    return {name: one.verdict for name, one in found.items()}


def test_the_slope_is_that_of_scikit_learn() -> None:
    for p in (TRUTH, stretched(1.6, 0.4), stretched(0.5)):
        odds = np.log(p / (1 - p))
        oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(odds[:, None], Y)
        found = recalibration(Y, p)
        assert found.slope == pytest.approx(float(oracle.coef_[0, 0]), rel=1e-5)
        assert found.intercept == pytest.approx(float(oracle.intercept_[0]), rel=1e-4, abs=1e-5)
        # The Fisher information, from the oracle's fit.
        fitted = oracle.predict_proba(odds[:, None])[:, 1]
        design = np.stack([np.ones(N), odds], axis=1)
        information = design.T @ (design * (fitted * (1 - fitted))[:, None])
        assert found.error == pytest.approx(float(np.sqrt(np.linalg.inv(information)[1, 1])), rel=1e-4)


def test_two_kinds_of_rows_have_a_slope_in_closed_form() -> None:
    # Of the rows with 0.2 a tenth happened, of those with 0.6 four tenths.
    p = np.repeat([0.2, 0.6], 1_000)
    y = np.concatenate([np.arange(1_000) < 100, np.arange(1_000) < 400]).astype(int)

    def logit(share: float) -> float:
        return float(np.log(share / (1 - share)))

    found = recalibration(y, p)
    assert found.slope == pytest.approx((logit(0.4) - logit(0.1)) / (logit(0.6) - logit(0.2)), rel=1e-9)
    assert gap(y, p)[0] == pytest.approx(0.4 - 0.25)


def test_the_truth_is_calibrated() -> None:
    found = judged(TRUTH)
    assert verdicts(found) == {"gap": "pass", "slopelower": "pass", "slopeupper": "pass"}
    assert found["slopelower"].value == pytest.approx(1.0, abs=0.05)
    assert found["gap"].details[0].startswith("predicted 0.2")
    assert found["gap"].details[1].startswith("expected calibration error 0.00")
    assert explain(found["slopeupper"]).startswith("pass  calibration slope{limit=upper} ")


@pytest.mark.parametrize(
    ("p", "failing"),
    [
        (stretched(1.0, 0.5), {"gap"}),
        (stretched(1.0, -0.5), {"gap"}),
        (stretched(0.5, -0.55), {"slopeupper"}),
        (stretched(2.0, 0.85), {"slopelower"}),
    ],
)
def test_each_way_of_being_off_has_its_record(p: Any, failing: set[str]) -> None:
    found = judged(p, max_gap=0.05)
    assert {name for name, verdict in verdicts(found).items() if verdict != "pass"} == failing
    assert all(found[name].reason == "beyond_limit" for name in failing)


def test_a_limit_inside_the_interval_settles_nothing() -> None:
    few = slice(0, 300)
    found = judged(TRUTH[few], Y[few], max_gap=0.01, unsettled="warn")
    assert (found["gap"].verdict, found["gap"].reason) == ("warn", "inconclusive")
    ci = found["gap"].ci
    assert ci is not None and ci.low <= 0.01 < ci.high
    assert judged(TRUTH[few], Y[few], max_gap=0.01)["gap"].verdict == "fail"


def test_too_few_rows_of_a_class_are_no_pass() -> None:
    y = np.where(np.cumsum(Y) <= 29, Y, 0)
    for one in judged(TRUTH, y, unsettled="warn").values():
        assert (one.verdict, one.reason) == ("warn", "insufficient_n")


def test_the_order_of_the_rows_does_not_matter() -> None:
    order = RNG.permutation(N)
    rounded = np.round(TRUTH, 2)
    for p in (TRUTH, rounded):
        one, two = (
            calibration(Y, p, max_gap=0.1, slope=(0.5, 2)),
            calibration(Y[order], p[order], max_gap=0.1, slope=(0.5, 2)),
        )
        assert [canonical(item) for item in one] == [canonical(item) for item in two]


def test_the_calibration_error_by_hand() -> None:
    p = np.repeat([0.1, 0.5, 0.9], 100)
    y = np.concatenate([np.arange(100) < 20, np.arange(100) < 50, np.arange(100) < 70]).astype(int)
    found = calibration_error(y, p, n_bins=3)
    assert found.counted == pytest.approx((0.1 + 0.0 + 0.2) / 3)
    assert 0 < found.corrected < found.counted
    assert found.worst == (pytest.approx(0.9), pytest.approx(0.7), 100)
    # Rows of equal predictions are not torn apart by the bins.
    assert calibration_error(y, p, n_bins=7).counted == pytest.approx(found.counted)


BROKEN: dict[str, tuple[Any, Any]] = {
    "a NaN": (Y, np.where(np.arange(N) == 3, np.nan, TRUTH)),
    "scores": (Y, ODDS),
    "one class": (np.zeros(N), TRUTH),
    "no rows": ([], []),
    "other lengths": (Y, TRUTH[:-1]),
    "labels in words": (np.where(Y, "late", "in time"), TRUTH),
    "nothing": (None, None),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_judged_never_passes(case: str) -> None:
    y, p = BROKEN[case]
    found = calibration(y, p, max_gap=1.0, slope=(0.0, 100.0))
    assert [one.verdict for one in found] == ["error"] * 3
    assert all(one.details and one.threshold is not None for one in found)


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (np.full(N, 0.25), "all predictions are alike"),
        (np.where(Y == 1, 0.8, 0.2), "divides the classes without an error"),
        (np.where(Y == 1, 0.2, 0.8), "divides the classes without an error"),
    ],
)
def test_predictions_without_a_slope_are_an_error_and_the_gap_still_speaks(p: Any, words: str) -> None:
    found = judged(p, max_gap=0.9)
    assert verdicts(found) == {"gap": "pass", "slopelower": "error", "slopeupper": "error"}
    assert words in found["slopelower"].details[0]


def test_certain_and_wrong_rows_do_not_break_the_arithmetic() -> None:
    p = TRUTH.copy()
    p[:50], p[50:100] = 0.0, 1.0
    assert 0.1 < recalibration(Y, p).slope < 1


@pytest.mark.parametrize("changes", [{"max_gap": -1.0}, {"max_gap": float("nan")}, {"slope": (1.25, 0.8)}])
def test_limits_that_make_no_sense_are_errors(changes: dict[str, Any]) -> None:
    assert "error" in verdicts(judged(TRUTH, **changes)).values()
