"""Proofs, checked by the program and by some lines of this file that know nothing of it."""

from __future__ import annotations

import base64
import hashlib
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core.digests import canonical
from lockgate.core.errors import Corrupt, Invalid
from lockgate.core.journal import EMPTY_HEAD, extend, leaf, open_checkpoint, sign_checkpoint, verifier_key
from lockgate.governance.messages import RevokeApproval
from lockgate.governance.proof import (
    NothingToProve,
    ProofFails,
    check_proof,
    claim_of,
    prove_consistency,
    prove_inclusion,
    read_proof,
)
from lockgate.hub import audit
from lockgate.hub.messages import ProveConsistency, ProveEntry, ProveVersion, VerifyAudit
from lockgate.testing.clock import CountingIds
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted
from lockgate.testing.memory_journal import MemoryCheckpoints, MemoryJournal, MemoryOutbox
from lockgate.testing.notes import TestKey

KEY = TestKey()


def log(n: int) -> list[bytes]:
    return [b'{"seq":%d}' % number for number in range(1, n + 1)]


def checkpoint(bodies: list[bytes]):
    head = EMPTY_HEAD
    for body in bodies:
        head = extend(head, body)
    return sign_checkpoint(head, KEY)


def is_in_the_log(proof: bytes, key: str) -> bool:
    """What an auditor may write himself, from RFC 9162, 2.1.3.2 and the C2SP pages on signed notes."""
    told = json.loads(proof)
    text, signatures = told["checkpoint"].split("\n\n")
    origin, size, root = text.split("\n")
    _, _, encoded = key.split("+", 2)
    public = base64.b64decode(encoded)
    signature = base64.b64decode(signatures.strip().split(" ")[2])
    Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[4:], (text + "\n").encode())
    hashed = hashlib.sha256(b"\0" + told["entry"].encode()).digest()
    data = base64.b64decode(told["path"])
    at, last = told["seq"] - 1, int(size) - 1
    for start in range(0, len(data), 32):
        sibling = data[start : start + 32]
        if last == 0:
            return False
        if at % 2 == 1 or at == last:
            hashed = hashlib.sha256(b"\1" + sibling + hashed).digest()
            while at % 2 == 0 and at != 0:
                at, last = at // 2, last // 2
        else:
            hashed = hashlib.sha256(b"\1" + hashed + sibling).digest()
        at, last = at // 2, last // 2
    return last == 0 and base64.b64encode(hashed).decode() == root and origin == "lockgate/journal"


@given(st.integers(1, 70), st.data())
def test_an_entry_is_proved_offline_by_a_few_hashes(n, data):
    seq, bodies = data.draw(st.integers(1, n)), log(n)
    signed = checkpoint(bodies)
    proof = prove_inclusion((leaf(body) for body in bodies), bodies[seq - 1], seq, signed)
    written = canonical(proof)
    read = read_proof(written)
    assert read == proof
    assert check_proof(read, KEY) == signed
    assert claim_of(read) == {"seq": seq}
    assert is_in_the_log(written, verifier_key(KEY))


def test_a_proof_from_a_million_entries_takes_a_kilobyte():
    """Twenty hashes; the path is what grows, so it is made without the million entries."""
    bodies = log(9)
    proof = prove_inclusion((leaf(body) for body in bodies), bodies[4], 5, checkpoint(bodies))
    beside = len(canonical(proof)) - len(proof.entry) - len(proof.path)
    assert beside + len(base64.b64encode(bytes(20 * 32))) < 1300


@given(st.integers(2, 40), st.data())
def test_no_bit_of_a_proof_can_be_changed(n, data):
    seq, bodies = data.draw(st.integers(1, n)), log(n)
    written = canonical(prove_inclusion(map(leaf, bodies), bodies[seq - 1], seq, checkpoint(bodies)))
    bit = data.draw(st.integers(0, 8 * len(written) - 1))
    flipped = bytearray(written)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        read = read_proof(bytes(flipped))
        check_proof(read, KEY)
    except (Corrupt, Invalid):
        return
    # What stays true: the hint of the key, and the spare bits of base64.
    before = read_proof(written)
    assert (read.seq, read.entry) == (before.seq, before.entry)
    assert open_checkpoint(read.checkpoint, KEY).root == open_checkpoint(before.checkpoint, KEY).root


