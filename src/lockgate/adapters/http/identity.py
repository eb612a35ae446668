"""Routes of identity that come before any session: where to log in, a token for a CI job (RFC 8693), and the way of a
browser to the provider and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from litestar import Request, Response, get, post

from lockgate.core.digests import canonical
from lockgate.core.errors import Forbidden, Invalid

AnyRequest = Request[Any, Any, Any]
_FORM = "application/x-www-form-urlencoded"


class FormMalformed(Invalid):
    code = "http.form-malformed"


class CrossSite(Forbidden):
    """A page of another site made the browser ask."""

    code = "http.cross-site"


class Step(Protocol):
    """Where a browser goes next, and the cookies it takes along: name, value, path, seconds, whether https only."""

    @property
    def to(self) -> str: ...

    @property
    def cookies(self) -> tuple[tuple[str, str, str, int, bool], ...]: ...


class Browser(Protocol):
    """The steps of a login in the browser; `adapters/identity/browser.py` takes them."""

    def begin(self, query: Mapping[str, str]) -> Step: ...

    def finish(self, query: Mapping[str, str], cookies: str) -> Step: ...

    def end(self) -> Step: ...


def identity_routes(
    check: Callable[[AnyRequest], None],
    read: Callable[[AnyRequest], Awaitable[bytes]],
    run: Callable[[Callable[[], Any]], Awaitable[Any]],
    *,
    offered: bytes,
    exchange: Callable[[Mapping[str, str]], Any],
    browser: Browser | None = None,
) -> list[Any]:
    """The routes.

    Args:
        check: refuses a request for another host, or one too many.
        read: the body of a request, within bounds.
        run: carries out work that may wait, beside the event loop.
        offered: what `GET /v1/identity` answers.
        exchange: the answer to a form.
        browser: logins at the hub itself; without it there are no routes for them.
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

    return [identity, exchange_token, *([] if browser is None else _browser_routes(check, run, browser))]


def _browser_routes(
    check: Callable[[AnyRequest], None], run: Callable[[Callable[[], Any]], Awaitable[Any]], browser: Browser
) -> list[Any]:
    @get("/v1/login")
    async def login(request: AnyRequest) -> Response[bytes]:
        check(request)
        query = dict(request.query_params)
        return _onward(await run(lambda: browser.begin(query)))

    @get("/v1/login/callback")
    async def callback(request: AnyRequest) -> Response[bytes]:
        check(request)
        query, cookies = dict(request.query_params), request.headers.get("cookie", "")
        return _onward(await run(lambda: browser.finish(query, cookies)))

    @post("/v1/logout", status_code=200)
    async def logout(request: AnyRequest) -> Response[bytes]:
        check(request)
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise CrossSite("another site asks to log you out", remedy="log out on a page of this hub")
        return _onward(browser.end())

    return [login, callback, logout]


def _onward(step: Step) -> Response[bytes]:
    answer = Response(
        b"",
        status_code=303,
        # The address of the page before holds the code.
        headers={"Location": step.to, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
    )
    for name, value, path, max_age_s, is_secure in step.cookies:
        # No script reads it, and no other site's page brings it along, but by a link that is followed.
        answer.set_cookie(
            name, value, max_age=max_age_s, path=path, secure=is_secure, httponly=True, samesite="lax"
        )
    return answer


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
