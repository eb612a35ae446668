"""Where the state machines play: a hub in memory or over SQLite, whose process may die at each step of the kernel."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.outbox import SqliteOutbox
from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.core.errors import Bug
from lockgate.core.messages import Command, Receipt
from lockgate.hub.kernel import Hub
from lockgate.testing.hub_world import HubWorld

STEPS = ("received", "authorised", "established", "locked", "decided", "committed", "effected")
CRASH = st.sampled_from([None, None, *STEPS])


class Crashed(Exception):
    """The process died at a step of the kernel."""


def dying_at(crash: str | None) -> Callable[[str], None]:
    """What a hub calls at each step of its kernel; at `crash` it raises."""

    def at(step: str) -> None:
        if step == crash:
            raise Crashed(step)

    return at


def sent_once(world: HubWorld, hub: Hub, command: Command, crash: str | None) -> Receipt:
    """Send a command through a crash at step `crash`, then twice more; it has one effect."""
    before = world.journal.head().seq
    world.at = dying_at(crash)
    try:
        hub.execute(command)
    except (Crashed, Bug):
        assert crash is not None
        committed = world.journal.head().seq > before
        assert not committed or crash in ("committed", "effected")
    world.at = lambda step: None
    receipt = hub.execute(command)
    after = world.journal.head()
    assert hub.execute(command) == receipt
    assert world.journal.head() == after
    assert after.seq == receipt.head == before + len(receipt.events)
    return receipt


class InMemory(RuleBasedStateMachine):
    def open_world(self) -> HubWorld:
        return HubWorld.in_memory()


# A process dies here by an exception, and never does the power fail: a disk would only make each commit wait for it.
_IN_MEMORY = Path("/dev/shm")
_WHERE = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None


class OnSqlite(RuleBasedStateMachine):
    def open_world(self) -> HubWorld:
        self.directory = Path(tempfile.mkdtemp(prefix="lockgate-machine-", dir=_WHERE))
        self.store = SqliteStore(self.directory / "journal.db")
        return HubWorld(SqliteJournal(self.store), SqliteOutbox(self.store))

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)
