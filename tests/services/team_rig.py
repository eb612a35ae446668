"""A team on real servers, for its story: PostgreSQL, an identity provider, an object store, an image registry, hubs,
a data plane; people with a command line each, and machines with a token each. Every command is a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from oidc_server import AUDIENCE, CLIENT, OidcServer, follow, oidc_server
from registry import registry
from seaweed import environment as seaweed_environment
from seaweed import seaweed

from command_line import FLIGHT, OK, Typed
from lockgate.testing.ticket_desk import KEY, ticket_desk

LOCKGATE = (sys.executable, "-P", "-m", "lockgate.app.cli")
LADDER = ("dev", "staging", "prod")

ROLLOUT = """\
capture = "scores"
[endpoints."prod/flight-delay".rollout]
alpha = 0.2
steps = [{ weight = 0.5, min_units = 20, bake_s = 0.1 }, { weight = 1.0, min_units = 20, bake_s = 0.1 }]
errors = { absolute = 0.3, min_events = 8 }
"""


class Actor:
    """Somebody, or something, with a command line, a home and a folder to work in.

    Args:
        token: of a machine; a person logs in instead.
    """

    def __init__(self, home: Path, hub: str, *, account: str = "", token: str = "") -> None:
        home.mkdir(parents=True)
        self.account = account
        self.folder = home / "work"
        self.folder.mkdir()
        self.hub = hub
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
        self._env |= {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
        }
        if token:
            self._env["LOCKGATE_TOKEN"] = token

    def types(self, line: str, *, hub: bool = True, env: dict[str, str] | None = None) -> Typed:
        """Type `lockgate LINE`, to the hub of the team or (`hub=False`) to nobody; in an environment that has more."""
        words = shlex.split(line)
        done = subprocess.run(
            [*LOCKGATE, *words, *(("--hub", self.hub) if hub else ())],
            cwd=self.folder,
            env=self._env | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Typed(line, done.returncode, done.stdout, done.stderr)

    def asks(self, line: str) -> Any:
        return self.types(f"{line} --json").must(OK).json

    def logs_in(self) -> Actor:
        """By a code on another device, which a browser opens there."""
        command = [*LOCKGATE, "login", "--device", "--no-browser", "--hub", self.hub]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._env,
            cwd=self.folder,
        )
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"open (\S+)", line):
                threading.Thread(target=follow, args=(found[1], self.account), daemon=True).start()
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, "".join(said) + out
        return self

    def writes(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text)

    def has_a_checkout(self, of: Path, *, keys: bool) -> Actor:
        """The files of a project, as a checkout has them; with the key that signs packages, or without."""
        shutil.rmtree(self.folder)
        left_out = shutil.ignore_patterns(
            "store", "state.db*", "steps.db*", *(() if keys else (".lockgate",))
        )
        shutil.copytree(of, self.folder, ignore=left_out)
        return self

    def edits(self, file: str, *changes: tuple[str, str]) -> None:
        path = self.folder / file
        text = path.read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
            text = text.replace(old, new)
        path.write_text(text)


class HubProcess:
    """One `lockgate hub` over a folder with its `hub.toml`."""

    def __init__(self, folder: Path, name: str, config: str, env: dict[str, str]) -> None:
        self.file = folder / f"{name}.toml"
        self.file.write_text(f"[listen]\nport = 0\n{config.replace('UPLOADS', f'uploads-{name}')}")
        self._log = folder / f"{name}.log"
        self._env = {**os.environ, **env}
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def checks(self) -> str:
        done = subprocess.run(
            [*LOCKGATE, "hub", "--config", str(self.file), "--check"],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> HubProcess:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*LOCKGATE, "hub", "--config", str(self.file)],
                env=self._env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self._log.read_text()
        self.url = json.loads(line)["url"]
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode


class Team:
    """The servers, the hub over them, and whoever uses it."""

    def __init__(self, folder: Path, dsn: str, running: ExitStack) -> None:
        self.folder = folder
        self._running = running
        self._n_homes = 0
        self.provider: OidcServer = running.enter_context(oidc_server())
        self._bucket = running.enter_context(ExitStack())
        objects = self._bucket.enter_context(seaweed())
        self.images = running.enter_context(registry())
        self.desk = running.enter_context(ticket_desk())
        self.env = {**seaweed_environment(), "TEAM_DSN": dsn, "TRACKER_KEY": KEY}
        self.packages = objects.url("models/team")
        self.home = folder / "hub"
        self.home.mkdir()
        self.run = self.home / "run"
        self.project = self._project()
        config = self._config(objects.url("models/audit"))
        self.first, self.second = (
            HubProcess(self.home, name, config, self.env) for name in ("first", "second")
        )

    def _project(self) -> Path:
        """A project with a small model, as its repository has it."""
        root = self.folder / "repository"
        subprocess.run(
            [*LOCKGATE, "init", "repository"], cwd=self.folder, check=True, capture_output=True, timeout=60
        )
        file = root / "lockgate.toml"
        text = file.read_text()
        text = re.sub(r"(?ms)^\[endpoints\.[^\n]*\.rollout\]\n.*?(?=^\[|\Z)", "", text)
        text = text.replace('features = "online"\n', "").replace('capture = "scores"\n', ROLLOUT)
        text = text.replace("rounds = 150", "rounds = 20").replace(
            "learning_rate = 0.05", "learning_rate = 0.2"
        )
        text = text.replace('evaluate_until = "2013-11-01"', 'evaluate_until = "2013-09-20"')
        text = text.replace("max_gap = 0.05, slope = [0.8, 1.25]", "max_gap = 0.2, slope = [0.3, 3.0]")
        text = text.replace("p99_us = 5000", "p99_us = 500000")
        file.write_text(text.replace("minimum = 0.70", "minimum = 0.60"))
        # Two months of the year are enough for a story, and are trained in a second.
        sources, where = root / "flights" / "sources.py", "FROM raw_flights LEFT JOIN zones USING (dest)"
        text = sources.read_text()
        assert text.count(where) == 1
        sources.write_text(text.replace(where, f"{where} WHERE month IN (8, 9)"))
        contract = root / "contracts" / "flights.odcs.yaml"
        contract.write_text(contract.read_text().replace("[250000, 500000]", "[50000, 500000]"))
        return root

    def _config(self, sink: str) -> str:
        trust = "".join(
            f"[trust.{name}]\nkeys = ['{self.project / 'trust/signing.pub'}']\n" for name in LADDER
        )
        return f"""
