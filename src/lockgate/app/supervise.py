"""What `lockgate up` runs: the data plane as a process of its own, the hub and the controller here.

The data plane outlives nothing and nothing outlives it: when it ends unasked it is started again, with the control
files it left behind, so it comes back with the plans it had. Who is running is written to `.lockgate/up.json`,
with the start time of the process, so that a recycled process id is never mistaken for ours.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import msgspec

from lockgate.app.chores import Chores, note
from lockgate.app.control import Control
from lockgate.app.deciding import LOCAL_LOOK_S
from lockgate.app.http.server import HubServer, by_claimed_name, create_app
from lockgate.core.errors import Conflict, NotFound, Unavailable
from lockgate.workshop.layout import Layout
from lockgate.workshop.upkeep.erasing import Eraser

_TICK_S = 0.1
_LOOK_S = 0.1
_CAPTURES_S = 60.0
_CHECKPOINT_EVERY_S = 60.0
_READY_S = 60.0
_LEAVE_S = 20.0
_SAID_LINES = 8


class AlreadyUp(Conflict):
    code = "running.already-up"
    retryable = False


class NotUp(NotFound):
    code = "running.not-up"


class DidNotStart(Unavailable):
    code = "running.did-not-start"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What is up: process ids, ports, and the moment the supervisor began."""

    pid: int
    started: str
    plane_pid: int
    plane_port: int
    hub_port: int

    @property
    def plane_url(self) -> str:
        return f"http://127.0.0.1:{self.plane_port}"

    @property
    def hub_url(self) -> str:
        return f"http://127.0.0.1:{self.hub_port}"


