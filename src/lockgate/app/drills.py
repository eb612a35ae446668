"""Rehearsals of the way back that a hub was asked for, walked where the data plane is."""

from __future__ import annotations

from collections.abc import Callable

from lockgate.adapters.targets.rehearsal import walk
from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Clock, Ids
from lockgate.core.errors import LockgateError
from lockgate.delivery.drill import not_walked
from lockgate.delivery.messages import DrillFigures, FinishDrill
from lockgate.delivery.ports import Target
from lockgate.delivery.state import ASKED, DRILL, DrillAsked
from lockgate.hub.kernel import Hub, read_body, require
from lockgate.hub.ports import Journal

ASKED_FOR_US = 60_000_000
"""What was asked for longer ago than this is not walked any more: whoever asked waits no longer."""


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
        for stored in self._journal.documents(DRILL.name, state=ASKED):
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
            return not_walked(str(error))
