"""Strict reading of TOML into a struct, with the line and the key of whatever does not fit.

The text of a line is never repeated in a complaint: a secret may stand there.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, Union

import msgspec
from msgspec import inspect

from lockgate.core.errors import did_you_mean

T = TypeVar("T")

_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)\Z")
_ASSIGNED = re.compile(r"\s*([\w\"'./-]+)\s*=")
_HEADER = re.compile(r"\s*\[+\s*(.+?)\s*\]+\s*(?:#.*)?$")
_PART = re.compile(r"\"[^\"]*\"|'[^']*'|[^.]+")
_AT = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>.*)`\Z")
_NAME = re.compile(r"[^.\[]*")
_INDEX = re.compile(r"\[(\d+)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]*)`")
_CHOICE = re.compile(r"\AInvalid enum value '(?P<value>[^']*)'")
_EXPECTED = re.compile(r"\AExpected `(?P<type>\w+)(?: \| null)?`")
_WRITTEN = {
    "array": "a list: [...]",
    "object": "a table: { ... }",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": 'text in quotes: "..."',
}


class Misfit(ValueError):
    """Where a file does not fit, why, and what to write instead."""

    def __init__(self, line: int, key: str, complaint: str, remedy: str) -> None:
        super().__init__(complaint)
        self.line, self.key, self.complaint, self.remedy = line, key, complaint, remedy

    def said(self, where: str) -> str:
        """Where it is, in the file `where`, and what is wrong there."""
        return f"{where}:{self.line}: " + (f"{self.key}: " if self.key else "") + self.complaint


class _Place(NamedTuple):
    keys: list[str]
    type: inspect.Type | None


def read_toml(text: str, kind: type[T]) -> T:
    """The struct that a file holds.

    Raises:
        Misfit: not TOML, an unknown or missing key, a wrong type, a figure that is not finite.
    """
    return fitted(parse_toml(text), text, kind)


def parse_toml(text: str) -> dict[str, Any]:
    """What a file holds, whatever it is. Raises `Misfit` when it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(str(error), text) from error


def fitted(raw: Mapping[str, Any], text: str, kind: type[T]) -> T:
    """What `parse_toml` gave, as the struct it is; `text` is where it stood. Raises `Misfit`."""
    _finite(raw, [], text)
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
    keys, complaint, remedy = place.keys, _AT.sub("", message), "correct the value"
    unknown, missing = _UNKNOWN.search(message), _MISSING.search(message)
    if at and at["key"]:
        # A key of a mapping that takes some names only; the path leads to the mapping.
        place = place._replace(type=place.type.key_type if isinstance(place.type, inspect.DictType) else None)
    choice, expected = _CHOICE.search(message), _EXPECTED.search(message)
    if unknown:
        known = place.type.fields if isinstance(place.type, inspect.StructType) else ()
        remedy = did_you_mean(unknown["key"], [field.encode_name for field in known])
        keys, complaint = [*keys, unknown["key"]], "unknown key"
    elif missing:
        remedy = f"add {missing['key']} = ... there"
        complaint = f"missing key {missing['key']!r}"
    elif choice and isinstance(place.type, inspect.LiteralType):
        choices = [str(one) for one in place.type.values]
        complaint = f"{choice['value']!r} is none of {', '.join(choices)}"
        remedy = did_you_mean(choice["value"], choices)
    elif expected and expected["type"] in _WRITTEN:
        remedy = f"write {_WRITTEN[expected['type']]}"
    return Misfit(line_of(text, keys), ".".join(keys) or "(top level)", complaint, remedy)


def _finite(value: Any, keys: list[str], text: str) -> None:
    """Refuse `nan` and `inf`: TOML has them, and no figure of these files may be one."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Misfit(line_of(text, keys), ".".join(keys), f"{value} is no figure", "write a finite number")
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = (("", one) for one in value)
    for name, one in items:
        # An item of a list stands where the list does.
        _finite(one, [*keys, name] if name else keys, text)


def _place(path: str, raw: Any, kind: inspect.Type | None) -> _Place:
    """`.trust[...].keys` to real keys: msgspec does not name the keys of a mapping, the data does."""
    keys: list[str] = []
    while path:
        if path.startswith("[...]"):
            kind = _among(kind, inspect.DictType)
            kind = kind.value_type if isinstance(kind, inspect.DictType) else None
            name, path = _culprit(raw, kind), path[len("[...]") :]
        elif index := _INDEX.match(path):
            kind = _among(kind, inspect.VarTupleType, inspect.ListType)
            kind = kind.item_type if isinstance(kind, inspect.VarTupleType | inspect.ListType) else None
            # An item of a list stands where the list does.
            raw, path = raw[int(index[1])], path[index.end() :]
            continue
        else:
            kind = _among(kind, inspect.StructType)
            fields = kind.fields if isinstance(kind, inspect.StructType) else ()
            named = _named(path[1:], fields)
            name = _NAME.findall(path, 1)[0] if named is None else named.encode_name
            kind, path = None if named is None else named.type, path[1 + len(name) :]
        keys.append(name)
        raw = raw.get(name) if isinstance(raw, Mapping) else None
    return _Place(keys, _among(kind, inspect.StructType, inspect.LiteralType, inspect.DictType))


def _named(path: str, fields: Iterable[inspect.Field]) -> inspect.Field | None:
    """The field that a path begins with; a name may hold dots."""
    begun = [
        field
        for field in fields
        if path.startswith(field.encode_name) and path[len(field.encode_name) :][:1] in ("", ".", "[")
    ]
    return max(begun, key=lambda field: len(field.encode_name), default=None)


def _among(kind: inspect.Type | None, *wanted: type[inspect.Type]) -> inspect.Type | None:
    """The member of a union that is one of the wanted sorts; what is no union stays."""
    if isinstance(kind, inspect.UnionType):
        return next((one for one in kind.types if isinstance(one, wanted)), None)
    return kind


def _culprit(table: Any, kind: inspect.Type | None) -> str:
    """Which entry of a mapping is the one that does not convert."""
    wanted = _python(kind)
    for name, value in table.items() if isinstance(table, Mapping) else ():
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            return str(name)
    return next(iter(table), "") if isinstance(table, Mapping) else ""


_PLAIN: dict[type, Any] = {
    inspect.BoolType: bool,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.StrType: str,
    inspect.NoneType: None,
}


def _python(kind: inspect.Type | None) -> Any:
    """A type to convert to, as far as the values of a mapping have one."""
    if isinstance(kind, inspect.StructType):
        return kind.cls
    if isinstance(kind, inspect.UnionType):
        return Union[tuple(_python(one) for one in kind.types)]  # noqa: UP007 - its members are known at run time only
    return _PLAIN.get(type(kind), Any)
