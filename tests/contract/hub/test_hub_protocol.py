"""The protocol around the messages: a path each, conditional reads, changes as they happen, limits, its description."""

from __future__ import annotations

import contextlib
import inspect
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from lockgate.access.roles import everywhere
from lockgate.adapters.http.gate import Buckets, Limits, Tally
from lockgate.adapters.hubs.http import HttpHub
from lockgate.app.http.server import Behind, HubServer, by_claimed_name, create_app
from lockgate.core.digests import sha256
from lockgate.core.errors import Unavailable
from lockgate.core.messages import tag_of
from lockgate.hub.authority import Session
from lockgate.hub.messages import ChangesSince, Status
from lockgate.hub.table import COMMANDS, QUERIES
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted

LIMITS = Limits(body_s=0.5, request_s=5.0, n_commands=2, n_waiting=2, n_watchers=2, body_bytes=20_000)


class Served:
    """A hub over one world, with everything behind it."""

    def __init__(self, world: HubWorld, limits: Limits = LIMITS, proxies: tuple[str, ...] = ()) -> None:
        self.world = world
        self.n_answers = 0
        ready = threading.Event()
        self.app = create_app(
            self._hub,
            by_claimed_name,
            limits=limits,
            proxies=proxies,
            behind=Behind(head=lambda: world.journal.head().seq),
        )
        self.server = HubServer(self.app, 0, ready=lambda port: ready.set())
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        assert ready.wait(30)
        self.client = httpx.Client(
            base_url=self.server.url, headers={"Lockgate-Actor": "ann"}, trust_env=False, timeout=30
        )

    def _hub(self, session: Session) -> Any:
        self.n_answers += 1
        roles = everywhere({"viewer"}) if session.actor == "vic" else session.grants
        return self.world.hub_for(Session(actor=session.actor, grants=roles, claimed=True))

    def close(self) -> None:
        self.client.close()
        self.server.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def served(sqlite_world: HubWorld) -> Iterator[Served]:
    served = Served(sqlite_world)
    yield served
    served.close()


@pytest.fixture
def generous(sqlite_world: HubWorld) -> Iterator[Served]:
    served = Served(sqlite_world, Limits(actor_per_s=1e6, actor_burst=10**6))
    yield served
    served.close()


def declare(number: int) -> dict[str, Any]:
    return {"id": f"c{number}", "model": f"main/m{number}", "tier": "low", "owner": "o", "purpose": "p"}


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    document: dict[str, Any] = response.json()
    return document


