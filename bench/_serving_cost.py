"""What the data plane costs above the least a server can do: CPU time per request, one thing after the other on.

One data plane serves one endpoint per side, each with a plan of its own; the bare server of `_floor.py` runs beside it.
A client in a third process keeps sixteen connections busy with one side at a time. Servers are on one core, the client
is on the other. CPU time is the kernel's count for the whole server process, all threads and children, taken after it
came to rest, so what is done behind the answers is in it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from _measure import ROOT, Cost, Row, absolute_row, in_turns, quantile, ratio_row
from _packages import MODEL, Market
from _process import CLIENT_CORE, SERVER_CORE, Program, dataplane, running

from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.adapters.targets.local import LocalTarget
from lockgate.traffic import control_file
from lockgate.traffic.capture import CAPTURE_DIR, Answered, Line, Shadowed, decode
from lockgate.traffic.plan import N_SLOTS, Plan, Route

BUDGET = 1.4
N_ROUNDS = 31
N_REQUESTS, N_CONNECTIONS = 1_500, 16
PREDICTIONS_AGREE = 1e-6
_CANARY_SLOTS = 1_000
_LOOK_S, _AT_REST_S = 0.05, 0.003
"""A server that uses less CPU time than the latter in the former is done with what goes on behind the answers."""
_WAIT_S = 60.0


@dataclass(frozen=True)
class Side:
    """One way to be asked.

    Attributes:
        environment: of its endpoint; the bare server takes any.
        plan: what its plan adds to the plain one.
        by_key: requests name keys instead of the views' features.
    """

    environment: str
    plan: dict[str, Any] = field(default_factory=dict)
    by_key: bool = False

    @property
    def endpoint(self) -> str:
        return f"{self.environment}/{MODEL}"


def sides(market: Market) -> dict[str, Side]:
    """By what is on."""
    live, candidate, shadow = (ref.digest for ref in market.refs)
    canary = {
        "routes": (
            Route(package=live, weight=N_SLOTS - _CANARY_SLOTS),
            Route(package=candidate, weight=_CANARY_SLOTS),
        )
    }
    return {
        "plain": Side("plain"),
        "capture of scores": Side("captured", {"capture": "scores"}),
        "canary of 10 %": Side("split", canary),
        "capture and shadow of 100 %": Side("shadowed", {"shadow": shadow, "capture": "scores"}),
        "features by key, 3 views in LMDB": Side("keyed", by_key=True),
        "all on": Side("full", {**canary, "shadow": shadow, "capture": "scores"}, by_key=True),
    }


def serving_rows(folder: Path, market: Market) -> list[Row]:
    """Rows of the table; prints how much the figures scatter."""
    folder.mkdir()
    run_dir, online = folder / "run", folder / "online"
    fill(online, market)
    asked = sides(market)
    target = LocalTarget(run_dir)
    for side in asked.values():
        target.apply(plan_of(market, side))
    trust = [f"{side.environment}={market.pem}" for side in asked.values()]
    floor_command = [
        sys.executable,
        str(ROOT / "bench" / "_floor.py"),
        str(market.onnx),
        str(market.contract),
    ]
    with (
        dataplane(market.store, run_dir, trust, SERVER_CORE, "--online", str(online)) as (plane, port),
        running(floor_command, SERVER_CORE) as floor,
        running([sys.executable, str(ROOT / "bench" / "_load.py")], CLIENT_CORE) as client,
    ):
        floor_port = int(floor.says()["port"])
        for side in asked.values():
            seen = target.wait(side.endpoint, 1, _WAIT_S)
            assert seen.reached(1), seen
        orders = {name: order_of(folder, port, side, market) for name, side in asked.items()}
        orders["floor"] = {**orders["plain"], "port": floor_port, "path": "/"}
        check_answers(client, orders, asked, market)
        taken: dict[str, list[float]] = {}
        measured: dict[str, Callable[[], Cost]] = {
            name: partial(
                measure, client, floor if name == "floor" else plane, order, taken.setdefault(name, [])
            )
            for name, order in orders.items()
        }
        # The same thing twice: what a ratio of 1 looks like on this machine.
        again = partial(measure, client, floor, orders["floor"], taken.setdefault("floor again", []))
        costs = in_turns({**measured, "floor again": again}, N_ROUNDS)
    show_scatter(taken)
    n_asked = len(market.asks) + (N_ROUNDS + 1) * N_REQUESTS
    return [*cost_rows(costs, list(asked)), *kept_rows(run_dir, asked, n_asked)]


def cost_rows(costs: dict[str, Cost], names: Sequence[str]) -> list[Row]:
    us = {name: cost.cpu_s * 1e6 / N_REQUESTS for name, cost in costs.items()}
    title = "data plane, {}: CPU us per request, against a bare server"
    rows = [ratio_row(title.format(name), us[name], us["floor"], BUDGET) for name in names]
    noise = absolute_row(
        "noise: the bare server against itself, CPU us per request", us["floor again"], us["floor"], None
    )
    return [*rows, noise]


def fill(folder: Path, market: Market) -> None:
    """The views' rows into the online store."""
    store = LmdbOnline(folder)
    for view, rows in market.rows.items():
        assert store.write(view, rows) == len(rows)
    store.close()


