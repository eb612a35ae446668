"""A registry of OCI distribution 1.1 in this process: referrers, tokens, redirects; it can be told to misbehave."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import itertools
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockgate.testing.loopback import served

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Oci(ThreadingHTTPServer):
    """Keeps everything in memory.

    Attributes:
        referrers_api: whether it is a registry of 1.1.
        login: `USER:PASSWORD` that its token service wants; None for a registry for everybody.
        redirects: whether blobs are answered with a redirect to another host name.
        breaks_at: how many bytes of an upload, or a download, arrive before the connection ends, once.
        lies: digest -> the bytes that are given instead.
        floods: which answers do not end: `manifest`, `token` or `refusal`; `n_flooded` counts the bytes.
        packs: whether it says of all bytes that they are packed by gzip.
        apart: whether a blob is only where it was put, as `places` has it, and not in every repository.
        mounts: whether it takes a blob from another of its repositories when it is asked to.
        seen: requests in order, `METHOD path`.
        told: the Authorization header of each request to a place, `path host`.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.names = itertools.count()
        self.referrers_api = True
        self.login: str | None = None
        self.redirects = False
        self.breaks_at: int | None = None
        self.lies: dict[str, bytes] = {}
        self.floods, self.n_flooded, self.packs = "", 0, False
        self.apart, self.mounts = False, True
        self.places: set[tuple[str, str]] = set()
        self.seen: list[str] = []
        self.told: list[tuple[str, str | None]] = []
        self.guard = threading.Lock()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@contextmanager
