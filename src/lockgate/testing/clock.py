"""Time and ids for tests: both stand still until told otherwise."""

from __future__ import annotations

from lockgate.core.clock import Micros


class FakeClock:
    """Starts at 2026-01-01T00:00:00Z; every look is one microsecond later."""

    def __init__(self, start: Micros = 1_767_225_600_000_000) -> None:
        self._now = start

    def now(self) -> Micros:
        self._now += 1
        return self._now

    def advance(self, *, seconds: float = 0, days: float = 0) -> None:
        self._now += round((seconds + days * 86_400) * 1_000_000)


class CountingIds:
    def __init__(self, prefix: str = "id") -> None:
        self._prefix = prefix
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count:08d}"
