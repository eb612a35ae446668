"""What a target says it really serves. Desired and observed are never the same field.

A release counts as rolled out, or rolled back, only when it was *observed*. A worker process reports in two
places: a few words in the control file (fast, written at the moment of the swap) and a JSON file of its own
for
what does not fit there: why a package did not load, and which ones are loaded (`WorkerReport`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lockgate.core.digests import Digest
from lockgate.traffic.plan import Plan

State = Literal["idle", "loading", "serving", "failed", "gone"]
"""Where a worker is with the newest plan it has seen.

    idle      it has seen no plan of this endpoint
    loading   packages are being loaded; the plan before still answers
    serving   the plan answers
    failed    a routed package could not be loaded; the plan before, if any, still answers
    gone      the process is dead
"""


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process at one endpoint.

    Attributes:
        generation: of the plan that answers now; 0 when none does.
        seen: generation of the newest plan the worker has looked at; `state` is about this one.
        detail: why a load failed (of a routed package when `failed`, else of one kept loaded); empty if none
            did.
        loaded: packages in memory, verified and warmed; as of the worker's last report.
    """

    pid: int
    generation: int
    seen: int
    state: State
    detail: str = ""
    loaded: tuple[Digest, ...] = ()
    n_requests: int = 0


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a target shows for one endpoint at one moment.

    Attributes:
        generation: of the plan in force, 0 without one; workers may still be on their way to it.
        plan: that plan.
        alive: whether at least one process that serves this target lives, whatever it has loaded.
    """

    endpoint: str
    generation: int = 0
    plan: Plan | None = None
    workers: tuple[WorkerState, ...] = ()
    alive: bool = False

    def reached(self, generation: int) -> bool:
        """Whether every living worker answers with that plan or a newer one, and there is one."""
        living = self._living()
        return bool(living) and all(worker.generation >= generation for worker in living)

    def failed(self, generation: int) -> bool:
        """Whether a living worker gave up on exactly that plan."""
        return any(worker.state == "failed" and worker.seen == generation for worker in self._living())

    def settled(self, generation: int) -> bool:
        """Whether no living worker is on its way any more: each reached the plan or gave up on it."""
        living = self._living()
        return bool(living) and all(
            worker.generation >= generation or (worker.state == "failed" and worker.seen >= generation)
            for worker in living
        )

    def _living(self) -> list[WorkerState]:
        return [worker for worker in self.workers if worker.state != "gone"]


class EndpointReport(msgspec.Struct, frozen=True, kw_only=True):
    """The long half of a worker's answer: about the plan `seen`."""

    seen: int
    detail: str = ""
    loaded: tuple[Digest, ...] = ()


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker writes into its own JSON file, replaced as a whole whenever something changed."""

    pid: int
    token: int
    endpoints: dict[str, EndpointReport] = msgspec.field(default_factory=dict)
