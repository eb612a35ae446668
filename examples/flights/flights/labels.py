"""The question, in one place: asked an hour before departure, will the flight arrive over 15 minutes late?"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

ASKED_AHEAD = pa.scalar(60 * 60 * 1_000_000, pa.duration("us"))
"""How long before the scheduled departure a prediction is wanted."""

LATE_AFTER_MINUTES = 15
"""A flight that arrives up to this many minutes after the timetable counts as on time."""


def asked_at(flights: pa.Table) -> pa.ChunkedArray:
    """The moment of each question, in UTC: only what was known by then may be used to answer it."""
    return pc.subtract(flights["scheduled_departure_at"], ASKED_AHEAD)


def late(flights: pa.Table) -> pa.ChunkedArray:
    """The answer, true or false; null for a flight that was cancelled or diverted."""
    return pc.greater(flights["arr_delay"], LATE_AFTER_MINUTES)
