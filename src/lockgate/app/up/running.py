"""What `lockgate up` left word of: who is running here, how it is started in the background, how it is ended.

Apart from `supervise`, which loads all that a hub and a controller need: to look for a process, to start one and to end
it takes none of that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from lockgate.core.errors import Conflict, NotFound, Unavailable
from lockgate.workshop.layout import Layout

LEAVE_S = 20.0
"""How long the data plane may take to end before it is killed."""
_READY_S = 60.0
_LOOK_S = 0.02
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
        time.sleep(_LOOK_S)
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
    deadline = time.monotonic() + LEAVE_S + 5
    while started_at(known.pid) == known.started:
        if time.monotonic() > deadline:
            raise DidNotStart(
                f"process {known.pid} does not end", remedy=f"kill -9 {known.pid}", pid=known.pid
            )
        time.sleep(_LOOK_S)
    return known
