"""A subscription leads to its address and nowhere else; what is posted is small and has an end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence

import pytest
from webhook_receiver import Receiver, receiving

from lockgate.adapters.notify import posting
from lockgate.adapters.notify.posting import NetworkInvalid, Poster, parse_networks

LOOPBACK = parse_networks(["127.0.0.0/8"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def resolving(*addresses: str) -> posting.Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


def test_what_is_posted_arrives(receiver: Receiver) -> None:
    outcome = Poster(LOOPBACK).post(
        f"{receiver.url}/a?b=c", {"webhook-id": "x/1", "content-type": "t/t"}, b"{}"
    )
    assert (outcome.accepted, outcome.detail) == (True, "204")
    (got,) = receiver.got
    assert (got.path, got.body, got.headers["content-type"]) == ("/a?b=c", b"{}", "t/t")
    assert got.headers["host"] == receiver.url.removeprefix("http://")
    assert got.headers["user-agent"] == "lockgate"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"]
)
def test_this_machine_is_not_reached_unless_that_was_allowed(receiver: Receiver, host: str) -> None:
    port = receiver.server_address[1]
    outcome = Poster().post(f"http://{host}:{port}/", {}, b"")
    assert not outcome.accepted
    assert not receiver.got


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "fd00::1",
        "fe80::1",
        "224.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:a00:1::1",
    ],
)
def test_private_networks_and_the_cloud_metadata_are_refused(address: str) -> None:
    outcome = Poster(resolve=resolving(address)).post("https://hooks.example.com/", {}, b"")
    assert (outcome.accepted, outcome.final) == (False, False)
    assert address in outcome.detail
    assert "not a public address" in outcome.detail


def test_a_name_is_asked_once_and_the_address_that_was_looked_at_is_used(receiver: Receiver) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    port = receiver.server_address[1]
    outcome = Poster(LOOPBACK, resolve=resolve).post(f"http://hooks.example.com:{port}/x", {}, b"{}")
    assert outcome.accepted
    assert asked == ["hooks.example.com"]
    assert receiver.got[0].headers["host"] == f"hooks.example.com:{port}"


def test_of_several_addresses_only_an_allowed_one_is_used(receiver: Receiver) -> None:
    port = receiver.server_address[1]
    poster = Poster(LOOPBACK, resolve=resolving("10.0.0.1", "127.0.0.1"))
    assert poster.post(f"http://hooks.example.com:{port}/", {}, b"").accepted


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answer = lambda got: (307, {"location": f"{receiver.url}/elsewhere"})
    outcome = Poster(LOOPBACK).post(f"{receiver.url}/a", {}, b"{}")
    assert not outcome.accepted
    assert "redirects are not followed" in outcome.detail
    assert [got.path for got in receiver.got] == ["/a"]


@pytest.mark.parametrize(
    ("status", "headers", "accepted", "final", "wait_s"),
    [
        (200, {}, True, False, 0),
        (202, {}, True, False, 0),
        (400, {}, False, False, 0),
        (410, {}, False, True, 0),
        (429, {"retry-after": "7"}, False, False, 7),
        (503, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, False, False, 0),
        (503, {"retry-after": "9" * 5000}, False, False, None),
    ],
)
def test_what_an_answer_means(
    receiver: Receiver, status: int, headers: dict[str, str], accepted: bool, final: bool, wait_s: int | None
) -> None:
    receiver.answer = lambda got: (status, headers)
    outcome = Poster(LOOPBACK).post(receiver.url, {}, b"{}")
    assert (outcome.accepted, outcome.final) == (accepted, final)
    if wait_s is not None:
        assert outcome.wait_s == wait_s


def test_nobody_there_is_an_outcome() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = Poster(LOOPBACK).post(f"http://127.0.0.1:{taken.getsockname()[1]}/", {}, b"")
    assert (outcome.accepted, outcome.final) == (False, False)
    assert "ConnectError" in outcome.detail


def test_a_receiver_that_drips_is_left() -> None:
    """Each byte of its answer comes in time; all of it never ends."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not done.wait(0.02):
                    try:
                        connection.sendall(b"x: y\r\n")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        poster = Poster(LOOPBACK, patience_s=0.5)
        outcome = poster.post(f"http://127.0.0.1:{server.getsockname()[1]}/", {}, b"{}")
        done.set()
        thread.join()
    assert (outcome.accepted, outcome.detail) == (False, "no answer within 0.5 s")


@pytest.mark.parametrize(
    "url", ["", "https://", "file:///etc/hostname", "http://[::1", "nonsense", "http://ex\nample/"]
)
def test_what_is_no_address_is_an_outcome(url: str) -> None:
    assert not Poster(LOOPBACK).post(url, {}, b"").accepted


def test_networks_are_read_strictly() -> None:
    with pytest.raises(NetworkInvalid, match=r"10\.0\.0\.1/8"):
        parse_networks(["10.0.0.1/8"])
