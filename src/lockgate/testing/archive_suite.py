"""What an archive promises over any journal: nothing is lost, nothing is believed, nothing is half done.

Subclass `ArchiveContract` and override `make`: a way to get fresh, empty stores.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lockgate.adapters.archives import layout
from lockgate.adapters.archives.layout import (
    ArchiveAltered,
    ArchiveUnsigned,
    ArchiveUnwritable,
    NotAnArchive,
    StoreNotEmpty,
)
from lockgate.adapters.archives.read import Checked, import_archive, import_note, opened
from lockgate.adapters.archives.write import write_archive
from lockgate.core.blobs import BlobMissing
from lockgate.core.errors import Conflict, Corrupt
from lockgate.core.journal import (
    EMPTY_HEAD,
    JournalAltered,
    NoteKey,
    NoteVerifier,
    sign_checkpoint,
    verifier_key,
)
from lockgate.hub.messages import ExplainVersion, Status, VerifyAudit
from lockgate.hub.ports import Store
from lockgate.hub.table import KINDS
from lockgate.testing.clock import CountingIds
from lockgate.testing.furnished import FurnishedStory
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.memory_journal import MemoryCheckpoints
from lockgate.testing.notes import TestKey

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"
NOW = 1_800_000_000_000_000


class Place(NamedTuple):
    """A store with what belongs to it."""

    store: Store
    blobs: MemoryBlobs
    sink: MemoryCheckpoints
    world: HubWorld

    def told(self) -> FurnishedStory:
        return FurnishedStory(self.world.hub, self.blobs)

    def seal(self, key: NoteKey) -> None:
        self.sink.write(sign_checkpoint(self.store.journal.head(), key))

    def contents(self) -> Any:
        """All that must be the same afterwards."""
        journal = self.store.journal
        documents = [one for kind in KINDS for one in journal.documents(kind.name)]
        return (
            journal.head(),
            journal.entries(0, 10_000),
            documents,
            list(journal.edges()),
            set(self.blobs.digests()),
        )


class ArchiveContract:
    """Every promise of an archive, as tests."""

    key = TestKey()

    @pytest.fixture
    def make(self) -> Callable[[], Store]:
        raise NotImplementedError("override the fixture `make` to return a maker of fresh, empty stores")

    @pytest.fixture
    def place(self, make: Callable[[], Store]) -> Callable[[], Place]:
        def new() -> Place:
            store, sink = make(), MemoryCheckpoints()
            return Place(
                store,
                MemoryBlobs(),
                sink,
                HubWorld(store.journal, store.outbox, checkpoints=(sink, self.key)),
            )

        return new

    @pytest.fixture
    def origin(self, place: Callable[[], Place]) -> Place:
        origin = place()
        story = origin.told()
        story.found()
        story.release("one", V1)
        origin.seal(self.key)
        story.release("two", V2)
        origin.seal(self.key)
        return origin

    def write(self, origin: Place, out: Path, **how: Any) -> Path:
        blobs = None if how.pop("journal_alone", False) else origin.blobs
        journal, keys = origin.store.journal, [verifier_key(self.key)]
        write_archive(out, journal, origin.sink.read(), keys, blobs=blobs, **how)
        return out

    def bring(self, file: Path, to: Place, *, keys: NoteVerifier | None = None, **how: Any) -> Checked:
        with opened(file) as archive:
            return import_archive(
                archive, to.store, to.blobs, to.sink, keys or self.key, actor="petra", now=NOW, **how
            )

    def test_acceptance_10_export_wipe_import_gives_the_same_digests_and_the_same_roots(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        file, there = self.write(origin, tmp_path / "a.tar"), place()
        checked = self.bring(file, there)
        assert there.contents() == origin.contents()
        assert there.sink.notes == origin.sink.notes
        assert (checked.events, checked.size) == (origin.store.journal.head().seq,) * 2
        answer = there.world.ask(VerifyAudit())
        assert (answer.ok, answer.checkpoints, answer.findings) == (True, 2, ())
        assert there.world.ask(ExplainVersion(version=V2)) == origin.world.ask(ExplainVersion(version=V2))
        again = self.write(there, tmp_path / "b.tar")
        # Only the note of the import is more: it is no event.
        with tarfile.open(file) as before, tarfile.open(again) as after:
            assert before.getnames() == after.getnames()
        assert there.told().blobs.has(there.told().rows("one"))

    def test_the_bytes_of_an_archive_follow_from_the_store(self, origin: Place, tmp_path: Path) -> None:
        one, two = self.write(origin, tmp_path / "a.tar"), self.write(origin, tmp_path / "b.tar")
        assert one.read_bytes() == two.read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "b.tar"]

    def test_life_goes_on_where_it_was(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        there = place()
        self.bring(self.write(origin, tmp_path / "a.tar"), there)
        story = FurnishedStory(there.world.hub, there.blobs, CountingIds("later"))
        accepted(story.roll_back("prod"))
        accepted(story.confirm("prod"))
        assert there.world.ask(VerifyAudit()).ok
        assert there.world.ask(Status()).endpoints["prod/flight-delay"].live.version == "flight-delay@1.0.0"
        # Subscribers heard of what was before; they hear of what follows.
        assert there.store.deliveries.followed() == origin.store.journal.head().seq
        # A command of before is not carried out again; one that is another under its id is refused.
        first = Story(there.world.hub)
        with pytest.raises(Conflict):
            accepted(first.register("three"))

    def test_a_store_says_what_it_was_made_of(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        there = place()
        assert import_note(there.store.journal) is None
        self.bring(self.write(origin, tmp_path / "a.tar"), there)
        note = import_note(there.store.journal)
        assert note is not None
        assert (note.imported_by, note.imported_at) == ("petra", NOW)
        assert note.head == origin.store.journal.head().hash.hex()

    def test_the_same_archive_again_is_no_news_and_another_history_is_refused(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        file, there, other = self.write(origin, tmp_path / "a.tar"), place(), place()
        self.bring(file, there)
        there.sink.notes.clear()
        self.bring(file, there)
        assert (there.contents(), there.sink.notes) == (origin.contents(), origin.sink.notes)
        other.told().found()
        before = other.contents()
        with pytest.raises(StoreNotEmpty) as caught:
            self.bring(file, other)
        assert caught.value.facts == {"events": before[0].seq}
        assert other.contents() == before

    def test_without_the_rows_packages_and_evidence_are_there_all_the_same(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        there, story = place(), origin.told()
        self.bring(self.write(origin, tmp_path / "a.tar", data=False), there)
        left_out = {story.rows(name) for name in ("one", "two")}
        left_out |= {story.made_on_the_way(name) for name in ("one", "two")}
        assert set(origin.blobs.digests()) - set(there.blobs.digests()) == left_out
        assert there.world.ask(VerifyAudit()).ok
        note = import_note(there.store.journal)
        assert note is not None and note.without

    def test_an_oci_tool_finds_the_packages(self, origin: Place, tmp_path: Path) -> None:
        with tarfile.open(self.write(origin, tmp_path / "a.tar")) as tar:
            index = tar.extractfile(layout.INDEX)
            assert index is not None
            names = index.read()
            members = tar.getnames()
        story = origin.told()
        for name, version in (("one", "1.0.0"), ("two", "1.0.1")):
            package = story.named("package", name)
            assert f"{MODEL_NAME}:{version}".encode() in names
            assert package.encode() in names
            assert layout.BLOBS + package.removeprefix("sha256:") in members

    def test_a_journal_alone_is_checked_from_any_entry_and_makes_no_store(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        size = origin.store.journal.head().seq
        for after in (0, 1, size // 2, size):
            file = self.write(origin, tmp_path / f"{after}.tar", journal_alone=True, after=after)
            with opened(file) as archive:
                checked = archive.check(self.key)
            assert (checked.after, checked.events, checked.size, checked.blobs) == (after, size, size, 0)
            there = place()
            with pytest.raises(NotAnArchive):
                self.bring(file, there)
            assert there.store.journal.head() == EMPTY_HEAD

    @pytest.mark.parametrize(
        "member", [layout.EVENTS, layout.NOTES, layout.BLOBS], ids=["event", "note", "blob"]
    )
    def test_what_was_changed_on_the_way_is_not_taken_in(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path, member: str
    ) -> None:
        file, there = self.write(origin, tmp_path / "a.tar"), place()
        with tarfile.open(file) as tar:
            entry = next(one for one in tar.getmembers() if one.name.startswith(member))
        data = bytearray(file.read_bytes())
        data[entry.offset_data + entry.size // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(Corrupt):
            self.bring(file, there)
        assert there.store.journal.head() == EMPTY_HEAD
        assert list(there.blobs.digests()) == []

    def test_a_head_that_the_entries_do_not_lead_to_is_not_taken_in(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        file, there, head = self.write(origin, tmp_path / "a.tar"), place(), origin.store.journal.head()
        told = head.hash.hex().encode()
        file.write_bytes(file.read_bytes().replace(told, told[::-1], 1))
        with pytest.raises(ArchiveAltered):
            self.bring(file, there)
        assert there.store.journal.head() == EMPTY_HEAD

    def test_another_key_or_no_signature_convinces_nobody(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        there = place()
        with pytest.raises(JournalAltered) as refused:
            self.bring(self.write(origin, tmp_path / "a.tar"), there, keys=TestKey(2))
        assert "--key" in refused.value.remedy
        origin.sink.notes.pop()
        unsigned = self.write(origin, tmp_path / "b.tar")
        with pytest.raises(ArchiveUnsigned):
            self.bring(unsigned, there)
        assert there.store.journal.head() == EMPTY_HEAD
        self.bring(unsigned, there, unsigned=True)
        assert there.contents() == origin.contents()

    def test_what_was_retried_elsewhere_is_answered_as_it_was(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        story = FurnishedStory(origin.world.hub, origin.blobs, CountingIds("again"))
        command = story.registering("three")
        first = accepted(story.do("ann", command))
        origin.seal(self.key)
        there = place()
        self.bring(self.write(origin, tmp_path / "a.tar"), there)
        assert there.world.hub("ann").execute(command) == first
        assert there.contents() == origin.contents()

    def test_a_release_on_its_way_is_named_for_what_it_was(
        self, origin: Place, place: Callable[[], Place], tmp_path: Path
    ) -> None:
        story = FurnishedStory(origin.world.hub, origin.blobs, CountingIds("late"))
        accepted(story.roll_back("prod"))
        origin.seal(self.key)
        there = place()
        assert self.bring(self.write(origin, tmp_path / "a.tar"), there).stranded == (f"prod/{MODEL_NAME}",)

    def test_a_store_with_a_hole_is_not_written(self, origin: Place, tmp_path: Path) -> None:
        package = origin.told().named("package", "one")
        origin.blobs.delete(package)
        with pytest.raises(BlobMissing) as caught:
            self.write(origin, tmp_path / "a.tar")
        assert caught.value.facts["digest"] == package
        assert list(tmp_path.iterdir()) == []

    def test_what_is_no_file_is_left_what_it_is(self, origin: Place, tmp_path: Path) -> None:
        """A device, a pipe: to put a file in its place would take it from everybody."""
        pipe, folder = tmp_path / "pipe", tmp_path / "folder"
        os.mkfifo(pipe)
        folder.mkdir()
        for place in (pipe, folder):
            with pytest.raises(ArchiveUnwritable, match="is no file"):
                self.write(origin, place)
        assert pipe.is_fifo() and not list(folder.iterdir())

    def test_a_link_is_followed(self, origin: Place, tmp_path: Path) -> None:
        link = tmp_path / "latest.tar"
        link.symlink_to(tmp_path / "here.tar")
        self.write(origin, link)
        assert link.is_symlink() and (tmp_path / "here.tar").is_file()
