"""The shadow: a version that is asked what another one answered, and whose answers reach nobody.

A request that was answered leaves a reference in a bounded queue. A thread takes up to `_N_BATCH` of them at a
time, or what gathers in a few hundredths of a second, and asks the shadow once for all their rows. A shadow with
the same inputs gets the very matrix that was answered. Another one encodes the rows itself, and reads features by
key on its own, as of the same moment, because its views may be others. What it says goes into the capture.

Whatever the shadow does stays here: it may raise, be slow or hang, and the only effect is that answers of it are
missing, which is counted.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lockgate.core.clock import Micros
from lockgate.core.errors import LockgateError
from lockgate.registry.packages.contract import Matrix
from lockgate.serving.capture import Capture, Outcome
from lockgate.serving.endpoint import Runtime, ShadowCounts
from lockgate.serving.errors import REFUSALS
from lockgate.traffic.capture import Shadowed

_N_BATCH = 256
_N_BATCH_ROWS = 4_096
_ENTRY_BYTES = 256
_LEAVE_S = 5.0

_LOG = logging.getLogger("lockgate.serving")


class Copy(NamedTuple):
    """A request as the shadow gets it, and where its answer goes.

    Attributes:
        matrix: of the rows, when the shadow makes the same of them as the version that answered; then `rows`
            and `entities` are of no use any more, and empty.
    """

    runtime: Runtime
    capture: Capture
    counts: ShadowCounts
    request_id: str
    rows: list[dict[str, Any]]
    entities: list[dict[str, Any]] | None
    as_of: Micros
    n_bytes: int
    matrix: Matrix | None = None

    @property
    def n_rows(self) -> int:
        return len(self.rows if self.matrix is None else self.matrix)


class Shadow:
    """The thread that asks shadows, for all endpoints of one process.

    Args:
        gather_s: how long a batch that is not full waits for more.
        queue_bytes: of request bodies that may wait; beyond that copies are dropped and counted.
    """

    def __init__(
        self, now: Callable[[], Micros], *, gather_s: float = 0.025, queue_bytes: int = 4 << 20
    ) -> None:
        self._now = now
        self._gather_s = gather_s
        self._queue_bytes = queue_bytes
        self._queue: queue.SimpleQueue[Copy | None] = queue.SimpleQueue()
        self._bytes_in = self._bytes_out = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lockgate-shadow", daemon=True)

    def offer(self, copy: Copy) -> None:
        """Queue a copy, or drop and count it. For the thread that answers; never waits."""
        n_bytes = copy.n_bytes + _ENTRY_BYTES
        if self._bytes_in - self._bytes_out + n_bytes > self._queue_bytes:
            copy.counts.n_dropped += 1
            return
        self._bytes_in += n_bytes
        self._queue.put(copy)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Answer what is queued, then end. A shadow that hangs is left behind: nobody waits for its answer."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(_LEAVE_S)

    def _run(self) -> None:
        going = True
        while going:
            copy = self._queue.get()
            batch: list[Copy] = []
            if copy is not None and self._queue.qsize() < _N_BATCH - 1:
                self._stopping.wait(self._gather_s)
            n_rows = 0
            while copy is not None:
                batch.append(copy)
                n_rows += copy.n_rows
                if len(batch) == _N_BATCH or n_rows >= _N_BATCH_ROWS or self._queue.empty():
                    break
                copy = self._queue.get()
            going = copy is not None
            self._answer(batch)
            self._bytes_out += sum(one.n_bytes + _ENTRY_BYTES for one in batch)

    def _answer(self, batch: Sequence[Copy]) -> None:
        groups: dict[tuple[int, int, bool, bool], list[Copy]] = {}
        for copy in batch:
            asked_alike = (
                id(copy.runtime),
                id(copy.capture),
                copy.entities is None,
                copy.matrix is None,
            )
            groups.setdefault(asked_alike, []).append(copy)
        for group in groups.values():
            capture, counts, digest = group[0].capture, group[0].counts, group[0].runtime.digest
            try:
                answers = _ask(group)
                at = self._now()
                capture.shadowed(
                    [
                        Shadowed(at, copy.request_id, digest, "ok", answer)
                        if isinstance(answer, tuple)
                        else Shadowed(at, copy.request_id, digest, answer, ())
                        for copy, answer in zip(group, answers, strict=True)
                    ]
                )
            except Exception as error:  # noqa: BLE001 - nothing of a shadow reaches further than this
                counts.n_failed += len(group)
                _LOG.error("the shadow of %s failed: %s", capture.endpoint, type(error).__name__)
            else:
                n_ok = sum(isinstance(answer, tuple) for answer in answers)
                counts.n_answered += n_ok
                counts.n_failed += len(group) - n_ok


def _ask(group: Sequence[Copy]) -> list[tuple[float, ...] | Outcome]:
    """Per request its predictions, or the class of why there are none.

    All of them are asked for at once; when that fails, one by one, so that each failure stays with its request.
    """
    runtime = group[0].runtime
    try:
        values = runtime.answer(_matrix(group))
    except LockgateError as error:
        if len(group) == 1:
            return [REFUSALS[type(error)].error_class]
        return [answer for copy in group for answer in _ask([copy])]
    answers: list[tuple[float, ...] | Outcome] = []
    start = 0
    for copy in group:
        answers.append(tuple(values[start : start + copy.n_rows]))
        start += copy.n_rows
    return answers


def _matrix(group: Sequence[Copy]) -> Matrix:
    """Of the rows of all requests."""
    made = [copy.matrix for copy in group if copy.matrix is not None]
    if len(made) == len(group):
        return np.concatenate(made)
    rows = [row for copy in group for row in copy.rows]
    as_of = [copy.as_of for copy in group for _ in copy.rows]
    keys = [key for copy in group for key in copy.entities or ()]
    _, matrix = group[0].runtime.take(rows, None if group[0].entities is None else keys, as_of)
    return matrix
