"""What PostgreSQL is asked for beyond the suites: settings, migrations, rights, broken connections, secrets."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from postgres import PASSWORD, QUOTED, PostgresServer
from tcp_cut import Cut, cutting

from lockgate.adapters.sql.postgres.errors import CommitUnknown, ConnectionStringInvalid, StoreUnsuitable
from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.adapters.sql.postgres.schema import MIGRATIONS
from lockgate.adapters.sql.tables import StoreTooNew, StoreUnreachable
from lockgate.app.stores import open_store
from lockgate.core.errors import Bug, LockgateError
from lockgate.core.journal import EMPTY_HEAD
from lockgate.core.secrets import NotAReference
from lockgate.hub import audit
from lockgate.hub.messages import Status
from lockgate.hub.ports import Journal, JournalBusy, JournalUnreadable
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import MODEL_NAME, PLATFORM, HubWorld, Story, accepted
from lockgate.testing.journal_suite import commit_of, document, lease, write

pytestmark = pytest.mark.service
PAGE = Path(__file__).parent.parent.parent / "docs" / "postgresql.md"


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Somebody who may do everything to the tables, beside the hub."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


OURS = "application_name = 'lockgate'"
Owner = psycopg.Connection[tuple[object, ...]]


def one(owner: Owner, statement: str) -> object:
    (value,) = owner.execute(statement.encode()).fetchone() or (None,)
    return value


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET body = '' WHERE seq = 1",
        "UPDATE events SET seq = 9",
        "DELETE FROM events",
        "DELETE FROM events WHERE seq = 1",
        "TRUNCATE events",
        "INSERT INTO events VALUES (4, '', '')",
        "INSERT INTO events VALUES (0, '', '')",
        "INSERT INTO events VALUES (1, '', '') ON CONFLICT (seq) DO UPDATE SET body = ''",
    ],
)
def test_events_can_only_be_appended(database: str, owner: Owner, statement: str) -> None:
    journal = open_postgres(database).journal
    write(journal, "c1", bodies=[b"one", b"two"])
    before = journal.entries(0, 10)
    with pytest.raises(psycopg.IntegrityError):
        owner.execute(statement.encode())
    assert journal.entries(0, 10) == before


def test_a_commit_that_does_not_go_on_from_the_head_writes_nothing(database: str) -> None:
    journal, outbox, *_ = open_postgres(database)
    write(journal, "c1", bodies=[b"one"], documents=[document("a")])
    forked = commit_of(
        EMPTY_HEAD, "c2", bodies=[b"other"], documents=[document("b")], effects=[("s", 1, b"")]
    )
    with pytest.raises(psycopg.IntegrityError), journal.transaction() as transaction:
        transaction.commit(forked)
    assert journal.document("thing", "b") is None
    assert outbox.open_rows() == 0
    assert [entry.body for entry in journal.entries(0, 10)] == [b"one"]
    write(journal, "c3")


def test_a_receipt_is_written_once(database: str) -> None:
    journal = open_postgres(database).journal
    write(journal, "c1", receipt=b"first")
    with pytest.raises(psycopg.IntegrityError):
        write(journal, "c1", receipt=b"second")
    assert journal.receipt("c1") == b"first"
    assert journal.head().seq == 1


def test_writing_inside_a_snapshot_is_a_bug(database: str) -> None:
    journal = open_postgres(database).journal
    with journal.snapshot(), pytest.raises(Bug):
        write(journal, "c1")
    write(journal, "c1")


# --- durability ------------------------------------------------------------------------------------------------


def test_commits_are_synchronous_whatever_the_server_is_set_to(
    postgres: PostgresServer, database: str
) -> None:
    journal = open_postgres(database + "%20-csynchronous_commit%3Doff").journal
    with journal.transaction() as transaction:
        shown = transaction._connection.execute(b"SHOW synchronous_commit").fetchone()  # type: ignore[attr-defined]
    assert shown == ("on",)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_would_lose_commits_is_refused(
    postgres: PostgresServer, database: str, setting: str
) -> None:
    postgres.set(setting, "off")
    try:
        with pytest.raises(StoreUnsuitable) as caught:
            open_postgres(database)
    finally:
        postgres.reset(setting)
    assert setting in caught.value.message
    open_postgres(database)


def test_a_database_of_another_encoding_is_refused(postgres: PostgresServer) -> None:
    postgres.administer(
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
    )
    with pytest.raises(StoreUnsuitable, match="LATIN1"):
        open_postgres(postgres.dsn("latin"))


# --- migrations ------------------------------------------------------------------------------------------------


def test_many_hubs_open_a_new_database_at_once(postgres: PostgresServer) -> None:
    for turn in range(3):
        name = f"at_once_{turn}"
        postgres.administer("CREATE SCHEMA {}", "postgres", name)
        start = threading.Barrier(6)

        def open_one(_: int, name: str = name, start: threading.Barrier = start) -> int:
            start.wait(30)
            return open_postgres(postgres.dsn(schema=name)).journal.head().seq

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(open_one, range(6))) == [0] * 6


def test_a_store_opens_again_with_all_that_was_in_it(database: str) -> None:
    journal = open_postgres(database).journal
    write(journal, "c1", bodies=[b"one"], documents=[document("a")], effects=[("s", 1, b"{}")])
    again = open_postgres(database)
    assert again.journal.head() == journal.head()
    assert again.journal.document("thing", "a") == document("a")
    assert again.outbox.open_rows() == 1


def test_a_store_of_a_newer_release_is_left_alone(database: str, owner: Owner) -> None:
    open_postgres(database)
    owner.execute(b"UPDATE store SET version = 99")
    with pytest.raises(StoreTooNew) as caught:
        open_postgres(database)
    assert caught.value.remedy == "upgrade Lockgate"


def test_half_a_migration_is_none(database: str, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (MIGRATIONS[0], b"CREATE TABLE events (again integer)")
    monkeypatch.setattr("lockgate.adapters.sql.postgres.store.MIGRATIONS", broken)
    with pytest.raises(JournalUnreadable):
        open_postgres(database)
    assert one(owner, "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()") == 0
    monkeypatch.undo()
    assert open_postgres(database).journal.head() == EMPTY_HEAD


def test_a_role_with_the_documented_rights_can_do_what_a_hub_does_and_no_more(
    postgres: PostgresServer, database: str, owner: Owner
) -> None:
    open_postgres(database)
    schema = one(owner, "SELECT current_schema()")
    (granting,) = re.findall(r"```sql\n(CREATE ROLE.*?)```", PAGE.read_text(), re.S)
    owner.execute(granting.replace("SCHEMA public", f"SCHEMA {schema}").encode())
    store = open_postgres(postgres.dsn(user="lockgate_hub", password="change-me", schema=str(schema)))
    world = HubWorld(*store[:2])
    command = DeclareModel(id="c1", model="main/x", tier="low", owner="o", purpose="p")
    assert accepted(world.hub(PLATFORM).execute(command)).head == 1
    write(store.journal, "c2", documents=[document("a")], effects=[("s", 1, b"{}")])
    write(store.journal, "c3", documents=[document("a", rev=2)])
    store.outbox.settle(lease(store.outbox, 0, 10))
    allowed = {
        table: {
            right
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
            if one(owner, f"SELECT has_table_privilege('lockgate_hub', '{schema}.{table}', '{right}')")
        }
        for table in ("events", "receipts", "head", "documents", "edges", "outbox", "store")
    }
    assert allowed == {
        "events": {"SELECT", "INSERT"},
        "receipts": {"SELECT", "INSERT"},
        "edges": {"SELECT", "INSERT"},
        "head": {"SELECT", "UPDATE"},
        "documents": {"SELECT", "INSERT", "UPDATE"},
        "outbox": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "store": {"SELECT"},
    }


# --- connections -----------------------------------------------------------------------------------------------


def end_sessions(owner: Owner, condition: str = "true") -> int:
    """Kill every session of the hub's; how many there were."""
    ended = owner.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {OURS} AND {condition}".encode()
    )
    return len(ended.fetchall())


