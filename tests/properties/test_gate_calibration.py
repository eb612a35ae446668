"""Gate `calibration` by simulation: error rates at the limits, and what the correction of the ECE is worth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lockgate.gates.calibration import calibration, calibration_error, gap, recalibration
from lockgate.gates.evidence import Evidence

Floats = npt.NDArray[np.float64]


def drawn(
    rng: np.random.Generator, n: int, *, slope: float = 1.0, shift: float = 0.0
) -> tuple[Floats, Floats]:
    """Labels, and predictions whose recalibration has exactly that slope and intercept."""
    odds = rng.normal(-0.5, 1.2, n)
    truth = 1 / (1 + np.exp(-(slope * odds + shift)))
    return (rng.random(n) < truth).astype(np.float64), 1 / (1 + np.exp(-odds))


def by_name(found: tuple[Evidence, ...]) -> dict[str, str]:
    return {one.metric + one.slice.get("limit", ""): one.verdict for one in found}


def test_a_slope_at_its_limit_passes_one_time_in_twenty() -> None:
    rng = np.random.default_rng(21)
    passed = {"slopelower": 0, "slopeupper": 0}
    for name, slope in (("slopelower", 0.8), ("slopeupper", 1.25)):
        for _ in range(400):
            y, p = drawn(rng, 800, slope=slope)
            passed[name] += by_name(calibration(y, p, max_gap=1, slope=(0.8, 1.25)))[name] == "pass"
    # 0.05 and three standard errors of 400 trials
    assert all(count / 400 < 0.085 for count in passed.values()), passed


def test_a_gap_at_its_limit_passes_one_time_in_twenty() -> None:
    rng = np.random.default_rng(22)
    passed = 0
    for _ in range(600):
        p = rng.uniform(0.1, 0.7, 800)
        y = (rng.random(800) < p + 0.05).astype(np.float64)
        passed += by_name(calibration(y, p, max_gap=0.05, slope=(0, 100)))["gap"] == "pass"
    assert passed / 600 < 0.08


def test_what_is_calibrated_passes_with_a_few_thousand_rows() -> None:
    rng = np.random.default_rng(23)
    good = [
        set(by_name(calibration(*drawn(rng, 4_000), max_gap=0.03, slope=(0.8, 1.25))).values())
        for _ in range(100)
    ]
    assert sum(verdicts == {"pass"} for verdicts in good) >= 95


def test_the_correction_takes_four_tenths_off_the_error_of_the_truth_and_leaves_a_real_one() -> None:
    rng = np.random.default_rng(24)
    for n, too_large in ((300, 0.05), (3_000, 0.015)):
        found = [calibration_error(*drawn(rng, n)) for _ in range(150)]
        assert np.mean([one.counted for one in found]) > too_large
        assert np.mean([one.corrected for one in found]) < 0.65 * np.mean([one.counted for one in found])
    # And where there is one it stays: the truth is off by 0.1 everywhere.
    off = []
    for _ in range(100):
        p = rng.uniform(0.2, 0.7, 1_000)
        off.append(calibration_error((rng.random(1_000) < p + 0.1).astype(np.float64), p).corrected)
    assert 0.09 < np.mean(off) < 0.11


ROWS = st.lists(st.tuples(st.booleans(), st.integers(1, 19).map(lambda x: x / 20)), min_size=6, max_size=80)


@settings(max_examples=80, deadline=None)
@given(ROWS)
def test_the_recalibration_solves_its_equations(rows: list[tuple[bool, float]]) -> None:
    y, p = np.array([row[0] for row in rows], dtype=float), np.array([row[1] for row in rows])
    events, others = p[y == 1], p[y == 0]
    assume(events.size and others.size)
    assume(not (events.min() >= others.max() or others.min() >= events.max()))
    found = recalibration(y, p)
    odds = np.log(p / (1 - p))
    expected = 1 / (1 + np.exp(-(found.intercept + found.slope * odds)))
    assert abs((y - expected).sum()) < 1e-7
    assert abs(((y - expected) * odds).sum()) < 1e-7
    assert found.error > 0


@settings(max_examples=80, deadline=None)
@given(ROWS)
def test_the_calibration_error_is_bounded_and_never_less_than_the_gap_as_counted(
    rows: list[tuple[bool, float]],
) -> None:
    y, p = np.array([row[0] for row in rows], dtype=float), np.array([row[1] for row in rows])
    assume(0 < y.sum() < y.size)
    found = calibration_error(y, p)
    assert abs(gap(y, p)[0]) - 1e-12 <= found.counted <= 1
    assert 0 <= found.corrected <= found.counted + 1e-12
    assert sum(found.worst[:2]) <= 2 and found.worst[2] <= y.size
