"""A statement about a package holds as it was made, and in no other form."""

from __future__ import annotations

import functools
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core.digests import sha256
from lockgate.core.journal import sign_checkpoint
from lockgate.hub.messages import ProveVersion
from lockgate.registry.packages.signing import Attested, Statement
from lockgate.testing.furnished import FurnishedStory
from lockgate.testing.hub_world import MODEL_NAME, HubWorld
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.memory_journal import MemoryCheckpoints
from lockgate.testing.notes import TestKey
from lockgate.workshop.transport.statements import PROOFS, About, AttestationForged, Words, check, statements

KEY = TestKey()
VERSION = f"{MODEL_NAME}@1.0.0"


class Known(NamedTuple):
    about: About
    words: dict[str, Words]


@functools.cache
def known() -> Known:
    """A version in production, and what is attested of it, one statement of each kind."""
    sink, blobs = MemoryCheckpoints(), MemoryBlobs()
    world = HubWorld.in_memory(checkpoints=(sink, KEY))
    story = FurnishedStory(world.hub, blobs)
    story.found()
    story.release("one", VERSION)
    sink.write(sign_checkpoint(world.journal.head(), KEY))
    about = About.of(story.named("package", "one"), blobs)
    made = statements(world.ask(ProveVersion(version=VERSION)).entries, about)
    return Known(about, {one.kind: one for one in made})


def attested(data: bytes) -> Attested:
    """As a trusted signer would have it, whatever it says."""
    return Attested(known().about.package, msgspec.json.decode(data, type=Statement), sha256(data), "k")


@pytest.mark.parametrize("kind", ["provenance", "evidence", "approval", "promotion"])
def test_it_holds_as_it_was_made(kind: str) -> None:
    about, words = known()
    checked = check(attested(words[kind].data), about, [KEY], sha256(b"envelope"))
    assert (checked.proved, checked.claim.kind) == ("holds", kind)


@given(st.sampled_from(["provenance", "evidence", "approval", "promotion"]), st.data())
def test_no_bit_of_it_can_be_changed(kind: str, data: st.DataObject) -> None:
    about, words = known()
    flipped = bytearray(words[kind].data)
    at = data.draw(st.integers(0, 8 * len(flipped) - 1))
    flipped[at // 8] ^= 1 << at % 8
    try:
        changed = attested(bytes(flipped))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    try:
        checked = check(changed, about, [KEY], sha256(b"envelope"))
    except AttestationForged:
        return
    if checked.proved == "holds":
        # What a promotion was decided on is its signer's word, and claimed of nobody else.
        was, now = (msgspec.json.decode(one)["predicate"] for one in (words[kind].data, bytes(flipped)))
        assert was.pop("inputAttestations") != now.pop("inputAttestations") and was == now
        return
    # The word that says what it rests on, or whose journal, was hit: then it claims nothing.
    assert checked.proved in ("none", "unknown-journal") and checked.claim is None


@given(st.sampled_from(["provenance", "evidence", "approval", "promotion"]), st.data())
def test_no_bit_of_the_entries_can_be_changed_with_the_words_around_them(
    kind: str, data: st.DataObject
) -> None:
    """Whoever holds a trusted key changes an entry, or the proof of it, and signs whatever follows from that."""
    about, words = known()
    statement = msgspec.json.decode(words[kind].data)
    proofs = statement["predicate"][PROOFS]
    part = proofs[data.draw(st.sampled_from(sorted(proofs)))]
    field = data.draw(st.sampled_from(["entry", "path", "checkpoint"]))
    text = bytearray(part[field].encode())
    at = data.draw(st.integers(0, 8 * len(text) - 1))
    text[at // 8] ^= 1 << at % 8
    part[field] = bytes(text).decode(errors="replace")
    with pytest.raises(AttestationForged):
        check(attested(msgspec.json.encode(statement)), about, [KEY], sha256(b"envelope"))


@given(st.integers(1, 200))
def test_a_seq_that_is_not_the_entrys_own_is_found_out(seq: int) -> None:
    about, words = known()
    statement = msgspec.json.decode(words["approval"].data)
    proof = statement["predicate"][PROOFS]["entry"]
    if seq == proof["seq"]:
        return
    proof["seq"] = seq
    with pytest.raises(AttestationForged):
        check(attested(msgspec.json.encode(statement)), about, [KEY], sha256(b"envelope"))
