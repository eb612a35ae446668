"""A data plane process that reads features by key from a real online store, which others write meanwhile."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from dataplane_rig import ENDPOINT, ROWS, VIEW, DataPlane, Reply, captured, dataplane, plan, shared_store

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.adapters.targets.local import LocalTarget
from lockgate.features.ports import OnlineRow
from lockgate.traffic.capture import Answered, Asked, Shadowed, decode
from lockgate.traffic.plan import N_SLOTS, Fallback, Plan, Route

TIMEOUT_S = 60.0
KEYS: list[dict[str, Any]] = [
    {"origin": "EWR", "flight": 1545, "more": "of another version"},
    {"origin": "JFK", "flight": 725},
    {"origin": "LGA", "flight": None},
]
SENT = [{name: value for name, value in row.items() if name not in VIEW.features} for row in ROWS]


def apply(plane: DataPlane, wanted: Plan) -> None:
    plane.target.apply(wanted)
    assert plane.target.wait(ENDPOINT, wanted.generation, TIMEOUT_S).reached(wanted.generation)


def fill(store: LmdbOnline, at: int) -> None:
    """The features of `ROWS` under `KEYS`, known since `at`."""
    for row, keys in zip(ROWS, KEYS, strict=True):
        if keys["flight"] is not None:
            values = tuple(row.get(name) for name in VIEW.features)
            store.write(VIEW.view, [((keys["origin"], keys["flight"]), OnlineRow(at, at, values))])


def by_key(plane: DataPlane, **more: Any) -> Reply:
    return plane.predict(SENT, entities=KEYS, **more)


def test_features_by_key_give_the_answers_of_features_sent(tmp_path: Path) -> None:
    store, folder = shared_store(), tmp_path / "online"
    expected = store.versions["4.0.0"].expected
    at = time.time_ns() // 1_000 - 1_000_000
    with dataplane(store, tmp_path / "run", more=("--online", str(folder))) as plane:
        apply(plane, plan(store, 1, "4.0.0", capture="rows"))
        assert plane.predict().body["predictions"] == expected
        reply = by_key(plane)
        assert (reply.status, reply.body["class"]) == (503, "upstream_degraded"), "there is no store yet"
        with LmdbOnline(folder) as online:
            fill(online, at)
            reply = by_key(plane)
            assert (reply.status, reply.body["predictions"]) == (200, expected)
            past, gone = by_key(plane, as_of=at - 1), by_key(plane, as_of=at + 50_000_000)
            assert past.status == gone.status == 200
            assert past.body["predictions"] != expected and gone.body["predictions"] == expected
            online.write(VIEW.view, [(("EWR", 1545), OnlineRow(at + 1, at + 1, (None, 3, "AA")))])
            newer = by_key(plane)
            assert newer.body["predictions"][1:] == expected[1:]
            assert newer.body["predictions"][0] != expected[0]
            # Only the newest row is kept, so the moment before it sees none.
            assert by_key(plane, as_of=at).body["predictions"][0] == past.body["predictions"][0]
        plane.stop()
    (lines,) = captured(tmp_path / "run").values()
    asked = [line for line in map(decode, lines) if isinstance(line, Asked)]
    assert asked[1].rows[0] == {**SENT[0], "hour": 17, "carrier": "UA"}
    outcomes = [line.outcome for line in map(decode, lines) if isinstance(line, Answered)]
    assert outcomes == ["ok", "upstream_degraded", "ok", "ok", "ok", "ok", "ok"]


def test_wrong_keys_are_the_callers(tmp_path: Path) -> None:
    store, folder = shared_store(), tmp_path / "online"
    with (
        dataplane(store, tmp_path / "run", more=("--online", str(folder))) as plane,
        LmdbOnline(folder) as online,
    ):
        fill(online, 1)
        apply(plane, plan(store, 1, "4.0.0"))
        for entity, row, words in (
            ({"origin": "EWR"}, SENT[0], "key 'flight' of schedule is missing"),
            ({"origin": 3, "flight": 1}, SENT[0], "key 'origin' of schedule is 3"),
            ({"origin": "EWR", "flight": 1}, ROWS[0], "field 'hour' is read from schedule by key"),
        ):
            reply = plane.predict([row], entities=[entity])
            assert (reply.status, reply.body["class"]) == (422, "contract_error")
            assert words in reply.body["detail"]
        for odd in ("x" * 5_000, "", "\x00", "ü🛫"):
            assert plane.predict(SENT[:1], entities=[{"origin": odd, "flight": 1}]).status == 200
        assert plane.predict(SENT, entities=KEYS[:1]).body["class"] == "client_error"


def test_without_a_store_only_requests_by_key_are_refused(tmp_path: Path) -> None:
    store = shared_store()
    with dataplane(store, tmp_path) as plane:
        apply(plane, plan(store, 1, "4.0.0"))
        reply = by_key(plane)
        assert (reply.status, reply.body["class"]) == (503, "upstream_degraded")
        assert "no online store" in reply.body["detail"] and "--online" in reply.body["remedy"]
        assert plane.predict().status == 200


def test_a_canary_that_reads_by_key_beside_a_version_that_does_not(tmp_path: Path) -> None:
    """The old version needs raw features, the new one keys: whoever sends only one of them fits only one."""
    store, folder = shared_store(), tmp_path / "online"
    one, four = (store.versions[version].ref.digest for version in ("1.0.0", "4.0.0"))
    routes = (Route(package=four, weight=5_000), Route(package=one, weight=N_SLOTS - 5_000))
    with (
        dataplane(store, tmp_path / "run", more=("--online", str(folder))) as plane,
        LmdbOnline(folder) as online,
    ):
        fill(online, time.time_ns() // 1_000)
        apply(plane, plan(store, 1, "1.0.0", "4.0.0", routes=routes, capture="scores", shadow=four))
        for number in range(20):
            raw, keys = plane.predict(key=str(number)), by_key(plane, key=str(number))
            assert raw.status == keys.status == 200
            assert raw.body["predictions"] == store.versions[raw.body["version"]].expected
            if keys.body["version"] == "4.0.0":
                assert keys.body["predictions"] == store.versions["4.0.0"].expected
        plane.stop()
    (lines,) = captured(tmp_path / "run").values()
    shadowed = [line for line in map(decode, lines) if isinstance(line, Shadowed)]
    assert len(shadowed) > 0 and {line.outcome for line in shadowed} == {"ok"}
    for line in shadowed:
        assert list(line.predictions) == pytest.approx(store.versions["4.0.0"].expected, abs=1e-7)


def test_a_plan_whose_shadow_does_not_load_has_failed_and_the_one_before_stays(tmp_path: Path) -> None:
    store = shared_store()
    shutil.copytree(store.path, tmp_path / "store")
    store = store._replace(path=tmp_path / "store")
    blobs = DirectoryBlobs(store.path)
    damaged = Path(blobs.path(max(store.versions["2.0.0"].layers, key=lambda one: len(blobs.get(one)))))
    damaged.chmod(0o600)
    damaged.write_bytes(b"?")
    run_dir = tmp_path / "run"
    shadow = store.versions["2.0.0"].ref.digest
    value = Fallback(kind="constant", value=0.25)
    with dataplane(store, run_dir) as plane:
        apply(plane, plan(store, 1, "1.0.0", capture="scores"))
        plane.target.apply(plan(store, 2, "1.0.0", "2.0.0", capture="scores", shadow=shadow))
        observed = plane.target.wait(ENDPOINT, 2, TIMEOUT_S)
        (worker,) = observed.workers
        assert observed.failed(2) and worker.generation == 1 and "2.0.0" in worker.detail
        assert plane.predict().body["version"] == "1.0.0"
        plane.kill()
    # Two plans that cannot be served are in the control file, and the newest declares a fallback.
    LocalTarget(run_dir).apply(plan(store, 3, "2.0.0", fallback=value))
    with dataplane(store, run_dir) as plane:
        assert plane.target.wait(ENDPOINT, 3, TIMEOUT_S).failed(3)
        reply = plane.predict()
        assert (reply.status, reply.body["predictions"], reply.body["fallback"]) == (200, [0.25] * 3, True)
        assert plane.get("/readyz").status == 503
        apply(plane, plan(store, 4, "1.0.0"))
        assert plane.predict().body["version"] == "1.0.0"
