"""From lines of traffic to the counts that a verdict is about: one vote per unit, whoever writes how many requests.

Why units. A routing key keeps its version, so the requests of one key stand or fall together: a single busy caller
with a broken record would look like a thousand independent failures of whatever version it was given. What was
drawn at random is the key, so the key is what counts, once. A request without a key was drawn by itself and is a
unit of its own.

    errors, latency   the unit's first request in the stage decides; a latency is taken when it was answered
    labels            the unit's first label in the canary decides, at the weight of the request it is about
    shadow            the unit's first pair of answers decides

A unit votes once per stage. Within the canary it does not vote again at a later weight: the plan only ever moves
keys from the version before to the new one, so where a key goes next is no longer a fair draw. Between stages it
may: pairs, and the rate of a soak, owe nothing to who was drawn.

`Counter` keeps what "first" needs, so its result is the same in whatever order lines come, as long as no two
requests of a unit have the same time. What it keeps for joins is bounded: when more than `MOST_WAITING` requests
wait for a label (or for their shadow's answer), a random half is let go, and from then on only requests of the
same half are kept, and so on. Which half does not depend on the version, so nothing is biased by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Literal, NamedTuple, TypeVar

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.delivery.rollouts.policy import GuardName, RolloutPolicy, Stage
from lockgate.delivery.rollouts.verdict import Look, Segment, Tally
from lockgate.traffic.capture import Answered, Dropped, Labelled, Line, Shadowed
from lockgate.traffic.errors import ErrorClass, held_against_version
from lockgate.traffic.plan import N_SLOTS, slot_of

MOST_WAITING = 1 << 18
"""Requests of one kind that wait for a join; a few hundred bytes each."""

_MOST_EARLY = 8
"""Labels kept for a request that is not known yet; the first one of an existing row is what is looked for."""

_MINUTE_US = 60_000_000
_N_MINUTES = 5
_REACHED_NOBODY = frozenset({"client_error", "shed"})

T = TypeVar("T")


class Counter:
    """Counts the lines of one rollout, incrementally.

    Args:
        package: the new version's; `control` the one it is to replace. Lines of others are ignored.
        steps: which step of the policy a generation of the plan belongs to.

    Attributes:
        steps: the same, as known by now. Add a generation before its lines come; lines of others are ignored,
            except labels, which come when they come.
    """

    def __init__(
        self, policy: RolloutPolicy, *, package: Digest, control: Digest, steps: Mapping[int, int]
    ) -> None:
        self._policy = policy
        self._package, self._control = package, control
        self.steps = dict(steps)
        self._cells: dict[tuple[int, int], _Cell] = {}
        self._votes: dict[tuple[Stage, str], tuple[_Vote, ...]] = {}
        self._pairs: dict[str, _Pair] = {}
        self._labels: dict[str, _LabelVote] = {}
        self._requests: _Waiting[_Request] = _Waiting()
        self._early: _Waiting[tuple[Labelled, ...]] = _Waiting()
        self._live: _Waiting[_Pair] = _Waiting()
        self._shadow: _Waiting[bool] = _Waiting()
        self._since = self._until = 0
        self._n_dropped = 0
        self._latency = policy.guards.get("latency")
        self._label = policy.guards.get("labels")

    def add(self, generation: int, line: Line) -> None:
        """Count one line of the file of a generation."""
        if isinstance(line, Labelled):
            self._labelled(line)
            return
        step = self.steps.get(generation)
        if step is None:
            return
        if isinstance(line, Answered):
            self._answered(step, line)
        elif isinstance(line, Shadowed):
            self._shadowed(step, line)
        elif isinstance(line, Dropped):
            self._n_dropped += line.n_lines

    def look(self) -> Look:
        """All that was counted; the same lines always give an equal look."""
        return Look(
            segments=tuple(
                self._cells[at].segment() for at in sorted(self._cells) if self._cells[at].is_known()
            ),
            since=self._since,
            until=self._until,
            n_dropped=self._n_dropped,
        )

    def _answered(self, step: int, line: Answered) -> None:
        canary = line.package == self._package
        if not (canary or line.package == self._control) or line.outcome in _REACHED_NOBODY:
            return
        self._since = min(self._since, line.at) if self._since else line.at
        self._until = max(self._until, line.at)
        stage = self._policy.steps[step].stage
        cell = self._cell(step, line.weight if canary else N_SLOTS - line.weight)
        if stage == "shadow":
            if not canary:
                self._join_live(line, cell)
            return
        cell.saw(line.at, canary, _is_bad(line.outcome))
        slow = None
        if self._latency is not None and line.outcome == "ok":
            slow = line.latency_us > self._latency.bound
        vote = _Vote(line.at, line.request_id, cell, canary, _is_bad(line.outcome), slow)
        if line.unit:
            self._vote(stage, line.unit, vote)
        else:
            vote.cast(1)
        if self._label is not None and stage == "canary" and line.outcome == "ok":
            request = _Request(line.unit or line.request_id, cell, canary, line.predictions)
            self._requests.put(line.request_id, request)
            for label in self._early.take(line.request_id) or ():
                self._join_label(label, request)

    def _vote(self, stage: Stage, unit: str, vote: _Vote) -> None:
        """The first request of the unit in the stage votes; its first in every other step says it was met again."""
        known = self._votes.get((stage, unit), ())
        before = next((each for each in known if each.cell.step == vote.cell.step), None)
        if before is not None and before.moment <= vote.moment:
            return
        for number, each in enumerate(known):
            each.cast(-1, again=number > 0)
        votes = tuple(sorted((*(each for each in known if each is not before), vote), key=_moment))
        for number, each in enumerate(votes):
            each.cast(1, again=number > 0)
        self._votes[stage, unit] = votes

    def _shadowed(self, step: int, line: Shadowed) -> None:
        if self._policy.steps[step].stage != "shadow" or line.package != self._package:
            return
        if line.outcome in _REACHED_NOBODY:
            return
        live = self._live.take(line.request_id)
        if live is None:
            self._shadow.put(line.request_id, _is_bad(line.outcome))
        else:
            self._pair(live._replace(shadow_bad=_is_bad(line.outcome)))

    def _join_live(self, line: Answered, cell: _Cell) -> None:
        pair = _Pair(line.at, line.request_id, line.unit, cell, _is_bad(line.outcome), False)
        shadow_bad = self._shadow.take(line.request_id)
        if shadow_bad is None:
            self._live.put(line.request_id, pair)
        else:
            self._pair(pair._replace(shadow_bad=shadow_bad))

    def _pair(self, pair: _Pair) -> None:
        before = self._pairs.get(pair.unit) if pair.unit else None
        if before is None:
            pair.cast(1)
        elif before[:2] <= pair[:2]:
            pair.cast_again()
            return
        else:
            before.cast(-1)
            before.cast_again()
            pair.cast(1)
        if pair.unit:
            self._pairs[pair.unit] = pair

    def _labelled(self, line: Labelled) -> None:
        if self._label is None:
            return
        request = self._requests.get(line.request_id)
        if request is not None:
            self._join_label(line, request)
        else:
            # Of a request that another file tells of, or that has nothing to do with this rollout.
            known = self._early.get(line.request_id) or ()
            first = sorted((*known, line), key=lambda label: (label.at, label.row))[:_MOST_EARLY]
            self._early.put(line.request_id, tuple(first))

    def _join_label(self, line: Labelled, request: _Request) -> None:
        if self._label is None or not 0 <= line.row < len(request.predictions):
            return
        before = self._labels.get(request.unit)
        bad = abs(line.label - request.predictions[line.row]) > self._label.bound
        vote = _LabelVote(line.at, line.request_id, line.row, request.cell, request.canary, bad)
        if before is not None:
            if before[:3] <= vote[:3]:
                return
            before.cell.count("labels", before.canary, before.bad, -1)
        vote.cell.count("labels", vote.canary, vote.bad, 1)
        self._labels[request.unit] = vote

    def _cell(self, step: int, weight: int) -> _Cell:
        cell = self._cells.get((step, weight))
        if cell is None:
            cell = self._cells[step, weight] = _Cell(
                step, self._policy.steps[step].stage, weight, self._policy
            )
        return cell


class _Cell:
    """The counts of one segment while they grow."""

    __slots__ = ("again", "guards", "minutes", "stage", "step", "units", "weight")

    def __init__(self, step: int, stage: Stage, weight: int, policy: RolloutPolicy) -> None:
        self.step, self.stage, self.weight = step, stage, weight
        # Each pair: [the version before, the new version].
        self.units, self.again = [0, 0], [0, 0]
        # Requests by minute, whoever sent them: [control, canary, failed control, failed canary].
        self.minutes: dict[int, list[int]] = {}
        self.guards: dict[GuardName, tuple[list[int], list[int]]] = {
            name: ([0, 0], [0, 0]) for name in policy.guards if name in _COUNTED[stage]
        }

    def saw(self, at: Micros, canary: bool, bad: bool) -> None:
        """A request, also of a unit that has voted; only the latest minutes are kept."""
        minute = at // _MINUTE_US
        counts = self.minutes.get(minute)
        if counts is None:
            counts = self.minutes[minute] = [0, 0, 0, 0]
            for old in [one for one in self.minutes if one < max(self.minutes) - _N_MINUTES]:
                del self.minutes[old]
        counts[canary] += 1
        counts[2 + canary] += bad

    def count(self, guard: GuardName, canary: bool, bad: bool, n: int) -> None:
        votes = self.guards.get(guard)
        if votes is not None:
            votes[0][canary] += n
            votes[1][canary] += n * bad

    def is_known(self) -> bool:
        return any(self.units) or any(self.again)

    def segment(self) -> Segment:
        latest = [n for minute, n in self.minutes.items() if minute >= max(self.minutes) - 1]
        asked_control, asked_canary, failed_control, failed_canary = (
            sum(counts[place] for counts in latest) for place in range(4)
        )
        return Segment(
            step=self.step,
            stage=self.stage,
            weight=self.weight,
            n_canary=self.units[True],
            n_control=self.units[False],
            again_canary=self.again[True],
            again_control=self.again[False],
            asked_canary=asked_canary,
            asked_control=asked_control,
            failed_canary=failed_canary,
            failed_control=failed_control,
            guards={
                name: Tally(
                    n_canary=n[True], n_control=n[False], bad_canary=bad[True], bad_control=bad[False]
                )
                for name, (n, bad) in self.guards.items()
            },
        )


_COUNTED: dict[Stage, tuple[GuardName, ...]] = {
    "shadow": ("errors",),
    "canary": ("errors", "latency", "labels"),
    "soak": ("errors", "latency"),
}


class _Vote(NamedTuple):
    """A request that may speak for its unit. `slow` is None when it was not answered."""

    at: Micros
    request_id: str
    cell: _Cell
    canary: bool
    bad: bool
    slow: bool | None

    @property
    def moment(self) -> tuple[Micros, str]:
        return self[:2]

    def cast(self, n: int, *, again: bool = False) -> None:
        if again:
            self.cell.again[self.canary] += n
            return
        self.cell.units[self.canary] += n
        self.cell.count("errors", self.canary, self.bad, n)
        if self.slow is not None:
            self.cell.count("latency", self.canary, self.slow, n)


class _Pair(NamedTuple):
    """What the live version and the shadow made of one request. Failing together says nothing about either."""

    at: Micros
    request_id: str
    unit: str
    cell: _Cell
    live_bad: bool
    shadow_bad: bool

    def cast(self, n: int) -> None:
        for canary, bad in ((True, self.shadow_bad), (False, self.live_bad)):
            self.cell.units[canary] += n
            self.cell.count("errors", canary, bad and not (self.shadow_bad and self.live_bad), n)

    def cast_again(self) -> None:
        self.cell.again[True] += 1
        self.cell.again[False] += 1


class _Request(NamedTuple):
    """What a label needs to know of its request."""

    unit: str
    cell: _Cell
    canary: bool
    predictions: tuple[float, ...]


class _LabelVote(NamedTuple):
    at: Micros
    request_id: str
    row: int
    cell: _Cell
    canary: bool
    bad: bool


class _Waiting(Generic[T]):
    """What waits for its other half, by request: all of it, or a sample of the requests once that is too much."""

    def __init__(self) -> None:
        self._kept: dict[str, T] = {}
        self._below = N_SLOTS

    def put(self, request_id: str, value: T) -> None:
        if self._below < N_SLOTS and slot_of(request_id, _SAMPLE) >= self._below:
            return
        self._kept[request_id] = value
        while len(self._kept) > MOST_WAITING and self._below:
            self._below //= 2
            self._kept = {
                each: kept for each, kept in self._kept.items() if slot_of(each, _SAMPLE) < self._below
            }

    def get(self, request_id: str) -> T | None:
        return self._kept.get(request_id)

    def take(self, request_id: str) -> T | None:
        return self._kept.pop(request_id, None)


_SAMPLE = "lockgate:sample"


def _is_bad(outcome: Literal["ok"] | ErrorClass) -> bool:
    return outcome != "ok" and held_against_version(outcome)


def _moment(vote: _Vote) -> tuple[Micros, str]:
    return vote.moment
