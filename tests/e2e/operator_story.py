"""What the stories are told with: an operator's view of a project, and real `lockgate` processes behind it.

A story reads as given, when, then. `Given` brings about a state (mostly a private copy of a world that was
built once per test run), `When` types commands and sends requests, `Then` says what must be true now. They
share one `Story`: the project it plays in and the last command that was typed.

    def test_x(given, when, then):
        given.version_one_is_live()
        when.ada("plan")
        then.it_succeeds().it_says("0 to run")

Every command is a process of its own, started as a user starts it; whatever is left running is ended by its
process id when the story is over.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from command_line import BUG, FLIGHT, OK, REFUSED, WAITING, Typed

LOCKGATE = Path(sys.executable).with_name("lockgate")
ENDPOINT = "prod/flight-delay"
LADDER = ("dev", "staging", "prod")
PATIENCE_S = 300.0

FEATURES, MODEL, LABELS, SOURCES = (
    f"flights/{name}.py" for name in ("features", "model", "labels", "sources")
)
_LAST_FEATURE = '        "last_leg:aircraft_in_air",\n'
MORE_FEATURES = (
    "origin_queue:origin_waiting",
    "carrier_arrivals:carrier_delay",
    "carrier_arrivals:carrier_late_share",
    "destination_arrivals:destination_delay",
    "destination_arrivals:destination_late_share",
    "flight_history:history_delay",
    "flight_history:history_late_share",
    "observed_weather:humidity",
    "observed_weather:wind_direction",
    "observed_weather:wind_speed",
    "observed_weather:precipitation",
    "observed_weather:pressure",
    "observed_weather:visibility",
    "airframe:seats",
)
BETTER = (_LAST_FEATURE, _LAST_FEATURE + "".join(f'        "{name}",\n' for name in MORE_FEATURES))
WORSE = (
    "RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW",
    "RANGE BETWEEN INTERVAL 3 DAYS PRECEDING AND CURRENT ROW",
)


DIES = """
import os, signal, sys
from lockgate.hub import kernel
from lockgate.core.messages import tag_of
kind, step = sys.argv.pop(1).split("@")
execute = kernel.LocalHub.execute
def watched(self, command):
    def at(name):
        if (tag_of(type(command)), name) == (kind, step):
            os.kill(os.getpid(), signal.SIGKILL)
    self._at = at
    return execute(self, command)
