"""Commands and queries over HTTP, by the table of messages: none is known by name here.

A command may bring its id as `Idempotency-Key` instead; sent again, it is answered with the receipt of the first time.
An answer to GET carries a strong ETag, the digest of its bytes. Where an answer depends on the journal alone, the ETag
is remembered beside the head, and whoever still has the answer is told so without making it again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler

from lockgate.adapters.http.gate import AnyRequest, Gate, arriving
from lockgate.adapters.http.lanes import Lane
from lockgate.core.digests import canonical, digest_of, sha256
from lockgate.core.errors import Invalid, NotFound, Unsupported, did_you_mean, near_matches
from lockgate.core.messages import Command, Query
from lockgate.hub.authority import Session
from lockgate.hub.kernel import Hub, LocalHub
from lockgate.hub.table import COMMAND_BY_TAG, QUERY_BY_TAG

HubFor = Callable[[Session], Hub]
M = TypeVar("M", Command, Query)
_MAX_ETAGS = 4_096
# The last is what JSON in too many folds leads to.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class ContentTypeRefused(Unsupported):
    code = "http.content-type"


class MessageMalformed(Invalid):
    """The body is no JSON, or not of the shape that its `type` promises."""

    code = "http.message-malformed"


class UnknownMessage(Invalid):
    """The `type` of the body names no command, or no query."""

    code = "http.unknown-message"


class UnknownOperation(NotFound):
    """The path names no command, or no query."""

    code = "http.unknown-operation"


class IdempotencyKeyDiffers(Invalid):
    """The header and the body name two ids for one command."""

    code = "http.idempotency-key"


class Lanes(NamedTuple):
    """Commands may wait for a data plane; questions must not queue behind them, and bytes behind neither. Logins wait
    for an identity provider, and anybody may begin one."""

    commands: Lane
    queries: Lane
    blobs: Lane
    logins: Lane


def message_routes(gate: Gate, lanes: Lanes, hub_for: HubFor, head: Callable[[], int] | None) -> list[Any]:
    """The routes of messages.

    Args:
        head: the number of entries of the journal; without it, every conditional GET makes the answer anew.
    """
    etags = ETags()

    async def carry_out(request: AnyRequest, tag: str | None) -> Response[bytes]:
        gate.check(request)
        body = await _body(request, gate)
        key = request.headers.get("idempotency-key", "")

        def execute() -> bytes:
            hub = hub_for(gate.session(request))
            whole = _completed(body, "command", tag, key)
            return canonical(hub.execute(_message(whole, COMMAND_BY_TAG, "command")))

        return _json(await lanes.commands.run(execute))

    async def look_up(request: AnyRequest, tag: str | None) -> Response[bytes]:
        gate.check(request)
        body = await _body(request, gate)

        def ask() -> bytes:
            hub = hub_for(gate.session(request))
            whole = _completed(body, "query", tag)
            return canonical(hub.ask(_message(whole, QUERY_BY_TAG, "query")))

        return _json(await lanes.queries.run(ask))

    @post("/v1/execute", status_code=200)
    async def execute_any(request: AnyRequest) -> Response[bytes]:
        return await carry_out(request, None)

    @post("/v1/commands/{tag:str}", status_code=200)
    async def execute_one(request: AnyRequest) -> Response[bytes]:
        return await carry_out(request, _tag(request, COMMAND_BY_TAG, "command"))

    @post("/v1/ask", status_code=200)
    async def ask_any(request: AnyRequest) -> Response[bytes]:
        return await look_up(request, None)

    @post("/v1/queries/{tag:str}", status_code=200)
    async def ask_one(request: AnyRequest) -> Response[bytes]:
        return await look_up(request, _tag(request, QUERY_BY_TAG, "query"))

    @get("/v1/queries/{tag:str}")
    async def read_one(request: AnyRequest) -> Response[bytes]:
        gate.check(request)
        kind = QUERY_BY_TAG[_tag(request, QUERY_BY_TAG, "query")]
        known = _etags_of(request)

        def ask() -> tuple[str, bytes | None]:
            hub = hub_for(gate.session(request))
            return etags.answer(hub, _from_parameters(request, kind), known, head)

        etag, answer = await lanes.queries.run(ask)
        return conditional(etag, answer)

    routes: list[HTTPRouteHandler] = [execute_any, execute_one, ask_any, ask_one, read_one]
    return routes


class ETags:
    """What the answers of a moment of the journal are called. Bounded; safe for threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._lock = threading.Lock()

    def answer(
        self, hub: Hub, query: Query, known: frozenset[str], head: Callable[[], int] | None
    ) -> tuple[str, bytes | None]:
        """The ETag of an answer, and the answer itself when the caller does not know it yet.

        Raises what `hub.ask` raises: whoever may not ask is not told that nothing has changed, either.
        """
        # Read before the answer is made: an answer that is newer than its head is only made once too often.
        key = None
        if head is not None and query.of_journal and isinstance(hub, LocalHub):
            # Two actors, or one with other grants by now, may see different parts of one answer.
            session = hub.session
            # By its hash: a stranger's query may be as long as a URL may be.
            key = (digest_of((session.actor, session.grants, query)), head())
        with self._lock:
            remembered = None if key is None else self._known.get(key)
        if remembered in known and isinstance(hub, LocalHub):
            hub.authorise(query)
            return remembered, None
        answer = canonical(hub.ask(query))
        etag = f'"{sha256(answer)}"'
        if key is not None:
            with self._lock:
                self._known[key] = etag
                while len(self._known) > _MAX_ETAGS:
                    self._known.popitem(last=False)
        return etag, None if etag in known else answer


