"""Several places for checkpoints at once: one that fails is told, and the others have the note."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.adapters.identity.checkpoints import CheckpointNotEverywhere, FileSink, Sinks
from lockgate.app.stores import UnknownPlace, open_blobs, open_sinks
from lockgate.core.journal import Checkpoint


def note(size: int) -> Checkpoint:
    return Checkpoint(size, b"", f"lockgate/journal\n{size}\nroot\n")


def notes(*sizes: int) -> tuple[str, ...]:
    return tuple(note(size).note for size in sizes)


def test_a_note_goes_to_every_place(tmp_path: Path) -> None:
    sinks = open_sinks(("file:here", "file:deep/there"), base=tmp_path)
    assert (sinks.read(), sinks.last_size()) == ((), 0)
    sinks.write(note(3))
    for place in ("here", "deep/there"):
        assert FileSink(tmp_path / place).read() == notes(3)
    assert (sinks.read(), sinks.last_size()) == (notes(3), 3)


def test_a_place_that_fails_is_named_and_catches_up(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder must be")
    sinks = open_sinks(("file:blocked/notes", "file:good"), base=tmp_path)
    for size in (3, 3, 4):
        with pytest.raises(CheckpointNotEverywhere, match="blocked/notes") as caught:
            sinks.write(note(size))
        assert caught.value.facts["places"] == ["file:blocked/notes"]
    assert FileSink(tmp_path / "good").read() == notes(3, 4), "once each, however often it was tried"
    assert sinks.last_size() == 0
    (tmp_path / "blocked").unlink()
    sinks.write(note(4))
    assert FileSink(tmp_path / "blocked/notes").read() == notes(4)
    assert (sinks.read(), sinks.last_size()) == (notes(4, 3), 4)


def test_a_place_that_cannot_be_opened_is_one_that_fails(tmp_path: Path) -> None:
    def refused() -> FileSink:
        raise UnknownPlace("not there", remedy="look")

    sinks = Sinks({"bad": refused, "good": lambda: FileSink(tmp_path / "good")})
    with pytest.raises(CheckpointNotEverywhere, match="bad: not there"):
        sinks.write(note(2))
    assert FileSink(tmp_path / "good").read() == notes(2)


def test_notes_that_one_place_lost_are_read_from_the_other(tmp_path: Path) -> None:
    sinks = open_sinks(("file:a", "file:b"), base=tmp_path)
    sinks.write(note(1))
    sinks.write(note(2))
    (tmp_path / "a").write_bytes(b"")
    assert sinks.read() == notes(1, 2)
    assert sinks.last_size() == 0


def test_secrets_of_a_url_are_in_no_message(tmp_path: Path) -> None:
    url = "s3://models/audit?endpoint=http://127.0.0.1:1&access_key=plain-key&secret_key=plain-secret"
    with pytest.raises(CheckpointNotEverywhere) as caught:
        open_sinks((url,), base=tmp_path).write(note(1))
    assert "plain" not in f"{caught.value.record()}"
    assert "must refer to a secret" in caught.value.message


def test_blobs_are_opened_by_url(tmp_path: Path) -> None:
    store = open_blobs("file:store", base=tmp_path, cache=tmp_path / "cache")
    digest = store.put(b"hello")
    assert (tmp_path / "store/blobs/sha256" / digest.removeprefix("sha256:")).is_file()
    with pytest.raises(UnknownPlace, match="gopher"):
        open_blobs("gopher:hole", base=tmp_path, cache=tmp_path / "cache")
