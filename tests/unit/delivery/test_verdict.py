"""Verdicts on counts that are given, one question at a time. tests/properties/test_verdict_statistics.py simulates."""

from __future__ import annotations

import math

import msgspec
import pytest

from lockgate.delivery.rollouts.policy import Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.rollouts.verdict import (
    BadLook,
    GuardVerdict,
    Look,
    Segment,
    Tally,
    Verdict,
    judge,
    log_e_value,
    rate_bounds,
    ratio_bounds,
)

STEPS = (
    RolloutStep(stage="shadow", weight=0, min_units=100, bake_s=0),
    RolloutStep(stage="canary", weight=1_000, min_units=500, bake_s=0),
    RolloutStep(stage="canary", weight=5_000, min_units=500, bake_s=0),
    RolloutStep(stage="soak", weight=10_000, min_units=200, bake_s=0),
)
SHADOW, FIRST, SECOND, SOAK = range(4)


def policy(alpha: float = 0.05, **guards: Guard) -> RolloutPolicy:
    return RolloutPolicy(steps=STEPS, guards=guards, alpha=alpha)  # type: ignore[arg-type]


def tally(bad_canary: int, n_canary: int, bad_control: int, n_control: int) -> Tally:
    return Tally(bad_canary=bad_canary, n_canary=n_canary, bad_control=bad_control, n_control=n_control)


def segment(step: int, n_canary: int, n_control: int, again: int = 0, **guards: Tally) -> Segment:
    chosen = STEPS[step]
    return Segment(
        step=step,
        stage=chosen.stage,
        weight=chosen.weight,
        n_canary=n_canary,
        n_control=n_control,
        again_canary=again,
        guards=guards,  # type: ignore[arg-type]
    )


def errors(step: int, bad_canary: int, n_canary: int, bad_control: int, n_control: int) -> Segment:
    counted = tally(bad_canary, n_canary, bad_control, n_control)
    return segment(step, n_canary, n_control, errors=counted)


def look(*segments: Segment) -> Look:
    return Look(segments=segments, since=1, until=2, n_dropped=0)


def only(verdict: Verdict) -> GuardVerdict:
    (guard,) = verdict.guards
    return guard


def test_nobody_met_is_no_data_and_never_a_pass():
    verdict = judge(look(), policy(errors=Guard()), FIRST)
    assert (verdict.outcome, verdict.n_canary) == ("no_data", 0)
    assert "500" in verdict.reason
    behind = judge(look(errors(FIRST, 0, 50_000, 0, 450_000)), policy(errors=Guard()), SECOND)
    assert behind.outcome == "no_data"


def test_too_few_units_continue():
    verdict = judge(look(errors(FIRST, 0, 499, 0, 4_491)), policy(errors=Guard(margin=None)), FIRST)
    assert verdict.outcome == "continue"
    assert verdict.reason == "499 of 500 units of the new version seen in this step"


def test_without_guards_the_units_decide():
    assert judge(look(segment(FIRST, 500, 4_500)), policy(), FIRST).outcome == "pass"


def test_units_that_were_met_before_have_been_seen_but_prove_nothing():
    seen = segment(SECOND, 0, 0, again=800)
    assert judge(look(seen), policy(errors=Guard(margin=None)), SECOND).outcome == "pass"
    asked = judge(look(seen), policy(errors=Guard()), SECOND)
    assert (asked.outcome, asked.n_canary) == ("continue", 800)


def test_harm_that_is_proven_fails_and_says_so_with_figures():
    verdict = judge(look(errors(FIRST, 60, 2_000, 180, 18_000)), policy(errors=Guard()), FIRST)
    assert verdict.outcome == "fail"
    guard = only(verdict)
    assert guard.e_value_log10 >= math.log10(1 / 0.04)
    assert guard.ratio == pytest.approx(60 / 180 * 9)
    assert guard.low is not None and guard.high is not None and 1 < guard.low < guard.ratio < guard.high
    assert (guard.n_events, guard.rate_canary, guard.rate_control) == (240, 0.03, 0.01)
    assert "60 of 2,000 (3 %)" in verdict.reason and "180 of 18,000 (1 %)" in verdict.reason
    assert (
        verdict.digest == judge(look(errors(FIRST, 60, 2_000, 180, 18_000)), policy(errors=Guard()), 1).digest
    )


