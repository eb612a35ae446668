"""Regular expressions of tickets, matched in a number of steps that is known beforehand.

Python's own engine tries one way after the other: `(a+)+$` keeps it busy for years over thirty letters, and a policy is
asked while nobody else can write to the journal. Here a pattern is read by Python's parser and followed along all ways
at once (Thompson, Regular Expression Search Algorithm, CACM 11(6), 1968): a text takes at most one step for each of its
characters and each place in the pattern. What cannot be followed so is refused when the policy is read.
"""

from __future__ import annotations

import re
import re._constants as ops  # type: ignore[import-not-found]  # the parser of `re` itself, so that both read alike
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from lockgate.core.errors import Invalid

MAX_TICKET = 200
"""How long a ticket may be, in characters."""
MAX_PATTERN = 200
MAX_PLACES = 1_000
"""How many places a pattern has at most; `{20}` counts twenty times."""


class PatternRefused(Invalid):
    """The pattern of a ticket cannot be read, or not be matched in a bounded number of steps."""

    code = "governance.ticket-pattern"


class Matched(NamedTuple):
    """Whether a text matches in full, and how many places were looked at to know it."""

    matched: bool
    n_steps: int


class _Place(NamedTuple):
    """A place in a pattern: a character to take, a condition between two, or several ways on.

    `takes` and `holds` are asked about the text and a position in it.
    """

    takes: Callable[[str, int], bool] | None = None
    holds: Callable[[str, int], bool] | None = None
    to: tuple[int, ...] = ()


class TicketPattern:
    """A regular expression as Python writes it, without what looks around or back. Immutable.

    Raises:
        PatternRefused: it is too long, no regular expression, or one with such a part.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._places: list[_Place] = [_Place()]
        parsed = _parsed(text)
        if _size(parsed) > MAX_PLACES:
            raise _refused(text, f"has more than {MAX_PLACES} places", "repeat less often")
        self._start = self._sequence(parsed, 0)

    @property
    def n_places(self) -> int:
        return len(self._places)

    def matches(self, text: str) -> bool:
        """Whether the whole text is matched; nothing longer than a ticket ever is."""
        return self.follow(text).matched

    def follow(self, text: str) -> Matched:
        """The same, with its cost: at most `n_places * (len(text) + 1)` steps."""
        if len(text) > MAX_TICKET:
            return Matched(False, 0)
        n_steps, waiting = 0, [self._start]
        for position in range(len(text) + 1):
            seen: set[int] = set()
            taken: list[int] = []
            while waiting:
                place = waiting.pop()
                if place in seen:
                    continue
                seen.add(place)
                takes, holds, to = self._places[place]
                if takes is not None:
                    if position < len(text) and takes(text, position):
                        taken += to
                elif holds is None or holds(text, position):
                    waiting += to
            n_steps += len(seen)
            if position == len(text):
                return Matched(0 in seen, n_steps)
            waiting = taken
        raise AssertionError("a text has an end")

    def _add(self, **place: Any) -> int:
        self._places.append(_Place(**place))
        return len(self._places) - 1

    def _sequence(self, items: Iterable[tuple[Any, Any]], after: int) -> int:
        """The place where these items begin, which lead to `after`."""
        for kind, what in reversed(list(items)):
            after = self._item(kind, what, after)
        return after

    def _item(self, kind: Any, what: Any, after: int) -> int:
        if kind in _TAKING:
            return self._add(takes=_taker(kind, what), to=(after,))
        if kind is ops.AT:
            return self._add(holds=_HOLDS[what], to=(after,))
        if kind is ops.SUBPATTERN:
            return self._sequence(what[3], after)
        if kind is ops.BRANCH:
            return self._add(to=tuple(self._sequence(branch, after) for branch in what[1]))
        least, most, items = what
        begin = self._again(items, after) if most is ops.MAXREPEAT else after
        for _ in range(0 if most is ops.MAXREPEAT else most - least):
            begin = self._add(to=(self._sequence(items, begin), after))
        for _ in range(least):
            begin = self._sequence(items, begin)
        return begin

    def _again(self, items: Any, after: int) -> int:
        here = self._add()
        self._places[here] = _Place(to=(self._sequence(items, here), after))
        return here


@lru_cache(maxsize=256)
def ticket_pattern(text: str) -> TicketPattern:
    return TicketPattern(text)


def _parsed(text: str) -> Any:
    if len(text) > MAX_PATTERN:
        raise _refused(text[:20] + "...", f"is longer than {MAX_PATTERN} characters", "write a shorter one")
    try:
        parsed = parser.parse(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise _refused(text, f"cannot be read: {error}", "correct the pattern") from error
    if parsed.state.flags & ~re.UNICODE.value:
        raise _refused(text, "has flags of its own", "leave out (?...)")
    _check(text, parsed)
    return parsed


def _check(text: str, items: Any) -> None:
    for kind, what in items:
        if kind in _TAKING or kind is ops.AT:
            continue
        if kind in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            inner = [what[2]]
        elif kind is ops.BRANCH:
            inner = what[1]
        elif kind is ops.SUBPATTERN and not (what[1] or what[2]):
            inner = [what[3]]
        else:
            said = str(kind).lower().replace("_", " ")
            raise _refused(text, f"has a part that looks around or back ({said})", "say it without that part")
        for one in inner:
            _check(text, one)


def _size(items: Any) -> int:
    """How many places it takes, counted before any is made."""
    total = 0
    for kind, what in items:
        if kind in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            least, most, inner = what
            total += (_size(inner) + 1) * (least + 1 if most is ops.MAXREPEAT else most)
        elif kind is ops.BRANCH:
            total += 1 + sum(_size(branch) for branch in what[1])
        elif kind is ops.SUBPATTERN:
            total += _size(what[3])
        else:
            total += 1
    return total


def _refused(text: str, why: str, remedy: str) -> PatternRefused:
    return PatternRefused(f"the ticket pattern {text} {why}", remedy=remedy, pattern=text)


_TAKING = (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN)


def _exactly(written: str) -> Callable[[str, int], bool]:
    """What one class or condition says of a position, as Python's own engine says it."""
    compiled = re.compile(written)
    return lambda text, position: compiled.match(text, position) is not None


