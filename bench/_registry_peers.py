"""The registry of Lockgate against MLflow's: on the same kind of database, in process and through the server.

Both sides are programs that take the same orders in lines (`_registry_client.py`, `_mlflow.py`), and are asked turn by
turn. MLflow lives in an environment of its own below `.bench/`, made when it is missing.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from _measure import ROOT, Row, absolute_row, child_environment, ratio_row, show
from _online import installer_environment
from _process import Program, running

sys.path.append(str(ROOT / "tests" / "services"))
from postgres import PostgresServer
from servers import LOOPBACK, free_port

CLIENT, HUB, MLFLOW = (
    ROOT / "bench" / name for name in ("_registry_client.py", "_hub_process.py", "_mlflow.py")
)
N_LISTED, N_CLIENTS = 10_000, 8
# Five times as fast, or ten times.
FIVE, TEN = 0.2, 0.1
MAX_RSS_MB = 150.0
DSN = "BENCH_DSN"


def mlflow_python() -> Path:
    """An interpreter with MLflow as pinned in mlflow-requirements.txt; installed when it is missing or other."""
    pins, venv = ROOT / "bench" / "mlflow-requirements.txt", ROOT / ".bench" / "mlflow"
    python, done = venv / "bin" / "python", venv / "installed.txt"
    if done.exists() and done.read_bytes() == pins.read_bytes():
        return python
    print("installing MLflow below .bench/, once", flush=True)
    uv, quiet = str(ROOT / ".bootstrap" / "bin" / "uv"), "--quiet"
    sync = [
        "pip",
        "sync",
        quiet,
        "--python",
        str(python),
        "--require-hashes",
        "--compile-bytecode",
        str(pins),
    ]
    for command in ([uv, "venv", quiet, "--clear", "--python", sys.executable, str(venv)], [uv, *sync]):
        subprocess.run(command, check=True, cwd=ROOT, env=installer_environment())
    shutil.copyfile(pins, done)
    return python


@contextmanager
def mlflow_server(uri: str, folder: Path) -> Iterator[str]:
    """MLflow's server with two workers; its tasks in the background are switched off."""
    port = free_port()
    command = [str(mlflow_python()), "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", LOOPBACK, "--port", str(port), "--workers", "2"]
    command += ["--uvicorn-opts", "--timeout-worker-healthcheck 120 --log-level warning"]
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "mlflow.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=child_environment() | settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://{LOOPBACK}:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _is_healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "mlflow.log").read_text()[-3000:])
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def hub_server(url: str, folder: Path) -> Iterator[tuple[str, int]]:
    """A hub's address and process."""
    with running([sys.executable, str(HUB), url, str(folder)]) as program:
        yield f"http://{LOOPBACK}:{program.says()['port']}", program.pid


