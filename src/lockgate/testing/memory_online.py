"""An online store in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from lockgate.core.digests import Digest
from lockgate.features.online import supersedes
from lockgate.features.ports import Key, OnlineAmbiguous, OnlineRow


class MemoryOnline:
    def __init__(self) -> None:
        self._rows: dict[Digest, dict[Key, OnlineRow]] = {}
        self._lock = threading.Lock()

    def write(self, view: Digest, rows: Iterable[tuple[Key, OnlineRow]]) -> int:
        n_taken = 0
        with self._lock:
            held = self._rows.setdefault(view, {})
            for key, row in rows:
                old = held.get(key)
                if old is not None and old[:2] == row[:2] and old != row:
                    raise OnlineAmbiguous(
                        f"two rows of key {key} have the same instants and different values",
                        remedy="give the later one a later event_at or available_at",
                        key=list(key),
                    )
                if old is None or supersedes(row, old):
                    held[key] = row
                    n_taken += 1
        return n_taken

    def read(self, view: Digest, keys: Sequence[Key]) -> list[OnlineRow | None]:
        return self.read_many(((view, keys),))[0]

    def read_many(self, requests: Sequence[tuple[Digest, Sequence[Key]]]) -> list[list[OnlineRow | None]]:
        with self._lock:
            return [[self._rows.get(view, {}).get(key) for key in keys] for view, keys in requests]

    def drop(self, view: Digest) -> None:
        with self._lock:
            self._rows.pop(view, None)

    def views(self) -> frozenset[Digest]:
        with self._lock:
            return frozenset(view for view, rows in self._rows.items() if rows)
