"""`HttpHub` against a real server on the loopback interface, over SQLite; and what the server says to others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import pytest

from lockgate.access.roles import everywhere
from lockgate.adapters.http.gate import Authenticate, Limits
from lockgate.adapters.http.problems import STATUS, first_level, problem, status_of
from lockgate.adapters.hubs.http import HttpHub
from lockgate.app.http.server import HubServer, by_claimed_name, create_app
from lockgate.core import errors
from lockgate.core.errors import (
    Bug,
    Corrupt,
    Forbidden,
    Invalid,
    LockgateError,
    NotFound,
    Unavailable,
    Unsupported,
)
from lockgate.core.messages import Command, Query, Receipt
from lockgate.hub.authority import Session, Unauthenticated, embedded
from lockgate.hub.kernel import Hub
from lockgate.hub.messages import ChangesSince, Status, VerifyAudit
from lockgate.hub.table import COMMAND_BY_TAG
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_suite import HubContract
from lockgate.testing.hub_world import HubWorld

DECLARE = DeclareModel(id="c1", model="main/x", tier="low", owner="team", purpose="x")


@contextmanager
def running(
    hub_for: Callable[[Session], Hub], authenticate: Authenticate = by_claimed_name
) -> Iterator[HubServer]:
    ready = threading.Event()
    server = HubServer(create_app(hub_for, authenticate), 0, ready=lambda port: ready.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        server.stop()
        thread.join(30)


class Switch:
    """One server for all tests of this file; behind it, the world of the test that runs."""

    def __init__(self) -> None:
        self.world: HubWorld | None = None
        self.url = ""

    def hub(self, session: Session) -> Hub:
        assert self.world is not None
        return self.world.hub(session.actor)


@pytest.fixture(scope="module")
def switch() -> Iterator[Switch]:
    switch = Switch()
    with running(switch.hub) as server:
        switch.url = server.url
        yield switch


@pytest.fixture
def connect(switch: Switch, sqlite_world: HubWorld) -> Iterator[Callable[[str], HttpHub]]:
    switch.world, hubs = sqlite_world, []

    def to(actor: str) -> HttpHub:
        hubs.append(HttpHub(switch.url, actor=actor))
        return hubs[-1]

    yield to
    for hub in hubs:
        hub.close()


class TestHttpHub(HubContract):
    @pytest.fixture
    def connect(self, connect: Callable[[str], HttpHub]) -> Callable[[str], Hub]:
        return connect


@pytest.mark.parametrize(
    "actor",
    ["ann", "ann@example.org", "Ann B. Cole", "j\u00f6rg", "100%", "\u5c71\u7530", "a/b?c#d", "bot:ci"],
)
def test_any_name_arrives_as_it_was_sent(connect: Callable[[str], HttpHub], actor: str) -> None:
    connect(actor).execute(DECLARE)
    assert [change.actor for change in connect("x").ask(ChangesSince()).changes] == [actor]


class Raising:
    """A hub that fails as it is told."""

    session: Session = embedded("ann")

    def __init__(self, error: Exception) -> None:
        self.error = error

    def execute(self, command: Command) -> Receipt:
        raise self.error

    def ask(self, query: Query) -> Any:
        raise self.error


FIRST_LEVEL = [
    each for each in vars(errors).values() if isinstance(each, type) and each.__base__ is LockgateError
]


@pytest.mark.parametrize("level", FIRST_LEVEL, ids=lambda level: level.__name__)
def test_an_error_keeps_its_class_code_facts_and_remedy(level: type[LockgateError]) -> None:
    leaf = type("Leaf", (level,), {"code": "room.leaf"})
    hub = Raising(leaf("it \u00abbroke\u00bb", remedy="mend it", names=["a", "b"], limit=3, message_id="m"))
    with running(lambda session: hub) as server, HttpHub(server.url, actor="ann") as remote:
        for call in (lambda: remote.execute(DECLARE), lambda: remote.ask(Status())):
            with pytest.raises(level) as caught:
                call()
            assert caught.value.record() == hub.error.record()  # type: ignore[attr-defined]
            assert str(caught.value) == "it \u00abbroke\u00bb"


def test_what_nobody_foresaw_is_a_bug_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with (
        running(lambda session: Raising(ZeroDivisionError("secret"))) as server,
        HttpHub(server.url, actor="ann") as remote,
        pytest.raises(Bug) as caught,
    ):
        remote.execute(DECLARE)
    assert caught.value.code == "http.hub-failed"
    assert "secret" not in msgspec.json.encode(caught.value.record()).decode()
    assert "ZeroDivisionError: secret" in caplog.text


def test_facts_that_are_no_json_do_not_cost_the_answer() -> None:
    status, body = problem(Invalid("x", remedy="y", odd=object(), when=1))
    assert status == 400
    assert msgspec.json.decode(body)["facts"]["when"] == 1


def test_the_table_of_statuses_knows_every_first_level_class() -> None:
    assert set(FIRST_LEVEL) <= set(STATUS)
    assert all(400 <= status < 600 for status in STATUS.values())


def test_every_error_of_the_program_has_a_status_and_a_kind() -> None:
    def below(root: type[LockgateError]) -> Iterator[type[LockgateError]]:
        for each in root.__subclasses__():
            yield each
            yield from below(each)

    for each in below(LockgateError):
        if each.__module__.startswith("lockgate."):
            error = each("x", remedy="y")
            assert first_level(error) in FIRST_LEVEL
            assert (status_of(error) >= 500) == (
                first_level(error) in (Unsupported, Unavailable, Corrupt, Bug)
            ) or (status_of(error) in (405, 408, 415, 429))


@pytest.fixture
def client(switch: Switch, sqlite_world: HubWorld) -> Iterator[httpx.Client]:
    switch.world = sqlite_world
    headers = {"Lockgate-Actor": "ann", "Content-Type": "application/json"}
    with httpx.Client(base_url=switch.url, headers=headers, trust_env=False, verify=False) as client:
        yield client


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert {"type", "title", "detail", "kind", "remedy", "facts", "retryable"} <= document.keys()
    return document


def test_health(client: httpx.Client) -> None:
    response = client.get("/v1/health")
    assert response.json() == {"status": "ok", "protocol": "lockgate.hub/1"}


def test_a_message_nobody_knows_is_answered_with_its_neighbours(client: httpx.Client) -> None:
    response = client.post("/v1/execute", content=b'{"type":"delivery.promot-version","id":"c"}')
    document = refused(response, 400, "http.unknown-message")
    assert document["facts"]["near"][0] == "delivery.promote-version"
    assert "delivery.promote-version" in document["remedy"]


@pytest.mark.parametrize("path,tag", [("/v1/execute", "hub.status"), ("/v1/ask", "registry.declare-model")])
def test_questions_and_commands_have_their_own_doors(client: httpx.Client, path: str, tag: str) -> None:
    refused(client.post(path, json={"type": tag}), 400, "http.unknown-message")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b'{"type":1}',
        b'{"type":null}',
        b'{"type":"hub.status","extra":1}',
        b'{"type":"hub.status","endpoint":7}',
        b'{"type":"hub.status","endpoint":"\\ud800"}',
        b'{"type":"hub.status","endpoint":"\xff"}',
        b'{"type":"hub.changes-since","seq":1.5}',
        b'{"type":"hub.status"} trailing',
        b"[" * 100_000,
        b'{"type":"hub.status","extra":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"extra":' * 100_000 + b"{}" + b"}" * 100_000,
    ],
)
def test_a_body_that_is_no_message_is_the_callers_mistake(client: httpx.Client, body: bytes) -> None:
    refused(client.post("/v1/ask", content=body), 400, "http.message-malformed")


@pytest.mark.parametrize("seq", [-1, -(2**63), 2**63, 2**64, 10**30])
@pytest.mark.parametrize("limit", [-1, 0, 2**63, 10**30])
def test_no_number_is_too_odd_for_a_question(client: httpx.Client, seq: int, limit: int) -> None:
    assert client.post("/v1/execute", content=msgspec.json.encode(DECLARE)).status_code == 200
    response = client.post("/v1/ask", json={"type": "hub.changes-since", "seq": seq, "limit": limit})
    assert response.status_code == 200
    assert len(response.json()["changes"]) == (1 if seq <= 0 < limit else 0)


@pytest.mark.parametrize("seq", [-(2**63), -1, 0, 2**63 - 1, 2**63, 10**30])
def test_no_number_is_too_odd_for_a_proof(client: httpx.Client, seq: int) -> None:
    response = client.post("/v1/ask", json={"type": "hub.prove-entry", "seq": seq})
    assert response.status_code == 404, response.text


@pytest.mark.parametrize("named", ["x", "-1", "1.5", "9" * 5_000, "\x00", "note\n\n\u2014 key sig\n"])
def test_what_is_no_checkpoint_of_this_journal_says_nothing_about_the_journal(
    client: httpx.Client, named: str
) -> None:
    for query in (
        {"type": "hub.prove-entry", "seq": 1, "checkpoint": named},
        {"type": "hub.prove-consistency", "old": named},
    ):
        response = client.post("/v1/ask", json=query)
        assert response.status_code in (400, 404), response.text


@pytest.mark.parametrize(
    "text", ["\x00", "a\x00b", "\U0010ffff", "../..", "x" * 100_000, "'; DROP TABLE events;--", "\u202e"]
)
def test_no_text_is_too_odd_for_a_command(client: httpx.Client, text: str) -> None:
    """Every text field of every command, one after the other: an answer or a problem of the caller, never a crash."""
    for tag, command in COMMAND_BY_TAG.items():
        for field in msgspec.structs.fields(command):
            body = {**_filled(command), "type": tag, field.encode_name: text}
            response = client.post("/v1/execute", json=body)
            assert response.status_code in (200, 400, 409), (tag, field.name, response.text)
    assert client.post("/v1/ask", json={"type": "hub.verify-audit"}).json()["ok"]


def _filled(command: type[Command]) -> dict[str, Any]:
    """Plausible content for every field of a command."""
    plausible: dict[str, Any] = {
        "id": f"id-{command.__name__}",
        "version": "main/x@1.0.0",
        "model": "main/x",
        "dataset": "main/d",
        "environment": "prod",
        "endpoint": "prod/main/x",
        "namespace": "main",
        "tier": "low",
        "sensitivity": "open",
        "fallback": {"kind": "none"},
        "policy": {"name": "p", "version": 1, "tiers": {}},
        "snapshots": {},
        "applied": True,
    }
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(command):
        if field.encode_name in plausible:
            values[field.encode_name] = plausible[field.encode_name]
        elif field.type is int:
            values[field.encode_name] = 1
        elif str(field.type).startswith("tuple"):
            values[field.encode_name] = []
        elif field.type is str:
            values[field.encode_name] = "x"
    return values


def test_nobody_asks_anonymously(client: httpx.Client) -> None:
    for name in ("", "%20", "%00", "a%0Ab", "x" * 129):
        response = client.post("/v1/ask", json={"type": "hub.status"}, headers={"Lockgate-Actor": name})
        refused(response, 400, "http.actor-missing")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil:80"])
def test_a_request_to_another_host_name_is_refused(client: httpx.Client, host: str) -> None:
    """A web page that lets its own name point to 127.0.0.1 must not get in."""
    response = client.post("/v1/ask", json={"type": "hub.status"}, headers={"Host": host})
    refused(response, 403, "http.host-refused")


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:80"])
def test_this_machine_has_more_than_one_name(client: httpx.Client, host: str) -> None:
    assert client.post("/v1/ask", json={"type": "hub.status"}, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("media_type", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_only_json_is_taken(client: httpx.Client, media_type: str) -> None:
    """A form of a web page cannot send JSON without asking the hub first."""
    headers = {"Content-Type": media_type}
    refused(client.post("/v1/ask", content=b"{}", headers=headers), 415, "http.content-type")


def test_a_body_has_a_limit(client: httpx.Client) -> None:
    large = b" " * (Limits().body_bytes + 1)
    refused(client.post("/v1/execute", content=large), 413, "http.body-too-large")
    refused(client.post("/v1/execute", content=iter([large])), 413, "http.body-too-large")


def test_other_routes_and_methods(client: httpx.Client) -> None:
    document = refused(client.get("/v1/healht"), 404, "http.unknown-route")
    assert "/v1/health" in document["remedy"]
    refused(client.get("/v1/execute"), 405, "http.method-refused")
    refused(client.delete("/v1/ask"), 405, "http.method-refused")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost"])
def test_the_server_listens_to_this_machine_only(host: str) -> None:
    with pytest.raises(Unsupported) as caught:
        HubServer(create_app(lambda session: Raising(Bug("x", remedy="y")), by_claimed_name), 0, host=host)
    assert caught.value.code == "http.identities-unproven"


TOKENS = {
    "t-vic": Session(actor="vic@example.org", grants=everywhere({"viewer"}), claimed=False),
    "t-ci": Session(actor="ci", grants=everywhere({"ci"}), claimed=False, kind="service"),
}


def by_token(headers: Mapping[str, str]) -> Session:
    token = headers.get("authorization", "").removeprefix("Bearer ")
    if token not in TOKENS:
        raise Unauthenticated("this token is unknown", remedy="lockgate login")
    return TOKENS[token]


def test_a_token_proves_who_asks_and_the_hub_says_who_that_is(sqlite_world: HubWorld) -> None:
    with running(lambda session: sqlite_world.hub_for(session), by_token) as server:
        with HttpHub(server.url, actor="boss", token=lambda: "t-vic") as vic:
            assert (vic.session.actor, vic.session.claimed) == ("vic@example.org", False)
            assert vic.session.grants == TOKENS["t-vic"].grants
            vic.ask(Status())
            receipt = vic.execute(DECLARE)
        with HttpHub(server.url, token=lambda: "t-ci") as robot:
            assert robot.session.kind == "service"
        with HttpHub(server.url, actor="boss") as boss:
            for call in (lambda: boss.session, lambda: boss.execute(DECLARE), lambda: boss.ask(Status())):
                with pytest.raises(Forbidden) as caught:
                    call()
                assert (caught.value.code, caught.value.remedy) == ("http.unauthenticated", "lockgate login")
        answer = httpx.post(f"{server.url}/v1/ask", json={"type": "hub.status"}, trust_env=False)
    assert receipt.refusal is not None
    assert [reason.rule for reason in receipt.refusal.reasons] == ["hub.permission"]
    refused(answer, 401, "http.unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unavailable) as caught:
            HubServer(create_app(lambda session: Raising(Bug("x", remedy="y")), by_claimed_name), port)
    assert caught.value.code == "http.port-taken"
    assert caught.value.facts == {"port": port}


def test_nobody_there() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with HttpHub(url, actor="ann") as hub, pytest.raises(Unavailable) as caught:
            hub.ask(Status())
    assert caught.value.code == "hub.unreachable"
    assert caught.value.retryable


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "ftp://x", "http://", "http://x:y", "http://[::", "file:///etc"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        HttpHub(url, actor="ann")
    assert caught.value.code == "hub.address-invalid"


class Canned:
    """A server that answers each connection in turn with given bytes, or hangs up on None."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = answers
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Canned:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        self._listener.close()

    def _run(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
                length = int(
                    httpx.Headers([tuple(line.split(b": ", 1)) for line in head.split(b"\r\n")[1:]])[
                        "content-length"
                    ]
                )  # type: ignore[misc]
                while len(body) < length:
                    body += connection.recv(65_536)
                self.requests.append(body)
                if answer is not None:
                    connection.sendall(answer)


def http_answer(status: int, body: bytes, media_type: str = "application/json") -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode() + body


RECEIPT = Receipt(command_id="c1", head=7)


def test_a_connection_that_breaks_is_tried_once_more_with_the_same_command() -> None:
    answer = http_answer(200, msgspec.json.encode(RECEIPT))
    with Canned(None, answer) as server, HttpHub(server.url, actor="ann") as hub:
        assert hub.execute(DECLARE) == RECEIPT
    assert server.requests == [msgspec.json.encode(DECLARE)] * 2


def test_a_connection_that_keeps_breaking_is_an_outage() -> None:
    with (
        Canned(None, None) as server,
        HttpHub(server.url, actor="ann") as hub,
        pytest.raises(Unavailable) as caught,
    ):
        hub.execute(DECLARE)
    assert caught.value.code == "hub.unreachable"


@pytest.mark.parametrize(
    "status,level",
    [
        (400, Invalid),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (407, Invalid),
        (302, Invalid),
        (500, Bug),
        (501, Unsupported),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
@pytest.mark.parametrize(
    "body", [b"<html>bad gateway</html>", b"", b'{"kind": "LockgateError", "code": ""}', b"[]"]
)
def test_what_a_proxy_says_counts_by_its_status(status: int, level: type[LockgateError], body: bytes) -> None:
    with (
        Canned(http_answer(status, body, "text/html")) as server,
        HttpHub(server.url, actor="ann") as hub,
        pytest.raises(level) as caught,
    ):
        hub.ask(Status())
    assert caught.value.code == level.code
    assert caught.value.remedy


def test_no_class_is_looked_up_by_a_name_from_the_wire() -> None:
    body = b'{"kind":"builtins.SystemExit","code":"x.y","detail":"d","facts":{"message":"m","remedy":"r","self":1}}'
    with (
        Canned(http_answer(400, body)) as server,
        HttpHub(server.url, actor="ann") as hub,
        pytest.raises(Invalid) as caught,
    ):
        hub.ask(Status())
    assert (caught.value.code, caught.value.message, caught.value.facts) == ("x.y", "d", {})


@pytest.mark.parametrize("body", [b"{}", b"<html/>", b'{"command_id": 1}', b""])
def test_an_answer_of_something_else_is_named(body: bytes) -> None:
    with (
        Canned(http_answer(200, body)) as server,
        HttpHub(server.url, actor="ann") as hub,
        pytest.raises(Unavailable) as caught,
    ):
        hub.execute(DECLARE)
    assert caught.value.code == "hub.answer-unreadable"


def test_an_answer_of_a_later_release_may_say_more() -> None:
    body = msgspec.json.encode({**msgspec.to_builtins(RECEIPT), "mood": "good"})
    with Canned(http_answer(200, body)) as server, HttpHub(server.url, actor="ann") as hub:
        assert hub.execute(DECLARE) == RECEIPT


def test_a_hub_answers_only_what_the_roles_of_the_session_allow(sqlite_world: HubWorld) -> None:
    viewer = frozenset({"viewer"})
    with (
        running(lambda session: sqlite_world.hub(session.actor, viewer)) as server,
        HttpHub(server.url, actor="vic") as hub,
    ):
        hub.ask(Status())
        with pytest.raises(Forbidden) as caught:
            hub.ask(VerifyAudit())
        receipt = hub.execute(DECLARE)
    assert caught.value.code == "hub.not-allowed"
    assert receipt.refusal is not None
    assert [reason.rule for reason in receipt.refusal.reasons] == ["hub.permission"]
