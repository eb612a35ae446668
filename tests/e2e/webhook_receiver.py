"""Somebody who subscribed: a real HTTP server on loopback that checks signatures by code of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from lockgate.testing.loopback import served

KEY = "whsec_" + base64.b64encode(b"a key of thirty-two bytes or so!").decode()


class Got(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def seq(self) -> int:
        return int(self.headers["webhook-id"].split("/")[1])

    def is_signed(self, key: str = KEY) -> bool:
        """By the rules of Standard Webhooks, written down here a second time."""
        secret = base64.b64decode(key.removeprefix("whsec_"))
        signed = b".".join(
            [self.headers["webhook-id"].encode(), self.headers["webhook-timestamp"].encode(), self.body]
        )
        wanted = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        return self.headers["webhook-signature"] == f"v1,{wanted}"


Answer = Callable[[Got], tuple[int, dict[str, str]]]


class Receiver(ThreadingHTTPServer):
    """Takes everything (204) unless `answer` says otherwise."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Posted)
        self.got: list[Got] = []
        self.answer: Answer = lambda got: (204, {})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def seqs(self) -> list[int]:
        return [one.seq for one in self.got]


class _Posted(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        n_bytes = int(self.headers["content-length"])
        body = self.rfile.read(n_bytes)
        if len(body) < n_bytes:
            # Whoever sent it died in the middle, and nothing was received.
            self.close_connection = True
            return
        got = Got(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        status, headers = self.server.answer(got)
        self.server.got.append(got)
        self.send_response(status)
        for name, value in {"content-length": "0", "connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    with served(Receiver()) as server:
        yield server
