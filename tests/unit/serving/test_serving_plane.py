from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from memory_control import MemoryControl

from lockgate.core.digests import canonical
from lockgate.core.errors import LockgateError
from lockgate.registry.packages.contract import InputField, ModelContract, OutputField
from lockgate.serving import errors
from lockgate.serving.endpoint import Endpoint
from lockgate.serving.errors import REFUSALS
from lockgate.serving.plane import Answer, Limits, Plane
from lockgate.serving.ports import Predict, ReadyPackage
from lockgate.testing.memory_target import constant
from lockgate.testing.target_suite import ENDPOINT, package_digest, sample_plan
from lockgate.traffic.errors import ERROR_CLASSES
from lockgate.traffic.plan import Fallback, Plan, route, slot_of

CONTRACT = ModelContract(
    inputs=(
        InputField(name="distance", dtype="float", nullable=False, minimum=0.0),
        InputField(name="carrier", dtype="category", categories=("AA", "UA")),
    ),
    output=OutputField(name="p"),
)
ROW = {"distance": 1400, "carrier": "UA"}


class Rig:
    """A plane with one endpoint and the versions 1.0.0 (answers 0.1), 2.0.0 (0.2)."""

    def __init__(self, plan: Plan | None = None, limits: Limits | None = None) -> None:
        self.predictors: dict[str, Predict] = {
            package_digest(f"{number}.0.0"): constant(number / 10) for number in (1, 2)
        }
        self.plane = Plane(limits=limits)
        self.control = MemoryControl()
        self.endpoint = Endpoint(ENDPOINT, self.control, report=lambda: None, wake=lambda: None)
        self.plane.add(self.endpoint)
        if plan is not None:
            self.apply(plan)

    def apply(self, plan: Plan) -> None:
        self.control.publish(plan)
        self.endpoint.refresh()
        while (ref := self.endpoint.wanted(urgent=False)) is not None:
            self.endpoint.provide(ref, ReadyPackage(ref.digest, CONTRACT, self.predictors[ref.digest]))

    def send(
        self, body: Any, *, endpoint: str = "prod/flight-delay", content_type: str | None = "application/json"
    ) -> tuple[Answer, dict[str, Any]]:
        data = body if isinstance(body, bytes) else canonical(body)
        answer = self.plane.handle(endpoint, content_type, data)
        return answer, msgspec.json.decode(answer.body)


def test_an_answer_names_what_made_it() -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    answer, body = rig.send({"inputs": [ROW, {"distance": 0.0}]})
    assert answer.status == 200 and dict(answer.headers)[b"x-lockgate-version"] == b"1.0.0"
    assert body == {
        "predictions": [0.1, 0.1],
        "version": "1.0.0",
        "digest": package_digest("1.0.0"),
        "endpoint": "prod/flight-delay",
        "request_id": "r1",
    }
    assert rig.send({"inputs": [ROW]}, endpoint=ENDPOINT)[1]["endpoint"] == "prod/flight-delay"


def test_a_key_always_gets_the_version_of_its_slot() -> None:
    plan = sample_plan(1, {"1.0.0": 5_000, "2.0.0": 5_000})
    rig = Rig(plan)
    seen = set()
    for number in range(50):
        key = f"user-{number}"
        expected = route(plan, slot_of(key, plan.salt))
        for _ in range(2):
            body = rig.send({"inputs": [ROW], "key": key})[1]
            assert body["digest"] == expected
        seen.add(expected)
    assert len(seen) == 2


def test_without_a_key_the_split_is_per_request() -> None:
    rig = Rig(sample_plan(1, {"1.0.0": 5_000, "2.0.0": 5_000}))
    bodies: list[dict[str, Any]] = [{}, {"key": None}, {"key": ""}]
    for more in bodies:
        versions = {rig.send({"inputs": [ROW], **more})[1]["version"] for _ in range(40)}
        assert versions == {"1.0.0", "2.0.0"}


def test_the_next_request_after_a_plan_is_answered_by_it() -> None:
    rig = Rig(sample_plan(1, {"1.0.0": 0, "2.0.0": 10_000}))
    for generation in range(2, 12):
        version = f"{1 + generation % 2}.0.0"
        rig.control.publish(sample_plan(generation, {"1.0.0": 0, "2.0.0": 0} | {version: 10_000}))
        body = rig.send({"inputs": [ROW] * 3})[1]
        assert (body["version"], body["predictions"]) == (version, [float(version[0]) / 10] * 3)


