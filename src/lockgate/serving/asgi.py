"""The plane as a raw ASGI application: no framework between the server and `Plane.handle`.

POST /ENV/NAME, /ENV/NAMESPACE/NAME     a prediction
POST the same path with `:feedback`     what turned out to be true
GET  /healthz                           200 while the process answers at all
GET  /readyz                            200 when every endpoint has a plan loaded, else 503 and which have none
GET  /endpoints                         what is served, as JSON
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lockgate.core.digests import canonical
from lockgate.core.errors import LockgateError
from lockgate.serving import errors
from lockgate.serving.plane import FEEDBACK, JSON_TYPE, Answer, Plane, body_too_large

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_CLOSE = (b"connection", b"close")
_DRAIN = 16
"""A body up to so many times the limit is read to its end before it is refused, so that the caller, still
sending, gets to read the answer; above that the connection is cut."""

_LOG = logging.getLogger("lockgate.serving")


class PlaneApp:
    """An ASGI application over a plane.

    Args:
        body_timeout_s: how long a body may take to arrive.
    """

    def __init__(self, plane: Plane, *, body_timeout_s: float = 10.0) -> None:
        self._plane = plane
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        try:
            answer = await self._answer(scope, receive)
        except _Gone:
            return
        except LockgateError as error:
            answer = self._plane.refuse(error)
            if type(error) in (errors.BodyTooLarge, errors.BodyTooSlow):
                answer = answer._replace(headers=(*answer.headers, _CLOSE))
        except Exception as error:  # noqa: BLE001
            # The last line of defence: an exception's text may hold a request, so it must not reach the log.
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else "?"
            _LOG.error("a request failed in the data plane: %s at %s", type(error).__name__, line)
            answer = self._plane.refuse(
                errors.PlaneFailed("the data plane failed at this request", remedy="report the time")
            )
        length = (b"content-length", str(len(answer.body)).encode())
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, length]}
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> Answer:
        path: str = scope["path"]
        method: str = scope["method"]
        if method == "POST" and path not in _PAGES:
            content_type = None
            for name, value in scope["headers"]:
                if name == b"content-type":
                    content_type = value.decode("latin-1")
                    # Behind it may stand what came after the body, which is no header of the request.
                    break
            body = await self._body(receive)
            if path.endswith(FEEDBACK):
                # It writes a file, and a disk that hangs must not stop the requests.
                endpoint = path[1 : -len(FEEDBACK)]
                return await asyncio.to_thread(self._plane.feedback, endpoint, content_type, body)
            return self._plane.handle(path[1:], content_type, body)
        if path in _PAGES and method in ("GET", "HEAD"):
            return self._page(path)
        if path in _PAGES or path.count("/") in (2, 3):
            answer = self._plane.refuse(_method_refused(method, path))
            allow = b"GET, HEAD" if path in _PAGES else b"POST"
            return answer._replace(headers=(*answer.headers, (b"allow", allow)))
        raise errors.UnknownPath("nothing is served under that path", remedy="POST to /ENV/NAME")

    def _page(self, path: str) -> Answer:
        if path == "/healthz":
            return Answer(200, (JSON_TYPE,), b'{"status":"ok"}')
        if path == "/readyz":
            waiting = self._plane.not_ready()
            body = canonical({"ready": not waiting, "not_ready": waiting})
            return Answer(503 if waiting else 200, (JSON_TYPE,), body)
        return Answer(200, (JSON_TYPE,), canonical({"endpoints": self._plane.status()}))

    async def _body(self, receive: Receive) -> bytes:
        message = await receive()
        if not message.get("more_body", False):
            if message["type"] == "http.disconnect":
                raise _Gone
            whole: bytes = message["body"]
            return whole
        try:
            async with asyncio.timeout(self._body_timeout_s):
                return await self._rest(message["body"], receive)
        except TimeoutError:
            raise errors.BodyTooSlow(
                f"the body took longer than {self._body_timeout_s:g} s", remedy="send it faster"
            ) from None

    async def _rest(self, first: bytes, receive: Receive) -> bytes:
        limits = self._plane.limits
        parts, n_bytes, more = [first], len(first), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            n_bytes += len(message["body"])
            more = message.get("more_body", False)
            if n_bytes > limits.body_bytes:
                parts.clear()
            else:
                parts.append(message["body"])
            if n_bytes > _DRAIN * limits.body_bytes:
                break
        if n_bytes > limits.body_bytes:
            raise body_too_large(limits)
        return b"".join(parts)


_PAGES = frozenset({"/healthz", "/readyz", "/endpoints"})


class _Gone(Exception):
    """The caller hung up before the body was complete; there is nobody to answer."""


def _method_refused(method: str, path: str) -> errors.MethodRefused:
    wanted = "GET" if path in _PAGES else "POST"
    return errors.MethodRefused(f"{method} is not served under that path", remedy=f"use {wanted}")
