"""Carrying out what was decided: plans are brought to their target, and what was seen comes back as a command.

At least once, never out of order: a row is leased, the target refuses plans older than the one it has, and the
confirming command has an id made of endpoint and generation, so that telling it twice is telling it once. Whoever
comes by may carry out an effect: the process that decided, the controller of `lockgate up`, or the next command.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

import msgspec

from lockgate.core.clock import Clock, Micros
from lockgate.core.documents import DocumentKind
from lockgate.core.errors import Conflict, LockgateError, NotFound, Unavailable, did_you_mean
from lockgate.core.messages import Command, Receipt
from lockgate.delivery.advance import standing_plan
from lockgate.delivery.decide import LOAD_PATIENCE_S
from lockgate.delivery.messages import ApplyPlan, ConfirmPlan, Served
from lockgate.delivery.plan import brought_in, is_unadopted, plan_of
from lockgate.delivery.ports import Target
from lockgate.delivery.rollouts.policy import EndpointSettings
from lockgate.delivery.state import ENDPOINT, ENVIRONMENT, ON_A_STEP, ROLLOUT, SETTINGS, release_key
from lockgate.hub.kernel import CommandIdReused, body_of, read_body, require
from lockgate.hub.ports import Journal, Outbox, OutboxRow
from lockgate.registry.messages import DistrustKeys
from lockgate.traffic.errors import LocalPlanInForce
from lockgate.traffic.observed import Observed
from lockgate.traffic.plan import Plan

# Longer than the longest patience, so that nobody else starts while one process still waits.
_LEASE_US = round((LOAD_PATIENCE_S + 5) * 1_000_000)
_POLL_S = 0.005
_POLLS = 1000
_EFFECT = msgspec.json.Decoder(ApplyPlan | DistrustKeys)


D = TypeVar("D")


class UnknownTarget(NotFound):
    """An effect names a target that this program does not know."""

    code = "running.unknown-target"


class Execute(Protocol):
    def __call__(self, command: Command) -> Receipt: ...


class EffectRunner:
    """Works through an outbox. `confirm` runs commands as the controller, not as whoever asked; `adopt` takes over a
    plan of local origin as the controller, and leaves the effects of that to the outbox.

    Args:
        vet: asked once more, just before a package is brought to a target that has not got it, why it may not run in
            an environment; empty when it may. Between decision and deployment somebody may have shut it away, or
            changed its bytes.
    """

    def __init__(
        self,
        outbox: Outbox,
        targets: Mapping[str, Target],
        clock: Clock,
        *,
        vet: Callable[[Served, str], str] = lambda served, environment: "",
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._vet = vet
        self._outbox = outbox
        self._targets = targets
        self._clock = clock
        self._pause = pause
        self.confirm: Execute | None = None
        self.adopt: Callable[[Plan], object] | None = None

    def carry_out(self, subject: str | None = None) -> bool:
        """Carry out every open effect (of `subject`); true when none is left.

        A row that somebody else is just carrying out is waited for, as long as whoever asked is patient; one that
        nobody can carry out now does not hold up those of other subjects.
        """
        waiting: list[OutboxRow] = []
        try:
            while (row := self._lease(subject)) is not None:
                # Not released before the end: the same row would be the next one.
                waiting.append(row)
                if self._one(row):
                    self._outbox.settle(row)
                    waiting.pop()
        finally:
            for row in waiting:
                self._outbox.release(row)
        return not waiting and (subject is None or self._others_are_done(subject))

    def take_over(self) -> None:
        """Free every row, also those that somebody leased: for a controller that begins where one was killed.

        A row that a living process is carrying out is then carried out twice, which comes to the same.
        """
        ends = self._clock.now() + _LEASE_US
        rows: list[OutboxRow] = []
        while (row := self._outbox.lease(ends, ends + 1)) is not None:
            rows.append(row)
        for row in rows:
            self._outbox.release(row)

    def _lease(self, subject: str | None) -> OutboxRow | None:
        now = self._clock.now()
        return self._outbox.lease(now, now + _LEASE_US, subject=subject)

    def _others_are_done(self, subject: str) -> bool:
        """Whether the rows that other processes hold are settled in time."""
        for _ in range(_POLLS):
            if not self._outbox.open_rows(subject):
                return True
            self._pause(_POLL_S)
        return False

    def _one(self, row: OutboxRow) -> bool:
        """Carry out one row; false when nobody is there to take it."""
        effect = _EFFECT.decode(row.body)
        if isinstance(effect, DistrustKeys):
            return self._distrust(effect)
        started = self._clock.now()
        try:
            target = self._target(effect)
            plan = target.observe(effect.subject).plan
            if plan is not None and is_unadopted(plan, effect.adopted):
                # Decided without knowing of it, so older than the adoption: this row is history.
                assert self.adopt is not None
                self.adopt(plan)
                return True
            why_not = self._unfit(plan, effect)
            if why_not:
                # The plan that is in force stays: nothing of this one was told to the target.
                self._report(effect, False, why_not, started)
                return True
            seen = self._watch(target, effect)
        except LocalPlanInForce:
            # Somebody went back by hand between the look and the plan; the next turn begins with that.
            return False
        except Conflict:
            # A newer plan is in force; what this row asks for is history.
            return True
        except Unavailable:
            return False
        except LockgateError as error:
            # Trying again would not help: the plan itself cannot be applied.
            self._report(effect, False, error.message, started)
            return True
        if seen is None:
            return False
        details = [worker.detail for worker in seen.workers if worker.detail]
        detail = "; ".join(details) or f"no answer within {effect.patience_s:g} s"
        self._report(effect, seen.reached(effect.fence), detail, started)
        return True

    def _unfit(self, plan: Plan | None, effect: ApplyPlan) -> str:
        environment = effect.subject.partition("/")[0]
        found = (self._vet(served, environment) for served in brought_in(effect, plan))
        return "; ".join(why for why in found if why)

    def _distrust(self, effect: DistrustKeys) -> bool:
        try:
            for target in self._targets.values():
                target.distrust(effect.key_ids)
        except Unavailable:
            return False
        return True

    def _target(self, effect: ApplyPlan) -> Target:
        if effect.target not in self._targets:
            raise UnknownTarget(
                f"there is no target {effect.target!r}",
                remedy=did_you_mean(effect.target, self._targets),
                target=effect.target,
            )
        return self._targets[effect.target]

    def _watch(self, target: Target, effect: ApplyPlan) -> Observed | None:
        """What the target did with the plan; None when nobody is there to take it."""
        target.apply(plan_of(effect), adopted=effect.adopted)
        seen = target.observe(effect.subject)
        if seen.alive and not seen.settled(effect.fence):
            seen = target.wait(effect.subject, effect.fence, effect.patience_s)
        return seen if seen.alive else None

    def _report(self, effect: ApplyPlan, applied: bool, detail: str, started: Micros) -> None:
        assert self.confirm is not None
        command = ConfirmPlan(
            id=f"confirm:{effect.subject}:{effect.fence}",
            endpoint=effect.subject,
            generation=effect.fence,
            applied=applied,
            detail="" if applied else detail,
            took_us=self._clock.now() - started,
        )
        # Told already, with other figures, when a process died between telling and settling.
        with suppress(CommandIdReused):
            require(self.confirm(command))


def restore_plans(journal: Journal, target: Target) -> None:
    """Give a target that lost its plans (a restored backup, a wiped run directory) those that stand."""

    def known(kind: DocumentKind[D], key: str) -> D | None:
        return body_of(journal, kind, key)

    for stored in journal.documents(ENDPOINT.name):
        endpoint = read_body(ENDPOINT, stored)
        environment = known(ENVIRONMENT, endpoint.endpoint.partition("/")[0])
        rollout = endpoint.rollout
        changing = rollout is not None and rollout.state not in ON_A_STEP
        if environment is None or changing or endpoint.generation == 0:
            continue
        if target.observe(endpoint.endpoint).generation >= endpoint.generation:
            continue
        settings = known(SETTINGS, endpoint.endpoint)
        served = EndpointSettings() if settings is None else settings.settings
        way = None if rollout is None else known(ROLLOUT, release_key(endpoint.endpoint, rollout.release))
        plan = plan_of(standing_plan(environment, endpoint, served, way))
        target.apply(plan, adopted=endpoint.adopted)