def rss_mb(pid: int) -> float:
    """What the process has in memory now, in MB."""
    line = next(
        one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1000


class Sides:
    """Clients of both registries over one database each."""

    def __init__(self, stack: ExitStack, ours: str, theirs: str, name: str) -> None:
        self._stack, self._ours, self._theirs = stack, ours, theirs
        self.ours, self.theirs = self.client(name), self.peer(name)
        self.ours.ask({"do": "declare", "n": 1})

    def client(self, name: str) -> Program:
        return self._started([sys.executable, str(CLIENT), self._ours, name])

    def peer(self, name: str) -> Program:
        return self._started([str(mlflow_python()), str(MLFLOW), self._theirs, name])

    def _started(self, command: list[str]) -> Program:
        program = self._stack.enter_context(running(command))
        program.says()
        return program

    def in_turns(self, what: str, n: int, n_rounds: int = 3) -> tuple[float, float]:
        """The medians of `n` per round, both sides asked in turn."""
        taken: tuple[list[float], list[float]] = ([], [])
        for side in (self.ours, self.theirs):
            side.ask({"do": what, "n": 1})
        for number in range(n_rounds):
            sides = [(self.ours, taken[0]), (self.theirs, taken[1])]
            for program, kept in sides if number % 2 else reversed(sides):
                kept += program.ask({"do": what, "n": n})
        return statistics.median(taken[0]), statistics.median(taken[1])

    def together(self, name: str, n: int) -> tuple[float, float]:
        """Medians of eight clients at once, one side after the other."""
        medians = []
        for make, is_ours in ((self.client, True), (self.peer, False)):
            with ThreadPoolExecutor(N_CLIENTS) as pool:
                clients = list(pool.map(make, [f"{name}{number}" for number in range(N_CLIENTS)]))
                if is_ours:
                    list(pool.map(lambda one: one.ask({"do": "declare", "n": 1}), clients))
                list(pool.map(lambda one: one.ask({"do": "mixed", "n": 1}), clients))
                answers = pool.map(lambda one: one.ask({"do": "mixed", "n": n}), clients)
                medians.append(statistics.median([value for answer in answers for value in answer]))
            for client in clients:
                client.end_of_questions()
        return medians[0], medians[1]


def compared(sides: Sides, where: str, *, n: int, n_listed: int) -> list[Row]:
    rows = []
    for title, what, times, budget in (
        ("register + approve + promote", "release", n, FIVE),
        ("endpoint lookup, against alias lookup", "lookup", 2 * n, FIVE),
        ("list 10,000 versions", "list", n_listed, TEN),
    ):
        ours, theirs = sides.in_turns(what, times)
        rows.append(ratio_row(f"{title}, {where}, ms, p50", ours, theirs, budget))
    whole = statistics.median(sides.ours.ask({"do": "whole", "n": n}))
    title = f"the whole way (evidence, validation, confirmation too), {where}, ms, p50"
    rows.append(absolute_row(title, whole, None, None))
    show(rows)
    return rows


def crowd_row(sides: Sides, database: str) -> Row:
    ours, theirs = sides.together("at-once", 5)
    return ratio_row(
        f"8 clients at once, release and lookup, {database}, by server, ms, p50", ours, theirs, FIVE
    )


def peer_rows(folder: Path, postgres: PostgresServer) -> list[Row]:
    """All rows against MLflow, SQLite first; and the memory of the hub that served them."""
    rows = []
    postgres.administer("CREATE DATABASE mlflow")
    for database in ("SQLite", "PostgreSQL"):
        home = folder / database
        home.mkdir(parents=True)
        if database == "SQLite":
            ours, theirs = f"sqlite:{home / 'journal.db'}", f"sqlite:///{home / 'mlflow.db'}"
        else:
            ours, theirs = f"env:{DSN}", postgres.dsn("mlflow").replace("postgresql:", "postgresql+psycopg2:")
        with ExitStack() as stack:
            sides = _seeded(stack, ours, theirs)
            rows += compared(sides, f"{database}, in process", n=20, n_listed=1)
        with ExitStack() as stack:
            hub, pid = stack.enter_context(hub_server(ours, home))
            server = stack.enter_context(mlflow_server(theirs, home))
            sides = Sides(stack, hub, server, "served")
            rows += compared(sides, f"{database}, by server", n=8, n_listed=1)
            rows.append(crowd_row(sides, database))
            title = f"memory of a hub after that, {database}, MB"
            rows.append(absolute_row(title, rss_mb(pid), None, MAX_RSS_MB))
            show(rows[-2:])
    return rows


def _seeded(stack: ExitStack, ours: str, theirs: str) -> Sides:
    """Clients in process, over databases that hold ten thousand versions."""
    with running([sys.executable, str(CLIENT), ours, "founder"]) as founder:
        founder.says()
        founder.ask({"do": "found", "n": 1})
        founder.ask({"do": "seed", "n": N_LISTED})
    sides = Sides(stack, ours, theirs, "local")
    sides.theirs.ask({"do": "seed", "n": N_LISTED})
    return sides
