"""What the features room needs from outside: somewhere that keeps the newest row per key, for serving."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.errors import Invalid

Value = float | int | bool | str | None
Key = tuple[str | int, ...]


class OnlineAmbiguous(Invalid):
    """Two rows of one key have the same instants and different values; neither may win by arrival."""

    code = "features.online-ambiguous"


class OnlineRow(NamedTuple):
    """A view's row for one key: when it happened, since when it could be known, its values in layout order."""

    event_at: Micros
    available_at: Micros
    values: tuple[Value, ...]


class OnlineStore(Protocol):
    """The newest row per view and key. A view is named by its semantic hash, so versions lie side by side.

    Promises every adapter keeps: a row replaces another one only if its `(event_at, available_at)` is greater,
    so pushes are idempotent and their order does not matter; a reader sees whole rows; values come back equal
    and of the same type. Safe for use by many threads at once.
    """

    def write(self, view: Digest, rows: Iterable[tuple[Key, OnlineRow]]) -> int:
        """Take rows up; returns how many replaced something or were new.

        Raises:
            OnlineAmbiguous: names the key; rows before it are kept.
        """
        ...

    def read(self, view: Digest, keys: Sequence[Key]) -> list[OnlineRow | None]:
        """The newest row of each key, in the order of `keys`; None where there is none."""
        ...

    def read_many(self, requests: Sequence[tuple[Digest, Sequence[Key]]]) -> list[list[OnlineRow | None]]:
        """What `read` gives for each of `requests`, all at one moment: no write comes in between."""
        ...

    def drop(self, view: Digest) -> None:
        """Forget all rows of a view; nothing happens when it has none."""
        ...

    def views(self) -> frozenset[Digest]:
        """The views that hold rows."""
        ...
