"""Rehearsals of the way back, where the data plane is: by a verb on its machine, or by the hub there when it was asked.

A drill asks the data plane like a caller, so it takes its port; everything else is files of the run directory.
"""

from __future__ import annotations

from collections.abc import Callable

from lockgate.adapters.targets.rehearsal import Asker, Rehearsal
from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Clock, Ids
from lockgate.core.errors import LockgateError
from lockgate.core.names import parse_endpoint
from lockgate.delivery.messages import DrillFigures, FinishDrill
from lockgate.delivery.ports import Target
from lockgate.delivery.state import DRILL, DrillAsked
from lockgate.hub.kernel import Hub, read_body, require
from lockgate.hub.ports import Journal
from lockgate.registry.packages.package import GOLDEN_PATH, decode_golden, open_package
from lockgate.traffic.errors import TargetUnavailable
from lockgate.traffic.plan import Plan

ASKED_FOR_US = 60_000_000
"""What was asked for longer ago than this is not walked any more: whoever asked waits no longer."""


def walk(
    target: Target, blobs: BlobStore, endpoint: str, *, port: int, first: int, n_flips: int
) -> DrillFigures:
    """Flip the data plane to the version before and back, `n_flips` times each.

    Args:
        first: of the generations that were decided for this drill.
    Raises:
        TargetUnavailable: the data plane is not at the plan that the drill was decided upon.
    """
    plan = _plan_of(target, endpoint, first - 1)
    assert plan.live is not None and plan.previous is not None
    golden = open_package(plan.live, blobs).read(GOLDEN_PATH, blobs)
    # What a caller of today sends.
    row = decode_golden(golden, plan.live).rows[0]
    asker = Asker("127.0.0.1", port, parse_endpoint(endpoint).shown, row)
    try:
        return Rehearsal(target, asker).run(plan, plan.previous, first=first, n_flips=n_flips)
    finally:
        asker.close()


def _plan_of(target: Target, endpoint: str, decided: int) -> Plan:
    plan, shown = target.observe(endpoint).plan, parse_endpoint(endpoint).shown
    if plan is not None and plan.generation != decided:
        raise TargetUnavailable(
            f"the data plane is at plan {plan.generation} of {shown}, and plan {decided} was decided",
            remedy=f"wait until it has taken it: lockgate status {shown}",
            endpoint=endpoint,
        )
    if plan is None or plan.live is None or plan.previous is None:
        raise TargetUnavailable(
            f"the data plane has no plan of {shown} with a version to go back to",
            remedy=f"lockgate status {shown}",
            endpoint=endpoint,
        )
    return plan


class Drills:
    """Walks the drills that a hub was asked for, one look at a time.

    Args:
        hub: of the controller.
        port: where the data plane answers, on this machine; read at each drill.
        republish: puts right what is left behind where a drill could not be walked.
    """

    def __init__(
        self,
        journal: Journal,
        hub: Hub,
        target: Target,
        blobs: BlobStore,
        clock: Clock,
        ids: Ids,
        *,
        port: Callable[[], int],
        republish: Callable[[], object],
    ) -> None:
        self._journal = journal
        self._hub = hub
        self._target = target
        self._blobs = blobs
        self._clock = clock
        self._ids = ids
        self._port = port
        self._republish = republish
        self._since = clock.now()

    def look(self) -> None:
        """Walk what was asked for and tell its figures; one that cannot be walked is told as failed."""
        for stored in self._journal.documents(DRILL.name):
            asked = read_body(DRILL, stored).asked
            # Of what was asked for before this process began, the generations are used up by now.
            if asked is not None and asked.at >= max(self._since, self._clock.now() - ASKED_FOR_US):
                figures = self._walked(stored.key, asked)
                command = FinishDrill(
                    id=self._ids.new(), endpoint=stored.key, drill=asked.drill, figures=figures
                )
                require(self._hub.execute(command))

    def _walked(self, endpoint: str, asked: DrillAsked) -> DrillFigures:
        try:
            return walk(
                self._target,
                self._blobs,
                endpoint,
                port=self._port(),
                first=asked.first,
                n_flips=asked.n_flips,
            )
        except (LockgateError, OSError) as error:
            self._republish()
            return DrillFigures(
                n_flips=0,
                n_requests=0,
                n_failed=0,
                n_wrong=0,
                n_workers=0,
                first_p50_us=0,
                first_p99_us=0,
                all_p50_us=0,
                all_p99_us=0,
                interrupted=str(error),
            )
