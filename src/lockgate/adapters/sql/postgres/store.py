"""Opening a PostgreSQL store: what a connection must promise, numbered migrations, connections lent to threads.

`synchronous_commit=on` on a server with `fsync` and `full_page_writes`: a commit that returned survives a power cut.
A server without them is refused; what a session may set for itself is set here, whatever the server's default.
"""

from __future__ import annotations

import select
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from lockgate.adapters.sql.postgres.errors import StoreUnsuitable, not_connected, translated
from lockgate.adapters.sql.postgres.recent import Glance, Recent, State, glance_of, state_of
from lockgate.adapters.sql.postgres.schema import MIGRATIONS
from lockgate.adapters.sql.postgres.session import Session, Value
from lockgate.adapters.sql.tables import DOCUMENT, too_new
from lockgate.adapters.sql.turns import Turns
from lockgate.core.errors import Bug
from lockgate.hub.ports import Commit, JournalBusy, StoredDocument

Connection: TypeAlias = Session
Values: TypeAlias = Sequence[Any] | Mapping[str, Any]
Question: TypeAlias = tuple[bytes, Sequence[Any]]
R = TypeVar("R")

_BUSY_S = 30
_N_CONNECTIONS = 12
# So many commands lock the head from the start after one that did not was overtaken by another hub.
_N_LOCKING = 50
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
           set_config('enable_seqscan', 'off', false),
           set_config('plan_cache_mode', 'force_generic_plan', false),
           current_setting('fsync'), current_setting('full_page_writes'), current_setting('server_encoding')
