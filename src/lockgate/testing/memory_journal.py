"""Journal and outbox in memory. They pass the same suite as the real ones, so unit tests may trust them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.errors import Bug
from lockgate.core.journal import EMPTY_HEAD, Checkpoint, Head
from lockgate.hub.ports import (
    Commit,
    Delivery,
    Edge,
    JournalBusy,
    OutboxRow,
    Store,
    StoredDocument,
    StoredEntry,
)

_BUSY_S = 30


class MemoryStore:
    """What a process would keep in its database; journal and outbox share it.

    `lock` is the head lock, held for a whole transaction; `latch` is held while a commit changes things and while
    something is read, so that readers meet whole commits only and never wait for a decision.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.latch = threading.RLock()
        self.head: Head = EMPTY_HEAD
        self.entries: list[StoredEntry] = []
        self.documents: dict[tuple[str, str], StoredDocument] = {}
        self.edges: set[Edge] = set()
        self.receipts: dict[str, bytes] = {}
        self.outbox: dict[int, OutboxRow] = {}
        self.leases: dict[int, Micros] = {}
        self.n_outbox = 0
        self.last_used: dict[str, Micros] = {}
        self.counts: dict[str, int] = {}
        self.deliveries: dict[tuple[str, int], Delivery] = {}
        self.followed = 0
        self.homes: dict[Digest, dict[str, Micros]] = {}
        self.filled = False


class MemoryTransaction:
    def __init__(self, journal: MemoryJournal, store: MemoryStore) -> None:
        self._journal = journal
        self._store = store
        self.open = True

    def head(self) -> Head:
        return self._journal.head()

    def receipt(self, command_id: str) -> bytes | None:
        return self._journal.receipt(command_id)

    def expect(self, documents: Iterable[tuple[str, str]], *, new: bool = False) -> None:
        """They are near."""

    def document(self, kind: str, key: str) -> StoredDocument | None:
        return self._journal.document(kind, key)

    def documents(self, kind: str, prefix: str) -> Sequence[StoredDocument]:
        return self._journal.documents(kind, prefix)

    def commit(self, commit: Commit) -> None:
        if not self.open:
            raise Bug("a transaction commits once, inside its block", remedy="report this")
        self.open = False
        with self._store.latch:
            self._write(self._store, commit)

    @staticmethod
    def _write(store: MemoryStore, commit: Commit) -> None:
        store.entries.extend(commit.entries)
        store.head = commit.head
        store.documents.update({(one.kind, one.key): one for one in commit.documents})
        store.edges.update(commit.edges)
        for subject, fence, body in commit.effects:
            store.n_outbox += 1
            store.outbox[store.n_outbox] = OutboxRow(store.n_outbox, subject, fence, body, 0)
        store.receipts[commit.command_id] = commit.receipt
        store.receipts.update(commit.receipts)
        for digest, home in commit.homes:
            store.homes.setdefault(digest, {})[home] = 0


class MemoryJournal:
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    @contextmanager
    def transaction(
        self, command_id: str = "", documents: Iterable[tuple[str, str]] = (), *, hold: bool = True
    ) -> Iterator[MemoryTransaction]:
        if not self.store.lock.acquire(timeout=_BUSY_S):
            raise JournalBusy(f"the head lock stayed taken for {_BUSY_S} s", remedy="try again")
        transaction = MemoryTransaction(self, self.store)
        try:
            yield transaction
        finally:
            transaction.open = False
            self.store.lock.release()

    @contextmanager
    def snapshot(
        self, command_id: str = "", documents: Iterable[tuple[str, str]] = (), *, hold: bool = True
    ) -> Iterator[None]:
        """Makes commits wait, which the real ones do not: a copy of everything would be the other way."""
        if not hold:
            yield
            return
        with self.store.latch:
            yield

    def head(self) -> Head:
        with self.store.latch:
            return self.store.head

    def receipt(self, command_id: str) -> bytes | None:
        with self.store.latch:
            return self.store.receipts.get(command_id)

    def entries(self, after: int, limit: int) -> Sequence[StoredEntry]:
        with self.store.latch:
            return self.store.entries[after : after + limit]

    def document(self, kind: str, key: str) -> StoredDocument | None:
        with self.store.latch:
            return self.store.documents.get((kind, key))

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
        with self.store.latch:
            found = [
                one if bodies else one._replace(body=b"")
                for one in self.store.documents.values()
                if one.kind == kind
                and one.key.startswith(prefix)
                and (after is None or one.key > after)
                and parent in (None, one.parent)
                and state in (None, one.state)
            ]
        return sorted(found, key=lambda one: one.key)[:limit]

    def edges(
        self, *, sources: Collection[str] | None = None, targets: Collection[str] | None = None
    ) -> Sequence[Edge]:
        with self.store.latch:
            return sorted(
                edge
                for edge in self.store.edges
                if (sources is None or edge.source in sources) and (targets is None or edge.target in targets)
            )


