"""What one answer reads of the journal, all of it from one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from lockgate.core.documents import DocRef, Docs, DocumentKind
from lockgate.core.messages import Command, Query
from lockgate.hub.kernel import gather, read_body
from lockgate.hub.ports import Journal
from lockgate.hub.table import KIND_BY_NAME

D = TypeVar("D")

# As many as an answer about one thing reads; an answer about everything looks through the store.
_FEW = 64


class Moment:
    """The documents behind one answer, each read and decoded once. For one thread, inside a snapshot of the journal.

    An answer about hundreds of endpoints comes back to the same policy, the same model, the same version over and over.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._bodies: dict[tuple[str, str], Any] = {}
        self._lists: dict[tuple[str, str, str | None], tuple[Any, ...]] = {}

    def get(self, kind: DocumentKind[D], key: str) -> D | None:
        ref = (kind.name, key)
        if ref not in self._bodies:
            stored = self._journal.document(kind.name, key)
            few = len(self._bodies) < _FEW
            self._bodies[ref] = None if stored is None else read_body(kind, stored, again=few)
        body: D | None = self._bodies[ref]
        return body

    def all(self, kind: DocumentKind[D], prefix: str = "", parent: str | None = None) -> tuple[D, ...]:
        asked = (kind.name, prefix, parent)
        if asked not in self._lists:
            found = {
                (kind.name, one.key): read_body(kind, one)
                for one in self._journal.documents(kind.name, prefix, parent)
            }
            self._bodies.update(found)
            self._lists[asked] = tuple(found.values())
        bodies: tuple[D, ...] = self._lists[asked]
        return bodies

    def read(self, ref: DocRef) -> Any:
        kind = KIND_BY_NAME[ref.kind]
        return self.all(kind, ref.key[:-1]) if ref.key.endswith("*") else self.get(kind, ref.key)

    def gather(self, needs: Callable[[Any, Docs], Iterable[DocRef]], message: Command | Query) -> Docs:
        """All that `needs` names for a message, which asks as a command would."""
        return gather(needs, message, self.read, self.expect)

    def expect(self, refs: Iterable[DocRef]) -> None:
        """These are asked for next: a store far away gives them in one go."""
        missing = [
            ref for ref in dict.fromkeys(refs) if ref not in self._bodies and not ref.key.endswith("*")
        ]
        with self._journal.snapshot(documents=missing):
            for kind, key in missing:
                self.get(KIND_BY_NAME[kind], key)
