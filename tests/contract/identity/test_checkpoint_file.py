"""The checkpoint file: appended to, and unhurt by a note that was cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.adapters.identity.checkpoints import FileSink, NotePrivate, NotePublic
from lockgate.adapters.identity.keys import CheckpointKey, generate_checkpoint_key
from lockgate.core.journal import EMPTY_HEAD, Checkpoint, extend, open_checkpoint, sign_checkpoint


@pytest.fixture
def key(tmp_path: Path) -> CheckpointKey:
    generate_checkpoint_key(tmp_path / "checkpoint.pem")
    return CheckpointKey(tmp_path / "checkpoint.pem")


def checkpoint(key: CheckpointKey, size: int) -> Checkpoint:
    head = EMPTY_HEAD
    for number in range(size):
        head = extend(head, str(number).encode())
    return sign_checkpoint(head, NotePrivate(key))


def test_notes_come_back_as_they_were_written(tmp_path: Path, key: CheckpointKey) -> None:
    sink = FileSink(tmp_path / "deep" / "checkpoints")
    assert (sink.read(), sink.last_size()) == ((), 0)
    notes = [checkpoint(key, size) for size in (1, 2, 5)]
    for note in notes:
        sink.write(note)
    assert sink.read() == tuple(note.note for note in notes)
    assert sink.last_size() == 5


def test_a_torn_note_does_not_spoil_the_next(tmp_path: Path, key: CheckpointKey) -> None:
    path = tmp_path / "checkpoints"
    FileSink(path).write(checkpoint(key, 1))
    whole = path.read_bytes()
    second = checkpoint(key, 2).note.encode()
    for kept in range(len(second) + 1):
        # Cut anywhere, in the middle of a character too.
        path.write_bytes(whole + second[:kept])
        sink = FileSink(path)
        assert sink.last_size() == 1
        sink.write(checkpoint(key, 3))
        assert [open_checkpoint(note, NotePublic(key.public)).size for note in sink.read()] == [1, 3]


@pytest.mark.parametrize("note", [b"", b"one line", b"origin\nmany\n", b"origin\n-3\n", b"\xff\n\xff\n"])
def test_a_malformed_last_note_counts_for_nothing(tmp_path: Path, key: CheckpointKey, note: bytes) -> None:
    path = tmp_path / "checkpoints"
    path.write_bytes(note + b"=====\n")
    assert FileSink(path).last_size() == 0
    FileSink(path).write(checkpoint(key, 4))
    assert FileSink(path).last_size() == 4
    assert len(FileSink(path).read()) == 2, "what was there stays, for the audit to find"
