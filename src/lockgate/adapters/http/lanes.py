"""Bounded concurrency: a fixed number of threads, and a queue in front of them that refuses instead of growing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lockgate.core.errors import Unavailable

T = TypeVar("T")


class HubBusy(Unavailable):
    """As many requests as the hub carries out at once, and as many as may wait, are there already."""

    code = "http.busy"


class TookTooLong(Unavailable):
    """No answer in time. A command goes on; sent again with its id it is answered when it is done."""

    code = "http.took-too-long"


class Lane:
    """Threads for one kind of work. They stay, and each keeps its connection to the store.

    Args:
        n_waiting: how many pieces of work may wait for a thread.
        patience_s: how long whoever asked is kept waiting.
    """

    def __init__(self, name: str, n_threads: int, n_waiting: int, patience_s: float) -> None:
        self.name = name
        self._room = n_threads + n_waiting
        self._patience_s = patience_s
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix=f"hub-{name}")
        self._n_inside = 0
        self._lock = threading.Lock()

    @property
    def n_inside(self) -> int:
        """How much is waiting or being carried out."""
        return self._n_inside

    async def run(self, work: Callable[[], T], *, begun: bool = False) -> T:
        """Carry out `work` in a thread of the lane.

        Args:
            begun: it goes on with what was let in before, and is not refused for want of room.

        Raises:
            HubBusy: there is no room, and `work` was not begun.
            TookTooLong: it was not done in time; begun work goes on.
        """
        with self._lock:
            if self._n_inside >= self._room and not begun:
                raise HubBusy(
                    f"the hub has no room for more {self.name}",
                    remedy="try again in a second",
                    lane=self.name,
                )
            self._n_inside += 1
        future = self._pool.submit(work)
        future.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(self._patience_s):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if future.done() and not future.cancelled():
                return future.result()
            raise TookTooLong(
                f"no answer within {self._patience_s:g} s",
                remedy="send it again; a command under the same id",
                lane=self.name,
            ) from error

    def _leave(self, future: Future[T]) -> None:
        with self._lock:
            self._n_inside -= 1
