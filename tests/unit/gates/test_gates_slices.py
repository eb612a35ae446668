"""Gate `perf.slices`: which slices are worse, what is said of the small ones, and every way of feeding it wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lockgate.core.digests import canonical
from lockgate.gates.evidence import Evidence, Subject, explain, line_of, worst
from lockgate.gates.performance import difference
from lockgate.gates.slices import MAX_SLICES, by_slice, holm

RNG = np.random.default_rng(20131102)
SIZES = {"AA": 900, "DL": 1_200, "UA": 1_500, "HA": 40}
CARRIER = np.repeat(list(SIZES), list(SIZES.values()))
ORIGIN = np.tile(["EWR", "JFK"], CARRIER.size // 2)
N = CARRIER.size
Y = (RNG.random(N) < 0.4).astype(np.int64)
SCORE = RNG.normal(size=N) + 1.5 * Y
OLD = 1 / (1 + np.exp(0.8 - SCORE))
NEARLY = np.clip(OLD + RNG.normal(size=N) * 0.002, 0, 1)
CHAMPION = "sha256:" + "b" * 64
COLUMNS: dict[str, list[object]] = {"carrier": CARRIER.tolist(), "origin": ORIGIN.tolist()}


def worse_for(carrier: str, noise: float = 2.0) -> Any:
    """The champion's answers, spoiled for one carrier."""
    spoiled = 1 / (1 + np.exp(0.8 - SCORE - np.random.default_rng(7).normal(size=N) * noise))
    return np.where(carrier == CARRIER, spoiled, NEARLY)


def judged(p_new: Any, **changes: Any) -> tuple[Evidence, ...]:
    given: dict[str, Any] = {
        "metric": "auc",
        "y": Y,
        "p_old": OLD,
        "columns": COLUMNS,
        "min_effect": 0.02,
        "champion": "1.0.0",
        "champion_digest": CHAMPION,
        "subject": Subject(environment="prod"),
        **changes,
    }
    return by_slice(p_new=p_new, **given)


def named(found: tuple[Evidence, ...]) -> dict[str, Evidence]:
    return {line_of(one).slice: one for one in found}


def test_a_slice_that_is_worse_fails_and_comes_first() -> None:
    found = judged(worse_for("DL"))
    worst_slice = found[0]
    assert (worst_slice.slice, worst_slice.verdict) == ({"carrier": "DL"}, "fail")
    assert worst_slice.reason == "beyond_limit" and worst_slice.blocks
    rows = CARRIER == "DL"
    new, old, delta, ci = difference("auc", Y[rows], worse_for("DL")[rows], OLD[rows])
    assert worst_slice.n == 1_200 and worst_slice.baseline is not None
    assert worst_slice.baseline.value == pytest.approx(old) and worst_slice.value == pytest.approx(
        new, abs=0.1
    )
    assert delta < -0.02 and ci.high < 0
    assert worst_slice.baseline.digest == CHAMPION
    text = explain(worst_slice)
    assert text.startswith("fail  perf.slices auc{carrier=DL} -0.")
    assert "after Holm's correction for 5 slices" in text


def test_small_slices_are_warned_about_and_never_pass() -> None:
    found = named(judged(NEARLY))
    small = found["carrier=HA"]
    assert (small.verdict, small.reason, small.n) == ("warn", "insufficient_n", 40)
    assert "200 rows are needed, 30 of each class" in explain(small)
    # One that has the rows, and too few of one class.
    y = np.where((CARRIER == "AA") & (np.cumsum(CARRIER == "AA") > 20), 0, Y)
    lopsided = named(judged(NEARLY, y=y))["carrier=AA"]
    assert (lopsided.verdict, lopsided.reason, lopsided.n) == ("warn", "insufficient_n", 900)


def test_what_passes_is_one_record_with_a_line_for_each() -> None:
    *others, rest = judged(NEARLY)
    assert [one.slice for one in others] == [{"carrier": "HA"}]
    assert (rest.metric, rest.verdict, rest.n, rest.value) == ("n_worse", "pass", 5, 0.0)
    assert rest.slice == {"slices": "the rest"}
    assert sorted(line.split()[0] for line in rest.details) == [
        "carrier=AA", "carrier=DL", "carrier=UA", "origin=EWR", "origin=JFK"
    ]  # fmt: skip
    (alone,) = judged(NEARLY, columns={"origin": COLUMNS["origin"]})
    assert alone.slice == {"slices": "all"} and alone.n == 2


def test_a_drop_within_the_tolerance_is_no_failure_however_certain() -> None:
    slightly = 1 / (1 + np.exp(0.8 - SCORE - RNG.normal(size=N) * 0.4))
    found = judged(slightly, columns={"origin": COLUMNS["origin"]}, min_effect=0.2)
    assert worst(one.verdict for one in found) == "pass"
    assert worst(one.verdict for one in judged(slightly, min_effect=0.0)) == "fail"


def test_what_is_not_settled_is_a_warning_and_says_so() -> None:
    found = named(judged(worse_for("AA", noise=0.7), min_effect=0.02))
    assert (found["carrier=AA"].verdict, found["carrier=AA"].reason) == ("warn", "inconclusive")


def test_what_was_measured_comes_before_what_could_not_be() -> None:
    # Of two models that are alike none is shown to be no worse at all; by name the small slice would come amid.
    found = judged(NEARLY, min_effect=0.0)
    reasons = [one.reason for one in found if one.verdict == "warn"]
    assert reasons == ["inconclusive"] * (len(reasons) - 1) + ["insufficient_n"] and len(reasons) > 3


