"""Programs beside the measurement: started on a core of their own, spoken to in lines, their CPU time read.

The core pinning is what makes a closed loop of a client and a server repeatable: with two processors the client has
one and the server the other, with a single one they share it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from _measure import ROOT, child_environment

_CORES = sorted(os.sched_getaffinity(0))
CLIENT_CORE, SERVER_CORE = _CORES[0], _CORES[-1]


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile, runs on one core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Program:
    """A running program that answers in lines of standard output."""

    def __init__(self, command: Sequence[str], process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._name = " ".join(command[:4])
        self._process = process
        self.pid = process.pid
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout

    def line(self) -> str:
        """The next line it writes."""
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with {self._process.wait(30)}")
        return line

    def says(self) -> Any:
        """The next line it writes, read as JSON."""
        return json.loads(self.line())

    def ask(self, question: Any) -> Any:
        """Write one line of JSON, read one."""
        self._stdin.write(json.dumps(question) + "\n")
        self._stdin.flush()
        return self.says()

    def end_of_questions(self) -> str:
        """Close its standard input, read what it still writes; it must end with 0."""
        self._stdin.close()
        rest = self._stdout.read()
        code = self._process.wait(60)
        if code:
            raise RuntimeError(f"{self._name} ended with {code}")
        return rest

    def cpu_s(self) -> float:
        """CPU seconds so far of all threads of the process, and of its children that live."""
        return _cpu_s(self.pid)


@contextmanager
def running(command: Sequence[str], core: int | None = None, folder: Path = ROOT) -> Iterator[Program]:
    """A program, on `core` when one is given; it is gone at the end."""
    with on_core(core) if core is not None else _anywhere():
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    program = Program(command, process)
    try:
        yield program
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()


@contextmanager
def dataplane(
    store: Path, run_dir: Path, trust: Sequence[str], core: int, *more: str
) -> Iterator[tuple[Program, int]]:
    """A data plane that listens, and its port."""
    command = [sys.executable, "-P", "-m", "lockgate.app.dataplane"]
    command += ["--run-dir", str(run_dir), "--store", str(store)]
    for item in trust:
        command += ["--trust", item]
    with running([*command, *(more if "--port" in more else ("--port", "0", *more))], core) as program:
        yield program, int(program.says()["port"])


@contextmanager
def _anywhere() -> Iterator[None]:
    yield


def _cpu_s(pid: int) -> float:
    total = time.clock_gettime(_cpu_clock(pid))
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        total += sum(_cpu_s(int(child)) for child in listed.read_text().split())
    return total


def _cpu_clock(pid: int) -> int:
    """Linux' number of the clock that counts a process' CPU time, in nanoseconds (`clock_getcpuclockid`)."""
    return (~pid << 3) | 2