def running(layout: Layout) -> Running | None:
    """What is up in this project; None when nothing is."""
    try:
        known = msgspec.json.decode(layout.running.read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return known if started_at(known.pid) == known.started else None


def started_at(pid: int) -> str:
    """When a process began, in the kernel's words; empty when there is none (or outside Linux, unknown)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state == "Z" else rest[18]


class Supervisor:
    """Keeps one data plane and one hub up, and carries out effects, until told to stop."""

    def __init__(self, control: Control, *, port: int, hub_port: int) -> None:
        self._control = control
        self._layout = control.layout
        self._port = port
        self._hub_port = hub_port
        # Rung by a signal's handler, in the thread that waits: an Event would lock itself out there.
        self._stop: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._chores = Chores()
        self._plane: subprocess.Popen[str] | None = None
        self._written_pid = 0
        self._hub: HubServer | None = None

    def run(self, ready: Callable[[Running], None]) -> None:
        """Start everything, say so, then work until SIGTERM or SIGINT."""
        with self._alone():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
            try:
                self._control.republish()
                self._control.effects.take_over()
                self._port = self._start_plane()
                self._start_hub()
                notifier = self._control.notifier()
                # Threads of their own: waiting for a target must neither keep the data plane from being started
                # again nor the guards from watching.
                self._chores.start("effects", _TICK_S, self._control.effects.carry_out)
                self._chores.start("rollouts", _LOOK_S, self._control.rollouts.look)
                self._chores.start("local plans", LOCAL_LOOK_S, self._control.adopt)
                self._chores.start("captures", _CAPTURES_S, self._control.prune_captures)
                eraser = Eraser(self._control.journal, self._control.blobs, self._control.steps)
                self._chores.start("erasures", LOCAL_LOOK_S, eraser.look)
                drills = self._control.drills(lambda: self._port)
                self._chores.start("drills", _LOOK_S, drills.look)
                self._chores.keep("webhooks", lambda leaving: notifier.run(leaving, note))
                ready(self._write_down())
                self._work()
            finally:
                self._leave()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the project's lock: a second supervisor is refused, whatever moment it comes at."""
        with (self._layout.dot / "up.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AlreadyUp(
                    "it is up already", remedy="lockgate down", folder=str(self._layout.root)
                ) from error
            yield

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop.put(number)

    def _start_plane(self) -> int:
        environments = self._control.config.environments
        command = [sys.executable, "-P", "-m", "lockgate.app.dataplane"]
        command += ["--run-dir", str(self._layout.run), "--store", str(self._layout.blobs)]
        command += ["--port", str(self._port), "--follow"]
        command += ["--online", str(self._layout.online)]
        for name, table in environments.items():
            paths = ",".join(str(self._layout.root / path) for path in table.trust)
            command += ["--trust", f"{name}={paths}"]
        # Its standard input ends with this process, and it with that: a port is never left taken.
        self._plane = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self._layout.root
        )
        assert self._plane.stdout is not None
        line = self._plane.stdout.readline()
        if not line:
            raise DidNotStart(
                f"the data plane ended with status {self._plane.wait()} before it listened",
                remedy="see above what it wrote to standard error",
            )
        return int(json.loads(line)["port"])

    def _start_hub(self) -> None:
        listening = threading.Event()

        def ready(port: int) -> None:
            self._hub_port = port
            listening.set()

        app = create_app(self._control.hub_for, by_claimed_name)
        self._hub = HubServer(app, self._hub_port, ready=ready)
        threading.Thread(target=self._hub.run, name="hub", daemon=True).start()
        if not listening.wait(_READY_S):
            raise DidNotStart("the hub did not listen in time", remedy="try again")

    def _write_down(self) -> Running:
        assert self._plane is not None
        state = Running(
            pid=os.getpid(),
            started=started_at(os.getpid()),
            plane_pid=self._plane.pid,
            plane_port=self._port,
            hub_port=self._hub_port,
        )
        temporary = self._layout.running.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(state))
        temporary.replace(self._layout.running)
        self._written_pid = self._plane.pid
        return state

    def _work(self) -> None:
        next_checkpoint = time.monotonic()
        while not self._stopped_within(_TICK_S):
            assert self._plane is not None
            if self._plane.poll() is not None:
                note("the data plane ended; it is started again")
                with self._chores.going_on("rollouts"):
                    self._control.rollouts.plane_ended()
                # One that cannot be started now (a full disk, a port that somebody took) may be in a moment.
                with self._chores.going_on("data plane"):
                    self._start_plane()
            elif self._plane.pid != self._written_pid:
                with self._chores.going_on(self._layout.running.name):
                    self._write_down()
            if time.monotonic() >= next_checkpoint:
                next_checkpoint = time.monotonic() + _CHECKPOINT_EVERY_S
                with self._chores.going_on("checkpoint"):
                    self._control.checkpoint()

    def _stopped_within(self, seconds: float) -> bool:
        try:
            self._stop.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def _leave(self) -> None:
        self._chores.stop()
        if self._hub is not None:
            self._hub.stop()
        if self._plane is not None and self._plane.poll() is None:
            self._plane.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._plane.wait(_LEAVE_S)
            self._plane.kill()
            self._plane.wait()
        with suppress(FileNotFoundError):
            self._layout.running.unlink()


def detach(layout: Layout, arguments: list[str]) -> Running:
    """Start `lockgate up` in the background and wait until it serves."""
    if running(layout) is not None:
        raise AlreadyUp("it is up already", remedy="lockgate down", folder=str(layout.root))
    layout.dot.mkdir(mode=0o700, exist_ok=True)
    log = layout.dot / "up.log"
    with log.open("ab") as out:
        before = out.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lockgate.app.cli", "up", "--project", str(layout.root), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        known = running(layout)
        if known is not None:
            return known
        if process.poll() is not None:
            break
        time.sleep(0.02)
    said = log.read_bytes()[before:].decode(errors="replace").splitlines()
    raise DidNotStart(
        "\n".join(["lockgate up did not start. It said:", *said[:_SAID_LINES]]),
        remedy=f"see {log} for all of it"
        if len(said) > _SAID_LINES
        else "do as it says, then start it again",
        log=str(log),
    )


def stop(layout: Layout) -> Running:
    """Stop what is up and wait until it is gone."""
    known = running(layout)
    if known is None:
        raise NotUp("nothing is up in this project", remedy="lockgate up", folder=str(layout.root))
    os.kill(known.pid, signal.SIGTERM)
    deadline = time.monotonic() + _LEAVE_S + 5
    while started_at(known.pid) == known.started:
        if time.monotonic() > deadline:
            raise DidNotStart(
                f"process {known.pid} does not end", remedy=f"kill -9 {known.pid}", pid=known.pid
            )
        time.sleep(0.02)
    return known
