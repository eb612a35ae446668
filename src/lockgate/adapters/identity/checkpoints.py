"""Checkpoints of the journal in an append-only file, and the key that signs them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path

from lockgate.adapters.identity.keys import CheckpointKey, CheckpointPublicKey
from lockgate.core.journal import Checkpoint

KEY_NAME = "lockgate-journal"
_SEPARATOR = b"=====\n"
_NUMBER = re.compile(r"[0-9]{1,18}")


class NotePublic:
    """A checkpoint public key in the form that notes want."""

    name = KEY_NAME

    def __init__(self, key: CheckpointPublicKey) -> None:
        self._key = key

    def public_bytes(self) -> bytes:
        return self._key.raw

    def verify(self, message: bytes, signature: bytes) -> bool:
        return self._key.verify(message, signature)


class NotePrivate:
    """A checkpoint key in the form that notes want."""

    name = KEY_NAME

    def __init__(self, key: CheckpointKey) -> None:
        self._key = key

    def public_bytes(self) -> bytes:
        return self._key.public.raw

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class FileSink:
    """Notes one after another in a file; whole notes are only ever appended to it.

    A note that a crash or a full disk cut short has no separator behind it. It says nothing, and goes when the next
    note is written: run into that one, it would spoil it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, checkpoint: Checkpoint) -> None:
        """Append a note and wait until the disk has it.

        Raises:
            OSError: the note is not, or not wholly, written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        note = checkpoint.note.encode() + _SEPARATOR
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "rb+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            whole = len(_whole(file.read()))
            file.truncate(whole)
            if file.write(note) != len(note):
                file.truncate(whole)
                raise OSError(errno.ENOSPC, "a checkpoint was cut short", str(self._path))
            os.fsync(descriptor)

    def read(self) -> Sequence[str]:
        if not self._path.exists():
            return ()
        # Bytes that are no text belong to a note that does not verify, which is for the audit to say.
        notes = _whole(self._path.read_bytes()).split(_SEPARATOR)[:-1]
        return tuple(note.decode(errors="replace") for note in notes)

    def last_size(self) -> int:
        """The number of entries that the last note knows; 0 when there is none, or none that can be read."""
        notes = self.read()
        lines = notes[-1].split("\n") if notes else []
        return int(lines[1]) if len(lines) > 1 and _NUMBER.fullmatch(lines[1]) else 0


def _whole(data: bytes) -> bytes:
    """What stands before a torn note."""
    return data[: data.rfind(_SEPARATOR) + len(_SEPARATOR)] if _SEPARATOR in data else b""
