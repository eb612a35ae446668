"""Documents: the current state, each a fold of the events that touch it.

A room declares its kinds of document once (`state.py`); the kernel folds them inside the transaction that
writes the events, and `audit verify` folds them again from nothing and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from lockgate.core.messages import Event, Stamp
from lockgate.core.names import BadName

D = TypeVar("D")


class Columns(NamedTuple):
    """What lists may filter and show without decoding a body."""

    parent: str = ""
    state: str = ""
    digest: str = ""


@dataclass(frozen=True, eq=False)
class DocumentKind(Generic[D]):
    """One kind of document and how events make it.

    Attributes:
        name: the kind's word in the glossary, for example `version`.
        type: the frozen struct of its body.
        keys: which documents of this kind an event touches; empty for events of no concern.
        fold: the body after the event; the body is None before the first one.
        columns: the projected columns of a body.
        fold_version: raised when `fold` changes what it makes of old events.
        edges: lineage edges `(source, kind, target)` that an event adds, in full ref form
            (`snapshot:ID`, `version:KEY`, `endpoint:KEY`).
    """

    name: str
    type: type[D]
    keys: Callable[[Event], tuple[str, ...]]
    fold: Callable[[D | None, Event, Stamp], D]
    columns: Callable[[D], Columns] = lambda body: Columns()
    fold_version: int = 1
    edges: Callable[[Event], tuple[tuple[str, str, str], ...]] = lambda event: ()


class DocRef(NamedTuple):
    """Names one document, or with `key` ending in `*` all documents of the kind whose key starts so."""

    kind: str
    key: str


class Docs:
    """The documents a decision asked for. Immutable; asking for one that was not declared is a bug."""

    def __init__(self, loaded: Mapping[DocRef, Any]) -> None:
        self._loaded = dict(loaded)

    def get(self, kind: DocumentKind[D], key: str) -> D | None:
        """The body, or None when there is no such document.

        Raises:
            BadName: the key ends in `*`; it came from outside and would name many documents.
        """
        if key.endswith("*"):
            raise BadName(f"{key!r} names no {kind.name}", remedy="leave out the *", value=key)
        ref = DocRef(kind.name, key)
        if ref not in self._loaded:
            raise KeyError(f"{kind.name} {key!r} was not declared by needs()")
        return cast("D | None", self._loaded[ref])

    def all(self, kind: DocumentKind[D], prefix: str) -> tuple[D, ...]:
        """All bodies whose key starts with `prefix`, in key order; declared as `PREFIX*`."""
        ref = DocRef(kind.name, prefix + "*")
        if ref not in self._loaded:
            raise KeyError(f"{kind.name} {prefix!r}* was not declared by needs()")
        return cast("tuple[D, ...]", self._loaded[ref])

    def has(self, ref: DocRef) -> bool:
        return ref in self._loaded

    def with_(self, more: Mapping[DocRef, Any]) -> Docs:
        return Docs({**self._loaded, **more})

    def __iter__(self) -> Iterator[DocRef]:
        return iter(self._loaded)


class _FieldRead(Exception):
    """Raised by an event that has a class and no content."""


def concerned(
    ask: Callable[[DocumentKind[Any]], Callable[[Event], tuple[Any, ...]]],
    kinds: Iterable[DocumentKind[Any]],
    event: type[Event],
) -> tuple[DocumentKind[Any], ...]:
    """The kinds whose `keys` (or `edges`: what `ask` picks) can name anything for events of a class.

    Found by asking each once with an event that cannot be read: who answers "nothing" has looked at its class alone,
    and will say so of every event of that class. Over a long journal, that is most of the work of folding it.
    """

    def unreadable(self: Event, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise _FieldRead

    namespace = {"__getattribute__": unreadable, "__module__": "hollow"}
    hollow = msgspec.defstruct("Hollow", [], bases=(event,), namespace=namespace, frozen=True, kw_only=True)
    one = cast("Event", hollow(**dict.fromkeys(event.__struct_fields__)))
    found = []
    for kind in kinds:
        try:
            concerns = bool(ask(kind)(one))
        except _FieldRead:
            concerns = True
        if concerns:
            found.append(kind)
    return tuple(found)
