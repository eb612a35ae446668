"""A client in a process of its own: keeps connections busy, one request under way on each, until so many are answered.

    python bench/_load.py

Each line of standard input is a run, `{"port": N, "path": P, "bodies": FILE, "n_requests": N, "n_connections": N}`,
where FILE holds a JSON list of bodies that are sent in turn. One line of JSON answers it: how long the run took, the
latencies, how many answers were not 200. With `"keep": true` the answers themselves come back, in the order of
the bodies.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Run:
    """What all connections of a run share."""

    def __init__(self, requests: list[bytes], n_requests: int, keep: bool) -> None:
        self.requests = requests
        self.n_requests = n_requests
        self.n_sent = 0
        self.n_answered = 0
        self.n_bad = 0
        self.first_bad = ""
        self.latencies_ns: list[int] = []
        self.kept: list[str] | None = [""] * n_requests if keep else None
        self.done = asyncio.get_running_loop().create_future()


class Connection(asyncio.Protocol):
    """One connection: sends the next request when the answer to the last is complete."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._received = b""
        self._number = 0
        self._sent_ns = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head = received.find(_END_OF_HEAD)
        if head < 0:
            self._received = received
            return
        at = received.index(_LENGTH) + len(_LENGTH)
        length = int(received[at : received.index(b"\r", at)])
        if len(received) < head + 4 + length:
            self._received = received
            return
        self._received = b""
        self._answered(received, head)
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._run.done.done():
            self._run.done.set_exception(error or ConnectionError("the server hung up"))

    def _answered(self, received: bytes, head: int) -> None:
        run = self._run
        run.latencies_ns.append(time.perf_counter_ns() - self._sent_ns)
        if not received.startswith(b"HTTP/1.1 200"):
            run.n_bad += 1
            run.first_bad = run.first_bad or received.decode(errors="replace")
        if run.kept is not None:
            run.kept[self._number] = received[head + 4 :].decode()
        run.n_answered += 1
        if run.n_answered == run.n_requests and not run.done.done():
            run.done.set_result(None)

    def _next(self) -> None:
        run = self._run
        if run.n_sent == run.n_requests:
            return
        self._number = run.n_sent
        run.n_sent += 1
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(run.requests[self._number % len(run.requests)])


async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    requests = [request_of(order["path"], body) for body in json.loads(Path(order["bodies"]).read_text())]
    run = Run(requests, order["n_requests"], order.get("keep", False))
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: Connection(run), "127.0.0.1", order["port"])
        for _ in range(order["n_connections"])
    ]
    await run.done
    wall_s = time.perf_counter() - started
    for transport, _ in opened:
        transport.abort()
    latencies = sorted(run.latencies_ns)
    return {
        "wall_s": wall_s,
        "p50_us": latencies[len(latencies) // 2] / 1_000,
        "p99_us": latencies[int(0.99 * len(latencies))] / 1_000,
        "n_bad": run.n_bad,
        "first_bad": run.first_bad,
        "kept": run.kept,
    }


def request_of(path: str, body: Any) -> bytes:
    payload = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}"
    return head.encode() + _END_OF_HEAD + payload


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(uvloop.run(carry_out(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
