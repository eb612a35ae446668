"""`Journal` on PostgreSQL. The head lock is the lock of the one row of `head`, taken before anything else is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import errors

from lockgate.adapters.sql.postgres.errors import CommitUnknown, TextNotStorable
from lockgate.adapters.sql.postgres.store import Connection, HeadMoved, PostgresStore, Question
from lockgate.adapters.sql.postgres.writing import writing
from lockgate.adapters.sql.tables import (
    AS_DOCUMENT,
    AS_EDGE,
    AS_ENTRY,
    DOCUMENT,
    document_conditions,
    head_of,
)
from lockgate.core.errors import Bug
from lockgate.core.journal import Head
from lockgate.hub.ports import Commit, Edge, StoredDocument, StoredEntry

_COLUMNS = DOCUMENT.replace("body", "''::bytea")
_NUL = "\0"

_ONE = DOCUMENT + "WHERE kind = %s AND key = %s"
_NAMED = DOCUMENT + "WHERE (kind, key) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
_RECEIPT = b"SELECT body FROM receipts WHERE command_id = %s"


class PostgresTransaction:
    def __init__(
        self,
        journal: PostgresJournal,
        store: PostgresStore,
        connection: Connection,
        head: Head,
    ) -> None:
        self._journal = journal
        self._store = store
        self._connection = connection
        self._head = head
        # What was fetched before it was asked for; under the lock it stays as it is.
        self.receipts: dict[str, bytes | None] = {}
        self._documents: dict[tuple[str, str], StoredDocument | None] = {}
        self._assumed: set[tuple[str, str]] = set()
        self.open = True

    def head(self) -> Head:
        return self._head

    def receipt(self, command_id: str) -> bytes | None:
        if command_id in self.receipts:
            return self.receipts[command_id]
        return self._journal.receipt(command_id)

    def expect(self, documents: Iterable[tuple[str, str]], *, new: bool = False) -> None:
        if not self.open:
            return
        state, recent = self._store.state(), self._store.recent
        missing = {
            (kind, key): None
            for kind, key in documents
            if (kind, key) not in self._documents
            and _NUL not in key
            and (state is None or recent.document(state, kind, key) is None)
        }
        if new and not self._store.is_held():
            # Whether there is none is found out when they are written.
            self._documents.update(missing)
            self._assumed.update(missing)
        # One alone is fetched when it is asked for, and what may be new together with the rest.
        elif not new and len(missing) > 1:
            kinds, keys = zip(*missing, strict=True)
            self.fetched(missing, self._store.read(self._store.few, _NAMED, (kinds, keys)))

    def fetched(self, asked: Iterable[tuple[str, str]], rows: Iterable[tuple[object, ...]]) -> None:
        found = {(one.kind, one.key): one for one in map(AS_DOCUMENT, rows)}
        state, recent = self._store.state(), self._store.recent
        for kind, key in asked:
            self._documents[kind, key] = found.get((kind, key))
            if state is not None:
                recent.keep(state, kind, key, found.get((kind, key)))

    def document(self, kind: str, key: str) -> StoredDocument | None:
        if self.open and (kind, key) in self._documents:
            return self._documents[kind, key]
        return self._journal.document(kind, key)

    def documents(self, kind: str, prefix: str) -> Sequence[StoredDocument]:
        return self._journal.documents(kind, prefix)

    def commit(self, commit: Commit) -> None:
        if not self.open:
            raise Bug("a transaction commits once, inside its block", remedy="report this")
        _refuse_nul(commit, self._store.place)
        self.open = False
        try:
            transaction = self._write(commit)
        except psycopg.OperationalError as error:
            if not self._connection.closed:
                raise
            raise CommitUnknown(
                f"the connection to {self._store.place} broke while a command was being written",
                remedy="send it again under the same id: then it is carried out once, whatever happened",
                command=commit.command_id,
            ) from error
        self._store.advance(transaction, commit)

    def _write(self, commit: Commit) -> int:
        """One way to the server and back. Returns the number of the transaction that wrote it.

        Raises:
            HeadMoved: somebody else was faster; nothing was written.
        """
        state = self._store.state()
        assert state is not None
        (statement, values), more = writing(commit, state, lambda one: one[:2] in self._assumed)
        if self._store.is_held():
            with self._connection.pipeline():
                written = self._connection.execute(statement, values)
                for each in more:
                    self._connection.execute(*each)
                self._connection.execute(b"COMMIT")
            rows = written.fetchall()
        elif next(more, None) is not None:
            # What takes several statements is written under the lock.
            raise HeadMoved
        else:
            try:
                rows = self._connection.ask(statement, values)
            except errors.UniqueViolation:
                # A document that was assumed to begin is there already.
                raise HeadMoved from None
        if not rows:
            raise HeadMoved
        return int(rows[0][0])


class PostgresJournal:
    """The journal of a hub for a team; several hubs may share it."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    @contextmanager
    def transaction(
        self, command_id: str = "", documents: Iterable[tuple[str, str]] = (), *, hold: bool = True
    ) -> Iterator[PostgresTransaction]:
        if not (hold or self._store.is_crowded() or _NUL in command_id):
            try:
                yield from self._proposal(command_id, documents)
            except HeadMoved:
                self._store.found_crowded()
            return
        along: list[Question] = []
        if command_id and _NUL not in command_id:
            along.append((_RECEIPT, (command_id,)))
        recent = self._store.recent
        named = [(kind, key) for kind, key in documents if _NUL not in key and not recent.may_know(kind, key)]
        if named:
            along.append(_named(named))
        with self._store.writing(*along) as (connection, ((head,), *answers)):
            transaction = PostgresTransaction(self, self._store, connection, head_of(*head[:3]))
            if named:
                transaction.fetched(named, answers.pop())
            for rows in answers:
                transaction.receipts[command_id] = rows[0][0] if rows else None
            try:
                yield transaction
            finally:
                transaction.open = False

    def _proposal(
        self, command_id: str, documents: Iterable[tuple[str, str]]
    ) -> Iterator[PostgresTransaction]:
        named = [one for one in documents if _NUL not in one[1]]
        with self._store.proposing(command_id, named) as (connection, base):
            transaction = PostgresTransaction(self, self._store, connection, base.head)
            transaction.receipts[command_id] = base.receipt
            try:
                yield transaction
            finally:
                transaction.open = False

    @contextmanager
    def snapshot(
        self, command_id: str = "", documents: Iterable[tuple[str, str]] = (), *, hold: bool = True
    ) -> Iterator[None]:
        if not hold:
            # Where others write all the time, a glance is out of date before it is of use.
            if _NUL in command_id or self._store.is_crowded():
                yield
                return
            with self._store.glancing(command_id, [one for one in documents if _NUL not in one[1]]):
                yield
            return
        with self._store.snapshot():
            self._fetch(documents)
            yield

    def _fetch(self, documents: Iterable[tuple[str, str]]) -> None:
        """Into what is kept of the moment that this thread reads, in one go."""
        state, recent = self._store.state(), self._store.recent
        if state is None:
            return
        missing = [
            (kind, key)
            for kind, key in dict.fromkeys(documents)
            if _NUL not in key and recent.document(state, kind, key) is None
        ]
        if len(missing) > 1:
            kinds, keys = zip(*missing, strict=True)
            rows = self._store.rows(_NAMED, (list(kinds), list(keys)))
            found = {(one.kind, one.key): one for one in map(AS_DOCUMENT, rows)}
            for kind, key in missing:
                recent.keep(state, kind, key, found.get((kind, key)))

    def head(self) -> Head:
        ((seq, last, frontier),) = self._store.rows("SELECT seq, hash, frontier FROM head")
        return head_of(seq, last, frontier)

    def receipt(self, command_id: str) -> bytes | None:
        if _NUL in command_id:
            return None
        glance = self._store.glance()
        if glance is not None and glance.command_id == command_id:
            return glance.receipt
        rows = self._store.few("SELECT body FROM receipts WHERE command_id = %s", (command_id,))
        return rows[0][0] if rows else None

    def entries(self, after: int, limit: int) -> Sequence[StoredEntry]:
        rows = self._store.rows(
            "SELECT seq, body, hash FROM events WHERE seq > %s ORDER BY seq LIMIT %s", (after, limit)
        )
        return list(map(AS_ENTRY, rows))

    def document(self, kind: str, key: str) -> StoredDocument | None:
        if _NUL in key:
            return None
        state, recent = self._store.state(), self._store.recent
        glance = self._store.glance()
        readable = glance.state if state is None and glance is not None else state
        if readable is not None and (kept := recent.document(readable, kind, key)) is not None:
            return kept[0]
        rows = self._store.read(self._store.few, _ONE, (kind, key))
        found = StoredDocument(*rows[0]) if rows else None
        if state is not None:
            recent.keep(state, kind, key, found)
        return found

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
        # No stored text has a NUL in it: none is like such a text, and what comes after one comes after its beginning.
        if any(_NUL in text for text in (prefix, parent or "", state or "")):
            return []
        asked = (prefix, parent, state, after, bodies)
        # Who asks for pages looks at everything, as an audit does, and wants the rows themselves.
        at, recent = self._store.state() if limit is None else None, self._store.recent
        if at is not None and (kept := recent.listed(at, kind, asked)) is not None:
            return list(kept)
        after = None if after is None else after.partition(_NUL)[0]
        wanted = document_conditions(kind, prefix, parent, state, after)
        where = " AND ".join(f"{condition} %s" for condition in wanted)
        rows = self._store.read(
            self._store.rows,
            f"{DOCUMENT if bodies else _COLUMNS} WHERE {where} ORDER BY key LIMIT %s",
            (*wanted.values(), limit),
        )
        found = list(map(AS_DOCUMENT, rows))
        if at is not None:
            recent.keep_list(at, kind, asked, found)
        return found

    def edges(
        self, *, sources: Collection[str] | None = None, targets: Collection[str] | None = None
    ) -> Sequence[Edge]:
        wanted = {
            f"{column} = ANY(%s::text[])": [name for name in names if _NUL not in name]
            for column, names in (("source", sources), ("target", targets))
            if names is not None
        }
        rows = self._store.rows(
            f"SELECT source, kind, target FROM edges WHERE {' AND '.join(wanted) or 'true'}"
            " ORDER BY source, kind, target",
            tuple(wanted.values()),
        )
        return list(map(AS_EDGE, rows))


def _named(documents: Iterable[tuple[str, str]]) -> Question:
    kinds, keys = zip(*documents, strict=True)
    return _NAMED.encode(), (list(kinds), list(keys))


def _refuse_nul(commit: Commit, place: str) -> None:
    rows = (*commit.documents, *commit.edges, *commit.effects, *commit.homes, (commit.command_id,))
    for text in (field for row in rows for field in row):
        if isinstance(text, str) and _NUL in text:
            raise TextNotStorable(
                f"{place} cannot keep {text[:80]!r}: there is a NUL in it",
                remedy="leave the character out",
                text=text[:80],
            )