""".encode()
# Any number does that no other program of this database takes: the letters of the name.
_MIGRATING = int.from_bytes(b"lockgate")


class HeadMoved(Exception):
    """Somebody else has written since this thread read the head, which it did not lock."""


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
        self._n_locking = 0
        self._local = threading.local()
        self.close = weakref.finalize(self, _close_all, self._idle)
        self._migrate()

    def rows(self, query: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Ask or do one thing that may be done twice: on the connection this thread holds, or on any."""
        return self._once_more(lambda connection: _rows(connection, query, values))

    def few(self, query: str, values: Sequence[Value]) -> list[tuple[Any, ...]]:
        """As `rows`, for a frequent question with few rows of texts, bytes and bigints."""
        return self._once_more(lambda connection: connection.ask(query.encode(), values))

    def read(
        self, ask: Callable[[str, Any], list[tuple[Any, ...]]], query: str, values: Values
    ) -> list[tuple[Any, ...]]:
        """Ask, by `rows` or by `few`, for documents of the state that this thread reads.

        Raises:
            HeadMoved: nothing held that state, and it is gone.
        """
        state = self.state()
        if state is None or self.is_held():
            return ask(query, values)
        rows = ask(
            f"SELECT {_HEAD}, found.* FROM head LEFT JOIN ({query}) AS found ON true ORDER BY found.key",
            values,
        )
        if state_of(rows[0]) != state:
            raise HeadMoved
        return [row[4:] for row in rows if row[4] is not None]

    @contextmanager
    def glancing(self, command_id: str, documents: Sequence[tuple[str, str]]) -> Iterator[None]:
        """Inside the block, this thread may read what was there when it began, until it writes or takes a snapshot."""
        before = self.glance()
        self._local.glance = self._look(command_id, documents)
        try:
            yield
        finally:
            self._local.glance = before

    def glance(self) -> Glance | None:
        """What this thread may read although it is bound to no state."""
        glance: Glance | None = getattr(self._local, "glance", None)
        return glance

    def _look(self, command_id: str, documents: Sequence[tuple[str, str]]) -> Glance:
        named = [one for one in documents if not self.recent.may_know(*one)]
        rows = self._once_more(lambda connection: _glance(connection, command_id, named))
        glance = glance_of(rows[0], command_id)
        found = {(row[5], row[6]): StoredDocument(*row[5:]) for row in rows if row[5] is not None}
        for one in named:
            self.recent.keep(glance.state, *one, found.get(one))
        return glance

    @contextmanager
    def proposing(
        self, command_id: str, documents: Sequence[tuple[str, str]]
    ) -> Iterator[tuple[Connection, Glance]]:
        """Like `writing`, but without a lock: who writes inside makes sure that the head is still what it was.

        Raises:
            HeadMoved: others write all the time.
        """
        self._must_be_free()
        seen = self.glance()
        if seen is None or seen.command_id != command_id:
            seen = self._look(command_id, documents)
        with self._turns.turn(_BUSY_S):
            # Others may have had their turns since; those of this process have told what they did.
            base = self.recent.led_on(seen) or self.recent.led_on(self._look(command_id, documents))
            if base is None:
                raise HeadMoved
            with self._block(lambda connection: None) as (connection, _):
                self._bind(base.state, is_held=False)
                yield connection, base

    def is_crowded(self) -> bool:
        """Whether others have written in between of late, so that whoever does not lock works in vain."""
        return self._n_locking > 0

    def found_crowded(self) -> None:
        self._n_locking = _N_LOCKING

    @contextmanager
    def writing(self, *along: Question) -> Iterator[tuple[Connection, list[list[tuple[Any, ...]]]]]:
        """A transaction that holds the head lock; rolled back unless the block commits.

        Gives the row of the head and what was asked `along` with the lock, all in one go.
        """
        self._must_be_free()
        self._n_locking = max(0, self._n_locking - 1)
        with (
            self._turns.turn(_BUSY_S),
            self._block(lambda connection: _lock_head(connection, along)) as (connection, answers),
        ):
            self._bind(state_of(answers[0][0]), is_held=True)
            yield connection, answers

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Inside the block, this thread reads the state of one moment."""
        if self._held() is not None:
            yield
            return
        with self._block(_begin_snapshot) as (_, head):
            self._bind(state_of(head), is_held=True)
            yield

    def state(self) -> State | None:
        """The state of the documents that this thread reads; None when it is bound to none."""
        state: State | None = getattr(self._local, "state", None)
        return state

    def is_held(self) -> bool:
        """Whether the state that this thread is bound to stays while it reads it."""
        return bool(self._local.is_held)

    def _bind(self, state: State, *, is_held: bool) -> None:
        self._local.state, self._local.is_held = state, is_held

    def advance(self, transaction: int, commit: Commit) -> None:
        """This thread's transaction was committed: what it reads from now on is bound to nothing."""
        before, self._local.state = self.state(), None
        if before is not None:
            self.recent.advance(before, transaction, commit)

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
            self._local.connection, self._local.glance = connection, None
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
            while True:
                connection = self._idle.pop()
                if not _has_news(connection):
                    return connection, False
                connection.close()
        return self._connect(), True

    def _give_back(self, connection: Connection) -> None:
        # Whatever goes wrong here shows in the state of the connection, which decides whether it is kept.
        with suppress(psycopg.Error):
            status = connection.pgconn.transaction_status
            if status == TransactionStatus.INTRANS:
                # Past psycopg, which forgets what it has prepared whenever it sees a rollback.
                connection.pgconn.exec_(b"ROLLBACK")
            elif status == TransactionStatus.INERROR:
                # Here it does well to: what came after the error was not prepared.
                connection.execute(b"ROLLBACK")
                connection.forget()
        if connection.pgconn.transaction_status == TransactionStatus.IDLE and self.close.alive:
            self._idle.append(connection)
        else:
            connection.close()

    def _connect(self) -> Connection:
        try:
            connection = Session.connect(self._conninfo, autocommit=True, prepare_threshold=2)
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


def _has_news(connection: Connection) -> bool:
    """Whether the server has said something to an idle connection: that it ends it, most likely."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _rows(connection: Connection, query: str, values: Values) -> list[tuple[Any, ...]]:
    return connection.cursor(binary=True).execute(query.encode(), values).fetchall()


_HEAD = "head.seq, head.hash, head.frontier, head.xmin::text"
_READ_HEAD = f"SELECT {_HEAD} FROM head".encode()
_GLANCE = f"SELECT {_HEAD}, (SELECT body FROM receipts WHERE command_id = %s)"
_GLANCE_ALONE = f"{_GLANCE}, NULL FROM head".encode()
_GLANCE_AT = (
    f"{_GLANCE}, found.* FROM head LEFT JOIN ({DOCUMENT} NATURAL JOIN unnest(%s::text[], %s::text[])"
    " AS named (kind, key)) AS found ON true"
).encode()


def _glance(
    connection: Connection, command_id: str, named: Sequence[tuple[str, str]]
) -> list[tuple[Any, ...]]:
    # One statement, hence of one moment.
    if not named:
        return connection.ask(_GLANCE_ALONE, (command_id,))
    kinds, keys = zip(*named, strict=True)
    return connection.ask(_GLANCE_AT, (command_id, kinds, keys))


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
