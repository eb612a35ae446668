"""Changes as server-sent events: a view of the query `hub.changes-since` that goes on.

    id: 4711
    event: registry.version-registered/2
    data: {"seq":4711,"at":...,"actor":"ann","type":"registry.version-registered/2","summary":"..."}

`Last-Event-ID`, which a browser sends by itself, or `?after=` says where to go on; without either it begins with what
happens next. Whoever listens is authenticated again for every batch: a token that was withdrawn ends the stream.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from typing import Any

from litestar import get
from litestar.response import Stream

from lockgate.adapters.http.connections import Shares
from lockgate.adapters.http.gate import AnyRequest, Gate, TooManyRequests
from lockgate.adapters.http.lanes import HubBusy, Lane
from lockgate.adapters.http.messages import HubFor
from lockgate.core.digests import canonical
from lockgate.core.errors import Invalid, LockgateError, Unavailable
from lockgate.hub.messages import ChangesAnswer, ChangesSince

_LOOK_S = 0.2
_HEARTBEAT_S = 15.0
_BATCH = 200
_RETRY_MS = 2_000


class BadEventId(Invalid):
    code = "http.bad-event-id"


class Watch:
    """The head of the journal, looked at so often and no more, however many ask."""

    def __init__(self, head: Callable[[], int], lane: Lane) -> None:
        self._head = head
        self._lane = lane
        self._seq = 0
        self._at = float("-inf")
        self._lock = threading.Lock()
        self.closing = threading.Event()

    async def seq(self) -> int:
        """The number of entries, at most a moment old. Raises what the store raises."""
        with self._lock:
            fresh = time.monotonic() < self._at + _LOOK_S
            if not fresh:
                # Others take the last one while this one looks.
                self._at = time.monotonic()
        if not fresh or not self._seq:
            self._seq = await self._lane.run(self._head)
        return self._seq


def change_routes(gate: Gate, lane: Lane, hub_for: HubFor, watch: Watch) -> list[Any]:
    """The stream of changes. `watch.closing` ends all of them."""
    listeners = Listeners(gate, lane, hub_for, watch)

    @get("/v1/changes")
    async def changes(request: AnyRequest) -> Stream:
        gate.check(request)
        return await listeners.stream(request, _position(request))

    return [changes]


class Listeners:
    """Everybody who has a stream open."""

    def __init__(self, gate: Gate, lane: Lane, hub_for: HubFor, watch: Watch) -> None:
        self._gate = gate
        self._lane = lane
        self._hub_for = hub_for
        self._watch = watch
        limits = gate.limits
        each = {"actor": limits.actor_watchers, "address": limits.address_watchers}
        self._shares = Shares(limits.n_watchers, each)

    async def stream(self, request: AnyRequest, after: int | None) -> Stream:
        """Refused before it begins, when the caller may not listen, or listens too often already."""
        actor, answer = await self._lane.run(partial(self._first, request, after or 0))
        holders = (("actor", actor), ("address", self._gate.address(request)))
        self._require_place(holders)
        return Stream(
            self._counted(request, answer.head if after is None else after, holders),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def _first(self, request: AnyRequest, after: int) -> tuple[str, ChangesAnswer]:
        session = self._gate.session(request)
        answer: ChangesAnswer = self._hub_for(session).ask(ChangesSince(seq=after, limit=_BATCH))
        return session.actor, answer

    def _batch(self, request: AnyRequest, after: int) -> ChangesAnswer:
        return self._first(request, after)[1]

    def _require_place(self, holders: Collection[tuple[str, str]]) -> None:
        lacking = self._shares.lacking(holders)
        if lacking == "all" or self._watch.closing.is_set():
            n_held = self._shares.n_held
            raise HubBusy(f"{n_held} streams of changes are open", remedy="try again later", limit=n_held)
        if lacking is not None:
            raise TooManyRequests(
                f"too many streams of changes of this {lacking}",
                remedy=f"close one, or ask the operator for higher [limits] {lacking}_watchers",
                retry_after_s=_HEARTBEAT_S,
            )

    async def _counted(
        self, request: AnyRequest, after: int, holders: Collection[tuple[str, str]]
    ) -> AsyncIterator[bytes]:
        try:
            # Others may have begun since this one was let in.
            self._require_place(holders)
        except LockgateError as error:
            yield _ended_by(error)
            return
        self._shares.take(holders)
        try:
            async for chunk in self._events(request, after):
                yield chunk
        finally:
            self._shares.give_back(holders)

    async def _events(self, request: AnyRequest, after: int) -> AsyncIterator[bytes]:
        yield f"retry: {_RETRY_MS}\n\n".encode()
        told_at = time.monotonic()
        while not self._watch.closing.is_set():
            try:
                news = await self._watch.seq() > after
                if not news and time.monotonic() < told_at + _HEARTBEAT_S:
                    await asyncio.sleep(_LOOK_S)
                    continue
                answer = await self._lane.run(partial(self._batch, request, after))
            except Unavailable:
                await asyncio.sleep(_LOOK_S)
                continue
            except LockgateError as error:
                # The stream has begun: what ends it can only be told inside.
                yield _ended_by(error)
                return
            told_at = time.monotonic()
            for line in answer.changes:
                yield f"id: {line.seq}\nevent: {line.type}\ndata: ".encode() + canonical(line) + b"\n\n"
            if not answer.changes:
                yield b": still here\n\n"
            # Others may have happened that this one is not shown.
            after = max(after, answer.read_to)


def _ended_by(error: LockgateError) -> bytes:
    return b"event: error\ndata: " + canonical(error.record()) + b"\n\n"


def _position(request: AnyRequest) -> int | None:
    text = request.headers.get("last-event-id") or request.query_params.get("after") or ""
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise BadEventId(
            f"{text[:40]!r} is no number of an event", remedy="send the id of the last event you have seen"
        )
    return int(text)
