"""`audit verify`: the chain, the documents and the checkpoints against one another.

Three things can be changed behind our back, and each check catches one: an entry (its bytes no longer hash to
the next link), a document (folding the journal again gives something else), the whole chain consistently (a
signed checkpoint from outside names another root).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Union

import msgspec

from lockgate.core.documents import DocRef
from lockgate.core.errors import Corrupt
from lockgate.core.journal import EMPTY_HEAD, Entry, Head, NoteVerifier, extend, open_checkpoint, root
from lockgate.core.messages import Event, Stamp
from lockgate.hub.kernel import Folded, iter_entries
from lockgate.hub.messages import AuditAnswer
from lockgate.hub.ports import Edge, Journal, StoredDocument, StoredEntry
from lockgate.hub.table import EVENTS, KINDS, UPCASTS

_ENTRY = msgspec.json.Decoder(Entry)
_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Union[EVENTS])  # noqa: UP007
_MAX_FINDINGS = 100


class EntryUnreadable(Corrupt):
    code = "journal.entry-unreadable"


def read_entry(stored: StoredEntry) -> tuple[Event, Stamp]:
    """An entry's event and stamp.

    Raises:
        EntryUnreadable: the bytes are no entry, or hold an event of no known tag.
    """
    try:
        entry = _ENTRY.decode(stored.body)
        event = _EVENT.decode(entry.event)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EntryUnreadable(
            f"entry {stored.seq} cannot be read: {error}", remedy="lockgate audit verify", seq=stored.seq
        ) from error
    upcast = UPCASTS.get(type(event))
    return upcast(event) if upcast else event, Stamp(entry.seq, entry.at, entry.actor, entry.command_id)


def verify(journal: Journal, notes: Sequence[str], verifier: NoteVerifier | None) -> AuditAnswer:
    """Check everything from nothing. Reads the whole journal once; memory is that of the documents.

    The store may be written meanwhile; what is checked is the state of one moment.
    """
    with journal.snapshot():
        return _verify(journal, notes, verifier)


def _verify(journal: Journal, notes: Sequence[str], verifier: NoteVerifier | None) -> AuditAnswer:
    findings: list[str] = []
    wanted = _checkpoint_sizes(notes, verifier, findings)
    head, folded = _replay(journal, wanted, findings)
    if head != journal.head():
        findings.append(f"the stored head is not that of entry {head.seq}")
    findings += _compare(folded.changed(), _stored_documents(journal))
    findings += _compare_edges(folded.edges, journal.edges())
    return AuditAnswer(
        ok=not findings,
        events=head.seq,
        head=head.hash.hex(),
        checkpoints=len(notes) if verifier else 0,
        findings=tuple(findings[:_MAX_FINDINGS]),
    )


def _checkpoint_sizes(
    notes: Sequence[str], verifier: NoteVerifier | None, findings: list[str]
) -> dict[int, set[bytes]]:
    sizes: dict[int, set[bytes]] = {}
    for number, note in enumerate(notes if verifier else ()):
        assert verifier is not None
        try:
            checkpoint = open_checkpoint(note, verifier)
        except Corrupt as error:
            findings.append(f"checkpoint {number + 1}: {error.message}")
            continue
        sizes.setdefault(checkpoint.size, set()).add(checkpoint.root)
    return sizes


def _replay(journal: Journal, wanted: dict[int, set[bytes]], findings: list[str]) -> tuple[Head, Folded]:
    head, folded, expected = EMPTY_HEAD, Folded(lambda kind, key: None), 1
    for stored in iter_entries(journal):
        if stored.seq != expected:
            findings.append(f"entry {expected} is missing; the next one is {stored.seq}")
        expected = stored.seq + 1
        head = _check_entry(stored, head, folded, findings)
        if head.seq in wanted and wanted[head.seq] != {root(head.frontier)}:
            findings.append(f"entries 1 to {head.seq} are not those of the signed checkpoint of that size")
    for size in sorted(size for size in wanted if size > head.seq):
        findings.append(f"a signed checkpoint knows {size} entries, the journal has {head.seq}")
    return head, folded


def _check_entry(stored: StoredEntry, head: Head, folded: Folded, findings: list[str]) -> Head:
    after = extend(head, stored.body)
    if after.hash != stored.hash:
        findings.append(f"entry {stored.seq}: its bytes do not hash to its place in the chain")
    try:
        event, stamp = read_entry(stored)
        if stamp.seq != stored.seq:
            findings.append(f"entry {stored.seq} calls itself entry {stamp.seq}")
        folded.apply(event, stamp)
    except Corrupt as error:
        findings.append(error.message)
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        findings.append(f"entry {stored.seq} does not fit what came before it: {error}")
    # Going on from the stored hash names each altered entry once instead of every one after it.
    return after._replace(hash=stored.hash)


def _stored_documents(journal: Journal) -> list[StoredDocument]:
    return [document for kind in KINDS for document in journal.documents(kind.name)]


def _compare(folded: Iterable[StoredDocument], stored: Iterable[StoredDocument]) -> list[str]:
    expected: dict[DocRef, Any] = {DocRef(one.kind, one.key): one for one in folded}
    found = {DocRef(one.kind, one.key): one for one in stored}
    missing = [f"document {ref.kind} {ref.key} is missing" for ref in expected if ref not in found]
    extra = [f"document {ref.kind} {ref.key} has no events behind it" for ref in found if ref not in expected]
    changed = [
        f"document {ref.kind} {ref.key} is not what its events make of it"
        for ref, one in found.items()
        if ref in expected and one != expected[ref]
    ]
    return missing + extra + changed


def _compare_edges(folded: Iterable[Edge], stored: Iterable[Edge]) -> list[str]:
    difference = set(folded) ^ set(stored)
    return [
        f"lineage edge {edge.source} {edge.kind} {edge.target} does not follow from the events"
        for edge in sorted(difference)
    ]
