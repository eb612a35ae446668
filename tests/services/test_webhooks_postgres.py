"""Two notifiers on one PostgreSQL: they share the work, one is killed, nothing is lost and the order holds."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.app.http.server import by_claimed_name
from lockgate.app.system import SystemClock
from lockgate.app.team.config import HubConfig
from lockgate.app.team.hub import Team
from lockgate.core.errors import NotFound
from lockgate.hub.telling.subscriptions import AddSubscription, ListDeliveries
from lockgate.testing.hub_world import HubWorld, Story, accepted

pytestmark = pytest.mark.service

# A claim that nobody comes back to runs out after a second here.
NOTIFIER = """
import sys, threading
from lockgate.adapters.notify import notifier
from lockgate.adapters.notify.opening import open_notifier
from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.app.system import SystemClock
from lockgate.testing.memory_blobs import MemoryBlobs

notifier._LEASE_US = 1_000_000
journal, outbox, usage, deliveries, _ = open_postgres(sys.stdin.readline().strip())
works = open_notifier(
    journal, deliveries, MemoryBlobs(), SystemClock(), networks=["127.0.0.0/8"], secret=lambda reference: "k" * 32
)
print("up", flush=True)
works.run(threading.Event(), lambda text: print(text, file=sys.stderr))
"""
NAMES = ("a", "b", "c")


class Taking(ThreadingHTTPServer):
    """Takes everything; kills a process before it answers the request that it was told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Posted)
        self.lock = threading.Lock()
        self.got: list[tuple[str, int]] = []
        self.kill: Callable[[], None] | None = None


class _Posted(BaseHTTPRequestHandler):
    server: Taking

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            seq = int(self.headers["webhook-id"].split("/")[1])
            self.server.got.append((self.path.strip("/"), seq))
            kill, self.server.kill = self.server.kill, None
        if kill is not None:
            kill()
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def notifying(dsn: str) -> Iterator[subprocess.Popen[str]]:
    # Not as an argument: the connection string holds a password.
    process = subprocess.Popen(
        [sys.executable, "-c", NOTIFIER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(dsn + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_two_notifiers_share_the_work_and_one_is_killed(
    database: str, eventually: Callable[..., object]
) -> None:
    store = open_postgres(database)
    story = Story(HubWorld(store.journal, store.outbox, clock=SystemClock()).hub)  # type: ignore[arg-type]
    with ExitStack() as open_ones:
        receiver = open_ones.enter_context(Taking())
        threading.Thread(target=receiver.serve_forever, args=(0.01,), daemon=True).start()
        open_ones.callback(receiver.shutdown)
        for name in NAMES:
            url = f"http://127.0.0.1:{receiver.server_address[1]}/{name}"
            command = AddSubscription(id=story.new_id(), name=name, url=url, secret="env:KEY")
            accepted(story.do("petra", command))
        since = store.journal.head().seq
        story.found()
        for number in range(5):
            story.train(f"package-{number}")
        wanted = list(range(since + 1, store.journal.head().seq + 1))
        first = open_ones.enter_context(notifying(database))
        receiver.kill = first.kill
        open_ones.enter_context(notifying(database))

        def all_there() -> bool:
            with receiver.lock:
                return all({(name, seq) for seq in wanted} <= set(receiver.got) for name in NAMES)

        eventually(all_there, timeout_s=60)
        eventually(
            lambda: (
                {one.state for name in NAMES for one in store.deliveries.listed(name, 1000)} == {"delivered"}
            )
        )
    for name in NAMES:
        firsts = list(dict.fromkeys(seq for who, seq in receiver.got if who == name))
        assert [seq for seq in firsts if seq in wanted] == wanted


def test_no_text_is_too_odd_to_ask_by(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL keeps no NUL in a text."""
    monkeypatch.setenv("LG_DSN", database)
    team = Team(msgspec.convert({"store": {"url": "env:LG_DSN"}}, HubConfig), tmp_path)
    for name in ("\0", "a\0b", "nobody"):
        with pytest.raises(NotFound):
            team.hub_for(by_claimed_name({"lockgate-actor": "ann"})).ask(ListDeliveries(name=name))