CLIENT, CONTRACTUAL = "client_error", "contract_error"
DEEP = b'{"inputs":[{"distance":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}"


@pytest.mark.parametrize(
    ("body", "status", "error_class", "words"),
    [
        (b"", 400, CLIENT, "no JSON"),
        (b'{"inputs": [{"dist', 400, CLIENT, "no JSON"),
        (b"not json", 400, CLIENT, "no JSON"),
        (b'{"inputs": [{"distance": NaN}]}', 400, CLIENT, "no JSON"),
        (b'{"inputs": [{"distance": Infinity}]}', 400, CLIENT, "no JSON"),
        (b'{"inputs": [{"carrier": "\xff"}]}', 400, CLIENT, "no JSON"),
        (b'{"inputs": [{"\xff": 1}]}', 400, CLIENT, "no JSON"),
        (DEEP, 400, CLIENT, "nested"),
        (b"[]", 422, CLIENT, "object"),
        (b"{}", 422, CLIENT, "inputs"),
        (b'{"inputs": []}', 422, CLIENT, "no rows"),
        (b'{"inputs": [[1, 2]]}', 422, CLIENT, "$.inputs[0]"),
        (b'{"inputs": [null]}', 422, CLIENT, "$.inputs[0]"),
        (b'{"inputs": {"distance": 1}}', 422, CLIENT, "$.inputs"),
        (b'{"inputs": [{"distance": 1}], "kye": "a"}', 422, CLIENT, "kye"),
        (b'{"inputs": [{"distance": 1}], "key": 7}', 422, CLIENT, "$.key"),
        (b'{"inputs": [{"distance": 1e400}]}', 422, CLIENT, "out of range"),
        (b'{"inputs": [{"distance": 1}, {}]}', 422, CONTRACTUAL, "row 1: field 'distance' is missing"),
        (b'{"inputs": [{"distance": null}]}', 422, CONTRACTUAL, "'distance' is null"),
        (b'{"inputs": [{"distance": "far"}]}', 422, CONTRACTUAL, "'distance' is 'far'"),
        (b'{"inputs": [{"distance": true}]}', 422, CONTRACTUAL, "'distance' is True"),
        (b'{"inputs": [{"distance": -1}]}', 422, CONTRACTUAL, "'distance' is -1"),
        (b'{"inputs": [{"distance": 9007199254740993}]}', 422, CONTRACTUAL, "'distance' is"),
        (b'{"inputs": [{"distance": 123456789012345678901234567890}]}', 422, CONTRACTUAL, "'distance' is"),
        (b'{"inputs": [{"distance": 1e300}]}', 422, CONTRACTUAL, "'distance' is"),
        (b'{"inputs": [{"distance": 1, "carier": "AA"}]}', 422, CONTRACTUAL, "'carier' is not known"),
        (b'{"inputs": [{"distance": 1, "carrier": 3}]}', 422, CONTRACTUAL, "'carrier' is 3"),
    ],
)
def test_a_wrong_body_is_the_callers_and_says_what_is_wrong(
    body: bytes, status: int, error_class: str, words: str
) -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    answer, problem = rig.send(body)
    assert (answer.status, problem["status"], problem["class"]) == (status, status, error_class)
    assert words in problem["detail"] and problem["remedy"] and problem["code"] in problem["type"]
    assert dict(answer.headers)[b"content-type"] == b"application/problem+json"


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [{"distance": -0.0}]}',
        b'{"inputs": [{"distance": 5e-324}]}',
        b'{"inputs": [{"distance": 1, "carrier": "never seen"}]}',
        b'{"inputs": [{"distance": 1, "carrier": null}], "key": "\xc3\xbc\xf0\x9f\x9b\xab"}',
        b' {"key":"k","inputs":[{"distance":1,"distance":2}]}\n',
    ],
)
def test_what_is_odd_but_allowed_is_answered(body: bytes) -> None:
    assert Rig(sample_plan(1, "1.0.0")).send(body)[0].status == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ('application/json;charset="utf-8"', 200),
        (None, 415),
        ("", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=latin-1", 415),
    ],
)
def test_only_json_is_read(content_type: str | None, status: int) -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    assert rig.send({"inputs": [ROW]}, content_type=content_type)[0].status == status


