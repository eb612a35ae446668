"""Errors on the wire: RFC 9457 problem documents, and the one table from error class to HTTP status.

A document says more than the standard asks for, so that a program may act on it: `code` (stable), `kind` (the
first-level class, hence what a caller can do), `remedy`, `facts`, `retryable`. What nobody foresaw is a `Bug` and
tells nothing of its inside; the log does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from lockgate.adapters.http.blobs import RangeUnsatisfiable
from lockgate.adapters.http.gate import BodyTooLarge, SenderTooSlow, TooManyRequests
from lockgate.adapters.http.messages import ContentTypeRefused
from lockgate.core.errors import (
    Bug,
    Conflict,
    Corrupt,
    Forbidden,
    Invalid,
    LockgateError,
    NotFound,
    Unavailable,
    Unsupported,
)
from lockgate.hub.authority import Unauthenticated

MEDIA_TYPE = "application/problem+json"


class UnknownRoute(NotFound):
    code = "http.unknown-route"


class MethodRefused(Unsupported):
    code = "http.method-refused"


class ActorMissing(Invalid):
    code = "http.actor-missing"


class RequestRefused(Invalid):
    """The HTTP layer could not read the request."""

    code = "http.request-refused"


class HubFailed(Bug):
    code = "http.hub-failed"


STATUS: Mapping[type[LockgateError], int] = MappingProxyType(
    {
        Invalid: 400,
        NotFound: 404,
        Conflict: 409,
        Forbidden: 403,
        Unsupported: 501,
        Unavailable: 503,
        Corrupt: 500,
        Bug: 500,
        Unauthenticated: 401,
        MethodRefused: 405,
        SenderTooSlow: 408,
        BodyTooLarge: 413,
        ContentTypeRefused: 415,
        RangeUnsatisfiable: 416,
        TooManyRequests: 429,
    }
)
"""Every first-level class, and the leaves for which HTTP has a word of its own."""

_UNREAD = frozenset({408, 413})

_TITLES: Mapping[type[LockgateError], str] = MappingProxyType(
    {
        Invalid: "The request is not valid",
        NotFound: "There is no such thing",
        Conflict: "Somebody was faster",
        Forbidden: "Not allowed",
        Unsupported: "Not supported",
        Unavailable: "Not available at the moment",
        Corrupt: "Stored data does not hold",
        Bug: "Lockgate broke a promise of its own",
    }
)


def first_level(error: LockgateError) -> type[LockgateError]:
    """The class right below the root that says what the caller can do; `Bug` for anything outside the tree."""
    return next((each for each in type(error).__mro__ if each in _TITLES), Bug)


def status_of(error: LockgateError) -> int:
    """The HTTP status of the nearest class in the table."""
    return next((STATUS[each] for each in type(error).__mro__ if each in STATUS), STATUS[Bug])


def headers_of(error: LockgateError) -> dict[str, str]:
    """What HTTP wants said beside the document."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.facts.get("retry_after_s", 1))))
    if "offset" in error.facts:
        headers["Upload-Offset"] = str(error.facts["offset"])
    if status_of(error) in _UNREAD:
        # What is left of the body is not worth reading.
        headers["Connection"] = "close"
    return headers


def problem(error: LockgateError) -> tuple[int, bytes]:
    """Status and body of the answer to a request that failed."""
    status, kind = status_of(error), first_level(error)
    record: dict[str, Any] = error.record()
    document = {
        "type": f"urn:lockgate:error:{error.code}",
        "title": _TITLES[kind],
        "status": status,
        "detail": record.pop("message"),
        "kind": kind.code,
        **record,
    }
    # Facts are meant to be JSON; one that is not must not cost the caller the whole answer.
    return status, msgspec.json.encode(document, enc_hook=str, order="deterministic")
