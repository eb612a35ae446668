"""What the hub needs from outside: a journal that commits, an outbox that remembers, a checkpoint sink.

A journal keeps four things together, in one transaction: events, the documents folded from them, lineage edges,
and the outbox of effects. The contract suite `lockgate.testing.journal_suite` says what every adapter promises.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.errors import Corrupt, Unavailable
from lockgate.core.journal import Checkpoint, Head


class JournalBusy(Unavailable):
    """The head lock could not be had in time."""

    code = "journal.busy"


class JournalUnreadable(Corrupt):
    """The database itself does not open or does not read."""

    code = "journal.unreadable"


class StoredEntry(NamedTuple):
    """One line of the journal: its canonical bytes as written, and its chain hash."""

    seq: int
    body: bytes
    hash: bytes


class StoredDocument(NamedTuple):
    """A document as stored; `parent`, `state` and `digest` are its projected columns."""

    kind: str
    key: str
    rev: int
    fold_version: int
    body: bytes
    parent: str
    state: str
    digest: str


class Edge(NamedTuple):
    source: str
    kind: str
    target: str


class OutboxRow(NamedTuple):
    """An effect to carry out. Rows of one subject are ordered by fence; a newer fence makes older rows moot."""

    id: int
    subject: str
    fence: int
    body: bytes
    attempts: int


class Commit(NamedTuple):
    """All that one command changes.

    Attributes:
        entries: may be more than fit into memory; read once, in order.
        receipts: further ones, of commands that were carried out elsewhere; read once.
        homes: (digest, home) of blobs that the command led to; what is known already stays as it is.
    """

    head: Head
    entries: Iterable[StoredEntry]
    documents: tuple[StoredDocument, ...]
    edges: tuple[Edge, ...]
    effects: tuple[tuple[str, int, bytes], ...]
    command_id: str
    receipt: bytes
    receipts: Iterable[tuple[str, bytes]] = ()
    homes: tuple[tuple[Digest, str], ...] = ()


class Transaction(Protocol):
    """A pass through the journal while holding its head lock."""

    def head(self) -> Head: ...

    def receipt(self, command_id: str) -> bytes | None:
        """The stored receipt of a command that was carried out before."""
        ...

    def expect(self, documents: Iterable[tuple[str, str]], *, new: bool = False) -> None:
        """These (kind, key) are asked for next. A store far away fetches them in one go; no answer changes.

        Args:
            new: there are most likely none yet. Where the lock is not held, the commit may find out.
        """
        ...

    def document(self, kind: str, key: str) -> StoredDocument | None: ...

    def documents(self, kind: str, prefix: str) -> Sequence[StoredDocument]:
        """Documents of a kind whose key starts with `prefix`, in key order."""
        ...

    def commit(self, commit: Commit) -> None:
        """Write everything durably, or nothing. At most once per transaction."""
        ...


class Journal(Protocol):
    """Append-only events with their documents. Safe for threads and processes at once.

    Promises: `transaction` is exclusive among all writers of the store; after `commit` returns, the events
    survive kill -9 and a power cut; leaving the block without commit changes nothing; entries and documents
    read back byte for byte as written; readers see whole commits only.
    """

    def transaction(
        self, command_id: str = "", documents: Iterable[tuple[str, str]] = (), *, hold: bool = True
    ) -> AbstractContextManager[Transaction, bool | None]:
        """Take the head lock. Raises `JournalBusy` when it stays taken.

        Args:
            command_id, documents: the receipt and the documents (kind, key) that are asked for first. A store far
                away fetches them together with the lock; no answer changes.
            hold: false allows a store to hold nothing before the commit. When somebody else has written by then, the
                block is left at once, silently, and nothing is written: the caller begins anew.
        """
        ...

    def snapshot(
        self, command_id: str = "", documents: Iterable[tuple[str, str]] = (), *, hold: bool = True
    ) -> AbstractContextManager[None]:
        """Inside the block, all that this thread reads is of one moment; writers go on meanwhile.

        Args:
            command_id, documents: as for `transaction`; also inside another snapshot, where they are fetched from its
                moment.
            hold: false holds nothing: what is read is of the moment at which the block began, or newer. For whoever
                looks at a command before a `transaction` inside the block decides about it.
        """
        ...

    def head(self) -> Head: ...

    def receipt(self, command_id: str) -> bytes | None: ...

    def entries(self, after: int, limit: int) -> Sequence[StoredEntry]:
        """Entries with `seq > after` in order, at most `limit`."""
        ...

    def document(self, kind: str, key: str) -> StoredDocument | None: ...

    def documents(
        self,
        kind: str,
        prefix: str = "",
        parent: str | None = None,
        *,
        state: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        bodies: bool = True,
    ) -> Sequence[StoredDocument]:
        """Documents of a kind in key order, by key prefix and, when given, by exact parent and state.

        Args:
            after: only keys above this one; with `limit`, one page after the other.
            limit: at most so many; None for all.
            bodies: false leaves the bodies empty, for lists that show projected columns only.
        """
        ...

    def edges(
        self, *, sources: Collection[str] | None = None, targets: Collection[str] | None = None
    ) -> Sequence[Edge]:
        """Lineage edges from any of `sources`, into any of `targets`, or all; sorted, each once."""
        ...


class Outbox(Protocol):
    """Effects that are still to be carried out. At-least-once: whoever carries them out is idempotent."""

    def lease(self, now: Micros, until: Micros, *, subject: str | None = None) -> OutboxRow | None:
        """Take the oldest open row whose lease has run out; nobody else gets it before `until`."""
        ...

    def settle(self, row: OutboxRow) -> None:
        """The effect is done; the row will not be leased again."""
        ...

    def release(self, row: OutboxRow) -> None:
        """Give a row back at once, counting the attempt. Nothing happens when somebody else has it by now."""
        ...

    def open_rows(self, subject: str | None = None) -> int:
        """How many effects (of `subject`) are not settled, leased ones included."""
        ...


class Usage(Protocol):
    """What is remembered of credentials and of people nobody knows, beside the journal because it decides nothing.

    Safe for threads and processes at once. What was told last may be lost in a power cut.
    """

    def used(self, credential: str, at: Micros) -> None:
        """A credential was used; an earlier time than is known changes nothing."""
        ...

    def last_used(self, credentials: Sequence[str]) -> Mapping[str, Micros]:
        """When each was last used, of those that ever were."""
        ...

    def count(self, name: str, n: int) -> None:
        """So many more of what `name` says."""
        ...

    def counted(self) -> Mapping[str, int]: ...


NEVER: Micros = 2**62
"""The time of the next attempt of a delivery that is given up."""


class Delivery(NamedTuple):
    """An event on its way to a subscription: how often it was tried, when next, and what came of it."""

    subscription: str
    seq: int
    attempts: int
    next_at: Micros
    delivered_at: Micros | None
    detail: str

    @property
    def state(self) -> str:
        if self.delivered_at is not None:
            return "delivered"
        return "dead" if self.next_at >= NEVER else "waiting"


class Deliveries(Protocol):
    """Which events are owed to whom, beside the journal. Safe for threads, processes and machines at once.

    Promises: what `owe` returned from survives kill -9 and a power cut; a delivery is claimed by one at a time;
    of one subscription only the oldest that is neither delivered nor given up is ever claimed.
    """

    def followed(self) -> int:
        """Up to which event of the journal it is known who is owed what."""
        ...

    def owe(self, upto: int, deliveries: Sequence[tuple[str, int]]) -> None:
        """Events (subscription, seq) to be delivered, and that the journal was followed up to `upto`: both or
        neither. What is known already stays as it is, and `followed` never goes back."""
        ...

    def claim(self, now: Micros, until: Micros) -> Delivery | None:
        """One that is due, its attempt counted; nobody else gets it before `until`."""
        ...

    def settle(
        self, delivery: Delivery, *, delivered_at: Micros | None, next_at: Micros, detail: str
    ) -> None:
        """What came of a claimed one. Nothing happens when somebody else has claimed it by now."""
        ...

    def reopen(self, subscription: str, seq: int | None) -> None:
        """Try again from the first attempt: one delivery, or (None) all of the subscription that were given up."""
        ...

    def listed(self, subscription: str, limit: int) -> Sequence[Delivery]:
        """The newest, newest first."""
        ...

    def prune(self, before: Micros) -> None:
        """Forget those that were delivered before."""
        ...


class Homes(Protocol):
    """Where blobs are at home (`hub.homes`), beside the documents that a commit writes them with: who brought a blob is
    no decision, and what a list holds stands in no event. Safe for threads and processes at once.

    Promises: what a commit gave a home is seen by whoever sees the commit.
    """

    def of(self, digests: Collection[Digest]) -> Mapping[Digest, Mapping[str, Micros]]:
        """The homes of those blobs that have any, and who brought them, each with when that was; 0 for a home.

        One look-up by an index, however many blobs there are in all.
        """
        ...

    def brought(self, digest: Digest, by: str, at: Micros) -> None:
        """A blob was brought; an earlier time than is known changes nothing.

        Args:
            by: begins with `@`, which no home does.
        """
        ...

    def is_filled(self) -> bool:
        """Whether the homes of everything that was committed before there were any are known."""
        ...

    def fill(self, homes: Collection[tuple[Digest, str]]) -> None:
        """These were at home before. Filled from then on; what is known already stays as it is."""
        ...

    def prune(self, before: Micros) -> None:
        """Forget who brought what before."""
        ...


class Store(NamedTuple):
    """Journal, outbox, usage, deliveries and homes over one database; a commit of the first fills others of them."""

    journal: Journal
    outbox: Outbox
    usage: Usage
    deliveries: Deliveries
    homes: Homes


class CheckpointSink(Protocol):
    """Somewhere the owner of the database cannot rewrite: an append-only file, a locked bucket."""

    def write(self, checkpoint: Checkpoint) -> None:
        """Add a note; returns when it is durable. Raises when it is not, and the next one then says more."""
        ...

    def read(self) -> Sequence[str]:
        """All notes, oldest first."""
        ...

    def last_size(self) -> int:
        """How many entries the last note knows; 0 when there is none."""
        ...