def test_a_better_version_never_fails_however_strong_the_evidence():
    verdict = judge(look(errors(FIRST, 10, 20_000, 1_800, 180_000)), policy(errors=Guard()), FIRST)
    guard = only(verdict)
    assert guard.e_value_log10 > 20 and guard.high is not None and guard.high < 1
    assert (verdict.outcome, guard.outcome) == ("pass", "pass")


def test_harm_below_the_floor_is_not_worth_an_abort():
    seen = look(errors(FIRST, 108_000, 1_000_000, 900_000, 9_000_000))
    assert only(judge(seen, policy(errors=Guard(floor=0.05)), FIRST)).outcome == "fail"
    spared = only(judge(seen, policy(errors=Guard(floor=0.1)), FIRST))
    assert spared.ratio == pytest.approx(1.08) and spared.low is not None and spared.low > 1
    assert spared.outcome == "continue" or spared.outcome == "pass"


def test_a_handful_of_events_never_aborts():
    seen = look(errors(FIRST, 10, 1_000, 0, 9_000))
    assert judge(seen, policy(errors=Guard(min_events=10)), FIRST).outcome == "fail"
    assert judge(seen, policy(errors=Guard(min_events=11)), FIRST).outcome != "fail"


def test_where_the_version_before_has_no_bad_event_the_difference_decides():
    seen = look(errors(FIRST, 25, 100_000, 0, 900_000))
    assert only(judge(seen, policy(errors=Guard(absolute=0.0001)), FIRST)).ratio is None
    assert judge(seen, policy(errors=Guard(absolute=0.0001)), FIRST).outcome == "fail"
    assert judge(seen, policy(errors=Guard(absolute=0.001)), FIRST).outcome == "pass"


def test_alpha_is_divided_among_the_guards():
    harmed = tally(30, 2_000, 130, 18_000)
    fine = tally(20, 2_000, 180, 18_000)
    alone = policy(errors=Guard())
    shared = policy(errors=Guard(), latency=Guard(bound=1), labels=Guard(bound=1))
    seen = look(segment(FIRST, 2_000, 18_000, errors=harmed, latency=fine, labels=fine))
    level = 10 ** only(judge(seen, alone, FIRST)).e_value_log10
    assert 1 / 0.05 < level < 3 / 0.05
    assert [guard.outcome for guard in judge(seen, alone, FIRST).guards] == [
        "fail" if level >= 1 / 0.04 else "continue"
    ]
    assert [guard.outcome for guard in judge(seen, shared, FIRST).guards] == ["continue"] * 3


def test_evidence_of_segments_multiplies():
    parts = (errors(FIRST, 30, 2_000, 180, 18_000), errors(SECOND, 130, 9_000, 90, 9_000))
    verdict = judge(look(*parts), policy(errors=Guard()), SECOND)
    expected = log_e_value(30, 210, 0.1) + log_e_value(130, 220, 0.5)
    assert only(verdict).e_value_log10 == pytest.approx(expected / math.log(10))
    assert verdict.n_canary == 9_000
    # The past does not change when a later step is asked about, nor does the future count.
    assert judge(look(*parts), policy(errors=Guard()), FIRST) == judge(
        look(parts[0]), policy(errors=Guard()), FIRST
    )


def test_rates_that_drift_while_weights_grow_do_not_look_like_harm():
    """1 % bad at 10 %, then 10 % bad at 50 %: pooled, the new version has 8.4 % and the one before 5.5 %."""
    drifting = (errors(FIRST, 20, 2_000, 180, 18_000), errors(SECOND, 900, 9_000, 900, 9_000))
    guard = only(judge(look(*drifting), policy(errors=Guard()), SECOND))
    assert guard.rate_canary == pytest.approx(920 / 11_000) and guard.rate_control == pytest.approx(
        1_080 / 27_000
    )
    assert guard.ratio == pytest.approx(1.0, abs=1e-5)
    assert guard.outcome != "fail"


