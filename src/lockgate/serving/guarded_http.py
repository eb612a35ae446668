"""uvicorn's HTTP protocol with limits it lacks: how large a request's head may be and how long it may take, how much of
a body is still taken after its request was answered, and how long an answer may lie there unfetched.

Without them a client that never ends its headers grows a buffer without bound, and one that never ends a body that
nobody wants, or never reads, holds a connection for ever. Nothing of a refused request reaches the log.

A connection has one deadline and at most one timer, which looks at the deadline when it rings: a request that comes in
one piece moves the deadline and touches no timer.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EARLY_S = 0.001
"""How much too early a timer may ring."""


class GuardedHttp(HttpToolsProtocol):
    """Answers 431 to a head above `max_head_bytes`, 414 to a URL above `max_url_bytes`; closes a connection whose head
    takes `head_timeout_s`. What routes and reads URLs remembers a thousand of them, so they have to be short.

    What comes of a body after the answer is thrown away, so that whoever is still sending gets to read the answer; for
    `rest_timeout_s` and `max_rest_bytes`, then the connection is closed. A caller that fetches nothing of an answer for
    `fetch_timeout_s` is given up.
    """

    max_head_bytes = 65_536
    max_url_bytes = 8_192
    head_timeout_s = 10.0
    max_rest_bytes = 8 << 20
    rest_timeout_s = 5.0
    fetch_timeout_s = 30.0

    _in_head = True
    _waits_for_head = True
    _n_bytes = 0
    """Received since a head, a piece of a body or a request came to its end, but for what came along with that end."""
    _takes_rest = False
    _rest_bytes = 0
    _deadline = _rings_at = math.inf
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await(self.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = -math.inf
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._takes_rest:
            self._rest_bytes += len(data)
            if self._rest_bytes > self.max_rest_bytes:
                self._close()
                return
        self._n_bytes += len(data)
        super().data_received(data)
        if self._n_bytes:
            self._want_more()

    def on_headers_complete(self) -> None:
        if len(self.url) > self.max_url_bytes:
            # The parser stops at this, and `send_400_response` follows.
            raise ValueError("the URL is too long")
        self._in_head = self._waits_for_head = False
        self._n_bytes = 0
        if not self.flow.write_paused:
            self._deadline = math.inf
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._n_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._n_bytes = 0
        if self._takes_rest:
            self._takes_rest = False
            self._await(self.timeout_keep_alive)

    def send_400_response(self, msg: str) -> None:
        if self._in_head and len(self.url or b"") > self.max_url_bytes:
            self._refuse(b"414 URI Too Long")
        else:
            super().send_400_response(msg)
            self._await(self.fetch_timeout_s)

    def on_response_complete(self) -> None:
        """What uvicorn's does, with the deadline in the place of a timer for each pause."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._await(self.fetch_timeout_s)
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.cycle.more_body:
            self._takes_rest = True
            self._rest_bytes = 0
            self._await(self.rest_timeout_s)
        elif not self._waits_for_head:
            self._await(self.timeout_keep_alive)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await(self.fetch_timeout_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_answered():
            self._await(self.timeout_keep_alive)
        elif not self.transport.is_closing():
            self._deadline = math.inf

    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _want_more(self) -> None:
        """A piece has come that did not end anything: a long head, or what is behind a body and in no hurry."""
        if self.transport.is_closing():
            return
        if self._n_bytes > self.max_head_bytes:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._in_head and not self._waits_for_head:
            self._waits_for_head = True
            self._await(self.head_timeout_s)

    def _refuse(self, status: bytes) -> None:
        if self._is_answered():
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
        self._close()

    def _close(self) -> None:
        """End, once what was written is fetched."""
        if not self.transport.is_closing():
            self.transport.close()
            self._await(self.fetch_timeout_s)

    def _await(self, seconds: float) -> None:
        """What is waited for has to be there in so many seconds."""
        self._deadline = self.loop.time() + seconds
        if self._deadline < self._rings_at:
            self._wind()

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._deadline
        self._timer = self.loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        if self.loop.time() + _EARLY_S >= self._deadline:
            unfetched = self.flow.write_paused and not self._is_answered()
            if unfetched or self.transport.is_closing():
                self.transport.abort()
            else:
                self._close()
        elif self._deadline < math.inf:
            self._wind()
