"""Strict reading of TOML into a struct, with the line and the key of whatever does not fit.

The text of a line is never repeated in a complaint: a secret may stand there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from lockgate.core.errors import did_you_mean

T = TypeVar("T")

_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)\Z")
_ASSIGNED = re.compile(r"\s*([\w\"'./-]+)\s*=")
_HEADER = re.compile(r"\s*\[+\s*(.+?)\s*\]+\s*(?:#.*)?$")
_PART = re.compile(r"\"[^\"]*\"|'[^']*'|[^.]+")
_AT = re.compile(r" - at `\$(?P<path>.*)`\Z")
_STEP = re.compile(r"\.([^.\[]+)|(\[\.\.\.\])|\[(\d+)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]*)`")


class Misfit(ValueError):
    """Where a file does not fit, why, and what to write instead."""

    def __init__(self, line: int, key: str, complaint: str, remedy: str) -> None:
        super().__init__(complaint)
        self.line, self.key, self.complaint, self.remedy = line, key, complaint, remedy


class _Place(NamedTuple):
    keys: list[str]
    type: inspect.Type | None


def read_toml(text: str, kind: type[T]) -> T:
    """The struct that a file holds.

    Raises:
        Misfit: not TOML, an unknown or missing key, a wrong type.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(str(error), text) from error
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), raw, text, kind) from error


def line_of(text: str, keys: Sequence[str]) -> int:
    """The line where `keys` is set, or else where its nearest table begins; 1 when nothing is found."""
    table: list[str] = []
    best, depth = 1, 0
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            here = table = _split(header[1])
        else:
            assigned = _ASSIGNED.match(line)
            here = [*table, *_split(assigned[1])] if assigned else []
        common = 0
        while common < min(len(here), len(keys)) and here[common] == keys[common]:
            common += 1
        if common > depth and common in (len(here), len(keys)):
            best, depth = number, common
    return best


def _split(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in _PART.findall(dotted)]


def _not_toml(message: str, text: str) -> Misfit:
    lines = text.splitlines() or [""]
    at = _PLACE.search(message)
    line = int(at["line"]) if at and at["line"] else len(lines)
    assigned = _ASSIGNED.match(lines[min(line, len(lines)) - 1])
    return Misfit(
        line, assigned[1] if assigned else "", f"not TOML: {_PLACE.sub('', message)}", f"correct line {line}"
    )


def _explained(message: str, raw: Mapping[str, Any], text: str, kind: type[Any]) -> Misfit:
    at = _AT.search(message)
    place = _place(at["path"] if at else "", raw, inspect.type_info(kind))
    keys, complaint = place.keys, _AT.sub("", message)
    unknown, missing = _UNKNOWN.search(message), _MISSING.search(message)
    if unknown:
        known = place.type.fields if isinstance(place.type, inspect.StructType) else ()
        remedy = did_you_mean(unknown["key"], [field.encode_name for field in known])
        keys, complaint = [*keys, unknown["key"]], "unknown key"
    elif missing:
        remedy = f"add {missing['key']} = ... there"
        complaint = f"missing key {missing['key']!r}"
    else:
        remedy = "correct the value"
    return Misfit(line_of(text, keys), ".".join(keys) or "(top level)", complaint, remedy)


def _place(path: str, raw: Any, kind: inspect.Type | None) -> _Place:
    """`.trust[...].keys` to real keys: msgspec does not name the keys of a mapping, the data does."""
    keys: list[str] = []
    for name, of_mapping, index in _STEP.findall(path):
        kind = _inner(kind, name)
        if of_mapping:
            name = _culprit(raw, kind)
        # An item of a list stands where the list does.
        if not index:
            keys.append(name)
        raw = raw.get(name) if isinstance(raw, Mapping) else raw[int(index)] if index else None
    return _Place(keys, kind)


def _inner(kind: inspect.Type | None, name: str) -> inspect.Type | None:
    if isinstance(kind, inspect.UnionType):
        kind = next((one for one in kind.types if not isinstance(one, inspect.NoneType)), None)
    match kind:
        case inspect.StructType():
            return next((field.type for field in kind.fields if field.encode_name == name), None)
        case inspect.DictType():
            return kind.value_type
        case inspect.VarTupleType() | inspect.ListType():
            return kind.item_type
    return None


def _culprit(table: Any, kind: inspect.Type | None) -> str:
    """Which entry of a mapping is the one that does not convert."""
    wanted = kind.cls if isinstance(kind, inspect.StructType) else Any
    for name, value in table.items() if isinstance(table, Mapping) else ():
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            return str(name)
    return next(iter(table), "") if isinstance(table, Mapping) else ""
