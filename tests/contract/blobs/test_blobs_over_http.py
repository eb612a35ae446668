"""`HubBlobs` against a real server over a directory of blobs; and what the server says to others."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from lockgate.access.roles import everywhere
from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.http.blobs import Arrival, DigestDiffers, Span, Uploads
from lockgate.adapters.http.gate import UNMETERED
from lockgate.adapters.hubs.blobs import HubBlobs
from lockgate.adapters.hubs.wire import Wire
from lockgate.app.http.server import Behind, HubServer, by_claimed_name, create_app
from lockgate.core.blobs import BlobCorrupt, StorageFull
from lockgate.core.digests import Digest, sha256
from lockgate.core.errors import Conflict, Forbidden, Invalid
from lockgate.hub.authority import Session
from lockgate.hub.homes import BlobSight
from lockgate.testing.blobs_suite import BlobStoreContract, Damage
from lockgate.testing.clock import FakeClock
from lockgate.testing.memory_journal import MemoryHomes, MemoryStore

LIMIT = 8 << 20
LARGE = bytes(range(256)) * (3 << 12)


class Served(NamedTuple):
    url: str
    store: DirectoryBlobs
    uploads: Path
    roles: dict[str, set[str]]
    wires: list[Wire]

    def connect(self, folder: Path, actor: str = "ann") -> HubBlobs:
        self.wires.append(Wire(self.url, actor=actor))
        return HubBlobs(self.wires[-1], DirectoryBlobs(folder / "cache"), folder / "incoming")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    store, uploads, roles = DirectoryBlobs(tmp_path / "hub"), tmp_path / "uploads", dict[str, set[str]]()

    def authenticate(headers: Any) -> Session:
        actor = by_claimed_name(headers).actor
        return Session(actor=actor, grants=everywhere(roles.get(actor, {"author", "auditor"})), claimed=True)

    ready = threading.Event()
    limits = type(UNMETERED)(blob_bytes=LIMIT, body_s=0.5, actor_per_s=1e6, actor_burst=10**6)
    app = create_app(
        lambda session: pytest.fail("no hub is asked about bytes"),
        authenticate,
        limits=limits,
        behind=Behind(
            blobs=store,
            uploads=Uploads(uploads),
            sight=BlobSight(MemoryHomes(MemoryStore()), lambda model: None, FakeClock()),
        ),
    )
    server = HubServer(app, 0, ready=lambda port: ready.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(30)
    served = Served(server.url, store, uploads, roles, [])
    yield served
    for wire in served.wires:
        wire.close()
    server.stop()
    thread.join(30)


class TestHubBlobs(BlobStoreContract):
    deletes = False

    @pytest.fixture
    def make(self, served: Served, tmp_path: Path) -> HubBlobs:
        return served.connect(tmp_path)

    @pytest.fixture
    def damage(self, make: HubBlobs, served: Served, tmp_path: Path) -> Damage:
        def damage(digest: Digest) -> None:
            for root in (served.store.root, tmp_path / "cache"):
                file = root / "blobs" / "sha256" / digest.removeprefix("sha256:")
                file.chmod(0o644)
                data = bytearray(file.read_bytes())
                data[0] ^= 1
                file.write_bytes(data)

        return damage


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers={"Lockgate-Actor": "ann"}, trust_env=False) as client:
        yield client


def refused(response: httpx.Response, status: int, code: str) -> httpx.Response:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response


def test_a_copy_that_is_damaged_here_is_fetched_anew(served: Served, tmp_path: Path) -> None:
    served.store.put(b"hello")
    blobs = served.connect(tmp_path)
    file = Path(blobs.path(sha256(b"hello")))
    file.chmod(0o644)
    file.write_bytes(b"jello")
    assert blobs.get(sha256(b"hello")) == b"hello"


def test_a_large_blob_that_was_found_damaged_on_the_hub_is_sent_again(served: Served, tmp_path: Path) -> None:
    digest = served.connect(tmp_path / "one").put(LARGE)
    file = served.store.root / "blobs" / "sha256" / digest.removeprefix("sha256:")
    file.chmod(0o644)
    file.write_bytes(LARGE[1:])
    other = served.connect(tmp_path / "two")
    with pytest.raises(BlobCorrupt):
        other.get(digest)
    other.put(LARGE)
    assert served.store.get(digest) == LARGE


def test_what_is_not_sent_again_because_it_is_there_is_as_young_as_if_it_were(
    served: Served, tmp_path: Path
) -> None:
    digest = served.connect(tmp_path / "one").put(LARGE)
    file = served.store.root / "blobs" / "sha256" / digest.removeprefix("sha256:")
    os.utime(file, (1_700_000_000, 1_700_000_000))
    served.roles["eve"] = {"viewer"}
    assert served.connect(tmp_path / "two", "eve").has(digest)
    assert file.stat().st_mtime == 1_700_000_000, "whoever only looks relies on nothing"
    served.connect(tmp_path / "three").put(LARGE)
    assert not served.store.discard(digest, 1_700_000_000_000_000 + 1)
    assert served.store.has(digest)


def test_a_sending_goes_on_where_it_broke(served: Served, client: httpx.Client, tmp_path: Path) -> None:
    digest, size = sha256(LARGE), len(LARGE)
    path = f"/v1/blobs/{digest}"
    first = client.put(path, content=LARGE[:100_000], headers={"Content-Range": f"bytes 0-99999/{size}"})
    assert (first.status_code, first.headers["upload-offset"]) == (202, "100000")
    assert client.head(path).headers["upload-offset"] == "100000"
    again = client.put(
        path, content=LARGE[50_000:60_000], headers={"Content-Range": f"bytes 50000-59999/{size}"}
    )
    assert refused(again, 409, "http.offset-differs").headers["upload-offset"] == "100000"
    # A connection that breaks in the middle of a part leaves what has come.
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nLockgate-Actor: ann\r\nContent-Length: {size - 100_000}\r\n"
        head += f"Content-Range: bytes 100000-{size - 1}/{size}\r\n\r\n"
        connection.sendall(head.encode() + LARGE[100_000:2_000_000])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    offset = int(client.head(path).headers["upload-offset"])
    assert 100_000 < offset <= 2_000_000
    sent: list[int] = []
    put = httpx.Client.send

    blobs = served.connect(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            httpx.Client,
            "send",
            lambda self, request, **given: (
                sent.append(int(request.headers.get("content-length", 0))) or put(self, request, **given)
            ),
        )
        assert blobs.put(LARGE) == digest
    assert sent == [0, size - offset]
    assert served.store.get(digest) == LARGE
    assert list(served.uploads.iterdir()) == []


def test_a_blob_that_all_arrived_and_was_not_kept_is_brought_once_more(
    served: Served, client: httpx.Client, tmp_path: Path
) -> None:
    """As a hub leaves it that ended after the last byte, and as whoever brings it at the same moment finds it."""
    digest, size = sha256(LARGE), len(LARGE)
    path = f"/v1/blobs/{digest}"
    part = {"Content-Range": f"bytes 0-{size - 1}/{size + 1}"}
    assert client.put(path, content=LARGE, headers=part).status_code == 202
    assert client.head(path).headers["upload-offset"] == str(size)
    assert served.connect(tmp_path).put(LARGE) == digest
    assert served.store.get(digest) == LARGE
    assert list(served.uploads.iterdir()) == []


def test_bytes_that_are_not_what_they_are_called_leave_nothing(served: Served, client: httpx.Client) -> None:
    path = f"/v1/blobs/{sha256(b'hello')}"
    refused(client.put(path, content=b"jello"), 400, "http.digest-differs")
    assert (list(served.store.digests()), list(served.uploads.iterdir())) == ([], [])
    client.put(path, content=b"xxx", headers={"Content-Range": "bytes 0-2/5"})
    last = client.put(path, content=b"lo", headers={"Content-Range": "bytes 3-4/5"})
    refused(last, 400, "http.digest-differs")
    assert client.head(path).headers["upload-offset"] == "0"
    assert client.put(path, content=b"hello").status_code == 201


@pytest.mark.parametrize("span", ["bytes 3-1/5", "bytes 0-5/5", "0-4/5", "bytes */5", "bytes 0-4/*", "x"])
def test_a_part_names_its_place(client: httpx.Client, span: str) -> None:
    reply = client.put(f"/v1/blobs/{sha256(b'hello')}", content=b"hello", headers={"Content-Range": span})
    refused(reply, 400, "http.bad-range")


def test_a_blob_has_a_limit(served: Served, client: httpx.Client) -> None:
    path = f"/v1/blobs/{sha256(b'hello')}"
    part = {"Content-Range": f"bytes 0-4/{LIMIT + 1}"}
    refused(client.put(path, content=b"hello", headers=part), 413, "http.body-too-large")
    refused(client.put(path, content=iter([b"x" * (LIMIT + 1)])), 413, "http.body-too-large")
    refused(
        client.put(path, content=b"hello", headers={"Content-Range": "bytes 0-2/5"}),
        413,
        "http.body-too-large",
    )


def test_part_of_a_blob(served: Served, client: httpx.Client) -> None:
    path = f"/v1/blobs/{served.store.put(LARGE)}"
    whole = client.get(path)
    assert (whole.content, whole.headers["content-length"]) == (LARGE, str(len(LARGE)))
    for wanted, expected in (
        ("bytes=0-9", LARGE[:10]),
        ("bytes=5-", LARGE[5:]),
        ("bytes=-7", LARGE[-7:]),
        (f"bytes=10-{10**15}", LARGE[10:]),
    ):
        part = client.get(path, headers={"Range": wanted})
        assert (part.status_code, part.content) == (206, expected)
        assert part.headers["content-range"].endswith(f"/{len(LARGE)}")
    for odd in ("bytes=1-2,4-5", "bytes=-", "lines=1-2", "bytes=9-3"):
        assert client.get(path, headers={"Range": odd}).content == LARGE
    refused(client.get(path, headers={"Range": f"bytes={len(LARGE)}-"}), 416, "http.range-unsatisfiable")
    known = client.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")


def test_who_may_bring_and_who_may_fetch(served: Served, tmp_path: Path) -> None:
    served.roles.update({"vic": {"viewer"}, "nobody": set(), "val": {"validator"}, "aud": {"auditor"}})
    served.store.put(b"hello")
    digest = sha256(b"hello")
    viewer, nobody = served.connect(tmp_path / "v", "vic"), served.connect(tmp_path / "n", "nobody")
    assert viewer.get(digest) == b"hello"
    for call in (
        lambda: viewer.put(b"x"),
        lambda: viewer.put(LARGE),
        lambda: list(viewer.digests()),
        lambda: nobody.get(digest),
        lambda: nobody.has(digest),
    ):
        with pytest.raises(Forbidden):
            call()  # type: ignore[no-untyped-call]
    assert list(served.store.digests()) == [digest]
    assert served.connect(tmp_path / "w", "val").put(b"evidence") == sha256(b"evidence")
    assert len(list(served.connect(tmp_path / "a", "aud").digests())) == 2


def test_digests_come_page_by_page(served: Served, client: httpx.Client) -> None:
    digests = sorted(served.store.put(bytes([number])) for number in range(7))
    seen, after = [], ""
    while after is not None:
        page = client.get("/v1/blobs", params={"after": after, "limit": "3"}).json()
        seen += page["digests"]
        after = page["next"]
    assert seen == digests
    assert client.get("/v1/blobs", params={"limit": "x"}).json() == {"digests": digests, "next": None}


def test_two_senders_of_one_blob_take_turns(served: Served, tmp_path: Path) -> None:
    blobs = [served.connect(tmp_path / str(number)) for number in range(3)]
    found: list[Any] = []

    def bring(store: HubBlobs) -> None:
        try:
            found.append(store.put(LARGE))
        except (Conflict, Invalid) as error:
            found.append(error)

    threads = [threading.Thread(target=bring, args=(store,)) for store in blobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [sha256(LARGE)] * 3
    assert served.store.get(sha256(LARGE)) == LARGE


def test_a_sender_of_a_blob_that_stops_is_let_go_and_what_came_is_kept(
    served: Served, client: httpx.Client
) -> None:
    path = f"/v1/blobs/{sha256(LARGE)}"
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nLockgate-Actor: ann\r\nContent-Length: {len(LARGE)}\r\n\r\n"
        connection.sendall(head.encode() + LARGE[:5_000])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 408 ")
    assert client.head(path).headers["upload-offset"] == "5000"


def test_what_nobody_goes_on_with_is_removed(served: Served, eventually: Callable[..., Any]) -> None:
    served.uploads.mkdir(exist_ok=True)
    for name, age_s in (("old", 25 * 3600), ("new", 3600)):
        (served.uploads / name).write_bytes(b"x")
        at = (served.uploads / name).stat().st_mtime - age_s
        os.utime(served.uploads / name, (at, at))
    Uploads(served.uploads).sweep()
    assert [file.name for file in served.uploads.iterdir()] == ["new"]


class SlowToKeep(DirectoryBlobs):
    """While it keeps a file, the sender has given up waiting, and begins to send it again."""

    meanwhile: Callable[[], None]

    def put_file(self, path: str) -> Digest:
        self.meanwhile()
        return super().put_file(path)


def test_what_is_sent_again_while_it_is_kept_goes_into_a_file_of_its_own(tmp_path: Path) -> None:
    store, file, digest = SlowToKeep(tmp_path / "store"), tmp_path / "part", sha256(LARGE)
    (first, again) = (Arrival(digest, file, Span(0, None, None)) for _ in range(2))

    def begin_again() -> None:
        again.begin()
        again.write(b"not yet all of it")

    store.meanwhile = begin_again
    first.begin()
    first.write(LARGE)
    first.finish(store)
    assert DirectoryBlobs(tmp_path / "store").get(digest) == LARGE
    again.write(b"something else")
    with pytest.raises(DigestDiffers):
        again.finish(store)
    for arrival in (first, again):
        arrival.close()
    assert DirectoryBlobs(tmp_path / "store").get(digest) == LARGE
    assert list(tmp_path.iterdir()) == [tmp_path / "store"]


def test_what_finds_no_room_leaves_the_room_to_others(tmp_path: Path) -> None:
    """On the disk of the journal it would keep the hub from deciding anything. A limit stands in for the full disk."""
    file, digest = tmp_path / "part", sha256(LARGE)
    arrival = Arrival(digest, file, Span(0, None, None))
    arrival.begin()
    arrival.write(LARGE[:1000])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(StorageFull, match="no room on the hub"):
            arrival.write(LARGE[1000:2000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        arrival.close()
    assert not file.exists()
    again = Arrival(digest, file, Span(0, None, None))
    again.begin()
    again.write(LARGE)
    again.finish(DirectoryBlobs(tmp_path / "store"))
    again.close()
    assert DirectoryBlobs(tmp_path / "store").get(digest) == LARGE


def test_two_hubs_that_share_a_folder_by_mistake_say_of_nothing_that_it_is_kept(tmp_path: Path) -> None:
    store, file, digest = DirectoryBlobs(tmp_path / "store"), tmp_path / "part", sha256(LARGE)
    ours = Arrival(digest, file, Span(0, None, None))
    ours.begin()
    ours.write(LARGE)
    ours.close()
    with file.open("ab") as theirs:
        theirs.write(b"x")
    with pytest.raises(DigestDiffers, match="somebody else"):
        ours.finish(store)
    assert not store.has(digest)
