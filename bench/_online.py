"""Features by key: our store in LMDB against Feast's in SQLite, filled from the same rows, read for the same keys.

Three views of five features and 5,000 entities each, every entity with two rows of which the later one counts. A read
is what a request needs: the values of all views for its entities, decoded, each judged at the request's moment (it had
happened, could be known, is not too old); Feast does its own form of that. Keys are drawn anew for every read. The two
take turns, so that only one of them works at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _measure import ROOT, Row, absolute_row, quantile, ratio_row
from _process import SERVER_CORE, Program, on_core, running

from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.core.digests import Digest, sha256
from lockgate.features.online import values_at
from lockgate.features.ports import Key, OnlineRow, Value

ONE_BUDGET, HUNDRED_BUDGET = 1 / 75, 1 / 150
VIEWS = ("user", "item", "merchant")
N_ENTITIES, N_FEATURES, TTL_S = 5_000, 5, 24 * 3600
N_ROUNDS = 9
N_READS = {1: 100, 100: 10}
"""Of Feast, per round, by the number of entities; ours is read more often, because it is over sooner."""
N_READS_OF_OURS = {1: 1_000, 100: 100}
N_COMPARED = 500


class World(NamedTuple):
    """The rows in files, and the moment of all reads."""

    folder: Path
    as_of: int


def online_rows(folder: Path) -> list[Row]:
    python = feast_python()
    folder.mkdir()
    world = make_world(folder)
    with running([str(python), str(ROOT / "bench" / "_feast.py"), str(folder)], SERVER_CORE) as feast:
        feast_fill_s = float(feast.says()["materialize_s"])
        with on_core(SERVER_CORE):
            store, fill_s = filled(world)
            check_values(feast, store, world)
            rows = read_rows(feast, store, world, 1, ONE_BUDGET)
            rows += read_rows(feast, store, world, 100, HUNDRED_BUDGET)
            store.close()
    n_kept = len(VIEWS) * N_ENTITIES / 1_000
    title = "files to online store, ms per 1,000 rows kept, against Feast on SQLite"
    return [*rows, absolute_row(title, fill_s * 1000 / n_kept, feast_fill_s * 1000 / n_kept, None)]


# -- Feast's environment


def feast_python() -> Path:
    """An interpreter with Feast as pinned in feast-requirements.txt; installed when it is missing or other."""
    pins, venv = ROOT / "bench" / "feast-requirements.txt", ROOT / ".bench" / "feast"
    python, done = venv / "bin" / "python", venv / "installed.txt"
    if done.exists() and done.read_bytes() == pins.read_bytes():
        return python
    print("installing Feast below .bench/, once", flush=True)
    uv, quiet = str(ROOT / ".bootstrap" / "bin" / "uv"), "--quiet"
    for command in (
        [uv, "venv", quiet, "--clear", "--python", sys.executable, str(venv)],
        [
            uv,
            "pip",
            "sync",
            quiet,
            "--python",
            str(python),
            "--require-hashes",
            "--compile-bytecode",
            str(pins),
        ],
    ):
        subprocess.run(command, check=True, cwd=ROOT, env=installer_environment())
    shutil.copyfile(pins, done)
    return python


def installer_environment() -> dict[str, str]:
    """This machine's settings, plus two that uv does not take over from pip (as tools/set_up.py)."""
    settings = dict(os.environ, UV_PYTHON_DOWNLOADS="never", UV_NO_PROGRESS="1")
    if "PIP_INDEX_URL" in settings and not settings.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
        settings["UV_DEFAULT_INDEX"] = settings["PIP_INDEX_URL"]
    if "PIP_CERT" in settings:
        settings.setdefault("SSL_CERT_FILE", settings["PIP_CERT"])
    return settings


# -- the same rows for both


def make_world(folder: Path) -> World:
    as_of_s = int(time.time())
    rng = np.random.default_rng(1)
    ids = np.tile(np.arange(N_ENTITIES), 2)
    hours = np.repeat([2, 1], N_ENTITIES)
    instants = pa.array((as_of_s - hours * 3600) * 1_000_000, pa.timestamp("us", tz="UTC"))
    for view in VIEWS:
        columns = {f"{view}_id": pa.array(ids), "event_at": instants, "available_at": instants}
        columns |= {name: pa.array(rng.standard_normal(2 * N_ENTITIES)) for name in features_of(view)}
        pq.write_table(pa.table(columns), folder / f"{view}.parquet")
    told = {"views": {view: features_of(view) for view in VIEWS}, "ttl_s": TTL_S, "as_of_s": as_of_s}
    (folder / "views.json").write_text(json.dumps(told))
    return World(folder, as_of_s * 1_000_000)


def features_of(view: str) -> list[str]:
    return [f"{view}_{number}" for number in range(N_FEATURES)]


def digest_of_view(view: str) -> Digest:
    return sha256(f"view {view}".encode())