[store]
url = "env:TEAM_DSN"
[blobs]
url = "{self.packages}"
uploads = "UPLOADS"
[audit]
sinks = ["file:checkpoints", "{sink}"]
every_s = 2.0
[target]
run = "run"
[webhooks]
networks = ["127.0.0.0/8"]
[tracker]
url = "{self.desk.url}"
secret = "env:TRACKER_KEY"
{trust}
[identity]
admins = ["ann@example.org"]
[[identity.providers]]
issuer = "{self.provider.issuer}"
client_id = "{CLIENT}"
domains = ["example.org"]
[[identity.ci]]
issuer = "{self.provider.issuer}"
audience = "{AUDIENCE}"
"""

    def person(self, account: str, *, at: HubProcess | None = None) -> Actor:
        return Actor(self._home_of(account), (at or self.first).url, account=account)

    def machine(self, name: str, token: str, *, at: HubProcess | None = None) -> Actor:
        return Actor(self._home_of(name), (at or self.first).url, token=token)

    def _home_of(self, name: str) -> Path:
        self._n_homes += 1
        return self.folder / f"{name}-{self._n_homes}"

    def job(self, name: str, client: str = "job") -> Actor:
        """A CI job: its identity token is exchanged for one of a service account."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "subject_token": self.provider.job_token(client),
        }
        answer = httpx.post(f"{self.first.url}/v1/tokens/exchange", data=form, trust_env=False)
        assert answer.status_code == 200, answer.text
        return self.machine(name, answer.json()["access_token"])

    @cached_property
    def plane(self) -> DataPlane:
        return self._running.enter_context(data_plane(self))

    def bucket_goes(self) -> None:
        """The object store, with packages and a sink of checkpoints, is there no more."""
        self._bucket.close()

    def plane_starts_again(self) -> DataPlane:
        """After an end that it did not choose."""
        self.plane.process.kill()
        self.plane.process.wait(30)
        return self._running.enter_context(data_plane(self))


class DataPlane:
    """The process that answers, on the machine of the hub."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def answer(self, endpoint: str, key: str = "") -> tuple[int, Any]:
        body = json.dumps({"inputs": [FLIGHT], **({"key": key} if key else {})}).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as way:
            way.request("POST", f"/{endpoint}", body, {"content-type": "application/json"})
            response = way.getresponse()
            return response.status, json.loads(response.read())


@contextmanager
def data_plane(team: Team) -> Iterator[DataPlane]:
    command = [sys.executable, "-P", "-m", "lockgate.app.dataplane"]
    command += ["--run-dir", str(team.run), "--store", team.packages, "--port", "0"]
    for name in LADDER:
        command += ["--trust", f"{name}={team.project / 'trust/signing.pub'}"]
    with (team.folder / "plane.log").open("a") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **team.env}
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (team.folder / "plane.log").read_text()
        yield DataPlane(process, json.loads(line)["port"])
    finally:
        process.terminate()
        process.communicate(timeout=30)


def all_at_once(*work: Any) -> list[Any]:
    """Calls that do not wait for each other, each in a thread."""
    with ThreadPoolExecutor(len(work)) as pool:
        return [one.result() for one in [pool.submit(each) for each in work]]