kernel.LocalHub.execute = watched
from lockgate.app.cli.main import main
main()
"""
"""The command line itself, which ends by kill -9 when a given kind of command is at a given step of the kernel."""


class Reply(NamedTuple):
    """An answer of the data plane or the hub."""

    status: int
    body: Any


class Project:
    """A project folder, and the commands typed in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- commands

    def types(
        self, line: str, *, by: str | None = None, env: Mapping[str, str] | None = None, **more: Any
    ) -> Typed:
        """Type `lockgate LINE` in the project's folder and wait for its end."""
        done = subprocess.run(
            self.command(line, by),
            cwd=self.root,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            **more,
        )
        return Typed(line, done.returncode, done.stdout, done.stderr)

    def starts(
        self,
        line: str,
        *,
        by: str | None = None,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
        out: IO[str] | None = None,
    ) -> subprocess.Popen[str]:
        """Type `lockgate LINE` and leave it running; the caller ends or awaits it."""
        return subprocess.Popen(
            [*(command or [str(LOCKGATE)]), *shlex.split(line), *(("--as", by) if by else ())],
            cwd=self.root,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=out or subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Where the tests themselves run in the background, Ctrl-C is ignored, and so it would be in there.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def dies_typing(self, place: str, line: str, *, by: str = "ada") -> None:
        """Type `lockgate LINE` in a process that is killed at `place` (`message-tag@kernel-step`)."""
        command = [sys.executable, "-P", "-c", DIES, place]
        with ended(self.starts(line, by=by, command=command)) as process:
            _, said = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, f"it was not at {place}:\n{said}"

    def asks(self, line: str) -> Any:
        """The JSON answer of a question that must succeed."""
        return self.types(f"{line} --json").must(OK).json

    def command(self, line: str, by: str | None = None) -> list[str]:
        return [str(LOCKGATE), *shlex.split(line), *(("--as", by) if by else ())]

    # -- files

    def read(self, file: str) -> str:
        return (self.root / file).read_text()

    def write(self, file: str, text: str) -> None:
        (self.root / file).parent.mkdir(parents=True, exist_ok=True)
        (self.root / file).write_text(text)

    def edit(self, file: str, *changes: tuple[str, str]) -> None:
        """Exact edits; each must apply at exactly one place."""
        text = self.read(file)
        for old, new in changes:
            assert text.count(old) == 1, f"{file} holds {old!r} {text.count(old)} times"
            text = text.replace(old, new)
        self.write(file, text)

    def copy(self, to: Path) -> Project:
        """The whole project with its store. Blobs, which are never written again, are linked and not copied."""
        shutil.copytree(self.root, to, copy_function=_copy_or_link, symlinks=True)
        return Project(to)

    # -- the store, looked at from outside

    @property
    def dot(self) -> Path:
        return self.root / ".lockgate"

    @property
    def database(self) -> Path:
        return self.dot / "state.db"

    def blob_file(self, digest: str) -> Path:
        return self.dot / "store" / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def blob(self, digest: str) -> bytes:
        return self.blob_file(digest).read_bytes()

    def layers(self, ref: str) -> dict[str, str]:
        """The digest of each file of a package, by path."""
        return {layer["path"]: layer["digest"] for layer in self.asks(f"package show {ref}")["layers"]}

    def journal(self, kind: str = "") -> list[dict[str, Any]]:
        """The entries of the journal, oldest first, as they are stored; of one kind of event, or all."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT body FROM events ORDER BY seq").fetchall()
        entries = [json.loads(body) for (body,) in rows]
        return [entry for entry in entries if entry["event"]["type"].startswith(kind)]

    def alters(self, sql: str, *values: Any) -> int:
        """Change the database behind Lockgate's back, triggers removed; the number of rows changed."""
        with closing(sqlite3.connect(self.database)) as database:
            triggers = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for (name,) in triggers:
                database.execute(f"DROP TRIGGER {name}")
            changed = database.execute(sql, values).rowcount
            database.commit()
        return changed

    def live(self) -> dict[str, str | None]:
        """Which package is live on each endpoint."""
        lines = self.asks("status")["endpoints"]
        return {name: line["live"] and line["live"]["digest"] for name, line in lines.items()}

    # -- what runs

    @property
    def running(self) -> dict[str, Any] | None:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            found: dict[str, Any] = json.loads((self.dot / "up.json").read_bytes())
            return found
        return None

    def up(self) -> dict[str, Any]:
        """`lockgate up` in the background, on free ports."""
        # With the fault handler a process that will not leave can be made to say where it hangs.
        self.types("up --detach --port 0", by="sre", env={"PYTHONFAULTHANDLER": "1"}).must(OK)
        known = self.running
        assert known is not None
        return known

    def down(self) -> None:
        """`lockgate down`. What does not leave by itself is ended by its process id, and fails the story."""
        known = self.running
        if known is None or not self._is_ours(known["pid"]):
            return
        done = self.types("down")
        for pid, number in ((known["pid"], signal.SIGABRT), (known["plane_pid"], signal.SIGKILL)):
            if self._is_ours(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        assert done.code == OK, f"{done.text}\n{(self.dot / 'up.log').read_text()[-8000:]}"

    def _is_ours(self, pid: int) -> bool:
        command = command_of(pid)
        return "lockgate" in command and str(self.root) in command

    def predict(self, *rows: Mapping[str, Any], at: str = ENDPOINT, port: int | None = None) -> Reply:
        """Send raw features to an endpoint."""
        known = self.running
        assert known is not None, "nothing is up"
        body = json.dumps({"inputs": rows}).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", port or known["plane_port"], timeout=30)) as way:
            way.request("POST", f"/{at}", body, {"content-type": "application/json"})
            return reply_of(way)

    def get(self, path: str) -> Reply:
        """Ask the data plane itself."""
        known = self.running
        assert known is not None, "nothing is up"
        with closing(http.client.HTTPConnection("127.0.0.1", known["plane_port"], timeout=30)) as way:
            way.request("GET", path)
            return reply_of(way)


def reply_of(connection: http.client.HTTPConnection) -> Reply:
    response = connection.getresponse()
    data = response.read()
    try:
        return Reply(response.status, json.loads(data))
    except json.JSONDecodeError:
        return Reply(response.status, data.decode(errors="replace"))


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This machine's settings without those of a Lockgate that somebody uses here."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")} | dict(
        more or {}
    )


def command_of(pid: int) -> str:
    """The command line of a living process; empty when there is none."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _copy_or_link(source: str, target: str) -> None:
    if "/blobs/sha256/" in source:
        with suppress(OSError):  # another file system
            os.link(source, target)
            return
    shutil.copy2(source, target)


class Worlds:
    """States that are costly to reach, each reached once per test run and then only copied.

    Attributes:
        told: what every command typed on the way answered, by a name of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.told: dict[str, Typed] = {}

    def _say(self, name: str, typed: Typed) -> None:
        self.told[name] = typed

    @cached_property
    def made(self) -> Project:
        """A project just made from the template; nothing has run."""
        return self._init("made")

    @cached_property
    def one(self) -> Project:
        """Version 1.0.0 went from nothing to prod; nothing is up any more."""
        project = self._init("one")
        ask_for_no_release_plan(project)
        say = self._say
        say("first plan", project.types("plan --json").must(OK))
        say("ship without a data plane", project.types("ship --to prod --ticket OPS-1", by="ada"))
        say("up", project.types("up --detach --port 0 --json"))
        try:
            say("ship without approval", project.types("ship --to prod --ticket OPS-1", by="ada"))
            say("own approval", project.types("approve flight-delay@1.0.0 --for prod", by="ada"))
            say("approval", project.types("approve flight-delay@1.0.0 --for prod", by="grace"))
            say("ship", project.types("ship --to prod --ticket OPS-1", by="ada").must(OK))
        finally:
            project.down()
        return project

    @cached_property
    def two(self) -> Project:
        """Version 1.1.0 took over from 1.0.0 everywhere; nothing is up any more."""
        project = self.one.copy(self._folder / "two")
        project.edit(FEATURES, BETTER)
        say = self._say
        project.up()
        try:
            say("plan of the better", project.types("plan --json"))
            say("ship the better", project.types("ship --to prod --ticket OPS-2", by="ada").must(WAITING))
            say("approve the better", project.types("approve flight-delay@1.1.0 --for prod", by="grace"))
            say("release the better", project.types("ship --to prod --ticket OPS-2", by="ada").must(OK))
        finally:
            project.down()
        return project

    @cached_property
    def twin(self) -> Project:
        """Another folder with the same sources and keys of its own, built in two stages; nothing released."""
        project = self._init("twin")
        say = self._say
        say("twin plan", project.types("plan --json"))
        say("fast stage", project.types("check --json", by="linus").must(OK))
        say("plan between the stages", project.types("plan --json"))
        say("slow stage", project.types("train --json", by="linus").must(OK))
        say("plan after both stages", project.types("plan --json"))
        return project

    def _init(self, name: str) -> Project:
        folder = self._folder / name
        folder.mkdir()
        Project(folder).types("init flights --template flights").must(OK)
        project = Project(folder / "flights")
        release_at_once(project.root / "lockgate.toml")
        return project


def release_at_once(config: Path) -> None:
    """Take the rollout by steps out of a project, and features by key: most stories are about other things."""
    text = config.read_text()
    text = re.sub(r"(?ms)^\[endpoints\.[^\n]*\.rollout\]\n.*?(?=^\[|\Z)", "", text)
    config.write_text(text.replace('features = "online"\n', ""))


def ask_for_no_release_plan(project: Project) -> None:
    """A release plan names guards, which what is released at once has none of: such a project has its own policy."""
    shipped = resources.files("lockgate.app").joinpath("policies/default.toml").read_text()
    policy = project.root / ".lockgate" / "no-plan.toml"
    named = shipped.replace('name = "default"', 'name = "without-plan"')
    policy.write_text(re.sub(r"(?m)^(release_plan|rollout\.production) = .*\n", "", named))
    project.types("policy adopt .lockgate/no-plan.toml", by="petra").must(OK)


class Story:
    """One test's project and its last command. Everything it starts ends with it."""

    def __init__(self, worlds: Worlds, eventually: Callable[..., Any]) -> None:
        self.worlds = worlds
        self.eventually = eventually
        self._folders: list[tempfile.TemporaryDirectory[str]] = []
        self._projects: list[Project] = []
        self._project: Project | None = None
        self._typed: Typed | None = None

    @property
    def project(self) -> Project:
        assert self._project is not None, "no project is given"
        return self._project

    @property
    def typed(self) -> Typed:
        assert self._typed is not None, "nothing was typed"
        return self._typed

    def play_in(self, world: Project) -> Project:
        """Go on in a private copy of a world."""
        folder = tempfile.TemporaryDirectory(prefix="lockgate-story-")
        self._folders.append(folder)
        return self._enter(world.copy(Path(folder.name) / "flights"))

    def _enter(self, project: Project) -> Project:
        self._projects.append(project)
        self._project = project
        return project

    def note(self, typed: Typed) -> Typed:
        self._typed = typed
        return typed

    def close(self) -> None:
        for project in self._projects:
            project.down()
        for folder in self._folders:
            folder.cleanup()


class Given:
    """Brings about where a story begins."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def a_new_project(self) -> Project:
        return self._story.play_in(self._story.worlds.made)

    def version_one_is_live(self) -> Project:
        """1.0.0 was shipped to prod; nothing is up."""
        return self._story.play_in(self._story.worlds.one)

    def version_two_is_live(self) -> Project:
        """1.1.0 replaced 1.0.0 on every endpoint; nothing is up."""
        return self._story.play_in(self._story.worlds.two)

    @property
    def twin(self) -> Project:
        """The second project of equal sources; 1.0.0 is registered there and was never released."""
        return self._story.worlds.twin

    def a_copy(self, of: Project) -> Project:
        """A private copy of another project; the story goes on there."""
        return self._story.play_in(of)

    def all_is_up(self) -> dict[str, Any]:
        """Data plane, controller and hub run, and every endpoint answers."""
        known = self._story.project.up()
        self._story.eventually(lambda: self._story.project.get("/readyz").status == 200, 60.0)
        return known

    def an_edit(self, file: str, *changes: tuple[str, str]) -> None:
        self._story.project.edit(file, *changes)

    def a_file(self, file: str, text: str) -> None:
        self._story.project.write(file, text)

    def told(self, name: str) -> Typed:
        """What a command on the way to one of the worlds answered."""
        return self._story.worlds.told[name]


class When:
    """Types commands and sends requests."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def ada(self, line: str, **more: Any) -> Typed:
        """Ada wrote the model."""
        return self._type(line, "ada", more)

    def grace(self, line: str, **more: Any) -> Typed:
        """Grace approves."""
        return self._type(line, "grace", more)

    def the_sre(self, line: str, **more: Any) -> Typed:
        """Whoever is on call."""
        return self._type(line, "sre", more)

    def somebody(self, line: str, **more: Any) -> Typed:
        """Nobody in particular: no identity is claimed."""
        return self._type(line, None, more)

    @property
    def typed(self) -> Typed:
        """The last command."""
        return self._story.typed

    def _type(self, line: str, by: str | None, more: Mapping[str, Any]) -> Typed:
        return self._story.note(self._story.project.types(line, by=by, **more))

    def a_flight_is_asked_about(self, flight: Mapping[str, Any] = FLIGHT, *, at: str = ENDPOINT) -> Reply:
        return self._story.project.predict(flight, at=at)


class Then:
    """Says what must be true now. Every method returns the object, so that demands may be chained."""

    def __init__(self, story: Story) -> None:
        self._story = story

    @property
    def answer(self) -> Any:
        """The last command's JSON."""
        return self._story.typed.json

    @property
    def code(self) -> int:
        """The last command's exit code."""
        return self._story.typed.code

    def it_ends_with(self, code: int) -> Then:
        self._story.typed.must(code)
        return self

    def it_succeeds(self) -> Then:
        return self.it_ends_with(OK)

    def it_waits(self) -> Then:
        return self.it_ends_with(WAITING)

    def it_says(self, *words: str) -> Then:
        for word in words:
            assert word in self._story.typed.text, f"{word!r} is not in\n{self._story.typed.text}"
        return self

    def it_never_says(self, *words: str) -> Then:
        for word in words:
            assert word not in self._story.typed.text, f"{word!r} is in\n{self._story.typed.text}"
        return self

    def told(self, words: str) -> int:
        """How often it says that."""
        return self._story.typed.text.count(words)

    def it_is_no_bug(self) -> Then:
        """Whatever went wrong, it was told as a message and not as a broken promise."""
        assert self._story.typed.code != BUG, self._story.typed.text
        return self.it_never_says("Traceback", "broke a promise")

    def it_is_refused_by(self, *rules: str) -> Then:
        """Exit 3, and each rule is among the reasons that `--json` lists."""
        self.it_ends_with(REFUSED)
        given = [reason["rule"] for reason in self.answer["refusal"]["reasons"]]
        for rule in rules:
            assert any(one == rule or one.startswith(rule + ":") for one in given), given
        return self

    def everything_is_cached(self) -> Then:
        plan = self._story.project.asks("plan")["steps"]
        assert [step for step in plan if step["action"] != "cached"] == []
        return self

    def the_audit_holds(self) -> Then:
        self._story.project.types("audit verify --json").must(OK)
        return self

    def version_is_live(self, version: str, *environments: str) -> Then:
        lines = self._story.project.asks("status")["endpoints"]
        for name in environments or LADDER:
            live = lines[f"{name}/flight-delay"]["live"]
            assert live is not None and live["version"] == f"flight-delay@{version}", (name, live)
        return self


def actions(plan: Mapping[str, Any]) -> dict[str, str]:
    """`run` or `cached` for each step of a plan's JSON."""
    return {step["name"]: step["action"] for step in plan["steps"]}


def reasons(plan: Mapping[str, Any]) -> dict[str, str]:
    return {step["name"]: step["why"] for step in plan["steps"]}


def to_run(plan: Mapping[str, Any]) -> set[str]:
    return {name for name, action in actions(plan).items() if action == "run"}


class Traffic:
    """Callers that ask an endpoint without a pause, each on one connection, and keep every answer."""

    def __init__(self, project: Project, n_callers: int = 2, at: str = ENDPOINT) -> None:
        known = project.running
        assert known is not None
        self._port: int = known["plane_port"]
        self._path = f"/{at}"
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(n_callers)]
        self.answers: list[list[Reply]] = [[] for _ in range(n_callers)]
        self.failures: list[Exception] = []

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def at_least(self, n: int) -> bool:
        """Whether every caller has so many answers by now (or one of them failed)."""
        return bool(self.failures) or all(len(mine) >= n for mine in self.answers)

    @property
    def n_answers(self) -> int:
        return min(len(mine) for mine in self.answers)

    def _call(self, number: int) -> None:
        body = json.dumps({"inputs": [FLIGHT], "key": f"caller-{number}"}).encode()
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as way:
                while not self._enough.is_set():
                    way.request("POST", self._path, body, {"content-type": "application/json"})
                    self.answers[number].append(reply_of(way))
        except (OSError, http.client.HTTPException) as failure:
            self.failures.append(failure)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone at the end of the block, however the block went."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
