"""Opening a PostgreSQL store: what a connection must promise, numbered migrations, connections lent to threads.

`synchronous_commit=on` on a server with `fsync` and `full_page_writes`: a commit that returned survives a power cut.
A server without them is refused; what a session may set for itself is set here, whatever the server's default.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from lockgate.adapters.sql.postgres.errors import StoreUnsuitable, not_connected, translated
from lockgate.adapters.sql.postgres.recent import Recent, State, state_of
from lockgate.adapters.sql.postgres.schema import MIGRATIONS
from lockgate.adapters.sql.tables import too_new
from lockgate.adapters.sql.turns import Turns
from lockgate.core.errors import Bug
from lockgate.core.journal import Head
from lockgate.hub.ports import JournalBusy, StoredDocument

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Values: TypeAlias = Sequence[Any] | Mapping[str, Any]
Question: TypeAlias = tuple[bytes, Sequence[Any]]
R = TypeVar("R")

_BUSY_S = 30
_N_CONNECTIONS = 12
# Asked of the network where the connection string says nothing else: a dead peer is noticed within a minute.
_DEFAULTS = {
    "application_name": "lockgate",
    "client_encoding": "utf8",
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# A hub that hangs with the head lock in its hands is cut off; PostgreSQL then frees the lock.
_SETTLE = f"""
    SELECT set_config('synchronous_commit',
               CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END,
               false),
           set_config('lock_timeout', '{_BUSY_S}s', false),
           set_config('statement_timeout', '{2 * _BUSY_S}s', false),
           set_config('idle_in_transaction_session_timeout', '{2 * _BUSY_S}s', false),
           set_config('jit', 'off', false),
           current_setting('fsync'), current_setting('full_page_writes'), current_setting('server_encoding')
""".encode()
# Any number does that no other program of this database takes: the letters of the name.
_MIGRATING = int.from_bytes(b"lockgate")


class PostgresStore:
    """One database. Safe for threads (each has a connection while it needs one), processes and machines.

    A connection that died (a restart of the server, a failover) is replaced when it is next used; what was asked for
    is asked again when nothing can have happened yet.

    Args:
        dsn: the connection string. It may hold a password, so no error repeats it.
        place: what errors call this store.

    Raises:
        StoreUnreachable: no connection is to be had.
        StoreUnsuitable: the server would lose or change what it acknowledged.
        StoreTooNew: a newer Lockgate made it.
    """

    def __init__(self, dsn: str, *, place: str) -> None:
        self.place = place
        self._conninfo = _complete(dsn, place)
        self._turns = Turns()
        self._seats = threading.BoundedSemaphore(_N_CONNECTIONS)
        self._idle: list[Connection] = []
        self.recent = Recent()
        self._local = threading.local()
        self.close = weakref.finalize(self, _close_all, self._idle)
        self._migrate()

    def rows(self, query: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Ask or do one thing that may be done twice: on the connection this thread holds, or on any."""
        return self._once_more(lambda connection: _rows(connection, query, values))

    @contextmanager
    def writing(self, *along: Question) -> Iterator[tuple[Connection, list[list[tuple[Any, ...]]]]]:
        """A transaction that holds the head lock; rolled back unless the block commits.

        Gives the row of the head and what was asked `along` with the lock, all in one go.
        """
        self._must_be_free()
        with (
            self._turns.turn(_BUSY_S),
            self._block(lambda connection: _lock_head(connection, along)) as (connection, answers),
        ):
            self._local.state = state_of(answers[0][0])
            yield connection, answers

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Inside the block, this thread reads the state of one moment."""
        if self._held() is not None:
            yield
            return
        with self._block(_begin_snapshot) as (_, head):
            self._local.state = state_of(head)
            yield

    def state(self) -> State | None:
        """The state of the documents that this thread reads; None when it is bound to none."""
        state: State | None = getattr(self._local, "state", None)
        return state

    def advance(self, head: Head, transaction: int, changed: Iterable[StoredDocument]) -> None:
        """This thread's transaction was committed: what it reads from now on is bound to nothing."""
        before, self._local.state = self.state(), None
        if before is not None:
            self.recent.advance(before, State(head.seq, head.hash, transaction), changed)

    def _held(self) -> Connection | None:
        held: Connection | None = getattr(self._local, "connection", None)
        return held

    def _must_be_free(self) -> None:
        if self._held() is not None:
            raise Bug("a thread writes inside a transaction or snapshot of its own", remedy="report this")

    @contextmanager
    def _block(self, begin: Callable[[Connection], R]) -> Iterator[tuple[Connection, R]]:
        with self._seat():
            connection, first = self._begun(begin)
            self._local.connection = connection
            try:
                yield connection, first
            except psycopg.Error as error:
                raise translated(error, self.place) from error
            finally:
                self._local.connection = self._local.state = None
                self._give_back(connection)

    def _once_more(self, act: Callable[[Connection], R]) -> R:
        held = self._held()
        if held is not None:
            try:
                return act(held)
            except psycopg.Error as error:
                raise translated(error, self.place) from error
        with self._seat():
            connection, answer = self._begun(act)
            self._give_back(connection)
            return answer

    def _begun(self, act: Callable[[Connection], R]) -> tuple[Connection, R]:
        """A connection on which `act` has been done; a connection that died while it was idle is no reason to fail."""
        connection, is_fresh = self._take()
        try:
            return connection, act(connection)
        except psycopg.Error as error:
            died = connection.closed
            self._give_back(connection)
            if not died or is_fresh:
                raise translated(error, self.place) from error
        # The others died with it, most likely; a fresh one shows how things are.
        _close_all(self._idle)
        connection, _ = self._take()
        try:
            return connection, act(connection)
        except psycopg.Error as error:
            self._give_back(connection)
            raise translated(error, self.place) from error

    @contextmanager
    def _seat(self) -> Iterator[None]:
        if not self._seats.acquire(timeout=_BUSY_S):
            raise JournalBusy(
                f"{self.place} stayed busy for {_BUSY_S} s", remedy="try again", path=self.place
            )
        try:
            yield
        finally:
            self._seats.release()

    def _take(self) -> tuple[Connection, bool]:
        """A connection, and whether it is a fresh one."""
        with suppress(IndexError):
            return self._idle.pop(), False
        return self._connect(), True

    def _give_back(self, connection: Connection) -> None:
        # Whatever goes wrong here shows in the state of the connection, which decides whether it is kept.
        with suppress(psycopg.Error):
            if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                connection.execute(b"ROLLBACK")
        if connection.info.transaction_status == TransactionStatus.IDLE and self.close.alive:
            self._idle.append(connection)
        else:
            connection.close()

    def _connect(self) -> Connection:
        try:
            connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=2)
        except psycopg.Error as error:
            raise not_connected(error, self.place) from None
        try:
            *_, fsync, full_pages, encoding = connection.execute(_SETTLE).fetchone() or ()
            self._require(
                fsync == "on", "fsync is off: it would lose commits in a power cut", "set fsync = on"
            )
            self._require(
                full_pages == "on",
                "full_page_writes is off: a power cut would damage it",
                "set full_page_writes = on",
            )
            self._require(
                encoding == "UTF8", f"its encoding is {encoding}", "create the database with ENCODING 'UTF8'"
            )
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.Error):
                raise translated(error, self.place) from error
            raise
        return connection

    def _require(self, holds: bool, why: str, remedy: str) -> None:
        if not holds:
            raise StoreUnsuitable(
                f"{self.place} cannot hold a journal: {why}", remedy=remedy, path=self.place
            )

    def _migrate(self) -> None:
        if self._version() == len(MIGRATIONS):
            return
        with self._block(_begin_migration) as (connection, _):
            # Somebody else may have migrated while this process waited for the lock.
            version = self._version()
            if version == 0:
                connection.execute(b"CREATE TABLE store (version bigint NOT NULL)")
                connection.execute(b"INSERT INTO store VALUES (0)")
            for script in MIGRATIONS[version:]:
                connection.execute(script)
            connection.execute(b"UPDATE store SET version = %s", (len(MIGRATIONS),))
            connection.execute(b"COMMIT")

    def _version(self) -> int:
        # Read as a row: `to_regclass` may answer from what this session knew before it waited for the lock.
        ((exists,),) = self.rows(
            "SELECT count(*) > 0 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'store'"
        )
        if not exists:
            return 0
        ((version,),) = self.rows("SELECT version FROM store")
        if version > len(MIGRATIONS):
            raise too_new(self.place, version, len(MIGRATIONS))
        return int(version)


