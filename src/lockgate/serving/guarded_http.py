"""uvicorn's HTTP protocol with limits it lacks: how large a request's head may be and how long it may take, and how
much of a body is still taken after its request was answered.

Without them a client that never ends its headers grows a buffer without bound, and one that never ends a body that
nobody wants holds a connection for ever. Nothing of a refused request reaches the log.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class GuardedHttp(HttpToolsProtocol):
    """Answers 431 to a head above `max_head_bytes`, 414 to a URL above `max_url_bytes`; closes a connection whose head
    takes `head_timeout_s`. What routes and reads URLs remembers a thousand of them, so they have to be short.

    What comes of a body after the answer is thrown away, so that whoever is still sending gets to read the answer; for
    `rest_timeout_s` and `max_rest_bytes`, then the connection is closed.
    """

    max_head_bytes = 65_536
    max_url_bytes = 8_192
    head_timeout_s = 10.0
    max_rest_bytes = 8 << 20
    rest_timeout_s = 5.0

    _head_bytes = 0
    _rest_bytes = 0
    _rest_timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._end_rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._rest_timer is not None:
            self._rest_bytes += len(data)
            if self._rest_bytes > self.max_rest_bytes:
                self._close()
                return
        if self._in_head:
            self._head_bytes += len(data)
            # A body sent in one piece with its head is no long head: what counts is a head that does not end.
            if self._head_bytes > self.max_head_bytes and b"\r\n\r\n" not in data:
                self._refuse(b"431 Request Header Fields Too Large")
                return
        super().data_received(data)
        if self._in_head and self._head_bytes and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_too_slow)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.max_url_bytes:
            # The parser stops at this, and `send_400_response` follows.
            raise ValueError("the URL is too long")

    def send_400_response(self, msg: str) -> None:
        if self._in_head and len(self.url or b"") > self.max_url_bytes:
            self._refuse(b"414 URI Too Long")
        else:
            super().send_400_response(msg)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._end_rest()

    def on_response_complete(self) -> None:
        # A request that came behind this one, if any, is the newer cycle, and has no answer yet.
        is_unread = self.cycle.response_complete and self.cycle.more_body
        super().on_response_complete()
        if is_unread and not self.transport.is_closing():
            self._rest_bytes = 0
            self._rest_timer = self.loop.call_later(self.rest_timeout_s, self._close)

    def _refuse(self, status: bytes) -> None:
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

    def _head_too_slow(self) -> None:
        self._head_timer = None
        self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _end_rest(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
