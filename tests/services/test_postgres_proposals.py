"""What is decided without the head lock: it is written when nobody came in between, and else decided anew.

`rival` is another hub over the same database; what it does in the midst of a command, the hub under test cannot know.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.adapters.sql.postgres.session import Session
from lockgate.core.journal import EMPTY_HEAD
from lockgate.hub import audit
from lockgate.hub.kernel import iter_entries
from lockgate.hub.messages import ListVersions, Standing
from lockgate.hub.ports import JournalUnreadable
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import AUTHOR, MODEL_NAME, PLATFORM, HubWorld, Story, accepted
from lockgate.testing.journal_suite import commit_of, document, write

pytestmark = pytest.mark.service


@pytest.fixture
def world(database: str) -> HubWorld:
    return HubWorld(*open_postgres(database)[:2])


@pytest.fixture
def rival(database: str, world: HubWorld) -> HubWorld:
    return HubWorld(*open_postgres(database)[:2], clock=world.clock)


def declare(name: str, command_id: str = "", owner: str = "o") -> DeclareModel:
    model = f"main/{name}"
    return DeclareModel(id=command_id or name, model=model, tier="low", owner=owner, purpose="p")


def once_at(world: HubWorld, step: str, act: Callable[[], object]) -> list[str]:
    """Do something the first time the world's kernel is at a step; the steps it goes through are told."""
    steps: list[str] = []

    def at(reached: str) -> None:
        steps.append(reached)
        if steps.count(step) == 1 and reached == step:
            act()

    world.at = at
    return steps


@pytest.mark.parametrize("step", ["received", "authorised", "established", "locked", "decided"])
def test_whoever_is_overtaken_decides_anew(world: HubWorld, rival: HubWorld, step: str) -> None:
    steps = once_at(world, step, lambda: accepted(rival.hub(PLATFORM).execute(declare("other"))))
    receipt = accepted(world.hub(PLATFORM).execute(declare("mine")))
    assert receipt.head == world.journal.head().seq == 2
    # From the moment on at which the head was looked at, the first decision was in vain.
    assert steps.count("decided") == (1 if step == "received" else 2)
    assert audit.verify(rival.journal, (), ()).ok


