"""A ticket desk: a real HTTP server on loopback that answers what a tracker is asked, and checks who asks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from lockgate.testing.loopback import served

KEY = "whsec_" + base64.b64encode(b"a key of thirty-two bytes or so!").decode()
OPEN = {"known": True, "open": True, "title": "Raise the roof", "url": "https://tickets.example.com/OPS-1"}

Reply: TypeAlias = Callable[[dict[str, Any]], tuple[int, bytes]]


def saying(answer: Any) -> Reply:
    """Always the same answer."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return lambda question: (200, body)


class TicketDesk(ThreadingHTTPServer):
    """Every ticket is open, unless `reply` says otherwise.

    Attributes:
        asked: every question whose signature held; `strangers` counts those whose did not, which get 401.
        location: sent with each answer when it is there.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.asked: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.strangers = 0
        self.location = ""
        self.reply: Reply = saying(OPEN)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/ticket"


class _Asked(BaseHTTPRequestHandler):
    server: TicketDesk
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status, answer = 401, b""
        if self._is_signed(body):
            question = json.loads(body)
            self.server.asked.append(question)
            self.server.ids.append(self.headers["webhook-id"])
            status, answer = self.server.reply(question)
        else:
            self.server.strangers += 1
        self.send_response(status)
        if self.server.location:
            self.send_header("location", self.server.location)
        self.send_header("content-length", str(len(answer)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(answer)

    def _is_signed(self, body: bytes) -> bool:
        """By the rules of Standard Webhooks, written down here by themselves."""
        secret = base64.b64decode(KEY.removeprefix("whsec_"))
        named = (self.headers["webhook-id"], self.headers["webhook-timestamp"])
        signed = b".".join([*(one.encode() for one in named), body])
        wanted = "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        return hmac.compare_digest(self.headers["webhook-signature"], wanted)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def ticket_desk() -> Iterator[TicketDesk]:
    with served(TicketDesk()) as desk:
        yield desk
