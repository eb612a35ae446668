"""What was read of the documents since the last commit, so that it need not be fetched again.

Every commit writes the row of the head, hence a head names one state of all documents. Whoever has just read the head,
in a snapshot or under its lock, may take from here what was read at the very same head before; a question of a dozen
documents then goes to the server three times instead of fifteen. What was read at another head is never given out.

Also remembered is how this process itself has led from one state to the next, without anybody else in between: whoever
still looks at one of those may take what has not been changed since.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from lockgate.adapters.sql.tables import head_of
from lockgate.core.journal import Head
from lockgate.hub.ports import Commit, StoredDocument

_MAX_KEPT = 10_000
_MAX_BODY_BYTES = 64 * 1024
_MAX_LISTED = 200
_MAX_PASSED = 1000
_NEVER = 2**62
_UNKNOWN = (_NEVER, None)


class State(NamedTuple):
    """A head, and the number of the database transaction that wrote it: also a commit without events has one."""

    seq: int
    hash: bytes
    transaction: int


class Glance(NamedTuple):
    """The head as somebody saw it who holds no lock on it, and the receipt of a command at that moment."""

    state: State
    head: Head
    command_id: str
    receipt: bytes | None


class Recent:
    """Safe for threads. Each entry belongs to a kind of document, and goes when a document of that kind changes."""

    def __init__(self) -> None:
        self._latch = threading.Lock()
        self._state: State | None = None
        # States are counted; with each thing, since which of them it is known to be as it is.
        self._documents: dict[tuple[str, str], tuple[int, StoredDocument | None]] = {}
        self._lists: dict[str, dict[Hashable, tuple[int, tuple[StoredDocument, ...]]]] = {}
        # The states that this process has led through to the present one, its head, and the receipts on the way.
        self._passed: dict[State, int] = {}
        self._number = 0
        self._head: Head | None = None
        self._receipts: dict[str, bytes] = {}

    def document(self, state: State, kind: str, key: str) -> tuple[StoredDocument | None] | None:
        """The document in a tuple, since there may be none; or None when it must be read."""
        with self._latch:
            since, document = self._documents.get((kind, key), _UNKNOWN)
            return (document,) if since <= self._number_of(state) else None

    def may_know(self, kind: str, key: str) -> bool:
        """Whether it is likely to be here for whoever reads the head next."""
        with self._latch:
            return (kind, key) in self._documents

    def keep(self, state: State, kind: str, key: str, document: StoredDocument | None) -> None:
        if document is not None and len(document.body) > _MAX_BODY_BYTES:
            return
        with self._latch:
            if self._is_at(state):
                self._documents[kind, key] = self._number, document

    def listed(self, state: State, kind: str, asked: Hashable) -> tuple[StoredDocument, ...] | None:
        with self._latch:
            since, found = self._lists.get(kind, {}).get(asked, (_NEVER, ()))
            return found if since <= self._number_of(state) else None

    def keep_list(self, state: State, kind: str, asked: Hashable, found: Sequence[StoredDocument]) -> None:
        if len(found) > _MAX_LISTED or any(len(one.body) > _MAX_BODY_BYTES // 10 for one in found):
            return
        with self._latch:
            if self._is_at(state):
                self._lists.setdefault(kind, {})[asked] = self._number, tuple(found)

    def advance(self, before: State, transaction: int, commit: Commit) -> None:
        """A commit of this process led from one state to the next."""
        after = State(commit.head.seq, commit.head.hash, transaction)
        with self._latch:
            if self._state != before:
                self._start(after)
            if len(self._passed) >= _MAX_PASSED:
                self._passed, self._receipts = {}, {}
            self._passed[before] = self._number
            self._number += 1
            self._receipts[commit.command_id] = commit.receipt
            self._state, self._head = after, commit.head
            for one in commit.documents:
                self._lists.pop(one.kind, None)
                self._documents[one.kind, one.key] = self._number, one

    def led_on(self, seen: Glance) -> Glance | None:
        """What has become of what somebody saw, by way of this process alone; None when that is not known."""
        with self._latch:
            if seen.state in self._passed and self._state is not None and self._head is not None:
                receipt = self._receipts.get(seen.command_id, seen.receipt)
                return Glance(self._state, self._head, seen.command_id, receipt)
            return seen if self._is_at(seen.state) else None

    def _number_of(self, state: State) -> int:
        return self._number if state == self._state else self._passed.get(state, -1)

    def _is_at(self, state: State) -> bool:
        """Whether what was read at `state` may be kept; an older one does not drive out a newer one."""
        is_newer = self._state is None or (state.seq >= self._state.seq and state not in self._passed)
        if state != self._state and is_newer:
            self._start(state)
        if len(self._documents) > _MAX_KEPT or sum(map(len, self._lists.values())) > _MAX_LISTED:
            self._start(state)
        return state == self._state

    def _start(self, state: State) -> None:
        self._state, self._head = state, None
        self._documents, self._lists = {}, {}
        self._passed, self._receipts = {}, {}


def state_of(row: Sequence[Any]) -> State:
    """Of a row of the head: number, hash, frontier, and `xmin`."""
    return State(row[0], row[1], int(row[3]))


def glance_of(row: Sequence[Any], command_id: str) -> Glance:
    """Of a row of the head with a receipt behind it."""
    return Glance(state_of(row), head_of(*row[:3]), command_id, row[4])
