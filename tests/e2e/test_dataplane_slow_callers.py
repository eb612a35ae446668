"""Callers that never finish: what stops arriving, or is not fetched, is given up, and others are not kept waiting."""

from __future__ import annotations

import asyncio

import pytest
from http_rig import HEALTH, Large, head_of, moment, served, story

from lockgate.serving.plane import Limits, Plane

POST = b"POST /prod/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n\r\n",
        b"POST /prod/x HT",
        b"POST /prod/x HTTP/1.1\r\nhost: x\r\nx-slow: 1",
        HEALTH + b"GET /heal",
    ],
)
def test_a_head_that_does_not_end_is_given_up(head: bytes) -> None:
    async def told() -> bytes:
        async with served(head_timeout_s=0.05, body_s=0.05, pause_s=0.4) as server:
            return await server.until_closed(head)

    answer = story(told())
    assert answer.count(b"HTTP/1.1") == answer.count(b"HTTP/1.1 200") == head.count(HEALTH)


def test_a_head_that_comes_byte_by_byte_has_no_longer_time() -> None:
    async def told() -> None:
        async with served(head_timeout_s=0.05, body_s=0.05, pause_s=0.4) as server:
            reader, writer = await server.connect()
            writer.write(b"GET /healthz HTTP/1.1\r\nx-slow: ")
            gone = asyncio.create_task(reader.read())
            while not gone.done():
                await asyncio.wait([gone], timeout=0.01)
                writer.write(b"x")

    story(told())


@pytest.mark.parametrize("length", [b"content-length: 100", b"transfer-encoding: chunked"])
def test_a_body_that_does_not_end_is_given_up_and_said_so(length: bytes) -> None:
    async def told() -> bytes:
        async with served(head_timeout_s=0.05, body_s=0.05, pause_s=0.4) as server:
            return await server.until_closed(POST + length + b"\r\n\r\n5\r\n{\r\n")

    answer = story(told())
    assert answer.startswith(b"HTTP/1.1 408") and b"serving.body-too-slow" in answer
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"content-length: 1000000000000\r\n\r\n" + b"x" * 20_000, id="body"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000, id="pieces"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20_000, id="trailers"),
    ],
)
def test_what_follows_a_head_without_end_is_cut(rest: bytes) -> None:
    async def told() -> bytes:
        async with served(Plane(limits=Limits(body_bytes=1_000))) as server:
            connection, output = await server.connected()
            # As the network may deliver it: the head first, then piece by piece.
            head, body = (POST + rest).split(b"\r\n\r\n", 1)
            connection.data_received(head + b"\r\n\r\n")
            for at in range(0, len(body), 4_000):
                await moment(0.001)
                if connection.transport.is_closing():
                    break
                connection.data_received(body[at : at + 4_000])
            return await output.read()

    answer = story(told())
    assert answer.startswith(b"HTTP/1.1 413") or (b"a: b" in rest and answer == b"")


def test_a_finished_request_is_not_cut_off_by_the_heads_deadline() -> None:
    async def told() -> list[bytes]:
        async with served(head_timeout_s=0.05, body_s=0.05, pause_s=0.4) as server:
            reader, writer = await server.connect()
            answers = []
            for _ in range(3):
                writer.write(HEALTH)
                answers.append((await head_of(reader)).splitlines()[0])
                await reader.readexactly(len(b'{"status":"ok"}'))
                # Idle longer than a head may take: that is a pause, and has its own patience.
                await moment(0.1)
            return answers

    assert story(told()) == [b"HTTP/1.1 200 OK"] * 3


def test_a_pause_between_two_requests_ends() -> None:
    async def told() -> bytes:
        async with served(pause_s=0.05) as server:
            return await server.until_closed(HEALTH)

    assert story(told()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("last", [b"", b"connection: close\r\n"])
def test_an_answer_that_nobody_fetches_is_given_up(last: bytes) -> None:
    async def told() -> None:
        async with served(Large(16 << 20), pause_s=0.1, fetch_timeout_s=0.1) as server:
            reader, writer = await server.connect()
            writer.write(POST + last + b"content-length: 2\r\n\r\n{}")
            await server.until_empty()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(16 << 20)

    story(told())


def test_many_requests_whose_answers_nobody_fetches_are_not_all_answered() -> None:
    async def told() -> None:
        plane = Large(1 << 20)
        async with served(plane, pause_s=0.2, fetch_timeout_s=0.2) as server:
            _, writer = await server.connect()
            writer.write((POST + b"content-length: 2\r\n\r\n{}") * 500)
            await server.until_empty()
            assert 0 < plane.n_asked < 100

    story(told())
