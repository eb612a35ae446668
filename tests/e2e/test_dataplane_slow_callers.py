"""Callers that never finish: a head or a body that stops arriving is given up, others are not kept waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn

from lockgate.serving.asgi import PlaneApp
from lockgate.serving.guarded_http import GuardedHttp
from lockgate.serving.plane import Plane


class Impatient(GuardedHttp):
    head_timeout_s = 0.05


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The port of a server in this process that waits a twentieth of a second for everything."""
    config = uvicorn.Config(
        PlaneApp(Plane(), body_timeout_s=0.05),
        http=Impatient,
        port=0,
        lifespan="off",
        log_config=None,
        ws="none",
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


async def until_closed(port: int, data: bytes) -> bytes:
    """What comes back for some bytes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), timeout=30)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"POST /prod/x HT",
        b"POST /prod/x HTTP/1.1\r\nhost: x\r\nx-slow: 1",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /heal",
    ],
)
def test_a_head_that_does_not_end_is_given_up(head: bytes) -> None:
    async def story() -> bytes:
        async with served() as port:
            return await until_closed(port, head)

    answer = asyncio.run(story())
    assert answer.count(b"HTTP/1.1") == answer.count(b"HTTP/1.1 200") == head.count(b"GET /healthz")


@pytest.mark.parametrize("length", [b"content-length: 100", b"transfer-encoding: chunked"])
def test_a_body_that_does_not_end_is_given_up_and_said_so(length: bytes) -> None:
    async def story() -> bytes:
        async with served() as port:
            head = b"POST /prod/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            return await until_closed(port, head + length + b"\r\n\r\n5\r\n{\r\n")

    answer = asyncio.run(story())
    assert answer.startswith(b"HTTP/1.1 408") and b"serving.body-too-slow" in answer


def test_a_finished_request_is_not_cut_off_by_the_heads_deadline() -> None:
    async def story() -> list[bytes]:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answers = []
            for _ in range(3):
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(len(b'{"status":"ok"}'))
                answers.append(head.splitlines()[0])
                # Idle longer than a head may take: that is the keep-alive's business, not the head's.
                await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=0.1)
            writer.close()
            return answers

    assert asyncio.run(story()) == [b"HTTP/1.1 200 OK"] * 3
