"""Starting real servers for tests: on a free port of the loopback interface, without root, stopped by process id.

`started(command, ready=...)` is the one way; the files beside this one know the commands of one server each.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_S = 60.0
LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((LOOPBACK, port)) == 0


def unprivileged() -> tuple[int, int]:
    """User and group for servers: those of this process, or of `nobody` when this is root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def as_unprivileged(command: Sequence[str]) -> list[str]:
    uid, gid = unprivileged()
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *command]


def on_a_small_disk(mount: Path, n_bytes: int, command: Sequence[str]) -> list[str]:
    """A command that sees a file system of `n_bytes` at `mount`, without being root: in a user namespace of its own.

    The inner namespace gives it a number that is not root's again, because some servers refuse to be root.
    """
    script = (
        'mount -t tmpfs -o "size=$1,mode=700" small "$2" && shift 2 && exec unshare -U --map-user=1000 "$@"'
    )
    return ["unshare", "-Urm", "sh", "-ec", script, "sh", str(n_bytes), str(mount), *command]


def can_be_given_a_small_disk() -> bool:
    with folder() as mount:
        command = as_unprivileged(on_a_small_disk(mount, 1 << 20, ["true"]))
        return subprocess.run(command, cwd="/", capture_output=True).returncode == 0


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that a server may write, short enough for the path of a socket."""
    made = Path(tempfile.mkdtemp(prefix="lg-"))
    made.chmod(0o700)
    os.chown(made, *unprivileged())
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def started(
    command: Sequence[str],
    *,
    ready: Callable[[], bool],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block runs. What it wrote to `log` is told when it does not become ready."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            as_unprivileged(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
    try:
        wait_until(ready, process, log)
        yield process
    finally:
        end(process, stop)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-4000:]
            raise RuntimeError(f"{process.args!r} did not become ready (status {process.poll()}):\n{tail}")
        pause.wait(0.02)


def wait_until_gone(pids: Iterable[int]) -> None:
    """Wait for processes that are no children of this one."""
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE_S
    while left := [pid for pid in pids if is_alive(pid)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"still running: {left}")
        pids = left
        pause.wait(0.02)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def end(process: subprocess.Popen[bytes], stop: signal.Signals = signal.SIGTERM) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
