"""The notifier over a real receiver: signed CloudEvents, in order, tried again, given up, asked for again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from webhook_receiver import KEY, Got, Receiver, receiving

from lockgate.adapters.notify.cloud_events import (
    MAX_BODY_BYTES,
    KeyTooWeak,
    Message,
    cloud_event,
    signed_headers,
)
from lockgate.adapters.notify.notifier import MAX_ATTEMPTS, Notifier, origin_of
from lockgate.adapters.notify.open_lineage import OpenLineage
from lockgate.adapters.notify.posting import Poster, parse_networks
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.core.errors import LockgateError, NotFound
from lockgate.core.messages import Scope, Stamp
from lockgate.hub.ports import Delivery, Store
from lockgate.hub.telling.subscriptions import AddSubscription, RemoveSubscription, RequestRedelivery
from lockgate.registry.messages import VersionRejected
from lockgate.testing.clock import FakeClock
from lockgate.testing.hub_world import HubWorld, Story, accepted
from lockgate.testing.memory_blobs import MemoryBlobs

SECOND = 1_000_000


class Desk:
    """A hub on SQLite, its notifier, and what it may find behind references."""

    def __init__(self, store: Store, receiver: Receiver) -> None:
        self.store, self.receiver = store, receiver
        self.clock = FakeClock()
        self.story = Story(HubWorld(store.journal, store.outbox, clock=self.clock).hub)
        self.secrets = {"env:KEY": KEY, "env:URL": receiver.url + "/secret-path"}
        blobs = MemoryBlobs()
        self.notifier = Notifier(
            store.journal,
            store.deliveries,
            self.clock,
            Poster(parse_networks(["127.0.0.0/8"])),
            secret=self.secret,
            lineage=OpenLineage(store.journal, blobs, lambda: origin_of(store.journal)),
        )

    def secret(self, reference: str) -> str:
        if reference not in self.secrets:
            raise NotFound(f"{reference} is not set", remedy="set it")
        return self.secrets[reference]

    def add(self, name: str = "chat", **changes: Any) -> None:
        given = {"url": self.receiver.url, "secret": "env:KEY", **changes}
        accepted(self.story.do("petra", AddSubscription(id=self.story.new_id(), name=name, **given)))

    def work(self) -> None:
        """All that is due now."""
        while self.notifier.follow():
            pass
        while self.notifier.deliver():
            pass

    def listed(self, name: str = "chat") -> list[Delivery]:
        return list(self.store.deliveries.listed(name, 1000))[::-1]

    @property
    def head(self) -> int:
        return self.store.journal.head().seq


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with receiving() as receiver:
        yield Desk(open_sqlite(tmp_path / "state.db"), receiver)


def test_events_arrive_signed_and_in_order(desk: Desk) -> None:
    desk.story.found()
    since = desk.head
    desk.add()
    desk.story.train("one")
    accepted(desk.story.register("one"))
    desk.work()
    got = desk.receiver.got
    # Of what comes after the subscription, not of its own beginning.
    assert [one.seq for one in got] == list(range(since + 2, desk.head + 1))
    assert all(one.is_signed() for one in got)
    told = got[-1].event
    origin = origin_of(desk.store.journal)
    assert told["specversion"] == "1.0"
    assert told["id"] == f"{origin}/{desk.head}" == got[-1].headers["webhook-id"]
    assert told["source"] == f"urn:lockgate:journal:{origin}"
    assert told["type"] == "dev.lockgate.registry.version-registered/2"
    assert told["subject"] == "main/flight-delay"
    assert told["time"].endswith("Z")
    assert told["datacontenttype"] == "application/json"
    assert told["data"]["event"]["version"] == "main/flight-delay@1.0.0"
    assert told["data"]["actor"]
    assert got[-1].headers["content-type"].startswith("application/cloudevents+json")
    # CloudEvents attributes are lower-case letters and digits.
    assert all(name.isalnum() and name == name.lower() for name in told)
    desk.work()
    assert len(desk.receiver.got) == len(got)
    assert {one.state for one in desk.listed()} == {"delivered"}


def test_who_wants_some_events_gets_those(desk: Desk) -> None:
    desk.add("rooms", events=("registry.version-registered",))
    desk.add("place", events=("*",), environment="prod", url=desk.receiver.url + "/prod")
    desk.story.found()
    desk.story.train("one")
    accepted(desk.story.register("one"))
    desk.work()
    types = [one.event["type"] for one in desk.receiver.got if one.path == "/"]
    assert types == ["dev.lockgate.registry.version-registered/2"]
    subjects = {one.event["subject"] for one in desk.receiver.got if one.path == "/prod"}
    assert subjects
    assert all(subject.startswith("prod") for subject in subjects)


def test_an_address_behind_a_reference_stands_in_no_event(desk: Desk) -> None:
    desk.add(url="env:URL")
    desk.story.found()
    desk.work()
    assert {one.path for one in desk.receiver.got} == {"/secret-path"}
    journal = b"".join(one.body for one in desk.store.journal.entries(0, 1000))
    assert b"secret-path" not in journal
    assert KEY.encode() not in journal


def test_what_fails_is_tried_again_later_and_holds_up_the_next(desk: Desk) -> None:
    desk.add(events=("registry.*",))
    desk.story.found()
    desk.story.train("one")
    accepted(desk.story.register("one"))
    n_wanted = len([1 for one in desk.store.journal.entries(1, 100) if b'"registry.' in one.body])
    desk.receiver.answer = lambda got: (503, {})
    waits = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        desk.work()
        head = desk.listed()[0]
        assert head.attempts == attempt
        if head.state == "waiting":
            assert desk.receiver.seqs == [head.seq] * attempt
            wait_s = (head.next_at - desk.clock.now()) / SECOND
            waits.append(round(wait_s))
            desk.clock.advance(seconds=wait_s - 0.5)
            desk.work()
            assert len(desk.receiver.got) == attempt
            desk.clock.advance(seconds=1)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]
    first, *others = desk.listed()
    assert (first.state, first.detail) == ("dead", "503")
    # The next one is not held up for ever: with the receiver back it arrives, the dead one when somebody asks.
    desk.receiver.answer = lambda got: (200, {})
    desk.work()
    desk.clock.advance(seconds=700)
    desk.work()
    assert [one.state for one in desk.listed()] == ["dead"] + ["delivered"] * len(others)
    accepted(desk.story.do("petra", RequestRedelivery(id=desk.story.new_id(), name="chat")))
    desk.work()
    assert [one.state for one in desk.listed()] == ["delivered"] * n_wanted


def test_one_event_is_sent_once_more_when_asked_for(desk: Desk) -> None:
    desk.add(events=("registry.*",))
    desk.story.found()
    desk.work()
    (one,) = desk.receiver.got
    accepted(desk.story.do("petra", RequestRedelivery(id=desk.story.new_id(), name="chat", seq=one.seq)))
    desk.work()
    first, second = desk.receiver.got
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_a_slow_receiver_is_left_alone_as_long_as_it_asks(desk: Desk) -> None:
    desk.add(events=("registry.*",))
    desk.story.found()
    desk.receiver.answer = lambda got: (429, {"retry-after": "90"})
    desk.work()
    (one,) = desk.listed()
    assert round((one.next_at - desk.clock.now()) / SECOND) == 90
    desk.receiver.answer = lambda got: (410, {})
    desk.clock.advance(seconds=91)
    desk.work()
    (one,) = desk.listed()
    assert (one.state, one.attempts) == ("dead", 2)


def test_a_secret_that_is_missing_is_told_and_delivered_once_it_is_there(desk: Desk) -> None:
    desk.add(secret="env:LATER", events=("registry.*",))
    desk.story.found()
    desk.work()
    (one,) = desk.listed()
    assert (one.state, one.detail) == ("waiting", "env:LATER is not set")
    desk.secrets["env:LATER"] = "short"
    desk.clock.advance(seconds=2)
    desk.work()
    assert "less than 16 bytes" in desk.listed()[0].detail
    assert not desk.receiver.got
    desk.secrets["env:LATER"] = KEY
    desk.clock.advance(seconds=4)
    desk.work()
    assert desk.receiver.got[0].is_signed()


def test_who_was_removed_is_told_no_more(desk: Desk) -> None:
    desk.add(events=("registry.*",))
    desk.story.found()
    while desk.notifier.follow():
        pass
    assert [one.state for one in desk.listed()] == ["waiting"]
    accepted(desk.story.do("petra", RemoveSubscription(id=desk.story.new_id(), name="chat")))
    desk.work()
    assert not desk.receiver.got
    assert [(one.state, one.detail) for one in desk.listed()] == [("dead", "the subscription was removed")]


def test_one_receiver_that_hangs_holds_up_nobody_else(desk: Desk, eventually: Callable[..., object]) -> None:
    hanging, leaving = threading.Event(), threading.Event()

    def answer(got: Got) -> tuple[int, dict[str, str]]:
        if got.path == "/hangs":
            hanging.wait(30)
        return 204, {}

    desk.receiver.answer = answer
    desk.add("hangs", url=desk.receiver.url + "/hangs", events=("registry.*",))
    desk.add("quick", events=("registry.*",))
    notes: list[str] = []
    thread = threading.Thread(target=desk.notifier.run, args=(leaving, notes.append))
    thread.start()
    try:
        desk.story.found()
        desk.story.train("one")
        accepted(desk.story.register("one"))
        eventually(lambda: len([one for one in desk.receiver.got if one.path == "/"]) >= 2)
    finally:
        hanging.set()
        leaving.set()
        thread.join(30)
    assert not thread.is_alive()
    assert notes == []


def stamped(seq: int = 7) -> Stamp:
    return Stamp(seq, 1_383_264_000_000_000, "ada", "c1")


def test_an_event_that_is_too_large_is_told_without_its_content() -> None:
    event = VersionRejected(version="main/x@1.0.0", reason="because " * 20_000)
    message = cloud_event(event, stamped(), Scope(namespace="main", model="x"), "f00d")
    assert len(message.body) <= MAX_BODY_BYTES
    told = json.loads(message.body)
    assert told["data"]["left_out_bytes"] > MAX_BODY_BYTES
    assert told["data"]["summary"].startswith("main/x@1.0.0 rejected: because")
    assert "event" not in told["data"]


def test_the_same_entry_gives_the_same_bytes() -> None:
    event = VersionRejected(version="main/x@1.0.0", reason="bad")
    first, second = (cloud_event(event, stamped(), Scope(), "f00d") for _ in range(2))
    assert first == second
    assert "subject" not in json.loads(first.body)


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the Standard Webhooks specification's reference libraries."""
    message = Message("msg_p5jXN8AQM9LWM0D4loKWxJek", "application/json", b'{"test": 2432232314}')
    headers = signed_headers(message, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1_614_265_330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_no base64!", "whsec_c2hvcnQ="])
def test_a_weak_key_signs_nothing(secret: str) -> None:
    with pytest.raises(KeyTooWeak) as refused:
        signed_headers(Message("a/1", "t/t", b""), secret, 1)
    assert isinstance(refused.value, LockgateError)
    assert not secret or secret == "whsec_" or secret not in str(refused.value.record())