def test_one_slice_of_many_may_look_bad_by_chance() -> None:
    # Alone it would fail; among a hundred slices that are as good as before it may be chance.
    size, many = 250, 100
    y = np.tile([0, 1], size * many // 2)
    first = np.arange(y.size) < size
    odd, rng = np.random.default_rng(1), np.random.default_rng(4)
    old = y + np.where(first, np.resize(odd.normal(size=size), y.size), rng.normal(size=y.size))
    noise = np.resize(odd.normal(size=size), y.size) * 0.9
    new = old + np.where(first, noise, rng.normal(size=y.size) * 0.1)
    parts = [f"p{place:02d}" for place in np.repeat(np.arange(many), size)]
    columns: dict[str, list[object]] = {"part": list(parts)}
    found = named(judged(new, y=y, p_old=old, columns=columns, min_effect=0.01))["part=p00"]
    assert (found.verdict, found.reason) == ("warn", "one_of_many")
    only = {"y": y[first], "p_old": old[first], "columns": {"part": parts[:size]}}
    assert judged(new[first], min_effect=0.01, **only)[0].verdict == "fail"


def test_a_critical_slice_must_pass() -> None:
    good = named(judged(NEARLY, critical=["carrier=AA"]))
    assert good["carrier=AA"].verdict == "pass"
    assert good["carrier=AA"].details[0].startswith("critical: ")
    assert good["slices=the rest"].n == 4
    unsettled = named(judged(worse_for("AA", noise=0.7), critical=["carrier=AA"]))["carrier=AA"]
    assert (unsettled.verdict, unsettled.reason) == ("fail", "inconclusive") and unsettled.blocks
    small = judged(NEARLY, critical=["carrier=HA"])[0]
    assert (small.slice, small.verdict, small.reason) == ({"carrier": "HA"}, "fail", "insufficient_n")
    absent = judged(NEARLY, critical=["carrier=ZZ"])[0]
    assert (absent.verdict, absent.reason, absent.n) == ("fail", "insufficient_n", 0)


def test_critical_slices_have_an_alpha_of_their_own() -> None:
    found = named(judged(worse_for("DL"), critical=["carrier=DL"]))
    assert found["carrier=DL"].details[0].endswith("for 1 slice")
    assert found["carrier=DL"].verdict == "fail"


@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_for_a_loss_more_is_worse(metric: str) -> None:
    found = judged(worse_for("UA"), metric=metric, min_effect=0.01)
    assert found[0].slice == {"carrier": "UA"} and found[0].verdict == "fail"
    assert found[0].delta is not None and found[0].delta > 0 and found[0].threshold == 0.01


def test_numbers_need_no_classes() -> None:
    y = RNG.normal(size=N)
    found = judged(y + 0.3, y=y, p_old=y + 0.1, metric="mean_absolute_error", min_effect=0.05)
    # Without any spread in the difference there is no doubt about it either.
    assert {one.verdict for one in found} == {"fail", "warn"}
    assert named(found)["carrier=HA"].reason == "insufficient_n"


def test_nulls_and_truth_values_are_slices_too() -> None:
    columns: dict[str, list[object]] = {
        "tail": [None if row % 2 else "known" for row in range(N)],
        "holiday": [row % 3 == 0 for row in range(N)],
    }
    (rest,) = judged(NEARLY, columns=columns)
    assert {line.split()[0] for line in rest.details} == {
        "tail=(null)", "tail=known", "holiday=true", "holiday=false"
    }  # fmt: skip


def test_the_order_of_rows_and_columns_does_not_matter() -> None:
    spoiled = worse_for("DL")
    order = np.random.default_rng(6).permutation(N)
    shuffled = {name: np.array(COLUMNS[name])[order].tolist() for name in reversed(COLUMNS)}
    one = judged(spoiled)
    two = judged(spoiled[order], y=Y[order], p_old=OLD[order], columns=shuffled)
    assert [canonical(item) for item in one] == [canonical(item) for item in two]
    assert [canonical(item) for item in one] == [canonical(item) for item in judged(spoiled)]


BROKEN: dict[str, dict[str, Any]] = {
    "no columns": {"columns": {}},
    "a short column": {"columns": {"carrier": ["AA"]}},
    "a column of single things": {"columns": {"flight": [str(row) for row in range(N)]}},
    "no rows": {"y": [], "p_old": [], "columns": {"carrier": []}},
    "a NaN": {"p_old": np.where(np.arange(N) == 7, np.nan, OLD)},
    "fewer predictions": {"p_old": OLD[:-1]},
    "a negative tolerance": {"min_effect": -0.1},
    "a tolerance that is no number": {"min_effect": float("nan")},
    "single rows": {"min_n": 1},
    "no error rate": {"alpha": 0.0},
    "an unknown metric": {"metric": "aucc"},
    "labels 1 and 2": {"y": Y + 1},
    "a critical slice of no column": {"critical": ["carier=AA"]},
    "a critical slice without a value": {"critical": ["carrier"]},
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_judged_is_one_error(case: str) -> None:
    given = dict(BROKEN[case])
    p_new = [] if case == "no rows" else NEARLY
    (only,) = judged(p_new, **given)
    assert only.verdict == "error", explain(only)
    assert only.gate == "perf.slices" and only.details and only.environment == "prod"


def test_too_many_slices_are_named() -> None:
    (only,) = judged(NEARLY, **BROKEN["a column of single things"])
    assert f"column flight has {N:,} values, at most {MAX_SLICES}" in only.details[0]


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
