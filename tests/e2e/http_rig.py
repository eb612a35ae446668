"""The data plane's HTTP server in this process, on the event loop that it has in production."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import uvicorn
import uvloop

from lockgate.serving.asgi import PlaneApp
from lockgate.serving.guarded_http import GuardedHttp
from lockgate.serving.plane import JSON_TYPE, Answer, Plane

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
WAIT_S = 30.0

T = TypeVar("T")


def story(told: Coroutine[Any, Any, T]) -> T:
    async def in_time() -> T:
        async with asyncio.timeout(WAIT_S):
            return await told

    return uvloop.run(in_time())


async def moment(seconds: float) -> None:
    """What a caller lets pass who says nothing."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


class Served:
    """A server that runs."""

    def __init__(self, server: uvicorn.Server) -> None:
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self.connections: set[Any] = server.server_state.connections
        self.opened: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1_024)
        self.opened.append(writer)
        return reader, writer

    async def connected(self) -> tuple[GuardedHttp, asyncio.StreamReader]:
        """A new connection's end in the server, which can be given pieces of one's choice, and what comes back."""
        before = set(self.connections)
        reader, _ = await self.connect()
        while not (new := self.connections - before):
            await moment(0.001)
        return new.pop(), reader

    async def until_closed(self, data: bytes) -> bytes:
        """What comes back for some bytes until the other side closes."""
        reader, writer = await self.connect()
        writer.write(data)
        return await reader.read()

    async def until_empty(self) -> None:
        while self.connections:
            await moment(0.005)


@asynccontextmanager
async def served(
    plane: Plane | None = None, *, body_s: float = 10.0, pause_s: float = 30.0, **limits: Any
) -> AsyncIterator[Served]:
    """
    Args:
        limits: instead of the protocol's own.
    """
    config = uvicorn.Config(
        PlaneApp(plane or Plane(), body_timeout_s=body_s),
        http=type("Limited", (GuardedHttp,), limits),
        host="127.0.0.1",
        port=0,
        lifespan="off",
        log_config=None,
        log_level="error",
        ws="none",
        timeout_keep_alive=pause_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    running = Served(server)
    try:
        yield running
    finally:
        for writer in running.opened:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in running.opened), return_exceptions=True)
        await server.shutdown()


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


class Large(Plane):
    """Answers every prediction with so many bytes."""

    def __init__(self, n_bytes: int) -> None:
        super().__init__()
        self._body = b"x" * n_bytes
        self.n_asked = 0

    def handle(self, endpoint: str, content_type: str | None, body: bytes) -> Answer:
        self.n_asked += 1
        return Answer(200, (JSON_TYPE,), self._body)


class Gated(Plane):
    """Takes labels when its gate is open, like a disk that hangs until then."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def feedback(self, endpoint: str, content_type: str | None, body: bytes) -> Answer:
        assert self.gate.wait(WAIT_S)
        return super().feedback(endpoint, content_type, body)


class Recording(Plane):
    """Says what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str | None, bytes]] = []

    def handle(self, endpoint: str, content_type: str | None, body: bytes) -> Answer:
        self.asked.append((endpoint, content_type, body))
        return Answer(200, (JSON_TYPE,), body)
