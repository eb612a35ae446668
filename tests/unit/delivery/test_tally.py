"""Which lines vote, for whom, and that the order in which they are read is of no concern."""

from __future__ import annotations

from typing import Any

import pytest

from lockgate.core.digests import sha256
from lockgate.delivery.rollouts import tally
from lockgate.delivery.rollouts.policy import Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.rollouts.tally import Counter
from lockgate.delivery.rollouts.verdict import Segment, Tally
from lockgate.traffic.capture import Answered, Asked, Dropped, Labelled, Line, Shadowed

NEW, OLD, OTHER = (sha256(name) for name in (b"new", b"old", b"other"))
POLICY = RolloutPolicy(
    steps=(
        RolloutStep(stage="shadow", weight=0, min_units=1, bake_s=0),
        RolloutStep(stage="canary", weight=1_000, min_units=1, bake_s=0),
        RolloutStep(stage="canary", weight=5_000, min_units=1, bake_s=0),
        RolloutStep(stage="soak", weight=10_000, min_units=1, bake_s=0),
    ),
    guards={"errors": Guard(), "latency": Guard(bound=1_000), "labels": Guard(bound=0.5)},
)
SHADOW, FIRST, SECOND, SOAK = 11, 12, 13, 15
STEPS = {SHADOW: 0, FIRST: 1, SECOND: 2, 14: 2, SOAK: 3}
WEIGHTS = {SHADOW: 0, FIRST: 1_000, SECOND: 5_000, 14: 5_000, SOAK: 10_000}


def counter(policy: RolloutPolicy = POLICY) -> Counter:
    return Counter(policy, package=NEW, control=OLD, steps=STEPS)


def answer(at: int, unit: str, package: str = NEW, generation: int = FIRST, **other: Any) -> tuple[int, Line]:
    weight = WEIGHTS[generation] if package == NEW else 10_000 - WEIGHTS[generation]
    given: dict[str, Any] = {
        "at": at,
        "request_id": f"r{at}",
        "unit": unit,
        "package": package,
        "weight": weight,
        "outcome": "ok",
        "latency_us": 10,
        "predictions": (0.25,),
        "as_of": at,
    }
    return generation, Answered(**(given | other))


def shadowed(at: int, request: int, outcome: Any = "ok", package: str = NEW) -> tuple[int, Line]:
    return SHADOW, Shadowed(at=at, request_id=f"r{request}", package=package, outcome=outcome, predictions=())


def label(at: int, request: int, value: float, row: int = 0, generation: int = SOAK) -> tuple[int, Line]:
    return generation, Labelled(at=at, request_id=f"r{request}", row=row, label=value)


def counted(*lines: tuple[int, Line], policy: RolloutPolicy = POLICY) -> dict[tuple[int, int], Segment]:
    """The segments by (step, weight); the lines are counted in order and in reverse, which must agree."""
    looks = []
    for order in (lines, lines[::-1]):
        counting = counter(policy)
        for generation, line in order:
            counting.add(generation, line)
        looks.append(counting.look())
    assert looks[0] == looks[1]
    return {(segment.step, segment.weight): segment for segment in looks[0].segments}


def test_nothing_read_is_nothing_seen():
    look = counter().look()
    assert (look.segments, look.since, look.until, look.n_dropped) == ((), 0, 0, 0)


def test_a_unit_votes_once_however_many_requests_it_sends():
    (segment,) = counted(
        answer(1, "a"),
        answer(2, "a", outcome="model_error"),
        answer(3, "b", OLD, outcome="timeout"),
        answer(4, "b", OLD),
        answer(5, "b", OLD, outcome="model_error"),
    ).values()
    assert (segment.n_canary, segment.n_control, segment.again_canary, segment.again_control) == (1, 1, 0, 0)
    assert segment.guards["errors"] == Tally(n_canary=1, n_control=1, bad_canary=0, bad_control=1)
    assert segment.guards["latency"] == Tally(n_canary=1, n_control=0, bad_canary=0, bad_control=0)


def test_a_request_without_key_is_its_own_unit():
    (segment,) = counted(answer(1, ""), answer(2, "", outcome="model_error"), answer(3, "", OLD)).values()
    assert (segment.n_canary, segment.n_control) == (2, 1)
    assert segment.guards["errors"] == Tally(n_canary=2, n_control=1, bad_canary=1, bad_control=0)


