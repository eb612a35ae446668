"""What a plane keeps of its traffic, whom it shows it, and what it leaves alone: canary, shadow, drill, labels."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from memory_control import MemoryControl
from msgspec.structs import replace

from lockgate.core.digests import Digest, canonical, sha256
from lockgate.features.ports import OnlineRow
from lockgate.registry.packages.contract import InputField, ModelContract, OutputField
from lockgate.registry.packages.package import KeyField, OnlineView
from lockgate.serving.capture import CaptureLimits, Captures
from lockgate.serving.endpoint import Endpoint
from lockgate.serving.lookup import Lookup
from lockgate.serving.plane import Answer, Limits, Plane
from lockgate.serving.ports import Predict, ReadyPackage
from lockgate.serving.shadow import Shadow
from lockgate.testing.clock import FakeClock
from lockgate.testing.memory_online import MemoryOnline
from lockgate.testing.memory_target import constant
from lockgate.testing.target_suite import ENDPOINT, package_digest, sample_plan
from lockgate.traffic.capture import Answered, Asked, Labelled, Line, Shadowed, decode, unit_of
from lockgate.traffic.plan import DRILL_KEY, N_SLOTS, Plan, route, slot_of

ONE, TWO = package_digest("1.0.0"), package_digest("2.0.0")
WEATHER, NEW_WEATHER = sha256(b"weather"), sha256(b"weather, new")
RAW = ModelContract(
    inputs=(
        InputField(name="distance", dtype="float", nullable=False),
        InputField(name="carrier", dtype="category", categories=("AA", "UA")),
    ),
    output=OutputField(name="p"),
)
BY_KEY = ModelContract(
    inputs=(
        InputField(name="distance", dtype="float", nullable=False),
        InputField(name="wind", dtype="float", nullable=False, source="weather:wind"),
    ),
    output=OutputField(name="p"),
)
ROW: dict[str, Any] = {"distance": 0.5, "carrier": "UA"}
L = TypeVar("L", bound=Line)


def view(digest: Digest, key: str = "origin") -> OnlineView:
    keys = (KeyField(name=key, dtype="string"),)
    return OnlineView(name="weather", view=digest, keys=keys, features=("wind",))


def last_column(matrix: Any) -> Any:
    return matrix[:, -1].astype(np.float64)


class MemoryFiles(dict[Path, bytearray]):
    broken = False

    def open(self, path: Path) -> MemoryFiles.File:
        if self.broken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.File(self.setdefault(path, bytearray()))

    class File:
        def __init__(self, data: bytearray) -> None:
            self.data = data

        def write(self, data: memoryview, /) -> int:
            self.data += data
            return len(data)

        def close(self) -> None:
            pass


class Rig:
    """A plane with a capture in memory and a shadow whose thread runs between `start` and `end`.

    1.0.0 answers 0.1, 2.0.0 answers 0.2, both of raw features, unless `packages` says otherwise.
    """

    def __init__(self, **limits: int) -> None:
        self.clock = FakeClock()
        self.files = MemoryFiles()
        self.captures = Captures(
            Path("run"), "1-1", self.clock.now, limits=CaptureLimits(**limits), open_file=self.files.open
        )
        self.shadow = Shadow(self.clock.now, gather_s=0)
        self.plane = Plane(now=self.clock.now, shadow=self.shadow, limits=Limits(n_labels=10))
        self.online = MemoryOnline()
        self.packages = {
            ONE: ReadyPackage(ONE, RAW, constant(0.1)),
            TWO: ReadyPackage(TWO, RAW, constant(0.2)),
        }
        self.control = MemoryControl()
        self.endpoint = Endpoint(
            ENDPOINT, self.control, report=lambda: None, wake=lambda: None, captures=self.captures
        )
        self.plane.add(self.endpoint)

    def package(self, digest: Digest, contract: ModelContract, predict: Predict, *views: OnlineView) -> None:
        lookup = Lookup(contract, views, self.online)
        self.packages[digest] = ReadyPackage(digest, contract, predict, lookup)

    def apply(self, plan: Plan) -> Rig:
        self.control.publish(plan)
        self.endpoint.refresh()
        while (ref := self.endpoint.wanted(urgent=False)) is not None:
            self.endpoint.provide(ref, self.packages[ref.digest])
        return self

    def send(self, *rows: dict[str, Any], **more: Any) -> tuple[Answer, dict[str, Any]]:
        body = canonical({"inputs": list(rows) or [ROW], **more})
        answer = self.plane.handle("prod/flight-delay", "application/json", body)
        return answer, msgspec.json.decode(answer.body)

    def tell(self, body: Any, endpoint: str = ENDPOINT) -> tuple[Answer, dict[str, Any]]:
        data = body if isinstance(body, bytes) else canonical(body)
        answer = self.plane.feedback(endpoint, "application/json", data)
        return answer, msgspec.json.decode(answer.body)

    def cast(self) -> None:
        """Let the shadow answer what was offered, to the end."""
        self.shadow.start()
        self.shadow.stop()

    def lines(self, kind: type[L], generation: int | None = None) -> list[L]:
        self.captures.flush()
        found = []
        for path, data in self.files.items():
            if generation is None or path.name.startswith(f"{generation}-"):
                found += [decode(line) for line in bytes(data).splitlines()]
        return [line for line in found if isinstance(line, kind)]


def plan_of(generation: int = 1, weights: Any = "1.0.0", **more: Any) -> Plan:
    return replace(sample_plan(generation, weights), **{"capture": "scores", "salt": "s", **more})


# --- capture


def test_a_request_that_reached_a_version_is_written_down() -> None:
    rig = Rig().apply(plan_of(weights={"1.0.0": 9_000, "2.0.0": 1_000}))
    plan = plan_of(weights={"1.0.0": 9_000, "2.0.0": 1_000})
    for number in range(40):
        _, body = rig.send(ROW, ROW, key=f"user-{number}", as_of=number)
        line = rig.lines(Answered)[-1]
        assert (line.request_id, line.package) == (body["request_id"], body["digest"])
        assert line.package == route(plan, slot_of(f"user-{number}", "s"))
        assert line.weight == plan.weight_of(line.package)
        assert (line.unit, line.as_of) == (unit_of(f"user-{number}", "s"), number)
        assert (line.outcome, list(line.predictions)) == ("ok", body["predictions"])
        assert line.latency_us >= 0 and line.at > number
    assert {line.package for line in rig.lines(Answered)} == {ONE, TWO}


def test_without_a_key_a_request_is_a_unit_of_its_own_asked_now() -> None:
    rig = Rig().apply(plan_of())
    before = rig.clock.now()
    rig.send()
    (line,) = rig.lines(Answered)
    assert line.unit == "" and line.as_of >= before


def test_what_never_reached_a_version_is_not() -> None:
    rig = Rig().apply(plan_of())
    assert rig.send(entities=[])[0].status == 422
    rig.plane.handle(ENDPOINT, "application/json", b"{")
    rig.plane.handle(ENDPOINT, "text/plain", b"{}")
    rig.apply(plan_of(2, {}))
    assert rig.send()[0].status == 503
    assert rig.lines(Answered) == []


def test_errors_are_put_to_the_version_that_was_chosen() -> None:
    rig = Rig()
    rig.package(TWO, BY_KEY, constant(math.nan), view(WEATHER))
    rig.apply(plan_of(capture="rows", weights="1.0.0"))
    rig.send({"carrier": "UA"})
    rig.apply(plan_of(2, "2.0.0", capture="rows"))
    rig.send({"distance": 1}, entities=[{"origin": "EWR"}])
    rig.send({"distance": 1}, entities=[{}])
    rig.send({"distance": 1, "wind": 3})
    assert [(line.package, line.outcome, line.predictions) for line in rig.lines(Answered)] == [
        (ONE, "contract_error", ()),
        (TWO, "upstream_degraded", ()),
        (TWO, "contract_error", ()),
        (TWO, "model_error", ()),
    ]
    # Rows stand there when the contract admitted them.
    assert [line.rows for line in rig.lines(Asked)] == [({"distance": 1, "wind": 3},)]


def test_rows_are_kept_as_the_version_got_them() -> None:
    rig = Rig()
    rig.package(ONE, BY_KEY, constant(0.5), view(WEATHER))
    rig.online.write(WEATHER, [(("EWR",), OnlineRow(1, 1, (12.5,)))])
    rig.apply(plan_of(capture="rows"))
    _, body = rig.send({"distance": 1}, entities=[{"origin": "EWR"}])
    (line,) = rig.lines(Asked)
    assert (line.request_id, line.rows) == (body["request_id"], ({"distance": 1, "wind": 12.5},))


def test_the_status_page_shows_what_was_written() -> None:
    rig = Rig(queue_bytes=600).apply(plan_of())
    for _ in range(3):
        rig.send()
    rig.captures.flush()
    status = rig.plane.status()["prod/flight-delay"]
    assert status["capture"] == {"mode": "scores", "written": 3, "dropped": 1, "detail": ""}
    assert status["shadow"] == {"package": None, "answered": 0, "failed": 0, "dropped": 0}


# --- features by key


def test_the_answer_is_the_same_looked_up_or_sent() -> None:
    rig = Rig()
    rig.package(ONE, BY_KEY, last_column, view(WEATHER))
    wind = 0.1234567890123
    rig.online.write(WEATHER, [(("EWR",), OnlineRow(1, 1, (wind,)))])
    rig.apply(plan_of())
    _, looked_up = rig.send({"distance": 1}, entities=[{"origin": "EWR", "flight": 7}])
    _, sent = rig.send({"distance": 1, "wind": wind})
    assert looked_up["predictions"] == sent["predictions"] == [float(np.float32(wind))]


def test_a_question_about_the_past_sees_what_was_known_then() -> None:
    rig = Rig()
    rig.package(ONE, BY_KEY, last_column, view(WEATHER))
    rig.online.write(WEATHER, [(("EWR",), OnlineRow(1_000, 2_000, (0.5,)))])
    rig.apply(plan_of())
    ask = {"entities": [{"origin": "EWR"}]}
    assert rig.send({"distance": 1}, as_of=2_000, **ask)[0].status == 200
    answer, problem = rig.send({"distance": 1}, as_of="1970-01-01T00:00:00.001999Z", **ask)
    assert (answer.status, problem["class"]) == (503, "upstream_degraded")
    assert dict(answer.headers)[b"retry-after"] == b"1"


def test_two_versions_with_different_views_each_read_their_own() -> None:
    """The callers of a canary send the keys of both."""
    rig = Rig()
    rig.package(ONE, BY_KEY, last_column, view(WEATHER))
    rig.package(TWO, BY_KEY, last_column, view(NEW_WEATHER, key="airport"))
    rig.online.write(WEATHER, [(("EWR",), OnlineRow(1, 1, (0.25,)))])
    rig.online.write(NEW_WEATHER, [(("Newark",), OnlineRow(1, 1, (0.75,)))])
    rig.apply(plan_of(weights={"1.0.0": 5_000, "2.0.0": 5_000}))
    expected = {"1.0.0": [0.25], "2.0.0": [0.75]}
    seen = set()
    for number in range(40):
        _, body = rig.send(
            {"distance": 1}, entities=[{"origin": "EWR", "airport": "Newark"}], key=str(number)
        )
        assert body["predictions"] == expected[body["version"]]
        seen.add(body["version"])
    assert seen == expected.keys()


def test_a_canary_sees_the_callers_who_do_not_send_its_keys_yet() -> None:
    rig = Rig()
    rig.package(TWO, BY_KEY, constant(0.2), view(WEATHER))
    rig.apply(plan_of(weights={"1.0.0": 5_000, "2.0.0": 5_000}))
    outcomes: dict[Digest, set[str]] = {ONE: set(), TWO: set()}
    for number in range(40):
        rig.send(ROW, key=str(number))
    for line in rig.lines(Answered):
        outcomes[line.package].add(line.outcome)
    assert outcomes == {ONE: {"ok"}, TWO: {"contract_error"}}


def test_callers_of_either_contract_work_against_the_other_where_it_allows() -> None:
    rig = Rig()
    more = (*RAW.inputs, InputField(name="hour", dtype="int"))
    rig.package(TWO, ModelContract(inputs=more, output=RAW.output), constant(0.2))
    rig.apply(plan_of(weights={"1.0.0": 5_000, "2.0.0": 5_000}))
    for row in (ROW, {**ROW, "hour": 3}):
        replies = [rig.send(row, key=str(number)) for number in range(20)]
        assert {answer.status for answer, _ in replies} == {200}
        assert {body["version"] for _, body in replies} == {"1.0.0", "2.0.0"}


# --- canary


def test_a_key_that_is_in_the_canary_stays_there_as_it_grows() -> None:
    rig = Rig()
    inside: set[int] = set()
    for generation, weight in enumerate((100, 500, 2_500, 5_000, N_SLOTS), start=1):
        rest = {"1.0.0": N_SLOTS - weight} if weight < N_SLOTS else {"1.0.0": 0}
        rig.apply(plan_of(generation, {"2.0.0": weight, **rest}))
        now = {n for n in range(300) if rig.send(key=f"user-{n}")[1]["version"] == "2.0.0"}
        assert inside <= now
        assert len(rig.lines(Answered, generation)) == 300
        inside = now
    assert len(inside) == 300


# --- shadow


def test_the_shadow_is_asked_what_another_version_answered() -> None:
    rig = Rig().apply(plan_of(weights={"1.0.0": N_SLOTS, "2.0.0": 0}, shadow=TWO))
    ids = [rig.send(*[ROW] * (1 + number % 3), key="k")[1]["request_id"] for number in range(200)]
    rig.send({"carrier": "UA"})
    rig.cast()
    lines = rig.lines(Shadowed)
    assert [line.request_id for line in lines] == ids
    assert [line.predictions for line in lines] == [(0.2,) * (1 + number % 3) for number in range(200)]
    assert {(line.package, line.outcome) for line in lines} == {(TWO, "ok")}
    assert rig.plane.status()["prod/flight-delay"]["shadow"] == {
        "package": TWO,
        "answered": 200,
        "failed": 0,
        "dropped": 0,
    }
    assert rig.endpoint.counts()[TWO].n_requests == 0


def test_a_canary_that_is_its_own_shadow_is_asked_once() -> None:
    rig = Rig().apply(plan_of(weights={"1.0.0": 5_000, "2.0.0": 5_000}, shadow=TWO))
    for number in range(40):
        rig.send(key=str(number))
    rig.cast()
    by_live = {line.request_id for line in rig.lines(Answered) if line.package == ONE}
    assert {line.request_id for line in rig.lines(Shadowed)} == by_live


def test_a_shadow_reads_its_own_features_as_of_the_same_moment() -> None:
    rig = Rig()
    rig.package(TWO, BY_KEY, last_column, view(WEATHER))
    rig.online.write(WEATHER, [(("EWR",), OnlineRow(1_000, 1_000, (0.75,)))])
    rig.apply(plan_of(weights={"1.0.0": N_SLOTS, "2.0.0": 0}, shadow=TWO))
    for as_of in (1_000, 999):
        assert rig.send(entities=[{"origin": "EWR"}], as_of=as_of)[0].status == 200
    rig.send()
    rig.cast()
    assert [(line.outcome, line.predictions) for line in rig.lines(Shadowed)] == [
        ("ok", (0.75,)),
        ("upstream_degraded", ()),
        ("contract_error", ()),
    ]


def raising_at_odd(matrix: Any) -> Any:
    """Fails for any batch with a row that it cannot answer."""
    if (matrix[:, 0] % 2 == 1).any():
        raise ZeroDivisionError
    return matrix[:, 0].astype(np.float64) / 100


def test_a_request_the_shadow_fails_at_takes_no_other_with_it() -> None:
    rig = Rig()
    rig.package(TWO, RAW, raising_at_odd)
    rig.apply(plan_of(weights={"1.0.0": N_SLOTS, "2.0.0": 0}, shadow=TWO))
    for number in range(10):
        assert rig.send({"distance": number})[0].status == 200
    rig.cast()
    assert [(line.outcome, line.predictions) for line in rig.lines(Shadowed)] == [
        ("model_error", ()) if number % 2 else ("ok", (number / 100,)) for number in range(10)
    ]


class Fatal(Exception):
    pass


class Untakable(Lookup):
    def fill(self, rows: Any, entities: Any, as_of: Any) -> Any:
        raise Fatal("not even a refusal")


def test_whatever_a_shadow_does_the_answers_stay(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.packages[TWO] = ReadyPackage(TWO, RAW, constant(0.2), Untakable(RAW))
    rig.apply(plan_of(weights={"1.0.0": N_SLOTS, "2.0.0": 0}, shadow=TWO))
    assert rig.send(entities=[{"origin": "secret-4711"}])[1]["predictions"] == [0.1]
    rig.cast()
    assert rig.endpoint.shadow_counts.n_failed == 1 and rig.lines(Shadowed) == []
    assert "Fatal" in caplog.text and "4711" not in caplog.text


def test_a_shadow_that_falls_behind_is_not_waited_for() -> None:
    rig = Rig().apply(plan_of(weights={"1.0.0": N_SLOTS, "2.0.0": 0}, shadow=TWO))
    row = {**ROW, "carrier": "x" * 500_000}
    for _ in range(20):
        assert rig.send(row)[0].status == 200
    dropped = rig.endpoint.shadow_counts.n_dropped
    assert 0 < dropped < 20
    rig.cast()
    assert len(rig.lines(Shadowed)) == 20 - dropped


def test_no_capture_no_shadow() -> None:
    rig = Rig().apply(plan_of(weights={"1.0.0": N_SLOTS, "2.0.0": 0}, shadow=TWO, capture="off"))
    rig.send()
    rig.cast()
    assert rig.endpoint.shadow_counts.n_answered == 0 and not rig.files


# --- drill


def test_a_drill_is_answered_by_its_version_and_leaves_no_trace() -> None:
    rig = Rig().apply(plan_of(weights={"1.0.0": N_SLOTS, "2.0.0": 0}, drill=TWO, shadow=TWO))
    answer, body = rig.send(key=DRILL_KEY)
    assert (body["version"], dict(answer.headers)[b"x-lockgate-version"]) == ("2.0.0", b"2.0.0")
    assert rig.send({"distance": "far"}, key=DRILL_KEY)[0].status == 422
    rig.cast()
    assert not rig.files and all(counts.n_requests == 0 for counts in rig.endpoint.counts().values())
    assert rig.send(key="lockgate:dril")[1]["version"] == "1.0.0"


@pytest.mark.parametrize("live", [ONE, TWO])
def test_without_a_version_for_it_a_drill_gets_the_live_one(live: Digest) -> None:
    rig = Rig().apply(plan_of(weights={"1.0.0": 5_000, "2.0.0": 5_000}, live=live))
    assert rig.send(key=DRILL_KEY)[1]["digest"] == live
    assert not rig.lines(Answered)


def test_a_drill_where_nothing_answers_is_not_counted_either() -> None:
    rig = Rig().apply(plan_of(weights={}))
    assert rig.send(key=DRILL_KEY)[0].status == 503
    assert rig.endpoint.recorder.counts().n_requests == 0


# --- labels


def test_labels_are_in_the_file_before_they_are_accepted() -> None:
    rig = Rig().apply(plan_of())
    _, body = rig.send(ROW, ROW)
    request_id = body["request_id"]
    answer, told = rig.tell(
        {
            "labels": [
                {"request_id": request_id, "label": True},
                {"request_id": request_id, "row": 1, "label": -3},
                {"request_id": "of another worker", "label": 0.5},
            ]
        }
    )
    assert (answer.status, told) == (202, {"accepted": 3})
    (data,) = rig.files.values()
    kept = [decode(line) for line in bytes(data).splitlines()]
    assert isinstance(kept[0], Answered)
    assert [(line.request_id, line.row, line.label) for line in kept[1:] if isinstance(line, Labelled)] == [
        (request_id, 0, 1.0),
        (request_id, 1, -3.0),
        ("of another worker", 0, 0.5),
    ]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no JSON"),
        (b"[]", 422, "object"),
        (b"{}", 422, "labels"),
        (b'{"labels": []}', 422, "empty"),
        (b'{"labels": [{"request_id": "r", "label": NaN}]}', 400, "no JSON"),
        (b'{"labels": [{"request_id": "r", "label": 1e999}]}', 422, "$.labels[0].label"),
        (b'{"labels": [{"request_id": "r", "label": null}]}', 422, "$.labels[0].label"),
        (b'{"labels": [{"request_id": "r", "label": "late"}]}', 422, "$.labels[0].label"),
        (b'{"labels": [{"request_id": "r", "label": 1, "row": -1}]}', 422, "$.labels[0].row"),
        (b'{"labels": [{"request_id": "r", "label": 1, "row": 1.5}]}', 422, "$.labels[0].row"),
        (b'{"labels": [{"request_id": "", "label": 1}]}', 422, "$.labels[0].request_id"),
        (b'{"labels": [{"request_id": 7, "label": 1}]}', 422, "$.labels[0].request_id"),
        (b'{"labels": [{"label": 1}]}', 422, "request_id"),
        (b'{"labels": [{"request_id": "r", "label": 1, "rwo": 2}]}', 422, "rwo"),
        (canonical({"labels": [{"request_id": "r", "label": 1}] * 11}), 413, "11 labels"),
        (b" " * (1 << 20) + b"{}", 413, "bytes"),
    ],
)
def test_wrong_feedback_is_the_callers_and_says_what_is_wrong(body: bytes, status: int, words: str) -> None:
    rig = Rig().apply(plan_of())
    answer, problem = rig.tell(body)
    assert (answer.status, problem["class"]) == (status, "client_error")
    assert words in problem["detail"] and problem["remedy"]
    assert not rig.files


def test_feedback_to_nowhere() -> None:
    rig = Rig()
    body = {"labels": [{"request_id": "r", "label": 1}]}
    assert rig.tell(body, "prod/flight-delays")[0].status == 404
    assert rig.tell(body)[0].status == 503
    rig.apply(plan_of(capture="off"))
    answer, problem = rig.tell(body)
    assert (answer.status, problem["code"], problem["retryable"]) == (409, "serving.capture-off", False)
    assert rig.plane.feedback(ENDPOINT, "text/csv", b"").status == 415


def test_labels_that_could_not_be_written_are_not_claimed() -> None:
    rig = Rig().apply(plan_of())
    rig.files.broken = True
    answer, problem = rig.tell({"labels": [{"request_id": "r", "label": 1}]})
    assert (answer.status, problem["code"]) == (503, "serving.capture-unavailable")
    assert dict(answer.headers)[b"retry-after"] == b"1"
    rig.files.broken = False
    assert rig.tell({"labels": [{"request_id": "r", "label": 1}]})[0].status == 202
    assert len(rig.lines(Labelled)) == 1
