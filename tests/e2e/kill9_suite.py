"""What any store keeps when processes die by SIGKILL in the middle of their work: nothing acknowledged is lost, nothing
happens twice, and the next process carries on. Subclass `KillNine` and override `empty`."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lockgate.app.stores import open_store
from lockgate.hub import audit
from lockgate.hub.kernel import iter_entries
from lockgate.hub.messages import Status
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted

SCRIPT = Path(__file__).with_name("hub_process.py")
ENDPOINT = f"dev/{MODEL_NAME}"


def start(store: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), store, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    """The lines a process has printed that were not read yet, whichever way it ended.

    `communicate` would pass over those that were read ahead together with an earlier line.
    """
    assert process.stdout is not None
    with process.stdout as out:
        lines = out.read().splitlines()
    process.wait(60)
    return lines


def open_world(store: str) -> HubWorld:
    return HubWorld(*open_store(store, base=Path("/"))[:2])


def verified(store: str) -> HubWorld:
    """The store as the next process finds it; its audit holds."""
    world = open_world(store)
    answer = audit.verify(world.journal, (), ())
    assert answer.ok, answer.findings
    return world


class KillNine:
    @pytest.fixture
    def empty(self) -> str:
        raise NotImplementedError("override the fixture `empty` to return the URL of an empty store")

    @pytest.fixture
    def store(self, empty: str) -> str:
        """A store in which version 1.0.0 may be promoted to dev."""
        story = Story(open_world(empty).hub)
        story.found()
        accepted(story.register("one"))
        return empty

    @pytest.mark.parametrize("step", ["received", "authorised", "established", "locked", "decided"])
    def test_before_the_commit_nothing_happened(self, store: str, step: str) -> None:
        before = open_world(store).journal.head()
        process = start(store, "die", step, "c-promote")
        assert finish(process) == []
        assert process.returncode == -signal.SIGKILL

        world = verified(store)
        assert world.journal.head() == before
        assert world.outbox.open_rows() == 0
        assert finish(start(store, "die", "never", "c-promote")) == ["pending"]
        assert verified(store).journal.head().seq == before.seq + 1

    @pytest.mark.parametrize("step", ["committed", "effected"])
    def test_after_the_commit_the_outbox_remembers(self, store: str, tmp_path: Path, step: str) -> None:
        process = start(store, "die", step, "c-promote")
        assert finish(process) == []
        assert process.returncode == -signal.SIGKILL

        world = verified(store)
        assert world.outbox.open_rows() == 1
        status = world.ask(Status(endpoint=ENDPOINT))
        assert (status.effects_pending, status.endpoints["dev/flight-delay"].rollout.state) == (
            1,
            "preparing",
        )
        after = world.journal.head()

        assert finish(start(store, "die", "never", "c-promote")) == ["pending"]
        assert world.journal.head() == after
        assert world.outbox.open_rows() == 1

        done = tmp_path / "done"
        carriers = [start(store, "carry-out", done) for _ in range(3)]
        for carrier in carriers:
            finish(carrier)
            assert carrier.returncode == 0
        assert done.read_text() == f"{ENDPOINT} 1\n"
        world = verified(store)
        assert world.outbox.open_rows() == 0
        assert (
            world.ask(Status(endpoint=ENDPOINT)).endpoints["dev/flight-delay"].live.version
            == "flight-delay@1.0.0"
        )

    @pytest.mark.parametrize("seed", range(6))
    def test_no_acknowledged_command_is_lost_at_any_moment(self, empty: str, seed: int) -> None:
        n_commands = 400
        open_world(empty)
        process = start(empty, "declare", "stream", n_commands)
        assert process.stdout is not None
        wanted = random.Random(seed).randrange(1, 150)
        acknowledged = [process.stdout.readline().split() for _ in range(wanted)]
        process.kill()
        acknowledged += [line.split() for line in finish(process) if len(line.split()) == 2]
        assert process.returncode == -signal.SIGKILL
        assert wanted <= len(acknowledged) < n_commands

        world = verified(empty)
        assert world.journal.head().seq - len(acknowledged) in (0, 1)
        for number, (command_id, head) in enumerate(acknowledged, 1):
            assert int(head) == number
            assert world.journal.receipt(command_id) is not None

        again = [line.split() for line in finish(start(empty, "declare", "stream", n_commands))]
        assert again[: len(acknowledged)] == acknowledged
        assert verified(empty).journal.head().seq == n_commands

    def test_two_processes_at_once_lose_nothing(self, empty: str) -> None:
        n_each = 120
        processes = {name: start(empty, "declare", name, n_each) for name in ("left", "right")}
        acknowledged = {
            name: [line.split() for line in finish(process)] for name, process in processes.items()
        }
        assert [process.returncode for process in processes.values()] == [0, 0]

        world = verified(empty)
        assert world.journal.head().seq == 2 * n_each
        heads = {int(head): command_id for lines in acknowledged.values() for command_id, head in lines}
        assert len(heads) == 2 * n_each
        for entry in iter_entries(world.journal):
            assert audit.read_entry(entry)[1].command_id == heads[entry.seq]

    def test_one_dies_while_the_other_works(self, empty: str) -> None:
        n_each = 150
        left, right = (start(empty, "declare", name, n_each) for name in ("left", "right"))
        assert left.stdout is not None
        acknowledged = [left.stdout.readline().split() for _ in range(20)]
        left.kill()
        acknowledged += [line.split() for line in finish(left) if len(line.split()) == 2]
        survived = [line.split() for line in finish(right)]
        assert (right.returncode, len(survived)) == (0, n_each)

        world = verified(empty)
        for command_id, head in (*acknowledged, *survived):
            (entry,) = world.journal.entries(int(head) - 1, 1)
            assert audit.read_entry(entry)[1].command_id == command_id
        assert world.journal.head().seq - len(acknowledged) - n_each in (0, 1)

    def test_a_lease_of_a_dead_process_runs_out(self, store: str) -> None:
        finish(start(store, "die", "never", "c-promote"))
        world = open_world(store)
        now = world.clock.now()
        dead = world.outbox.lease(now, now + 60_000_000)
        assert dead is not None
        assert world.outbox.lease(now + 59_999_999, now + 60_000_000) is None
        again = world.outbox.lease(now + 60_000_000, now + 120_000_000)
        assert again is not None
        assert (again.id, again.fence, again.attempts) == (dead.id, dead.fence, 2)

    def test_an_audit_beside_busy_writers_raises_no_false_alarm(self, empty: str) -> None:
        n_each = 150
        world = open_world(empty)
        writers = [start(empty, "declare", name, n_each) for name in ("left", "right")]
        seen = []
        while any(writer.poll() is None for writer in writers):
            answer = audit.verify(world.journal, (), ())
            assert answer.ok, answer.findings
            seen.append(answer.events)
        for writer in writers:
            finish(writer)
            assert writer.returncode == 0
        assert seen == sorted(seen)
        assert len(set(seen)) > 2
        assert audit.verify(world.journal, (), ()).events == 2 * n_each
