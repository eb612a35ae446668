"""`Plane`: from the bytes of a request to the bytes of an answer. Transport-free and synchronous.

A request is `{"inputs": [{"distance": 1400, ...}, ...], "key": "optional routing key"}`; the answer names the
version and the package that made it, and all of its rows come from that one. Without a key the request's own
id decides, so traffic without keys is split per request.

A caller's mistake is never a 5xx, because error rates are what a release is judged by: every refusal has one
status and one class, written down in `REFUSALS` below. Refusals are RFC 9457 problem documents. What is 5xx
is the version's fault (`model_error`) or says that nothing is loaded; a declared fallback answers in that
case.

Nothing of a request is logged or kept: counts, latencies, no values.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from lockgate.core.digests import Digest
from lockgate.core.errors import LockgateError, did_you_mean
from lockgate.registry.contract import InputRejected
from lockgate.serving import errors
from lockgate.serving.endpoint import Endpoint, Runtime, Serving
from lockgate.traffic.counts import Counts
from lockgate.traffic.errors import ErrorClass


class Refused(NamedTuple):
    """How one error reaches the caller."""

    status: int
    error_class: ErrorClass
    title: str


REFUSALS: dict[type[LockgateError], Refused] = {
    errors.UnknownPath: Refused(404, "client_error", "Unknown path"),
    errors.UnknownEndpoint: Refused(404, "client_error", "Unknown endpoint"),
    errors.MethodRefused: Refused(405, "client_error", "Method not allowed"),
    errors.ContentTypeRefused: Refused(415, "client_error", "Unsupported content type"),
    errors.BodyTooLarge: Refused(413, "client_error", "Body too large"),
    errors.BatchTooLarge: Refused(413, "client_error", "Too many rows"),
    errors.BodyMalformed: Refused(400, "client_error", "Malformed body"),
    errors.BodyTooSlow: Refused(408, "client_error", "Body too slow"),
    errors.RequestInvalid: Refused(422, "client_error", "Invalid request"),
    InputRejected: Refused(422, "contract_error", "Input rejected"),
    errors.NothingLoaded: Refused(503, "upstream_degraded", "Nothing loaded"),
    errors.ModelFailed: Refused(500, "model_error", "Model failed"),
    errors.PlaneFailed: Refused(500, "upstream_degraded", "Data plane failed"),
}

JSON_TYPE = (b"content-type", b"application/json")
PROBLEM_TYPE = (b"content-type", b"application/problem+json")
_ROUNDING = 1e-6
"""How far a float32 model may miss a bound of its output by rounding."""


class Answer(NamedTuple):
    """A status, headers (names in lower case) and a whole body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may ask for."""

    body_bytes: int = 1 << 20
    n_rows: int = 1_000


class Request(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[dict[str, Any]]
    key: str | None = None


class Prediction(msgspec.Struct, omit_defaults=True):
    """The body of a 200. `version` and `digest` are null exactly when `fallback` is true."""

    predictions: list[float]
    version: str | None
    digest: Digest | None
    endpoint: str
    request_id: str
    fallback: bool = False


class Plane:
    """The endpoints of one process and the way through them. One thread answers; others may add endpoints.

    Args:
        ids: fresh request ids; by default a count.
    """

    def __init__(self, *, ids: Callable[[], str] | None = None, limits: Limits | None = None) -> None:
        count = itertools.count(1)
        self.limits = limits or Limits()
        self._ids = ids or (lambda: f"r{next(count)}")
        self._by_path: dict[str, Endpoint] = {}
        self.endpoints: tuple[Endpoint, ...] = ()
        self._decode = msgspec.json.Decoder(Request).decode
        self._encode = msgspec.json.Encoder().encode

    def add(self, endpoint: Endpoint) -> None:
        """Answer for one more endpoint, by its full and its short name."""
        # Replaced, not changed: the thread that answers may be looking.
        self._by_path = {**self._by_path, endpoint.name: endpoint, endpoint.shown: endpoint}
        self.endpoints = (*self.endpoints, endpoint)

    def handle(self, endpoint: str, content_type: str | None, body: bytes) -> Answer:
        """Answer a prediction request. Never raises.

        Args:
            endpoint: `ENV/NAME` or `ENV/NAMESPACE/NAME`.
            content_type: the header's value; must be JSON.
        """
        started_ns = time.perf_counter_ns()
        request_id = self._ids()
        found = self._by_path.get(endpoint)
        if found is None:
            return self.refuse(self._unknown(endpoint), request_id)
        if found.stale():
            found.refresh()
        serving = found.serving
        recorder = found.recorder
        try:
            request = self._read(content_type, body)
            runtime = serving.runtime_for(request.key or request_id) if serving is not None else None
            if serving is None or runtime is None:
                return self._without_version(found, serving, request, request_id)
            recorder = runtime.recorder
            values = _predict(runtime, request.inputs)
        except LockgateError as error:
            recorder.failed(REFUSALS[type(error)].error_class)
            return self.refuse(error, request_id, found)
        answer = self._encode(Prediction(values, runtime.version, runtime.digest, found.shown, request_id))
        recorder.answered(len(values), (time.perf_counter_ns() - started_ns) // 1_000)
        return Answer(200, (JSON_TYPE, runtime.version_header), answer)

    def refuse(
        self, error: LockgateError, request_id: str | None = None, endpoint: Endpoint | None = None
    ) -> Answer:
        """The problem document of an error in `REFUSALS`."""
        status, error_class, title = REFUSALS[type(error)]
        problem = {
            "type": f"urn:lockgate:error:{error.code}",
            "title": title,
            "status": status,
            "detail": error.message,
            "class": error_class,
            "request_id": request_id or self._ids(),
            **error.record(),
        }
        if endpoint is not None:
            problem["endpoint"] = endpoint.shown
        headers: tuple[tuple[bytes, bytes], ...] = (PROBLEM_TYPE,)
        if error.retryable:
            headers = (PROBLEM_TYPE, (b"retry-after", b"1"))
        return Answer(status, headers, self._encode(problem))

    def not_ready(self) -> tuple[str, ...]:
        """Endpoints that have no plan loaded yet, by their short names."""
        return tuple(endpoint.shown for endpoint in self.endpoints if endpoint.serving is None)

    def status(self) -> dict[str, Any]:
        """What each endpoint serves, for `GET /endpoints`: names, versions, counts; nothing of requests."""
        return {endpoint.shown: _endpoint_status(endpoint) for endpoint in self.endpoints}

    def _unknown(self, endpoint: str) -> errors.UnknownEndpoint:
        shown = endpoint if len(endpoint) <= 130 else endpoint[:127] + "..."
        return errors.UnknownEndpoint(
            f"there is no endpoint {shown!r} here",
            remedy=did_you_mean(shown, (known.shown for known in self.endpoints)),
            endpoint=shown,
        )

    def _read(self, content_type: str | None, body: bytes) -> Request:
        if content_type != "application/json":
            _check_content_type(content_type)
        if len(body) > self.limits.body_bytes:
            raise body_too_large(self.limits)
        try:
            request = self._decode(body)
        except msgspec.ValidationError as error:
            raise errors.RequestInvalid(
                f"the request does not fit: {error}",
                remedy='send {"inputs": [{field: value, ...}, ...], "key": "optional routing key"}',
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise errors.BodyMalformed(f"the body is no JSON: {why}", remedy="send JSON in UTF-8") from None
        if not request.inputs:
            raise errors.RequestInvalid("`inputs` holds no rows", remedy="send at least one row")
        if len(request.inputs) > self.limits.n_rows:
            raise errors.BatchTooLarge(
                f"{len(request.inputs)} rows came in one request, {self.limits.n_rows} are allowed",
                remedy="send several smaller requests",
                n_rows=len(request.inputs),
                limit=self.limits.n_rows,
            )
        return request

    def _without_version(
        self, endpoint: Endpoint, serving: Serving | None, request: Request, request_id: str
    ) -> Answer:
        fallback = serving.plan.fallback if serving is not None else None
        if fallback is None or fallback.value is None:
            raise errors.NothingLoaded(
                f"{endpoint.shown} has no version that can answer",
                remedy="retry in a moment; if it stays, ask the operator for GET /endpoints",
                state=endpoint.state,
            )
        values = [fallback.value] * len(request.inputs)
        endpoint.recorder.fell_back()
        body = self._encode(Prediction(values, None, None, endpoint.shown, request_id, fallback=True))
        return Answer(200, (JSON_TYPE, (b"x-lockgate-version", b"fallback")), body)


def body_too_large(limits: Limits) -> errors.BodyTooLarge:
    return errors.BodyTooLarge(
        f"the body has more than {limits.body_bytes} bytes",
        remedy="send fewer rows in one request",
        limit_bytes=limits.body_bytes,
    )


def _predict(runtime: Runtime, rows: list[dict[str, Any]]) -> list[float]:
    matrix = runtime.encode(rows)
    try:
        values: list[float] = runtime.predict(matrix).tolist()
    except Exception as error:  # noqa: BLE001 - a model may raise anything; it is counted and classed below
        raise _model_failed(runtime, f"it raised {type(error).__name__}") from None
    if len(values) != len(rows):
        raise _model_failed(runtime, f"it answered {len(values)} values for {len(rows)} rows")
    low, high = runtime.low, runtime.high
    for value in values:
        if not math.isfinite(value):
            raise _model_failed(runtime, "it answered a value that is not finite")
        if (low is not None and value < low - _ROUNDING) or (high is not None and value > high + _ROUNDING):
            raise _model_failed(runtime, "it answered a value outside its contract")
    return values


def _model_failed(runtime: Runtime, why: str) -> errors.ModelFailed:
    return errors.ModelFailed(
        f"version {runtime.version} could not answer: {why}",
        remedy="tell the owner of the model; the operator can roll back",
        version=runtime.version,
        digest=runtime.digest,
    )


def _check_content_type(content_type: str | None) -> None:
    kind, _, parameters = (content_type or "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() == "application/json" and charset in ("", "utf-8", "utf8"):
        return
    raise errors.ContentTypeRefused(
        f"the content type is {content_type[:80]!r}" if content_type else "the content type is missing",
        remedy="send JSON as application/json",
    )


def _endpoint_status(endpoint: Endpoint) -> dict[str, Any]:
    serving, report = endpoint.serving, endpoint.report()
    plan = serving.plan if serving is not None else None
    counts: dict[Digest, Counts] = endpoint.counts()
    return {
        "generation": endpoint.generation,
        "seen": report.seen,
        "state": endpoint.state,
        "detail": report.detail,
        "loaded": report.loaded,
        "live": plan.live if plan is not None else None,
        "previous": plan.previous if plan is not None else None,
        "routes": plan.routes if plan is not None else (),
        "versions": {ref.digest: ref.version for ref in plan.packages} if plan is not None else {},
        "counts": counts,
        "unrouted": endpoint.recorder.counts(),
    }
