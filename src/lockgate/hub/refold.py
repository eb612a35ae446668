"""Opening a store of an earlier release: when a fold has changed since, every document is made anew.

Events are never touched. That it happened is an event of its own, in the same transaction as the new documents, so a
store says which release folded it, and a crash leaves it as it was.
"""

from __future__ import annotations

from lockgate.core.clock import Clock
from lockgate.core.messages import Context
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.hub.audit import no_collector, pages, read_entry
from lockgate.hub.kernel import Folded, assemble_refolded
from lockgate.hub.messages import DocumentsRefolded
from lockgate.hub.ports import Journal
from lockgate.hub.table import KINDS

ACTOR = "lockgate"


def is_outdated(journal: Journal) -> bool:
    """Whether an earlier release folded the documents otherwise. All of a kind are of one release."""
    for kind in KINDS:
        for first in journal.documents(kind.name, limit=1, bodies=False):
            if first.fold_version < kind.fold_version:
                return True
    return False


def refold(journal: Journal, clock: Clock) -> bool:
    """Make all documents anew when they are outdated; whether they were. Memory is that of the documents.

    Safe to call from many processes at once: the first one does it.
    """
    if not is_outdated(journal):
        return False
    versions = {kind.name: kind.fold_version for kind in KINDS}
    with no_collector(), journal.transaction() as transaction:
        if not is_outdated(journal):
            return False
        folded = Folded()
        for page in pages(journal):
            for stored in page:
                folded.apply(*read_entry(stored))
        context = Context(actor=ACTOR, now=clock.now())
        event = DocumentsRefolded(release=VERSION_OF_LOCKGATE, fold_versions=versions)
        transaction.commit(assemble_refolded(transaction, event, context, folded))
    return True
