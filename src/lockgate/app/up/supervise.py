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
from types import FrameType

import msgspec

from lockgate.app.chores import Chores, note
from lockgate.app.control import Control
from lockgate.app.deciding import LOCAL_LOOK_S
from lockgate.app.http.server import HubServer, by_claimed_name, create_app
from lockgate.app.up.running import LEAVE_S, AlreadyUp, DidNotStart, Running, started_at
from lockgate.workshop.upkeep.erasing import Eraser

_TICK_S = 0.1
_LOOK_S = 0.1
_CAPTURES_S = 60.0
_CHECKPOINT_EVERY_S = 60.0
_READY_S = 60.0


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
                self._plane.wait(LEAVE_S)
            self._plane.kill()
            self._plane.wait()
        with suppress(FileNotFoundError):
            self._layout.running.unlink()
