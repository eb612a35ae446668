"""The traffic of later months, replayed by the hour against what is really running.

An hour of the replay: what turned out true by then is told, the features that became known by then are materialised,
and everybody who asks within the hour asks once, by entity keys, with the moment of the question in `as_of`. Time
comes from the timetable; everything else is as it is: the online store, the data plane, its capture files and the
controller of rollouts, which decides by itself and is only watched here.
"""

from __future__ import annotations

import heapq
import http.client
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from lockgate.app.cli.demo.stage import DemoFailed
from lockgate.core.clock import Micros
from lockgate.hub.messages import ChangeLine
from lockgate.workshop.online import Materializer

HOUR_US = 3_600_000_000
KEYS = ("carrier", "flight", "origin", "dest", "tailnum")
REQUEST = ("carrier", "origin", "scheduled_minute", "weekday", "scheduled_duration", "distance")
_LATE_AFTER_MINUTES = 15
_MOST_LABELS = 1_000
_SOON_S, _PATIENCE_S = 0.02, 30.0
_JSON = {"content-type": "application/json"}


class Question(NamedTuple):
    """A flight as it is asked about an hour before it leaves, and what became of it.

    Attributes:
        landed_at, late: None for a flight that was cancelled or diverted.
    """

    as_of: Micros
    key: str
    inputs: dict[str, Any]
    entities: dict[str, Any]
    landed_at: Micros | None
    late: bool | None

    @property
    def body(self) -> dict[str, Any]:
        """The request: the flight by its keys, with what only its caller knows."""
        return {
            "inputs": [self.inputs],
            "entities": [self.entities],
            "as_of": self.as_of,
            "key": self.key,
        }


def questions(flights: pa.Table, begin: Micros, n: int) -> list[Question]:
    """The first `n` questions asked at or after `begin`, in their order.

    Args:
        flights: the dataset, in the order of the timetable.
    """
    asked_at = pc.subtract(pc.cast(flights["scheduled_departure_at"], pa.int64()), HOUR_US)
    coming = flights.append_column("as_of", asked_at)
    coming = coming.filter(pc.greater_equal(asked_at, pa.scalar(begin))).slice(0, n)
    duration = pc.minutes_between(coming["scheduled_departure_at"], coming["scheduled_arrival_at"])
    columns: dict[str, Any] = {
        name: coming[name] for name in (*KEYS, "scheduled_minute", "distance", "as_of")
    }
    columns["weekday"] = pc.day_of_week(coming["local_date"], count_from_zero=False)
    columns["scheduled_duration"] = duration
    columns["day"] = pc.strftime(coming["local_date"], format="%Y-%m-%d")
    columns["landed_at"] = pc.cast(coming["arrived_at"], pa.int64())
    columns["late"] = pc.greater(coming["arr_delay"], pa.scalar(_LATE_AFTER_MINUTES))
    return [_question(row) for row in pa.table(columns).to_pylist()]


def _question(row: dict[str, Any]) -> Question:
    return Question(
        as_of=row["as_of"],
        key=f"{row['carrier']}-{row['flight']}-{row['origin']}-{row['day']}",
        inputs={name: row[name] for name in REQUEST},
        entities={name: row[name] for name in KEYS},
        landed_at=row["landed_at"],
        late=row["late"],
    )


class Caller:
    """Asks one endpoint over one connection that stays open."""

    def __init__(self, port: int, endpoint: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._path = f"/{endpoint}"

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exit: object) -> None:
        self._connection.close()

    def ask(self, body: bytes) -> dict[str, Any]:
        """The answer to a request; whatever is none ends the demo."""
        return self._post(self._path, body, 200)

    def tell(self, labels: Sequence[dict[str, Any]]) -> None:
        """Tell the endpoint what turned out true."""
        for start in range(0, len(labels), _MOST_LABELS):
            body = msgspec.json.encode({"labels": labels[start : start + _MOST_LABELS]})
            self._post(f"{self._path}:feedback", body, 202)

    def _post(self, path: str, body: bytes, expect: int) -> dict[str, Any]:
        self._connection.request("POST", path, body, _JSON)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != expect:
            raise DemoFailed(
                f"a request to {path} was answered with {response.status}: {content[:400].decode(errors='replace')}",
                remedy="see .lockgate/up.log",
                sent=body[:400].decode(),
            )
        answer: dict[str, Any] = msgspec.json.decode(content)
        return answer


class Jobs:
    """The jobs that keep the features of the replay up to date; each pushes the news of its views."""

    def __init__(self, *works: Materializer, since: Micros | None = None) -> None:
        self._works = works
        self._since = since

    def __call__(self, until: Micros) -> None:
        """Bring what became known up to a moment into the online store."""
        for work in self._works:
            work.push(until, since=self._since)
        self._since = until


class Hour(NamedTuple):
    """One hour of the replay, not asked yet."""

    at: Micros
    questions: tuple[Question, ...]


class Counted(NamedTuple):
    """Requests and labels up to some moment; of each, how many are about the new version."""

    n_requests: int = 0
    n_new: int = 0
    n_labels: int = 0
    n_new_labels: int = 0


