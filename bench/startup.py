"""What Lockgate costs before it does anything: start-up, the overhead of a step, the way back.

    make bench startup

Correctness comes first: what `status` prints is read, every answer of the data plane is compared with the model's own.
Writes `bench/results/startup.json`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from _live_project import ENVIRONMENTS, LiveProject, live_project
from _measure import (
    ROOT,
    Cost,
    Row,
    absolute_row,
    child_environment,
    compile_sources,
    in_turns,
    keep,
    quantile,
    ratio_row,
    run_child,
    show,
)

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.runners import artifacts
from lockgate.adapters.runners.local import LocalRunner
from lockgate.adapters.runners.project import read_sources
from lockgate.adapters.sql.step_cache import SqliteStepCache
from lockgate.app.system import SystemClock
from lockgate.core.digests import sha256
from lockgate.delivery.messages import RollBackEndpoint
from lockgate.pipeline.code.source import SourceTree
from lockgate.pipeline.execute import Progress, StepCached, StepFinished, execute
from lockgate.pipeline.graph import wire_steps
from lockgate.testing.packages import ROWS

HELP_BUDGET, STATUS_BUDGET = 8.0, 15.0
STEP_BUDGET_MS = 3.0
ROLLBACK_BUDGET_MS = 20.0
N_STARTS, N_PLANS = 25, 5
N_STEPS, N_CHAINS = 60, 5
N_FLIPS, N_TYPED_FLIPS = 100, 5
PREDICTIONS_AGREE = 1e-6

LOCKGATE = str(Path(sys.executable).with_name("lockgate"))
BARE = [sys.executable, "-c", "pass"]


def main() -> int:
    compile_sources()
    with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as folder:
        root = Path(folder)
        rows = step_rows(root / "steps")
        with live_project(root / "project") as project:
            rows = [*start_rows(project), *rows, *rollback_rows(project)]
    show(rows)
    print(f"written to {keep('startup', rows).relative_to(ROOT)}")
    return 0


# -- starting


def start_rows(project: LiveProject) -> list[Row]:
    """`--help` and `status` against an interpreter that does nothing."""
    check_status(project)
    sides = {
        "pass": partial(run_child, BARE, project.folder),
        "help": partial(run_child, [LOCKGATE, "--help"], project.folder),
        "status": partial(run_child, [LOCKGATE, "status"], project.folder),
    }
    taken = in_turns(sides, N_STARTS)
    rows = []
    for name, side, budget in (("--help", "help", HELP_BUDGET), ("status", "status", STATUS_BUDGET)):
        for unit, ours, bare in zip(("CPU", "wall"), taken[side], taken["pass"], strict=True):
            title = f"lockgate {name}, {unit} ms, against python -c pass"
            rows.append(ratio_row(title, ours * 1000, bare * 1000, budget))
    sides = {
        "pass": partial(run_child, BARE, project.folder),
        "plan": partial(run_child, [LOCKGATE, "plan"], project.folder),
    }
    taken = in_turns(sides, N_PLANS)
    ours, bare = taken["plan"].wall_s * 1000, taken["pass"].wall_s * 1000
    return [*rows, absolute_row("lockgate plan, wall ms, against python -c pass", ours, bare, None)]


def check_status(project: LiveProject) -> None:
    said = json.loads(lockgate(project, "status", "--json"))["endpoints"]
    assert list(said) == [f"{environment}/flight-delay" for environment in ENVIRONMENTS], said
    for line in said.values():
        assert line["live"]["version"] == "flight-delay@1.1.0", line
        assert line["previous"]["version"] == "flight-delay@1.0.0", line
        assert line["rollback_ready"]["ready"], line


def lockgate(project: LiveProject, *arguments: str) -> str:
    done = subprocess.run(
        [LOCKGATE, *arguments],
        cwd=project.folder,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


# -- steps


def step_rows(folder: Path) -> list[Row]:
    """A chain of steps that do nothing, run and remembered, against calling the same functions."""
    folder.mkdir()
    project = folder / "project"
    project.mkdir()
    (project / "chain.py").write_text(chain_source())
    tree = SourceTree(read_sources(str(project)))
    nodes = wire_steps(tree, [f"chain:step_{n}" for n in range(N_STEPS)])
    plain = plain_chain(project)
    taken, plain_s, cached_s, synced_s = [], [], [], []
    for turn in range(N_CHAINS):
        blobs = DirectoryBlobs(folder / f"store-{turn}")
        runner = LocalRunner(project, blobs, sources=tree)
        with SqliteStepCache(folder / f"steps-{turn}.db", "main/chain") as cache:
            run = partial(execute, nodes, cache, runner, sha256(b"environment"), SystemClock())
            cost, record, seen = timed(run)
            assert [type(one) for one in seen].count(StepFinished) == N_STEPS
            assert artifacts.load(record.output(f"step_{N_STEPS - 1}"), blobs) == N_STEPS - 1 == plain()
            taken.append(cost)
            cost, again, seen = timed(run)
            assert [type(one) for one in seen].count(StepCached) == N_STEPS and again.id == record.id
            cached_s.append(cost.wall_s)
        started = time.perf_counter()
        plain()
        plain_s.append(time.perf_counter() - started)
        synced_s.append(durable_files(folder / f"files-{turn}"))
    per_step = 1000 / N_STEPS
    cpu, wall = (statistics.median(column) * per_step for column in zip(*taken, strict=True))
    bare, synced = statistics.median(plain_s) * per_step, statistics.median(synced_s) * per_step
    cached = statistics.median(cached_s) * per_step
    return [
        absolute_row("step overhead, CPU ms, against calling the function", cpu - bare, bare, STEP_BUDGET_MS),
        absolute_row(
            "step overhead, wall ms, against making a file durable", wall - bare, synced, STEP_BUDGET_MS
        ),
        absolute_row("remembered step, wall ms, against running it", cached, wall, None),
    ]


def chain_source() -> str:
    head = ["from lockgate import step", "", "@step", "def step_0() -> int:", "    return 0", ""]
    for n in range(1, N_STEPS):
        head += ["@step", f"def step_{n}(step_{n - 1}: int) -> int:", f"    return step_{n - 1} + 1", ""]
    return "\n".join(head)


def plain_chain(project: Path) -> Callable[[], int]:
    """The same functions, called one after the other."""
    namespace: dict[str, Any] = {}
    exec(compile((project / "chain.py").read_text(), "chain.py", "exec"), namespace)
    functions = [namespace[f"step_{n}"] for n in range(N_STEPS)]

    def run() -> int:
        value = functions[0]()
        for function in functions[1:]:
            value = function(value)
        return int(value)

    return run


def timed(run: Callable[..., Any]) -> tuple[Cost, Any, list[Progress]]:
    seen: list[Progress] = []
    started, used = time.perf_counter(), time.process_time()
    record = run(observer=seen.append)
    return Cost(time.process_time() - used, time.perf_counter() - started), record, seen


def durable_files(folder: Path) -> float:
    """Seconds to write as many small files, whole or not at all and safe from a power cut: no step can do without."""
    (folder / "new").mkdir(parents=True)
    directory = os.open(folder, os.O_RDONLY)
    started = time.perf_counter()
    for n in range(N_STEPS):
        descriptor = os.open(folder / "new" / str(n), os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"0")
        os.fsync(descriptor)
        os.close(descriptor)
        (folder / "new" / str(n)).rename(folder / str(n))
        os.fsync(directory)
    taken = time.perf_counter() - started
    os.close(directory)
    return taken


# -- the way back


def rollback_rows(project: LiveProject) -> list[Row]:
    """From the command to the first answer of the other version, seen by a client under way."""
    hub = project.control.hub("olga")
    path = "/prod/flight-delay"
    waits_ms, receipts_ms, commits_ms = [], [], []
    floor = commit_floor(project.folder.parent / "floor.db")
    with polling(project, path) as lines:
        live = next_line(lines, project)[0]
        assert live == "1.1.0"
        for _ in range(N_FLIPS):
            command = RollBackEndpoint(id=project.control.ids.new(), endpoint="prod/main/flight-delay")
            started = time.monotonic_ns()
            receipt = hub.execute(command)
            receipts_ms.append((time.monotonic_ns() - started) / 1e6)
            assert receipt.refusal is None and receipt.effects == "done", receipt
            live = check_flip(live, version := next_line(lines, project))
            waits_ms.append((version[1] - started) / 1e6)
            commits_ms.append(floor())
        typed_ms = []
        for _ in range(N_TYPED_FLIPS):
            started = time.monotonic_ns()
            said = json.loads(lockgate(project, "rollback", "prod/flight-delay", "--json", "--as", "olga"))
            live = check_flip(live, version := next_line(lines, project))
            assert said["to"] == f"flight-delay@{live}", said
            typed_ms.append((version[1] - started) / 1e6)
    assert json.loads(lockgate(project, "audit", "verify", "--json"))["ok"]
    commit_ms = statistics.median(commits_ms)
    title = "rollback, command to first answer of the version before, ms, p{}, against one durable commit"
    return [
        absolute_row(title.format(50), statistics.median(waits_ms), commit_ms, ROLLBACK_BUDGET_MS),
        absolute_row(title.format(99), quantile(waits_ms, 0.99), commit_ms, ROLLBACK_BUDGET_MS),
        absolute_row("rollback, command to receipt, ms, p50", statistics.median(receipts_ms), None, None),
        absolute_row("rollback, command to receipt, ms, p99", quantile(receipts_ms, 0.99), None, None),
        absolute_row(
            "lockgate rollback as typed, start to first answer, ms, p50",
            statistics.median(typed_ms),
            None,
            None,
        ),
    ]


def check_flip(before: str, seen: tuple[str, int]) -> str:
    assert seen[0] != before, f"{before} answers still"
    return seen[0]


@contextmanager
def polling(project: LiveProject, path: str) -> Iterator[IO[str]]:
    body = json.dumps({"inputs": [ROWS[0]]})
    command = [sys.executable, str(ROOT / "bench" / "_polling.py"), str(project.port), path, body]
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment()
    )
    assert client.stdout is not None and client.stdin is not None
    try:
        yield client.stdout
        client.stdin.close()
        rest = client.stdout.read().split()
        assert client.wait(30) == 0, "a request was not answered with 200"
        print(f"{rest[-1]} requests answered during the rollbacks, none of them with an error")
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


def next_line(lines: IO[str], project: LiveProject) -> tuple[str, int]:
    """The version that answers now and since when; its answer is the model's own."""
    version, at, prediction = lines.readline().split()
    assert abs(float(prediction) - project.answers[version]) < PREDICTIONS_AGREE, (version, prediction)
    return version, int(at)


def commit_floor(path: Path) -> Callable[[], float]:
    """One row made durable in SQLite with the journal's settings, in milliseconds: the floor of any audit."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE rows (body BLOB)")

    def commit() -> float:
        started = time.perf_counter()
        database.execute("INSERT INTO rows VALUES (zeroblob(1000))")
        return (time.perf_counter() - started) * 1000

    return commit


if __name__ == "__main__":
    sys.exit(main())
