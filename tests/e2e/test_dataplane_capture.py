"""What a data plane process keeps of its traffic, and what of it survives a kill and a full disk."""

from __future__ import annotations

import json
import resource
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dataplane_rig import ENDPOINT, PATH, ROWS, DataPlane, captured, dataplane, plan, shared_store
from test_dataplane_rollback import Callers, ask

from lockgate.traffic.capture import Answered, Asked, Dropped, Labelled, Line, Shadowed, decode, unit_of
from lockgate.traffic.plan import DRILL_KEY, N_SLOTS, Plan, Route

Eventually = Callable[..., object]
TIMEOUT_S = 60.0


def apply(plane: DataPlane, wanted: Plan) -> None:
    plane.target.apply(wanted)
    assert plane.target.wait(ENDPOINT, wanted.generation, TIMEOUT_S).reached(wanted.generation)


def lines_of(run_dir: Path) -> list[Line | None]:
    """All whole lines of all capture files."""
    return [decode(line) for lines in captured(run_dir).values() for line in lines[:-1]]


def body_of(key: str) -> bytes:
    return json.dumps({"inputs": ROWS, "key": key}).encode()


def split(generation: int, weight: int, **more: Any) -> Plan:
    """2.0.0 has `weight` slots, 1.0.0 the others."""
    store = shared_store()
    one, two = (store.versions[version].ref.digest for version in ("1.0.0", "2.0.0"))
    routes = tuple(
        Route(package=package, weight=n) for package, n in ((two, weight), (one, N_SLOTS - weight)) if n
    )
    return plan(store, generation, "1.0.0", "2.0.0", routes=routes, capture="scores", **more)


