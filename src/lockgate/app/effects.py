"""Carrying out what was decided: plans are brought to their target, and what was seen comes back as a command.

At least once, never out of order: a row is leased, the target refuses plans older than the one it has, and the
confirming command has an id made of endpoint and generation, so that telling it twice is telling it once. Whoever
comes by may carry out an effect: the process that decided, the controller of `lockgate up`, or the next command.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from lockgate.core.clock import Clock, Micros
from lockgate.core.errors import Conflict, LockgateError, Unavailable
from lockgate.core.messages import Command, Receipt
from lockgate.delivery.messages import ApplyPlan, ConfirmPlan
from lockgate.delivery.plan import plan_of
from lockgate.delivery.ports import Target
from lockgate.hub.kernel import require
from lockgate.hub.ports import Outbox, OutboxRow
from lockgate.traffic.observed import Observed

_GRACE_US = 5_000_000
_EFFECT = msgspec.json.Decoder(ApplyPlan)


class Execute(Protocol):
    def __call__(self, command: Command) -> Receipt: ...


class EffectRunner:
    """Works through an outbox. `confirm` runs commands as the controller, not as whoever asked."""

    def __init__(self, outbox: Outbox, targets: Mapping[str, Target], clock: Clock) -> None:
        self._outbox = outbox
        self._targets = targets
        self._clock = clock
        self.confirm: Execute | None = None

    def carry_out(self, subject: str | None = None) -> bool:
        """Carry out every open effect (of `subject`); true when none is left that could be tried."""
        while True:
            now = self._clock.now()
            row = self._outbox.lease(now, now + _lease_us(), subject=subject)
            if row is None:
                return self._outbox.open_rows(subject) == 0
            done = False
            try:
                done = self._one(row)
            finally:
                # Also when something broke: whoever comes next need not wait for this lease to run out.
                if not done:
                    self._outbox.release(row)
            if not done:
                return False

    def _one(self, row: OutboxRow) -> bool:
        effect = _EFFECT.decode(row.body)
        target = self._targets[effect.target]
        started = self._clock.now()
        try:
            target.apply(plan_of(effect))
            seen = self._watch(target, effect)
        except Conflict:
            # A newer plan is in force; what this row asks for is history.
            self._outbox.settle(row)
            return True
        except Unavailable:
            return False
        except LockgateError as error:
            # Trying again would not help: the plan itself cannot be applied.
            self._report(effect, False, error.message, started)
            self._outbox.settle(row)
            return True
        if seen is None:
            return False
        details = [worker.detail for worker in seen.workers if worker.detail]
        detail = "; ".join(details) or f"no answer within {effect.patience_s:g} s"
        self._report(effect, seen.reached(effect.fence), detail, started)
        self._outbox.settle(row)
        return True

    def _watch(self, target: Target, effect: ApplyPlan) -> Observed | None:
        """What the target did with the plan; None when nobody is there to take it."""
        seen = target.observe(effect.subject)
        if seen.alive and not seen.settled(effect.fence):
            seen = target.wait(effect.subject, effect.fence, effect.patience_s)
        return seen if seen.alive else None

    def _report(self, effect: ApplyPlan, applied: bool, detail: str, started: Micros) -> None:
        assert self.confirm is not None
        require(
            self.confirm(
                ConfirmPlan(
                    id=f"confirm:{effect.subject}:{effect.fence}",
                    endpoint=effect.subject,
                    generation=effect.fence,
                    applied=applied,
                    detail="" if applied else detail,
                    took_us=self._clock.now() - started,
                )
            )
        )


def _lease_us() -> int:
    """Longer than the longest patience, so that nobody else starts while one process still waits."""
    return 60_000_000 + _GRACE_US
