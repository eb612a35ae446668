"""The chain and the tree against the definitions in RFC 6962 and RFC 9162, written out the slow way."""

from __future__ import annotations

import base64
import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.core import journal
from lockgate.core.journal import EMPTY_HEAD, JournalAltered
from lockgate.testing.notes import TestKey

BODIES = st.lists(st.binary(max_size=6), max_size=40)


def tree_hash(bodies: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not bodies:
        return hashlib.sha256(b"").digest()
    if len(bodies) == 1:
        return hashlib.sha256(b"\x00" + bodies[0]).digest()
    split = 1
    while split * 2 < len(bodies):
        split *= 2
    return hashlib.sha256(b"\x01" + tree_hash(bodies[:split]) + tree_hash(bodies[split:])).digest()


def head_of(bodies: list[bytes]) -> journal.Head:
    head = EMPTY_HEAD
    for body in bodies:
        head = journal.extend(head, body)
    return head


@given(BODIES)
def test_the_frontier_stands_for_the_tree_of_the_standard(bodies):
    head = head_of(bodies)
    assert head.seq == len(bodies)
    assert journal.root(head.frontier) == tree_hash(bodies)
    assert len(head.frontier) == len(bodies).bit_count()


@given(BODIES)
def test_the_chain_covers_every_byte_before_it(bodies):
    expected = bytes(32)
    for body in bodies:
        expected = hashlib.sha256(expected + body).digest()
    assert head_of(bodies).hash == expected


@given(BODIES, st.lists(st.integers(0, 40), max_size=4))
def test_a_tree_that_grows_by_blocks_is_the_same_tree(bodies, cuts):
    tree, leaves = journal.Tree(), [journal.leaf(body) for body in bodies]
    places = sorted({0, len(leaves), *(cut for cut in cuts if cut < len(leaves))})
    for start, end in pairwise(places):
        tree.grow(leaves[start:end])
    head = head_of(bodies)
    assert (tree.size, tree.frontier, tree.root) == (head.seq, head.frontier, tree_hash(bodies))
    half = head_of(bodies[: len(bodies) // 2])
    goes_on = journal.Tree(half.seq, half.frontier)
    goes_on.grow(leaves[half.seq :])
    assert goes_on.frontier == head.frontier


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=33), st.data())
def test_an_entry_is_proved_by_its_path_and_by_no_other(bodies, data):
    index = data.draw(st.integers(0, len(bodies) - 1))
    leaves = [journal.leaf(body) for body in bodies]
    ranges = journal.inclusion_ranges(index, len(leaves))
    assert sorted({index, *(at for start, end in ranges for at in range(start, end))}) == [
        *range(len(leaves))
    ]
    proof = journal.range_roots(leaves, ranges)
    assert proof == tuple(tree_hash(bodies[start:end]) for start, end in ranges)
    assert journal.root_from_proof(leaves[index], index, len(leaves), proof) == tree_hash(bodies)
    forged = journal.leaf(bodies[index] + b"!")
    assert journal.root_from_proof(forged, index, len(leaves), proof) != tree_hash(bodies)


def subproof(old: int, bodies: list[bytes], whole: bool) -> list[bytes]:
    """RFC 6962, section 2.1.2, word for word."""
    if old == len(bodies):
        return [] if whole else [tree_hash(bodies)]
    split = 1
    while split * 2 < len(bodies):
        split *= 2
    if old <= split:
        return [*subproof(old, bodies[:split], whole), tree_hash(bodies[split:])]
    return [*subproof(old - split, bodies[split:], False), tree_hash(bodies[:split])]


def test_every_longer_log_is_proved_to_begin_with_every_shorter_one():
    bodies = [b"%d" % number for number in range(36)]
    roots = [tree_hash(bodies[:size]) for size in range(37)]
    for new in range(1, 37):
        leaves = [journal.leaf(body) for body in bodies[:new]]
        for old in range(1, new + 1):
            proof = journal.range_roots(leaves, journal.consistency_ranges(old, new))
            assert list(proof) == subproof(old, bodies[:new], True)
            assert journal.consistent(old, roots[old], new, roots[new], proof)
            assert not journal.consistent(old, roots[old - 1], new, roots[new], proof)
            assert not journal.consistent(old, roots[old], new, roots[new - 1], proof)
            assert not journal.consistent(old, roots[old], new, roots[new], (*proof, bytes(32)))
            for at in range(len(proof)):
                forged = (*proof[:at], bytes(32), *proof[at + 1 :])
                assert not journal.consistent(old, roots[old], new, roots[new], forged)
                assert not journal.consistent(old, roots[old], new, roots[new], proof[:at])
    assert not journal.consistent(0, roots[0], 5, roots[5], ())
    assert not journal.consistent(6, roots[6], 5, roots[5], ())


def test_leaves_that_end_too_early_prove_nothing():
    with pytest.raises(IndexError):
        journal.range_roots([bytes(32)] * 3, [(0, 2), (2, 4)])


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=12), st.data())
def test_every_flipped_bit_changes_the_chain_and_the_root(bodies, data):
    index = data.draw(st.integers(0, len(bodies) - 1))
    bit = data.draw(st.integers(0, 8 * len(bodies[index]) - 1))
    altered = bytearray(bodies[index])
    altered[bit // 8] ^= 1 << bit % 8
    before, after = head_of(bodies), head_of([*bodies[:index], bytes(altered), *bodies[index + 1 :]])
    assert after.hash != before.hash
    assert journal.root(after.frontier) != journal.root(before.frontier)


def test_a_checkpoint_reads_back():
    head = head_of([b"one", b"two", b"three"])
    checkpoint = journal.sign_checkpoint(head, TestKey())
    assert checkpoint.note.startswith("lockgate/journal\n3\n")
    assert journal.open_checkpoint(checkpoint.note, TestKey()) == checkpoint


def test_a_checkpoint_of_another_key_is_refused():
    checkpoint = journal.sign_checkpoint(head_of([b"one"]), TestKey(seed=2))
    with pytest.raises(JournalAltered) as caught:
        journal.open_checkpoint(checkpoint.note, TestKey(seed=1))
    assert caught.value.facts == {"key": "lockgate/test"}


@pytest.mark.parametrize(
    "change", [("\n3\n", "\n4\n"), ("lockgate/journal", "lockgate/journey"), ("\n\n", "\n")]
)
def test_an_edited_checkpoint_is_refused(change):
    note = journal.sign_checkpoint(head_of([b"one", b"two", b"three"]), TestKey()).note
    with pytest.raises(JournalAltered):
        journal.open_checkpoint(note.replace(*change, 1), TestKey())


def test_a_note_that_is_no_checkpoint_is_refused():
    for note in ("", "\n\n", "hello", "lockgate/journal\n0\n"):
        with pytest.raises(JournalAltered):
            journal.open_checkpoint(note, TestKey())


def test_a_signature_that_is_no_base64_is_refused():
    note = journal.sign_checkpoint(head_of([b"one"]), TestKey()).note
    with pytest.raises(JournalAltered):
        journal.open_checkpoint(note[:-2] + "\n", TestKey())


def test_a_checkpoint_of_another_log_with_the_same_key_is_refused():
    key = TestKey()
    text = "another/log\n1\nAAAA\n"
    note = journal.sign_checkpoint(head_of([b"one"]), key).note
    line = note.rpartition("\n\n")[2]
    stamp = base64.b64decode(line.split()[2])[:4]
    forged = base64.b64encode(stamp + key.sign(text.encode())).decode()
    with pytest.raises(JournalAltered):
        journal.open_checkpoint(f"{text}\n\u2014 {key.name} {forged}\n", key)