def test_a_margin_is_passed_only_with_proof():
    asked, trusting = policy(errors=Guard(absolute=0)), policy(errors=Guard(margin=None))
    few, many = errors(FIRST, 20, 2_000, 180, 18_000), errors(FIRST, 1_000, 100_000, 9_000, 900_000)
    assert judge(look(few), asked, FIRST).outcome == "continue"
    assert judge(look(few), trusting, FIRST).outcome == "pass"
    assert judge(look(many), asked, FIRST).outcome == "pass"


def test_bad_events_that_are_too_rare_for_a_ratio_pass_by_the_difference():
    guard = Guard(absolute=0.001)
    assert judge(look(errors(FIRST, 0, 2_000, 0, 18_000)), policy(errors=guard), FIRST).outcome == "continue"
    assert judge(look(errors(FIRST, 0, 12_000, 1, 108_000)), policy(errors=guard), FIRST).outcome == "pass"
    # A rate that may be twice the one before may not pass because its upper bound is the only thing looked at.
    assert judge(look(errors(FIRST, 4, 4_000, 18, 36_000)), policy(errors=guard), FIRST).outcome == "continue"


@pytest.mark.parametrize("n", [2_000, 100_000])
def test_the_difference_is_bounded_by_the_rate_and_the_ratio_together(n: int):
    seen = look(errors(FIRST, n // 50, n, n * 9 // 50, n * 9))
    alpha = 0.05 * 0.8 / 2
    _, rate = rate_bounds(n // 50, n, alpha)
    _, ratio = ratio_bounds([(n // 50, n // 5, 0.1)], alpha)
    assert ratio is not None
    most = rate * (1 - 1 / ratio)
    for absolute, outcome in ((most * 1.01, "pass"), (most * 0.99, "continue")):
        asked = policy(errors=Guard(margin=0.001, absolute=absolute))
        assert judge(seen, asked, FIRST).outcome == outcome


def test_a_guard_without_labels_yet_waits():
    seen = segment(FIRST, 2_000, 18_000, labels=Tally())
    asked = judge(look(seen), policy(labels=Guard(bound=0.5)), FIRST)
    assert asked.outcome == "continue" and "labels (not seen)" in asked.reason
    assert judge(look(seen), policy(labels=Guard(bound=0.5, margin=None)), FIRST).outcome == "pass"
    # The same when a segment does not know the guard at all.
    assert (
        judge(look(segment(FIRST, 2_000, 18_000)), policy(labels=Guard(bound=0.5)), FIRST).outcome
        == "continue"
    )


def test_a_routing_that_is_not_the_plans_voids_everything_else():
    crooked = errors(FIRST, 600, 4_000, 60, 6_000)
    verdict = judge(look(crooked), policy(errors=Guard()), FIRST)
    assert verdict.outcome == "void"
    assert "4,000 of 10,000 units" in verdict.reason and "1,000 were to be expected" in verdict.reason
    assert only(verdict).outcome == "fail"
    # It stays void in the steps after it, and one sound step does not drown it.
    after = judge(look(crooked, errors(SECOND, 0, 50_000, 0, 50_000)), policy(errors=Guard()), SECOND)
    assert after.outcome == "void"
    too_few = judge(look(errors(FIRST, 0, 700, 0, 9_300)), policy(errors=Guard()), FIRST)
    assert too_few.outcome == "void"


def test_a_shadow_is_judged_by_its_errors_alone():
    guards = policy(errors=Guard(), labels=Guard(bound=0.5), latency=Guard(bound=1))
    fine = judge(look(errors(SHADOW, 1, 100, 0, 100)), guards, SHADOW)
    assert (fine.outcome, [guard.guard for guard in fine.guards]) == ("pass", ["errors"])
    assert judge(look(errors(SHADOW, 0, 99, 0, 99)), guards, SHADOW).outcome == "continue"
    assert judge(look(), guards, SHADOW).outcome == "no_data"
    harmed = judge(look(errors(SHADOW, 40, 1_000, 5, 1_000)), guards, SHADOW)
    assert harmed.outcome == "fail" and "only the new version failed in 40" in harmed.reason
    assert judge(look(errors(SHADOW, 5, 1_000, 40, 1_000)), guards, SHADOW).outcome == "pass"
    further = segment(SHADOW, 10, 10, again=90, errors=Tally(n_canary=10, n_control=10))
    assert judge(look(further), guards, SHADOW).outcome == "pass"


def test_what_a_shadow_proved_counts_on_in_the_canary_as_evidence_but_not_as_proof_of_a_margin():
    shadowed, routed = errors(SHADOW, 0, 500, 60, 500), errors(FIRST, 22, 2_000, 178, 18_000)
    verdict = judge(look(shadowed, routed), policy(errors=Guard()), FIRST)
    expected = log_e_value(0, 60, 0.5) + log_e_value(22, 200, 0.1)
    assert only(verdict).e_value_log10 == pytest.approx(expected / math.log(10))
    # Strong evidence for the new version never turns into an abort by a little noise to the other side.
    assert only(verdict).ratio == pytest.approx(22 / 178 * 9) and only(verdict).ratio > 1.1  # type: ignore[operator]
    assert verdict.outcome == "continue"
    alone = judge(look(routed), policy(errors=Guard()), FIRST)
    assert (only(verdict).low, only(verdict).high) == (only(alone).low, only(alone).high)


def test_a_soak_passes_on_units_unless_it_is_worse_than_what_was_before_it():
    guards = policy(errors=Guard(), latency=Guard(bound=1), labels=Guard(bound=0.5))
    before = tally(90, 9_000, 90, 9_000)
    canary = segment(SECOND, 9_000, 9_000, errors=before, latency=before, labels=Tally())
    fine = Tally(n_canary=5_000, bad_canary=52)
    verdict = judge(look(canary, segment(SOAK, 5_000, 0, errors=fine, latency=fine)), guards, SOAK)
    assert verdict.outcome == "pass"
    assert [guard.outcome for guard in verdict.guards] == ["pass"] * 3
    assert verdict.guards[0].rate_canary == pytest.approx(0.0104)
    assert judge(look(canary, segment(SOAK, 199, 0)), guards, SOAK).outcome == "continue"
    assert judge(look(canary), guards, SOAK).outcome == "no_data"
    worse = Tally(n_canary=5_000, bad_canary=150)
    failed = judge(look(canary, segment(SOAK, 5_000, 0, errors=fine, latency=worse)), guards, SOAK)
    assert [guard.outcome for guard in failed.guards] == ["pass", "fail", "pass"]
    assert failed.outcome == "fail" and "150 of 5,000 (3 %) bad in soak" in failed.reason


def test_a_soak_blames_nobody_for_a_control_that_was_hardly_seen():
    """None of 200 bad is no proof that the rate before was below 1 %."""
    canary, soak = errors(SECOND, 0, 200, 0, 200), errors(SOAK, 50, 5_000, 0, 0)
    assert judge(look(canary, soak), policy(errors=Guard()), SOAK).outcome == "pass"
    assert judge(look(soak), policy(errors=Guard()), SOAK).outcome == "pass"


def test_labels_that_come_during_a_soak_still_count_for_the_canary():
    harmed = segment(SECOND, 9_000, 9_000, labels=tally(300, 3_000, 150, 3_000))
    verdict = judge(look(harmed, segment(SOAK, 1_000, 0)), policy(labels=Guard(bound=0.5)), SOAK)
    assert verdict.outcome == "fail" and verdict.reason.startswith("harm by labels")


def test_segments_that_contradict_one_another_narrow_nothing():
    """Ten times as bad under one weight, ten times better under the next: no ratio explains both."""
    worse, better = (500, 950, 0.1), (90, 1_000, 0.5)
    apart = [ratio_bounds([cell], 0.05) for cell in (worse, better)]
    low, high = ratio_bounds([worse, better], 0.05)
    assert (low, high) == (apart[1][0], apart[0][1])
    assert ratio_bounds([worse, better, (50, 50, 0.1)], 0.05) == (low, None)


def test_a_weight_of_nothing_or_everything_compares_nothing():
    for share in (0.0, 1.0):
        assert log_e_value(3, 40, share) == 0.0
        assert ratio_bounds([(3, 40, share)], 0.05) == (0.0, None)


def test_bounds_at_their_ends():
    assert rate_bounds(0, 0, 0.05) == (0.0, 1.0)
    low, high = rate_bounds(0, 1_000, 0.05)
    assert low == 0.0 and 0.003 < high < 0.01
    low, high = rate_bounds(1_000, 1_000, 0.05)
    assert 0.99 < low < 1.0 and high == 1.0
    low, up = ratio_bounds([(0, 50, 0.1)], 0.05)
    assert low == 0.0 and up is not None and 0.5 < up < 2
    low, up = ratio_bounds([(50, 50, 0.1)], 0.05)
    assert low > 5 and up is None
    assert ratio_bounds([], 0.05) == (0.0, None)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.9999])
@pytest.mark.parametrize(("hits", "events"), [(1, 2), (30, 60), (10**6, 2 * 10**6), (10, 10**4)])
def test_bounds_are_where_the_e_value_says(hits: int, events: int, share: float):
    """At its ends the interval is tested at exactly alpha; the Newton iteration may not stop short of it."""
    odds = share / (1 - share)
    low, high = ratio_bounds([(hits, events, share)], 0.05)
    for end in (low, high):
        assert end is not None
        theta = odds * end / (1 + odds * end)
        at_end = log_e_value(hits, events, share)
        at_end += hits * math.log(share) + (events - hits) * math.log1p(-share)
        at_end -= hits * math.log(theta) + (events - hits) * math.log1p(-theta)
        assert at_end == pytest.approx(math.log(20), abs=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        errors(FIRST, 3, 2, 0, 0),
        errors(FIRST, -1, 2, 0, 0),
        errors(FIRST, 0, 2, 5, 4),
        segment(FIRST, -1, 0),
        segment(FIRST, 10**17, 0),
        segment(FIRST, 1, 1, again=-1),
        msgspec.structs.replace(segment(FIRST, 1, 1), weight=10_001),
        msgspec.structs.replace(segment(FIRST, 1, 1), stage="soak"),
        msgspec.structs.replace(segment(FIRST, 1, 1), step=4),
        msgspec.structs.replace(segment(FIRST, 1, 1), step=-1),
    ],
)
def test_counts_that_cannot_be_are_refused(wrong: Segment):
    with pytest.raises(BadLook):
        judge(look(wrong), policy(errors=Guard()), FIRST)


def test_a_step_that_does_not_exist_is_refused():
    for step in (-1, 4):
        with pytest.raises(BadLook):
            judge(look(), policy(), step)


def test_a_look_and_a_verdict_survive_the_wire():
    seen = look(errors(FIRST, 25, 1_000, 0, 9_000))
    verdict = judge(seen, policy(errors=Guard()), FIRST)
    assert msgspec.json.decode(msgspec.json.encode(seen), type=Look) == seen
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
    # Enormous evidence stays a number.
    enormous = judge(look(errors(FIRST, 100_000, 100_000, 0, 900_000)), policy(errors=Guard()), FIRST)
    assert only(enormous).e_value_log10 == 300.0
    assert msgspec.json.decode(msgspec.json.encode(enormous), type=Verdict) == enormous


def test_a_version_that_breaks_after_its_callers_have_voted_is_taken_back_at_the_first_look():
    """Units vote once; the requests of the latest minutes count all."""
    calm = errors(FIRST, 0, 400, 0, 3_600)
    late = msgspec.structs.replace(
        calm, asked_canary=100, failed_canary=60, asked_control=900, failed_control=2
    )
    verdict = judge(look(late), policy(errors=Guard()), FIRST)
    assert (verdict.outcome, "60 of the last 100 requests" in verdict.reason) == ("fail", True)
    everywhere = msgspec.structs.replace(late, failed_control=600)
    few = msgspec.structs.replace(late, asked_canary=30, failed_canary=19)
    for harmless in (everywhere, few, calm):
        assert judge(look(harmless), policy(errors=Guard()), FIRST).outcome != "fail"
    assert judge(look(late), policy(latency=Guard(bound=1.0)), FIRST).outcome != "fail"
