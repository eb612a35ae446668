"""The light composition root: a hub that answers questions from the embedded store.

`status` and its like must start fast, so nothing here loads cryptography, Arrow or a model runtime.
"""

from __future__ import annotations

from lockgate.adapters.sql.journal import SqliteJournal
from lockgate.adapters.sql.outbox import SqliteOutbox
from lockgate.adapters.sql.sqlite import SqliteStore
from lockgate.adapters.targets.local import LocalTarget
from lockgate.app.system import SystemClock
from lockgate.hub.authority import embedded
from lockgate.hub.kernel import Hub, LocalHub
from lockgate.hub.questions import Questions
from lockgate.workshop.layout import Layout


def reading_hub(layout: Layout, actor: str) -> Hub:
    """A hub for questions; commands that rest on outside facts belong to `app.control`."""
    layout.require_store()
    store = SqliteStore(layout.database)
    journal, clock = SqliteJournal(store), SystemClock()
    target = LocalTarget(layout.run)
    questions = Questions(journal, SqliteOutbox(store), clock, observe=target.observe)
    return LocalHub(journal, clock, embedded(actor), answer=questions)
