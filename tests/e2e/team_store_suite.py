"""What is done with the store of a team's hub on its own machine: carried elsewhere, collected, erased, held.

Subclass `TeamStores` and override `new_place`: a database and blobs of some kind, empty.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from test_team_hub import TeamHub

from lockgate.access.messages import CreateServiceAccount, GrantRole, IssueServiceToken
from lockgate.access.tokens import ID_LENGTH, Token, secret_hash
from lockgate.adapters.identity.keys import generate_checkpoint_key
from lockgate.app.stores import open_blobs, open_store
from lockgate.core.blobs import SweptBlobs
from lockgate.hub.audit import read_entry
from lockgate.hub.ports import Journal, Store
from lockgate.hub.table import KINDS
from lockgate.registry.messages import BlobsSwept, DeclareModel, RejectVersion
from lockgate.testing.clock import CountingIds, FakeClock
from lockgate.testing.furnished import FurnishedStory
from lockgate.testing.hub_world import MODEL_NAME, PLATFORM, HubWorld, accepted

OK, REFUSED, NOT_FOUND, CONFLICT = 0, 3, 4, 5
STRANGE = Path(__file__).with_name("strange_cli.py")
V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"
_DAY_US = 86_400_000_000
LATER = 40
_SMALL: dict[str, Any] = {"tier": "low", "owner": "o", "purpose": "p"}
_STORIES = itertools.count()
_PROVEN = """
[identity]
[[identity.providers]]
issuer = "http://127.0.0.1:9/realm"
client_id = "lockgate"
"""


class Done:
    """A command that ended."""

    def __init__(self, line: tuple[str, ...], code: int, out: str, err: str) -> None:
        self.line, self.code, self.out, self.err = line, code, out, err

    def must(self, code: int, *words: str) -> Done:
        assert self.code == code, f"{self.line}: {self.code}\n{self.out}{self.err}"
        for word in words:
            assert word in self.out + self.err, f"{self.line}: no {word!r}\n{self.out}{self.err}"
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Place(TeamHub):
    """The folder of a hub, its store and its blobs, whatever they are."""

    def __init__(self, folder: Path, store: str, blobs: str, config: str = "") -> None:
        self.store_url, self.blobs_url = store, blobs
        parts = f"[store]\nurl = '{store}'\n[blobs]\nurl = '{blobs}'\n"
        super().__init__(folder, f"{parts}[retention]\nhigh = 30\nunneeded = 1\n{config}")

    def open(self) -> Store:
        return open_store(self.store_url, base=self.folder)

    @property
    def journal(self) -> Journal:
        return self.open().journal

    def blobs(self) -> SweptBlobs:
        return open_blobs(self.blobs_url, base=self.folder, cache=self.folder / "cache")

    def told(self) -> FurnishedStory:
        store = self.open()
        ids = CountingIds(f"story{next(_STORIES)}-")
        return FurnishedStory(HubWorld(store.journal, store.outbox).hub, self.blobs(), ids)

    def types(
        self, *line: str, token: str = "", later: int = 0, dying: tuple[str, int] | None = None
    ) -> Done:
        """Type `lockgate ... --config hub.toml` on this machine, so many days from now."""
        program = ["-m", "lockgate.app.cli"]
        if dying or later:
            method, n = dying or ("-", 0)
            program = [str(STRANGE), str(later), method, str(n)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_TOKEN")}
        done = subprocess.run(
            [sys.executable, "-P", *program, *line, "--config", str(self.folder / "hub.toml")],
            cwd=self.folder,
            env=env | ({"LOCKGATE_TOKEN": token} if token else {}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(line, done.returncode, done.stdout, done.stderr)

    def asks(self, *line: str, later: int = 0) -> Any:
        return self.types(*line, "--json", later=later).must(OK).json

    def contents(self) -> Any:
        """All that is the same wherever it is carried."""
        journal = self.journal
        documents = [one for kind in KINDS for one in journal.documents(kind.name)]
        entries = journal.entries(0, 100_000)
        return journal.head(), entries, documents, list(journal.edges()), set(self.blobs().digests())

    def token(self, role: str) -> str:
        """Of a service account with a role over everything; made as an admin would."""
        # Whoever gives a role to a machine of his own waits a day.
        now, store = round(time.time() * 1_000_000), self.open()
        world = HubWorld(store.journal, store.outbox, clock=FakeClock(now - 2 * _DAY_US))
        made = Token(f"lgt_{secrets.token_hex(ID_LENGTH // 2)}", secrets.token_urlsafe(32))
        name = f"upkeep-{role}"
        hub = world.hub(PLATFORM)
        accepted(hub.execute(CreateServiceAccount(id=f"create-{name}", name=name, purpose="upkeep")))
        accepted(hub.execute(GrantRole(id=f"grant-{name}", subject=f"service:{name}", role=role)))
        world.clock.advance(days=2)
        issued = IssueServiceToken(
            id=f"issue-{name}",
            subject=f"service:{name}",
            token=made.id,
            secret_sha256=secret_hash(made.secret),
            expires_at=now + _DAY_US,
        )
        accepted(hub.execute(issued))
        return str(made)


class TeamStores:
    """Every promise, as tests."""

    @pytest.fixture
    def new_place(self, tmp_path: Path) -> Callable[..., Place]:
        raise NotImplementedError("override the fixture `new_place`: (name, config) -> Place")

    @pytest.fixture
    def other_place(self, new_place: Callable[..., Place]) -> Callable[..., Place]:
        """Where archives of `new_place` go; of another kind, if there is one."""
        return new_place

    @pytest.fixture
    def origin(self, new_place: Callable[..., Place]) -> Place:
        """Two versions were released; the first one is rejected, and everywhere the way back."""
        place = new_place("origin")
        generate_checkpoint_key(place.folder / "keys" / "checkpoint.pem")
        story = place.told()
        story.found()
        story.release("one", V1)
        story.release("two", V2)
        return place

    def test_a_hub_is_carried_elsewhere_while_it_serves_and_is_the_same_there(
        self, origin: Place, other_place: Callable[..., Place], tmp_path: Path
    ) -> None:
        file = str(tmp_path / "registry.tar")
        origin.start()
        try:
            with origin.hub("ann") as ann, ThreadPoolExecutor(1) as pool:
                exporting = pool.submit(origin.asks, "export", str(tmp_path / "meanwhile.tar"))
                for number in itertools.count():
                    ann.execute(DeclareModel(id=f"m{number}", model=f"main/m{number}", **_SMALL))
                    if exporting.done():
                        break
            meanwhile = exporting.result()["manifest"]
            assert meanwhile["size"] <= origin.journal.head().seq
            origin.types("audit", "check", str(tmp_path / "meanwhile.tar")).must(OK, "ok: entries 1 to")
            before = origin.contents()
            told = origin.asks("export", file)
        finally:
            origin.stop()
        assert told["manifest"]["hash"] == before[0].hash.hex()
        (key,) = told["keys"]
        there = other_place("there")
        # Another hub has a key of its own, and takes nobody's word for that of the archive.
        there.types("import", file).must(7)
        assert there.journal.head().seq == 0 and list(there.blobs().digests()) == []
        there.types("import", file, "--key", key).must(OK, "earlier_keys", key)
        assert there.contents() == before
        text = (there.folder / "hub.toml").read_text()
        (there.folder / "hub.toml").write_text(f"{text}[audit]\nearlier_keys = ['{key}']\n")
        verified = there.asks("audit", "verify")
        assert (verified["ok"], verified["head"]) == (True, before[0].hash.hex())
        again = there.asks("export", str(tmp_path / "again.tar"))
        assert again["manifest"] == told["manifest"]
        # There it goes on, and back again it goes only where nothing is.
        there.start()
        try:
            with there.hub("ann") as ann:
                assert ann.execute(RejectVersion(id="r", version=V2, reason="worse")).head > before[0].seq
        finally:
            there.stop()
        assert there.asks("audit", "verify")["ok"]
        there.types("import", file, "--key", key).must(CONFLICT, "two histories")
        # What leaves it now was signed by two keys. Whoever checks it, or moves it on, names both.
        moved = str(tmp_path / "moved.tar")
        there.asks("export", moved)
        known = there.asks("audit", "key")
        assert known["earlier"] == [key] and known["key"] != key
        there.types("audit", "check", moved).must(OK, "ok: entries 1 to")
        third = other_place("third")
        third.types("audit", "check", moved, "--key", known["key"]).must(7, "each it names")
        both = ("--key", known["key"], "--key", key)
        third.types("audit", "check", moved, *both).must(OK, "ok: entries 1 to")
        third.types("import", moved, *both).must(OK, f'earlier_keys = ["{known["key"]}", "{key}"]')

    def test_what_ended_is_collected_by_the_terms_of_the_hub_unless_it_is_held(self, origin: Place) -> None:
        story = origin.told()
        accepted(story.do("bob", RejectVersion(id="r1", version=V1, reason="worse")))
        (kept,) = origin.asks("collect", "--as", "petra", later=LATER)["kept"]
        assert "may fall back to it" in " ".join(kept["reasons"])
        unused = story_of_one_that_ended(origin)
        origin.types("hold", f"{MODEL_NAME}@9.9.9", "--reason", "x").must(NOT_FOUND, "9.9.9")
        origin.types("hold", unused, "--matter", "case-17", "--reason", "complaint").must(OK)
        assert origin.asks("collect", later=LATER)["versions"] == []
        origin.types("hold", unused, "--matter", "case-17", "--reason", "closed", "--lift").must(OK)
        planned = origin.asks("collect", "--dry-run", later=LATER)
        before = set(origin.blobs().digests())
        done = origin.asks("collect", "--as", "petra", later=LATER)
        assert done["versions"] == planned["versions"] == [unused]
        gone = before - set(origin.blobs().digests())
        assert len(gone) == done["n_blobs"] == planned["n_blobs"] > 0
        told = [read_entry(one) for one in origin.journal.entries(0, 1000)]
        swept = {digest for event, _ in told if isinstance(event, BlobsSwept) for digest in event.digests}
        assert swept == gone
        assert {stamp.actor for event, stamp in told if isinstance(event, BlobsSwept)} == {"petra"}
        for name in ("one", "two"):
            assert origin.told().package_blobs(name) <= set(origin.blobs().digests())
        assert origin.asks("audit", "verify")["ok"]

    @pytest.mark.parametrize("where", ["here", "over the wire"])
    def test_rows_are_erased_where_the_hub_is_and_over_the_wire(
        self, origin: Place, where: str, eventually: Callable[..., object]
    ) -> None:
        story = origin.told()
        snapshot, rows = story.named("snapshot", "one"), story.rows("one")
        named = ("erase", f"snapshot:{snapshot[7:19]}", "--reason", "request 4711")
        if where == "here":
            done = origin.asks(*named)
            assert done["n_blobs"] == 2 and len(done["packages"]) == 1
        else:
            origin.start()
            try:
                command = [sys.executable, "-m", "lockgate.app.cli", *named, "--as", "sam"]
                told = subprocess.run(
                    [*command, "--hub", origin.url], capture_output=True, text=True, timeout=60, check=True
                )
                assert "the hub removes the bytes" in told.stdout
                eventually(lambda: not origin.blobs().has(rows))
            finally:
                origin.stop()
        left = set(origin.blobs().digests())
        assert not left & {rows, story.made_on_the_way("one")}
        assert story.package_blobs("one") <= left and story.rows("two") in left
        assert origin.asks("audit", "verify")["ok"]

    def test_where_names_are_proven_they_are_proven_on_the_machine_of_the_hub_too(
        self, origin: Place
    ) -> None:
        snapshot = origin.told().named("snapshot", "one")
        operator, security = origin.token("operator"), origin.token("security")
        text = (origin.folder / "hub.toml").read_text()
        (origin.folder / "hub.toml").write_text(text + _PROVEN)
        erase = ("erase", f"snapshot:{snapshot[7:19]}", "--reason", "request 4711")
        head = origin.journal.head()
        origin.types("collect").must(REFUSED, "LOCKGATE_TOKEN")
        origin.types("collect", "--as", "petra").must(REFUSED, "only claimed")
        origin.types("collect", token="lgt_" + "0" * ID_LENGTH + "." + "A" * 43).must(REFUSED)
        assert origin.journal.head() == head
        # What is not a role's does not become one's by being on this machine.
        origin.types(*erase, token=operator).must(REFUSED, "may not data.erase-snapshot")
        origin.types(*erase, token=security).must(OK)
        done = origin.types("collect", "--json", token=operator).must(OK).json
        assert done["n_erased"] == 0
        (erased,) = [
            stamp.actor
            for event, stamp in map(read_entry, origin.journal.entries(0, 1000))
            if type(event).__name__ == "SnapshotErased"
        ]
        assert erased == "service:upkeep-security"
        # Nothing is decided by an export, so nobody has to be somebody for it.
        origin.types("export", str(origin.folder / "a.tar")).must(OK)

    @pytest.mark.parametrize("call", ["put", "commit", "owe"])
    def test_an_import_that_is_killed_leaves_nothing_or_all_and_the_same_again_ends_it(
        self, origin: Place, other_place: Callable[..., Place], tmp_path: Path, call: str
    ) -> None:
        file = str(tmp_path / "registry.tar")
        (key,) = origin.asks("export", file)["keys"]
        there = other_place("there")
        died = there.types("import", file, "--key", key, dying=self.deadly(there)[call])
        assert died.code == -signal.SIGKILL, died.err
        assert there.journal.head().seq in (0, origin.journal.head().seq)
        there.types("import", file, "--key", key).must(OK)
        assert there.contents() == origin.contents()
        assert there.open().deliveries.followed() == origin.journal.head().seq

    def test_a_collection_that_is_killed_is_ended_by_the_next_one(
        self, origin: Place, eventually: Callable[..., object]
    ) -> None:
        unused = story_of_one_that_ended(origin)
        story = origin.told()
        planned = origin.asks("collect", "--dry-run", later=LATER)
        before = set(origin.blobs().digests())
        assert (
            origin.types("collect", later=LATER, dying=self.deadly(origin)["discard"]).code == -signal.SIGKILL
        )
        left = set(origin.blobs().digests())
        assert len(before - left) == 1
        done = origin.asks("collect", later=LATER)
        assert done["versions"] == [] and planned["versions"] == [unused]
        assert len(before - set(origin.blobs().digests())) == planned["n_blobs"]
        snapshot = f"snapshot:{story.named('snapshot', 'one')[7:19]}"
        died = origin.types("erase", snapshot, "--reason", "x", dying=self.deadly(origin)["delete"])
        assert died.code == -signal.SIGKILL
        assert (
            story.rows("one") in origin.contents()[4] or story.made_on_the_way("one") in origin.contents()[4]
        )
        # Whoever comes next: the hub when it starts, or a collection.
        origin.start()
        try:
            eventually(lambda: not {story.rows("one"), story.made_on_the_way("one")} & origin.contents()[4])
        finally:
            origin.stop()
        assert origin.asks("audit", "verify")["ok"]

    def deadly(self, place: Place) -> dict[str, tuple[str, int]]:
        """What is called in the midst of each, and how often before the process dies."""
        raise NotImplementedError(
            "override `deadly`: put, commit, owe, discard, delete -> (MODULE:CLASS.METHOD, N)"
        )


def story_of_one_that_ended(place: Place) -> str:
    """A version that nothing uses, rejected when it was new; its successor is there. Returns its name."""
    story = place.told()
    for name in ("three", "four"):
        story.train(name)
        accepted(story.register(name))
    version = f"{MODEL_NAME}@1.0.2"
    accepted(story.do("bob", RejectVersion(id="reject-three", version=version, reason="worse")))
    return version
