"""Checkpoints of the journal in an append-only file, and the key that signs them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lockgate.adapters.identity.keys import CheckpointKey, CheckpointPublicKey
from lockgate.core.journal import Checkpoint

KEY_NAME = "lockgate-journal"
_SEPARATOR = "=====\n"


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
    """Notes one after another in a file that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, checkpoint: Checkpoint) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # One write call: two processes appending at once do not mix their notes.
            os.write(descriptor, (checkpoint.note + _SEPARATOR).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> Sequence[str]:
        if not self._path.exists():
            return ()
        # A note cut short by a crash has no separator behind it and says nothing.
        return tuple(self._path.read_text().split(_SEPARATOR)[:-1])

    def last_size(self) -> int:
        notes = self.read()
        return int(notes[-1].split("\n")[1]) if notes else 0
