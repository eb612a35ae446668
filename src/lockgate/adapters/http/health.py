"""Whether a hub is well, what it has counted, and what it speaks: health, metrics, the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from litestar import Response, get

from lockgate.adapters.http.changes import Watch
from lockgate.adapters.http.gate import AnyRequest, Gate
from lockgate.adapters.http.messages import HubFor, Lanes, conditional
from lockgate.core.digests import canonical, sha256
from lockgate.core.errors import LockgateError
from lockgate.hub.messages import ChangesAnswer, ChangesSince

PROTOCOL = "lockgate.hub/1"


def health_routes(
    gate: Gate,
    lanes: Lanes,
    hub_for: HubFor,
    watch: Watch | None,
    *,
    described: bytes,
    ever: Callable[[], Mapping[str, int]],
) -> list[Any]:
    """Routes beside the messages.

    Args:
        watch: looks at the store; without one, health says that the process answers and no more.
        described: the OpenAPI document.
        ever: what was counted and kept, by this hub and by others on the same store.
    """
    etag = f'"{sha256(described)}"'

    @get("/v1/health")
    async def health() -> Response[bytes]:
        record = {"status": "ok", "protocol": PROTOCOL}
        status = 200
        if watch is not None:
            try:
                await watch.seq()
            except LockgateError as error:
                # The code says which part; the rest is for those who may read the log.
                record, status = {**record, "status": "unavailable", "store": error.code}, 503
        return Response(canonical(record), status_code=status, media_type="application/json")

    @get("/v1/metrics")
    async def metrics(request: AnyRequest) -> Response[bytes]:
        gate.check(request)

        def ask() -> tuple[int, Mapping[str, int]]:
            answer: ChangesAnswer = hub_for(gate.session(request)).ask(ChangesSince(limit=0))
            return answer.head, ever()

        head, kept = await lanes.queries.run(ask)
        lines = _exposition(
            counted=gate.tally.counts(),
            ever=kept,
            inside={lane.name: lane.n_inside for lane in lanes},
            head=head,
        )
        text = "\n".join(lines) + "\n"
        return Response(text.encode(), media_type="text/plain; version=0.0.4")

    @get("/v1/openapi.json")
    async def openapi(request: AnyRequest) -> Response[bytes]:
        gate.check(request)
        known = etag in request.headers.get("if-none-match", "")
        return conditional(etag, None if known else described)

    return [health, metrics, openapi]


def _exposition(
    *, counted: Mapping[str, int], ever: Mapping[str, int], inside: Mapping[str, int], head: int
) -> Iterator[str]:
    yield "# HELP lockgate_hub_counted_total What this process has counted since it began."
    yield "# TYPE lockgate_hub_counted_total counter"
    yield from (f'lockgate_hub_counted_total{{what="{name}"}} {n}' for name, n in sorted(counted.items()))
    yield "# HELP lockgate_hub_counted_ever What all hubs of this store have counted and kept."
    yield "# TYPE lockgate_hub_counted_ever counter"
    yield from (f'lockgate_hub_counted_ever{{what="{name}"}} {n}' for name, n in sorted(ever.items()))
    yield "# HELP lockgate_hub_inside Requests that are carried out or wait for it."
    yield "# TYPE lockgate_hub_inside gauge"
    yield from (f'lockgate_hub_inside{{lane="{name}"}} {n}' for name, n in inside.items())
    yield "# HELP lockgate_hub_journal_entries Entries of the journal."
    yield "# TYPE lockgate_hub_journal_entries gauge"
    yield f"lockgate_hub_journal_entries {head}"
