"""Where an MLflow model is read from: a folder, or a tracking server over its REST API.

The server's routes are those of MLflow 2 and 3 (`/api/2.0/mlflow`, and the artifact proxy `/api/2.0/mlflow-artifacts`).
Artifacts that only lie in a bucket are not fetched: their keys belong to the server. Redirects are not followed, and
no proxy or .netrc of this machine is asked, so that a credential goes to the server that was named and to nobody else.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from lockgate.adapters.imports.mlflow_model import MlmodelUnreadable, SourceMissing
from lockgate.core.errors import Forbidden, Invalid, Unavailable, Unsupported
from lockgate.registry.messages import Origin

T = TypeVar("T")

SYSTEM = "mlflow"
MAX_FILE_BYTES = 1 << 30
_PATIENCE_S = 60.0
_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>[1-9][0-9]*)|@(?P<alias>[^/@]+))\Z")


class ReferenceInvalid(Invalid):
    """Neither a folder nor `models:/NAME/VERSION` or `models:/NAME@ALIAS`."""

    code = "imports.bad-reference"


class ServerRefused(Forbidden):
    """The server wants to know who asks, or does not let that one read."""

    code = "imports.server-refused"


class ServerUnreachable(Unavailable):
    code = "imports.server-unreachable"


class ArtifactsElsewhere(Unsupported):
    """The server knows where the files are and does not hand them out. Fact: `uri`."""

    code = "imports.artifacts-elsewhere"


class FolderSource:
    """A model that lies in a folder, as `mlflow.MODEL.save_model` or a download leaves it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        if not self._folder.is_dir():
            raise SourceMissing(
                f"there is no folder {folder}", remedy="name the folder that holds the MLmodel file"
            )

    def read(self, path: str) -> bytes:
        real = (self._folder / _inside(path)).resolve()
        if not real.is_relative_to(self._folder):
            raise _outside(path)
        try:
            if real.stat().st_size > MAX_FILE_BYTES:
                raise _too_large(path)
            return real.read_bytes()
        except OSError as error:
            raise SourceMissing(
                f"{path} of the model cannot be read: {os.strerror(error.errno or 0)}",
                remedy="name the folder that holds the MLmodel file",
                path=path,
            ) from error

    def origin(self) -> Origin:
        # Where the folder lies is no property of the model: the same files are the same package anywhere.
        return Origin(system=SYSTEM, uri=f"folder:{self._folder.name}")


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    run_id: str | None = None
    current_stage: str = "None"
    aliases: tuple[str, ...] = ()
    tags: tuple[dict[str, str], ...] = ()


