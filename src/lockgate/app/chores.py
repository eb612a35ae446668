"""Work that is done again and again beside the main thread; what fails is told and tried again."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_BACK_OFF_S = 1.0
_AGAIN_S = 60.0


class Chores:
    """A thread for each chore, so that one that waits holds up no other."""

    def __init__(self) -> None:
        self.leaving = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failing: dict[str, tuple[str, float]] = {}

    def start(self, name: str, every_s: float, work: Callable[[], object]) -> None:
        """Do `work` every so many seconds until `stop`."""

        def repeat(leaving: threading.Event) -> None:
            while not leaving.wait(every_s):
                with self.going_on(name):
                    work()

        self.keep(name, repeat)

    def keep(self, name: str, work: Callable[[threading.Event], object]) -> None:
        """Do work that ends by itself when the event that it gets is set."""
        thread = threading.Thread(target=work, args=(self.leaving,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self, patience_s: float = 0.0) -> None:
        """Begin nothing more; what was begun gets so many seconds to end."""
        self.leaving.set()
        for thread in self._threads if patience_s else ():
            thread.join(patience_s)

    @contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """What fails inside is told, and the program goes on. What goes on failing is told once a minute, or whoever
        looks for the beginning finds a log full of it; and when it is over, that is told as well."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a process without its chores would stand and watch nothing
            why, now = f"{type(error).__name__}: {error}", time.monotonic()
            told, at = self._failing.get(what, ("", 0.0))
            if why != told or now >= at + _AGAIN_S:
                self._failing[what] = why, now
                note(f"{what}: {why}")
            self.leaving.wait(_BACK_OFF_S)
        else:
            if self._failing.pop(what, None) is not None:
                note(f"{what}: works again")


def note(text: str) -> None:
    # The log may lie on the very disk that is full: what cannot be told must not end what goes on.
    with suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