class Replay:
    """Traffic and its labels, as far as they have been sent.

    Args:
        materialize: brings what is known at a moment into the online store.
    """

    def __init__(
        self, caller: Caller, coming: Sequence[Question], materialize: Callable[[Micros], object]
    ) -> None:
        self._caller = caller
        self._coming = coming
        self._materialize = materialize
        self._due: list[tuple[Micros, str, bool, str]] = []
        # When, by this machine's clock as the journal has it, and about which version.
        self._answers: list[tuple[Micros, str]] = []
        self._labels: list[tuple[Micros, str]] = []

    @property
    def n_asked(self) -> int:
        return len(self._answers)

    @property
    def hours(self) -> Iterator[Hour]:
        """The hours in which somebody asks; nobody does in the small ones."""
        for hour, asked in groupby(self._coming, key=lambda question: question.as_of // HOUR_US):
            yield Hour(hour * HOUR_US, tuple(asked))

    def tell(self, until: Micros) -> None:
        """Tell the label of each flight that landed by then."""
        labels, versions = [], []
        while self._due and self._due[0][0] <= until:
            _, request_id, late, version = heapq.heappop(self._due)
            labels.append({"request_id": request_id, "label": late})
            versions.append(version)
        self._caller.tell(labels)
        self._labels += [(_now(), version) for version in versions]

    def ask(self, hour: Hour) -> None:
        """Materialise what the hour begins with, then send its requests."""
        bodies = [msgspec.json.encode(question.body) for question in hour.questions]
        self._materialize(hour.at)
        for question, body in zip(hour.questions, bodies, strict=True):
            answer = self._caller.ask(body)
            version = answer["version"] or "the fallback"
            self._answers.append((_now(), version))
            if question.landed_at is not None and question.late is not None:
                heapq.heappush(self._due, (question.landed_at, answer["request_id"], question.late, version))

    def counted(self, until: Micros, version: str) -> Counted:
        """What was sent until a moment of the journal; `version` is the new one."""
        answers = self._answers[: bisect_right(self._answers, until, key=_when)]
        labels = self._labels[: bisect_right(self._labels, until, key=_when)]
        return Counted(
            len(answers),
            sum(one == version for _, one in answers),
            len(labels),
            sum(one == version for _, one in labels),
        )


def _now() -> Micros:
    return time.time_ns() // 1_000


def _when(entry: tuple[Micros, str]) -> Micros:
    return entry[0]


class Step(NamedTuple):
    """A step of a rollout that is over: what it was, how it was left, what was sent while it was on.

    Attributes:
        name: such as `canary at 10 %`.
        until: the hour of the replay.
    """

    name: str
    verdict: str
    sent: Counted
    until: Micros


class Ending(NamedTuple):
    """How a rollout ended.

    Attributes:
        live: whether the new version answers everything; else it was taken back.
        sent: until that was decided.
        told: the journal's last words about it.
    """

    live: bool
    sent: Counted
    told: str


class Watch:
    """Replays traffic until the controller has brought a release to its end, and tells each step that is over.

    Args:
        changes: the journal's entries after a number.
        version: the new one, `1.1.0`.
        seen: number of the last entry before the release.
        most: requests after which it should long be over.
        pause_s: how long the controller may look at an hour before the next begins.
        over: is told of each step that is over.
    """

    def __init__(
        self,
        replay: Replay,
        changes: Callable[[int], Sequence[ChangeLine]],
        version: str,
        *,
        seen: int,
        most: int,
        pause_s: float,
        over: Callable[[Step], None],
    ) -> None:
        self._replay = replay
        self._changes = changes
        self._version = version
        self._seen = seen
        self._most = most
        self._pause_s = pause_s
        self._over = over
        self._step, self._verdict = "", ""
        self._sent = Counted()
        self._taken_back = False

    def until_the_end(self) -> Ending:
        """Go through the hours until the release is live, or taken back and the way back confirmed."""
        replay = self._replay
        for hour in replay.hours:
            replay.tell(hour.at)
            time.sleep(self._pause_s)
            ending = self._look(hour.at)
            # Once it is taken back, how fast that was is told as soon as the data plane has confirmed it.
            deadline = time.monotonic() + _PATIENCE_S
            while ending is None and self._taken_back and time.monotonic() < deadline:
                time.sleep(_SOON_S)
                ending = self._look(hour.at)
            if ending is not None:
                return ending
            if replay.n_asked >= self._most:
                break
            replay.ask(hour)
        raise DemoFailed(
            f"after {replay.n_asked:,} requests the rollout is still at {self._step or 'its beginning'}",
            remedy="lockgate rollout show, in the demo's project",
        )

    def _look(self, hour: Micros) -> Ending | None:
        """What the journal says since the last look; None as long as the release is on its way."""
        for change in self._changes(self._seen):
            self._seen = change.seq
            words = change.summary.partition(": ")[2]
            match change.type.partition("/")[0]:
                case "delivery.rollout-step-started":
                    self._step = words
                case "delivery.rollout-judged":
                    self._verdict = words
                case "delivery.rollout-advanced":
                    self._end_step(change.at, hour)
                case "delivery.endpoint-rolled-back":
                    self._end_step(change.at, hour)
                    self._taken_back = True
                case "delivery.rollback-confirmed" if self._taken_back:
                    return Ending(False, self._sent, change.summary)
                case "delivery.release-went-live":
                    return Ending(True, self._sent, change.summary)
                case "delivery.rollout-paused" | "delivery.release-failed" | "delivery.rollback-failed":
                    raise DemoFailed(change.summary, remedy="lockgate audit log, in the demo's project")
        return None

    def _end_step(self, at: Micros, hour: Micros) -> None:
        """Tell what was sent since the step before ended."""
        before, self._sent = self._sent, self._replay.counted(at, self._version)
        sent = Counted(*(now - then for now, then in zip(self._sent, before, strict=True)))
        self._over(Step(self._step, self._verdict, sent, hour))