def test_sizes_are_limited() -> None:
    rig = Rig(sample_plan(1, "1.0.0"), Limits(body_bytes=1_000, n_rows=10))
    answer, problem = rig.send(b" " * 1_001)
    assert (answer.status, problem["code"], problem["facts"]["limit_bytes"]) == (
        413,
        "serving.body-too-large",
        1_000,
    )
    answer, problem = rig.send({"inputs": [{"distance": 1}] * 11})
    assert (answer.status, problem["code"]) == (413, "serving.batch-too-large")


@pytest.mark.parametrize(
    ("as_of", "words"),
    [
        ("yesterday", "no instant"),
        ("2026-01-01T00:00:00", "no time zone"),
        ("2026-01-01", "no time zone"),
        ("0001-01-01T00:00:00+23:59", "as_of"),
        ("9999-12-31T23:59:59-23:59", "as_of"),
        ("2999-01-01T00:00:00Z", "in the future"),
        (2**80, "in the future"),
        (-1, "before 1970"),
        (1.5, "$.as_of"),
        (True, "$.as_of"),
    ],
)
def test_a_moment_that_is_none_is_the_callers(as_of: object, words: str) -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    answer, problem = rig.send({"inputs": [ROW], "as_of": as_of})
    assert (answer.status, problem["class"]) == (422, CLIENT) and words in problem["detail"]


@pytest.mark.parametrize("as_of", ["2013-11-01T12:00:00Z", "2013-11-01T12:00:00.5+02:00", 0, None])
def test_a_moment_in_the_past_is_answered(as_of: object) -> None:
    assert Rig(sample_plan(1, "1.0.0")).send({"inputs": [ROW], "as_of": as_of})[0].status == 200


def test_entities_belong_to_rows() -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    assert rig.send({"inputs": [ROW], "entities": [{"origin": "EWR"}]})[0].status == 200
    answer, problem = rig.send({"inputs": [ROW, ROW], "entities": [{}]})
    assert (answer.status, problem["class"]) == (422, CLIENT) and "2 rows" in problem["detail"]
    assert rig.send({"inputs": [ROW], "entities": [3]})[0].status == 422


def test_an_unknown_endpoint_gives_the_near_names() -> None:
    answer, problem = Rig().send({"inputs": [ROW]}, endpoint="prod/flight-delays")
    assert answer.status == 404 and "'prod/flight-delay'" in problem["remedy"]
    assert Rig().send({}, endpoint="x" * 10_000)[0].status == 404
    assert Plane().handle("prod/a", "application/json", b"").status == 404


def test_nothing_loaded_is_503_and_may_be_retried() -> None:
    answer, problem = Rig().send({"inputs": [ROW]})
    assert (answer.status, problem["class"], problem["facts"]) == (
        503,
        "upstream_degraded",
        {"state": "idle"},
    )
    assert dict(answer.headers)[b"retry-after"] == b"1"


def test_a_declared_fallback_answers_one_value_per_row_and_says_so() -> None:
    rig = Rig(sample_plan(1, {}, fallback=Fallback(kind="constant", value=0.25)))
    answer, body = rig.send({"inputs": [{"anything": 1}] * 3})
    assert answer.status == 200 and dict(answer.headers)[b"x-lockgate-version"] == b"fallback"
    assert body["predictions"] == [0.25] * 3 and body["fallback"] is True
    assert (body["version"], body["digest"]) == (None, None)
    assert rig.endpoint.recorder.counts().n_fallback == 1
    assert rig.send({"inputs": []})[0].status == 422


def test_a_worker_that_can_load_nothing_answers_the_fallback_that_was_declared() -> None:
    rig = Rig()
    rig.control.publish(sample_plan(1, "2.0.0"))
    rig.control.publish(sample_plan(2, "1.0.0", fallback=Fallback(kind="constant", value=0.25)))
    rig.endpoint.refresh()
    assert rig.send({"inputs": [ROW]})[0].status == 503, "it may still load"
    while (ref := rig.endpoint.wanted(urgent=False)) is not None:
        rig.endpoint.refuse(ref, "broken")
    answer, body = rig.send({"inputs": [ROW]})
    assert (answer.status, body["predictions"], body["fallback"]) == (200, [0.25], True)
    assert rig.plane.not_ready() == ("prod/flight-delay",) and rig.endpoint.generation == 0
    rig.apply(sample_plan(3, "1.0.0"))
    assert rig.send({"inputs": [ROW]})[1]["version"] == "1.0.0"


