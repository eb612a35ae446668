from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.adapters.sql.turns import Turns
from lockgate.hub.ports import JournalBusy
from lockgate.testing.journal_suite import write


def test_turns_come_in_the_order_of_arrival(eventually: Callable[..., object]) -> None:
    turns, served = Turns(), []

    def work(number: int) -> None:
        with turns.turn(30):
            served.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    with turns.turn(30):
        for n_waiting, thread in enumerate(threads, 1):
            thread.start()
            eventually(lambda n=n_waiting: len(turns._waiting) == n)
    for thread in threads:
        thread.join(30)
    assert served == list(range(12))


def test_one_at_a_time_whatever_happens() -> None:
    turns, inside, seen = Turns(), [], []

    def work(number: int) -> None:
        try:
            with turns.turn(30):
                inside.append(number)
                seen.append(len(inside))
                inside.remove(number)
                if number % 3 == 0:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(400)))
    assert seen == [1] * 400


def test_who_gives_up_waiting_leaves_the_queue() -> None:
    turns = Turns()
    with ThreadPoolExecutor(1) as pool:
        with turns.turn(30), pytest.raises(JournalBusy) as caught:
            pool.submit(turns.turn(0.01).__enter__).result(30)
        assert caught.value.retryable
        with turns.turn(0):
            pass


def test_threads_write_to_sqlite_in_the_order_in_which_they_came(
    tmp_path: Path, eventually: Callable[..., object]
) -> None:
    store = SqliteStore(tmp_path / "journal.db")
    journal = SqliteJournal(store)
    names = [b"%d" % number for number in range(12)]
    threads = [
        threading.Thread(target=write, args=(journal, name.decode()), kwargs={"bodies": [name]})
        for name in names
    ]
    with journal.transaction():
        for n_waiting, thread in enumerate(threads, 1):
            thread.start()
            eventually(lambda n=n_waiting: len(store._turns._waiting) == n)
    for thread in threads:
        thread.join(30)
    assert [entry.body for entry in journal.entries(0, 100)] == names
