"""The protocol as an OpenAPI 3.1 document, made from the table of messages: what is not in the table does not exist.

One operation per command and per query. What each asks for stands in `x-lockgate-permission`; errors are RFC 9457
problem documents everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from lockgate.core.messages import Command, Query, Receipt, tag_of
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.hub.table import COMMANDS, QUERIES

_REFERENCE = "#/components/schemas/{name}"
_SIMPLE = ("string", "integer", "number", "boolean")
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457. `code` is stable, `kind` says what a caller can do, `remedy` what to type next.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "kind": {"type": "string"},
        "remedy": {"type": "string"},
        "retryable": {"type": "boolean"},
        "facts": {"type": "object"},
    },
    "required": ["type", "title", "status", "detail", "code", "kind", "remedy", "retryable"],
}
_DIGEST = {
    "name": "digest",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
}


def document(
    statuses: Mapping[int, str], schemes: Mapping[str, Mapping[str, Any]], more: Collection[str] = ()
) -> bytes:
    """The whole document as JSON.

    Args:
        statuses: every HTTP status of an error, with what it means.
        schemes: the ways to say who sends a request, as OpenAPI's security schemes.
        more: paths that this hub has beside those that each has.
    """
    messages: list[Any] = [*COMMANDS, *QUERIES]
    answers = [query.answer for query in QUERIES]
    _, schemas = msgspec.json.schema_components([*messages, *answers, Receipt], ref_template=_REFERENCE)
    paths: dict[str, Any] = {}
    for command in COMMANDS:
        paths[f"/v1/commands/{tag_of(command)}"] = {"post": _command(command, schemas)}
    for query in QUERIES:
        paths[f"/v1/queries/{tag_of(query)}"] = _query(query, schemas)
    paths |= _generic() | _blobs() | _watching()
    paths |= {path: operations for path, operations in _identity().items() if path in more}
    failures = {str(status): {"$ref": "#/components/responses/Problem"} for status in sorted(statuses)}
    for path, operations in paths.items():
        for method, operation in operations.items():
            operation["responses"] = {**operation["responses"], **failures}
            operation.setdefault("operationId", f"{method} {path}")
    meanings = "\n".join(f"- {status}: {meaning}" for status, meaning in sorted(statuses.items()))
    problem = {"application/problem+json": {"schema": {"$ref": _reference("Problem")}}}
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "Lockgate hub",
            "version": VERSION_OF_LOCKGATE,
            "description": "The one door to registry, governance and audit. A refusal by a gate or a policy is an "
            f"answer (200, in the receipt); everything else that goes wrong is a problem document:\n\n{meanings}",
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "responses": {"Problem": {"description": "What went wrong, and what to do.", "content": problem}},
            "securitySchemes": schemes,
        },
        "security": [{name: []} for name in schemes],
    }
    return msgspec.json.encode(whole, order="deterministic")


def _told(message: type[Command] | type[Query]) -> dict[str, Any]:
    text = inspect.getdoc(message) or ""
    first, _, _ = text.partition("\n\n")
    return {
        "operationId": tag_of(message),
        "summary": " ".join(first.split()),
        "description": text,
        "tags": [tag_of(message).partition(".")[0]],
        "x-lockgate-permission": message.permission,
    }


def _command(command: type[Command], schemas: Mapping[str, Any]) -> dict[str, Any]:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The id of the command, when the body has none. Sent again, it gets the first receipt.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    }
    return {
        **_told(command),
        "parameters": [key],
        "requestBody": _body(_without(schemas[command.__name__], ("type", "id"))),
        "responses": {"200": _json("The receipt.", {"$ref": _reference("Receipt")})},
    }


def _query(query: type[Query], schemas: Mapping[str, Any]) -> dict[str, Any]:
    fields = _without(schemas[query.__name__], ("type",))
    answer = _json("The answer.", {"$ref": _reference(query.answer.__name__)})
    told = _told(query)
    asked = {
        **told,
        "operationId": f"{told['operationId']}/post",
        "requestBody": _body(fields),
        "responses": {"200": answer},
    }
    if not all(_is_parameter(schema) for schema in fields["properties"].values()):
        return {"post": asked}
    parameters = [
        {"name": name, "in": "query", "required": name in fields["required"], "schema": schema}
        for name, schema in fields["properties"].items()
    ]
    known = {"name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"}}
    etag = {"ETag": {"description": "The digest of the answer.", "schema": {"type": "string"}}}
    read = {
        **told,
        "parameters": [*parameters, known],
        "responses": {
            "200": {**answer, "headers": etag},
            "304": {"description": "The answer has not changed."},
        },
    }
    return {"get": read, "post": asked}


def _is_parameter(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type", "string" if "enum" in schema else "")
    return kind in _SIMPLE or (kind == "array" and _is_parameter(schema.get("items", {})))


def _generic() -> dict[str, Any]:
    def messages(kinds: Sequence[type[Command]] | Sequence[type[Query]]) -> dict[str, Any]:
        names = {tag_of(kind): _reference(kind.__name__) for kind in kinds}
        choices = [{"$ref": name} for name in names.values()]
        return {"oneOf": choices, "discriminator": {"propertyName": "type", "mapping": names}}

    receipt = _json("The receipt.", {"$ref": _reference("Receipt")})
    answers = {"oneOf": [{"$ref": _reference(query.answer.__name__)} for query in QUERIES]}
    return {
        "/v1/execute": {
            "post": {
                "summary": "Carry out any command, tagged by its `type`.",
                "requestBody": _body(messages(tuple(COMMANDS))),
                "responses": {"200": receipt},
            }
        },
        "/v1/ask": {
            "post": {
                "summary": "Answer any query, tagged by its `type`.",
                "requestBody": _body(messages(QUERIES)),
                "responses": {"200": _json("The answer of the query's own type.", answers)},
            }
        },
    }


def _blobs() -> dict[str, Any]:
    octets = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    span = {"name": "Content-Range", "in": "header", "required": False, "schema": {"type": "string"}}
    wanted = {"name": "Range", "in": "header", "required": False, "schema": {"type": "string"}}
    offset = {"Upload-Offset": {"description": "How much is here already.", "schema": {"type": "integer"}}}
    return {
        "/v1/blobs": {
            "get": {
                "summary": "The digests of blobs, page by page.",
                "x-lockgate-permission": "read.audit",
                "parameters": [
                    {"name": "after", "in": "query", "required": False, "schema": {"type": "string"}},
                    {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer"}},
                ],
                "responses": {"200": _json("Digests in order, and where the next page begins.", {})},
            }
        },
        "/v1/blobs/{digest}": {
            "put": {
                "summary": "Bring a blob, whole or from where an earlier sending stopped.",
                "x-lockgate-permission": "any that makes something",
                "parameters": [_DIGEST, span],
                "requestBody": {"required": True, "content": octets},
                "responses": {
                    "201": {"description": "Verified and durable."},
                    "202": {"description": "A part; more is to come.", "headers": offset},
                },
            },
            "get": {
                "summary": "The bytes of a blob, or a range of them.",
                "x-lockgate-permission": "read",
                "parameters": [_DIGEST, wanted],
                "responses": {
                    "200": {"description": "All of them.", "content": octets},
                    "206": {"description": "The range.", "content": octets},
                    "304": {"description": "You have them."},
                    "416": {"description": "There is no such range."},
                },
            },
            "head": {
                "summary": "Whether a blob is here; when it is not, how much of it is.",
                "x-lockgate-permission": "read",
                "parameters": [_DIGEST],
                "responses": {"200": {"description": "It is here."}},
            },
        },
    }


def _watching() -> dict[str, Any]:
    last = {"name": "Last-Event-ID", "in": "header", "required": False, "schema": {"type": "integer"}}
    after = {"name": "after", "in": "query", "required": False, "schema": {"type": "integer"}}
    stream = {"text/event-stream": {"schema": {"type": "string"}}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/v1/changes": {
            "get": {
                "summary": "Changes as they happen: server-sent events, one per entry of the journal.",
                "x-lockgate-permission": "read.audit",
                "parameters": [last, after],
                "responses": {"200": {"description": "A stream without end.", "content": stream}},
            }
        },
        "/v1/health": {
            "get": {
                "summary": "Whether the hub answers, and whether its store does.",
                "security": [],
                "responses": {"200": _json("It does.", {"type": "object"})},
            }
        },
        "/v1/metrics": {
            "get": {
                "summary": "Counts and gauges of this hub, for Prometheus.",
                "x-lockgate-permission": "read.audit",
                "responses": {"200": {"description": "Text exposition format.", "content": text}},
            }
        },
        "/v1/openapi.json": {
            "get": {
                "summary": "This document.",
                "security": [],
                "responses": {"200": _json("OpenAPI 3.1.", {"type": "object"})},
            }
        },
    }


def _identity() -> dict[str, Any]:
    """What comes before anybody is known: of a hub that proves names."""
    onward = {"303": {"description": "Where the browser goes next, with the cookies it takes along."}}
    pairs = {"type": "object", "additionalProperties": {"type": "string"}}
    form = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": pairs}}}
    asked = [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        for name in ("to", "issuer", "code", "state", "error")
    ]
    told: dict[str, dict[str, dict[str, Any]]] = {
        "/v1/identity": {
            "get": {
                "summary": "The identity providers where people log in.",
                "responses": {"200": _json("Them.", {"type": "object"})},
            }
        },
        "/v1/tokens/exchange": {
            "post": {
                "summary": "The identity token of a CI job for a token of a service account (RFC 8693).",
                "requestBody": form,
                "responses": {"200": _json("The token.", {"type": "object"})},
            }
        },
        "/v1/login": {
            "get": {
                "summary": "Send a browser to the provider; `to` is the path where the login ends.",
                "parameters": asked[:2],
                "responses": onward,
            }
        },
        "/v1/login/callback": {
            "get": {
                "summary": "Where the provider sends the browser back to.",
                "parameters": asked[2:],
                "responses": onward,
            }
        },
        "/v1/logout": {"post": {"summary": "Take the browser's login away.", "responses": onward}},
    }
    return {
        path: {method: {**operation, "security": []} for method, operation in operations.items()}
        for path, operations in told.items()
    }


def _without(schema: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        **schema,
        "properties": {name: one for name, one in schema["properties"].items() if name not in names},
        "required": [name for name in schema.get("required", []) if name not in names],
    }


def _body(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _reference(name: str) -> str:
    return _REFERENCE.format(name=name)
