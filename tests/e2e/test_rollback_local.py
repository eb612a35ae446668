"""Given a data plane that lives and a hub that does not, when somebody goes back by hand, then callers meet the version
before at once, and the hub takes it over into the journal before it says anything else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataplane_rig import DataPlane, Store, dataplane
from operator_story import ended
from rollout_rig import (
    ALL_STEPS,
    ENDPOINT,
    N_KEYS,
    SHOWN,
    VERSIONS,
    Eventually,
    Lamps,
    Traffic,
    lamps,
    rollout_table,
    two_live,
    versions_of,
)

from command_line import CORRUPT, OK, REFUSED, UNAVAILABLE, USAGE, WAITING, Typed

LIVE, GOOD = VERSIONS["live"], VERSIONS["good"]
BY_HAND = f"rollback {SHOWN} --local --reason 'the hub is down' --incident INC-9 --json"
NOBODY = """
import os
import lockgate.adapters.targets.local, lockgate.app.cli.verbs.release, lockgate.app.system
from lockgate.app.cli.main import main
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
main()
"""
"""The command line itself, as somebody with no right to write what others do not let them."""
ADOPTED, OVERRULED = "delivery.local-rollback-adopted/", "delivery.local-plan-overruled/"


@contextmanager
def plane_of_its_own(project: Lamps) -> Iterator[DataPlane]:
    """A data plane that no supervisor holds: it outlives whatever else runs here."""
    key = project.root / "trust" / "signing.pub"
    with dataplane(Store(project.dot / "store", key, {}), project.dot / "run") as plane:
        project.eventually(lambda: plane.get("/readyz").status == 200)
        yield plane


@contextmanager
def without_a_database(project: Lamps) -> Iterator[None]:
    """Where the journal was there is something that nobody can open."""
    away = [path for path in project.dot.glob("state.db*") if path.is_file()]
    for path in away:
        path.rename(path.with_name(f"away-{path.name}"))
    project.database.write_bytes(os.urandom(8192))
    try:
        yield
    finally:
        for path in project.dot.glob("state.db*"):
            path.unlink()
        for path in away:
            path.with_name(f"away-{path.name}").rename(path)


def line(project: Lamps) -> dict[str, Any]:
    found: dict[str, Any] = project.asks(f"status {SHOWN}")["endpoints"][SHOWN]
    return found


def answering(plane: DataPlane) -> str:
    reply = plane.request(
        "POST",
        f"/{SHOWN}",
        b'{"inputs": [{"signal": 1, "trouble": 0}]}',
        {"content-type": "application/json"},
    )
    assert reply.status == 200
    return str(reply.body["version"])


def test_acceptance_9_a_rollback_with_the_database_down_and_the_hub_dead(
    eventually: Eventually, tmp_path: Path
) -> None:
    with lamps(eventually, two_live) as project, plane_of_its_own(project) as plane:
        project.is_ready()
        project.kills_up()
        with without_a_database(project), Traffic(plane.port) as traffic:
            eventually(lambda: len(traffic.met) == N_KEYS and all(traffic.met.values()))
            assert traffic.last() == {GOOD}
            # The common way back needs the journal.
            assert project.types(f"rollback {SHOWN}", by="sre").code in (UNAVAILABLE, CORRUPT)
            assert answering(plane) == GOOD
            # The other one needs the run directory, and nothing of a project.
            (tmp_path / "elsewhere").mkdir()
            elsewhere = Lamps(tmp_path / "elsewhere", eventually)
            told = elsewhere.types(f"{BY_HAND} --run {project.dot / 'run'}", by="sre").must(OK)
            assert answering(plane) == LIVE
            seen = {key: len(met) for key, met in traffic.met.items()}
            eventually(lambda: all(len(met) > seen[key] + 1 for key, met in traffic.met.items()))
        assert (told.json["from"], told.json["to"]) == (f"lamp@{GOOD}", f"lamp@{LIVE}")
        assert told.json["effects"] == "done" and 0 < told.json["took_ms"] < 5000
        assert traffic.lost == [] and traffic.statuses == {200}
        for met in traffic.met.values():
            # One flip, never back and forth.
            versions = [version for _, version in met]
            assert versions == sorted(versions, reverse=True) and set(versions) == {GOOD, LIVE}
        # Nobody has told the journal yet, and it says so.
        assert line(project)["live"]["version"] == f"lamp@{GOOD}"
        assert "written without the hub, by hand by sre" in line(project)["astray"]
        assert project.journal(ADOPTED) == []

        project.is_ready()
        eventually(lambda: project.journal(ADOPTED))
        (entry,) = project.journal(ADOPTED)
        event, hand = entry["event"], entry["event"]["hand"]
        assert entry["actor"] == "lockgate-controller" and event["endpoint"] == ENDPOINT
        assert (hand["by"], hand["reason"], hand["incident"]) == ("sre", "the hub is down", "INC-9")
        assert event["from_version"] == f"main/lamp@{GOOD}"
        assert event["to"]["version"] == f"main/lamp@{LIVE}"
        found = eventually(lambda: (known := line(project)) and not known["astray"] and known)
        assert found["live"]["version"] == f"lamp@{LIVE}" and found["previous"]["version"] == f"lamp@{GOOD}"
        assert found["local"]["hand"] == hand and found["rollout"] is None
        assert found["rollback_ready"]["ready"]
        assert project.plan.origin == "hub" and project.plan.generation == event["generation"]
        assert answering(plane) == LIVE and set(versions_of(project.burst(20)).values()) == {LIVE}
        shown = project.types(f"explain {SHOWN}").must(OK).out
        assert "by hand" in shown and "INC-9" in shown
        project.audit_holds()
        # From here on it is an endpoint like any other.
        project.types(f"rollback {SHOWN}", by="sre").must(OK)
        assert project.version == GOOD and answering(plane) == GOOD
        assert len(project.journal(ADOPTED)) == 1


def test_who_types_the_common_rollback_afterwards_does_not_turn_it_around(eventually: Eventually) -> None:
    """The first process with the journal at hand adopts before it decides; without a hub that watches, too."""
    with lamps(eventually, two_live) as project:
        project.is_ready()
        with project.frozen():
            project.types(BY_HAND, by="sre").must(OK)
            assert set(versions_of(project.burst(20)).values()) == {LIVE}
            # A second person has not heard of it, and wants to leave the same version.
            project.types(f"rollback {SHOWN}", by="olga").must(OK)
            assert set(versions_of(project.burst(20)).values()) == {LIVE}
            assert project.version == LIVE
            assert len(project.journal(ADOPTED)) == 1
            assert project.journal("delivery.endpoint-rolled-back/") == []
        # A drill moves no caller, and the hub that watches again has nothing to add.
        project.types(f"drill rollback {SHOWN} --n 2", by="sre").must(OK)
        assert len(project.journal(ADOPTED)) == 1
        project.audit_holds()


def test_a_rollout_that_was_under_way_is_over(eventually: Eventually) -> None:
    with lamps(eventually, rollout=rollout_table(ALL_STEPS[1:])) as project:
        project.is_ready()
        project.begin()
        project.reaches("canary", 0)
        with project.frozen():
            assert set(versions_of(project.burst()).values()) == {LIVE, GOOD}
            told = project.types(BY_HAND, by="sre").must(OK)
            assert (told.json["from"], told.json["to"]) == (f"lamp@{GOOD}", f"lamp@{LIVE}")
            assert set(versions_of(project.burst()).values()) == {LIVE}
        eventually(lambda: project.journal(ADOPTED))
        assert project.state == "" and project.version == LIVE
        (release,) = [one for one in project.asks(f"explain lamp@{GOOD}")["releases"] if one["release"] == 2]
        assert release["state"] == "rolled_back" and "the hub is down" in release["detail"]
        eventually(lambda: project.plan.origin == "hub")
        assert set(versions_of(project.burst()).values()) == {LIVE}
        project.audit_holds()


def test_bytes_that_were_shut_away_are_put_back_and_everybody_is_told(eventually: Eventually) -> None:
    with lamps(eventually, two_live) as project:
        project.types(f"quarantine lamp@{LIVE} --reason leak", by="sue").must(OK)
        project.is_ready()
        with project.frozen():
            project.types(BY_HAND, by="sre").must(OK)
            assert set(versions_of(project.burst(20)).values()) == {LIVE}
        eventually(lambda: project.journal(OVERRULED))
        eventually(lambda: project.plan.origin == "hub")
        assert set(versions_of(project.burst(20)).values()) == {GOOD}
        assert project.version == GOOD
        assert "PUT BACK: " in project.types(f"status {SHOWN}").must(OK).out
        project.audit_holds()


def test_what_cannot_be_done_by_hand_is_said(eventually: Eventually, tmp_path: Path) -> None:
    def rules(told: Typed) -> list[str]:
        return [reason["rule"] for reason in told.must(REFUSED).json["refusal"]["reasons"]]

    with lamps(eventually) as project:
        assert "--reason" in project.types(f"rollback {SHOWN} --local").must(USAGE).text
        assert "--local" in project.types(f"rollback {SHOWN} --incident INC-9").must(USAGE).text
        # Only 1.0.0 was ever live.
        assert rules(project.types(BY_HAND)) == ["delivery.nothing-before"]
        assert rules(project.types(f"{BY_HAND} --run {tmp_path}")) == ["traffic.no-plan"]
        assert list(tmp_path.iterdir()) == []
        assert project.journal("hub.command-refused/") == []


def test_without_a_data_plane_the_next_one_begins_with_it(eventually: Eventually) -> None:
    with lamps(eventually, two_live) as project:
        with without_a_database(project):
            told = project.types(BY_HAND, by="sre").must(WAITING)
            assert told.json["effects"] == "pending"
            with plane_of_its_own(project) as plane:
                assert answering(plane) == LIVE
                # Twice is there and back.
                assert project.types(BY_HAND, by="sre").must(OK).json["to"] == f"lamp@{GOOD}"
                assert answering(plane) == GOOD
        project.types("control", by="sre")
        (entry,) = project.journal(ADOPTED)
        assert (entry["event"]["swapped"], entry["event"]["left"]) == (False, [])
        assert project.version == GOOD
        project.audit_holds()


def test_only_who_may_write_the_run_directory_may_go_back(eventually: Eventually) -> None:
    """The rights of its files are the whole of the permission."""
    with lamps(eventually, two_live) as project, plane_of_its_own(project) as plane:
        project.root.parent.chmod(0o755)
        (project.dot / "run" / "endpoints" / "prod.main.lamp.ctl").chmod(0o400)
        with ended(
            project.starts(BY_HAND, by="sre", command=[sys.executable, "-P", "-c", NOBODY])
        ) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == UNAVAILABLE and "Permission denied" in out + err
        assert answering(plane) == GOOD


def test_a_hub_that_is_killed_while_it_adopts_adopts_once(eventually: Eventually) -> None:
    """Written down, and dead before the target was told: whoever comes next tells it."""
    with lamps(eventually, two_live) as project:
        project.types(BY_HAND, by="sre").must(WAITING)
        process = project.up_that_dies_at("delivery.adopt-local-plan@committed")
        process.wait(60)
        assert process.returncode == -signal.SIGKILL
        assert project.version == LIVE and project.plan.origin == "local"
        project.is_ready()
        eventually(lambda: project.plan.origin == "hub")
        assert set(versions_of(project.burst(20)).values()) == {LIVE}
        eventually(lambda: project.asks("status")["effects_pending"] == 0)
        assert len(project.journal(ADOPTED)) == 1
        project.audit_holds()
