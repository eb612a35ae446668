"""A notifier is killed wherever it happens to be, again and again, while events keep coming: nothing is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from webhook_receiver import KEY, Got, Receiver, receiving

from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.app.system import SystemClock
from lockgate.hub.ports import Store
from lockgate.hub.telling.subscriptions import AddSubscription
from lockgate.testing.hub_world import HubWorld, Story, accepted

# A claim that nobody comes back to runs out after a second here, so that the story is told in seconds.
NOTIFIER = """
import sys, threading
from pathlib import Path
from lockgate.adapters.notify import notifier
from lockgate.adapters.notify.opening import open_notifier
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.app.system import SystemClock
from lockgate.testing.memory_blobs import MemoryBlobs

path, key = sys.argv[1:]
notifier._LEASE_US = 1_000_000
journal, outbox, usage, deliveries, _ = open_sqlite(Path(path))
works = open_notifier(
    journal, deliveries, MemoryBlobs(), SystemClock(), networks=["127.0.0.0/8"], secret=lambda reference: key
)
print("up", flush=True)
works.run(threading.Event(), lambda text: print(text, file=sys.stderr))
"""
N_KILLS = 5


@contextmanager
def notifying(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", NOTIFIER, str(path), KEY], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


class Killer:
    """Answers requests; of each process it kills one, before it answers the request that it chose."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = 0
        self._process: subprocess.Popen[str] | None = None
        self.killed = threading.Event()
        self.unanswered: list[tuple[str, int]] = []

    def aim(self, process: subprocess.Popen[str], n_requests: int) -> None:
        with self._lock:
            self._process, self._left = process, n_requests
            self.killed.clear()

    def __call__(self, got: Got) -> tuple[int, dict[str, str]]:
        with self._lock:
            self._left -= 1
            if self._left == 0 and self._process is not None:
                self._process.send_signal(signal.SIGKILL)
                self._process.wait()
                self.unanswered.append((got.path, got.seq))
                self.killed.set()
        return 204, {}


def test_nothing_is_lost_and_the_order_holds(tmp_path: Path, eventually: Callable[..., object]) -> None:
    path, rng, killer = tmp_path / "state.db", random.Random(7), Killer()
    store = open_sqlite(path)
    story = Story(HubWorld(store.journal, store.outbox, clock=SystemClock()).hub)  # type: ignore[arg-type]
    with receiving() as receiver:
        for name in ("a", "b"):
            command = AddSubscription(
                id=story.new_id(), name=name, url=f"{receiver.url}/{name}", secret="env:KEY", events=("*",)
            )
            accepted(story.do("petra", command))
        since = store.journal.head().seq
        receiver.answer = killer
        for turn in range(N_KILLS):
            story.found() if turn == 0 else story.train(f"package-{turn}")
            with notifying(path) as process:
                killer.aim(process, rng.randrange(1, 4))
                assert killer.killed.wait(30)
        wanted = list(range(since + 1, store.journal.head().seq + 1))
        with notifying(path):
            for name in ("a", "b"):
                eventually(lambda name=name: set(wanted) <= set(seqs(receiver, name)), timeout_s=60)
            eventually(lambda: states(store) == {"delivered"})
    assert len(killer.unanswered) == N_KILLS
    got = [(one.path, one.seq) for one in receiver.got]
    # What was not answered was sent again, and whoever sees an id twice has seen its event before.
    assert all(got.count(one) >= 2 for one in killer.unanswered)
    assert all(one.is_signed() for one in receiver.got)
    for name in ("a", "b"):
        assert [seq for seq in dict.fromkeys(seqs(receiver, name)) if seq in wanted] == wanted


def states(store: Store) -> set[str]:
    return {one.state for name in ("a", "b") for one in store.deliveries.listed(name, 1000)}


def seqs(receiver: Receiver, name: str) -> list[int]:
    return [one.seq for one in receiver.got if one.path == f"/{name}"]