def conditional(etag: str, answer: bytes | None, media_type: str = "application/json") -> Response[bytes]:
    """An answer with its ETag; 304 without one."""
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Lockgate-Actor"}
    if answer is None:
        return Response(b"", status_code=304, headers=headers, media_type=media_type)
    return Response(answer, headers=headers, media_type=media_type)


def _etags_of(request: AnyRequest) -> frozenset[str]:
    named = request.headers.get("if-none-match", "").split(",")
    # Compared weakly, as RFC 9110 wants it of GET.
    return frozenset(one.strip().removeprefix("W/") for one in named)


def _tag(request: AnyRequest, known: Mapping[str, Any], what: str) -> str:
    tag = str(request.path_params["tag"])
    if tag not in known:
        raise UnknownOperation(f"there is no {what} {tag!r}", remedy=did_you_mean(tag, known), type=tag)
    return tag


async def _body(request: AnyRequest, gate: Gate) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ContentTypeRefused(
            f"a message is application/json, not {media_type or 'nothing'}",
            remedy="send Content-Type: application/json",
        )
    limits = gate.limits
    return b"".join([chunk async for chunk in arriving(request, limits, limits.body_bytes)])


class _Tagged(msgspec.Struct):
    type: str


def _completed(body: bytes, what: str, tag: str | None, key: str = "") -> bytes:
    """The body with what path and headers say of it."""
    if tag is None and not key:
        return body
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if tag is not None:
            fields["type"] = msgspec.Raw(msgspec.json.encode(tag))
        given = msgspec.json.decode(fields["id"]) if "id" in fields else key
    except _UNREADABLE as error:
        raise _malformed(what, error) from error
    if key and given != key:
        raise IdempotencyKeyDiffers(
            f"Idempotency-Key is {key[:128]!r}, the id of the command {given!r}",
            remedy="send one of them, or the same twice",
        )
    if key:
        fields["id"] = msgspec.Raw(msgspec.json.encode(key))
    return msgspec.json.encode(fields)


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
    except _UNREADABLE as error:
        raise _malformed(what, error) from error


def _from_parameters(request: AnyRequest, kind: type[Query]) -> Query:
    """A query from the parameters of a URL; a field with several values is named several times."""
    given = request.query_params
    fields: dict[str, Any] = {"type": kind.__struct_config__.tag}
    for name in given:
        values = given.getall(name)
        fields[name] = values if len(values) > 1 or _takes_many(kind, name) else values[0]
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise MessageMalformed(f"the parameters are no query: {error}", remedy="correct the query") from error


def _takes_many(kind: type[Query], name: str) -> bool:
    types = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    return str(types.get(name, "")).startswith(("tuple", "list"))


def _malformed(what: str, error: Exception) -> MessageMalformed:
    return MessageMalformed(f"the body is no {what}: {error}", remedy=f"correct the {what}")


def _json(answer: bytes) -> Response[bytes]:
    return Response(answer, media_type="application/json")
