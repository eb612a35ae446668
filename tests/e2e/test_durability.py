"""Processes die at the worst moments, disks fill up, two people ship at once: nothing is lost, all goes on."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
from contextlib import closing, suppress

from operator_story import ENDPOINT, Given, Project, Story, Then, When, command_of, ended, to_run

from command_line import FLIGHT, OK, UNAVAILABLE, WAITING


def a_new_version(given: Given, number: int = 0) -> None:
    """A change that costs little to build: another file in the package."""
    given.a_file(f"evaluation/note-{number}.md", f"Note {number}.\n")


def registered(project: Project) -> dict[str, str]:
    """Package by version."""
    events = [entry["event"] for entry in project.journal("registry.version-registered/")]
    found = {event["version"]: event["package"] for event in events}
    assert len(found) == len(events) == len(set(found.values()))
    return found


def test_killed_between_blob_and_commit(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    a_new_version(given)
    project.dies_typing("registry.register-version@decided", "ship --to dev")
    # The blobs are there, the version is not: half a registration does not exist.
    assert to_run(project.asks("plan")) == set()
    assert set(registered(project)) == {"main/flight-delay@1.0.0"}
    then.the_audit_holds()
    when.ada("train --json")
    then.it_succeeds()
    assert then.answer["ran"] == [] and len(registered(project)) == 2
    project.types(f"package verify {then.answer['version']}").must(OK)
    then.the_audit_holds()


def test_killed_between_commit_and_effect(given: Given, when: When, then: Then, story: Story) -> None:
    project = given.version_one_is_live()
    a_new_version(given)
    project.dies_typing("delivery.promote-version@committed", "ship --to dev")
    status = project.asks("status dev/flight-delay")
    assert status["effects_pending"] == 1
    line = status["endpoints"]["dev/flight-delay"]
    assert line["live"]["version"] == "flight-delay@1.0.0" and line["rollout"]["state"] == "preparing"
    then.the_audit_holds()
    # Nobody types it again: the outbox remembers, and the next controller carries it out.
    given.all_is_up()
    story.eventually(lambda: project.asks("status")["effects_pending"] == 0)
    live = project.asks("status dev/flight-delay")["endpoints"]["dev/flight-delay"]["live"]
    assert (
        live["digest"] == registered(project)["main/" + live["version"]]
        and live["version"] > "flight-delay@1.0.0"
    )
    assert project.predict(FLIGHT, at="dev/flight-delay").body["digest"] == live["digest"]
    when.ada("ship --to staging")
    then.it_succeeds().it_says("0 steps ran", f"{live['version']} is live on dev, staging")
    then.the_audit_holds()


def test_killed_between_the_effect_and_its_confirmation(
    given: Given, when: When, then: Then, story: Story
) -> None:
    project = given.version_one_is_live()
    known = given.all_is_up()
    a_new_version(given)
    # The controller is held, so that it is the dying process that brings the plan to the data plane.
    os.kill(known["pid"], signal.SIGSTOP)
    try:
        project.dies_typing("delivery.confirm-plan@decided", "ship --to dev")
        answered = project.predict(FLIGHT, at="dev/flight-delay").body
        assert answered["digest"] in registered(project).values() and answered["version"] != "1.0.0"
        status = project.asks("status dev/flight-delay")
        assert status["effects_pending"] == 1
        assert status["endpoints"]["dev/flight-delay"]["rollout"]["state"] == "preparing"
        then.the_audit_holds()
        # Time passes, and the dead process's claim on the work runs out.
        with closing(sqlite3.connect(project.database)) as database, database:
            assert database.execute("UPDATE outbox SET leased_until = 0 WHERE leased_until > 0").rowcount == 1
    finally:
        os.kill(known["pid"], signal.SIGCONT)
    story.eventually(lambda: project.asks("status")["effects_pending"] == 0)
    line = project.asks("status dev/flight-delay")["endpoints"]["dev/flight-delay"]
    assert line["rollout"] is None and line["live"]["digest"] == answered["digest"]
    # It was done twice and happened once.
    gone_live = [entry["event"] for entry in project.journal("delivery.release-went-live/")]
    assert [event["release"] for event in gone_live if event["endpoint"].startswith("dev/")] == [1, 2]
    then.the_audit_holds()


def test_killed_at_random_moments_of_ship(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    given.all_is_up()
    chance = random.Random(2013)
    for number in range(4):
        a_new_version(given, number)
        with ended(project.starts("ship --to staging", by="ada")) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.4, 4.0))
            process.kill()
        then.the_audit_holds()
        registered(project)
    # What a dying process had leased would be free again after a while; the while is skipped.
    with closing(sqlite3.connect(project.database)) as database, database:
        database.execute("UPDATE outbox SET leased_until = 0")
    when.ada("ship --to staging --ticket OPS-9")
    if then.code == WAITING:
        when.ada("ship --to staging --ticket OPS-9")
    then.it_succeeds()
    live = project.live()
    assert live["dev/flight-delay"] == live["staging/flight-delay"] == list(registered(project).values())[-1]
    project.types("package verify staging/flight-delay").must(OK)
    then.version_is_live("1.0.0", "prod").the_audit_holds()


def test_a_killed_data_plane_comes_back_with_its_plans(given: Given, then: Then, story: Story) -> None:
    project = given.version_one_is_live()
    known = given.all_is_up()
    before = project.predict(FLIGHT).body
    os.kill(known["plane_pid"], signal.SIGKILL)
    again = story.eventually(
        lambda: (now := project.running) and now["plane_pid"] != known["plane_pid"] and now, 60.0
    )
    assert again["plane_port"] == known["plane_port"] and again["pid"] == known["pid"]
    story.eventually(lambda: project.get("/readyz").status == 200, 60.0)
    after = project.predict(FLIGHT).body
    assert (after["version"], after["digest"], after["predictions"]) == (
        before["version"],
        before["digest"],
        before["predictions"],
    )
    then.the_audit_holds()


def test_after_kill_9_of_up_nothing_keeps_the_port(given: Given, then: Then, story: Story) -> None:
    project = given.version_one_is_live()
    known = given.all_is_up()
    os.kill(known["pid"], signal.SIGKILL)
    story.eventually(lambda: "dataplane" not in command_of(known["plane_pid"]), 30.0)
    project.types("down").must(4)
    project.types(f"up --detach --port {known['plane_port']}").must(OK)
    story.eventually(lambda: project.get("/readyz").status == 200, 60.0)
    assert project.predict(FLIGHT).body["version"] == "1.0.0"
    then.the_audit_holds()


def test_two_ships_at_once_lose_nothing(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    given.all_is_up()
    a_new_version(given)
    lines = [
        (f"ship --to staging --ticket OPS-{number} --json", by) for number, by in ((7, "ada"), (8, "linus"))
    ]
    with (
        ended(project.starts(lines[0][0], by=lines[0][1])) as first,
        ended(project.starts(lines[1][0], by=lines[1][1])) as second,
    ):
        told = [(process.communicate(timeout=120), process.returncode) for process in (first, second)]
    # One may find the other's release under way and say so; neither fails.
    assert {code for _, code in told} <= {OK, WAITING} and OK in {code for _, code in told}, told
    versions = {json.loads(out)["version"] for (out, _), _ in told}
    assert len(versions) == 1
    assert list(registered(project)) == ["main/flight-delay@1.0.0", "main/" + versions.pop()]
    for name in ("dev", "staging"):
        started = [
            entry["event"]["release"]
            for entry in project.journal("delivery.release-started/")
            if entry["event"]["endpoint"].startswith(name)
        ]
        assert started == [1, 2], "each environment got the new version exactly once"
    then.the_audit_holds()


def test_a_full_disk_while_packaging_leaves_no_half_version(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    (project.root / "evaluation" / "recording.bin").write_bytes(random.Random(1).randbytes(4_000_000))
    before = {file.name for file in project.blob_file("").iterdir()}

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))

    when.ada("ship --to dev", preexec_fn=small_disk)
    then.it_ends_with(UNAVAILABLE).it_is_no_bug().it_says("no room left", "free space")
    assert set(registered(project)) == {"main/flight-delay@1.0.0"}
    assert list((project.dot / "store" / ".incoming").iterdir()) == []
    assert not [
        file
        for file in project.blob_file("").iterdir()
        if file.name not in before and file.stat().st_size > 3e6
    ]
    then.the_audit_holds().version_is_live("1.0.0")
    # Room was made: the same command goes on.
    when.ada("train --json")
    then.it_succeeds()
    assert set(then.answer["ran"]) == {"package", "evidence"}
    project.types(f"package verify {then.answer['version']}").must(OK)
    assert project.live()[ENDPOINT] == registered(project)["main/flight-delay@1.0.0"]
