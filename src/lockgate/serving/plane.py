"""`Plane`: from the bytes of a request to the bytes of an answer. Transport-free and synchronous.

A request is `{"inputs": [{"distance": 1400, ...}, ...], "key": "optional routing key"}`; the answer names the
version and the package that made it, and all of its rows come from that one. Without a key the request's own
id decides, so traffic without keys is split per request. With `entities`, the keys of each row, the version reads
from the online store what its contract takes from there, as known at `as_of`.

Refusals are RFC 9457 problem documents (the table is in errors.py). What is 5xx is the version's fault
(`model_error`) or says that something is not there (`upstream_degraded`); a declared fallback answers when no
version can.

`feedback` takes what turned out to be true. It is for another thread than `handle`, because it waits for a file.

What a plan keeps of its traffic is written down beside the requests (capture.py); nothing of a request is logged,
and counts hold no values. Requests under `DRILL_KEY` are answered and leave no trace in any of these.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec

from lockgate.core.clock import Micros, parse_iso
from lockgate.core.digests import Digest
from lockgate.core.errors import LockgateError, did_you_mean
from lockgate.registry.packages.contract import Matrix
from lockgate.serving import errors
from lockgate.serving.capture import Outcome
from lockgate.serving.endpoint import Endpoint, Serving
from lockgate.serving.errors import REFUSALS
from lockgate.serving.shadow import Copy, Shadow
from lockgate.traffic.capture import Labelled
from lockgate.traffic.counts import Counts
from lockgate.traffic.plan import DRILL_KEY

JSON_TYPE = (b"content-type", b"application/json")
PROBLEM_TYPE = (b"content-type", b"application/problem+json")
FEEDBACK = ":feedback"
_AHEAD_US = 60_000_000
"""How far `as_of` may lie in the future: clocks differ, and nobody knows more of the future than that."""


class Answer(NamedTuple):
    """A status, headers (names in lower case) and a whole body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may ask for, and one call of `feedback` may tell."""

    body_bytes: int = 1 << 20
    n_rows: int = 1_000
    n_labels: int = 1_000


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a prediction.

    Attributes:
        key: whatever shall always get the same version.
        entities: one per row, the key columns by which the version reads its features.
        as_of: the moment the question is about, ISO 8601 with a zone or microseconds UTC; now when left out.
    """

    inputs: list[dict[str, Any]]
    key: str | None = None
    entities: list[dict[str, Any]] | None = None
    as_of: str | int | None = None


