"""Given a hub process on the loopback interface, when people and programs send it messages, then it answers as the one
in process does; and it starts, stops and dies cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from lockgate.adapters.hubs.http import HttpHub
from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.outbox import SqliteOutbox
from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.core.errors import Unavailable
from lockgate.hub.messages import ChangesSince, ExplainVersion, Status, VerifyAudit
from lockgate.registry.messages import DeclareModel
from lockgate.testing.clock import CountingIds
from lockgate.testing.hub_world import MODEL_NAME, PLATFORM, HubWorld, Story, accepted

SCRIPT = Path(__file__).with_name("hub_process.py")


class HubProcess(NamedTuple):
    process: subprocess.Popen[str]
    url: str

    def hub(self, actor: str) -> HttpHub:
        return HttpHub(self.url, actor=actor)


def start(store: Path) -> HubProcess:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), f"sqlite:{store}", "serve"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready == {"ready": True, "port": ready["port"], "pid": process.pid}
    return HubProcess(process, f"http://127.0.0.1:{ready['port']}")


def stop(running: HubProcess) -> int:
    running.process.terminate()
    out, _ = running.process.communicate(timeout=30)
    assert out == ""
    return running.process.returncode


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def running(store: Path) -> Iterator[HubProcess]:
    running = start(store)
    yield running
    running.process.kill()
    running.process.communicate(timeout=30)


def local(store: Path) -> HubWorld:
    opened = SqliteStore(store)
    return HubWorld(SqliteJournal(opened), SqliteOutbox(opened))


def test_the_whole_story_and_the_same_answers_in_process(running: HubProcess, store: Path) -> None:
    hubs: dict[str, HttpHub] = {}
    story = Story(lambda actor: hubs.setdefault(actor, running.hub(actor)))
    story.found()
    story.release("one", f"{MODEL_NAME}@1.0.0")
    story.release("two", f"{MODEL_NAME}@1.0.1")
    accepted(story.roll_back("prod"))
    world = local(store)
    for query in (
        Status(),
        ExplainVersion(version=f"{MODEL_NAME}@1.0.1"),
        ChangesSince(limit=1000),
        VerifyAudit(),
    ):
        assert story.ask(query) == world.ask(query)
    assert story.ask(VerifyAudit()).ok
    for hub in hubs.values():
        hub.close()


def test_a_hub_and_a_process_beside_it_share_a_store(running: HubProcess, store: Path) -> None:
    with running.hub(PLATFORM) as remote:
        beside = Story(local(store).hub, CountingIds("beside"))
        beside.found()
        changed = DeclareModel(id="r1", model=MODEL_NAME, tier="low", owner="o", purpose="p")
        assert accepted(remote.execute(changed)).head == 7
        assert beside.ask(ChangesSince()).head == 7


def test_it_stops_when_told_and_starts_again_with_everything(store: Path) -> None:
    first = start(store)
    with first.hub(PLATFORM) as hub:
        command = DeclareModel(id="c1", model=MODEL_NAME, tier="low", owner="o", purpose="p")
        receipt = hub.execute(command)
        assert stop(first) == 0
        with pytest.raises(Unavailable):
            hub.ask(Status())
    second = start(store)
    with second.hub(PLATFORM) as hub:
        assert hub.execute(command) == receipt
        assert hub.ask(ChangesSince()).head == 1
    assert stop(second) == 0


def test_killed_in_mid_stream_it_loses_no_acknowledged_command(store: Path) -> None:
    first = start(store)
    acknowledged: list[str] = []

    def send(number: int) -> None:
        command = DeclareModel(
            id=f"c{number}", model=f"main/m{number}", tier="low", owner="o", purpose=f"p{number}"
        )
        try:
            with first.hub(PLATFORM) as hub:
                acknowledged.append(hub.execute(command).command_id)
        except Unavailable:
            return
        if len(acknowledged) == 30:
            os.kill(first.process.pid, signal.SIGKILL)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(60)))
    assert first.process.wait(30) == -signal.SIGKILL
    assert first.process.stdout is not None
    first.process.stdout.close()
    assert 30 <= len(acknowledged) < 60

    second = start(store)
    with second.hub(PLATFORM) as hub:
        assert hub.ask(VerifyAudit()).ok
        head = hub.ask(ChangesSince()).head
        # Commands whose answer was lost with the process may have been carried out, one per sender at most.
        assert len(acknowledged) <= head <= len(acknowledged) + 4
        for command_id in acknowledged:
            number = command_id.removeprefix("c")
            again = DeclareModel(
                id=command_id, model=f"main/m{number}", tier="low", owner="o", purpose=f"p{number}"
            )
            assert hub.execute(again).refusal is None
        assert hub.ask(ChangesSince()).head == head
    assert stop(second) == 0


def test_it_is_ready_when_it_says_so(running: HubProcess) -> None:
    answer = httpx.get(f"{running.url}/v1/health", trust_env=False)
    assert answer.json()["status"] == "ok"
