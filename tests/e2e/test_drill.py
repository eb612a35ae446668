"""The way back is rehearsed on the running data plane: callers notice nothing, and whatever interrupts it, either."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from operator_story import ended
from rollout_rig import (
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

from command_line import NOT_FOUND, OK, REFUSED, USAGE, WAITING
from lockgate.traffic.plan import DRILL_KEY

LIVE, GOOD = VERSIONS["live"], VERSIONS["good"]
"""1.0.0 is the version before; 1.0.1 is live."""


@pytest.fixture
def project(eventually: Eventually) -> Iterator[Lamps]:
    with lamps(eventually, two_live) as made:
        yield made


def drilled(project: Lamps) -> str:
    """Which version answers a drill now."""
    with closing(Caller(project.port)) as caller:
        return str(caller.ask(DRILL_KEY).body["version"])


def test_a_drill_under_traffic(project: Lamps) -> None:
    known = project.is_ready()
    with Traffic(known["plane_port"]) as traffic:
        typed = project.types(f"drill rollback {SHOWN} --n 8 --json", by="sre").must(OK)
        before = {key: len(answers) for key, answers in traffic.met.items()}
        project.eventually(lambda: all(len(traffic.met[key]) > n for key, n in before.items()))
    # No caller was moved, none went without an answer.
    assert not traffic.lost and traffic.statuses == {200}
    assert {version for answers in traffic.met.values() for _, version in answers} == {GOOD}
    drill = typed.json
    assert (drill["passed"], drill["n_flips"], drill["n_failed"], drill["n_wrong"]) == (True, 8, 0, 0)
    assert 0 < drill["p50_ms"] <= drill["p99_ms"] < 2_000
    assert drill["p99_ms"] <= drill["all_p99_ms"] < 5_000
    assert drill["to_version"] == f"main/lamp@{LIVE}" and drill["interrupted"] == ""
    (started,) = (entry["event"] for entry in project.journal("delivery.drill-started/"))
    (finished,) = (entry["event"] for entry in project.journal("delivery.drill-finished/"))
    assert started["last"] - started["first"] == 2 * 8
    figures = finished["figures"]
    assert figures["n_workers"] == 1 and figures["n_requests"] >= 2 * 2 * 8
    # The data plane is where it was, under the last generation of the drill, and no drill is in force.
    assert (project.plan.generation, project.plan.drill) == (started["last"], None)
    assert project.endpoint.generation == started["last"] and drilled(project) == GOOD
    for line in (f"status {SHOWN}", f"explain {SHOWN}"):
        said = project.types(line).must(OK).out
        assert "rollback ready: yes" in said and "last drill passed at" in said
        assert "8 flips to lamp@1.0.0" in said and "0 failed, 0 mixed" in said
    # What was rehearsed works.
    project.types(f"rollback {SHOWN}", by="sre").must(OK)
    assert set(versions_of(project.burst(20)).values()) == {LIVE}
    assert project.types("audit verify").must(OK).out.startswith("ok: ")


def test_drills_and_captures_do_not_meet(project: Lamps) -> None:
    """What is asked under the drill's key is in nobody's figures."""
    project.is_ready()
    project.types(f"drill rollback {SHOWN} --n 2", by="sre").must(OK)
    project.burst(10)
    assert project.n_answered() == 10


def test_a_drill_is_refused(project: Lamps) -> None:
    told = project.types(f"drill rollback {SHOWN}", by="sre").must(NOT_FOUND)
    assert "code: running.not-up" in told.err and "next: lockgate up --detach" in told.err
    project.types("drill rollback prod/lump", by="sre").must(NOT_FOUND)
    known = project.is_ready()
    for n in ("0", "1001", "few"):
        project.types(f"drill rollback {SHOWN} --n {n}", by="sre").must(USAGE)
    told = project.types("drill rollback prod/lump", by="sre").must(NOT_FOUND)
    project.types(f"rollback {SHOWN}", by="sre").must(OK)
    project.begin("good")
    project.reaches("shadow")
    told = project.types(f"drill rollback {SHOWN}", by="sre").must(WAITING)
    assert "delivery.rollout-active" in told.err and "lockgate rollout show prod/main/lamp" in told.err
    assert drilled(project) == LIVE
    project.types(f"rollout abort {SHOWN}", by="sre").must(OK)
    project.types(f"drill rollback {SHOWN} --n 1", by="sre").must(OK)
    # A data plane that stands still: no figures are made up, and the remedy is named.
    before = project.endpoint.generation
    with project.frozen(), project.frozen("plane_pid"):
        told = project.types(f"drill rollback {SHOWN} --n 1 --json", by="sre").must(REFUSED)
    assert not told.json["passed"] and told.json["interrupted"]
    assert known["pid"] == (project.running or {})["pid"]
    project.eventually(lambda: drilled(project) == LIVE)
    assert project.plan.generation == before + 3 and project.plan.drill is None
    assert "last drill FAILED" in project.types(f"status {SHOWN}").must(OK).out
    project.audit_holds()


def test_without_a_version_before_there_is_nothing_to_drill(eventually: Eventually) -> None:
    with lamps(eventually) as project:
        project.is_ready()
        told = project.types(f"drill rollback {SHOWN}", by="sre").must(REFUSED)
        assert "delivery.nothing-before" in told.err
        project.audit_holds()


def test_a_drill_puts_back_plans_that_were_wiped(project: Lamps) -> None:
    """The run directory's plans are gone: the drill brings them back, and the running data plane follows them."""
    project.is_ready()
    with project.frozen():
        for file in (project.dot / "run" / "endpoints").iterdir():
            file.unlink()
        project.types(f"drill rollback {SHOWN} --n 3", by="sre").must(OK)
        assert set(versions_of(project.burst(10)).values()) == {GOOD}
        project.types(f"rollback {SHOWN}", by="sre").must(OK)
        assert set(versions_of(project.burst(10)).values()) == {LIVE}
    project.audit_holds()


