"""The light composition root: a hub that answers questions from the embedded store.

`status` and its like must start fast, so nothing here loads cryptography, Arrow or a model runtime.
"""

from __future__ import annotations

from collections.abc import Callable

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.adapters.targets.local import LocalTarget
from lockgate.app.plugins import resolve
from lockgate.app.system import SystemClock
from lockgate.core.digests import Digest
from lockgate.core.errors import LockgateError
from lockgate.hub.authority import embedded
from lockgate.hub.kernel import Hub, LocalHub
from lockgate.hub.questions import Questions
from lockgate.workshop.layout import Layout


def features_lacking(layout: Layout) -> Callable[[Digest], str | None]:
    """Says of a package which of its feature views cannot be read by key now; None when all can."""

    def lacking(package: Digest) -> str | None:
        try:
            names = resolve("lockgate.adapters.online.required:views_lacking")(
                package, DirectoryBlobs(layout.blobs), layout.online
            )
        except LockgateError as error:
            return error.message
        return f"no rows of {', '.join(names)} are online (lockgate materialize)" if names else None

    return lacking


def reading_hub(layout: Layout, actor: str) -> Hub:
    """A hub for questions; commands that rest on outside facts belong to `app.control`."""
    layout.require_store()
    journal, outbox, usage, deliveries, _ = open_sqlite(layout.database)
    clock, target = SystemClock(), LocalTarget(layout.run)
    questions = Questions(
        journal,
        outbox,
        clock,
        observe=target.observe,
        lacking=features_lacking(layout),
        last_used=usage.last_used,
        delivered=deliveries.listed,
    )
    return LocalHub(journal, clock, embedded(actor), answer=questions)
