"""Proofs about the journal that hold without the journal: for an auditor who trusts one public key and nobody else.

A proof is a small JSON document. Its path of hashes leads from what it claims to the root of a signed checkpoint:

    inclusion     these bytes are entry `seq` of the log that the checkpoint signs (RFC 6962, 2.1.1)
    consistency   the log of the newer checkpoint begins with that of the older one (RFC 6962, 2.1.2)

Who checks needs SHA-256 and ed25519, the document, and the public key from a source of his own. `key` inside a proof
says which key is meant; it convinces nobody.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import msgspec

from lockgate.core.errors import Corrupt, Invalid
from lockgate.core.journal import (
    Checkpoint,
    NoteVerifiers,
    Tree,
    consistency_ranges,
    consistent,
    inclusion_ranges,
    leaf,
    open_checkpoint,
    range_roots,
    root_from_proof,
)

INCLUSION = "lockgate.inclusion/1"
CONSISTENCY = "lockgate.consistency/1"
_HASH_BYTES = 32
_MAX_DIGITS = 18


class NotAProof(Invalid):
    """The document is no proof that this release can read."""

    code = "governance.not-a-proof"


class ProofFails(Corrupt):
    """What the proof claims does not follow from its checkpoint."""

    code = "governance.proof-fails"


class NothingToProve(Invalid):
    """The checkpoints that were named do not make such a claim."""

    code = "governance.nothing-to-prove"


class InclusionProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That the bytes of `entry` (as UTF-8) are entry `seq`, counted from 1.

    Attributes:
        path: the audit path, leaf's side first, 32 bytes each, in base64.
        key: the verifier key that signed the checkpoint, as C2SP writes one.
    """

    schema: str = INCLUSION
    seq: int
    entry: str
    path: str
    checkpoint: str
    key: str


class ConsistencyProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That nothing was changed or taken away between two checkpoints, only added."""

    schema: str = CONSISTENCY
    old: str
    new: str
    path: str
    key: str


Proof = InclusionProof | ConsistencyProof


def prove_inclusion(
    leaves: Iterable[bytes], entry: bytes, seq: int, checkpoint: Checkpoint
) -> InclusionProof:
    """A proof from one pass over the leaf hashes.

    Args:
        leaves: of the whole log, from the first on.

    Raises:
        NothingToProve: the checkpoint does not reach to the entry.
        ProofFails: the log is not that of the checkpoint; a proof would not hold.
    """
    if not 0 < seq <= checkpoint.size:
        raise NothingToProve(
            f"entry {seq} is not among the {checkpoint.size} of the checkpoint",
            remedy="name a later checkpoint, or leave it out for the newest",
            seq=seq,
            size=checkpoint.size,
        )
    path = _roots(leaves, inclusion_ranges(seq - 1, checkpoint.size))
    proof = InclusionProof(
        seq=seq, entry=entry.decode(), path=_packed(path), checkpoint=checkpoint.note, key=checkpoint.key
    )
    _check_inclusion(proof, checkpoint)
    return proof


def prove_earliest(
    hashes: bytes | bytearray,
    groups: Iterable[Sequence[tuple[int, bytes]]],
    notes: Iterable[str],
    keys: NoteVerifiers,
) -> tuple[tuple[InclusionProof, ...], ...]:
    """Proofs of groups of entries `(seq, bytes)`. Those of a group rest on one checkpoint, the first that reaches to
    all of them: the same one, byte for byte, for as long as it is kept, however long the log has grown.

    Args:
        hashes: the leaves of the whole log, one after another.

    Raises:
        NothingToProve: no checkpoint reaches to an entry.
        ProofFails: the log is not that of the checkpoint.
    """
    ordered = sorted({(size, note) for note in notes if (size := _claimed_size(note))})

    @cache
    def opened(note: str) -> Checkpoint | None:
        with suppress(Corrupt):
            return open_checkpoint(note, keys)
        return None

    @cache
    def root_of(start: int, end: int) -> bytes:
        tree = Tree()
        tree.grow([bytes(hashes[at * _HASH_BYTES : (at + 1) * _HASH_BYTES]) for at in range(start, end)])
        return tree.root

    def reaching(seq: int) -> Checkpoint:
        for _, note in ordered[bisect_left(ordered, (seq, "")) :]:
            if (checkpoint := opened(note)) is not None:
                return checkpoint
        raise NothingToProve(
            f"no checkpoint reaches to entry {seq}",
            remedy="lockgate audit verify says what became of the checkpoints",
            seq=seq,
        )

    def prove(seq: int, entry: bytes, checkpoint: Checkpoint) -> InclusionProof:
        # Of a log that is shorter than its checkpoint the path leads elsewhere, and that is found out.
        path = [root_of(*one) for one in inclusion_ranges(seq - 1, checkpoint.size)]
        proof = InclusionProof(
            seq=seq, entry=entry.decode(), path=_packed(path), checkpoint=checkpoint.note, key=checkpoint.key
        )
        _check_inclusion(proof, checkpoint)
        return proof

    return tuple(
        tuple(prove(*one, reaching(max(seq for seq, _ in group))) for one in group) for group in groups
    )


def prove_consistency(leaves: Iterable[bytes], old: Checkpoint, new: Checkpoint) -> ConsistencyProof:
    """A proof from one pass over the leaf hashes. Raises as `prove_inclusion` does."""
    if not 0 < old.size <= new.size:
        raise NothingToProve(
            f"a log of {new.size} entries cannot begin with {old.size}",
            remedy="name the older checkpoint first; one of no entries proves nothing",
            old=old.size,
            new=new.size,
        )
    path = _roots(leaves, consistency_ranges(old.size, new.size))
    proof = ConsistencyProof(old=old.note, new=new.note, path=_packed(path), key=new.key)
    _check_consistency(proof, old, new)
    return proof


def read_proof(data: bytes) -> Proof:
    """Raises `NotAProof`."""
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
        if schema == INCLUSION:
            return msgspec.json.decode(data, type=InclusionProof)
        if schema == CONSISTENCY:
            return msgspec.json.decode(data, type=ConsistencyProof)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _no_proof(str(error)) from error
    raise _no_proof(f"its schema is {schema!r}")


def check_proof(proof: Proof, verifier: NoteVerifiers) -> Checkpoint:
    """Check a proof without the journal; returns the (newer) checkpoint that it rests on.

    Raises:
        JournalAltered: a checkpoint in it is not signed by the key.
        ProofFails: what it claims does not follow.
        NotAProof: it is written in no form that this release can read.
    """
    if isinstance(proof, InclusionProof):
        if proof.schema != INCLUSION:
            raise _no_proof(f"its schema is {proof.schema!r}")
        checkpoint = open_checkpoint(proof.checkpoint, verifier)
        _check_inclusion(proof, checkpoint)
        return checkpoint
    old, new = open_checkpoint(proof.old, verifier), open_checkpoint(proof.new, verifier)
    _check_consistency(proof, old, new)
    return new


def claim_of(proof: Proof) -> Any:
    """The entry that a proof of inclusion is about, as plain JSON; None for another proof."""
    return msgspec.json.decode(proof.entry) if isinstance(proof, InclusionProof) else None


class _Schema(msgspec.Struct):
    schema: str


def _claimed_size(note: str) -> int:
    """What a note says of its size, signed or not; 0 when it says nothing."""
    lines = note.split("\n", 2)
    digits = lines[1] if len(lines) > 1 else ""
    return int(digits) if digits.isdecimal() and len(digits) <= _MAX_DIGITS else 0


def _check_inclusion(proof: InclusionProof, checkpoint: Checkpoint) -> None:
    holds = 0 < proof.seq <= checkpoint.size
    if holds:
        hashed = leaf(proof.entry.encode())
        path = _unpacked(proof.path)
        expected = len(inclusion_ranges(proof.seq - 1, checkpoint.size))
        led = root_from_proof(hashed, proof.seq - 1, checkpoint.size, path)
        holds = len(path) == expected and led == checkpoint.root
    if not holds:
        raise ProofFails(
            f"the bytes are not entry {proof.seq} of the log of {checkpoint.size} that the checkpoint signs",
            remedy="ask for the proof anew; if it fails again, the journal or the proof was altered",
            seq=proof.seq,
        )


def _check_consistency(proof: ConsistencyProof, old: Checkpoint, new: Checkpoint) -> None:
    if not consistent(old.size, old.root, new.size, new.root, _unpacked(proof.path)):
        raise ProofFails(
            f"the log of {new.size} entries does not begin with the log of {old.size} that was signed earlier",
            remedy="ask for the proof anew; if it fails again, the past was rewritten between the two",
            old=old.size,
            new=new.size,
        )


def _roots(leaves: Iterable[bytes], ranges: Sequence[tuple[int, int]]) -> tuple[bytes, ...]:
    try:
        return range_roots(leaves, ranges)
    except IndexError as error:
        raise ProofFails(
            f"the journal is shorter than its checkpoint: {error}", remedy="lockgate audit verify"
        ) from error


def _packed(hashes: Sequence[bytes]) -> str:
    return base64.b64encode(b"".join(hashes)).decode()


def _unpacked(text: str) -> tuple[bytes, ...]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _no_proof(f"its path is no base64: {error}") from error
    # Of bits that base64 leaves over, some other text would stand for the same path.
    if len(data) % _HASH_BYTES or base64.b64encode(data).decode() != text:
        raise _no_proof("its path is no row of hashes")
    return tuple(data[at : at + _HASH_BYTES] for at in range(0, len(data), _HASH_BYTES))


def _no_proof(why: str) -> NotAProof:
    return NotAProof(f"this is no proof: {why}", remedy="give what `lockgate audit prove` wrote")