def test_what_a_rival_took_is_refused(world: HubWorld, rival: HubWorld) -> None:
    """Both want the number 1.0.1; each has looked before the other wrote."""
    story = Story(world.hub)
    story.found()
    story.release("one", f"{MODEL_NAME}@1.0.0")
    mine, theirs = (story.registering(name, version="1.0.1") for name in ("mine", "theirs"))
    once_at(world, "decided", lambda: accepted(rival.hub(AUTHOR).execute(theirs)))
    receipt = world.hub(AUTHOR).execute(mine)
    assert receipt.refusal is not None
    versions = story.ask(ListVersions(model=MODEL_NAME)).versions
    assert [one.version for one in versions] == [f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"]
    assert world.hub(AUTHOR).execute(mine) == receipt
    assert audit.verify(world.journal, (), ()).ok


def test_a_rival_that_carries_out_the_same_command_wins(world: HubWorld, rival: HubWorld) -> None:
    """A client that heard nothing from one hub sends its command to another."""
    command = declare("x")
    receipts = []
    once_at(world, "decided", lambda: receipts.append(rival.hub(PLATFORM).execute(command)))
    assert world.hub(PLATFORM).execute(command) == accepted(receipts[0])
    assert world.journal.head().seq == 1


def test_the_same_command_by_many_threads_is_carried_out_once(world: HubWorld) -> None:
    n_threads = 16
    start = threading.Barrier(n_threads)

    def send(number: int) -> int:
        start.wait(30)
        heads = [accepted(world.hub(PLATFORM).execute(declare(f"m{turn}"))).head for turn in range(5)]
        return sum(heads)

    with ThreadPoolExecutor(n_threads) as pool:
        assert set(pool.map(send, range(n_threads))) == {1 + 2 + 3 + 4 + 5}
    assert world.journal.head().seq == 5


def test_a_command_that_waited_for_its_turn_knows_what_was_carried_out_meanwhile(world: HubWorld) -> None:
    """It looked at the head before another thread of its own hub wrote: the same command, and a model it needs."""
    with ThreadPoolExecutor(1) as pool:
        elsewhere = lambda command: pool.submit(world.hub(PLATFORM).execute, command).result(30)  # noqa: E731
        journal = world.journal
        with journal.snapshot("x", (), hold=False):
            first = elsewhere(declare("x"))
            assert journal.receipt("x") is None
            with journal.transaction("x", (), hold=False) as transaction:
                assert transaction.head().seq == 1
                assert transaction.receipt("x") is not None
                assert transaction.document("model", "main/x") is not None
            assert journal.receipt("x") is not None
    assert world.hub(PLATFORM).execute(declare("x")) == first


def test_nothing_is_written_by_whoever_was_overtaken(database: str) -> None:
    left, right = (open_postgres(database).journal for _ in range(2))
    write(left, "c1", documents=[document("a", body=b"1")])
    reached: list[str] = []
    with left.transaction("c2", [("thing", "a")], hold=False) as transaction:
        write(right, "c3", documents=[document("a", body=b"2", rev=2)])
        forked = commit_of(transaction.head(), "c2", documents=[document("a", body=b"never", rev=2)])
        transaction.commit(forked)
        reached.append("after the commit")
    assert reached == []
    assert left.receipt("c2") is None
    assert left.document("thing", "a") == document("a", body=b"2", rev=2)
    assert left.head().seq == 2
    write(left, "c2")


@pytest.mark.parametrize(
    "ask",
    [
        lambda transaction: transaction.document("thing", "b"),
        lambda transaction: transaction.documents("thing", ""),
        lambda transaction: transaction.expect([("thing", "b"), ("thing", "c")]),
    ],
    ids=["document", "documents", "expect"],
)
def test_nobody_decides_upon_documents_of_two_moments(database: str, ask: Callable[[Any], object]) -> None:
    left, right = (open_postgres(database).journal for _ in range(2))
    write(right, "c1", documents=[document("a"), document("b", body=b"1")])
    reached: list[str] = []
    with left.transaction("c2", [("thing", "a")], hold=False) as transaction:
        assert transaction.document("thing", "a") is not None
        write(right, "c3", bodies=[], documents=[document("b", body=b"2", rev=2), document("c")])
        ask(transaction)
        reached.append("after the question")
    assert reached == []
    # Nor is what was read of the wrong moment given to anybody else.
    with left.snapshot():
        assert [one.key for one in left.documents("thing")] == ["a", "b", "c"]
        assert left.document("thing", "b") == document("b", body=b"2", rev=2)


def test_what_was_said_to_be_new_and_is_not_is_decided_anew(database: str) -> None:
    left, right = (open_postgres(database).journal for _ in range(2))
    write(right, "c1", documents=[document("a", body=b"1")])
    reached: list[str] = []
    with left.transaction("c2", hold=False) as transaction:
        transaction.expect([("thing", "a")], new=True)
        assert transaction.document("thing", "a") is None
        transaction.commit(commit_of(transaction.head(), "c2", documents=[document("a", body=b"2")]))
        reached.append("after the commit")
    assert reached == []
    with left.transaction("c2") as transaction:
        transaction.expect([("thing", "a")], new=True)
        assert transaction.document("thing", "a") == document("a", body=b"1")
    assert left.document("thing", "a") == document("a", body=b"1")


def test_a_commit_of_many_rows_passes_as_well(database: str) -> None:
    journal = open_postgres(database).journal
    many = [document(f"{number:04}", body=b"%d" % number) for number in range(300)]
    bodies = [b"%d" % number for number in range(50)]
    with journal.transaction("c1", hold=False) as transaction:
        transaction.expect([("thing", one.key) for one in many[:150]], new=True)
        transaction.expect([("thing", one.key) for one in many[150:]])
        effects = [("s", number, b"%d" % number) for number in range(20)]
        transaction.commit(commit_of(EMPTY_HEAD, "c1", bodies=bodies, documents=many, effects=effects))
    assert [one.body for one in journal.entries(0, 100)] == bodies
    assert list(journal.documents("thing")) == many
    # What takes several statements is left to whoever holds the lock.
    head, long = journal.head(), [b"%d" % number for number in range(5000)]
    with journal.transaction("c2", hold=False) as transaction:
        transaction.commit(commit_of(transaction.head(), "c2", bodies=long))
    assert journal.head() == head
    write(journal, "c2", bodies=long)
    assert journal.head().seq == 5050


def test_two_hubs_that_write_all_the_time_both_get_on(world: HubWorld, rival: HubWorld) -> None:
    n_each = 40
    start = threading.Barrier(4)

    def work(hub: HubWorld, name: str) -> None:
        start.wait(30)
        for number in range(n_each):
            accepted(hub.hub(PLATFORM).execute(declare(f"{name}-{number}")))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [world, world, rival, rival], "abcd"))
    told = [audit.read_entry(entry)[1].command_id for entry in iter_entries(world.journal)]
    assert sorted(told) == sorted(f"{name}-{number}" for name in "abcd" for number in range(n_each))
    assert audit.verify(world.journal, (), ()).ok