def plan_of(market: Market, side: Side) -> Plan:
    live = market.refs[0].digest
    fields = {"routes": (Route(package=live, weight=N_SLOTS),), **side.plan}
    return Plan(endpoint=side.endpoint, generation=1, packages=market.refs, live=live, salt="bench", **fields)


def order_of(folder: Path, port: int, side: Side, market: Market) -> dict[str, Any]:
    """What the client is told to do."""
    bodies = folder / f"{side.environment}.json"
    made = [ask.body_by_key() if side.by_key else ask.body() for ask in market.asks]
    bodies.write_text(json.dumps(made))
    return {
        "port": port,
        "path": f"/{side.environment}/flight-delay",
        "bodies": str(bodies),
        "n_requests": N_REQUESTS,
        "n_connections": N_CONNECTIONS,
    }


def check_answers(
    client: Program, orders: dict[str, dict[str, Any]], asked: dict[str, Side], market: Market
) -> None:
    """Every side gives the models' own answer to every request, from the version its plan says."""
    for name, order in orders.items():
        said = client.ask({**order, "n_requests": len(market.asks), "keep": True})
        assert said["n_bad"] == 0, (name, said["first_bad"])
        answers = [json.loads(body) for body in said["kept"]]
        versions = [answer.get("version", "1.0.0") for answer in answers]
        for number, (answer, version) in enumerate(zip(answers, versions, strict=True)):
            right = market.answers[version][number]
            assert abs(answer["predictions"][0] - right) < PREDICTIONS_AGREE, (name, number, answer, right)
        split = name in asked and "routes" in asked[name].plan
        assert set(versions) == ({"1.0.0", "1.1.0"} if split else {"1.0.0"}), (name, set(versions))


def measure(client: Program, server: Program, order: dict[str, Any], taken: list[float]) -> Cost:
    """One run of one side: the server's CPU seconds until it is at rest, and how long the client took."""
    before = server.cpu_s()
    said = client.ask(order)
    wait_for_rest(server)
    cost = Cost(server.cpu_s() - before, said["wall_s"])
    assert said["n_bad"] == 0, said["first_bad"]
    taken.append(cost.cpu_s * 1e6 / N_REQUESTS)
    return cost


def wait_for_rest(server: Program) -> None:
    end = time.monotonic() + _WAIT_S
    used = server.cpu_s()
    while time.monotonic() < end:
        time.sleep(_LOOK_S)
        used, before = server.cpu_s(), used
        if used - before < _AT_REST_S:
            return
    raise RuntimeError("the server does not come to rest")


def show_scatter(taken: dict[str, list[float]]) -> None:
    """Half of the rounds lie between the quartiles; the first round is the warm-up and left out."""
    print(f"CPU us per request in {N_ROUNDS} rounds of {N_REQUESTS} requests: lowest, quartiles, highest")
    for name, values in taken.items():
        shown = ", ".join(f"{quantile(values[1:], share):.1f}" for share in (0.0, 0.25, 0.5, 0.75, 1.0))
        print(f"    {name}: {shown}")


# -- what was kept of it


def kept_rows(run_dir: Path, asked: dict[str, Side], n_asked: int) -> list[Row]:
    """A cost counts only with its use: the requests whose line, or whose shadow's answer, is missing."""
    n_lost = dict.fromkeys((Answered, Shadowed), 0)
    for name, side in asked.items():
        lines = captured(run_dir, side)
        wanted = {Answered: "capture" in side.plan, Shadowed: "shadow" in side.plan}
        for kind in n_lost:
            n_kept = sum(isinstance(line, kind) for line in lines)
            n_lost[kind] += n_asked * wanted[kind] - n_kept
            if wanted[kind]:
                print(f"{name}: {n_kept} lines of {kind.__name__} for {n_asked} requests")
    title = "data plane at full load: requests {}, of all sides"
    return [
        absolute_row(title.format("not captured"), n_lost[Answered], None, 0),
        absolute_row(title.format("without their shadow's answer"), n_lost[Shadowed], None, 0),
    ]


def captured(run_dir: Path, side: Side) -> list[Line]:
    name = control_file.file_name(side.endpoint).removesuffix(control_file.CONTROL_SUFFIX)
    files = sorted((run_dir / CAPTURE_DIR / name).glob("*"))
    lines = [decode(line) for file in files for line in file.read_bytes().splitlines()]
    return [line for line in lines if line is not None]
