"""What an archive is: one tar whose bytes follow from the store alone.

    lockgate-archive.json    `Manifest`: which entries, which head, what was left out
    checkpoint-keys          the verifier keys of the journal, one a line
    checkpoints              the signed notes, each followed by a line of five =
    events.jsonl             the entries, byte for byte as they were hashed, one a line
    receipts.jsonl           what each command was answered, for retries; not part of the chain
    homes.jsonl              where blobs are at home, of what the entries say; archives of earlier releases have none
    oci-layout, index.json   the packages by name, so that any OCI tool finds them
    blobs/sha256/HEX         packages, signatures, evidence, runs, snapshots

An archive of the journal alone ends before `receipts.jsonl`. One that begins after some entry carries the hash and
the Merkle frontier there; that they are right follows from the signed root that they lead to.
"""

from __future__ import annotations

import msgspec

from lockgate.core.digests import Digest
from lockgate.core.errors import Conflict, Corrupt, Forbidden, Invalid, Unavailable
from lockgate.core.journal import GENESIS

SCHEMA = "lockgate.archive/1"
MANIFEST, KEYS, NOTES = "lockgate-archive.json", "checkpoint-keys", "checkpoints"
EVENTS, RECEIPTS, HOMES = "events.jsonl", "receipts.jsonl", "homes.jsonl"
OCI_LAYOUT, INDEX, BLOBS = "oci-layout", "index.json", "blobs/sha256/"
SEPARATOR = "=====\n"


class NotAnArchive(Invalid):
    """The file is no archive, or one of a newer release."""

    code = "archives.not-an-archive"


class ArchiveAltered(Corrupt):
    """What is in the archive is not what its checkpoints and digests say."""

    code = "archives.altered"


class ArchiveUnsigned(Forbidden):
    """Whoever had the file in hand could have changed its last entries."""

    code = "archives.unsigned"


class StoreNotEmpty(Conflict):
    """A history can only be put where there is none."""

    code = "archives.store-not-empty"
    retryable = False


class ArchiveUnwritable(Unavailable):
    code = "archives.unwritable"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hashes in hex.

    Attributes:
        after, after_hash, after_frontier: the entry before the first one here, its chain hash, the tree up to it.
        size, hash, root: of the journal up to the last entry here.
        whole: whether the blobs and receipts are here too, so that a store can be made of it.
        without: what was left out on purpose.
    """

    schema: str = SCHEMA
    release: str
    after: int = 0
    after_hash: str = GENESIS.hex()
    after_frontier: tuple[str, ...] = ()
    size: int
    hash: str
    root: str
    n_checkpoints: int
    n_receipts: int = 0
    n_blobs: int = 0
    whole: bool = False
    without: tuple[str, ...] = ()


class ReceiptLine(msgspec.Struct, frozen=True):
    command_id: str
    receipt: msgspec.Raw


class HomeLine(msgspec.Struct, frozen=True):
    digest: Digest
    home: str
