"""Hubs over PostgreSQL: alone, over HTTP, and two of them over one database."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lockgate.adapters.hubs.http import HttpHub
from lockgate.adapters.sql.postgres.opening import open_postgres
from lockgate.app.http.server import HubServer, by_claimed_name, create_app
from lockgate.hub import audit
from lockgate.hub.authority import Session
from lockgate.hub.kernel import Hub, iter_entries
from lockgate.hub.messages import ListVersions
from lockgate.testing.clock import FakeClock
from lockgate.testing.hub_suite import HubContract
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story

pytestmark = pytest.mark.service
WRITERS = Path(__file__).with_name("writers_process.py")


class Served:
    """A hub's server; behind it, the world of the test that runs."""

    def __init__(self) -> None:
        self.world: HubWorld | None = None
        self.url = ""

    def hub(self, session: Session) -> Hub:
        assert self.world is not None
        return self.world.hub(session.actor)


@contextmanager
def serving() -> Iterator[Served]:
    served, ready = Served(), threading.Event()
    server = HubServer(create_app(served.hub, by_claimed_name), 0, ready=lambda port: ready.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(30)
        served.url = server.url
        yield served
    finally:
        server.stop()
        thread.join(30)


@pytest.fixture(scope="module")
def two_servers() -> Iterator[list[Served]]:
    with serving() as left, serving() as right:
        yield [left, right]


@pytest.fixture
def two_worlds(database: str) -> list[HubWorld]:
    # One clock: hubs that share a store are expected to agree about the time.
    clock = FakeClock()
    return [HubWorld(*open_postgres(database)[:2], clock=clock) for _ in range(2)]


class TestHubOnPostgres(HubContract):
    @pytest.fixture
    def connect(self, database: str) -> Callable[[str], Hub]:
        return HubWorld(*open_postgres(database)[:2]).hub


class TestTwoHubsOverHttpOnOnePostgres(HubContract):
    """Every promise, while each call goes to the other of two servers in turn."""

    @pytest.fixture
    def connect(
        self, two_worlds: list[HubWorld], two_servers: list[Served]
    ) -> Iterator[Callable[[str], Hub]]:
        clients: dict[tuple[str, str], HttpHub] = {}
        for served, world in zip(two_servers, two_worlds, strict=True):
            served.world = world
        urls, one_at_a_time = itertools.cycle([served.url for served in two_servers]), threading.Lock()

        def to(actor: str) -> Hub:
            with one_at_a_time:
                url = next(urls)
                if (url, actor) not in clients:
                    clients[url, actor] = HttpHub(url, actor=actor)
                return clients[url, actor]

        yield to
        for client in clients.values():
            client.close()


def test_64_concurrent_writers_lose_nothing_and_one_wins_each_conflict(
    two_worlds: list[HubWorld], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processes of sixteen threads; all want the same numbers and the same endpoint."""
    n_processes, n_threads, n_rounds = 4, 16, 3
    world = two_worlds[0]
    story = Story(world.hub)
    story.found()
    monkeypatch.setenv("LOCKGATE_TEST_DSN", database)
    command = [sys.executable, str(WRITERS), "env:LOCKGATE_TEST_DSN", str(n_threads), str(n_rounds)]
    writers = [
        subprocess.Popen([*command, f"p{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(n_processes)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    outcomes = [json.loads(writer.communicate("go\n", timeout=120)[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * n_processes

    n_writers = n_processes * n_threads
    acknowledged = {command_id: head for each in outcomes for command_id, head in each["declared"].items()}
    assert len(acknowledged) == n_writers * n_rounds
    written: dict[str, list[str]] = {}
    for entry in iter_entries(world.journal):
        event, stamp = audit.read_entry(entry)
        written.setdefault(type(event).__name__, []).append(stamp.command_id)
        if stamp.command_id in acknowledged:
            assert acknowledged[stamp.command_id] == stamp.seq
    # Nothing lost, nothing twice.
    declared = [one for one in written["ModelDeclared"] if one in acknowledged]
    assert sorted(declared) == sorted(acknowledged)
    # One winner each, and everybody else was told no.
    won = [sorted(each["won"]) for each in outcomes]
    n_refused = sum(each["refused"] for each in outcomes)
    assert sorted(itertools.chain(*won)) == [f"1.0.{number}" for number in range(n_rounds)]
    assert n_refused == n_writers * n_rounds - n_rounds
    versions = story.ask(ListVersions(model=MODEL_NAME)).versions
    assert [one.version for one in versions] == [f"{MODEL_NAME}@1.0.{n}" for n in range(n_rounds)]
    # Two hundred wanted to release to one endpoint; one release is on its way.
    assert sum(each["started"] for each in outcomes) == len(written["ReleaseStarted"]) == 1
    assert sum(each["turned_away"] for each in outcomes) == n_writers - 1
    for each in two_worlds:
        answer = audit.verify(each.journal, (), ())
        assert answer.ok, answer.findings
