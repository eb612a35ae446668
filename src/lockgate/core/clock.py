"""Ports for the two things a pure function may not invent: the time and a fresh id.

An instant is an `int`: microseconds since 1970-01-01 UTC. Rooms receive instants as arguments; only the
composition roots hold a clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

Micros = int
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    def now(self) -> Micros:
        """The current instant; never goes backwards within one process."""
        ...


class Ids(Protocol):
    def new(self) -> str:
        """A fresh, globally unique, lexically time-ordered identifier of lower-case letters and digits."""
        ...


def iso(at: Micros) -> str:
    """`2013-11-01T00:00:00.000000Z`, for people and wire formats that want text."""
    return (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_iso(text: str) -> Micros:
    """Inverse of `iso`; any ISO 8601 instant with a zone is accepted.

    Raises:
        ValueError: the text is no instant, or names no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)
