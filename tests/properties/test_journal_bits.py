"""Every bit of a store that decisions rest on is watched: what `audit verify` must notice, on a real SQLite file.

The owner of a database can drop its triggers, so these tests do, and change one bit. Nothing of it is ever written to
the disk: each change lives in a transaction that is rolled back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.outbox import SqliteOutbox
from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.core.errors import Corrupt
from lockgate.core.journal import EMPTY_HEAD, Checkpoint, extend, sign_checkpoint
from lockgate.core.messages import Event, Stamp
from lockgate.governance.messages import VersionApproved
from lockgate.hub import audit
from lockgate.hub.kernel import Folded, entry_bytes
from lockgate.hub.messages import VerifyAudit
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story
from lockgate.testing.memory_journal import MemoryCheckpoints
from lockgate.testing.notes import TestKey

V1 = f"{MODEL_NAME}@1.0.0"
WATCHED = {
    "events": ("seq", "body", "hash"),
    "head": ("seq", "hash", "frontier"),
    "documents": ("kind", "key", "rev", "fold_version", "body", "parent", "state", "digest"),
    "edges": ("source", "kind", "target"),
}


class Cell(NamedTuple):
    """One value of the store: the row is named by its primary key."""

    table: str
    column: str
    where: str
    row: tuple[object, ...]
    value: object

    @property
    def n_bits(self) -> int:
        return 64 if isinstance(self.value, int) else 8 * len(_bytes(self.value))


class Victim:
    """A store whose triggers are gone."""

    def __init__(self, path: Path, tell: Callable[[Story], None]) -> None:
        self.sink = MemoryCheckpoints()
        store = SqliteStore(path)
        self.journal = SqliteJournal(store)
        self.world = HubWorld(self.journal, SqliteOutbox(store), checkpoints=(self.sink, TestKey()))
        tell(Story(self.world.hub))
        self.connection = store.connection()
        for (trigger,) in self.connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        ).fetchall():
            self.connection.execute(f"DROP TRIGGER {trigger}")

    def cells(self) -> Iterator[Cell]:
        keys = {"events": ("seq",), "head": ("one",), "documents": ("kind", "key"), "edges": WATCHED["edges"]}
        for table, columns in WATCHED.items():
            where = " AND ".join(f"{key} = ?" for key in keys[table])
            for row in self.connection.execute(
                f"SELECT {', '.join((*keys[table], *columns))} FROM {table}"
            ).fetchall():
                n_keys = len(keys[table])
                for column, value in zip(columns, row[n_keys:], strict=True):
                    yield Cell(table, column, where, row[:n_keys], value)

    def flip(self, cell: Cell, bit: int) -> None:
        """Change one bit of a cell."""
        if isinstance(cell.value, int):
            flipped: object = (cell.value ^ 1 << bit) if bit < 63 else cell.value - 2**63
            new = "?"
        else:
            data = bytearray(_bytes(cell.value))
            data[bit // 8] ^= 1 << bit % 8
            flipped, new = bytes(data), "CAST(? AS TEXT)" if isinstance(cell.value, str) else "?"
        changed = self.connection.execute(
            f"UPDATE {cell.table} SET {cell.column} = {new} WHERE {cell.where}", (flipped, *cell.row)
        )
        assert changed.rowcount == 1

    def notices(self, cell: Cell, bit: int) -> bool:
        """Whether the check finds fault after the flip; the flip is undone."""
        self.connection.execute("BEGIN")
        try:
            self.flip(cell, bit)
            return not self.holds()
        except sqlite3.IntegrityError:
            # Two rows of one key: not even the database takes that.
            return True
        finally:
            self.connection.execute("ROLLBACK")

    def holds(self) -> bool:
        """`audit verify`, where an unreadable store counts as fault found."""
        try:
            return bool(self.world.ask(VerifyAudit()).ok)
        except Corrupt:
            return False


def _bytes(value: object) -> bytes:
    assert isinstance(value, str | bytes)
    return value.encode() if isinstance(value, str) else value


def two_events(story: Story) -> None:
    for purpose in ("x", "y"):
        story.do("p", DeclareModel(id=story.new_id(), model="main/m", tier="low", owner="o", purpose=purpose))


def a_release(story: Story) -> None:
    story.found()
    story.release("one", V1)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return Victim(tmp_path_factory.mktemp("released") / "journal.db", a_release)


def test_every_single_bit_of_a_tiny_store(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "journal.db", two_events)
    assert victim.holds()
    bits = [(cell, bit) for cell in victim.cells() for bit in range(cell.n_bits)]
    assert len(bits) > 5000
    unnoticed = [
        (cell.table, cell.column, cell.row, bit) for cell, bit in bits if not victim.notices(cell, bit)
    ]
    assert unnoticed == []
    assert victim.holds()


@settings(max_examples=600)
@given(st.data())
def test_any_bit_of_a_store_with_a_release(released: Victim, data: st.DataObject) -> None:
    cells = [cell for cell in released.cells() if cell.n_bits]
    cell = data.draw(st.sampled_from(cells))
    bit = data.draw(st.integers(0, cell.n_bits - 1))
    assert released.notices(cell, bit)


def test_every_cell_of_a_store_with_a_release(released: Victim) -> None:
    assert released.holds()
    tables = set()
    for cell in released.cells():
        if cell.n_bits:
            tables.add((cell.table, cell.column))
            assert released.notices(cell, 0), cell
    assert tables == {(table, column) for table, columns in WATCHED.items() for column in columns}


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM documents WHERE kind = 'approval'",
        "DELETE FROM events WHERE seq = 5",
        "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)",
        "DELETE FROM edges WHERE kind = 'released_to'",
        "INSERT INTO edges VALUES ('a', 'b', 'c')",
        "INSERT INTO documents SELECT kind, key || 'x', rev, fold_version, body, parent, state, digest FROM documents",
        "UPDATE documents SET body = CAST(replace(body, 'bob', 'cob') AS BLOB) WHERE kind = 'approval'",
        "UPDATE head SET seq = 0, hash = zeroblob(32), frontier = x''",
        "DELETE FROM events",
        "UPDATE events SET seq = seq + 100",
        "UPDATE events SET body = x''",
        "INSERT INTO events SELECT max(seq) + 1, body, hash FROM events",
    ],
)
def test_rows_that_come_or_go_are_noticed(released: Victim, statement: str) -> None:
    released.connection.execute("BEGIN")
    try:
        released.connection.execute(statement)
        assert not released.holds()
    finally:
        released.connection.execute("ROLLBACK")


def test_the_finding_names_the_record(released: Victim) -> None:
    for table, where, name in (
        ("events", "seq = 7", "entry 7"),
        ("documents", f"kind = 'version' AND key = '{V1}'", f"document version {V1}"),
    ):
        released.connection.execute("BEGIN")
        try:
            released.connection.execute(
                f"UPDATE {table} SET body = CAST(replace(body, 'ann', 'bob') AS BLOB) WHERE {where}"
            )
            released.connection.execute(f"UPDATE {table} SET body = CAST(body || ' ' AS BLOB) WHERE {where}")
            answer = released.world.ask(VerifyAudit())
        finally:
            released.connection.execute("ROLLBACK")
        assert not answer.ok
        assert any(name in finding for finding in answer.findings), answer.findings


def rewrite(
    victim: Victim, change: Callable[[Event, Stamp], tuple[Event, Stamp]], *, keep: int = 1000
) -> None:
    """What an owner of the database with time on his hands would do: change the past, and everything after it."""
    head, folded, entries = EMPTY_HEAD, Folded(), []
    for stored in victim.journal.entries(0, keep):
        event, stamp = change(*audit.read_entry(stored))
        body = entry_bytes(event, stamp)
        head = extend(head, body)
        folded.apply(event, stamp)
        entries.append((head.seq, body, head.hash))
    run = victim.connection
    for table in ("events", "documents", "edges"):
        run.execute(f"DELETE FROM {table}")
    run.executemany("INSERT INTO events VALUES (?, ?, ?)", entries)
    run.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", folded.changed())
    run.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?, ?)", folded.edges)
    run.execute(
        "UPDATE head SET seq = ?, hash = ?, frontier = ?", (head.seq, head.hash, b"".join(head.frontier))
    )


def another_approver(event: Event, stamp: Stamp) -> tuple[Event, Stamp]:
    if isinstance(event, VersionApproved):
        return event, msgspec.structs.replace(stamp, actor="mallory")
    return event, stamp


def nothing(event: Event, stamp: Stamp) -> tuple[Event, Stamp]:
    return event, stamp


@pytest.fixture
def signed(released: Victim) -> Iterator[Victim]:
    """The store, with a checkpoint outside; whatever the test changes is undone."""
    released.sink.write(sign_checkpoint(released.journal.head(), TestKey()))
    released.connection.execute("BEGIN")
    yield released
    released.connection.execute("ROLLBACK")
    released.sink.notes.clear()


def test_a_consistent_rewrite_is_caught_by_a_checkpoint_and_by_nothing_else(signed: Victim) -> None:
    rewrite(signed, nothing)
    assert signed.holds()
    rewrite(signed, another_approver)
    answer = signed.world.ask(VerifyAudit())
    n = signed.journal.head().seq
    assert answer.findings == (f"entries 1 to {n} are not those of the signed checkpoint of that size",)
    notes, signed.sink.notes = signed.sink.notes, []
    assert signed.holds()
    signed.sink.notes = notes


def test_a_shortened_journal_is_caught_by_a_checkpoint(signed: Victim) -> None:
    n = signed.journal.head().seq
    rewrite(signed, nothing, keep=n - 3)
    answer = signed.world.ask(VerifyAudit())
    assert answer.findings == (f"a signed checkpoint knows {n} entries, the journal has {n - 3}",)


def test_an_older_checkpoint_holds_for_the_part_it_covers(signed: Victim) -> None:
    head = EMPTY_HEAD
    signed.sink.notes.clear()
    for entry in signed.journal.entries(0, 1000):
        head = extend(head, entry.body)
        signed.sink.write(sign_checkpoint(head, TestKey()))
    answer = signed.world.ask(VerifyAudit())
    assert (answer.ok, answer.checkpoints) == (True, head.seq)
    rewrite(signed, another_approver)
    first = next(
        number
        for number, entry in enumerate(signed.journal.entries(0, 1000), 1)
        if audit.read_entry(entry)[1].actor == "mallory"
    )
    assert len(signed.world.ask(VerifyAudit()).findings) == head.seq - first + 1


def test_a_checkpoint_of_another_key_proves_nothing(signed: Victim) -> None:
    signed.sink.notes[:] = [sign_checkpoint(signed.journal.head(), TestKey(2)).note]
    answer = signed.world.ask(VerifyAudit())
    assert not answer.ok
    assert "checkpoint 1" in answer.findings[0]


def test_every_bit_of_a_checkpoint(signed: Victim) -> None:
    """A flip is noticed, unless it only touches the spare bits of the signature's base64 text."""
    (note,) = signed.sink.notes
    data, harmless = note.encode(), 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            signed.sink.notes[:] = [flipped.decode()]
        except UnicodeDecodeError:
            continue
        if signed.holds():
            assert bit // 8 > data.index(b"\n\n")
            harmless += 1
    assert harmless <= 3
    assert isinstance(sign_checkpoint(signed.journal.head(), TestKey()), Checkpoint)


def test_without_any_checkpoint_nothing_is_claimed(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "journal.db", two_events)
    answer = victim.world.ask(VerifyAudit())
    assert (answer.ok, answer.events, answer.checkpoints) == (True, 2, 0)
    assert answer.head == victim.journal.head().hash.hex()


def test_damage_below_sql_is_noticed(tmp_path: Path) -> None:
    """Bytes of the file itself, as a bad disk changes them: either SQLite or the check objects, or nothing changed."""
    victim = Victim(tmp_path / "journal.db", a_release)
    victim.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    body = victim.journal.entries(6, 1)[0].body
    victim.connection.close()
    file = tmp_path / "journal.db"
    data = bytearray(file.read_bytes())
    at = data.index(body)
    data[at + len(body) // 2] ^= 4
    file.write_bytes(data)
    try:
        store = SqliteStore(file)
        answer = audit.verify(SqliteJournal(store), (), ())
    except (Corrupt, sqlite3.DatabaseError):
        return
    assert not answer.ok
