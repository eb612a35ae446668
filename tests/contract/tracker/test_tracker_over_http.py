"""A tracker behind HTTP, asked by hubs in memory, on SQLite, and by one that is itself reached over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lockgate.adapters.hubs.http import HttpHub
from lockgate.adapters.notify.opening import open_tracker
from lockgate.adapters.notify.posting import Poster, parse_networks
from lockgate.adapters.notify.tracker import HttpTracker
from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.outbox import SqliteOutbox
from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.app.http.server import HubServer, by_claimed_name, create_app
from lockgate.governance.tickets.ports import TrackerUnavailable
from lockgate.governance.tickets.tracker import TicketAnswer, TicketQuestion
from lockgate.hub.kernel import Hub
from lockgate.testing.clock import FakeClock
from lockgate.testing.hub_world import HubWorld
from lockgate.testing.ticket_desk import KEY, OPEN, TicketDesk, saying, ticket_desk
from lockgate.testing.ticket_suite import TicketContract

QUESTION = TicketQuestion(
    ticket="OPS-1",
    version="main/m@1.0.0",
    environment="prod",
    actor="ann",
    requested_at=0,
    command="c1\r\nx: y",
)
LOOPBACK = ["127.0.0.0/8"]


class TestTicketsInMemory(TicketContract):
    @pytest.fixture
    def world(self) -> HubWorld:
        return HubWorld.in_memory()


class TestTicketsOnSqlite(TicketContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> HubWorld:
        store = SqliteStore(tmp_path / "journal.db")
        return HubWorld(SqliteJournal(store), SqliteOutbox(store))


class TestTicketsOverHttp(TestTicketsOnSqlite):
    @pytest.fixture
    def connect(self, world: HubWorld) -> Iterator[Callable[[str], Hub]]:
        ready = threading.Event()
        app = create_app(lambda session: world.hub(session.actor), by_claimed_name)
        server = HubServer(app, 0, ready=lambda port: ready.set())
        thread = threading.Thread(target=server.run)
        thread.start()
        assert ready.wait(30)
        with ExitStack() as hubs:
            yield lambda actor: hubs.enter_context(HttpHub(server.url, actor=actor))
        server.stop()
        thread.join(30)


@pytest.fixture
def desk() -> Iterator[TicketDesk]:
    with ticket_desk() as desk:
        yield desk


def test_an_answer_comes_through(desk: TicketDesk) -> None:
    tracker = open_tracker(desk.url, "env:KEY", FakeClock(), networks=LOOPBACK, secret=lambda reference: KEY)
    assert tracker.ask(QUESTION) == TicketAnswer(
        known=True, open=True, title="Raise the roof", url="https://tickets.example.com/OPS-1"
    )
    desk.reply = saying({"known": False, "open": False, "priority": 3})
    assert tracker.ask(QUESTION) == TicketAnswer(known=False, open=False)


def test_an_address_may_be_a_secret_and_both_are_read_at_each_question(desk: TicketDesk) -> None:
    kept = {"env:URL": desk.url, "env:KEY": "another key, long enough"}
    tracker = open_tracker("env:URL", "env:KEY", FakeClock(), networks=LOOPBACK, secret=kept.__getitem__)
    with pytest.raises(TrackerUnavailable, match="401"):
        tracker.ask(QUESTION)
    kept["env:KEY"] = KEY
    assert tracker.ask(QUESTION).open
    assert (len(desk.asked), desk.strangers) == (1, 1)


def test_a_key_that_is_none_is_told_with_what_to_do(desk: TicketDesk) -> None:
    tracker = open_tracker(
        desk.url, "env:KEY", FakeClock(), networks=LOOPBACK, secret=lambda reference: "short"
    )
    with pytest.raises(TrackerUnavailable, match="less than 16 bytes") as caught:
        tracker.ask(QUESTION)
    assert "openssl rand" in caught.value.remedy
    assert desk.asked == []


def test_an_inner_network_is_asked_only_where_it_was_allowed(desk: TicketDesk) -> None:
    tracker = open_tracker(desk.url, "env:KEY", FakeClock(), networks=[], secret=lambda reference: KEY)
    with pytest.raises(TrackerUnavailable, match="not a public address"):
        tracker.ask(QUESTION)
    assert desk.asked == []


def test_a_tracker_that_never_answers_is_given_up(desk: TicketDesk) -> None:
    leaving = threading.Event()

    def never(question: object) -> tuple[int, bytes]:
        assert leaving.wait(30)
        return saying(OPEN)({})

    desk.reply = never
    poster = Poster(parse_networks(LOOPBACK), patience_s=0.2)
    tracker = HttpTracker(poster, FakeClock(), url=lambda: desk.url, secret=lambda: KEY)
    with pytest.raises(TrackerUnavailable, match=r"no answer within 0\.2 s"):
        tracker.ask(QUESTION)
    leaving.set()
