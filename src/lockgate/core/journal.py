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
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.errors import Corrupt

GENESIS = bytes(32)
ORIGIN = "lockgate/journal"
_BLOCK = 1024
_ED25519 = b"\x01"


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
    """A signed head. `key` is the verifier key of whoever signed it, `NAME+HASH+KEY` (C2SP signed-note)."""

    size: int
    root: bytes
    note: str
    key: str = ""


class NoteKey(Protocol):
    """Signs checkpoints (ed25519). The private half lives outside the database."""

    name: str

    def sign(self, message: bytes) -> bytes: ...

    def public_bytes(self) -> bytes: ...


class NoteVerifier(Protocol):
    name: str

    def verify(self, message: bytes, signature: bytes) -> bool: ...

    def public_bytes(self) -> bytes: ...


NoteVerifiers = NoteVerifier | Sequence[NoteVerifier]
"""The keys of which one must have signed a note."""


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


class Tree:
    """The Merkle tree of a growing log, carried as its frontier. Takes leaves by the block, which is what makes a
    million of them a matter of seconds.

    Attributes:
        size: how many leaves it has.
    """

    def __init__(self, size: int = 0, frontier: Sequence[bytes] = ()) -> None:
        self.size = size
        self._frontier = list(frontier)

    def grow(self, leaves: list[bytes]) -> None:
        """Append leaf hashes."""
        at = 0
        while at < len(leaves):
            # The largest perfect subtree that may begin here: its place must be a multiple of its size.
            fits = 1 << (len(leaves) - at).bit_length() - 1
            n = min(fits, self.size & -self.size) if self.size else fits
            self._merge(_perfect(leaves[at : at + n]), n)
            at += n

    def _merge(self, carried: bytes, n: int) -> None:
        size = self.size // n
        while size & 1:
            carried = node(self._frontier.pop(), carried)
            size >>= 1
        self._frontier.append(carried)
        self.size += n

    @property
    def frontier(self) -> tuple[bytes, ...]:
        return tuple(self._frontier)

    @property
    def root(self) -> bytes:
        return root(self._frontier)


def _perfect(level: list[bytes]) -> bytes:
    """The root over a power of two of leaf hashes."""
    sha256 = hashlib.sha256
    while len(level) > 1:
        level = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The runs of leaves `[start, end)` whose roots are the audit path of leaf `index` (from 0), leaf's side first
    (RFC 6962, 2.1.1)."""
    ranges: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        split = start + (1 << (end - start - 1).bit_length() - 1)
        if index < split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    return ranges[::-1]


def consistency_ranges(old: int, new: int) -> list[tuple[int, int]]:
    """The runs of leaves whose roots prove that the tree of `new` leaves begins with that of `old`, in the order of
    RFC 6962, 2.1.2. Both at least 1."""
    ranges: list[tuple[int, int]] = []
    start, end, whole = 0, new, True
    while old < end:
        split = start + (1 << (end - start - 1).bit_length() - 1)
        if old <= split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start, whole = split, False
    if not whole:
        ranges.append((start, end))
    return ranges[::-1]


def range_roots(leaves: Iterable[bytes], ranges: Sequence[tuple[int, int]]) -> tuple[bytes, ...]:
    """The root over each run of leaves, from one pass over the leaf hashes; the runs do not overlap.

    Raises:
        IndexError: the leaves end before the last run does.
    """
    found: dict[tuple[int, int], bytes] = {}
    stream, at = iter(leaves), 0
    for start, end in sorted(ranges):
        deque(islice(stream, start - at), maxlen=0)
        tree = Tree()
        while block := list(islice(stream, min(_BLOCK, end - start - tree.size))):
            tree.grow(block)
        if tree.size != end - start:
            raise IndexError(f"there are no leaves up to {end}")
        found[start, end], at = tree.root, end
    return tuple(found[one] for one in ranges)


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


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the log of `new` entries begins with the log of `old` (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    left = right = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            left, right = node(sibling, left), node(sibling, right)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            right = node(right, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and left == old_root and right == new_root


def sign_checkpoint(head: Head, key: NoteKey) -> Checkpoint:
    """A signed note over size and root (C2SP tlog-checkpoint, ed25519 signature type 0x01)."""
    text = f"{ORIGIN}\n{head.seq}\n{base64.b64encode(root(head.frontier)).decode()}\n"
    signature = base64.b64encode(_key_hash(key.name, key.public_bytes()) + key.sign(text.encode())).decode()
    note = f"{text}\n\u2014 {key.name} {signature}\n"
    return Checkpoint(head.seq, root(head.frontier), note, verifier_key(key))


def verifier_key(key: NoteKey | NoteVerifier) -> str:
    """A public key in one line, `NAME+HASH+KEY`, as tools for signed notes take it."""
    raw = key.public_bytes()
    return f"{key.name}+{_key_hash(key.name, raw).hex()}+{base64.b64encode(_ED25519 + raw).decode()}"


def open_checkpoint(note: str, verifier: NoteVerifiers) -> Checkpoint:
    """Read a note back and check its signature; of several keys, one must have signed it.

    Raises:
        JournalAltered: the note is malformed, or no signature of `verifier` is on it.
    """
    verifiers = verifier if isinstance(verifier, Sequence) else (verifier,)
    for each in verifiers:
        opened = _opened(note, each)
        if opened is not None:
            return opened
    raise JournalAltered(
        "a checkpoint carries no valid signature of this journal's key",
        remedy="compare the checkpoint file with its copy in the second sink",
        key=", ".join(each.name for each in verifiers),
    )


def _opened(note: str, verifier: NoteVerifier) -> Checkpoint | None:
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
                claimed = base64.b64decode(encoded, validate=True)
                return Checkpoint(int(size), claimed, note, verifier_key(verifier))
        except ValueError:
            # Signed or not, these are not the three lines of a checkpoint.
            continue
    return None


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]
