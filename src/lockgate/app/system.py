"""The real clock and real ids. Composition roots hand them to everything else."""

from __future__ import annotations

import os
import threading
import time

from lockgate.core.clock import Micros

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class SystemClock:
    """Wall-clock time that never steps back within the process, whatever the machine's clock does."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def now(self) -> Micros:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last


class SystemIds:
    """Twenty-six characters: 48 bits of milliseconds, then 80 random bits, in base 32; sorts by time."""

    def new(self) -> str:
        number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
        return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