def test_connections_that_died_while_idle_are_replaced_unnoticed(database: str, owner: Owner) -> None:
    journal, outbox, *_ = open_postgres(database)
    write(journal, "c1", effects=[("s", 1, b"{}")])
    for ask in (
        lambda: journal.head().seq,
        lambda: write(journal, "c2"),
        lambda: outbox.lease(0, 10),
        lambda: len(journal.entries(0, 10)),
    ):
        assert end_sessions(owner) >= 1
        ask()
    with journal.snapshot():
        assert journal.head().seq == 2
    assert end_sessions(owner) >= 1
    with journal.snapshot():
        assert journal.head().seq == 2


def test_a_connection_that_dies_under_the_lock_takes_nothing_with_it(database: str, owner: Owner) -> None:
    journal = open_postgres(database).journal
    write(journal, "c1")
    with pytest.raises(StoreUnreachable) as caught, journal.transaction() as transaction:
        end_sessions(owner)
        transaction.document("thing", "a")
    assert caught.value.retryable
    with pytest.raises(StoreUnreachable), journal.snapshot():
        journal.head()
        end_sessions(owner)
        journal.head()
    write(journal, "c2")
    assert journal.head().seq == 2


@pytest.mark.parametrize("n_before", [0, 6])
@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_a_connection_that_dies_during_the_commit_leaves_it_unknown_and_the_retry_safe(
    postgres: PostgresServer, database: str, moment: Cut, n_before: int
) -> None:
    """Also where the statement has been prepared by earlier ones."""

    def declare(number: int, purpose: str) -> DeclareModel:
        return DeclareModel(id=f"c{number}", model=f"main/m{number}", tier="low", owner="o", purpose=purpose)

    with cutting(postgres.port, b"cut here") as proxy:
        world = HubWorld(*open_postgres(database.replace(f":{postgres.port}/", f":{proxy.port}/"))[:2])
        for number in range(n_before):
            accepted(world.hub(PLATFORM).execute(declare(number, "p")))
        command = declare(n_before, "cut here")
        proxy.cut = moment
        with pytest.raises(CommitUnknown) as caught:
            world.hub(PLATFORM).execute(command)
        assert caught.value.retryable
        assert "same id" in caught.value.remedy
        n_written = open_postgres(database).journal.head().seq
        assert n_written == n_before + (0 if moment == "before" else 1)
        receipt = accepted(world.hub(PLATFORM).execute(command))
        assert receipt.head == world.journal.head().seq == n_before + 1
        assert audit.verify(world.journal, (), ()).ok