@given(st.integers(1, 40), st.data())
def test_two_checkpoints_are_of_one_log_or_the_proof_fails(n, data):
    bodies = log(n)
    old = data.draw(st.integers(1, n))
    older, newer = checkpoint(bodies[:old]), checkpoint(bodies)
    proof = prove_consistency(map(leaf, bodies), older, newer)
    assert check_proof(read_proof(canonical(proof)), KEY) == newer
    rewritten = [b"other", *bodies[1:]]
    with pytest.raises(ProofFails):
        prove_consistency(map(leaf, rewritten), older, checkpoint(rewritten))
    forged = msgspec.structs.replace(proof, new=checkpoint(rewritten).note)
    if n > old:
        with pytest.raises(ProofFails):
            check_proof(forged, KEY)


def test_what_cannot_be_proved_is_said():
    bodies = log(5)
    for seq in (0, 6, -1):
        with pytest.raises(NothingToProve):
            prove_inclusion(map(leaf, bodies), b"{}", seq, checkpoint(bodies))
    with pytest.raises(NothingToProve):
        prove_consistency(map(leaf, bodies), checkpoint(bodies), checkpoint(bodies[:3]))
    with pytest.raises(ProofFails):
        prove_inclusion(map(leaf, bodies[:3]), bodies[0], 1, checkpoint(bodies))
    with pytest.raises(ProofFails):
        prove_inclusion(map(leaf, bodies), b"other", 2, checkpoint(bodies))


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b'{"schema":"lockgate.inclusion/2"}', b'{"schema":"lockgate.inclusion/1"}', b"\xff", b"[]"],
)
def test_what_is_no_proof_is_said(text):
    with pytest.raises(Invalid) as caught:
        read_proof(text)
    assert caught.value.code == "governance.not-a-proof"


@pytest.fixture
def sink() -> MemoryCheckpoints:
    return MemoryCheckpoints()


@pytest.fixture
def world(sink: MemoryCheckpoints) -> HubWorld:
    world = HubWorld.in_memory(checkpoints=(sink, KEY))
    story = Story(world.hub)
    story.found()
    sink.write(sign_checkpoint(world.journal.head(), KEY))
    story.release("one", f"{MODEL_NAME}@1.0.0")
    sink.write(sign_checkpoint(world.journal.head(), KEY))
    return world


def test_the_hub_proves_by_the_newest_checkpoint_or_the_one_that_is_named(world, sink):
    size = world.journal.head().seq
    proof = world.ask(ProveEntry(seq=3))
    assert check_proof(proof, KEY).size == size
    assert proof.entry.encode() == world.journal.entries(2, 1)[0].body
    assert check_proof(world.ask(ProveEntry(seq=3, checkpoint="6")), KEY).size == 6
    assert check_proof(world.ask(ProveEntry(seq=3, checkpoint=sink.notes[0])), KEY).size == 6
    assert check_proof(world.ask(ProveConsistency(old="6")), KEY).size == size
    assert check_proof(world.ask(ProveConsistency(old=sink.notes[0], new="6")), KEY).size == 6


def test_what_the_hub_cannot_prove(world, sink):
    with pytest.raises(NothingToProve):
        world.ask(ProveEntry(seq=7, checkpoint="6"))
    with pytest.raises(audit.NoSuchEntry):
        world.ask(ProveEntry(seq=1000))
    with pytest.raises(audit.NoSuchCheckpoint) as caught:
        world.ask(ProveEntry(seq=1, checkpoint="5"))
    assert 6 in caught.value.facts["sizes"]
    with pytest.raises(audit.ForeignCheckpoint):
        world.ask(ProveEntry(seq=1, checkpoint=sink.notes[0].replace("6", "5")))
    sink.notes.clear()
    with pytest.raises(audit.NoSuchCheckpoint):
        world.ask(ProveEntry(seq=1))