@pytest.mark.parametrize("outcome", ["contract_error", "model_error", "upstream_degraded", "timeout"])
def test_what_is_held_against_a_version_is_bad(outcome: str):
    (segment,) = counted(answer(1, "a", outcome=outcome)).values()
    assert segment.guards["errors"].bad_canary == 1


@pytest.mark.parametrize("outcome", ["client_error", "shed"])
def test_a_request_that_reached_no_version_is_no_vote_and_uses_none_up(outcome: str):
    assert counted(answer(1, "a", outcome=outcome)) == {}
    (segment,) = counted(answer(1, "a", outcome=outcome), answer(2, "a", outcome="model_error")).values()
    assert (segment.n_canary, segment.guards["errors"].bad_canary) == (1, 1)


def test_slow_is_above_the_bound_and_only_of_what_was_answered():
    (segment,) = counted(
        answer(1, "a", latency_us=1_000),
        answer(2, "b", latency_us=1_001),
        answer(3, "c", latency_us=9_999, outcome="timeout"),
        # The first request of a unit decides, also that there is nothing to decide.
        answer(4, "c", latency_us=9_999),
    ).values()
    assert segment.guards["latency"] == Tally(n_canary=2, bad_canary=1)


def test_lines_of_other_packages_and_generations_are_ignored():
    assert counted(answer(1, "a", OTHER), (99, answer(2, "b")[1]), (99, Dropped(at=1, n_lines=5))) == {}
    assert counted((FIRST, Asked(at=1, request_id="r1", rows=({"x": 1},)))) == {}


def test_a_unit_that_voted_in_an_earlier_step_is_met_again_but_does_not_vote_again():
    segments = counted(
        answer(1, "stays"),
        answer(2, "moves", OLD),
        answer(3, "old", OLD),
        answer(4, "stays", generation=SECOND, outcome="model_error"),
        answer(5, "moves", generation=SECOND, outcome="model_error"),
        answer(6, "old", OLD, generation=SECOND),
        answer(7, "fresh", generation=SECOND),
        answer(8, "stays", generation=SECOND),
        answer(9, "fresh", generation=14, outcome="model_error"),
    )
    first, second = segments[1, 1_000], segments[2, 5_000]
    assert (first.n_canary, first.n_control) == (1, 2)
    assert (second.n_canary, second.n_control, second.again_canary, second.again_control) == (1, 0, 2, 1)
    assert second.guards["errors"] == Tally(n_canary=1)


def test_shadow_canary_and_soak_ask_a_unit_once_each():
    segments = counted(
        answer(1, "a", OLD, SHADOW),
        shadowed(2, 1, "model_error"),
        answer(3, "a", outcome="model_error"),
        answer(4, "a", generation=SECOND),
        answer(5, "a", generation=SOAK, outcome="model_error"),
        answer(6, "a", generation=SOAK),
    )
    bad = {at: segment.guards["errors"].bad_canary for at, segment in segments.items()}
    assert bad == {(0, 0): 1, (1, 1_000): 1, (2, 5_000): 0, (3, 10_000): 1}
    assert [segment.n_canary for segment in segments.values()] == [1, 1, 0, 1]
    assert segments[2, 5_000].again_canary == 1
    assert set(segments[3, 10_000].guards) == {"errors", "latency"}
    assert [segment.stage for segment in segments.values()] == ["shadow", "canary", "canary", "soak"]


def test_a_weight_that_was_observed_opens_its_own_segment():
    segments = counted(answer(1, "a", weight=700), answer(2, "b", OLD, weight=9_300), answer(3, "c"))
    assert {at: (s.n_canary, s.n_control) for at, s in segments.items()} == {
        (1, 700): (1, 1),
        (1, 1_000): (1, 0),
    }


def test_pairs_count_where_exactly_one_failed():
    (segment,) = counted(
        *(answer(1, "a", OLD, SHADOW), shadowed(2, 1)),
        *(answer(3, "b", OLD, SHADOW), shadowed(4, 3, "timeout")),
        *(answer(5, "c", OLD, SHADOW, outcome="model_error"), shadowed(6, 5)),
        *(answer(7, "d", OLD, SHADOW, outcome="model_error"), shadowed(8, 7, "model_error")),
        # Halves of pairs, and answers that reached nobody, are no pairs.
        answer(9, "e", OLD, SHADOW),
        shadowed(10, 99),
        *(answer(11, "f", OLD, SHADOW), shadowed(12, 11, "shed")),
        *(answer(13, "g", OLD, SHADOW), shadowed(14, 13, "model_error", OTHER)),
        *(answer(15, "h", OLD, SHADOW, outcome="client_error"), shadowed(16, 15, "model_error")),
    ).values()
    assert (segment.stage, segment.weight, segment.n_canary, segment.n_control) == ("shadow", 0, 4, 4)
    assert segment.guards == {"errors": Tally(n_canary=4, n_control=4, bad_canary=1, bad_control=1)}


