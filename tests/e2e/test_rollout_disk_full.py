"""A full disk while a release rolls out: callers are answered, nothing is lost, and it goes on when there is room."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from rollout_rig import (
    MIN_UNITS,
    N_KEYS,
    SHOWN,
    VERSIONS,
    Caller,
    Eventually,
    Lamps,
    Traffic,
    lamps,
    two_live,
    versions_of,
)

from command_line import BUG, OK
from lockgate.traffic.capture import Dropped

LIVE, GOOD = VERSIONS["live"], VERSIONS["good"]


@contextmanager
def no_room(pid: int, n_bytes: int = 0) -> Iterator[None]:
    """A process finds the disk full as soon as a file of its grows beyond so many bytes."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def born_without_room(n_bytes: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))

    return limit


def capture_of(project: Lamps) -> dict[str, Any]:
    found: dict[str, Any] = project.get("/endpoints").body["endpoints"][SHOWN]["capture"]
    return found


def test_captures_without_room(eventually: Eventually) -> None:
    """Lines are dropped and counted, answers are not; the verdict knows how many are missing."""
    with lamps(eventually) as project:
        known = project.is_ready()
        project.begin()
        project.reaches("shadow", 0)
        with closing(Caller(known["plane_port"])) as caller:
            with no_room(known["plane_pid"], 2_000):
                for number in range(N_KEYS):
                    reply = caller.ask(f"key-{number}")
                    assert (reply.status, reply.body["version"]) == (200, LIVE)
                eventually(lambda: capture_of(project)["dropped"] > 0)
                assert "File too large" in capture_of(project)["detail"]
                refused = caller.post_labels({"r": 1})
                assert (refused.status, refused.body["code"]) == (503, "serving.capture-unavailable")
                # What was written is not enough, and that is what it says.
                assert project.at == ("shadow", 0) and project.n_answered() < MIN_UNITS
            n_dropped = capture_of(project)["dropped"]
        for number, state in enumerate(("shadow", "canary", "canary", "soak")):
            project.reaches(state, number)
            project.burst()
        project.reaches("")
        assert project.version == GOOD
        told = sum(line.n_lines for line in project.lines() if isinstance(line, Dropped))
        assert told == n_dropped == capture_of(project)["dropped"]
        assert project.reported()[-1].n_dropped == project.counted().n_dropped == n_dropped
        project.audit_holds()


def test_a_controller_without_room(eventually: Eventually) -> None:
    """Neither the journal nor its own log can be written: it waits, endpoints answer, and then it goes on."""
    with lamps(eventually) as project:
        known = project.is_ready()
        project.begin()
        project.reaches("shadow", 0)
        before = len(project.journal())
        log = project.dot / "up.log"
        with no_room(known["pid"]), Traffic(known["plane_port"]) as traffic:
            eventually(lambda: project.n_answered() > 4 * N_KEYS)
            # Its log cannot grow; that it went on trying is seen afterwards.
            size = log.stat().st_size
            # The data plane dies now of all times: it comes back though nothing can be written about it.
            os.kill(known["plane_pid"], signal.SIGKILL)
            eventually(lambda: len(traffic.lost) == 2)
            eventually(lambda: answers(project), 40.0)
            assert len(project.journal()) == before and log.stat().st_size == size
        assert traffic.statuses == {200}
        # What was started without room has none either: a limit is inherited, a full disk would not be.
        again = eventually(
            lambda: (now := project.running) and now["plane_pid"] != known["plane_pid"] and now
        )
        resource.prlimit(again["plane_pid"], resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        with Traffic(known["plane_port"]) as traffic:
            eventually(lambda: project.version == GOOD and project.state == "", 40.0)
        assert traffic.statuses == {200} and not traffic.lost
        project.audit_holds()


def answers(project: Lamps) -> bool:
    try:
        return project.get("/readyz").status == 200
    except OSError:
        return False


@pytest.mark.parametrize(
    ("line", "done"),
    [
        ("rollout promote prod/lamp --reason hurry", "canary"),
        ("rollout pause prod/lamp", "paused"),
        ("rollout abort prod/lamp", ""),
    ],
)
def test_a_command_without_room(eventually: Eventually, line: str, done: str) -> None:
    """It says that there is no room, has done nothing, and works when it is typed again."""
    with lamps(eventually) as project:
        project.is_ready()
        project.begin()
        project.reaches("shadow", 0)
        eventually(lambda: len(project.judged()) == 1)
        before = len(project.journal())
        told = project.types(line, by="sre", preexec_fn=born_without_room(512))
        assert told.code not in (OK, BUG) and "Traceback" not in told.text, told.text
        assert "next: " in told.err and len(project.journal()) == before
        assert project.at == ("shadow", 0)
        project.audit_holds()
        project.types(line, by="sre").must(OK)
        project.reaches(done)
        project.audit_holds()


def test_no_room_for_plans(eventually: Eventually) -> None:
    """The run directory was lost and there is no room to write it again: it is said, and later it works."""
    with lamps(eventually, two_live) as project:
        project.is_ready()
        project.down()
        for file in (project.dot / "run" / "endpoints").iterdir():
            file.unlink()
        told = project.types("up --port 0", preexec_fn=born_without_room(100))
        assert told.code not in (OK, BUG) and "next: " in told.err, told.text
        assert list((project.dot / "run" / "endpoints").glob("*.new")) == []
        project.is_ready()
        assert set(versions_of(project.burst(20)).values()) == {GOOD}
        project.types(f"rollback {SHOWN}", by="sre").must(OK)
        assert set(versions_of(project.burst(20)).values()) == {LIVE}
        project.audit_holds()


def test_no_room_while_a_rollback_is_typed(eventually: Eventually) -> None:
    with lamps(eventually, two_live) as project:
        project.is_ready()
        told = project.types(f"rollback {SHOWN}", by="sre", preexec_fn=born_without_room(512))
        assert told.code not in (OK, BUG), told.text
        assert set(versions_of(project.burst(20)).values()) == {GOOD}
        project.types(f"rollback {SHOWN}", by="sre").must(OK)
        assert set(versions_of(project.burst(20)).values()) == {LIVE}
        project.audit_holds()
