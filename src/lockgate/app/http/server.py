"""The hub's HTTP server, put together: the parts of `adapters/http` around a hub for each session.

    POST /v1/execute             a command, tagged by its `type`     -> its Receipt
    POST /v1/ask                 a query, tagged by its `type`       -> its answer
    POST /v1/commands/TAG        the same, one path each
    GET  /v1/queries/TAG?...     the same with an ETag; POST for what does not fit into a URL
    *    /v1/blobs/DIGEST        bytes, up and down
    GET  /v1/changes             what happens, as server-sent events
    GET  /v1/health, /v1/metrics, /v1/openapi.json

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
from typing import Any, NamedTuple
from urllib.parse import unquote

from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from lockgate.adapters.http.blobs import Uploads, blob_routes
from lockgate.adapters.http.changes import Watch, change_routes
from lockgate.adapters.http.connections import Counted, Door
from lockgate.adapters.http.gate import UNMETERED, Authenticate, Gate, Limits
from lockgate.adapters.http.health import health_routes
from lockgate.adapters.http.lanes import Lane
from lockgate.adapters.http.listener import LOOPBACK, Listener
from lockgate.adapters.http.messages import HubFor, Lanes, message_routes
from lockgate.adapters.http.openapi import document
from lockgate.adapters.http.problems import (
    MEDIA_TYPE,
    STATUS,
    ActorMissing,
    HubFailed,
    MethodRefused,
    RequestRefused,
    UnknownRoute,
    headers_of,
    problem,
)
from lockgate.core.blobs import SweptBlobs
from lockgate.core.errors import LockgateError, did_you_mean
from lockgate.hub.authority import Session, embedded
from lockgate.hub.homes import BlobSight
from lockgate.serving.guarded_http import GuardedHttp

ACTOR_HEADER = "Lockgate-Actor"
_ACTOR = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,126}[^\s\x00-\x1f\x7f])?\Z")
_N_LOGINS = 4
_log = logging.getLogger("lockgate.hub")
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer"},
    "claimed": {
        "type": "apiKey",
        "in": "header",
        "name": ACTOR_HEADER,
        "description": "Believed on the loopback interface only, by a hub that proves nobody.",
    },
}

AnyRequest = Request[Any, Any, Any]


class Behind(NamedTuple):
    """What stands behind the HTTP server beside the hub itself; each part can be done without.

    Attributes:
        head: the number of entries of the journal, for health, streams of changes and cheap 304s.
        blobs: what is brought and fetched, by way of `uploads`, as far as `sight` says.
        ever: counts that were kept.
        more: further routes, behind the same gate.
    """

    head: Callable[[], int] | None = None
    blobs: SweptBlobs | None = None
    uploads: Uploads | None = None
    sight: BlobSight | None = None
    ever: Callable[[], Mapping[str, int]] = dict
    more: Callable[[Gate, Lanes], list[Any]] = lambda gate, lanes: []


def create_app(
    hub_for: HubFor,
    authenticate: Authenticate,
    *,
    hosts: Collection[str] = (),
    proxies: Collection[str] = (),
    limits: Limits = UNMETERED,
    behind: Behind | None = None,
) -> Litestar:
    """The application. Its state has the `tally` of what was counted, the `door` that connections come in by, and
    `closing`, an event that ends streams.

    Args:
        hub_for: the hub of a session; called for each request, in a worker thread.
        authenticate: who sends a request, from its headers (names in lower case). Called in a worker thread as well;
            raises `Unauthenticated` when nobody is proven.
        hosts: further names under which this hub is reached; those of the loopback interface are always among them.
        proxies: addresses that may say on whose behalf they ask (`X-Forwarded-For`).
    """
    behind = behind or Behind()
    gate = Gate(authenticate, limits, hosts, proxies)
    lanes = Lanes(
        Lane("commands", limits.n_commands, limits.n_waiting, limits.request_s),
        Lane("queries", limits.n_queries, limits.n_waiting, limits.request_s),
        Lane("blobs", limits.n_blobs, limits.n_waiting, limits.request_s),
        Lane("logins", _N_LOGINS, limits.n_waiting, limits.request_s),
    )
    routes = message_routes(gate, lanes, hub_for, behind.head)
    state = State({"tally": gate.tally, "door": Door(limits, proxies, gate.tally)})
    watch = None
    if behind.head is not None:
        watch = Watch(behind.head, lanes.queries)
        state["closing"] = watch.closing
        routes += change_routes(gate, lanes.queries, hub_for, watch)
    if behind.blobs is not None and behind.uploads is not None and behind.sight is not None:
        routes += blob_routes(gate, lanes.blobs, behind.blobs, behind.uploads, behind.sight)
    statuses = {status: kind.__name__ for kind, status in STATUS.items()}
    more = behind.more(gate, lanes)
    scheme = "claimed" if authenticate is by_claimed_name else "token"
    described = document(statuses, {scheme: _SCHEMES[scheme]}, {path for one in more for path in one.paths})
    routes += more
    routes += health_routes(gate, lanes, hub_for, watch, described=described, ever=behind.ever)
    return Litestar(
        routes,
        state=state,
        # The parts count for themselves what comes in: a blob is larger than a message.
        request_max_body_size=None,
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
        routes = [route.path for route in request.app.routes]
        return UnknownRoute(f"there is no route {path}", remedy=did_you_mean(path, routes), path=path)
    if error.status_code == 405:
        return MethodRefused(
            f"{path} does not take {request.method}", remedy="use POST for messages", path=path
        )
    return RequestRefused(
        f"the request cannot be read: {error.detail}", remedy="correct the request", path=path
    )


class HubHttp(Counted, GuardedHttp):
    """HTTP as the data plane reads it, where a head that is too long or too slow ends the connection; behind a door."""

    # Blobs go over slow lines as well.
    fetch_timeout_s = 300.0


class HubServer(Listener):
    protocol = HubHttp

    def stop(self) -> None:
        closing = self.config.app.state.get("closing") if isinstance(self.config.app, Litestar) else None
        if closing is not None:
            closing.set()
        super().stop()


def serve(app: Litestar, port: int, *, host: str = LOOPBACK) -> None:
    """Serve until SIGTERM or SIGINT. Prints `{"ready": true, "port": N, "pid": N}` on one line when it listens.

    Raises as `HubServer` does.
    """
    HubServer(app, port, host=host, ready=lambda port: announce(port=port)).run()


def announce(**facts: object) -> None:
    """Say on standard output, in one line, that requests are answered."""
    sys.stdout.write(json.dumps({"ready": True, **facts, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