def test_a_unit_pairs_once_and_further_pairs_are_only_seen():
    (segment,) = counted(
        *(answer(1, "a", OLD, SHADOW), shadowed(9, 1, "timeout")),
        *(answer(3, "a", OLD, SHADOW), shadowed(4, 3)),
        *(answer(5, "a", OLD, SHADOW), shadowed(6, 5)),
        *(answer(7, "", OLD, SHADOW), shadowed(8, 7)),
    ).values()
    assert (segment.n_canary, segment.again_canary, segment.again_control) == (2, 2, 2)
    assert segment.guards["errors"] == Tally(n_canary=2, n_control=2, bad_canary=1)


def test_labels_find_their_request_before_and_after_it_and_vote_once_a_unit():
    segments = counted(
        answer(1, "a", predictions=(0.25, 0.75)),
        label(20, 1, 1.0, row=1),
        label(21, 1, 1.0),
        answer(2, "b", OLD),
        label(22, 2, 1.0),
        answer(3, "b", OLD),
        label(19, 3, 0.0, generation=FIRST),
        answer(4, ""),
        label(23, 4, 1.0, generation=99),
        answer(5, "c", generation=SECOND),
        label(24, 5, 0.75),
        # About nothing, about a row there is none of, about a request that was not answered or that is no canary's.
        label(1, 77, 1.0),
        label(2, 1, 1.0, row=2),
        label(3, 1, 1.0, row=-1),
        answer(6, "d", outcome="timeout", predictions=()),
        label(25, 6, 1.0),
        answer(7, "e", generation=SOAK),
        label(26, 7, 1.0),
    )
    assert segments[1, 1_000].guards["labels"] == Tally(n_canary=2, bad_canary=1, n_control=1, bad_control=0)
    assert segments[2, 5_000].guards["labels"] == Tally(n_canary=1, bad_canary=0)


def test_labels_without_their_guard_cost_nothing():
    policy = RolloutPolicy(steps=POLICY.steps, guards={"errors": Guard()})
    (segment,) = counted(answer(1, "a"), label(2, 1, 1.0), policy=policy).values()
    assert segment.guards == {"errors": Tally(n_canary=1)}
    assert counted(answer(1, "a"), policy=RolloutPolicy(steps=POLICY.steps, guards={}))[1, 1_000].guards == {}


def test_the_window_and_the_missing_lines_are_told():
    counting = counter()
    for generation, line in (answer(5, "a"), answer(9, "b", OLD), answer(3, "c"), answer(1, "x", OTHER)):
        counting.add(generation, line)
    counting.add(FIRST, Dropped(at=4, n_lines=3))
    counting.add(SECOND, Dropped(at=4, n_lines=4))
    look = counting.look()
    assert (look.since, look.until, look.n_dropped) == (3, 9, 7)


def test_a_generation_may_become_known_later():
    counting = Counter(POLICY, package=NEW, control=OLD, steps={})
    counting.add(*answer(1, "a"))
    assert counting.look().segments == ()
    counting.steps[FIRST] = 1
    counting.add(*answer(2, "a"))
    assert counting.look().segments[0].n_canary == 1


def test_what_waits_is_bounded_and_what_is_let_go_is_a_sample(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tally, "MOST_WAITING", 100)
    counting, n = counter(), 2_000
    for at in range(1, n + 1):
        counting.add(*answer(at, "", NEW if at % 4 == 0 else OLD))
    for at in range(1, n + 1):
        counting.add(*label(n + at, at, 1.0))
    (segment,) = counting.look().segments
    labels = segment.guards["labels"]
    assert segment.n_canary + segment.n_control == n
    assert 50 <= labels.n_canary + labels.n_control <= 100
    assert 0.1 < labels.n_canary / (labels.n_canary + labels.n_control) < 0.45
    # Labels of requests that nobody ever hears of push nothing out that is known.
    for at in range(5_000):
        counting.add(*label(at, 10_000 + at, 1.0))
    assert counting.look().segments == (segment,)
    # Nor do many labels of one of them.
    for at in range(5_000):
        counting.add(*label(at, 10_000, 1.0, row=at))
