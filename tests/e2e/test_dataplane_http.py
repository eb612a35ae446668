"""HTTP as the data plane speaks it: whole requests out of any pieces, in order, and nobody waits for another."""

from __future__ import annotations

import logging
import re

import pytest
from http_rig import Gated, Recording, head_of, moment, served, story

from lockgate.serving.plane import Answer, Plane

LAST = b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"


def post(body: bytes, path: bytes = b"/prod/x", more: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n"
    return head % (path, more, len(body)) + body


def statuses(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d+) ", answers)


CHUNKED = (
    b"POST /prod/main/x%20y?q=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nContent-Type: text/csv\r\n\r\n"
)
TWO = post(b"first") + CHUNKED


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, len(TWO)])
def test_the_pieces_in_which_requests_come_make_no_difference(n: int) -> None:
    async def told() -> bytes:
        async with served(plane) as server:
            connection, output = await server.connected()
            for at in range(0, len(TWO), n):
                connection.data_received(TWO[at : at + n])
            connection.data_received(LAST)
            return await output.read()

    plane = Recording()
    answer = story(told())
    # What stands behind a body counts for nothing.
    assert plane.asked == [
        ("prod/x", "application/json", b"first"),
        ("prod/main/x y", "application/json", b"abcde"),
    ]
    first, second, last = answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first.endswith(b"\r\n\r\nfirst") and second.endswith(b"\r\n\r\nabcde")
    assert last.endswith(b'{"status":"ok"}') and b"connection: close" in last


def test_a_caller_who_sends_many_at_once_does_not_keep_others_waiting() -> None:
    async def told() -> int:
        async with served(plane) as server:
            connection, output = await server.connected()
            other, other_output = await server.connected()
            connection.data_received(post(b"1") * 50 + LAST)
            other.data_received(LAST)
            await other_output.read()
            n_asked = len(plane.asked)
            answer = await output.read()
            assert answer.count(b"HTTP/1.1 200") == 51
            return n_asked

    plane = Recording()
    assert story(told()) < 50


def test_a_request_that_waits_for_the_disk_keeps_its_own_connection_waiting_only() -> None:
    async def told() -> bytes:
        async with served(plane) as server:
            reader, writer = await server.connect()
            writer.write(post(b"{}", b"/prod/x:feedback") + LAST)
            assert (await server.until_closed(LAST)).startswith(b"HTTP/1.1 200")
            plane.gate.set()
            return await reader.read()

    plane = Gated()
    assert statuses(story(told())) == [b"404", b"200"]


def test_a_caller_is_not_late_while_his_request_waits_for_the_disk() -> None:
    async def told() -> bytes:
        async with served(plane, head_timeout_s=0.02, body_s=5.0, pause_s=0.02) as server:
            connection, output = await server.connected()
            request = post(b"{}")
            connection.data_received(post(b"{}", b"/prod/x:feedback") + request[:-1])
            await moment(0.2)
            assert connection in server.connections
            plane.gate.set()
            await head_of(output)
            connection.data_received(request[-1:])
            return await output.read()

    plane = Gated()
    assert story(told()).count(b"HTTP/1.1 404") == 1


@pytest.mark.parametrize(
    ("request_", "stays"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", True),
        (b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n", False),
        (b"GET /healthz HTTP/1.1\r\nConnection: Close\r\n\r\n", False),
        (b"GET /healthz HTTP/1.0\r\n\r\n", False),
        (b"GET /healthz HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", False),
    ],
)
def test_whether_a_connection_stays(request_: bytes, stays: bool) -> None:
    async def told() -> bytes:
        async with served() as server:
            return await server.until_closed(request_ + LAST)

    answer = story(told())
    assert answer.count(b"HTTP/1.1 200 OK") == 1 + stays == answer.count(b"HTTP/1.1 ")
    assert answer.count(b"connection: close") == 1


def test_head_gets_the_length_without_the_body() -> None:
    async def told() -> bytes:
        async with served() as server:
            return await server.until_closed(b"HEAD /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")

    answer = story(told())
    assert b"content-length: 15\r\n" in answer and answer.endswith(b"\r\n\r\n")


def test_whoever_asks_before_sending_is_invited() -> None:
    async def told() -> tuple[bytes, bytes]:
        async with served(Recording()) as server:
            connection, output = await server.connected()
            request = post(b"body", more=b"expect: 100-continue\r\nconnection: close\r\n")
            connection.data_received(request[:-4])
            first = await head_of(output)
            connection.data_received(request[-4:])
            return first, await output.read()

    first, answer = story(told())
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"x" * 70_000, b"431"),
        (b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, b"431"),
        (b"GET http:/// HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", b"400"),
        (b"GE T / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
    ],
)
def test_what_cannot_be_read_is_refused_and_ends_the_connection(request_: bytes, status: bytes) -> None:
    async def told() -> bytes:
        async with served() as server:
            connection, output = await server.connected()
            for data in (request_[:100], request_[100:]):
                connection.data_received(data)
            return await output.read()

    answer = story(told())
    assert statuses(answer) == [status] and b"connection: close" in answer


def test_large_bodies_and_heads_in_one_piece_do_not_count_as_a_long_head() -> None:
    async def told() -> bytes:
        async with served(plane) as server:
            connection, output = await server.connected()
            # Several bodies, and the beginning of a head, in one piece; then the rest of that head.
            connection.data_received(post(b"x" * 90_000) * 3 + LAST[:10])
            connection.data_received(LAST[10:])
            return await output.read()

    plane = Recording()
    assert story(told()).count(b"HTTP/1.1 200") == 4


def test_a_body_above_the_limit_is_read_to_its_end_and_refused() -> None:
    async def told() -> bytes:
        async with served() as server:
            head = b"POST /prod/x HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n"
            return await server.until_closed(head + b"x" * 3_000_000)

    answer = story(told())
    assert answer.startswith(b"HTTP/1.1 413") and b"serving.body-too-large" in answer
    assert b"connection: close" in answer


def test_a_failure_of_the_plane_is_answered_and_logs_nothing_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Plane):
        def handle(self, endpoint: str, content_type: str | None, body: bytes) -> Answer:
            raise ValueError(body)

    async def told() -> bytes:
        async with served(Broken()) as server:
            return await server.until_closed(post(b"secret-4711") + LAST)

    with caplog.at_level(logging.DEBUG):
        answer = story(told())
    assert answer.startswith(b"HTTP/1.1 500") and b"serving.plane-failed" in answer
    assert answer.count(b"HTTP/1.1 200") == 1
    assert "ValueError at " in caplog.text and "secret-4711" not in caplog.text
