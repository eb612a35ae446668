"""PostgreSQL dies in the midst of a hub's work, and the hub stays: nothing acknowledged is lost or happens twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from postgres import PostgresServer, postgres_server
from servers import can_be_given_a_small_disk

from lockgate.adapters.hubs.http import HttpHub
from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.core.errors import Unavailable
from lockgate.hub import audit
from lockgate.hub.kernel import iter_entries
from lockgate.hub.ports import JournalBusy
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import PLATFORM, accepted
from lockgate.testing.journal_suite import document, write

pytestmark = pytest.mark.service
HUB = Path(__file__).parent.parent / "e2e" / "hub_process.py"


@contextmanager
def hub_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A hub in a process of its own, and its URL."""
    process = subprocess.Popen(
        [sys.executable, str(HUB), "env:LOCKGATE_TEST_DSN", "serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    finally:
        process.kill()
        process.communicate(timeout=30)


class Clients:
    """Threads that send one command after the other, each until it is acknowledged."""

    def __init__(self, url: str, n_threads: int) -> None:
        self.acknowledged: dict[str, int] = {}
        self.n_told_to_wait = 0
        self._done, self._url = threading.Event(), url
        self._pool = ThreadPoolExecutor(n_threads)
        self._work_of_all = [self._pool.submit(self._work, number) for number in range(n_threads)]

    def _work(self, number: int) -> None:
        pause, turn = threading.Event(), 0
        with HttpHub(self._url, actor=PLATFORM) as hub:
            while not self._done.is_set():
                name = f"main/m{number}-{turn}"
                command = DeclareModel(id=name, model=name, tier="low", owner="o", purpose="p")
                try:
                    self.acknowledged[command.id] = accepted(hub.execute(command)).head
                    turn += 1
                except Unavailable:
                    self.n_told_to_wait += 1
                    pause.wait(0.05)

    def finish(self) -> None:
        """Let each end what it is at."""
        self._done.set()
        for work in self._work_of_all:
            work.result(60)
        self._pool.shutdown()

    def gave_up(self) -> bool:
        """Whether one ended before it was told to; `finish` says why."""
        return any(work.done() for work in self._work_of_all)


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGKILL], ids=lambda how: how.name)
def test_a_hub_outlives_the_death_of_its_database(
    postgres: PostgresServer,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., object],
    how: signal.Signals,
) -> None:
    monkeypatch.setenv("LOCKGATE_TEST_DSN", database)
    with hub_process() as (process, url):
        clients = Clients(url, 4)
        try:
            for _ in range(2):
                before = len(clients.acknowledged)
                eventually(lambda n=before: clients.gave_up() or len(clients.acknowledged) >= n + 30, 60)
                n_waiting = clients.n_told_to_wait
                postgres.die(how)
                eventually(lambda n=n_waiting: clients.gave_up() or clients.n_told_to_wait > n, 60)
                postgres.start()
            before = len(clients.acknowledged)
            eventually(lambda: clients.gave_up() or len(clients.acknowledged) >= before + 30, 60)
        finally:
            clients.finish()
        assert process.poll() is None

    journal = open_postgres(database).journal
    answer = audit.verify(journal, (), ())
    assert answer.ok, answer.findings
    written = {
        stamp.command_id: stamp.seq
        for _, stamp in (audit.read_entry(entry) for entry in iter_entries(journal))
    }
    # A command whose answer was lost on the way may stand in the journal once more than was acknowledged: never here,
    # because each was sent until it was.
    assert written == clients.acknowledged
    assert journal.head().seq == len(written)


def test_a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing() -> None:
    if not can_be_given_a_small_disk():
        pytest.skip("this machine lets nobody mount a small file system of his own (unshare -Urm)")
    with postgres_server(disk_bytes=64 << 20) as server:
        store = open_postgres(server.dsn())
        server.administer("CREATE TABLE ballast AS SELECT generate_series(1, 400000) AS n")
        acknowledged = 0
        for number in range(10_000):
            try:
                # Nothing that a compression could make small.
                body = b"".join((number * 1000 + n).to_bytes(4) for n in range(100_000))
                write(
                    store.journal, f"c{number}", bodies=[b"%d" % number], documents=[document("a", body=body)]
                )
                acknowledged += 1
            except JournalBusy as error:
                full = error
                break
        assert acknowledged > 3
        assert "room" in full.message and full.retryable
        assert [entry.body for entry in store.journal.entries(0, 10_000)] == [
            b"%d" % number for number in range(acknowledged)
        ]
        assert store.journal.receipt(f"c{acknowledged}") is None
        server.administer("DROP TABLE ballast")
        write(store.journal, f"c{acknowledged}", bodies=[b"%d" % acknowledged])
        assert store.journal.head().seq == acknowledged + 1
