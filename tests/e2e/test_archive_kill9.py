"""A process that makes a store of an archive dies at the worst moments: the store is empty, or whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lockgate.adapters.archives.write import write_archive
from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.identity.checkpoints import FileSink
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.core.journal import EMPTY_HEAD, sign_checkpoint, verifier_key
from lockgate.hub.audit import verify
from lockgate.testing.furnished import FurnishedStory
from lockgate.testing.hub_world import MODEL_NAME, HubWorld
from lockgate.testing.notes import TestKey

# Imports into a store, and ends by kill -9 before the Nth thing of one kind.
DIES = """
import os, signal, sys
from pathlib import Path
from lockgate.adapters.archives.read import Archive, import_archive, opened
from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.identity.checkpoints import FileSink
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.testing.notes import TestKey

file, folder, kind, left = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def counted(name):
    global left
    if name == kind:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

class Blobs(DirectoryBlobs):
    def put(self, data):
        counted("blob")
        return super().put(data)

class Sink(FileSink):
    def write(self, checkpoint):
        counted("checkpoint")
        super().write(checkpoint)

entries, receipts = Archive.entries, Archive.receipts
writing = False

def watched(self):
    for one in entries(self):
        if writing:
            counted("entry")
        yield one

def told(self):
    for one in receipts(self):
        counted("receipt")
        yield one

Archive.entries, Archive.receipts = watched, told
store = open_sqlite(folder / "state.db")
transaction = store.journal.transaction

def begun():
    global writing
    writing = True
    return transaction()

store.journal.transaction = begun
with opened(Path(file)) as archive:
    import_archive(archive, store, Blobs(folder / "store"), Sink(folder / "checkpoints"), TestKey(),
                   actor="petra", now=1)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    store, blobs = open_sqlite(folder / "state.db"), DirectoryBlobs(folder / "store")
    sink, key = FileSink(folder / "checkpoints"), TestKey()
    story = FurnishedStory(HubWorld(store.journal, store.outbox).hub, blobs)
    story.found()
    sink.write(sign_checkpoint(store.journal.head(), key))
    story.release("one", f"{MODEL_NAME}@1.0.0")
    sink.write(sign_checkpoint(store.journal.head(), key))
    write_archive(folder / "a.tar", store.journal, sink.read(), [verifier_key(key)], blobs=blobs)
    return folder / "a.tar"


def brought(archive: Path, folder: Path, kind: str, n: int) -> int:
    return subprocess.run(
        [sys.executable, "-c", DIES, str(archive), str(folder), kind, str(n)], check=False, timeout=120
    ).returncode


@pytest.mark.parametrize(
    ("kind", "n", "is_whole"),
    [
        ("blob", 0, False),
        ("blob", 5, False),
        ("entry", 0, False),
        ("entry", 10, False),
        ("receipt", 3, False),
        ("checkpoint", 0, True),
        ("checkpoint", 1, True),
    ],
)
def test_a_killed_import_leaves_an_empty_store_or_a_whole_one_and_the_same_again_ends_it(
    archive: Path, tmp_path: Path, kind: str, n: int, is_whole: bool
) -> None:
    assert brought(archive, tmp_path, kind, n) == -signal.SIGKILL
    journal = open_sqlite(tmp_path / "state.db").journal
    assert (journal.head() != EMPTY_HEAD) == is_whole
    if not is_whole:
        assert journal.entries(0, 1) == []
        assert journal.documents("version") == []
        assert journal.receipt("import:archive") is None
    assert verify(journal, (), ()).ok

    assert brought(archive, tmp_path, "nothing", 0) == 0
    origin = open_sqlite(archive.parent / "state.db").journal
    assert journal.head() == origin.head()
    assert journal.entries(0, 1000) == origin.entries(0, 1000)
    notes = FileSink(tmp_path / "checkpoints").read()
    assert notes == FileSink(archive.parent / "checkpoints").read()
    assert verify(journal, notes, TestKey()).ok
    blobs = set(DirectoryBlobs(tmp_path / "store").digests())
    assert blobs == set(DirectoryBlobs(archive.parent / "store").digests())