class ServerSource:
    """A registered version of a tracking server.

    Args:
        server: `http://HOST:PORT`, as MLFLOW_TRACKING_URI has it.
        reference: `models:/NAME/VERSION`, or `models:/NAME@ALIAS` for the version the alias stands at now.
        credential: `USER:PASSWORD`, or a token; empty for none.

    Raises:
        ReferenceInvalid, SourceMissing, ServerRefused, ServerUnreachable, ArtifactsElsewhere.
    """

    def __init__(self, server: str, reference: str, credential: str = "") -> None:
        match = _REFERENCE.match(reference)
        address = urlsplit(server)
        if match is None or address.scheme not in ("http", "https") or not address.hostname:
            raise ReferenceInvalid(
                f"{reference!r} on {address.scheme}://{address.hostname} names no version",
                remedy="write models:/NAME/VERSION, and --server http://HOST:PORT",
            )
        if address.username or address.password:
            raise ReferenceInvalid(
                "the server's address holds a password",
                remedy="give it by --credential env:NAME or file:PATH",
            )
        self._server = server.rstrip("/")
        user, colon, password = credential.partition(":")
        self._client = httpx.Client(
            base_url=self._server,
            auth=httpx.BasicAuth(user, password) if colon else None,
            headers={"Authorization": f"Bearer {credential}"} if credential and not colon else {},
            timeout=_PATIENCE_S,
            trust_env=False,
            verify=address.scheme == "https",
        )
        self._version = self._find(match)
        self._artifacts = self._locate()

    def _find(self, match: re.Match[str]) -> _Version:
        name, version, alias = match["name"], match["version"], match["alias"]
        if alias:
            found = self._get("registered-models/alias", name=name, alias=alias)
        else:
            found = self._get("model-versions/get", name=name, version=version)
        return _read(found.get("model_version"), _Version)

    def _locate(self) -> str:
        """Where the proxy of the server has the files."""
        version = self._version
        answer = self._get("model-versions/get-download-uri", name=version.name, version=version.version)
        uri = str(answer.get("artifact_uri", ""))
        if not uri.startswith("mlflow-artifacts:/"):
            raise ArtifactsElsewhere(
                f"the server says the files lie at {uri.partition(':')[0]}:, and does not hand them out itself",
                remedy="download them with: mlflow artifacts download --artifact-uri "
                f"models:/{version.name}/{version.version}, then import that folder",
                uri=uri,
            )
        return urlsplit(uri).path.strip("/")

    def read(self, path: str) -> bytes:
        whole = quote(f"{self._artifacts}/{_inside(path)}")
        return self._fetch(f"/api/2.0/mlflow-artifacts/artifacts/{whole}", {}, path)

    def origin(self) -> Origin:
        """The version, and its run when there is one; stage, aliases and tags are notes, they decide nothing here."""
        version = self._version
        notes = [] if version.current_stage == "None" else [f"stage {version.current_stage}"]
        notes += [f"alias {alias}" for alias in sorted(version.aliases)]
        notes += [f"tag {tag.get('key')}={tag.get('value')}" for tag in version.tags]
        params: dict[str, str] = {}
        metrics: dict[str, str] = {}
        if version.run_id:
            data = self._get("runs/get", run_id=version.run_id).get("run", {}).get("data", {})
            params = {one["key"]: str(one["value"]) for one in data.get("params", ())}
            metrics = {one["key"]: str(one["value"]) for one in data.get("metrics", ())}
        return Origin(
            system=SYSTEM,
            uri=f"{self._server}#models:/{version.name}/{version.version}",
            run=version.run_id or "",
            params=params,
            metrics=metrics,
            notes=tuple(notes),
        )

    def _get(self, route: str, **query: str) -> dict[str, Any]:
        about = "/".join(query.values())
        return _read(msgspec.Raw(self._fetch(f"/api/2.0/mlflow/{route}", query, about)), dict[str, Any])

    def _fetch(self, route: str, query: dict[str, str], about: str) -> bytes:
        try:
            with self._client.stream("GET", route, params=query) as response:
                self._check(response, about)
                data = bytearray()
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > MAX_FILE_BYTES:
                        raise _too_large(about)
                return bytes(data)
        except httpx.HTTPError as error:
            raise ServerUnreachable(
                f"{self._server} did not answer: {str(error) or type(error).__name__}",
                remedy="check --server; is the tracking server up?",
                server=self._server,
            ) from error

    def _check(self, response: httpx.Response, about: str) -> None:
        status = response.status_code
        if status == 200:
            return
        if status in (401, 403):
            raise ServerRefused(
                f"{self._server} refuses to show {about} ({status})",
                remedy="give --credential env:NAME or file:PATH, holding USER:PASSWORD or a token",
                server=self._server,
            )
        if status == 404:
            raise SourceMissing(
                f"{self._server} has no {about}",
                remedy="check name, version and --server",
                server=self._server,
            )
        raise ServerUnreachable(
            f"{self._server} answered {status} about {about}",
            remedy="check --server: it must be the tracking server itself",
            server=self._server,
        )


def _read(value: Any, kind: type[T]) -> T:
    try:
        if isinstance(value, msgspec.Raw):
            return msgspec.json.decode(value, type=kind)
        return msgspec.convert(value, kind)
    except msgspec.MsgspecError as error:
        raise ServerUnreachable(
            f"what answered is no MLflow server: {error}", remedy="check --server"
        ) from error


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or ".." in parts:
        raise _outside(path)
    return "/".join(parts)


def _outside(path: str) -> MlmodelUnreadable:
    return MlmodelUnreadable(
        f"MLmodel names {path!r}, which is outside of the model",
        remedy="do not import this model; it may have been tampered with",
        path=path,
    )


def _too_large(path: str) -> MlmodelUnreadable:
    return MlmodelUnreadable(
        f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB", remedy="import a smaller model", path=path
    )
