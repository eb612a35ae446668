"""What was read of the documents since the last commit, so that it need not be fetched again.

Every commit writes the row of the head, hence a head names one state of all documents. Whoever has just read the head,
in a snapshot or under its lock, may take from here what was read at the very same head before; a question of a dozen
documents then goes to the server three times instead of fifteen. What was read at another head is never given out.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from lockgate.hub.ports import StoredDocument

_MAX_KEPT = 10_000
_MAX_BODY_BYTES = 64 * 1024
_MAX_LISTED = 200


class State(NamedTuple):
    """A head, and the number of the database transaction that wrote it: also a commit without events has one."""

    seq: int
    hash: bytes
    transaction: int


class Recent:
    """Safe for threads. Each entry belongs to a kind of document, and goes when a document of that kind changes."""

    def __init__(self) -> None:
        self._latch = threading.Lock()
        self._state: State | None = None
        self._documents: dict[tuple[str, str], StoredDocument | None] = {}
        self._lists: dict[str, dict[Hashable, tuple[StoredDocument, ...]]] = {}

    def document(self, state: State, kind: str, key: str) -> tuple[StoredDocument | None] | None:
        """The document in a tuple, since there may be none; or None when it must be read."""
        with self._latch:
            if state != self._state or (kind, key) not in self._documents:
                return None
            return (self._documents[kind, key],)

    def may_know(self, kind: str, key: str) -> bool:
        """Whether it is likely to be here for whoever reads the head next."""
        with self._latch:
            return (kind, key) in self._documents

    def keep(self, state: State, kind: str, key: str, document: StoredDocument | None) -> None:
        if document is not None and len(document.body) > _MAX_BODY_BYTES:
            return
        with self._latch:
            if self._is_at(state):
                self._documents[kind, key] = document

    def listed(self, state: State, kind: str, asked: Hashable) -> tuple[StoredDocument, ...] | None:
        with self._latch:
            return None if state != self._state else self._lists.get(kind, {}).get(asked)

    def keep_list(self, state: State, kind: str, asked: Hashable, found: Sequence[StoredDocument]) -> None:
        if len(found) > _MAX_LISTED or any(len(one.body) > _MAX_BODY_BYTES // 10 for one in found):
            return
        with self._latch:
            if self._is_at(state):
                self._lists.setdefault(kind, {})[asked] = tuple(found)

    def advance(self, before: State, after: State, changed: Iterable[StoredDocument]) -> None:
        """A commit led from one state to the next and changed these documents."""
        with self._latch:
            if self._state != before:
                self._start(after)
            self._state = after
            for one in changed:
                self._lists.pop(one.kind, None)
                self._documents[one.kind, one.key] = one

    def _is_at(self, state: State) -> bool:
        """Whether what was read at `state` may be kept; an older one does not drive out a newer one."""
        if state != self._state and (self._state is None or state.seq >= self._state.seq):
            self._start(state)
        if len(self._documents) > _MAX_KEPT or sum(map(len, self._lists.values())) > _MAX_LISTED:
            self._start(state)
        return state == self._state

    def _start(self, state: State) -> None:
        self._state = state
        self._documents, self._lists = {}, {}


def state_of(row: tuple[Any, ...]) -> State:
    """Of a row of the head: number, hash, frontier, and `xmin`."""
    return State(row[0], row[1], int(row[3]))
