"""Every wrong input of the failure list, over a real connection: never a 5xx, always a reason, the plane lives on."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dataplane_rig import ENDPOINT, PATH, ROWS, DataPlane, dataplane, plan, shared_store

JSON = {"content-type": "application/json"}
GOOD = json.dumps({"inputs": ROWS}).encode()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    store = shared_store()
    run_dir: Path = tmp_path_factory.mktemp("run")
    with dataplane(store, run_dir) as running:
        running.target.apply(plan(store, 1, "1.0.0"))
        assert running.target.wait(ENDPOINT, 1, 60.0).reached(1)
        yield running
        # Whatever came in: it is still the same process, it answers, and nothing failed on its side.
        assert running.process.poll() is None
        assert running.predict().status == 200
        listing = running.get("/endpoints").body["endpoints"]["prod/flight-delay"]
        for counts in (listing["unrouted"], *listing["counts"].values()):
            assert set(counts["errors"]) <= {"client_error", "contract_error"}
        assert running.stop() == (0, "")


def row(**more: Any) -> bytes:
    return json.dumps({"inputs": [{**ROWS[0], **more}]}).encode()


def deep(levels: int) -> bytes:
    return b'{"inputs":[{"distance":' + b"[" * levels + b"]" * levels + b"}]}"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param(b"", 400, "truncated", id="empty"),
        pytest.param(GOOD[:-5], 400, "truncated", id="cut-off"),
        pytest.param(b"hello", 400, "malformed", id="not-json"),
        pytest.param(b'{"inputs":[{"distance":NaN}]}', 400, "malformed", id="nan"),
        pytest.param(b'{"inputs":[{"distance":-Infinity}]}', 400, "malformed", id="infinity"),
        pytest.param(b'{"inputs":[{"distance":1e400}]}', 422, "out of range", id="overflow"),
        pytest.param(b'{"inputs":[{"carrier":"\xc3("}]}', 400, "JSON", id="invalid-utf8"),
        pytest.param(b'\xff\xfe{"inputs":[]}', 400, "JSON", id="utf16-mark"),
        pytest.param(deep(200), 422, "distance", id="nested"),
        pytest.param(deep(100_000), 400, "nested", id="nested-deeply"),
        pytest.param(b'{"inputs":[]}', 422, "no rows", id="no-rows"),
        pytest.param(b'{"inputs":[{}]}', 422, "distance", id="no-features"),
        pytest.param(b'{"inputs":[[1,2,3,4]]}', 422, "inputs[0]", id="positional"),
        pytest.param(b'{"instances":[{}]}', 422, "instances", id="other-protocol"),
        pytest.param(row(distanse=1), 422, "distanse", id="one-feature-too-many"),
        pytest.param(row(distance=None), 422, "distance", id="null-for-required"),
        pytest.param(row(distance="1400"), 422, "distance", id="text-for-number"),
        pytest.param(row(distance=True), 422, "distance", id="bool-for-number"),
        pytest.param(row(distance=[1400]), 422, "distance", id="list-for-number"),
        pytest.param(row(distance={"value": 1}), 422, "distance", id="object-for-number"),
        pytest.param(row(distance=-1), 422, "distance", id="below-minimum"),
        pytest.param(row(distance=2**53 + 1), 422, "distance", id="int-above-2-to-53"),
        pytest.param(row(distance=10**40), 422, "distance", id="int-above-float32"),
        pytest.param(row(distance=1e39), 422, "distance", id="float-above-float32"),
        pytest.param(
            b'{"inputs":[{"distance":' + b"9" * 5_000 + b"}]}", 422, "out of range", id="5000-digits"
        ),
        pytest.param(row(hour=1.5), 422, "hour", id="fraction-for-int"),
        pytest.param(row(weekend=1), 422, "weekend", id="number-for-bool"),
        pytest.param(row(carrier=7), 422, "carrier", id="number-for-category"),
        pytest.param(b'{"inputs":[{"distance":1}],"key":{}}', 422, "key", id="object-for-key"),
        pytest.param(json.dumps({"inputs": [ROWS[2]] * 10_000}).encode(), 413, "10000 rows", id="10k-rows"),
        pytest.param(row(carrier="x" * 5_000_000), 413, "bytes", id="5-MB"),
    ],
)
def test_a_wrong_body_never_is_a_5xx(plane: DataPlane, body: bytes, status: int, words: str) -> None:
    reply = plane.request("POST", PATH, body, JSON)
    assert (reply.status, reply.body["status"]) == (status, status)
    assert words in reply.body["detail"]
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.body["class"] in ("client_error", "contract_error") and reply.body["remedy"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(row(distance=-0.0), id="minus-zero"),
        pytest.param(row(distance=5e-324), id="denormal"),
        pytest.param(row(distance=2**53), id="2-to-53"),
        pytest.param(row(hour=None, weekend=None, carrier=None), id="optional-null"),
        pytest.param(b'{"inputs":[{"distance":1}]}', id="optional-missing"),
        pytest.param(row(carrier="\u2708 unseen"), id="unseen-category"),
        pytest.param(b'{"inputs":[{"distance":1,"distance":2}]}', id="duplicate-member"),
        pytest.param(b'{"inputs":[{"distance":1}],"key":""}', id="empty-key"),
        pytest.param(b'{"inputs":[{"distance":1}],"key":null}', id="null-key"),
        pytest.param(
            json.dumps({"inputs": [ROWS[2]], "key": "\u00fc\U0001f6eb\0"}).encode(), id="unicode-key"
        ),
        pytest.param(json.dumps({"inputs": [ROWS[2]] * 1_000}).encode(), id="1000-rows"),
    ],
)
def test_what_is_odd_but_allowed_is_answered(plane: DataPlane, body: bytes) -> None:
    reply = plane.request("POST", PATH, body, JSON)
    assert reply.status == 200 and all(0 <= value <= 1 for value in reply.body["predictions"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"content-type": "text/csv"}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({"content-type": "APPLICATION/JSON"}, 200),
    ],
)
def test_content_types(plane: DataPlane, headers: dict[str, str], status: int) -> None:
    assert plane.request("POST", PATH, GOOD, headers).status == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/prod/flight-dela", 404),
        ("POST", "/staging/flight-delay", 404),
        ("POST", "/", 404),
        ("POST", "/prod//flight-delay", 404),
        ("POST", "/prod/%2e%2e/flight-delay", 404),
        ("POST", "/prod/%ff", 404),
        ("POST", "/a/b/c/d", 404),
        ("GET", "/", 404),
        ("GET", "/secret", 404),
        ("GET", PATH, 405),
        ("PUT", PATH, 405),
        ("DELETE", "/prod/main/flight-delay", 405),
        ("POST", "/healthz", 405),
        ("GET", "/healthz", 200),
    ],
)
def test_paths_and_methods(plane: DataPlane, method: str, path: str, status: int) -> None:
    reply = plane.request(method, path, GOOD if method != "GET" else None, JSON)
    assert reply.status == status
    if status == 405:
        assert reply.headers["allow"]
    if path == "/prod/flight-dela":
        assert "'prod/flight-delay'" in reply.body["remedy"]


def test_a_chunked_body_is_read(plane: DataPlane) -> None:
    parts = iter([GOOD[:7], GOOD[7:30], GOOD[30:]])
    assert plane.request("POST", PATH, parts, JSON, encode_chunked=True).status == 200


def test_a_chunked_body_above_the_limit_is_refused(plane: DataPlane) -> None:
    parts = (b" " * 65_536 for _ in range(32))
    reply = plane.request("POST", PATH, parts, JSON, encode_chunked=True)
    assert (reply.status, reply.headers["connection"]) == (413, "close")


def test_pipelined_requests_are_answered_in_order(plane: DataPlane) -> None:
    bodies = [json.dumps({"inputs": [ROWS[2]] * n}).encode() for n in (3, 1, 2)]
    with _raw(plane) as raw:
        raw.sendall(b"".join(_request(body) for body in bodies))
        sizes = []
        stream = raw.makefile("rb")
        for _ in bodies:
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = http.client.parse_headers(stream)
            answer = json.loads(stream.read(int(headers["content-length"])))
            sizes.append(len(answer["predictions"]))
    assert sizes == [3, 1, 2]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /prod/flight-delay HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST /prod/flight-delay HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /prod/flight-delay HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /prod/flight-delay HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(plane: DataPlane, garbage: bytes) -> None:
    with _raw(plane) as raw:
        raw.sendall(garbage)
        assert raw.recv(1_000).startswith(b"HTTP/1.1 400")
        assert raw.recv(1_000) == b""


def test_an_endless_head_is_cut_off(plane: DataPlane) -> None:
    with _raw(plane) as raw:
        raw.sendall(b"POST /prod/flight-delay HTTP/1.1\r\nhost: x\r\nx-bomb: ")
        answer = b""
        try:
            for _ in range(64):
                raw.sendall(b"x" * 8_192)
        except OSError:
            pass
        try:
            answer = raw.recv(1_000)
        except ConnectionResetError:
            # The cut was faster than the reading of it.
            answer = b"HTTP/1.1 431"
    assert answer.startswith(b"HTTP/1.1 431")


def test_a_caller_that_hangs_up_in_the_middle_harms_nobody(plane: DataPlane) -> None:
    with _raw(plane) as raw:
        raw.sendall(_request(GOOD)[:-20])
    assert plane.predict().status == 200


def test_an_upgrade_is_not_taken(plane: DataPlane) -> None:
    headers = {"connection": "upgrade", "upgrade": "h2c", "content-type": "application/json"}
    assert plane.request("GET", "/healthz", None, headers).status in (200, 400)


def _raw(plane: DataPlane) -> socket.socket:
    return socket.create_connection(("127.0.0.1", plane.port), timeout=30)


def _request(body: bytes) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