DIGESTS = tuple(digest_of_view(view) for view in VIEWS)


def filled(world: World) -> tuple[LmdbOnline, float]:
    """Our store with the rows of the files, and the seconds it took to read the files and to fill it."""
    started = time.perf_counter()
    store = LmdbOnline(world.folder / "lmdb")
    for view in VIEWS:
        n_taken = store.write(digest_of_view(view), rows_of(world, view))
        assert n_taken == 2 * N_ENTITIES, n_taken
    return store, time.perf_counter() - started


def rows_of(world: World, view: str) -> Iterator[tuple[Key, OnlineRow]]:
    table = pq.read_table(world.folder / f"{view}.parquet")
    instants = [table[name].cast(pa.int64()).to_pylist() for name in ("event_at", "available_at")]
    values = zip(*(table[name].to_pylist() for name in features_of(view)), strict=True)
    for number, event_at, available_at, row in zip(
        table[f"{view}_id"].to_pylist(), *instants, values, strict=True
    ):
        yield (number,), OnlineRow(event_at, available_at, row)


def read_ours(store: LmdbOnline, as_of: int, keys: Sequence[Key]) -> list[list[tuple[Value, ...] | None]]:
    """Per view, per entity: its values, judged as a data plane judges them."""
    return [
        [values_at(row, as_of, TTL_S) for row in rows]
        for rows in store.read_many([(view, keys) for view in DIGESTS])
    ]


def check_values(feast: Program, store: LmdbOnline, world: World) -> None:
    """Both give the same values, and those of the later rows in the files."""
    rng = np.random.default_rng(2)
    ids = rng.choice(N_ENTITIES, N_COMPARED, replace=False).tolist()
    ours = read_ours(store, world.as_of, [(number,) for number in ids])
    joined = [[value for values in row for value in values or ()] for row in zip(*ours, strict=True)]
    assert joined == feast.ask({"values": ids}), "the two stores differ"
    for view, values in zip(VIEWS, ours, strict=True):
        later = list(rows_of(world, view))[N_ENTITIES:]
        assert values == [later[number][1].values for number in ids], view


# -- reading


def read_rows(feast: Program, store: LmdbOnline, world: World, n: int, budget: float) -> list[Row]:
    """Medians of rounds of medians, and the tail over all rounds."""
    rng = np.random.default_rng(n)
    held = {
        view: {int(key[0]): row.values for key, row in rows_of(world, name)}
        for view, name in zip(DIGESTS, VIEWS, strict=True)
    }
    taken: dict[str, list[list[float]]] = {"ours": [], "feast": [], "floor": []}
    for _ in range(N_ROUNDS + 1):
        taken["feast"].append(feast.ask([draw(rng, n) for _ in range(N_READS[n])]))
        ids = [draw(rng, n) for _ in range(N_READS_OF_OURS[n])]
        taken["ours"].append(timed_reads(store, world.as_of, ids))
        taken["floor"].append(timed_gathers(held, ids))
    for rounds in taken.values():
        del rounds[0]
    p50 = {name: statistics.median(map(statistics.median, rounds)) for name, rounds in taken.items()}
    p99 = {name: quantile([us for round_ in rounds for us in round_], 0.99) for name, rounds in taken.items()}
    for name, rounds in taken.items():
        medians = [statistics.median(round_) for round_ in rounds]
        print(
            f"online read of {n}, {name}: medians of the rounds {min(medians):.1f} to {max(medians):.1f} us"
        )
    what = f"online read, {n} x 3 views x 5 features, us"
    times = round(1 / budget)
    return [
        ratio_row(f"{what}, p50, against Feast on SQLite (1/{times})", p50["ours"], p50["feast"], budget),
        absolute_row(f"{what}, p99, against Feast on SQLite", p99["ours"], p99["feast"], None),
        absolute_row(f"{what}, p50, against tuples in a dict", p50["ours"], p50["floor"], None),
    ]


def draw(rng: np.random.Generator, n: int) -> list[int]:
    drawn: list[int] = rng.choice(N_ENTITIES, n, replace=False).tolist()
    return drawn


def timed_reads(store: LmdbOnline, as_of: int, reads: Sequence[Sequence[int]]) -> list[float]:
    taken = []
    for ids in reads:
        keys: list[Key] = [(number,) for number in ids]
        started = time.perf_counter_ns()
        read_ours(store, as_of, keys)
        taken.append((time.perf_counter_ns() - started) / 1_000)
    return taken


def timed_gathers(
    held: dict[Digest, dict[int, tuple[Value, ...]]], reads: Sequence[Sequence[int]]
) -> list[float]:
    """The least a read can be: what is decoded already is looked up in this process, nothing is judged."""
    taken = []
    for ids in reads:
        started = time.perf_counter_ns()
        for view in DIGESTS:
            rows = held[view]
            [rows[number] for number in ids]
        taken.append((time.perf_counter_ns() - started) / 1_000)
    return taken
