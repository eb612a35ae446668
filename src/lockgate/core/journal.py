"""The arithmetic of the journal: entries, hash chain, Merkle tree, checkpoints. No storage.

Every entry's bytes are made once, stored verbatim and hashed as stored, so that verifying never has to
serialise anything again:

    hash(n) = SHA256(hash(n-1) || bytes(n))          hash(0) = 32 zero bytes

A chain alone proves nothing against somebody who may rewrite the whole database. Therefore the same bytes are
also leaves of a Merkle tree (RFC 6962, section 2.1) whose root is signed and written elsewhere as a checkpoint
(C2SP tlog-checkpoint: origin, size, root; signed note). The tree is carried as its frontier: the roots of the
perfect subtrees that make up the log, one per set bit of its size.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.errors import Corrupt

GENESIS = bytes(32)
ORIGIN = "lockgate/journal"


class JournalAltered(Corrupt):
    code = "journal.altered"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What one line of the journal holds. `event` stays raw: old tags must survive without being understood."""

    seq: int
    at: Micros
    actor: str
    command_id: str
    event: msgspec.Raw


class Head(NamedTuple):
    """The end of the journal: how many entries, the hash of the last one, the Merkle frontier."""

    seq: int
    hash: bytes
    frontier: tuple[bytes, ...]


EMPTY_HEAD = Head(0, GENESIS, ())


class Checkpoint(NamedTuple):
    size: int
    root: bytes
    note: str


class NoteKey(Protocol):
    """Signs checkpoints (ed25519). The private half lives outside the database."""

    name: str

    def sign(self, message: bytes) -> bytes: ...

    def public_bytes(self) -> bytes: ...


class NoteVerifier(Protocol):
    name: str

    def verify(self, message: bytes, signature: bytes) -> bool: ...

    def public_bytes(self) -> bytes: ...


def link(previous: bytes, body: bytes) -> bytes:
    """The chain hash of an entry's bytes after the entry whose hash is `previous`."""
    return hashlib.sha256(previous + body).digest()


def leaf(body: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + body).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def extend(head: Head, body: bytes) -> Head:
    """The head after one more entry. Amortised two hashes of tree work per entry."""
    frontier = list(head.frontier)
    carried = leaf(body)
    size = head.seq
    while size & 1:
        carried = node(frontier.pop(), carried)
        size >>= 1
    frontier.append(carried)
    return Head(head.seq + 1, link(head.hash, body), tuple(frontier))


def root(frontier: Sequence[bytes]) -> bytes:
    """The Merkle root that the frontier stands for; of the empty tree, SHA256 of nothing (RFC 6962)."""
    if not frontier:
        return hashlib.sha256(b"").digest()
    result = frontier[-1]
    for subtree in reversed(frontier[:-1]):
        result = node(subtree, result)
    return result


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Audit path of leaf hash `index` (from 0) in the tree over `leaves` (RFC 6962, 2.1.1)."""
    if len(leaves) <= 1:
        return ()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return (*inclusion_proof(leaves[:split], index), _tree(leaves[split:]))
    return (*inclusion_proof(leaves[split:], index - split), _tree(leaves[:split]))


def root_from_proof(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that `proof` leads to; compare it with a signed one (RFC 9162, 2.1.3.2)."""
    at, last, result = index, size - 1, leaf_hash
    for sibling in proof:
        if at & 1 or at == last:
            result = node(sibling, result)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            result = node(result, sibling)
        at >>= 1
        last >>= 1
    return result


def _tree(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node(_tree(leaves[:split]), _tree(leaves[split:]))


def sign_checkpoint(head: Head, key: NoteKey) -> Checkpoint:
    """A signed note over size and root (C2SP tlog-checkpoint, ed25519 signature type 0x01)."""
    text = f"{ORIGIN}\n{head.seq}\n{base64.b64encode(root(head.frontier)).decode()}\n"
    signature = base64.b64encode(_key_hash(key.name, key.public_bytes()) + key.sign(text.encode())).decode()
    return Checkpoint(head.seq, root(head.frontier), f"{text}\n\u2014 {key.name} {signature}\n")


def open_checkpoint(note: str, verifier: NoteVerifier) -> Checkpoint:
    """Read a note back and check its signature.

    Raises:
        JournalAltered: the note is malformed, or no signature of `verifier` is on it.
    """
    text, _, signatures = note.partition("\n\n")
    expected = _key_hash(verifier.name, verifier.public_bytes())
    for line in signatures.splitlines():
        parts = line.split(" ")
        if len(parts) != 3 or parts[:2] != ["\u2014", verifier.name]:
            continue
        try:
            raw = base64.b64decode(parts[2], validate=True)
            signed = raw[:4] == expected and verifier.verify((text + "\n").encode(), raw[4:])
            origin, size, encoded = text.split("\n")
            if signed and origin == ORIGIN:
                return Checkpoint(int(size), base64.b64decode(encoded, validate=True), note)
        except ValueError:
            # Signed or not, these are not the three lines of a checkpoint.
            continue
    raise JournalAltered(
        "a checkpoint carries no valid signature of this journal's key",
        remedy="compare the checkpoint file with its copy in the second sink",
        key=verifier.name,
    )


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]
