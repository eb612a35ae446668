"""Given the hub of a team as a process of its own, when people and programs use it, kill it and stop it, then nothing
that was acknowledged is lost, and what was begun goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.hubs.blobs import HubBlobs
from lockgate.adapters.hubs.http import HttpHub
from lockgate.core.digests import sha256
from lockgate.core.errors import Unavailable
from lockgate.hub.messages import ChangesSince, ListVersions, VerifyAudit
from lockgate.registry.messages import DeclareModel

LARGE = os.urandom(1 << 20) * 24


class TeamHub:
    """A folder with a `hub.toml`, and the process over it."""

    def __init__(self, folder: Path, config: str = "") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        text = "[listen]\nport = 0\nhosts = ['hub.example.org']\n" + config
        (folder / "hub.toml").write_text(text)
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> TeamHub:
        command = [
            sys.executable,
            "-P",
            "-m",
            "lockgate.app.cli",
            "hub",
            "--config",
            str(self.folder / "hub.toml"),
        ]
        with (self.folder / "err").open("a") as err:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.folder / "err").read_text()
        ready = json.loads(line)
        assert ready == {"ready": True, "url": ready["url"], "port": ready["port"], "pid": self.process.pid}
        self.url = ready["url"]
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate(timeout=30)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        self.process.communicate(timeout=60)
        return self.process.returncode

    @contextmanager
    def hub(self, actor: str) -> Iterator[HttpHub]:
        with HttpHub(self.url, actor=actor) as hub:
            yield hub

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Lockgate-Actor": "ann"}, trust_env=False, timeout=30)


@pytest.fixture
def team(tmp_path: Path) -> Iterator[TeamHub]:
    team = TeamHub(tmp_path / "hub").start()
    yield team
    team.kill()


def declared(number: int) -> DeclareModel:
    return DeclareModel(id=f"c{number}", model=f"main/m{number}", tier="low", owner="o", purpose="p")


def test_two_clients_share_one_truth_and_a_stopped_hub_has_signed_it(team: TeamHub) -> None:
    with team.hub("petra") as petra, team.hub("paul") as paul:
        assert petra.execute(declared(1)).head == 1
        assert paul.execute(declared(2)).head == 2
        changes = petra.ask(ChangesSince()).changes
        assert [change.actor for change in changes] == ["petra", "paul"]
        assert petra.session.claimed
    assert team.stop() == 0
    notes = (team.folder / "checkpoints").read_text()
    assert "\n2\n" in notes, "the last checkpoint is of the last entry"
    team.start()
    with team.hub("aud") as auditor:
        answer = auditor.ask(VerifyAudit())
    assert (answer.ok, answer.events) == (True, 2)
    assert answer.checkpoints >= 1
    with team.client() as client:
        for seq in (-(2**63), 0, 3, 2**63 - 1, 2**63, 10**30):
            proof = client.get("/v1/queries/hub.prove-entry", params={"seq": seq})
            assert (proof.status_code, proof.json()["code"]) == (404, "journal.no-such-entry"), seq
        for named, code in (("9" * 5_000, "foreign-checkpoint"), ("9" * 18, "no-such-checkpoint")):
            proof = client.get("/v1/queries/hub.prove-entry", params={"seq": 1, "checkpoint": named})
            assert proof.json()["code"] == f"journal.{code}"


def test_killed_in_mid_stream_it_loses_no_acknowledged_command(team: TeamHub) -> None:
    acknowledged: list[int] = []

    def send(number: int) -> None:
        try:
            with team.hub("petra") as hub:
                hub.execute(declared(number))
        except Unavailable:
            return
        acknowledged.append(number)
        if len(acknowledged) == 20:
            team.kill()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(60)))
    team.start()
    with team.hub("petra") as hub:
        assert hub.ask(VerifyAudit()).ok
        head = hub.ask(ChangesSince()).head
        assert 20 <= len(acknowledged) <= head < 60
        for number in acknowledged:
            assert hub.execute(declared(number)).refusal is None
        assert hub.ask(ChangesSince()).head == head
        assert hub.ask(ListVersions(model="main/m0")).versions == ()


def test_a_blob_goes_on_where_a_kill_interrupted_it(
    team: TeamHub, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    digest = sha256(LARGE)
    with socket.create_connection(("127.0.0.1", int(team.url.rpartition(":")[2]))) as connection:
        head = f"PUT /v1/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nLockgate-Actor: ann\r\n"
        connection.sendall(f"{head}Content-Length: {len(LARGE)}\r\n\r\n".encode() + LARGE[: 10 << 20])
        uploads = team.folder / "uploads"
        eventually(lambda: any(part.stat().st_size >= 8 << 20 for part in uploads.iterdir()))
        team.kill()
    team.start()
    with team.client() as client:
        offset = int(client.head(f"/v1/blobs/{digest}").headers["upload-offset"])
    assert offset >= 8 << 20
    with team.hub("ann") as hub:
        blobs = HubBlobs(hub.wire, DirectoryBlobs(tmp_path / "cache"), tmp_path / "incoming")
        assert blobs.put(LARGE) == digest
    with team.hub("bob") as hub:
        other = HubBlobs(hub.wire, DirectoryBlobs(tmp_path / "other"), tmp_path / "incoming")
        assert other.get(digest) == LARGE
    assert list(uploads.iterdir()) == []


def test_what_was_begun_is_finished_when_it_is_told_to_stop(team: TeamHub) -> None:
    data = LARGE[:2_000_000]
    with socket.create_connection(("127.0.0.1", int(team.url.rpartition(":")[2]))) as connection:
        head = f"PUT /v1/blobs/{sha256(data)} HTTP/1.1\r\nHost: localhost\r\nLockgate-Actor: ann\r\n"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data[:1_500_000])
        assert team.process is not None
        team.process.send_signal(signal.SIGTERM)
        # Nobody new is let in any more, whoever is inside comes to the end.
        with pytest.raises(Unavailable), team.hub("late") as late:
            while True:
                late.ask(ChangesSince())
        connection.sendall(data[1_500_000:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 201 ")
    assert team.process.wait(30) == 0
    assert DirectoryBlobs(team.folder / "blobs").get(sha256(data)) == data


def test_a_listener_misses_nothing_across_a_restart(team: TeamHub) -> None:
    def listen(last: str) -> Iterator[tuple[str, str]]:
        with (
            team.client() as client,
            client.stream("GET", "/v1/changes", headers={"Last-Event-ID": last}) as response,
        ):
            event: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                event[name] = value
                if not line and "id" in event:
                    yield event["id"], json.loads(event["data"])["actor"]
                    event = {}

    with team.hub("petra") as hub:
        for number in range(3):
            hub.execute(declared(number))
    told = listen("0")
    assert [next(told) for _ in range(2)] == [("1", "petra"), ("2", "petra")]
    assert team.stop() == 0
    # What had been sent is still read, then the stream ends of itself.
    assert list(told) == [("3", "petra")]
    team.start()
    with team.hub("paul") as hub:
        hub.execute(declared(9))
    again = listen("2")
    assert [next(again) for _ in range(2)] == [("3", "petra"), ("4", "paul")]
    again.close()


def test_strangers_are_turned_away_and_counted_for_those_who_may_read_the_audit(team: TeamHub) -> None:
    with team.client() as client:
        for host, status in (("evil.example", 403), ("hub.example.org", 200), ("localhost", 200)):
            answer = client.get("/v1/queries/hub.status", headers={"Host": host})
            assert answer.status_code == status
        assert client.get("/v1/queries/hub.status", headers={"Lockgate-Actor": ""}).status_code == 400
        large = client.post("/v1/execute", json={"type": "x" * 1_100_000})
        assert (large.status_code, large.json()["code"]) == (413, "http.body-too-large")
    assert team.stop() == 0
    team.start()
    with team.client() as client:
        text = client.get("/v1/metrics").text
        assert 'lockgate_hub_counted_ever{what="refused.host"} 1' in text
        assert 'lockgate_hub_counted_ever{what="refused.unauthenticated"} 1' in text
        assert client.get("/v1/queries/hub.changes-since").json()["head"] == 0


def test_it_is_small_and_loads_no_engine(team: TeamHub) -> None:
    with team.client() as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.get, "/v1/queries/hub.status") for _ in range(200)]
        assert {one.result().status_code for one in asked} == {200}
        for number in range(3):
            data = LARGE + bytes([number])
            assert client.put(f"/v1/blobs/{sha256(data)}", content=data).status_code == 201
            assert client.get(f"/v1/blobs/{sha256(data)}").content == data
    assert team.process is not None
    status = Path(f"/proc/{team.process.pid}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    assert peak <= 150_000, "kilobytes"
    maps = Path(f"/proc/{team.process.pid}/maps").read_text()
    for engine in ("duckdb", "pyarrow", "onnxruntime", "lightgbm"):
        assert engine not in maps


def test_what_is_wrong_is_said_before_anything_is_served(tmp_path: Path) -> None:
    team = TeamHub(tmp_path / "hub", "[audit]\nsinks = ['file:checkpoints']\n")
    command = [
        sys.executable,
        "-P",
        "-m",
        "lockgate.app.cli",
        "hub",
        "--config",
        str(team.folder / "hub.toml"),
    ]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)

    well = run("--check")
    assert (well.returncode, well.stdout.splitlines()[0]) == (0, "store: 0 entries")
    team.start()
    with team.hub("petra") as hub:
        hub.execute(declared(1))
    assert team.stop() == 0
    (team.folder / "keys" / "checkpoint.pem").unlink()
    lost = run()
    assert (lost.returncode, lost.stdout) == (4, "")
    assert "keys/checkpoint.pem" in lost.stderr, (
        "no new key is made for a journal that another one has signed"
    )
    (team.folder / "hub.toml").write_text("[listen]\nhost = '0.0.0.0'\n")
    open_to_all = run()
    assert open_to_all.returncode == 2
    assert "hub.toml:2: listen.host" in open_to_all.stderr


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("proxies = ['10.0.0.0/8']\n", "listen.proxies: '10.0.0.0/8' is no address"),
        ("proxies = ['frontend']\n", "listen.proxies: 'frontend' is no address"),
        ("certfile = 'no.pem'\nkeyfile = 'no.pem'\n", "http.certificate-invalid"),
        ("certfile = 'hub.toml'\nkeyfile = 'hub.toml'\n", "http.certificate-invalid"),
        ("[webhooks]\nnetworks = ['10.0.0.1/8']\n", "notify.network-invalid"),
        ("[audit]\nsinks = ['mail:somebody']\n", "write file:PATH or s3:"),
    ],
)
def test_what_a_start_would_stumble_over_is_found_by_the_check(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "hub.toml").write_text("[listen]\nport = 0\n" + table)
    command = [sys.executable, "-P", "-m", "lockgate.app.cli", "hub", "--config", str(tmp_path / "hub.toml")]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