def test_the_protocol_is_described_and_the_description_is_valid(served: Served) -> None:
    answer = served.client.get("/v1/openapi.json", headers={"Lockgate-Actor": ""})
    document = answer.json()
    OpenAPIV31SpecValidator(document).validate()
    operations = {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
    }
    for message in (*COMMANDS, *QUERIES):
        tag = tag_of(message)
        told = operations[tag] if tag in operations else operations[f"{tag}/post"]
        assert told["summary"], f"{message.__name__} has no docstring"
        assert told["description"] == inspect.getdoc(message)
        assert told["x-lockgate-permission"] == message.permission
        assert {"200", "400", "401", "403", "404", "409", "413", "429", "503"} <= told["responses"].keys()
    again = served.client.get("/v1/openapi.json", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_route_is_described(served: Served) -> None:
    described = served.client.get("/v1/openapi.json").json()["paths"]
    for route in served.app.routes:
        path = route.path.replace("{digest:str}", "{digest}")
        if path.endswith("/{tag:str}"):
            assert any(one.startswith(path.removesuffix("{tag:str}")) for one in described)
        else:
            assert path in described


def test_a_command_has_a_path_of_its_own_and_may_bring_its_id_as_a_header(served: Served) -> None:
    path, body = "/v1/commands/registry.declare-model", declare(1)
    first = served.client.post(path, json=body)
    assert first.json()["events"][0]["model"] == "main/m1"
    del body["id"]
    again = served.client.post(path, json=body, headers={"Idempotency-Key": "c1"})
    assert again.json() == first.json()
    typed = {**body, "type": "registry.declare-model"}
    assert (
        served.client.post("/v1/execute", json=typed, headers={"Idempotency-Key": "c1"}).json()
        == first.json()
    )
    reply = served.client.post(path, json=declare(1), headers={"Idempotency-Key": "other"})
    refused(reply, 400, "http.idempotency-key")
    refused(served.client.post(path, json=body), 400, "http.message-malformed")
    unknown = served.client.post("/v1/commands/registry.declare-modell", json=body)
    assert "registry.declare-model" in refused(unknown, 404, "http.unknown-operation")["remedy"]
    refused(served.client.post("/v1/commands/hub.status", json={}), 404, "http.unknown-operation")
    assert served.world.journal.head().seq == 1


def test_a_query_is_read_by_its_url(served: Served) -> None:
    story = Story(served.world.hub)
    story.found()
    accepted(story.register("one"))
    path = "/v1/queries/hub.list-versions"
    page = served.client.get(path, params={"model": MODEL_NAME, "limit": "5", "state": "candidate"}).json()
    assert [line["version"] for line in page["versions"]] == [f"{MODEL_NAME}@1.0.0"]
    asked = served.client.post(path, json={"model": MODEL_NAME})
    assert asked.json()["versions"] == page["versions"]
    for params in ({"model": MODEL_NAME, "limit": "many"}, {"model": MODEL_NAME, "lmit": "1"}, {}):
        refused(served.client.get(path, params=params), 400, "http.message-malformed")
    refused(served.client.get(path, params={"model": "main/other"}), 404, "hub.unknown-name")


def test_an_answer_that_has_not_changed_is_not_made_again(served: Served) -> None:
    story = Story(served.world.hub)
    story.found()
    path, params = "/v1/queries/hub.changes-since", {"limit": "3"}
    first = served.client.get(path, params=params)
    etag = first.headers["etag"]
    assert etag == f'"{sha256(first.content)}"'
    asked: list[int] = []
    entries = served.world.journal.entries
    served.world.journal.entries = lambda after, limit: asked.append(after) or entries(after, limit)  # type: ignore
    for known in (etag, f'"x", {etag}', f"W/{etag}"):
        again = served.client.get(path, params=params, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert asked == []
    # Whoever may not ask is not told that nothing has changed, either.
    reply = served.client.get(path, params=params, headers={"If-None-Match": etag, "Lockgate-Actor": "vic"})
    refused(reply, 403, "hub.not-allowed")
    accepted(story.register("one"))
    changed = served.client.get(path, params=params, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["head"]) == (200, first.json()["head"] + 1)


def test_an_answer_about_the_world_is_made_anew_and_still_has_its_etag(served: Served) -> None:
    Story(served.world.hub).found()
    first = served.client.get("/v1/queries/hub.status")
    again = served.client.get("/v1/queries/hub.status", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = served.client.get("/v1/queries/hub.status", headers={"If-None-Match": '"sha256:other"'})
    assert other.json() == first.json()


def events(response: httpx.Response) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in response.iter_lines():
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def test_changes_are_told_as_they_happen_and_a_listener_goes_on_where_it_was(generous: Served) -> None:
    story = Story(generous.world.hub)
    story.found()
    head = generous.world.journal.head().seq
    with generous.client.stream("GET", "/v1/changes") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = events(response)
        accepted(story.register("one"))
        event = next(told)
        assert (int(event["id"]), event["event"]) == (head + 1, "registry.version-registered/2")
        assert json.loads(event["data"])["summary"]
    accepted(story.register("two"))
    for where in ({"headers": {"Last-Event-ID": str(head)}}, {"params": {"after": str(head)}}):
        with generous.client.stream("GET", "/v1/changes", **where) as response:  # type: ignore[arg-type]
            told = events(response)
            assert [int(next(told)["id"]) for _ in range(2)] == [head + 1, head + 2]
    whole = generous.world.ask(ChangesSince(limit=1000)).changes
    with generous.client.stream("GET", "/v1/changes", params={"after": "0"}) as response:
        told = events(response)
        assert [json.loads(next(told)["data"]) for _ in whole] == msgspec.to_builtins(list(whole))


def test_whoever_may_not_read_the_audit_does_not_listen(served: Served) -> None:
    reply = served.client.get("/v1/changes", headers={"Lockgate-Actor": "vic"})
    refused(reply, 403, "hub.not-allowed")
    for position in ("-1", "abc", "1" * 30):
        reply = served.client.get("/v1/changes", headers={"Last-Event-ID": position})
        refused(reply, 400, "http.bad-event-id")


def test_streams_are_bounded_and_end_when_the_hub_stops(sqlite_world: HubWorld) -> None:
    served = Served(sqlite_world)
    with (
        served.client.stream("GET", "/v1/changes") as one,
        served.client.stream("GET", "/v1/changes") as two,
    ):
        lines = [response.iter_lines() for response in (one, two)]
        assert [next(each) for each in lines] == ["retry: 2000"] * 2
        refused(served.client.get("/v1/changes"), 503, "http.busy")
        served.server.stop()
        assert [list(each) for each in lines] == [[""], [""]]
    served.close()


def test_one_listener_leaves_streams_to_others(sqlite_world: HubWorld) -> None:
    served = Served(sqlite_world, Limits(n_watchers=9, actor_watchers=2, address_watchers=3))

    reading: list[Iterator[str]] = []

    def begins(response: httpx.Response) -> str:
        reading.append(response.iter_lines())
        return next(reading[-1])

    def listens(actor: str) -> httpx.Response:
        request = served.client.build_request("GET", "/v1/changes", headers={"Lockgate-Actor": actor})
        response = served.client.send(request, stream=True)
        if response.status_code != 200:
            response.read()
        return response

    def refusal(actor: str) -> str:
        return str(refused(listens(actor), 429, "http.too-many-requests")["detail"])

    try:
        first, second = listens("ann"), listens("ann")
        assert [begins(one) for one in (first, second)] == ["retry: 2000"] * 2
        assert "of this actor" in refusal("ann")
        assert begins(listens("bob")) == "retry: 2000"
        assert "of this address" in refusal("eve")
        # Whoever leaves makes a place, for himself as well.
        second.close()
        deadline = time.monotonic() + 20
        while (again := listens("ann")).status_code == 429 and time.monotonic() < deadline:
            assert again.headers["retry-after"] == "15"
        assert begins(again) == "retry: 2000"
    finally:
        served.close()


def test_connections_are_bounded_in_all_and_of_one_address(sqlite_world: HubWorld) -> None:
    """Who only connects, and says nothing, takes no place from those who come from elsewhere."""
    served = Served(sqlite_world, Limits(n_connections=6, address_connections=4))
    elsewhere = 0

    def knocks(address: str) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", served.server.port), source_address=(address, 0))
        connection.settimeout(20)
        return connection

    def answers(connection: socket.socket) -> bytes:
        connection.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(65_536)

    silent: list[socket.socket] = []
    try:
        silent = [knocks("127.0.0.2") for _ in range(4)]
        with knocks("127.0.0.2") as fifth:
            said = fifth.recv(65_536)
            assert said.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            assert b"http.too-many-requests" in said and b"Retry-After: 1" in said
            assert fifth.recv(1) == b""
        with knocks("127.0.0.3") as other, knocks("127.0.0.4") as another:
            assert [answers(one)[:12] for one in (other, another)] == [b"HTTP/1.1 200"] * 2
            with knocks("127.0.0.5") as seventh:
                said = seventh.recv(65_536)
                assert said.startswith(b"HTTP/1.1 503 ") and b"http.busy" in said
        silent.pop().close()
        deadline = time.monotonic() + 20
        while elsewhere != 200 and time.monotonic() < deadline:
            with knocks("127.0.0.2") as free, contextlib.suppress(OSError):
                elsewhere = int(answers(free).split()[1])
        assert elsewhere == 200
        assert served.app.state.tally.counts()["refused.connections"] >= 2
    finally:
        for one in silent:
            one.close()
        served.close()


def test_a_proxy_brings_everybody(sqlite_world: HubWorld) -> None:
    limits = Limits(n_connections=6, address_connections=1)
    served = Served(sqlite_world, limits, proxies=("127.0.0.1",))
    try:
        with contextlib.ExitStack() as open_ones:
            for _ in range(5):
                one = open_ones.enter_context(socket.create_connection(("127.0.0.1", served.server.port)))
                one.settimeout(20)
                one.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert one.recv(65_536).startswith(b"HTTP/1.1 200 ")
    finally:
        served.close()


def test_who_connects_and_says_nothing_is_shown_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HubServer.protocol, "head_timeout_s", 0.2)
    for said in (b"", b"GET /v1/health HTTP/1.1\r\nHost: loc"):
        with socket.create_connection(("127.0.0.1", served.server.port)) as connection:
            connection.settimeout(20)
            connection.sendall(said)
            assert connection.recv(1) == b""


def test_a_head_that_does_not_end_is_not_kept(served: Served) -> None:
    head = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n"
    for rest in (b"X: " + b"x" * 300_000, b"X: x\r\n" * 60_000):
        with socket.create_connection(("127.0.0.1", served.server.port)) as connection:
            connection.settimeout(20)
            try:
                connection.sendall(head + rest)
                answer = connection.recv(1_000)
            except ConnectionError:
                # The cut was faster than the reading of it.
                continue
            assert answer.startswith(b"HTTP/1.1 431 ")


def test_the_time_for_a_head_is_not_that_for_a_pause(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HubServer.protocol, "head_timeout_s", 0.05)
    with socket.create_connection(("127.0.0.1", served.server.port)) as connection:
        connection.settimeout(20)
        for _ in range(2):
            connection.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
            threading.Event().wait(0.2)


def test_who_asks_too_often_is_told_when_to_come_again(sqlite_world: HubWorld) -> None:
    served = Served(sqlite_world, Limits(actor_per_s=0.5, actor_burst=3))
    try:
        answers = [served.client.get("/v1/queries/hub.status") for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        document = refused(answers[3], 429, "http.too-many-requests")
        assert (document["kind"], document["retryable"]) == ("unavailable", True)
        assert 0 < int(answers[3].headers["retry-after"]) <= 2
        other = served.client.get("/v1/queries/hub.status", headers={"Lockgate-Actor": "bob"})
        assert other.status_code == 200
        with HttpHub(served.server.url, actor="ann") as hub:
            # Less than a few seconds are waited for.
            assert hub.ask(Status()).endpoints == {}
    finally:
        served.close()


def test_guessing_costs_more_than_asking(sqlite_world: HubWorld) -> None:
    served = Served(sqlite_world, Limits(address_per_s=0.001, address_burst=25))
    try:
        nobody = {"Lockgate-Actor": ""}
        answers = [served.client.get("/v1/queries/hub.status", headers=nobody).status_code for _ in range(4)]
        assert answers == [400, 400, 400, 429]
        assert sqlite_world.journal.head().seq == 0
    finally:
        served.close()


def test_nobody_has_more_shares_by_making_up_addresses(sqlite_world: HubWorld) -> None:
    """Behind a proxy only the last word counts, whether the proxy adds it to the line or adds a line."""
    limits = Limits(address_per_s=0.001, address_burst=3)
    served = Served(sqlite_world, limits, proxies=("127.0.0.1",))
    try:

        def status(*forwarded: str) -> int:
            headers = [("Lockgate-Actor", "ann"), *(("X-Forwarded-For", one) for one in forwarded)]
            return httpx.get(
                f"{served.server.url}/v1/openapi.json", headers=headers, trust_env=False
            ).status_code

        assert [status(f"10.0.0.{n}", "192.0.2.1") for n in range(4)] == [200, 200, 200, 429]
        assert [status(f"10.0.0.{n}, 192.0.2.1") for n in range(2)] == [429, 429]
        assert [status(f"2001:db8::{n}") for n in range(4)] == [200, 200, 200, 429]
        assert status("::ffff:192.0.2.1") == 429
        assert status("2001:db8:0:1::1") == 200
    finally:
        served.close()


def test_a_bucket_fills_again_and_never_above_its_burst() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 3, lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == 0.5
    assert buckets.take("b") == 0
    now[0] += 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]
    now[0] += 1000
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    buckets.charge("a", 100)
    assert buckets.take("a") == 2.0
    for number in range(20_000):
        buckets.take(str(number))
    assert len(buckets._levels) == 10_000


def test_what_is_counted_is_kept_once() -> None:
    tally = Tally()
    tally.add("x", 2)
    counts = tally.unkept()
    tally.add("x")
    tally.kept(counts)
    assert (tally.unkept(), tally.counts()) == ({"x": 1}, {"x": 3})


def test_a_queue_that_is_full_refuses_instead_of_growing(sqlite_world: HubWorld) -> None:
    served = Served(sqlite_world)
    begun, go_on = threading.Barrier(3), threading.Event()

    def hold(step: str) -> None:
        if step == "received" and not go_on.is_set():
            begun.wait(30)
            go_on.wait(30)

    sqlite_world.at = hold
    send = lambda number: served.client.post("/v1/commands/registry.declare-model", json=declare(number))  # noqa: E731
    try:
        with ThreadPoolExecutor(4) as pool:
            first = [pool.submit(send, number) for number in range(2)]
            begun.wait(30)
            waiting = [pool.submit(send, number) for number in range(2, 4)]
            while served.client.get("/v1/metrics").text.count('lane="commands"} 4') == 0:
                pass
            busy = send(9)
            document = refused(busy, 503, "http.busy")
            assert (document["retryable"], busy.headers["retry-after"]) == (True, "1")
            # Questions do not queue behind commands.
            assert served.client.get("/v1/queries/hub.status").status_code == 200
            go_on.set()
            assert [one.result().status_code for one in (*first, *waiting)] == [200] * 4
    finally:
        go_on.set()
        served.close()


def test_an_answer_that_takes_too_long_is_not_waited_for_and_the_command_is_found_by_its_id(
    sqlite_world: HubWorld, eventually: Callable[..., Any]
) -> None:
    served = Served(sqlite_world, Limits(request_s=0.2))
    go_on = threading.Event()
    sqlite_world.at = lambda step: None if step != "received" else bool(go_on.wait(30)) and None
    try:
        reply = served.client.post("/v1/commands/registry.declare-model", json=declare(1))
        document = refused(reply, 503, "http.took-too-long")
        assert document["retryable"]
        go_on.set()
        eventually(lambda: sqlite_world.journal.head().seq == 1)
        assert served.client.post("/v1/commands/registry.declare-model", json=declare(1)).json()["head"] == 1
        assert sqlite_world.journal.head().seq == 1
    finally:
        go_on.set()
        served.close()


def raw(served: Served, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", served.server.port)) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        return answer


def test_a_sender_that_does_not_go_on_is_let_go(served: Served) -> None:
    head = b"POST /v1/ask HTTP/1.1\r\nHost: localhost\r\nLockgate-Actor: ann\r\nContent-Type: application/json\r\n"
    begun = time.monotonic()
    answer = raw(served, head + b"Content-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"http.sender-too-slow" in answer
    assert time.monotonic() - begun < 10
    answer = raw(served, head + b"Content-Length: 1000000\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_nobody_wants_is_not_taken_for_ever(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request was answered, yet it goes on: slowly, as fast as it can, in pieces without a length."""
    monkeypatch.setattr(HubServer.protocol, "rest_timeout_s", 0.3)
    head = b"PUT /v1/x HTTP/1.1\r\nHost: evil.example\r\n"
    for framing, piece in (
        (b"Content-Length: 1000000000000\r\n\r\n", b"x"),
        (b"Content-Length: 1000000000000\r\n\r\n", b"x" * (1 << 20)),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ):
        with socket.create_connection(("127.0.0.1", served.server.port)) as connection:
            connection.settimeout(10)
            connection.sendall(head + framing)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")
            begun, n_bytes = time.monotonic(), 0
            with pytest.raises(OSError):
                while time.monotonic() < begun + 10:
                    connection.sendall(piece)
                    n_bytes += len(piece)
            assert n_bytes < 64 << 20


def test_a_url_has_a_limit(served: Served) -> None:
    """What routes and reads URLs remembers many of them, of strangers too."""
    for path in ("/v1/" + "x" * 9_000, "/v1/changes?after=" + "1" * 9_000):
        answer = raw(served, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 414 ")
    assert (
        served.client.get("/v1/queries/hub.list-versions", params={"model": "x" * 8_000}).status_code == 404
    )
    assert raw(served, b"GE T / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_what_is_left_of_a_refused_body_does_not_cost_the_connection(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port)) as connection:
        connection.settimeout(10)
        connection.sendall(b"PUT /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"x" * 2_000_000 + b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_what_was_counted_is_for_those_who_may_read_the_audit(served: Served) -> None:
    served.client.get("/v1/queries/hub.status", headers={"Host": "evil.example"})
    served.client.get("/v1/queries/hub.status", headers={"Lockgate-Actor": ""})
    text = served.client.get("/v1/metrics").text
    assert 'lockgate_hub_counted_total{what="refused.host"} 1' in text
    assert 'lockgate_hub_counted_total{what="refused.unauthenticated"} 1' in text
    assert "lockgate_hub_journal_entries 0" in text
    assert served.world.journal.head().seq == 0, "no stranger writes into the journal"
    refused(served.client.get("/v1/metrics", headers={"Lockgate-Actor": "vic"}), 403, "hub.not-allowed")


def test_health_says_when_the_store_does_not_answer(served: Served, eventually: Callable[..., Any]) -> None:
    assert served.client.get("/v1/health").json() == {"status": "ok", "protocol": "lockgate.hub/1"}

    class Down(Unavailable):
        code = "journal.down"

    def head() -> Any:
        raise Down("a secret place", remedy="x")

    served.world.journal.head = head  # type: ignore[method-assign]
    answer = eventually(lambda: (one := served.client.get("/v1/health")).status_code == 503 and one)
    assert answer.json() == {"status": "unavailable", "protocol": "lockgate.hub/1", "store": "journal.down"}


def test_declared_by_url_or_body_it_is_the_same_command(served: Served) -> None:
    """A retry may come by the other door."""
    with HttpHub(served.server.url, actor="ann") as hub:
        first = hub.execute(DeclareModel(**declare(5)))
    again = served.client.post("/v1/commands/registry.declare-model", json=declare(5))
    assert again.json()["head"] == first.head
