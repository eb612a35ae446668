"""Two routes of identity that come before any session: where to log in, and a token for a CI job (RFC 8693)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request, Response, get, post

from lockgate.core.digests import canonical
from lockgate.core.errors import Invalid

AnyRequest = Request[Any, Any, Any]
_FORM = "application/x-www-form-urlencoded"


class FormMalformed(Invalid):
    code = "http.form-malformed"


def identity_routes(
    check: Callable[[AnyRequest], None],
    read: Callable[[AnyRequest], Awaitable[bytes]],
    run: Callable[[Callable[[], bytes]], Awaitable[bytes]],
    *,
    offered: bytes,
    exchange: Callable[[Mapping[str, str]], Any],
) -> list[Any]:
    """The routes.

    Args:
        check: refuses a request for another host, or one too many.
        read: the body of a request, within bounds.
        run: carries out work that may wait, beside the event loop.
        offered: what `GET /v1/identity` answers.
        exchange: the answer to a form.
    """

    @get("/v1/identity")
    async def identity(request: AnyRequest) -> Response[bytes]:
        check(request)
        return Response(offered, media_type="application/json")

    @post("/v1/tokens/exchange", status_code=200)
    async def exchange_token(request: AnyRequest) -> Response[bytes]:
        check(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            raise FormMalformed("an exchange is a form", remedy=f"send Content-Type: {_FORM}")
        body = await read(request)

        def work() -> bytes:
            return canonical(exchange(_form(body)))

        # RFC 6749, section 5.1: an answer with a token is kept by nobody on the way.
        return Response(await run(work), media_type="application/json", headers={"Cache-Control": "no-store"})

    return [identity, exchange_token]


def _form(body: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=20)
    except ValueError:
        # The parser's words may hold a part of the token.
        raise FormMalformed("the form cannot be read", remedy="encode it as HTML forms are") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise FormMalformed("a field of the form is there twice", remedy="send each once")
    return form