@contextmanager
def killed_in_a_flip(project: Lamps) -> Iterator[None]:
    """A drill is ended by kill -9 while the version before answers what is rehearsed."""
    with ended(project.starts(f"drill rollback {SHOWN} --n 1000", by="sre")) as drill:
        project.eventually(lambda: project.plan.drill is not None and project.plan.generation > 10)
        drill.kill()
        drill.wait()
        yield


def test_a_drill_killed_in_the_middle(project: Lamps) -> None:
    known = project.is_ready()
    with Traffic(known["plane_port"]) as traffic:
        with killed_in_a_flip(project):
            (started,) = (entry["event"] for entry in project.journal("delivery.drill-started/"))
            assert started["first"] < project.plan.generation < started["last"]
            project.audit_holds()
        assert "last drill" not in project.types(f"status {SHOWN}").must(OK).out
        # The next one takes newer generations, and ends what was left in force.
        project.types(f"drill rollback {SHOWN} --n 2", by="sre").must(OK)
        assert project.plan.drill is None and project.plan.generation > started["last"]
        with killed_in_a_flip(project):
            pass
        left = project.plan.generation
        project.kills_up()
    assert traffic.statuses == {200} and traffic.last() == {GOOD}
    project.is_ready()
    # A controller that begins puts back what stands.
    assert project.plan.drill is None and project.plan.generation > left
    assert set(versions_of(project.burst(20)).values()) == {GOOD} and drilled(project) == GOOD
    with killed_in_a_flip(project):
        project.types(f"rollback {SHOWN}", by="sre").must(OK)
    assert set(versions_of(project.burst(20)).values()) == {LIVE} and drilled(project) == LIVE
    with killed_in_a_flip(project):
        project.begin("good")
        project.reaches("shadow", 0)
        assert set(versions_of(project.burst(20)).values()) == {LIVE}
    project.audit_holds()


@pytest.mark.parametrize("place", ["delivery.start-drill@committed", "delivery.finish-drill@decided"])
def test_a_drill_killed_around_its_record(project: Lamps, place: str) -> None:
    project.is_ready()
    project.dies_typing(place, f"drill rollback {SHOWN} --n 2")
    assert project.plan.drill is None and drilled(project) == GOOD
    assert "last drill" not in project.types(f"status {SHOWN}").must(OK).out
    project.types(f"rollback {SHOWN}", by="sre").must(OK)
    assert set(versions_of(project.burst(20)).values()) == {LIVE}
    project.audit_holds()


def test_a_rollback_does_not_wait_for_a_drill(project: Lamps) -> None:
    """The real thing comes in between: it wins at once, and the drill says that it was interrupted."""
    project.is_ready()
    with ended(project.starts(f"drill rollback {SHOWN} --n 1000 --json", by="ada")) as drill:
        project.eventually(lambda: project.plan.drill is not None)
        project.types(f"rollback {SHOWN}", by="sre").must(OK)
        assert set(versions_of(project.burst(20)).values()) == {LIVE}
        out, errors = drill.communicate(timeout=60)
    assert drill.returncode == REFUSED, out + errors
    told = project.types(f"status {SHOWN}").must(OK).out
    assert "last drill FAILED (" in told and "0 failed, 0 mixed" in told
    assert drilled(project) == LIVE and project.plan.drill is None
    project.audit_holds()


def test_a_data_plane_that_dies_in_a_drill(project: Lamps) -> None:
    known = project.is_ready()
    with ended(project.starts(f"drill rollback {SHOWN} --n 300 --json", by="sre")) as drill:
        project.eventually(lambda: project.plan.drill is not None)
        os.kill(known["plane_pid"], signal.SIGKILL)
        out, errors = drill.communicate(timeout=60)
    # It goes on with the data plane that follows, and says that callers would have waited.
    assert drill.returncode == REFUSED, out + errors
    told = json.loads(out)
    assert not told["passed"] and told["n_failed"] > 0 and told["n_wrong"] == 0
    project.eventually(lambda: project.get("/readyz").status == 200)
    assert set(versions_of(project.burst(20)).values()) == {GOOD} and drilled(project) == GOOD
    project.types(f"drill rollback {SHOWN} --n 1", by="sre").must(OK)
    project.audit_holds()


def test_the_hub_walks_it_for_whoever_is_elsewhere(project: Lamps) -> None:
    known = project.is_ready()
    hub = f"http://127.0.0.1:{known['hub_port']}"
    with Traffic(known["plane_port"]) as traffic:
        typed = project.types(f"drill rollback {SHOWN} --n 8 --hub {hub} --json", by="sre").must(OK)
    assert not traffic.lost and traffic.statuses == {200}
    assert {version for answers in traffic.met.values() for _, version in answers} == {GOOD}
    drill = typed.json
    assert (drill["number"], drill["passed"], drill["n_flips"]) == (1, True, 8)
    (started,) = project.journal("delivery.drill-started/")
    (finished,) = project.journal("delivery.drill-finished/")
    assert (started["actor"], finished["actor"]) == ("sre", "lockgate-controller")
    assert drilled(project) == GOOD
    project.types(f"drill rollback {SHOWN} --hub {hub} --port 1", by="sre").must(USAGE)
    # One that is walked here counts on from there.
    project.types(f"drill rollback {SHOWN} --n 2", by="sre").must(OK)
    assert (
        project.types(f"status {SHOWN} --json")
        .must(OK)
        .json["endpoints"][SHOWN]["rollback_ready"]["drill"]["number"]
        == 2
    )
    assert project.types("audit verify").must(OK).out.startswith("ok: ")