def _rows(connection: Connection, query: str, values: Values) -> list[tuple[Any, ...]]:
    return connection.cursor(binary=True).execute(query.encode(), values).fetchall()


_READ_HEAD = b"SELECT seq, hash, frontier, xmin::text FROM head"


_LOCK_HEAD = b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; " + _READ_HEAD + b" FOR UPDATE"


def _lock_head(connection: Connection, along: Sequence[Question]) -> list[list[tuple[Any, ...]]]:
    # One message to the server for all; READ COMMITTED, so that what is read after the lock is what it protects.
    cursor = psycopg.ClientCursor(connection)
    cursor.execute(
        b"; ".join((_LOCK_HEAD, *(query for query, _ in along))),
        [value for _, values in along for value in values],
    )
    answers = []
    while cursor.nextset():
        answers.append(cursor.fetchall())
    return answers


def _begin_snapshot(connection: Connection) -> tuple[Any, ...]:
    # It holds no lock that a writer needs, so it may take its time between two questions.
    cursor = connection.execute(
        b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
        b" SET LOCAL idle_in_transaction_session_timeout = 0; " + _READ_HEAD
    )
    cursor.nextset()
    cursor.nextset()
    (head,) = cursor.fetchall()
    return head


def _begin_migration(connection: Connection) -> None:
    connection.execute(b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = 0")
    connection.execute(b"SELECT pg_advisory_xact_lock(%s)", (_MIGRATING,))


def _close_all(idle: list[Connection]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop().close()


def _complete(dsn: str, place: str) -> str:
    try:
        given = conninfo_to_dict(dsn)
        return make_conninfo(dsn, **{name: value for name, value in _DEFAULTS.items() if name not in given})
    except psycopg.Error as error:
        raise not_connected(error, place) from None
