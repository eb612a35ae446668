"""How long the way back takes: in one process, over all workers of a machine, and through the hub.

Each of the three is held against what the disk itself takes to make as much durable, measured between the flips.
A plan is visible to the workers before it is durable, so an answer of the other version can be there earlier.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from _live_project import live_project
from _measure import ROOT, Row, absolute_row, quantile
from _packages import MODEL, VERSIONS, Market
from _process import CLIENT_CORE, SERVER_CORE, Program, dataplane, on_core, running
from startup import PREDICTIONS_AGREE, ROLLBACK_BUDGET_MS, check_flip, commit_floor, next_line, polling

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.engines.onnx_engine import OnnxEngine
from lockgate.adapters.identity.keys import PublicKey
from lockgate.adapters.targets.local import LocalTarget
from lockgate.delivery.messages import RollBackEndpoint
from lockgate.serving.control import Presence
from lockgate.serving.loader import PackageLoader
from lockgate.serving.plane import Plane
from lockgate.serving.watch import Watcher
from lockgate.traffic.control_file import SIZE_BYTES
from lockgate.traffic.plan import N_SLOTS, Plan, Route

IN_PROCESS_BUDGET_MS, ALL_WORKERS_BUDGET_MS = 3.0, 6.0
N_FLIPS = 500
ENDPOINT, PATH = f"prod/{MODEL}", "/prod/flight-delay"
_WAIT_S = 60.0
_PAGE = 4_096
_SWITCH_S = 0.0001
"""Between the threads of a data plane (app/dataplane.py)."""


def rollback_rows(folder: Path, market: Market) -> list[Row]:
    folder.mkdir()
    return [
        *in_process_rows(folder / "one", market),
        *all_workers_rows(folder / "two", market),
        *hub_rows(folder / "hub"),
    ]


def plan_to(market: Market, generation: int) -> Plan:
    """Even generations go to the version before, odd ones forward again; both versions stay loaded."""
    live, previous = (market.refs[1], market.refs[0]) if generation % 2 else (market.refs[0], market.refs[1])
    return Plan(
        endpoint=ENDPOINT,
        generation=generation,
        packages=(live, previous),
        routes=(Route(package=live.digest, weight=N_SLOTS),),
        live=live.digest,
        previous=previous.digest,
        salt="bench",
    )


def version_of(generation: int) -> str:
    return VERSIONS[generation % 2]


def two_rows(title: str, waits_ms: list[float], floors_ms: list[float], budget: float) -> list[Row]:
    """Median against median and tail against tail: a disk that stalls now and then stalls both."""
    shares = {"p50": 0.5, "p99": 0.99}
    return [
        absolute_row(title.format(name), quantile(waits_ms, share), quantile(floors_ms, share), budget)
        for name, share in shares.items()
    ]


def sync_floor(path: Path) -> Callable[[], float]:
    """Two pages of a mapped file made durable, in milliseconds: the floor of any plan that survives a power cut."""
    path.write_bytes(bytes(SIZE_BYTES))
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), SIZE_BYTES)

    def sync() -> float:
        started = time.perf_counter()
        for at in (0, _PAGE):
            mapped[at : at + 8] = os.urandom(8)
        mapped.flush()
        return (time.perf_counter() - started) * 1000

    return sync


# -- in one process


def in_process_rows(run_dir: Path, market: Market) -> list[Row]:
    """A plane with its watcher and loader, as a data plane runs them, asked by the thread that applied the plan."""
    engine = OnnxEngine()
    trust = {"prod": [PublicKey.from_file(market.pem)]}
    loader = PackageLoader(DirectoryBlobs(market.store), {engine.format: engine}, trust)
    target, plane = LocalTarget(run_dir), Plane()
    target.apply(plan_to(market, 1))
    watcher = Watcher(plane, Presence(run_dir, pid=os.getpid(), token=1), run_dir, loader)
    body = json.dumps(market.asks[0].body()).encode()
    floor = sync_floor(run_dir / "floor")
    waits_ms, floors_ms = [], []
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    watcher.start()
    try:
        ready(target, market, 1)
        for generation in range(2, N_FLIPS + 2):
            plan = plan_to(market, generation)
            started = time.perf_counter()
            target.apply(plan)
            answer = plane.handle(PATH[1:], "application/json", body)
            waits_ms.append((time.perf_counter() - started) * 1000)
            said = json.loads(answer.body)
            check_answer(market, generation, said["version"], said["predictions"][0])
            floors_ms.append(floor())
    finally:
        watcher.stop()
        sys.setswitchinterval(switch_s)
    title = "rollback in process, plan to first answer of the one before, ms, {}, against one msync"
    return two_rows(title, waits_ms, floors_ms, IN_PROCESS_BUDGET_MS)


def ready(target: LocalTarget, market: Market, n_workers: int) -> None:
    """Wait until all workers have both versions loaded: a way back that has to load is not what is measured."""
    wanted = {ref.digest for ref in market.refs[:2]}
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        seen = target.observe(ENDPOINT)
        if seen.reached(1) and sum(wanted <= set(worker.loaded) for worker in seen.workers) == n_workers:
            return
        time.sleep(0.01)
    raise RuntimeError(f"not all workers are ready: {target.observe(ENDPOINT)}")


def check_answer(market: Market, generation: int, version: str, prediction: float) -> None:
    assert version == version_of(generation), (generation, version)
    assert abs(prediction - market.answers[version][0]) < PREDICTIONS_AGREE, (version, prediction)


# -- all workers of a machine


def all_workers_rows(run_dir: Path, market: Market) -> list[Row]:
    """Two data planes behind one port, each on a core of its own, under traffic."""
    target = LocalTarget(run_dir)
    target.apply(plan_to(market, 1))
    trust = [f"prod={market.pem}"]
    with ExitStack() as stack:
        shared = ("--reuse-port",)
        _, port = stack.enter_context(dataplane(market.store, run_dir, trust, CLIENT_CORE, *shared))
        stack.enter_context(
            dataplane(market.store, run_dir, trust, SERVER_CORE, *shared, "--port", str(port))
        )
        ready(target, market, 2)
        command = [sys.executable, str(ROOT / "bench" / "_watching.py"), str(port), PATH]
        command += [json.dumps(market.asks[0].body()), "2"]
        client = stack.enter_context(running(command))
        both_answer(client, market, 1)
        floor = sync_floor(run_dir / "floor")
        waits_ms, floors_ms, observed_ms = [], [], []
        generation = 1
        for _ in range(N_FLIPS):
            generation += 1
            plan = plan_to(market, generation)
            started = time.monotonic_ns()
            target.apply(plan)
            waits_ms.append((both_answer(client, market, generation) - started) / 1e6)
            floors_ms.append(floor())
        for _ in range(N_FLIPS):
            generation += 1
            plan = plan_to(market, generation)
            started = time.monotonic_ns()
            target.apply(plan)
            seen = target.wait(ENDPOINT, generation, _WAIT_S)
            observed_ms.append((time.monotonic_ns() - started) / 1e6)
            assert seen.reached(generation) and len(seen.workers) == 2, seen
            both_answer(client, market, generation)
        print(
            f"two workers under traffic: {client.end_of_questions().split()[-1]} answers, none of them an error"
        )
    title = "rollback of two workers, plan to both {}, ms, {{}}, against one msync"
    return [
        *two_rows(title.format("answer as before"), waits_ms, floors_ms, ALL_WORKERS_BUDGET_MS),
        *two_rows(title.format("observed there"), observed_ms, floors_ms, ALL_WORKERS_BUDGET_MS),
    ]


def both_answer(client: Program, market: Market, generation: int) -> int:
    """When the later one of the two workers gave its first answer of this generation."""
    seen: dict[str, int] = {}
    while len(seen) < 2:
        worker, version, at, prediction = client.line().split()
        check_answer(market, generation, version, float(prediction))
        assert worker not in seen, f"{worker} answered with both versions after one flip"
        seen[worker] = int(at)
    return max(seen.values())


# -- through the hub


def hub_rows(folder: Path) -> list[Row]:
    """From the command to a hub with a durable journal to the first answer, seen by a client under way."""
    waits_ms, commits_ms = [], []
    with ExitStack() as stack:
        # The data plane and the client that waits for it take turns on one core, the hub has the other.
        with on_core(SERVER_CORE):
            project = stack.enter_context(live_project(folder / "project"))
        hub = project.control.hub("olga")
        floor = commit_floor(folder / "floor.db")
        with on_core(SERVER_CORE):
            lines = stack.enter_context(polling(project, PATH))
        stack.enter_context(on_core(CLIENT_CORE))
        live = next_line(lines, project)[0]
        for _ in range(N_FLIPS):
            command = RollBackEndpoint(id=project.control.ids.new(), endpoint=ENDPOINT)
            started = time.monotonic_ns()
            receipt = hub.execute(command)
            assert receipt.refusal is None and receipt.effects == "done", receipt
            live = check_flip(live, version := next_line(lines, project))
            waits_ms.append((version[1] - started) / 1e6)
            commits_ms.append(floor())
    title = "rollback through the hub, command to first answer of the one before, ms, {}, against one durable commit"
    return two_rows(title, waits_ms, commits_ms, ROLLBACK_BUDGET_MS)
