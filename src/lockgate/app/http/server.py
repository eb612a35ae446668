"""The hub's HTTP server: two generic routes over the table of messages.

    POST /v1/execute   a command, tagged by its `type`     -> its Receipt
    POST /v1/ask       a query, tagged by its `type`       -> its answer
    GET  /v1/health    whether the process answers

A refusal by a gate or a policy is an answer (200, inside the receipt); everything else that goes wrong is a problem
document. Who asks is found out by `authenticate`, from the headers of the request. A hub on one machine takes
`by_claimed_name`: the name stands in `Lockgate-Actor`, percent-encoded, and is believed; therefore such a server
listens on the loopback interface only. A hub for a team proves the name, and answers 401 to whoever does not.

No request is taken that was addressed to another host name than this hub's own, which is how a web page in a browser
would come in.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import HTTPException

from lockgate.adapters.http.listener import LOOPBACK, Listener
from lockgate.app.http.problems import (
    MEDIA_TYPE,
    ActorMissing,
    BodyTooLarge,
    ContentTypeRefused,
    HostRefused,
    HubFailed,
    MessageMalformed,
    MethodRefused,
    RequestRefused,
    UnknownMessage,
    UnknownRoute,
    headers_of,
    problem,
)
from lockgate.core.digests import canonical
from lockgate.core.errors import LockgateError, did_you_mean, near_matches
from lockgate.core.messages import Command, Query, Receipt
from lockgate.hub.authority import Session, embedded
from lockgate.hub.kernel import Hub
from lockgate.hub.table import COMMAND_BY_TAG, QUERY_BY_TAG
from lockgate.serving.guarded_http import GuardedHttp

ACTOR_HEADER = "Lockgate-Actor"
PROTOCOL = "lockgate.hub/1"
MAX_BODY_BYTES = 1_048_576
# Commands may wait for a data plane for up to a minute; questions must not queue behind them.
_N_COMMAND_THREADS = 16
_N_QUERY_THREADS = 16
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_ACTOR = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,126}[^\s\x00-\x1f\x7f])?\Z")
_log = logging.getLogger("lockgate.hub")

HubFor = Callable[[Session], Hub]
Authenticate = Callable[[Mapping[str, str]], Session]
AnyRequest = Request[Any, Any, Any]
M = TypeVar("M", Command, Query)


def create_app(hub_for: HubFor, authenticate: Authenticate, *, hosts: Collection[str] = ()) -> Litestar:
    """The application.

    Args:
        hub_for: the hub of a session; called for each request, in a worker thread.
        authenticate: who sends a request, from its headers (names in lower case). Called in a worker thread as well;
            raises `Unauthenticated` when nobody is proven.
        hosts: further names under which this hub is reached; those of the loopback interface are always among them.
    """
    commands = anyio.CapacityLimiter(_N_COMMAND_THREADS)
    queries = anyio.CapacityLimiter(_N_QUERY_THREADS)
    known_hosts = _LOCAL_NAMES | {host.lower() for host in hosts}

    @post("/v1/execute", status_code=200)
    async def execute(request: AnyRequest) -> Response[bytes]:
        _check_host(request, known_hosts)
        body = await _body(request)

        def carry_out() -> Receipt:
            hub = hub_for(authenticate(_headers(request)))
            return hub.execute(_message(body, COMMAND_BY_TAG, "command"))

        return _answer(await anyio.to_thread.run_sync(carry_out, limiter=commands))

    @post("/v1/ask", status_code=200)
    async def ask(request: AnyRequest) -> Response[bytes]:
        _check_host(request, known_hosts)
        body = await _body(request)

        def look_up() -> Any:
            hub = hub_for(authenticate(_headers(request)))
            return hub.ask(_message(body, QUERY_BY_TAG, "query"))

        return _answer(await anyio.to_thread.run_sync(look_up, limiter=queries))

    @get("/v1/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "protocol": PROTOCOL}

    return Litestar(
        [execute, ask, health],
        request_max_body_size=MAX_BODY_BYTES,
        exception_handlers={Exception: _failed},
        openapi_config=None,
        logging_config=None,
    )


def by_claimed_name(headers: Mapping[str, str]) -> Session:
    """Believe the name in `Lockgate-Actor`. Only for a hub that nobody but this machine can reach."""
    actor = unquote(headers.get(ACTOR_HEADER.lower(), ""))
    if _ACTOR.match(actor) is None:
        raise ActorMissing(
            f"the header {ACTOR_HEADER} names nobody",
            remedy=f"send {ACTOR_HEADER}: NAME, percent-encoded, at most 128 characters",
        )
    return embedded(actor)


def _headers(request: AnyRequest) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _check_host(request: AnyRequest, known: Collection[str]) -> None:
    host = request.headers.get("host", "")
    if urlsplit(f"//{host}").hostname not in known:
        raise HostRefused(
            f"this hub does not answer for the host {host!r}", remedy=f"address it as {LOOPBACK}", host=host
        )


async def _body(request: AnyRequest) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ContentTypeRefused(
            f"a message is application/json, not {media_type or 'nothing'}",
            remedy="send Content-Type: application/json",
        )
    return await request.body()


class _Tagged(msgspec.Struct):
    type: str


def _message(body: bytes, known: Mapping[str, type[M]], what: str) -> M:
    """The message in a body, of one of the `known` types by tag."""
    try:
        tag = msgspec.json.decode(body, type=_Tagged).type
        if tag not in known:
            near = near_matches(tag, known)
            raise UnknownMessage(
                f"there is no {what} {tag!r}", remedy=did_you_mean(tag, known), type=tag, near=near
            )
        return msgspec.json.decode(body, type=known[tag])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MessageMalformed(f"the body is no {what}: {error}", remedy=f"correct the {what}") from error


def _answer(value: Any) -> Response[bytes]:
    return Response(canonical(value), media_type="application/json")


def _failed(request: AnyRequest, error: Exception) -> Response[bytes]:
    translated = _translated(request, error)
    status, body = problem(translated)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers_of(translated))


def _translated(request: AnyRequest, error: Exception) -> LockgateError:
    """Litestar's own refusals in the words of the house; anything unforeseen without its inside."""
    if isinstance(error, LockgateError):
        return error
    path = request.url.path
    if not isinstance(error, HTTPException) or error.status_code >= 500:
        _log.error("%s %s failed", request.method, path, exc_info=error)
        return HubFailed("the hub failed at this request", remedy="look into the hub's log", path=path)
    if error.status_code == 404:
        routes = ("/v1/execute", "/v1/ask", "/v1/health")
        return UnknownRoute(f"there is no route {path}", remedy=did_you_mean(path, routes), path=path)
    if error.status_code == 405:
        return MethodRefused(
            f"{path} does not take {request.method}", remedy="use POST for messages", path=path
        )
    if error.status_code == 413:
        return BodyTooLarge(
            f"a message has at most {MAX_BODY_BYTES} bytes",
            remedy="put large things into the blob store and name their digest",
            limit_bytes=MAX_BODY_BYTES,
        )
    return RequestRefused(
        f"the request cannot be read: {error.detail}", remedy="correct the request", path=path
    )


class HubServer(Listener):
    """Listens as the data plane does: a head that is too long or too slow ends the connection."""

    protocol = GuardedHttp


def serve(app: Litestar, port: int, *, host: str = LOOPBACK) -> None:
    """Serve until SIGTERM or SIGINT. Prints `{"ready": true, "port": N, "pid": N}` on one line when it listens.

    Raises as `HubServer` does.
    """
    HubServer(app, port, host=host, ready=_announce).run()


def _announce(port: int) -> None:
    sys.stdout.write(json.dumps({"ready": True, "port": port, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
