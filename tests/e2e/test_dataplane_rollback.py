"""Switching versions under traffic: every answer is whole, none is lost, and the next one is the new version's."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataplane_rig import ENDPOINT, PATH, ROWS, DataPlane, Reply, dataplane, plan, reply_of, shared_store

from lockgate.traffic.plan import N_SLOTS, Route, route, slot_of

BODY = json.dumps({"inputs": ROWS, "key": "user-1"}).encode()
TIMEOUT_S = 60.0


def ask(connection: http.client.HTTPConnection, body: bytes = BODY) -> Reply:
    connection.request("POST", PATH, body, {"content-type": "application/json"})
    return reply_of(connection.getresponse())


class Callers:
    """Threads that ask without a pause, each on its own connection, and keep what they got."""

    def __init__(self, plane: DataPlane, n_threads: int = 2) -> None:
        self.replies: list[Reply] = []
        self.failures: list[Exception] = []
        self._plane = plane
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(n_threads)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        connection = self._plane.connect()
        try:
            while not self._enough.is_set():
                self.replies.append(ask(connection))
        except (OSError, http.client.HTTPException, ValueError) as failure:
            self.failures.append(failure)


def test_no_answer_is_mixed_or_lost_while_versions_switch(tmp_path: Path) -> None:
    store = shared_store()
    with dataplane(store, tmp_path) as plane:
        plane.target.apply(plan(store, 1, "1.0.0", "2.0.0"))
        assert plane.target.wait(ENDPOINT, 1, TIMEOUT_S).reached(1)
        mine = plane.connect()
        ask(mine)
        with Callers(plane) as callers:
            for generation in range(2, 42):
                live, other = ("1.0.0", "2.0.0") if generation % 2 else ("2.0.0", "1.0.0")
                plane.target.apply(plan(store, generation, live, other))
                # Whoever asks after the command got its answer gets the version of the command.
                assert ask(mine).body["version"] == live
        assert not callers.failures and len(callers.replies) > 40
        versions = set()
        for reply in callers.replies:
            assert reply.status == 200
            built = store.versions[reply.body["version"]]
            assert reply.body["predictions"] == built.expected
            assert reply.body["digest"] == built.ref.digest
            assert reply.headers["x-lockgate-version"] == reply.body["version"]
            versions.add(reply.body["version"])
        assert versions == {"1.0.0", "2.0.0"}


def test_a_version_that_must_be_loaded_first_takes_over_without_a_gap(tmp_path: Path) -> None:
    store = shared_store()
    with dataplane(store, tmp_path) as plane:
        plane.target.apply(plan(store, 1, "1.0.0"))
        assert plane.target.wait(ENDPOINT, 1, TIMEOUT_S).reached(1)
        with Callers(plane) as callers:
            plane.target.apply(plan(store, 2, "2.0.0", "1.0.0"))
            assert plane.target.wait(ENDPOINT, 2, TIMEOUT_S).reached(2)
            connection = plane.connect()
            assert ask(connection).body["version"] == "2.0.0"
        assert not callers.failures
        order = [reply.body["version"] for reply in callers.replies]
        assert {reply.status for reply in callers.replies} == {200} and set(order) <= {"1.0.0", "2.0.0"}


def test_an_idle_endpoint_follows_without_a_request(tmp_path: Path) -> None:
    store = shared_store()
    with dataplane(store, tmp_path) as plane:
        plane.target.apply(plan(store, 1, "1.0.0", "2.0.0"))
        assert plane.target.wait(ENDPOINT, 1, TIMEOUT_S).reached(1)
        plane.target.apply(plan(store, 2, "2.0.0", "1.0.0"))
        observed = plane.target.wait(ENDPOINT, 2, TIMEOUT_S)
        assert observed.reached(2) and observed.workers[0].n_requests == 0


def test_a_split_sends_each_key_to_the_version_of_its_slot(tmp_path: Path) -> None:
    store = shared_store()
    one, two = (store.versions[version].ref for version in ("1.0.0", "2.0.0"))
    split = plan(
        store,
        1,
        "1.0.0",
        "2.0.0",
        routes=(Route(package=one.digest, weight=7_000), Route(package=two.digest, weight=N_SLOTS - 7_000)),
    )
    with dataplane(store, tmp_path) as plane:
        plane.target.apply(split)
        assert plane.target.wait(ENDPOINT, 1, TIMEOUT_S).reached(1)
        connection = plane.connect()
        for number in range(60):
            key = f"user-{number}"
            reply = ask(connection, json.dumps({"inputs": ROWS, "key": key}).encode())
            assert reply.body["digest"] == route(split, slot_of(key, split.salt))


def test_a_polite_end_loses_no_request(tmp_path: Path, eventually: Callable[..., object]) -> None:
    store = shared_store()
    with dataplane(store, tmp_path) as plane:
        plane.target.apply(plan(store, 1, "1.0.0"))
        assert plane.target.wait(ENDPOINT, 1, TIMEOUT_S).reached(1)
        late = plane.connect()
        late.putrequest("POST", PATH)
        late.putheader("content-type", "application/json")
        late.putheader("content-length", str(len(BODY)))
        late.endheaders(BODY[:10])
        eventually(lambda: plane.predict().status == 200)
        plane.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refuses(plane))
        late.send(BODY[10:])
        assert reply_of(late.getresponse()).status == 200
        plane.process.communicate(timeout=30)
        assert plane.process.returncode == 0


def _refuses(plane: DataPlane) -> Any:
    try:
        plane.connect().connect()
    except ConnectionRefusedError:
        return True
    return False