def oci() -> Iterator[Oci]:
    with served(Oci()) as server:
        yield server


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Oci

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path == "/token":
            return self._token(query)
        if not self._is_let_in(path):
            return None
        if found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            if self.server.floods in ("manifest", "refusal"):
                return self._flood(200 if self.server.floods == "manifest" else 400)
            data = self.server.manifests.get(f"{found[1]} {found[2]}")
            return self._give(data, MANIFEST)
        if found := re.fullmatch(r"/v2/(.+)/referrers/(.+)", path):
            return self._referrers(found[1], found[2])
        if found := re.fullmatch(r"/v2/.+/blobs/uploads/(.+)", path):
            n = len(self.server.uploads[found[1]])
            return self._answer(204, b"", {"Location": path, "Range": f"0-{max(n - 1, 0)}"})
        if found := re.fullmatch(r"(/elsewhere)?/v2/.+/blobs/(.+)", path):
            if self.server.redirects and not found[1]:
                port = self.server.server_address[1]
                return self._answer(307, b"", {"Location": f"http://localhost:{port}/elsewhere{path}"})
            repository = path.removeprefix("/v2/").partition("/blobs/")[0]
            if self.server.apart and (repository, found[2]) not in self.server.places:
                return self._give(None, "")
            return self._give(self.server.lies.get(found[2], self.server.blobs.get(found[2])), "")
        return self._answer(404, b"<html>", {})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if self._is_let_in(path, push=True):
            repository = path.removeprefix("/v2/").partition("/blobs/")[0]
            wanted, origin = (query.get(name, [""])[0] for name in ("mount", "from"))
            may = self.server.login is None or f"repository:{origin}:pull" in self.headers["Authorization"]
            if self.server.mounts and may and (origin, wanted) in self.server.places:
                self.server.places.add((repository, wanted))
                return self._answer(201, b"", {"Location": f"/v2/{repository}/blobs/{wanted}"})
            name = str(next(self.server.names))
            self.server.uploads[name] = bytearray()
            return self._answer(202, b"", {"Location": f"{path}{name}"})
        return None

    def do_DELETE(self) -> None:
        path = urlsplit(self.path).path
        if self._is_let_in(path, push=True):
            del self.server.uploads[path.rpartition("/")[2]]
            self._answer(204, b"", {})

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_let_in(path, push=True):
            return None
        upload = self.server.uploads[path.rpartition("/")[2]]
        length = int(self.headers["Content-Length"])
        if int(self.headers["Content-Range"].partition("-")[0]) != len(upload):
            self.rfile.read(length)
            return self._answer(416, b"", {})
        with self.server.guard:
            limit, self.server.breaks_at = self.server.breaks_at, None
        upload += self.rfile.read(min(length, limit) if limit is not None else length)
        if limit is not None:
            # No answer: the connection ends here, with what arrived kept.
            self.close_connection = True
            return self.connection.close()
        return self._answer(202, b"", {"Location": path, "Range": f"0-{len(upload) - 1}"})

    def do_PUT(self) -> None:
        parts = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._is_let_in(parts.path, push=True):
            return None
        if found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", parts.path):
            for name in (found[2], digest_of(data)):
                self.server.manifests[f"{found[1]} {name}"] = data
            subject = json.loads(data).get("subject")
            noted = {"OCI-Subject": subject["digest"]} if subject and self.server.referrers_api else {}
            return self._answer(201, b"", noted)
        whole = bytes(self.server.uploads.pop(parts.path.rpartition("/")[2])) + data
        wanted = parse_qs(parts.query)["digest"][0]
        if digest_of(whole) != wanted:
            return self._fail(400, "DIGEST_INVALID")
        self.server.blobs[wanted] = whole
        self.server.places.add((parts.path.removeprefix("/v2/").partition("/blobs/")[0], wanted))
        return self._answer(201, b"", {})

    def _referrers(self, repository: str, digest: str) -> None:
        if not self.server.referrers_api:
            return self._answer(404, b"page not found", {})
        found = []
        for name, data in self.server.manifests.items():
            manifest = json.loads(data)
            if (
                name == f"{repository} {digest_of(data)}"
                and manifest.get("subject", {}).get("digest") == digest
            ):
                found.append(
                    {
                        "mediaType": MANIFEST,
                        "digest": digest_of(data),
                        "size": len(data),
                        "artifactType": manifest["artifactType"],
                    }
                )
        body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found}
        return self._answer(200, json.dumps(body).encode(), {"Content-Type": INDEX})

    def _token(self, query: dict[str, list[str]]) -> None:
        if self.server.floods == "token":
            return self._flood(200)
        wanted = base64.b64encode((self.server.login or "").encode()).decode()
        if self.headers.get("Authorization") != f"Basic {wanted}":
            return self._fail(401, "UNAUTHORIZED")
        return self._answer(200, json.dumps({"token": " ".join(query["scope"])}).encode(), {})

    def _is_let_in(self, path: str, push: bool = False) -> bool:
        sent = self.headers.get("Authorization")
        with self.server.guard:
            self.server.seen.append(f"{self.command} {path}")
            self.server.told.append((self.headers["Host"], sent))
        if self.server.login is None or path.startswith("/elsewhere"):
            return True
        action = "pull,push" if push else "pull"
        repository = (
            path.removeprefix("/v2/").partition("/blobs")[0].partition("/manifests")[0].partition("/ref")[0]
        )
        if f"repository:{repository}:{action}" in (sent or "").removeprefix("Bearer ").split():
            return True
        challenge = f'Bearer realm="http://{self.server.host}/token",service="tests"'
        self._answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', {"WWW-Authenticate": challenge})
        return False

    def _give(self, data: bytes | None, kind: str) -> None:
        if data is None:
            return self._fail(404, "UNKNOWN")
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        body, status = data[start:], 206 if start else 200
        with self.server.guard:
            limit = self.server.breaks_at if self.command == "GET" and not kind else None
            self.server.breaks_at = None if limit is not None else self.server.breaks_at
        if limit is None:
            return self._answer(status, body, {"Content-Type": kind})
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:limit])
        self.close_connection = True
        return None

    def _flood(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(1 << 30))
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            while self.server.n_flooded < 1 << 30:
                self.server.n_flooded += self.wfile.write(bytes(1 << 20))

    def _fail(self, status: int, code: str) -> None:
        self._answer(status, json.dumps({"errors": [{"code": code, "message": "secret?"}]}).encode(), {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.server.packs:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def certificate(folder: Path, address: str) -> Path:
    """A key and a certificate of an address that signs itself, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


class _Away(BaseHTTPRequestHandler):
    """Sends everybody on to an address of the inside."""

    inside = ""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def _say(self, status: int, headers: dict[str, str]) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        if self.path.startswith("/v2/login/"):
            return self._say(401, {"WWW-Authenticate": f'Bearer realm="{self.inside}token"'})
        return self._say(307, {"Location": self.inside})

    def do_POST(self) -> None:
        self._say(202, {"Location": self.inside})


@contextmanager
def elsewhere(folder: Path, inside: str) -> Iterator[str]:
    """A registry of another machine, by https, that sends its callers to `inside`; its host."""
    handler = type("_Here", (_Away,), {"inside": inside})
    server = ThreadingHTTPServer(("127.0.0.2", 0), handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with served(server):
        yield f"127.0.0.2:{server.server_address[1]}"
