"""The reader of a tracking server, against what a real `mlflow server` answered to exactly these requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lockgate.adapters.imports.mlflow_model import SourceMissing, read_mlmodel, read_model
from lockgate.adapters.imports.mlflow_sources import (
    ArtifactsElsewhere,
    ReferenceInvalid,
    ServerRefused,
    ServerSource,
    ServerUnreachable,
)
from lockgate.core.errors import Unavailable
from lockgate.testing.loopback import served

RECORDED: dict[str, str] = json.loads((Path(__file__).with_name("assets") / "server.json").read_text())
_MISSING = '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not found"}'


class Tracking(ThreadingHTTPServer):
    """Says again what was recorded. `answers` replaces or adds some; with `wants`, only that header is let in."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.answers = dict(RECORDED)
        self.wants = ""
        self.moved = ""
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Asked(BaseHTTPRequestHandler):
    server: Tracking

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        self.server.asked.append((self.path, given))
        if self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved)
            self.end_headers()
            return
        known = self.path in self.server.answers
        allowed = given == self.server.wants or not self.server.wants
        body = (self.server.answers.get(self.path, _MISSING) if allowed else "{}").encode()
        self.send_response((200 if known else 404) if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def tracking() -> Iterator[Tracking]:
    with served(Tracking()) as server:
        yield server


def test_a_version_is_read_with_what_the_server_says_of_it(tracking: Tracking) -> None:
    source = ServerSource(tracking.url, "models:/flight-delay/1")
    origin = source.origin()
    assert (origin.system, origin.uri) == ("mlflow", f"{tracking.url}#models:/flight-delay/1")
    assert origin.params["rounds"] == "6"
    assert origin.metrics == {"auc": "0.716"}
    assert origin.run in next(path for path in RECORDED if "runs/get" in path)
    assert origin.notes == ("stage Production", "tag approved_by=risk-office")
    model = read_model(read_mlmodel(source), source)
    assert model.format == "lightgbm-text"
    assert model.data.decode() == next(RECORDED[path] for path in RECORDED if path.endswith("/model.lgb"))


def test_an_alias_leads_to_the_version_it_stands_at(tracking: Tracking) -> None:
    origin = ServerSource(tracking.url + "/", "models:/flight-delay@champion").origin()
    assert origin.uri.endswith("#models:/flight-delay/2")
    assert origin.notes == ("alias champion",)
    assert origin.params["rounds"] == "9"


@pytest.mark.parametrize(
    "reference", ["models:/flight-delay/7", "models:/nobody/1", "models:/flight-delay@gone"]
)
def test_what_is_not_there_is_named(tracking: Tracking, reference: str) -> None:
    with pytest.raises(SourceMissing, match=reference.removeprefix("models:/").replace("@", "/")):
        ServerSource(tracking.url, reference)


@pytest.mark.parametrize(
    ("server", "reference"),
    [
        ("http://h", "flight-delay/1"),
        ("http://h", "models:/flight-delay"),
        ("http://h", "models:/flight-delay/0"),
        ("http://h", "models:/flight-delay/latest"),
        ("file:///x", "models:/flight-delay/1"),
        ("http://user:word@h", "models:/flight-delay/1"),
    ],
)
def test_a_reference_names_a_version_and_a_server_without_a_password(server: str, reference: str) -> None:
    with pytest.raises(ReferenceInvalid) as refused:
        ServerSource(server, reference)
    assert "word" not in refused.value.message.replace("password", "")


@pytest.mark.parametrize(
    ("credential", "header"),
    [
        ("a-token", "Bearer a-token"),
        ("ada:open sesame", "Basic " + base64.b64encode(b"ada:open sesame").decode()),
    ],
)
def test_a_credential_goes_with_every_request(tracking: Tracking, credential: str, header: str) -> None:
    tracking.wants = header
    with pytest.raises(ServerRefused) as refused:
        ServerSource(tracking.url, "models:/flight-delay/1")
    assert "--credential" in refused.value.remedy
    tracking.asked.clear()
    source = ServerSource(tracking.url, "models:/flight-delay/1", credential)
    read_mlmodel(source)
    source.origin()
    assert {given for _, given in tracking.asked} == {header}


def test_a_redirect_is_not_followed(tracking: Tracking) -> None:
    tracking.moved = f"{tracking.url}/elsewhere"
    with pytest.raises(ServerUnreachable, match="302"):
        ServerSource(tracking.url, "models:/flight-delay/1", "a-token")
    assert not any("elsewhere" in path for path, _ in tracking.asked)


@pytest.mark.parametrize("uri", ["s3://bucket/1/models/m-1/artifacts", "file:///srv/artifacts", ""])
def test_files_that_the_server_does_not_hand_out_are_not_fetched(tracking: Tracking, uri: str) -> None:
    where = "/api/2.0/mlflow/model-versions/get-download-uri?name=flight-delay&version=1"
    tracking.answers[where] = json.dumps({"artifact_uri": uri})
    with pytest.raises(ArtifactsElsewhere) as refused:
        ServerSource(tracking.url, "models:/flight-delay/1")
    assert "mlflow artifacts download" in refused.value.remedy


@pytest.mark.parametrize("answer", ["<html>", "[]", "{}", '{"model_version": {"name": 3}}'])
def test_something_else_that_answers_is_told_from_a_server(tracking: Tracking, answer: str) -> None:
    tracking.answers["/api/2.0/mlflow/model-versions/get?name=flight-delay&version=1"] = answer
    with pytest.raises(Unavailable):
        ServerSource(tracking.url, "models:/flight-delay/1")


def test_nobody_at_home(tracking: Tracking) -> None:
    with pytest.raises(ServerUnreachable, match="did not answer"):
        ServerSource("http://127.0.0.1:1", "models:/flight-delay/1")


def test_a_version_without_a_run_has_no_params(tracking: Tracking) -> None:
    path = "/api/2.0/mlflow/model-versions/get?name=flight-delay&version=1"
    known = json.loads(tracking.answers[path])
    del known["model_version"]["run_id"]
    tracking.answers[path] = json.dumps(known)
    origin = ServerSource(tracking.url, "models:/flight-delay/1").origin()
    assert (origin.run, origin.params, origin.metrics) == ("", {}, {})