class Label(msgspec.Struct, forbid_unknown_fields=True):
    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    label: float | bool
    row: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a call of `feedback`: what turned out to be true about rows of requests."""

    labels: list[Label]


class Prediction(msgspec.Struct, omit_defaults=True):
    """The body of a 200. `version` and `digest` are null exactly when `fallback` is true."""

    predictions: list[float]
    version: str | None
    digest: Digest | None
    endpoint: str
    request_id: str
    fallback: bool = False


def _wall_clock() -> Micros:
    return time.time_ns() // 1_000


class Plane:
    """The endpoints of one process and the way through them. One thread answers; others may add endpoints.

    Args:
        ids: fresh request ids; by default a count.
        now: the time.
        shadow: where copies for shadows go; without it none are made.
    """

    def __init__(
        self,
        *,
        ids: Callable[[], str] | None = None,
        limits: Limits | None = None,
        now: Callable[[], Micros] = _wall_clock,
        shadow: Shadow | None = None,
    ) -> None:
        count = itertools.count(1)
        self.limits = limits or Limits()
        self._ids = ids or (lambda: f"r{next(count)}")
        self._now = now
        self._shadow = shadow
        self._by_path: dict[str, Endpoint] = {}
        self.endpoints: tuple[Endpoint, ...] = ()
        self._decode = msgspec.json.Decoder(Request).decode
        self._decode_feedback = msgspec.json.Decoder(Feedback).decode
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
        at = self._now()
        request_id = self._ids()
        found = self._by_path.get(endpoint)
        if found is None:
            return self.refuse(self._unknown(endpoint), request_id)
        if found.stale():
            found.refresh()
        serving = found.serving
        try:
            request = self._read(content_type, body)
            as_of = at if request.as_of is None else _moment(request.as_of, at)
        except LockgateError as error:
            found.recorder.failed(REFUSALS[type(error)].error_class)
            return self.refuse(error, request_id, found)
        key = request.key
        if serving is None:
            runtime = None
        elif key == DRILL_KEY:
            runtime = serving.rehearsal
        else:
            runtime = serving.runtime_for(key or request_id)
        if serving is None or runtime is None:
            return self._without_version(found, request, request_id)
        rows, matrix, values = None, None, []
        outcome: Outcome = "ok"
        try:
            rows, matrix = runtime.take(request.inputs, request.entities, [as_of] * len(request.inputs))
            values = runtime.answer(matrix)
            shown = self._encode(Prediction(values, runtime.version, runtime.digest, found.shown, request_id))
            answer = Answer(200, (JSON_TYPE, runtime.version_header), shown)
        except (LockgateError, RecursionError) as error:
            refusal = error if isinstance(error, LockgateError) else _too_deep()
            outcome = REFUSALS[type(refusal)].error_class
            answer = self.refuse(refusal, request_id, found)
        if key != DRILL_KEY:
            latency_us = (time.perf_counter_ns() - started_ns) // 1_000
            if outcome == "ok":
                runtime.recorder.answered(len(values), latency_us)
            else:
                runtime.recorder.failed(outcome)
            capture = serving.capture
            if capture is not None:
                capture.keep(
                    at, request_id, key, runtime.digest, outcome, latency_us, values, as_of, rows, len(body)
                )
                if outcome == "ok" and serving.shadow is not None and serving.shadow is not runtime:
                    copied = matrix if runtime.digest in serving.alike else None
                    self._cast_shadow(found, serving, request, request_id, as_of, len(body), copied)
        return answer

    def feedback(self, endpoint: str, content_type: str | None, body: bytes) -> Answer:
        """Take labels; 202 says that they are in the endpoint's capture, whatever happens to this process.

        Never raises. Waits for a file, so it is not for the thread that answers requests.
        """
        request_id = self._ids()
        found = self._by_path.get(endpoint)
        if found is None:
            return self.refuse(self._unknown(endpoint), request_id)
        if found.stale():
            found.refresh()
        try:
            labels = self._read_feedback(content_type, body)
            serving = found.serving
            if serving is None:
                raise _nothing_loaded(found)
            if serving.capture is None:
                raise errors.CaptureOff(
                    f"{found.shown} keeps nothing of its traffic, so labels have nothing to belong to",
                    remedy='have the endpoint declare capture = "scores" and deploy again',
                )
            at = self._now()
            lines = [Labelled(at, label.request_id, label.row, float(label.label)) for label in labels]
            if not serving.capture.label(lines):
                raise errors.CaptureUnavailable(
                    "the labels could not be written down",
                    remedy="send all of them again; if it stays, tell the operator",
                )
        except LockgateError as error:
            return self.refuse(error, request_id, found)
        return Answer(202, (JSON_TYPE,), self._encode({"accepted": len(lines)}))

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
        except _UNREADABLE as error:
            raise _unreadable(error, _REQUEST_SHAPE) from None
        if not request.inputs:
            raise errors.RequestInvalid("`inputs` holds no rows", remedy="send at least one row")
        if len(request.inputs) > self.limits.n_rows:
            raise _too_many(len(request.inputs), "rows", self.limits.n_rows)
        if request.entities is not None and len(request.entities) != len(request.inputs):
            raise errors.RequestInvalid(
                f"there are {len(request.inputs)} rows in `inputs` and {len(request.entities)} in `entities`",
                remedy="send the keys of each row, in the order of the rows",
            )
        return request

    def _read_feedback(self, content_type: str | None, body: bytes) -> list[Label]:
        if content_type != "application/json":
            _check_content_type(content_type)
        if len(body) > self.limits.body_bytes:
            raise body_too_large(self.limits)
        try:
            labels = self._decode_feedback(body).labels
        except _UNREADABLE as error:
            raise _unreadable(error, _FEEDBACK_SHAPE) from None
        if not labels:
            raise errors.RequestInvalid("`labels` is empty", remedy="send at least one label")
        if len(labels) > self.limits.n_labels:
            raise _too_many(len(labels), "labels", self.limits.n_labels)
        return labels

    def _without_version(self, endpoint: Endpoint, request: Request, request_id: str) -> Answer:
        fallback = endpoint.fallback
        counted = request.key != DRILL_KEY
        if fallback is None or fallback.value is None:
            error = _nothing_loaded(endpoint)
            if counted:
                endpoint.recorder.failed(REFUSALS[type(error)].error_class)
            return self.refuse(error, request_id, endpoint)
        values = [fallback.value] * len(request.inputs)
        if counted:
            endpoint.recorder.fell_back()
        body = self._encode(Prediction(values, None, None, endpoint.shown, request_id, fallback=True))
        return Answer(200, (JSON_TYPE, (b"x-lockgate-version", b"fallback")), body)

    def _cast_shadow(
        self,
        endpoint: Endpoint,
        serving: Serving,
        request: Request,
        request_id: str,
        as_of: Micros,
        n_bytes: int,
        matrix: Matrix | None,
    ) -> None:
        if self._shadow is None or serving.shadow is None or serving.capture is None:
            return
        self._shadow.offer(
            Copy(
                serving.shadow,
                serving.capture,
                endpoint.shadow_counts,
                request_id,
                request.inputs if matrix is None else [],
                request.entities if matrix is None else None,
                as_of,
                n_bytes,
                matrix,
            )
        )


def _too_deep() -> errors.RequestInvalid:
    return errors.RequestInvalid(
        "a value is nested too deeply to be told about", remedy="send a number, a text, true, false or null"
    )


def body_too_large(limits: Limits) -> errors.BodyTooLarge:
    return errors.BodyTooLarge(
        f"the body has more than {limits.body_bytes} bytes",
        remedy="send fewer rows in one request",
        limit_bytes=limits.body_bytes,
    )


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_REQUEST_SHAPE = 'send {"inputs": [{field: value, ...}, ...], "key": "optional routing key"}'
_FEEDBACK_SHAPE = 'send {"labels": [{"request_id": "...", "row": 0, "label": 1}, ...]}'


def _unreadable(error: Exception, shape: str) -> LockgateError:
    if isinstance(error, msgspec.ValidationError):
        return errors.RequestInvalid(f"the request does not fit: {error}", remedy=shape)
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return errors.BodyMalformed(f"the body is no JSON: {why}", remedy="send JSON in UTF-8")


def _too_many(n: int, what: str, limit: int) -> errors.BatchTooLarge:
    return errors.BatchTooLarge(
        f"{n} {what} came in one request, {limit} are allowed",
        remedy="send several smaller requests",
        limit=limit,
        **{f"n_{what}": n},
    )


def _nothing_loaded(endpoint: Endpoint) -> errors.NothingLoaded:
    return errors.NothingLoaded(
        f"{endpoint.shown} has no version that can answer",
        remedy="retry in a moment; if it stays, ask the operator for GET /endpoints",
        state=endpoint.state,
    )


def _moment(given: str | int, now: Micros) -> Micros:
    """The instant that `as_of` names."""
    try:
        as_of = parse_iso(given) if isinstance(given, str) else given
    except (ValueError, OverflowError) as error:
        raise errors.RequestInvalid(
            f"`as_of` is no instant: {error}", remedy='send one with a zone, as "2026-01-31T08:00:00Z"'
        ) from None
    if not 0 <= as_of <= now + _AHEAD_US:
        raise errors.RequestInvalid(
            "`as_of` lies before 1970" if as_of < 0 else "`as_of` lies in the future",
            remedy="send the moment the question is about, or leave it out for now",
        )
    return as_of


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
        "capture": _capture_status(endpoint, serving),
        "shadow": _shadow_status(endpoint, serving),
    }


def _capture_status(endpoint: Endpoint, serving: Serving | None) -> dict[str, Any]:
    ledger = endpoint.ledger()
    return {
        "mode": serving.plan.capture if serving is not None else "off",
        "written": ledger.n_written,
        "dropped": ledger.n_dropped,
        "detail": ledger.detail,
    }


def _shadow_status(endpoint: Endpoint, serving: Serving | None) -> dict[str, Any]:
    counts = endpoint.shadow_counts
    return {
        "package": serving.plan.shadow if serving is not None else None,
        "answered": counts.n_answered,
        "failed": counts.n_failed,
        "dropped": counts.n_dropped,
    }
