"""Documents: the current state, each a fold of the events that touch it.

A room declares its kinds of document once (`state.py`); the kernel folds them inside the transaction that
writes the events, and `audit verify` folds them again from nothing and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from lockgate.core.messages import Event, Stamp
from lockgate.core.names import BadName

D = TypeVar("D")
EventClass: TypeAlias = type[Event]


class Columns(NamedTuple):
    """What lists may filter and show without decoding a body."""

    parent: str = ""
    state: str = ""
    digest: str = ""


@dataclass(frozen=True, eq=False)
class DocumentKind(Generic[D]):
    """One kind of document and how events make it. Events of a class that is named nowhere here are of no concern.

    Attributes:
        name: the kind's word in the glossary, for example `version`.
        type: the frozen struct of its body.
        keys: which documents of this kind an event touches.
        made_by: the classes of events that a document begins with, each with the body after it. They may come
            again; the body before is None the first time.
        changed_by: the classes of events that come later, each with the body after it.
        columns: the projected columns of a body.
        fold_version: raised when a fold changes what it makes of old events.
        edges: the classes of events that add lineage, each with the edges `(source, kind, target)`, in full ref
            form (`snapshot:ID`, `version:KEY`, `endpoint:KEY`).
    """

    name: str
    type: type[D]
    keys: Callable[[Any], tuple[str, ...]]
    made_by: Mapping[EventClass, Callable[[D | None, Any, Stamp], D]]
    changed_by: Mapping[EventClass, Callable[[D, Any, Stamp], D]] = field(default_factory=dict)
    columns: Callable[[D], Columns] = lambda body: Columns()
    fold_version: int = 1
    edges: Mapping[EventClass, Callable[[Any], tuple[tuple[str, str, str], ...]]] = field(
        default_factory=dict
    )


class DocRef(NamedTuple):
    """Names one document, or with `key` ending in `*` all documents of the kind whose key starts so."""

    kind: str
    key: str


class Docs:
    """The documents a decision asked for. Immutable; asking for one that was not declared is a bug."""

    def __init__(self, loaded: Mapping[DocRef, Any]) -> None:
        # A reference equals the pair of its parts, and a decision asks so often that making one each time counts.
        self._loaded: dict[Any, Any] = dict(loaded)

    def get(self, kind: DocumentKind[D], key: str) -> D | None:
        """The body, or None when there is no such document.

        Raises:
            BadName: the key ends in `*`; it came from outside and would name many documents.
        """
        if key.endswith("*"):
            raise BadName(f"{key!r} names no {kind.name}", remedy="leave out the *", value=key)
        try:
            body: D | None = self._loaded[kind.name, key]
        except KeyError:
            raise KeyError(f"{kind.name} {key!r} was not declared by needs()") from None
        return body

    def all(self, kind: DocumentKind[D], prefix: str) -> tuple[D, ...]:
        """All bodies whose key starts with `prefix`, in key order; declared as `PREFIX*`."""
        try:
            bodies: tuple[D, ...] = self._loaded[kind.name, prefix + "*"]
        except KeyError:
            raise KeyError(f"{kind.name} {prefix!r}* was not declared by needs()") from None
        return bodies

    def has(self, ref: DocRef) -> bool:
        return ref in self._loaded

    def with_(self, more: Mapping[DocRef, Any]) -> Docs:
        return Docs({**self._loaded, **more})

    def __iter__(self) -> Iterator[DocRef]:
        return iter(self._loaded)