def test_a_checkpoint_that_somebody_kept_binds_the_journal(world, sink):
    """Acceptance check 7, in small: the places of the checkpoints are in the rewriter's hands too."""
    (kept, _), size = list(sink.notes), world.journal.head().seq
    assert world.ask(VerifyAudit(since=kept)).ok
    other = HubWorld(MemoryJournal(), MemoryOutbox(world.journal.store), checkpoints=(sink, KEY))
    story = Story(other.hub)
    story.found(tier="low")
    sink.notes.clear()
    sink.write(sign_checkpoint(other.journal.head(), KEY))
    assert other.ask(VerifyAudit()).ok
    answer = other.ask(VerifyAudit(since=kept))
    assert answer.findings == ("entries 1 to 6 are not those of the signed checkpoint of that size",)
    assert size > 6


def test_the_chain_alone_can_be_looked_at(world):
    store = world.journal.store
    key = next(iter(store.documents))
    store.documents[key] = store.documents[key]._replace(body=b"{}")
    chain, whole = world.ask(VerifyAudit(documents=False)), world.ask(VerifyAudit())
    assert (chain.ok, chain.documents) == (True, False)
    assert (whole.ok, whole.documents) == (False, True)
    assert (chain.events, chain.head, chain.checkpoints) == (whole.events, whole.head, whole.checkpoints)


def test_what_vouches_for_a_version_is_proved_by_the_first_checkpoint_that_reaches_to_it(world, sink):
    version = f"{MODEL_NAME}@1.0.0"
    first = world.ask(ProveVersion(version=version)).entries
    kinds = [json.loads(one.entry.entry)["event"]["type"].partition("/")[0] for one in first]
    assert kinds == [
        "pipeline.run-finished",
        "gates.evidence-recorded",
        "delivery.release-started",
        "gates.evidence-recorded",
        "governance.version-approved",
        "delivery.release-started",
    ]
    for one in first:
        assert check_proof(one.entry, KEY) == check_proof(one.registration, KEY)
        assert json.loads(one.registration.entry)["event"]["version"] == version
    Story(world.hub, CountingIds("later")).train("two")
    sink.write(sign_checkpoint(world.journal.head(), KEY))
    assert world.ask(ProveVersion(version=version)).entries == first
    # A note that no key of the journal has signed reaches nowhere.
    size = check_proof(first[0].entry, KEY).size
    signed = next(note for note in sink.notes if f"\n{size}\n" in note)
    sink.notes.insert(0, signed.replace(f"\n{size}\n", f"\n{size + 1}\n"))
    assert world.ask(ProveVersion(version=version)).entries == first
    sink.notes[:] = sink.notes[:2]
    with pytest.raises(NothingToProve):
        world.ask(ProveVersion(version=version))


def test_of_several_words_about_one_matter_the_last_one_is_proved_and_what_a_promotion_rests_on(world, sink):
    version = f"{MODEL_NAME}@1.0.0"
    story = Story(world.hub, CountingIds("later"))
    accepted(story.judge(version, turn=1))
    accepted(
        story.do("bob", RevokeApproval(id="r", version=version, environment="prod", reason="read it again"))
    )
    sink.write(sign_checkpoint(world.journal.head(), KEY))
    said = [json.loads(one.entry.entry) for one in world.ask(ProveVersion(version=version)).entries]
    types = [one["event"]["type"].partition("/")[0] for one in said]
    # The evidence on which it was approved and promoted stays beside that which came later.
    assert types.count("gates.evidence-recorded") == 3
    assert [one for one in types if one.startswith("governance.")] == [
        "governance.version-approved",
        "governance.approval-revoked",
    ]
