from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.adapters.sql.sqlite.store import MIGRATIONS, SqliteStore
from lockgate.adapters.sql.tables import StoreTooNew, StoreUnreachable
from lockgate.core.errors import Bug
from lockgate.core.journal import EMPTY_HEAD, extend
from lockgate.hub.ports import JournalUnreadable, Store
from lockgate.testing.homes_suite import HomesContract
from lockgate.testing.journal_suite import (
    DeliveriesContract,
    JournalContract,
    OutboxContract,
    UsageContract,
    commit_of,
    document,
    write,
)


class TestSqliteJournal(JournalContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Store:
        return open_sqlite(tmp_path / "journal.db")


class TestSqliteOutbox(OutboxContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Store:
        return open_sqlite(tmp_path / "journal.db")


class TestSqliteUsage(UsageContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Store:
        return open_sqlite(tmp_path / "journal.db")


class TestSqliteDeliveries(DeliveriesContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Store:
        return open_sqlite(tmp_path / "journal.db")


class TestSqliteHomes(HomesContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Store:
        return open_sqlite(tmp_path / "journal.db")


WRITE_MANY = """
import sys
from pathlib import Path
from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.testing.journal_suite import write

path, name, n = sys.argv[1:]
sys.stdin.readline()
journal, *_ = open_sqlite(Path(path))
for turn in range(int(n)):
    write(journal, f"{name}-{turn}", bodies=[f"{name}-{turn}".encode()], effects=[(name, turn, b"{}")])
"""


def test_processes_take_turns_from_the_very_first_opening(tmp_path: Path) -> None:
    path, n_each = tmp_path / "journal.db", 20
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE_MANY, str(path), f"p{n}", str(n_each)], stdin=subprocess.PIPE
        )
        for n in range(4)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 4

    journal, outbox, *_ = open_sqlite(path)
    head, seen = EMPTY_HEAD, []
    for entry in journal.entries(0, 1000):
        head = extend(head, entry.body)
        assert entry.hash == head.hash
        seen.append(entry.body.decode())
    assert head == journal.head()
    for n in range(4):
        assert [body for body in seen if body.startswith(f"p{n}-")] == [
            f"p{n}-{turn}" for turn in range(n_each)
        ]
    assert outbox.open_rows() == 4 * n_each


def test_many_threads_open_a_new_store_at_once(tmp_path: Path) -> None:
    for turn in range(5):
        start = threading.Barrier(8)

        def open_one(_: int, start: threading.Barrier = start, turn: int = turn) -> int:
            start.wait(30)
            return open_sqlite(tmp_path / f"{turn}.db").journal.head().seq

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(open_one, range(8))) == [0] * 8


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET body = x'00' WHERE seq = 1",
        "UPDATE events SET seq = 9",
        "DELETE FROM events",
        "DELETE FROM events WHERE seq = 1",
        "INSERT OR REPLACE INTO events VALUES (1, x'00', x'00')",
        "REPLACE INTO events VALUES (1, x'00', x'00')",
        "INSERT INTO events VALUES (4, x'00', x'00')",
        "INSERT INTO events VALUES (0, x'00', x'00')",
        "INSERT INTO events VALUES (1, x'00', x'00') ON CONFLICT(seq) DO UPDATE SET body = x'00'",
    ],
)
def test_events_can_only_be_appended(tmp_path: Path, statement: str) -> None:
    journal, *_ = open_sqlite(tmp_path / "journal.db")
    write(journal, "c1", bodies=[b"one", b"two"])
    before = journal.entries(0, 10)
    connection = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()
    assert journal.entries(0, 10) == before


def test_a_commit_that_does_not_go_on_from_the_head_writes_nothing(tmp_path: Path) -> None:
    journal, outbox, *_ = open_sqlite(tmp_path / "journal.db")
    write(journal, "c1", bodies=[b"one"], documents=[document("a")])
    forked = commit_of(
        EMPTY_HEAD, "c2", bodies=[b"other"], documents=[document("b")], effects=[("s", 1, b"")]
    )
    with pytest.raises(sqlite3.IntegrityError), journal.transaction() as transaction:
        transaction.commit(forked)
    assert journal.document("thing", "b") is None
    assert outbox.open_rows() == 0
    assert [entry.body for entry in journal.entries(0, 10)] == [b"one"]


def test_a_receipt_is_written_once(tmp_path: Path) -> None:
    journal, *_ = open_sqlite(tmp_path / "journal.db")
    write(journal, "c1", receipt=b"first")
    with pytest.raises(sqlite3.IntegrityError):
        write(journal, "c1", receipt=b"second")
    assert journal.receipt("c1") == b"first"
    assert journal.head().seq == 1


def test_a_commit_survives_the_loss_of_power(tmp_path: Path) -> None:
    """What is asked of SQLite; that it keeps its word is not ours to test."""
    connection = SqliteStore(tmp_path / "journal.db").connection()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_store_opens_again_with_all_that_was_in_it(tmp_path: Path) -> None:
    journal, *_ = open_sqlite(tmp_path / "journal.db")
    write(journal, "c1", bodies=[b"one"], documents=[document("a")], effects=[("s", 1, b"{}")])
    again = open_sqlite(tmp_path / "journal.db")
    assert again.journal.head() == journal.head()
    assert again.journal.document("thing", "a") == document("a")
    assert again.outbox.open_rows() == 1


def test_a_store_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    open_sqlite(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreTooNew):
        open_sqlite(path)


@pytest.mark.parametrize(
    "content", [b"this is no database, though it is long enough to be one" * 100, b"SQLite format 3\0"]
)
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with pytest.raises(JournalUnreadable) as caught:
        open_sqlite(path)
    assert caught.value.facts == {"path": str(path)}
    assert path.read_bytes() == content


def test_a_missing_directory_is_not_called_damage(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachable):
        open_sqlite(tmp_path / "nowhere" / "journal.db")


def test_writing_inside_a_snapshot_is_a_bug(tmp_path: Path) -> None:
    journal, *_ = open_sqlite(tmp_path / "journal.db")
    with journal.snapshot(), pytest.raises(Bug):
        write(journal, "c1")
    write(journal, "c1")


def test_half_a_migration_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.db"
    broken = (MIGRATIONS[0] + "CREATE TABLE events (again INTEGER);\n",)
    monkeypatch.setattr("lockgate.adapters.sql.sqlite.store.MIGRATIONS", broken)
    with pytest.raises(JournalUnreadable):
        open_sqlite(path)
    monkeypatch.undo()
    assert open_sqlite(path).journal.head() == EMPTY_HEAD


def test_documents_of_a_parent_are_found_without_a_walk_through_the_kind(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "journal.db")
    journal = SqliteJournal(store)
    write(journal, "c1", documents=[document(f"{n:05}", parent=f"p{n % 500}") for n in range(5_000)])
    n_steps = 0

    def count() -> int:
        nonlocal n_steps
        n_steps += 1
        return 0

    store.connection().set_progress_handler(count, 1)
    found = journal.documents("thing", parent="p7", bodies=False)
    assert [one.key for one in found] == [f"{n:05}" for n in range(7, 5_000, 500)]
    # Twenty or so for each that is found; a walk takes several for each of the five thousand.
    assert n_steps < 500, n_steps
