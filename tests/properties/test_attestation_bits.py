"""A statement about a package holds as it was made, and in no other form."""

from __future__ import annotations

import functools
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core.digests import sha256
from lockgate.core.errors import LockgateError
from lockgate.core.journal import sign_checkpoint
from lockgate.delivery.messages import ReleaseInEmergency
from lockgate.governance.messages import BreakGlass, CloseReview, SecondBreakGlass
from lockgate.hub.messages import ProvedEmergency, ProveVersion, VersionProofs
from lockgate.registry.packages.signing import Attested, Statement
from lockgate.testing.furnished import FurnishedStory
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, accepted
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.memory_journal import MemoryCheckpoints
from lockgate.testing.notes import TestKey
from lockgate.workshop.transport.statements import (
    KINDS,
    PROOFS,
    About,
    AttestationForged,
    Words,
    check,
    statements,
)

KEY = TestKey()
VERSION = f"{MODEL_NAME}@1.0.0"


class Known(NamedTuple):
    about: About
    words: dict[str, Words]
    proofs: VersionProofs


def in_emergency(story: FurnishedStory) -> None:
    """Two people bring the version back past the policy, and a third one reviews it."""
    glass = {"model": MODEL_NAME, "environment": "prod"}
    for actor, command in (
        ("ivy", BreakGlass(id="b", incident="INC-4", reason="wrong answers", hours=2.0, **glass)),
        ("sam", SecondBreakGlass(id="s", number=1, **glass)),
        ("ivy", ReleaseInEmergency(id="r", version=VERSION, environment="prod", number=1)),
        ("rita", CloseReview(id="c", number=1, finding="was needed", **glass)),
        # Another emergency of the model, which its entries must not be taken from.
        ("ivy", BreakGlass(id="o", incident="INC-5", reason="again", hours=2.0, **glass)),
        ("rita", CloseReview(id="oc", number=2, finding="needless", **glass)),
    ):
        accepted(story.do(actor, command))


@functools.cache
def known() -> Known:
    """A version in production, and what is attested of it, one statement of each kind."""
    sink, blobs = MemoryCheckpoints(), MemoryBlobs()
    world = HubWorld.in_memory(checkpoints=(sink, KEY))
    story = FurnishedStory(world.hub, blobs)
    story.found()
    story.release("one", VERSION)
    story.release("two", f"{MODEL_NAME}@1.0.1")
    in_emergency(story)
    sink.write(sign_checkpoint(world.journal.head(), KEY))
    about = About.of(story.named("package", "one"), blobs)
    proofs = world.ask(ProveVersion(version=VERSION))
    return Known(about, {one.kind: one for one in statements(proofs, about)}, proofs)


def attested(data: bytes) -> Attested:
    """As a trusted signer would have it, whatever it says."""
    return Attested(known().about.package, msgspec.json.decode(data, type=Statement), sha256(data), "k")


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_as_it_was_made(kind: str) -> None:
    about, words, _ = known()
    checked = check(attested(words[kind].data), about, [KEY], sha256(b"envelope"))
    assert (checked.proved, checked.claim.kind) == ("holds", kind)


@given(st.sampled_from(KINDS), st.data())
def test_no_bit_of_it_can_be_changed(kind: str, data: st.DataObject) -> None:
    about, words, _ = known()
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


@given(st.sampled_from(KINDS), st.data())
def test_no_bit_of_the_entries_can_be_changed_with_the_words_around_them(
    kind: str, data: st.DataObject
) -> None:
    """Whoever holds a trusted key changes an entry, or the proof of it, and signs whatever follows from that."""
    about, words, _ = known()
    statement = msgspec.json.decode(words[kind].data)
    proofs = statement["predicate"][PROOFS]
    parts = [proofs["registration"], proofs["entry"], *proofs.get("right", ())]
    part = data.draw(st.sampled_from(parts))
    field = data.draw(st.sampled_from(["entry", "path", "checkpoint"]))
    text = bytearray(part[field].encode())
    at = data.draw(st.integers(0, 8 * len(text) - 1))
    text[at // 8] ^= 1 << at % 8
    part[field] = bytes(text).decode(errors="replace")
    with pytest.raises(AttestationForged):
        check(attested(msgspec.json.encode(statement)), about, [KEY], sha256(b"envelope"))


@given(st.integers(1, 200))
def test_a_seq_that_is_not_the_entrys_own_is_found_out(seq: int) -> None:
    about, words, _ = known()
    statement = msgspec.json.decode(words["approval"].data)
    proof = statement["predicate"][PROOFS]["entry"]
    if seq == proof["seq"]:
        return
    proof["seq"] = seq
    with pytest.raises(AttestationForged):
        check(attested(msgspec.json.encode(statement)), about, [KEY], sha256(b"envelope"))


def test_an_emergency_is_told_as_one_and_is_no_promotion() -> None:
    about, words, _ = known()
    checked = check(attested(words["emergency"].data), about, [KEY], sha256(b"envelope"))
    claim = checked.claim
    assert claim is not None
    assert (claim.result, claim.right, claim.by) == ("REVIEWED", "B-1", "ivy")
    assert claim.says.startswith(
        "went to prod/flight-delay past the policy, by break-glass B-1 of ivy, with sam (incident INC-4: wrong answers)"
    )
    assert claim.says.endswith(": was needed")
    said = msgspec.json.decode(words["emergency"].data)["predicate"]
    assert (said["ticket"], said["right"]["seconded"], said["review"]["by"]) == ("INC-4", "sam", "rita")


@given(st.data())
def test_only_the_entries_of_its_own_right_in_their_order_make_an_emergency(data: st.DataObject) -> None:
    """Whoever holds a trusted key takes true entries, some of another emergency, or in another order."""
    about, _, proofs = known()
    (own,) = proofs.emergencies
    (signed,) = {own.entry.checkpoint}
    assert [one.checkpoint for one in own.right] == [signed] * 3
    chosen = data.draw(st.lists(st.sampled_from([*own.right, own.entry, own.registration]), max_size=4))
    made = msgspec.structs.replace(own, right=tuple(chosen))
    fits = chosen in (
        [*own.right],
        [own.right[0]],
        [own.right[0], own.right[1]],
        [own.right[0], own.right[2]],
    )
    try:
        (words,) = [
            one
            for one in statements(VersionProofs(entries=(), emergencies=(made,)), about)
            if one.kind == "emergency"
        ]
    except LockgateError:
        assert not fits
        return
    assert fits
    assert check(attested(words.data), about, [KEY], sha256(b"envelope")).proved == "holds"


def test_the_entries_of_another_emergency_do_not_fit() -> None:
    about, words, proofs = known()
    (own,) = proofs.emergencies
    for at, (was, now) in enumerate((('"number":1', '"number":2'), ("INC-4", "INC-4"))):
        glass = own.right[0]
        changed = msgspec.structs.replace(glass, entry=glass.entry.replace(was, now))
        made = ProvedEmergency(
            registration=own.registration, entry=own.entry, right=(changed, *own.right[1:])
        )
        if at == 0:
            with pytest.raises(LockgateError):
                statements(VersionProofs(entries=(), emergencies=(made,)), about)
        else:
            (same,) = statements(VersionProofs(entries=(), emergencies=(made,)), about)
            assert same.data == words["emergency"].data
