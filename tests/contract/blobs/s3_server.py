"""A small server that speaks as much S3 as a blob store needs, and can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from lockgate.testing.loopback import served


class S3(ThreadingHTTPServer):
    """Keeps objects in memory.

    Attributes:
        written: when each object was written, in seconds since 1970; now, for one that was put there by hand.
        heeds: the conditional headers that it keeps; the others it ignores, as some stores do.
        before, after: told of each DELETE, before and after it was carried out; when `after` is false the sender hears
            that it failed.
        answers_with: a status and code for every write; None to work.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, float] = {}
        self.heeds = {"If-None-Match", "If-Match"}
        self.answers_with: tuple[int, str] | None = None
        self.before: Callable[[str], None] = lambda key: None
        self.after: Callable[[str], bool] = lambda key: True
        self.seen: list[str] = []
        self.guard = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def url(self, place: str = "models/team") -> str:
        return f"s3://{place}?endpoint={self.endpoint}&access_key=env:ACCESS&secret_key=env:SECRET"


@contextmanager
def s3() -> Iterator[S3]:
    with served(S3()) as server:
        yield server


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class _Handler(BaseHTTPRequestHandler):
    server: S3

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self._key()
        with self.server.guard:
            self.server.seen.append(f"PUT {key}")
            there = self.server.objects.get(key)
            if self.server.answers_with is not None:
                return self._fail(*self.server.answers_with)
            if self._asks("If-None-Match") == "*" and there is not None:
                return self._fail(412, "PreconditionFailed")
            wanted = self._asks("If-Match")
            if wanted is not None and (there is None or etag(there) != wanted):
                return self._fail(412, "PreconditionFailed")
            self.server.objects[key] = data
            self.server.written[key] = time.time()
        return self._answer(200, b"", {"ETag": etag(data)})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if "list-type" in url.query:
            return self._list(url.path, parse_qs(url.query).get("prefix", [""])[0])
        key = self._key()
        with self.server.guard:
            self.server.seen.append(f"{self.command} {key}")
            data = self.server.objects.get(key)
        if data is None:
            return self._fail(404, "NoSuchKey")
        return self._answer(
            200, data, {"ETag": etag(data), "Last-Modified": formatdate(self._written(key), usegmt=True)}
        )

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        key = self._key()
        self.server.before(key)
        with self.server.guard:
            self.server.objects.pop(key, None)
        if not self.server.after(key):
            return self._fail(503, "SlowDown")
        return self._answer(204, b"", {})

    def _list(self, path: str, prefix: str) -> None:
        bucket = unquote(path).strip("/")
        with self.server.guard:
            found = sorted(self.server.objects.items())
        start = f"{bucket}/{prefix}"
        entries = "".join(
            f"<Contents><Key>{escape(key.removeprefix(bucket + '/'))}</Key><Size>{len(data)}</Size>"
            f"<LastModified>{_iso(self._written(key))}</LastModified><ETag>{escape(etag(data))}</ETag></Contents>"
            for key, data in found
            if key.startswith(start)
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self._answer(200, body.encode(), {"Content-Type": "application/xml"})

    def _written(self, key: str) -> float:
        return self.server.written.get(key) or time.time()

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _asks(self, header: str) -> str | None:
        return self.headers.get(header) if header in self.server.heeds else None

    def _fail(self, status: int, code: str) -> None:
        # As S3 does: the complaint repeats what was sent.
        said = self.headers.get("Authorization", "")
        self._answer(status, f"<Error><Code>{code}</Code><Message>{said}</Message></Error>".encode(), {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
