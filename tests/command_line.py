"""What a typed command comes to, and the flight that is asked about: for stories of one machine and those of a team."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

OK, BUG, USAGE, REFUSED, NOT_FOUND, CONFLICT, UNAVAILABLE, CORRUPT, WAITING = range(9)

# A flight as its caller knows it, with what version 1 takes from the feature views. Version 2 takes it too: all
# that it adds may be missing.
FLIGHT: dict[str, Any] = {
    "carrier": "UA",
    "origin": "EWR",
    "scheduled_minute": 1095,
    "weekday": 5,
    "scheduled_duration": 214,
    "distance": 1400,
    "origin_delay": 31.5,
    "origin_late_share": 0.45,
    "aircraft_delay": 22.0,
    "aircraft_in_air": True,
}


class Typed(NamedTuple):
    """A command that somebody typed, and what came of it."""

    line: str
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def must(self, code: int, *words: str) -> Typed:
        """It ended with this code, and said each of the words."""
        assert self.code == code, f"lockgate {self.line} ended with {self.code}, not {code}:\n{self.text}"
        for word in words:
            assert word in self.text, f"{word!r} is not in what lockgate {self.line} says:\n{self.text}"
        return self