# --- how often the server is asked -----------------------------------------------------------------------------


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is sent to the server."""
    sent: list[bytes] = []

    def counting(act: Any) -> Any:
        def counted(self: Any, query: bytes, *values: Any, **more: Any) -> Any:
            sent.append(query)
            return act(self, query, *values, **more)

        return counted

    monkeypatch.setattr(psycopg.Cursor, "execute", counting(psycopg.Cursor.execute))
    monkeypatch.setattr(Session, "ask", counting(Session.ask))
    return sent


def test_a_command_goes_to_the_server_twice(world: HubWorld, statements: list[bytes]) -> None:
    """Once to look, once to write; whatever it needs beside was read or written by this hub before."""
    story = Story(world.hub)
    story.found(tier="low")
    story.release("one", f"{MODEL_NAME}@1.0.0")
    for turn in range(2):
        version = f"{MODEL_NAME}@1.0.{turn + 1}"
        for act in (
            lambda turn=turn: story.register(f"two-{turn}"),
            lambda version=version: story.validate(version) if story.judge(version) else None,
            lambda version=version: story.promote(version, "dev"),
        ):
            statements.clear()
            accepted(act())
            n_commands = sum(b"UPDATE head" in one for one in statements)
            assert n_commands >= 1
            if turn and n_commands == 1:
                assert len(statements) == 2, statements
        accepted(story.confirm("dev"))


def test_a_question_goes_on_from_memory_while_its_hub_writes(database: str, statements: list[bytes]) -> None:
    journal = open_postgres(database).journal
    write(journal, "c1", documents=[document("a"), document("b"), document("c", kind="other")])
    with journal.snapshot():
        assert len(journal.documents("other")) == 1
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write, journal, "c2", documents=[document("a", rev=2)]).result(30)
            pool.submit(write, journal, "c3", bodies=[]).result(30)
        statements.clear()
        assert journal.document("thing", "b") == document("b")
        assert len(journal.documents("other")) == 1
        assert statements == []
        # What was changed is read as it was.
        assert journal.document("thing", "a") == document("a")
        assert len(statements) == 1
    with journal.snapshot():
        assert journal.document("thing", "a") == document("a", rev=2)


def test_what_was_prepared_stays_prepared_over_questions(world: HubWorld) -> None:
    story = Story(world.hub)
    story.found()
    story.release("one", f"{MODEL_NAME}@1.0.0")

    def prepared() -> set[str]:
        rows = world.journal._store.rows("SELECT name FROM pg_prepared_statements")  # type: ignore[attr-defined]
        return {name for (name,) in rows}

    before = prepared()
    assert before
    for _ in range(3):
        story.ask(Standing(version=f"{MODEL_NAME}@1.0.0", environment="prod"))
    assert before <= prepared()


def test_statements_that_were_prepared_while_the_store_was_small_find_their_way_when_it_is_large(
    database: str,
) -> None:
    """A plan outlives the size of the tables it was made for: it must not read all of them."""
    journal = open_postgres(database).journal
    for number in range(10):
        write(journal, f"c{number}", documents=[document(f"k{number}")])
        assert journal.document("thing", f"none{number}") is None
    (plan,) = (
        "\n".join(line for (line,) in journal._store.rows(f"EXPLAIN EXECUTE {name}('thing', 'x')"))  # type: ignore[attr-defined]
        for (name,) in journal._store.rows(  # type: ignore[attr-defined]
            "SELECT name FROM pg_prepared_statements WHERE statement LIKE '%%WHERE kind = $1 AND key = $2'"
        )
    )
    assert "Index Scan" in plan and "Seq Scan" not in plan


def test_a_connection_is_of_use_after_a_statement_has_failed_on_it(database: str) -> None:
    """Whether the server still knows what was prepared before is unknown then."""
    journal = open_postgres(database).journal
    for turn in range(3):
        write(journal, f"c{turn}", documents=[document(f"k{turn}")])
        assert journal.document("thing", f"k{turn}") is not None
        for hold in (True, False):
            with pytest.raises(JournalUnreadable), journal.transaction("x", hold=hold) as transaction:
                transaction._connection.ask(b"SELECT 1 / %s::bigint", (0,))  # type: ignore[attr-defined]
        assert journal.receipt(f"c{turn}") == b"{}"
        with journal.transaction("y", [("thing", "k0")], hold=False) as transaction:
            assert transaction.document("thing", "k0") is not None
            transaction.commit(commit_of(transaction.head(), f"d{turn}"))
        assert len(journal._store._idle) == 1  # type: ignore[attr-defined]
    assert journal.head().seq == 6


@pytest.mark.parametrize(
    "text", ["", "a\\b", 'say "x"', "{a,b}", "NULL", "it's", "\u00e9\U0001f600", "%s", "\n\t "]
)
def test_texts_go_and_come_as_they_are(database: str, text: str) -> None:
    """One by one, and as elements of an array."""
    journal = open_postgres(database).journal
    many = [
        document(f"{text}{number}", parent=text, body=text.encode() + bytes([number])) for number in range(12)
    ]
    for command_id, kept in (("c1", many[:2]), ("c2", many[2:])):
        with journal.transaction(command_id, hold=False) as transaction:
            transaction.expect([(one.kind, one.key) for one in kept], new=command_id == "c1")
            transaction.commit(commit_of(transaction.head(), command_id, documents=kept))
    fresh = open_postgres(database).journal
    with fresh.transaction("c3", [(one.kind, one.key) for one in many], hold=False) as transaction:
        assert [transaction.document(one.kind, one.key) for one in many] == many
    with fresh.transaction("c3") as transaction:
        transaction.expect([(one.kind, one.key) for one in many])
        assert [transaction.document(one.kind, one.key) for one in many] == many
    assert [fresh.document(one.kind, one.key) for one in many] == many
