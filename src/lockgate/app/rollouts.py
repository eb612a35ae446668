"""The controller of rollouts: looks at traffic, and tells the hub what would change something.

It keeps nothing that cannot be read again: counts are a function of the data plane's capture files, everything else
stands in the journal. A controller that is killed anywhere is followed by one that reads the files from their
beginning and comes to the same verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lockgate.adapters.targets.captures import CaptureReader
from lockgate.core.clock import Clock, Ids, Micros
from lockgate.core.errors import LockgateError
from lockgate.delivery.advance import worth_telling
from lockgate.delivery.messages import ConfirmPlan, JudgeRollout
from lockgate.delivery.rollouts.tally import Counter
from lockgate.delivery.rollouts.verdict import judge
from lockgate.delivery.state import ENDPOINT, ON_A_STEP, ROLLOUT, Rollout, RolloutState, release_key
from lockgate.hub.kernel import Hub, body_of, read_body, require
from lockgate.hub.ports import Journal

CRASH_LOOP = 3
CRASH_WINDOW_US = 60_000_000
"""So many ends of the data plane within so long, under one plan of a rollout, are laid at the rollout's door."""


class _Watch(NamedTuple):
    """One rollout as this process has counted it so far."""

    key: str
    reader: CaptureReader
    counter: Counter


class RolloutController:
    """Drives the rollouts of a store, one look at a time.

    Args:
        new_reader: gives a reader of capture files that begins at their beginning.
        hub: of the controller; what follows from a look is decided there.
    """

    def __init__(
        self, journal: Journal, hub: Hub, new_reader: Callable[[], CaptureReader], clock: Clock, ids: Ids
    ) -> None:
        self._journal = journal
        self._hub = hub
        self._new_reader = new_reader
        self._clock = clock
        self._ids = ids
        self._watches: dict[str, _Watch] = {}
        self._ends: dict[tuple[str, int], list[Micros]] = {}

    def look(self) -> None:
        """Look once at every rollout that stands on a step."""
        standing, failed = set(), []
        for stored in self._journal.documents(ENDPOINT.name):
            if stored.state not in ON_A_STEP:
                continue
            underway = read_body(ENDPOINT, stored).rollout
            if underway is None or underway.strategy != "canary":
                continue
            known = self._journal.document(ROLLOUT.name, release_key(stored.key, underway.release))
            if known is not None:
                standing.add(stored.key)
                try:
                    self._look_at(underway, read_body(ROLLOUT, known))
                except (LockgateError, OSError) as error:
                    # The others are looked at all the same: their guards must not wait for this one.
                    failed.append(error)
        for endpoint in self._watches.keys() - standing:
            # Between two steps a rollout is watched on; once it is over its counts are of no more use.
            if not self._underway(endpoint):
                del self._watches[endpoint]
        if failed:
            raise failed[0]

    def plane_ended(self) -> None:
        """The data plane ended unasked. A rollout under whose plan it keeps doing so is called off, without statistics:
        a version that takes its process with it leaves no counts.
        """
        now, ends = self._clock.now(), self._ends
        self._ends = {}
        for stored in self._journal.documents(ENDPOINT.name):
            rollout = read_body(ENDPOINT, stored).rollout
            if rollout is None or not rollout.underway:
                continue
            key = (stored.key, rollout.generation)
            recent = [at for at in ends.get(key, ()) if now - at <= CRASH_WINDOW_US]
            self._ends[key] = [*recent, now]
            if len(self._ends[key]) >= CRASH_LOOP:
                self._call_off(*key)

    def _call_off(self, endpoint: str, generation: int) -> None:
        command = ConfirmPlan(
            id=f"crash-loop:{endpoint}:{generation}",
            endpoint=endpoint,
            generation=generation,
            applied=False,
            detail=f"the data plane ended {CRASH_LOOP} times within a minute under this plan",
            took_us=0,
        )
        require(self._hub.execute(command))

    def _underway(self, endpoint: str) -> bool:
        known = body_of(self._journal, ENDPOINT, endpoint)
        return known is not None and known.rollout is not None and known.rollout.underway

    def _look_at(self, underway: Rollout, rollout: RolloutState) -> None:
        run = rollout.run
        if run is None:
            return
        watch = self._watch(rollout)
        for served in rollout.runs:
            watch.counter.steps[served.generation] = served.step
        for generation, line in watch.reader.read(rollout.endpoint, watch.counter.steps):
            watch.counter.add(generation, line)
        look = watch.counter.look()
        verdict = judge(look, rollout.policy, run.step)
        if not worth_telling(rollout, underway, verdict, self._clock.now()):
            return
        command = JudgeRollout(
            id=self._ids.new(),
            endpoint=rollout.endpoint,
            release=rollout.release,
            step=run.step,
            look=look,
        )
        require(self._hub.execute(command))

    def _watch(self, rollout: RolloutState) -> _Watch:
        key = release_key(rollout.endpoint, rollout.release)
        watch = self._watches.get(rollout.endpoint)
        if watch is None or watch.key != key:
            package, control = rollout.candidate.package, rollout.control.package
            counter = Counter(rollout.policy, package=package, control=control, steps={})
            watch = self._watches[rollout.endpoint] = _Watch(key, self._new_reader(), counter)
        return watch