_CATEGORIES: Mapping[Any, Callable[[str, int], bool]] = {
    ops.CATEGORY_DIGIT: _exactly(r"\d"),
    ops.CATEGORY_NOT_DIGIT: _exactly(r"\D"),
    ops.CATEGORY_SPACE: _exactly(r"\s"),
    ops.CATEGORY_NOT_SPACE: _exactly(r"\S"),
    ops.CATEGORY_WORD: _exactly(r"\w"),
    ops.CATEGORY_NOT_WORD: _exactly(r"\W"),
}
_HOLDS: Mapping[Any, Callable[[str, int], bool]] = {
    ops.AT_BEGINNING: _exactly("^"),
    ops.AT_BEGINNING_STRING: _exactly(r"\A"),
    ops.AT_END: _exactly("$"),
    ops.AT_END_STRING: _exactly(r"\Z"),
    ops.AT_BOUNDARY: _exactly(r"\b"),
    ops.AT_NON_BOUNDARY: _exactly(r"\B"),
}


def _taker(kind: Any, what: Any) -> Callable[[str, int], bool]:
    if kind is ops.LITERAL:
        return lambda text, position: ord(text[position]) == what
    if kind is ops.NOT_LITERAL:
        return lambda text, position: ord(text[position]) != what
    if kind is ops.ANY:
        return lambda text, position: text[position] != "\n"
    negated = what[0][0] is ops.NEGATE
    members = tuple(_member(*one) for one in (what[1:] if negated else what))
    return lambda text, position: any(one(text, position) for one in members) is not negated


def _member(kind: Any, what: Any) -> Callable[[str, int], bool]:
    if kind is ops.RANGE:
        low, high = what
        return lambda text, position: low <= ord(text[position]) <= high
    if kind is ops.CATEGORY:
        return _CATEGORIES[what]
    return _taker(kind, what)