def test_a_polite_end_writes_every_request_down(tmp_path: Path) -> None:
    store, run_dir = shared_store(), tmp_path / "run"
    with dataplane(store, run_dir) as plane:
        apply(plane, split(1, 3_000))
        replies = [
            plane.predict(key=f"user-{number % 10}", as_of="2013-11-01T12:00:00Z") for number in range(30)
        ]
        refused = plane.predict([{"hour": 3}], key="user-1")
        plane.request("POST", PATH, b"{", {"content-type": "application/json"})
        assert plane.stop() == (0, "")
    *lines, last = lines_of(run_dir)
    assert len(lines) == 30 and isinstance(last, Answered)
    for number, (line, reply) in enumerate(zip(lines, replies, strict=True)):
        assert isinstance(line, Answered)
        assert (line.request_id, line.package) == (reply.body["request_id"], reply.body["digest"])
        assert line.weight == {"1.0.0": 7_000, "2.0.0": 3_000}[reply.body["version"]]
        assert (line.unit, line.as_of) == (unit_of(f"user-{number % 10}", "s"), 1_383_307_200_000_000)
        assert (line.outcome, list(line.predictions)) == ("ok", reply.body["predictions"])
    assert (last.request_id, last.outcome) == (refused.body["request_id"], "contract_error")
    (path,) = captured(run_dir)
    assert path.parent.name == "prod.main.flight-delay" and path.name.startswith("1-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(stat.S_IMODE(parent.stat().st_mode) == 0o700 for parent in list(path.parents)[:3])


def test_a_killed_process_leaves_whole_lines_and_its_successor_gives_other_ids(
    tmp_path: Path, eventually: Eventually
) -> None:
    store = shared_store()
    answered: list[str] = []
    for _ in range(3):
        with dataplane(store, tmp_path) as plane:
            if not answered:
                plane.target.apply(split(1, 5_000))
            assert plane.target.wait(ENDPOINT, 1, TIMEOUT_S).reached(1)
            before = len(lines_of(tmp_path))
            with Callers(plane) as callers:
                eventually(lambda known=before: len(lines_of(tmp_path)) > known + 20)
                plane.kill()
            answered += [reply.body["request_id"] for reply in callers.replies]
    files = captured(tmp_path)
    assert len(files) == 3
    kept = [decode(line) for lines in files.values() for line in lines[:-1]]
    assert all(isinstance(line, Answered) for line in kept)
    ids = [line.request_id for line in kept if isinstance(line, Answered)]
    assert len(set(ids)) == len(ids) > 60
    # The caller of an answer that was on its way when the process died never saw it: at most one per caller.
    assert len(set(ids) - set(answered)) <= 3 * 2


def test_a_full_disk_costs_lines_and_no_answer(tmp_path: Path, eventually: Eventually) -> None:
    store = shared_store()
    label = {"request_id": "r", "label": True}

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))

    with dataplane(store, tmp_path, preexec=small_disk) as plane:
        apply(plane, split(1, 5_000))
        connection = plane.connect()
        for number in range(100):
            assert ask(connection, body_of(str(number))).status == 200
        eventually(lambda: _capture(plane)["dropped"] > 0)
        assert "File too large" in _capture(plane)["detail"]
        reply = plane.tell(label)
        assert (reply.status, reply.body["code"]) == (503, "serving.capture-unavailable")
        assert reply.headers["retry-after"] == "1"
        resource.prlimit(plane.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert plane.tell(label).status == 202
        for number in range(10):
            assert ask(connection, body_of(str(number))).status == 200
        eventually(lambda: _capture(plane)["detail"] == "")
        assert plane.stop() == (0, "")
    kept = [line for line in lines_of(tmp_path) if line is not None]
    n_told = sum(line.n_lines for line in kept if isinstance(line, Dropped))
    assert n_told > 0 and n_told + sum(isinstance(line, Answered) for line in kept) == 110
    assert sum(isinstance(line, Labelled) for line in kept) == 1


def _capture(plane: DataPlane) -> dict[str, Any]:
    found: dict[str, Any] = plane.get("/endpoints").body["endpoints"]["prod/flight-delay"]["capture"]
    return found


def test_a_label_that_was_accepted_survives_a_kill(tmp_path: Path) -> None:
    store = shared_store()
    with dataplane(store, tmp_path) as plane:
        apply(plane, plan(store, 1, "1.0.0", capture="scores"))
        request_id = plane.predict().body["request_id"]
        labels = [{"request_id": request_id, "row": row, "label": row == 1} for row in range(3)]
        reply = plane.tell(*labels)
        plane.kill()
    assert (reply.status, reply.body) == (202, {"accepted": 3})
    kept = lines_of(tmp_path)
    assert isinstance(kept[0], Answered) and kept[0].request_id == request_id
    told = [(line.request_id, line.row, line.label) for line in kept if isinstance(line, Labelled)]
    assert told == [(request_id, 0, 0.0), (request_id, 1, 1.0), (request_id, 2, 0.0)]


def test_feedback_is_refused_as_requests_are(tmp_path: Path) -> None:
    store = shared_store()
    label = {"request_id": "r", "label": 1}
    with dataplane(store, tmp_path) as plane:
        assert plane.tell(label).status == 404
        apply(plane, plan(store, 1, "1.0.0"))
        assert (plane.tell(label).status, plane.tell().status) == (409, 422)
        assert plane.tell(*[label] * 1_001).status == 413
        assert plane.get(f"{PATH}:feedback").status == 405
        for path, content_type, body, status in (
            ("/prod/main/flight-delay:feedback", "application/json", b"{", 400),
            ("/prod/flight-delays:feedback", "application/json", b"{}", 404),
            (f"{PATH}:feedback", "text/csv", b"r,1", 415),
            (f"{PATH}:feedback", "application/json", b" " * 2_000_000, 413),
        ):
            reply = plane.request("POST", path, body, {"content-type": content_type})
            assert (reply.status, reply.body["class"]) == (status, "client_error")
        apply(plane, plan(store, 2, "1.0.0", capture="scores"))
        assert plane.tell(label).status == 202


def test_rows_are_kept_only_when_the_plan_says_so(tmp_path: Path) -> None:
    store = shared_store()
    with dataplane(store, tmp_path) as plane:
        for generation, mode in enumerate(("off", "scores", "rows"), start=1):
            apply(plane, plan(store, generation, "1.0.0", capture=mode))
            assert plane.predict().status == 200
        plane.stop()
    kinds = {
        path.name.partition("-")[0]: [type(decode(line)) for line in lines[:-1]]
        for path, lines in captured(tmp_path).items()
    }
    assert kinds == {"2": [Answered], "3": [Answered, Asked]}


def test_a_shadow_disturbs_nobody_and_sees_everything(tmp_path: Path, eventually: Eventually) -> None:
    store = shared_store()
    shadow = store.versions["3.0.0"]
    with dataplane(store, tmp_path) as plane:
        apply(plane, plan(store, 1, "1.0.0", "3.0.0", capture="scores", shadow=shadow.ref.digest))
        with Callers(plane) as callers:
            eventually(lambda: len(callers.replies) > 200)
        drill = plane.predict(key=DRILL_KEY)
        assert plane.stop() == (0, "")
    assert not callers.failures
    for reply in callers.replies:
        assert (reply.status, reply.body["version"]) == (200, "1.0.0")
        assert reply.body["predictions"] == store.versions["1.0.0"].expected
    lines = [line for line in lines_of(tmp_path) if isinstance(line, Shadowed)]
    assert {line.request_id for line in lines} == {reply.body["request_id"] for reply in callers.replies}
    assert drill.status == 200 and len(lines) == len(callers.replies)
    for line in lines:
        assert (line.package, line.outcome) == (shadow.ref.digest, "ok")
        assert list(line.predictions) == pytest.approx(shadow.expected, abs=1e-7)


def test_a_drill_is_answered_by_its_version_and_leaves_no_trace(tmp_path: Path) -> None:
    store = shared_store()
    with dataplane(store, tmp_path) as plane:
        drill = store.versions["2.0.0"].ref.digest
        apply(plane, plan(store, 1, "1.0.0", "2.0.0", capture="rows", drill=drill))
        for _ in range(3):
            reply = plane.predict(key=DRILL_KEY)
            assert (reply.status, reply.headers["x-lockgate-version"]) == (200, "2.0.0")
            assert reply.body["predictions"] == store.versions["2.0.0"].expected
        assert plane.predict(key="a caller").body["version"] == "1.0.0"
        counts = plane.get("/endpoints").body["endpoints"]["prod/flight-delay"]["counts"]
        assert sum(one["n_requests"] for one in counts.values()) == 1
        plane.stop()
    assert len([line for line in lines_of(tmp_path) if isinstance(line, Answered)]) == 1


def test_a_canary_keeps_the_keys_it_has_while_it_grows(tmp_path: Path) -> None:
    with dataplane(shared_store(), tmp_path) as plane:
        inside: set[str] = set()
        for generation, weight in enumerate((500, 2_500, 7_000, N_SLOTS), start=1):
            apply(plane, split(generation, weight))
            connection = plane.connect()
            now = set()
            for key in (f"user-{number}" for number in range(60)):
                versions = {ask(connection, body_of(key)).body["version"] for _ in range(2)}
                assert len(versions) == 1
                now |= {key} if versions == {"2.0.0"} else set()
            assert inside <= now
            inside = now
        assert len(inside) == 60
        plane.stop()
    by_unit: dict[tuple[str, str], set[str]] = {}
    for path, lines in captured(tmp_path).items():
        for data in lines[:-1]:
            line = decode(data)
            assert isinstance(line, Answered)
            by_unit.setdefault((path.name, line.unit), set()).add(line.package)
    assert len(by_unit) == 4 * 60 and all(len(packages) == 1 for packages in by_unit.values())
