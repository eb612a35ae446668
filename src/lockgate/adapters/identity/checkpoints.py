"""Checkpoints of the journal: the key that signs them, an append-only file that keeps them, several places at once."""

from __future__ import annotations

import base64
import binascii
import errno
import fcntl
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from lockgate.adapters.identity.keys import CheckpointKey, CheckpointPublicKey, unreadable
from lockgate.core.errors import LockgateError, Unavailable
from lockgate.core.journal import Checkpoint, verifier_key
from lockgate.hub.ports import CheckpointSink

KEY_NAME = "lockgate-journal"
_SEPARATOR = b"=====\n"
_NUMBER = re.compile(r"[0-9]{1,18}")


class CheckpointNotEverywhere(Unavailable):
    """At least one of the places for checkpoints has not got the last one; the others have."""

    code = "audit.checkpoint-not-everywhere"


class NotePublic:
    """A checkpoint public key in the form that notes want."""

    def __init__(self, key: CheckpointPublicKey, name: str = KEY_NAME) -> None:
        self._key = key
        self.name = name

    def public_bytes(self) -> bytes:
        return self._key.raw

    def verify(self, message: bytes, signature: bytes) -> bool:
        return self._key.verify(message, signature)


def read_key(text: str, *, base: Path = Path()) -> NotePublic:
    """A key that notes are checked with: a verifier key `NAME+HASH+KEY`, or the path of a public key in PEM.

    Raises:
        KeyMissing, KeyUnreadable: it is neither.
    """
    name, plus, rest = text.partition("+")
    number, second, encoded = rest.partition("+")
    if not (plus and second):
        return NotePublic(CheckpointPublicKey.from_file(base / text))
    try:
        raw = base64.b64decode(encoded, validate=True)
        read = NotePublic(CheckpointPublicKey.from_raw(raw[1:], where=text), name)
    except binascii.Error as error:
        raise unreadable(text, "no base64") from error
    if verifier_key(read) != f"{name}+{number}+{encoded}":
        raise unreadable(text, "its parts do not belong together, so it was not copied as it was")
    return read


class NotesOnDemand:
    """Checks the notes of checkpoints. The key is read when the first note is checked: a rollback needs none."""

    name = KEY_NAME

    def __init__(self, load: Callable[[], CheckpointPublicKey]) -> None:
        self._load = load

    @cached_property
    def _public(self) -> NotePublic:
        return NotePublic(self._load())

    def public_bytes(self) -> bytes:
        return self._public.public_bytes()

    def verify(self, message: bytes, signature: bytes) -> bool:
        return self._public.verify(message, signature)


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
            kept = _whole(file.read())
            if checkpoint.size < _last_size(kept):
                # Another process has signed a later head meanwhile, which says all that this one would.
                return
            whole = len(kept)
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
        return _last_size(_whole(self._path.read_bytes())) if self._path.exists() else 0


class Sinks:
    """Several places for checkpoints at once, so that whoever can rewrite one is found out by another.

    Args:
        places: name for messages -> opens the sink, when it is first needed.
    """

    def __init__(self, places: Mapping[str, Callable[[], CheckpointSink]]) -> None:
        self._places = places
        self._opened: dict[str, CheckpointSink] = {}

    def write(self, checkpoint: Checkpoint) -> None:
        """Write the note wherever it is not yet; one place that fails does not keep it from the others.

        Raises:
            CheckpointNotEverywhere: names the places that have not got it, and why.
        """
        failed: dict[str, Exception] = {}
        for name in self._places:
            try:
                sink = self._open(name)
                if sink.last_size() < checkpoint.size:
                    sink.write(checkpoint)
            except (LockgateError, OSError) as error:
                failed[name] = error
        if failed:
            told = "; ".join(f"{name}: {error}" for name, error in failed.items())
            raise CheckpointNotEverywhere(
                f"the checkpoint of {checkpoint.size} entries was not written to {told}",
                remedy="put that place right; the next checkpoint is written to all of them",
                places=sorted(failed),
            ) from next(iter(failed.values()))

    def read(self) -> Sequence[str]:
        """The notes of all places; the same note of two places once."""
        return tuple(dict.fromkeys(note for name in self._places for note in self._open(name).read()))

    def last_size(self) -> int:
        """Of the place that is furthest behind; 0 when one cannot be read."""
        sizes: list[int] = []
        for name in self._places:
            try:
                sizes.append(self._open(name).last_size())
            except (LockgateError, OSError):
                return 0
        return min(sizes, default=0)

    def _open(self, name: str) -> CheckpointSink:
        if name not in self._opened:
            self._opened[name] = self._places[name]()
        return self._opened[name]


def _last_size(whole: bytes) -> int:
    *_, last = [b"", *whole.split(_SEPARATOR)[-2:-1]]
    lines = last.decode(errors="replace").split("\n")
    return int(lines[1]) if len(lines) > 1 and _NUMBER.fullmatch(lines[1]) else 0


def _whole(data: bytes) -> bytes:
    """What stands before a torn note."""
    return data[: data.rfind(_SEPARATOR) + len(_SEPARATOR)] if _SEPARATOR in data else b""
