"""What the demo says of a rollout: whose questions they are, and which step each request and label belongs to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from lockgate.app.cli.demo.live import Caller, Counted, Replay, Step, Watch, questions
from lockgate.app.cli.demo.stage import DemoFailed
from lockgate.core.clock import Micros, parse_iso
from lockgate.hub.messages import ChangeLine

INSTANT = pa.timestamp("us", tz="UTC")
ROWS = [
    # flight, scheduled, landed, minutes late; the second one was cancelled.
    (10, datetime(2013, 11, 13, 11, 0, tzinfo=UTC), datetime(2013, 11, 13, 13, 0, tzinfo=UTC), 16),
    (11, datetime(2013, 11, 13, 11, 30, tzinfo=UTC), None, None),
    (12, datetime(2013, 11, 13, 14, 0, tzinfo=UTC), datetime(2013, 11, 13, 16, 0, tzinfo=UTC), 15),
    (13, datetime(2013, 11, 13, 18, 0, tzinfo=UTC), datetime(2013, 11, 13, 20, 0, tzinfo=UTC), 0),
]


def flights() -> pa.Table:
    n = len(ROWS)
    return pa.table(
        {
            "local_date": pa.array([date(2013, 11, 13)] * n),
            "carrier": ["UA"] * n,
            "flight": pa.array([row[0] for row in ROWS], pa.int32()),
            "origin": ["EWR"] * n,
            "dest": ["BOS"] * n,
            "tailnum": pa.array([None] * n, pa.string()),
            "distance": pa.array([200] * n, pa.int32()),
            "scheduled_minute": pa.array([360] * n, pa.int32()),
            "scheduled_departure_at": pa.array([row[1] for row in ROWS], INSTANT),
            "scheduled_arrival_at": pa.array([row[1] for row in ROWS], INSTANT),
            "arrived_at": pa.array([row[2] for row in ROWS], INSTANT),
            "arr_delay": pa.array([row[3] for row in ROWS], pa.int32()),
        }
    )


def test_a_flight_is_asked_about_an_hour_ahead_and_only_an_arrival_has_a_label() -> None:
    asked = questions(flights(), parse_iso("2013-11-13T10:00Z"), 10)
    assert [one.entities["flight"] for one in asked] == [10, 11, 12, 13]
    first, cancelled, punctual, _ = asked
    assert first.as_of == parse_iso("2013-11-13T10:00Z") and first.key == "UA-10-EWR-2013-11-13"
    assert (first.late, first.landed_at) == (True, parse_iso("2013-11-13T13:00Z"))
    assert (cancelled.late, cancelled.landed_at) == (None, None)
    assert punctual.late is False, "fifteen minutes are no delay"
    assert first.body["inputs"][0] == {
        "carrier": "UA",
        "origin": "EWR",
        "scheduled_minute": 360,
        "weekday": 3,
        "scheduled_duration": 0,
        "distance": 200,
    }
    assert first.body["entities"][0]["tailnum"] is None
    later = questions(flights(), parse_iso("2013-11-13T10:00:01Z"), 2)
    assert [one.entities["flight"] for one in later] == [11, 12]


class Answers(Caller):
    """The far end of the connection: every other request is answered by the new version."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def ask(self, body: bytes) -> dict[str, Any]:
        flight = json.loads(body)["entities"][0]["flight"]
        self.said.append(flight)
        return {"version": "1.1.0" if flight % 2 else "1.0.0", "request_id": f"r{flight}"}

    def tell(self, labels: Sequence[dict[str, Any]]) -> None:
        self.said += [(label["request_id"], label["label"]) for label in labels]


def replayed() -> tuple[Answers, Replay, list[Any]]:
    caller = Answers()
    pushed: list[Any] = caller.said
    coming = questions(flights(), parse_iso("2013-11-13T10:00Z"), 10)
    return caller, Replay(caller, coming, lambda until: pushed.append(until)), pushed


def test_an_hour_tells_what_is_due_then_pushes_then_asks() -> None:
    caller, replay, _ = replayed()
    hours = list(replay.hours)
    assert [len(hour.questions) for hour in hours] == [2, 1, 1], "hours in which nobody asks are left out"
    for hour in hours:
        replay.tell(hour.at)
        replay.ask(hour)
    first, second, third = (hour.at for hour in hours)
    assert caller.said == [first, 10, 11, ("r10", True), second, 12, ("r12", False), third, 13]
    assert replay.counted(2**60, "1.1.0") == Counted(4, 2, 2, 0)
    assert replay.counted(0, "1.1.0") == Counted()


def line(seq: int, kind: str, summary: str, at: Micros = 0) -> ChangeLine:
    return ChangeLine(seq=seq, at=at, actor="lockgate-controller", type=f"delivery.{kind}/1", summary=summary)


def watched(looks: list[list[ChangeLine]], replay: Replay, most: int = 100) -> tuple[Watch, list[Step]]:
    steps: list[Step] = []
    coming = iter(looks)
    watch = Watch(
        replay,
        lambda since: [one for one in next(coming, []) if one.seq > since],
        "1.1.0",
        seen=7,
        most=most,
        pause_s=0.0,
        over=steps.append,
    )
    return watch, steps


def test_requests_belong_to_the_step_that_was_on_when_they_were_answered() -> None:
    far = 2**60
    _, replay, _ = replayed()
    watch, steps = watched(
        [
            [
                line(7, "release-went-live", "an older one"),
                line(8, "rollout-step-started", "release 2 on p: shadow"),
            ],
            [
                line(9, "rollout-judged", "release 2 on p: pass, 2 pairs"),
                # Decided before the first request came; noticed an hour later.
                line(10, "rollout-advanced", "on", at=1),
                line(11, "rollout-step-started", "release 2 on p: canary at 10 %"),
            ],
            [
                line(12, "rollout-judged", "release 2 on p: fail, harm by labels: 2 of 2"),
                line(13, "endpoint-rolled-back", "back", at=far),
                line(14, "rollback-confirmed", "rollback of p in effect after 3.2 ms"),
            ],
        ],
        replay,
    )
    ending = watch.until_the_end()
    assert [(step.name, step.verdict, step.sent) for step in steps] == [
        ("shadow", "pass, 2 pairs", Counted()),
        ("canary at 10 %", "fail, harm by labels: 2 of 2", Counted(3, 1, 2, 0)),
    ]
    assert (ending.live, ending.sent, ending.told) == (
        False, Counted(3, 1, 2, 0), "rollback of p in effect after 3.2 ms"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("looks", "most", "words"),
    [
        ([[line(8, "rollout-step-started", "release 2 on p: shadow")]], 100, "still at shadow"),
        ([], 2, "after 2 requests the rollout is still at its beginning"),
        ([[line(8, "rollout-paused", "release 2 on p paused: routing")]], 100, "paused: routing"),
    ],
)
def test_a_rollout_that_gets_nowhere_fails_the_demo(
    looks: list[list[ChangeLine]], most: int, words: str
) -> None:
    watch, _ = watched(looks, replayed()[1], most)
    with pytest.raises(DemoFailed, match=words):
        watch.until_the_end()