class MemoryOutbox:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def lease(self, now: Micros, until: Micros, *, subject: str | None = None) -> OutboxRow | None:
        with self._store.latch:
            for number, row in sorted(self._store.outbox.items()):
                if self._store.leases.get(number, 0) <= now and subject in (None, row.subject):
                    leased = row._replace(attempts=row.attempts + 1)
                    self._store.outbox[number] = leased
                    self._store.leases[number] = until
                    return leased
        return None

    def settle(self, row: OutboxRow) -> None:
        with self._store.latch:
            self._store.outbox.pop(row.id, None)

    def release(self, row: OutboxRow) -> None:
        with self._store.latch:
            held = self._store.outbox.get(row.id)
            if held is not None and held.attempts == row.attempts:
                self._store.leases[row.id] = 0

    def open_rows(self, subject: str | None = None) -> int:
        with self._store.latch:
            return sum(subject in (None, row.subject) for row in self._store.outbox.values())


class MemoryCheckpoints:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def write(self, checkpoint: Checkpoint) -> None:
        self.notes.append(checkpoint.note)

    def read(self) -> Sequence[str]:
        return self.notes

    def last_size(self) -> int:
        return int(self.notes[-1].split("\n")[1]) if self.notes else 0


class MemoryUsage:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def used(self, credential: str, at: Micros) -> None:
        with self._store.latch:
            self._store.last_used[credential] = max(self._store.last_used.get(credential, 0), at)

    def last_used(self, credentials: Sequence[str]) -> Mapping[str, Micros]:
        with self._store.latch:
            known = self._store.last_used
            return {credential: known[credential] for credential in credentials if credential in known}

    def count(self, name: str, n: int) -> None:
        with self._store.latch:
            self._store.counts[name] = self._store.counts.get(name, 0) + n

    def counted(self) -> Mapping[str, int]:
        with self._store.latch:
            return dict(self._store.counts)


class MemoryDeliveries:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def followed(self) -> int:
        return self._store.followed

    def owe(self, upto: int, deliveries: Sequence[tuple[str, int]]) -> None:
        with self._store.latch:
            for name, seq in deliveries:
                self._store.deliveries.setdefault((name, seq), Delivery(name, seq, 0, 0, None, ""))
            self._store.followed = max(self._store.followed, upto)

    def claim(self, now: Micros, until: Micros) -> Delivery | None:
        with self._store.latch:
            heads: dict[str, Delivery] = {}
            for (name, _), one in sorted(self._store.deliveries.items()):
                if one.state == "waiting":
                    heads.setdefault(name, one)
            due = [one for one in heads.values() if one.next_at <= now]
            if not due:
                return None
            chosen = min(due, key=lambda one: (one.next_at, one.seq))
            claimed = chosen._replace(attempts=chosen.attempts + 1, next_at=until)
            self._store.deliveries[chosen.subscription, chosen.seq] = claimed
            return claimed

    def settle(
        self, delivery: Delivery, *, delivered_at: Micros | None, next_at: Micros, detail: str
    ) -> None:
        with self._store.latch:
            key = (delivery.subscription, delivery.seq)
            if self._store.deliveries.get(key) == delivery:
                self._store.deliveries[key] = delivery._replace(
                    delivered_at=delivered_at, next_at=next_at, detail=detail
                )

    def reopen(self, subscription: str, seq: int | None) -> None:
        with self._store.latch:
            for key, one in self._store.deliveries.items():
                wanted = one.state == "dead" if seq is None else one.seq == seq
                if one.subscription == subscription and wanted:
                    self._store.deliveries[key] = Delivery(subscription, one.seq, 0, 0, None, "")

    def listed(self, subscription: str, limit: int) -> Sequence[Delivery]:
        with self._store.latch:
            found = [one for one in self._store.deliveries.values() if one.subscription == subscription]
        return sorted(found, key=lambda one: -one.seq)[:limit]

    def prune(self, before: Micros) -> None:
        with self._store.latch:
            for key, one in list(self._store.deliveries.items()):
                if one.delivered_at is not None and one.delivered_at < before:
                    del self._store.deliveries[key]


class MemoryHomes:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def of(self, digests: Collection[Digest]) -> Mapping[Digest, Mapping[str, Micros]]:
        with self._store.latch:
            known = self._store.homes
            return {digest: dict(known[digest]) for digest in digests if known.get(digest)}

    def brought(self, digest: Digest, by: str, at: Micros) -> None:
        with self._store.latch:
            known = self._store.homes.setdefault(digest, {})
            known[by] = max(known.get(by, 0), at)

    def is_filled(self) -> bool:
        return self._store.filled

    def fill(self, homes: Collection[tuple[Digest, str]]) -> None:
        with self._store.latch:
            for digest, home in homes:
                self._store.homes.setdefault(digest, {})[home] = 0
            self._store.filled = True

    def prune(self, before: Micros) -> None:
        with self._store.latch:
            for digest, known in self._store.homes.items():
                kept = {home: at for home, at in known.items() if not 0 < at < before}
                self._store.homes[digest] = kept


def memory_store() -> Store:
    """All five over one store, which is empty."""
    store = MemoryStore()
    return Store(
        MemoryJournal(store),
        MemoryOutbox(store),
        MemoryUsage(store),
        MemoryDeliveries(store),
        MemoryHomes(store),
    )