def test_without_a_declared_fallback_a_worker_that_can_load_nothing_says_so() -> None:
    rig = Rig()
    rig.control.publish(sample_plan(1, "1.0.0"))
    rig.endpoint.refresh()
    while (ref := rig.endpoint.wanted(urgent=False)) is not None:
        rig.endpoint.refuse(ref, "broken")
    answer, problem = rig.send({"inputs": [ROW]})
    assert (answer.status, problem["facts"]) == (503, {"state": "failed"})


def raising(matrix: Any) -> Any:
    raise ZeroDivisionError("secret 4711")


@pytest.mark.parametrize(
    ("predict", "why"),
    [
        (raising, "it raised ZeroDivisionError"),
        (constant(math.nan), "not finite"),
        (constant(math.inf), "not finite"),
        (constant(1.5), "outside its contract"),
        (constant(-0.1), "outside its contract"),
        (lambda matrix: np.zeros(7), "7 values for 1 rows"),
    ],
)
def test_a_models_fault_is_500_and_classed_as_the_models(predict: Predict, why: str) -> None:
    rig = Rig()
    rig.predictors[package_digest("1.0.0")] = predict
    rig.apply(sample_plan(1, "1.0.0"))
    answer, problem = rig.send({"inputs": [ROW]})
    assert (answer.status, problem["class"], problem["retryable"]) == (500, "model_error", False)
    assert why in problem["detail"] and b"4711" not in answer.body
    assert problem["facts"]["digest"] == package_digest("1.0.0")
    assert rig.endpoint.counts()[package_digest("1.0.0")].errors == {"model_error": 1}


def test_a_rounding_error_at_a_bound_is_no_fault() -> None:
    rig = Rig()
    rig.predictors[package_digest("1.0.0")] = constant(float(np.nextafter(np.float32(1), np.float32(2))))
    rig.apply(sample_plan(1, "1.0.0"))
    assert rig.send({"inputs": [ROW]})[0].status == 200


def test_counts_are_kept_where_the_fault_is() -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    rig.send({"inputs": [ROW, ROW]})
    rig.send({"inputs": [{"distance": "far"}]})
    rig.send(b"")
    counts = rig.endpoint.counts()[package_digest("1.0.0")]
    assert (counts.n_requests, counts.n_rows, counts.errors) == (2, 2, {"contract_error": 1})
    assert sum(counts.latency_us) == 1
    assert rig.endpoint.recorder.counts().errors == {"client_error": 1}


def test_the_status_page_holds_no_request() -> None:
    rig = Rig(sample_plan(1, {"1.0.0": 10_000, "2.0.0": 0}))
    rig.send({"inputs": [ROW], "key": "user-4711"})
    text = canonical(rig.plane.status())
    status = msgspec.json.decode(text)["prod/flight-delay"]
    assert (status["generation"], status["state"], status["live"]) == (1, "serving", package_digest("1.0.0"))
    assert len(status["loaded"]) == 2 and b"4711" not in text and b"1400" not in text


def test_readiness_names_the_endpoints_without_a_plan() -> None:
    assert Rig().plane.not_ready() == ("prod/flight-delay",)
    assert Rig(sample_plan(1, "1.0.0")).plane.not_ready() == ()


def test_every_error_a_caller_can_get_has_a_status_and_a_class() -> None:
    raised = {
        error
        for error in vars(errors).values()
        if isinstance(error, type)
        and issubclass(error, LockgateError)
        and error.__module__ == errors.__name__
    }
    at_loading = {errors.PackageUntrusted, errors.PackageMisplaced, errors.ViewMisfit}
    assert raised - at_loading <= REFUSALS.keys()
    for status, error_class, title in REFUSALS.values():
        assert error_class in ERROR_CLASSES and title
        assert (status >= 500) == (error_class not in (CLIENT, CONTRACTUAL))


def test_a_value_nested_to_any_depth_is_the_callers() -> None:
    """Between what the parser refuses and what can be told about lie depths at which telling goes too deep."""
    rig = Rig(sample_plan(1, "1.0.0"))
    for depth in range(600, 1_100):
        body = b'{"inputs":[{"distance":' + b"[" * depth + b"]" * depth + b"}]}"
        answer = rig.plane.handle("prod/flight-delay", "application/json", body)
        assert answer.status in (400, 422), depth