def test_a_lock_that_does_not_come_is_said_to_be_busy(
    database: str, owner: Owner, eventually: Callable[..., object]
) -> None:
    left, right = open_postgres(database), open_postgres(database)
    waiting = "wait_event_type = 'Lock'"
    with left.journal.transaction(), ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(write, right.journal, "c1")
        eventually(
            lambda: one(
                owner,
                f"SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE {OURS} AND {waiting}",
            )
        )
        with pytest.raises(JournalBusy) as caught:
            stuck.result(30)
        assert caught.value.retryable
        shown = left.journal._store.rows("SHOW lock_timeout")  # type: ignore[attr-defined]
        assert shown == [("30s",)]
    write(right.journal, "c2")
    assert left.journal.head().seq == 1


WAITS = """
import signal, sys
from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.testing.journal_suite import write
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    write(open_postgres(sys.argv[1]).journal, "c1")
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_a_command_that_waits_for_the_lock(
    database: str, owner: Owner, eventually: Callable[..., object]
) -> None:
    store = open_postgres(database)
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND wait_event_type = 'Lock'"
    with store.journal.transaction():
        with subprocess.Popen([sys.executable, "-c", WAITS, database]) as process:
            eventually(lambda: one(owner, waiting))
            process.send_signal(signal.SIGINT)
            # The lock is held all the while, and would be waited for thirty seconds.
            assert process.wait(15) == 130
        # Nor does the server go on with it.
        eventually(lambda: one(owner, waiting) == 0)
    assert store.journal.head() == EMPTY_HEAD
    write(store.journal, "c2")


def test_many_threads_share_few_connections(database: str, owner: Owner) -> None:
    journal = open_postgres(database).journal
    start, n_threads = threading.Barrier(40), 40

    def work(number: int) -> None:
        start.wait(30)
        for turn in range(5):
            write(journal, f"c{number}-{turn}")
            journal.entries(0, 10)

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, range(n_threads)))
    assert journal.head().seq == n_threads * 5
    # Those of a burst are kept for the next one.
    assert 1 <= int(str(one(owner, f"SELECT count(*) FROM pg_stat_activity WHERE {OURS}"))) <= 12


# --- what is read once -----------------------------------------------------------------------------------------


def seen(journal: Journal) -> tuple[int, list[bytes], list[str]]:
    with journal.snapshot():
        one, other = journal.document("thing", "a"), journal.document("thing", "b")
        listed = [f"{each.key}{each.rev}" for each in journal.documents("thing")]
        return journal.head().seq, [each.body for each in (one, other) if each is not None], listed


def test_what_another_hub_changed_is_read_anew(database: str) -> None:
    left, right = open_postgres(database).journal, open_postgres(database).journal
    write(left, "c1", documents=[document("a", body=b"1")])
    assert seen(left) == seen(right) == seen(right) == (1, [b"1"], ["a1"])
    write(right, "c2", documents=[document("a", body=b"2", rev=2)])
    assert seen(left) == seen(right) == (2, [b"2"], ["a2"])
    # A commit without events is one, too.
    write(left, "c3", bodies=[], documents=[document("b", body=b"3")])
    assert seen(left) == seen(right) == seen(left) == (2, [b"2", b"3"], ["a2", "b1"])
    with left.transaction() as transaction:
        assert transaction.document("thing", "b") == document("b", body=b"3")
    with right.transaction() as transaction:
        transaction.document("thing", "c")
        transaction.commit(commit_of(transaction.head(), "c4", documents=[document("c"), document("b")]))
        assert [each.key for each in right.documents("thing")] == ["a", "b", "c"]
    assert seen(left) == seen(right) == (3, [b"2", b"{}"], ["a2", "b1", "c1"])


def test_a_snapshot_stays_at_its_moment_while_its_hub_goes_on(database: str) -> None:
    journal = open_postgres(database).journal
    write(journal, "c1", documents=[document("a", body=b"1")])
    assert seen(journal)[1] == [b"1"]
    with journal.snapshot():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write, journal, "c2", documents=[document("a", body=b"2", rev=2)]).result(30)
            assert pool.submit(seen, journal).result(30)[1] == [b"2"]
        old = journal.document("thing", "a")
        assert old is not None and old.body == b"1"
        assert [each.body for each in journal.documents("thing")] == [b"1"]
    assert seen(journal)[1] == [b"2"]


def test_a_transaction_that_is_given_up_leaves_nothing_behind(database: str) -> None:
    journal = open_postgres(database).journal
    write(journal, "c1", documents=[document("a", body=b"1")])
    seen(journal)
    forked = commit_of(EMPTY_HEAD, "c2", documents=[document("a", body=b"never")])
    with pytest.raises(psycopg.IntegrityError), journal.transaction() as transaction:
        transaction.commit(forked)
    assert seen(journal) == (1, [b"1"], ["a1"])


def test_a_question_asked_again_goes_to_the_server_less_often(database: str) -> None:
    store = open_postgres(database)
    world = HubWorld(store.journal, store.outbox)
    story = Story(world.hub)
    story.found()
    story.release("one", f"{MODEL_NAME}@1.0.0")
    asked: list[str] = []
    once_more = store.journal._store._once_more  # type: ignore[attr-defined]

    def counted(act: object) -> object:
        asked.append(repr(act))
        return once_more(act)

    store.journal._store._once_more = counted  # type: ignore[attr-defined]
    first = story.ask(Status(endpoint=f"prod/{MODEL_NAME}"))
    n_first = len(asked)
    assert story.ask(Status(endpoint=f"prod/{MODEL_NAME}")) == first
    assert len(asked) - n_first <= 2


# --- secrets ---------------------------------------------------------------------------------------------------


def told(error: LockgateError) -> str:
    return "".join(traceback.format_exception(error)) + str(error.record())


@pytest.mark.parametrize(
    "rest,error",
    [
        ("lockgate:hunter2hunter2@{at}/postgres", StoreUnreachable),
        ("lockgate:hunter2hunter2@127.0.0.1:1/postgres", StoreUnreachable),
        ("nobody-hunter2hunter2:x@{at}/postgres", StoreUnreachable),
        ("lockgate:a@hunter2hunter2@{at}/postgres", StoreUnreachable),
        ("lockgate:hunter2hunter2/x@{at}/postgres", LockgateError),
        ("lockgate:%hunter2hunter2@{at}/postgres", ConnectionStringInvalid),
        ("lockgate:{password}@{at}/hunter2hunter2", StoreUnreachable),
        (None, ConnectionStringInvalid),
    ],
)
def test_no_error_tells_the_connection_string(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, rest: str | None, error: type[LockgateError]
) -> None:
    dsn = "host=127.0.0.1 password=a hunter2hunter2"
    if rest is not None:
        dsn = "postgresql://" + rest.format(at=f"127.0.0.1:{postgres.port}", password=QUOTED)
    monkeypatch.setenv("LOCKGATE_TEST_DSN", dsn)
    with pytest.raises(error) as caught:
        open_store("env:LOCKGATE_TEST_DSN", base=Path("/"))
    said = told(caught.value)
    assert "hunter2" not in said and PASSWORD not in said and "s3cret" not in said
    assert "env:LOCKGATE_TEST_DSN" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "rest,why,remedy",
    [
        ("lockgate:wrong@{at}/postgres", "does not accept that user and password", "check what"),
        ("nobody:x@{at}/postgres", "does not accept that user and password", "check what"),
        ("lockgate:{password}@{at}/nothing", "has no such database", "create the database"),
        ("lockgate:{password}@127.0.0.1:1/postgres", "cannot be reached", "check that the server runs"),
        ("lockgate:{password}@nowhere.invalid/postgres", "its host is not known", "check the host"),
        (
            "lockgate:{password}@{at}/postgres?sslmode=require",
            "not as secure as sslmode asks",
            "check sslmode",
        ),
    ],
)
def test_why_there_is_no_connection_is_told_apart(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, rest: str, why: str, remedy: str
) -> None:
    """Whoever sets a hub up and mistypes a password would look for a server that is down."""
    dsn = "postgresql://" + rest.format(at=f"127.0.0.1:{postgres.port}", password=QUOTED)
    monkeypatch.setenv("LOCKGATE_TEST_DSN", dsn)
    with pytest.raises(StoreUnreachable, match=why) as caught:
        open_store("env:LOCKGATE_TEST_DSN", base=Path("/"))
    assert caught.value.remedy.startswith(remedy)


def test_a_connection_string_in_a_configuration_is_refused(database: str) -> None:
    with pytest.raises(NotAReference) as caught:
        open_store(database, base=Path("/"))
    assert "s3cret" not in told(caught.value)


def test_a_file_may_hold_the_connection_string(database: str, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(database + "\n")
    assert open_store("file:dsn", base=tmp_path).journal.head() == EMPTY_HEAD
