"""Story 7: back under traffic, explained, audited, reproduced; and one altered byte or row is found and named."""

from __future__ import annotations

import shutil

import pytest
from operator_story import ENDPOINT, Given, Project, Story, Then, Traffic, When, Worlds

from command_line import CORRUPT, FLIGHT, NOT_FOUND, REFUSED


def test_a_rollback_under_traffic_loses_no_request_and_flips_once(
    given: Given, when: When, then: Then, story: Story
) -> None:
    project = given.version_two_is_live()
    given.all_is_up()
    before, after = "1.1.0", "1.0.0"
    with Traffic(project) as traffic:
        story.eventually(lambda: traffic.at_least(50))
        when.the_sre("rollback prod/flight-delay --reason 'too many false alarms' --json")
        at_command = traffic.n_answers
        story.eventually(lambda: traffic.at_least(at_command + 50))
    then.it_succeeds()
    assert then.answer["from"] == "flight-delay@1.1.0" and then.answer["to"] == "flight-delay@1.0.0"
    assert 0 < then.answer["took_ms"] < 5000
    assert traffic.failures == []
    for mine in traffic.answers:
        assert {reply.status for reply in mine} == {200}
        versions = [reply.body["version"] for reply in mine]
        # One flip, never back and forth, and each answer is wholly one version's.
        assert versions == sorted(versions, reverse=True) and set(versions) == {before, after}
        by_version = {version: set() for version in (before, after)}
        for reply in mine:
            by_version[reply.body["version"]].add((reply.body["predictions"][0], reply.body["digest"]))
        assert all(len(answers) == 1 for answers in by_version.values())
        assert by_version[before] != by_version[after]

    line = project.asks("status prod/flight-delay")["endpoints"][ENDPOINT]
    assert line["live"]["version"] == "flight-delay@1.0.0"
    assert line["previous"]["version"] == "flight-delay@1.1.0"
    assert line["rollback_ready"] == {"ready": True, "reason": None, "drill": None}
    # The other endpoints did not move, and the whole of it is in the journal.
    then.version_is_live("1.1.0", "dev", "staging").the_audit_holds()
    (rolled,) = project.journal("delivery.endpoint-rolled-back/")
    assert rolled["actor"] == "sre" and rolled["event"]["reason"] == "too many false alarms"
    assert len(project.journal("delivery.rollback-confirmed/")) == 1

    # The way back is itself a way back.
    when.the_sre("rollback prod/flight-delay --json")
    then.it_succeeds()
    assert then.answer["to"] == "flight-delay@1.1.0"
    assert project.predict(FLIGHT).body["version"] == "1.1.0"


def test_the_six_questions_are_answered_by_reading(serving: Project) -> None:
    explained = serving.asks("explain prod/flight-delay")
    assert explained["version"] == "flight-delay@1.1.0"
    assert {one["dataset"] for one in explained["datasets"]} == {"flights", "weather", "planes"}
    assert "train() in flights/model.py" in explained["code"]["parts"]
    assert {one["view"] for one in explained["features"]} >= {"origin_departures", "observed_weather"}
    text = serving.types("explain prod/flight-delay").must(0).out
    for word in ("flight-delay@1.1.0", "validated", "tier moderate", "approved", "grace", "ticket OPS-2"):
        assert word in text
    diff = serving.asks("diff flight-delay@1.0.0 flight-delay@1.1.0")
    sections = {one["section"] for one in diff["differences"]}
    assert {"contract", "features", "artifact"} <= sections and "data" not in sections
    assert diff["evidence"]["old"]["perf.absolute:auc"] < diff["evidence"]["new"]["perf.absolute:auc"]
    edges = {(one["source"], one["target"]) for one in serving.asks("lineage flight-delay@1.1.0")["edges"]}
    assert ("version:main/flight-delay@1.1.0", "endpoint:prod/main/flight-delay") in edges
    snapshot = explained["datasets"][0]["snapshot"]
    reached = {one["target"] for one in serving.asks(f"lineage snapshot:{snapshot}")["edges"]}
    assert "endpoint:prod/main/flight-delay" in reached
    line = serving.asks("status prod/flight-delay")["endpoints"][ENDPOINT]
    assert line["consumers"] == ["passenger-app", "gate-planning"]
    assert line["dashboards"] == ["operations/flight-delay"]


def test_a_version_is_reproduced_from_its_package_and_snapshots_alone(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    # Nothing of the working tree is left but the reviewed file, and nothing of the step cache.
    for folder in ("flights", "contracts", "evaluation", "infra", "tests"):
        shutil.rmtree(project.root / folder)
    (project.root / "requirements.lock").unlink()
    for file in project.dot.glob("steps.db*"):
        file.unlink()
    n_events = len(project.journal())
    when.somebody("reproduce flight-delay@1.0.0 --json")
    then.it_succeeds()
    assert then.answer["verdict"] == "identical" and then.answer["first_difference"] is None
    assert then.answer["rebuilt"] == then.answer["expected"] == project.live()[ENDPOINT]
    assert then.answer["environment_matches"] is True
    then.it_says("ran     train ", "ran     package ").it_never_says("cached")
    assert len(project.journal()) == n_events


@pytest.mark.parametrize("file", ["model/model.onnx", "include/infra/serving.yaml"])
def test_one_flipped_byte_of_a_package_is_refused_and_named(
    given: Given, when: When, then: Then, file: str
) -> None:
    project = given.version_one_is_live()
    blob = project.layers("prod/flight-delay")[file]
    flip_a_byte(project, blob)
    when.somebody("package verify prod/flight-delay")
    then.it_ends_with(CORRUPT).it_is_no_bug().it_says(blob)
    when.somebody("package export prod/flight-delay out")
    then.it_ends_with(CORRUPT).it_is_no_bug().it_says(blob)
    # The journal never held those bytes: it is not altered, and says so.
    then.the_audit_holds()


def test_a_data_plane_keeps_the_last_whole_version_instead_of_a_flipped_byte(
    given: Given, when: When, then: Then, story: Story
) -> None:
    project = given.version_two_is_live()
    blob = project.layers("flight-delay@1.1.0")["model/model.onnx"]
    flip_a_byte(project, blob)
    project.up()
    state = story.eventually(lambda: project.get("/endpoints").body["endpoints"].get(ENDPOINT), 60.0)
    assert state["state"] == "failed" and blob in state["detail"] and "model/model.onnx" in state["detail"]
    # The plan before this one is still at hand, and its bytes are whole.
    reply = project.predict(FLIGHT)
    assert reply.status == 200 and reply.body["version"] == "1.0.0"
    when.the_sre("rollback prod/flight-delay --json")
    then.it_succeeds()
    assert project.predict(FLIGHT).body["version"] == "1.0.0"


def test_a_data_plane_with_nothing_whole_never_answers_from_a_flipped_byte(
    given: Given, story: Story
) -> None:
    project = given.version_one_is_live()
    blob = project.layers("flight-delay@1.0.0")["model/model.onnx"]
    flip_a_byte(project, blob)
    project.up()
    state = story.eventually(lambda: project.get("/endpoints").body["endpoints"].get(ENDPOINT), 60.0)
    assert state["state"] == "failed" and blob in state["detail"]
    assert project.get("/readyz").status == 503
    reply = project.predict(FLIGHT)
    assert reply.status == 503 or reply.body["fallback"] is True, reply


def test_bytes_that_were_changed_are_not_promoted(given: Given, when: When, then: Then) -> None:
    project = given.a_copy(of=given.twin)
    when.ada("snapshot")
    blob = project.layers("flight-delay@1.0.0")["golden.json"]
    flip_a_byte(project, blob)
    when.ada("promote flight-delay@1.0.0 --to dev")
    then.it_ends_with(REFUSED).it_is_no_bug().it_says(blob)
    (refused,) = project.journal("hub.command-refused/")
    assert blob in str(refused["event"]["reasons"])
    assert not project.journal("delivery.release-started/")
    then.the_audit_holds()


def test_a_first_release_that_cannot_be_loaded_fails_and_leaves_the_declared_fallback(
    given: Given, when: When, then: Then, story: Story
) -> None:
    project = given.a_copy(of=given.twin)
    given.an_edit(
        "lockgate.toml", ('fallback = { kind = "none" }', 'fallback = { kind = "constant", value = 0.4 }')
    )
    when.ada("snapshot")
    when.ada("promote flight-delay@1.0.0 --to dev")
    blob = project.layers("flight-delay@1.0.0")["golden.json"]
    flip_a_byte(project, blob)
    given.all_is_up()
    (failed,) = story.eventually(lambda: project.journal("delivery.release-failed/"), 60.0)
    assert blob in failed["event"]["detail"]
    assert project.live()["dev/flight-delay"] is None
    reply = project.predict(FLIGHT, at="dev/flight-delay")
    assert reply.status == 200 and reply.body["fallback"] is True and reply.body["predictions"] == [0.4]
    then.the_audit_holds()


ALTERATIONS = {
    "an entry": (
        "UPDATE events SET body = CAST(replace(CAST(body AS TEXT), 'OPS-1', 'OPS-9') AS BLOB) "
        "WHERE CAST(body AS TEXT) LIKE '%\"ticket\":\"OPS-1\"%' AND CAST(body AS TEXT) LIKE '%prod/main%'",
        "entry ",
    ),
    "a document": (
        "UPDATE documents SET body = CAST(replace(CAST(body AS TEXT), 'grace', 'mallo') AS BLOB) "
        "WHERE kind = 'approval'",
        "document approval main/flight-delay@1.0.0#prod",
    ),
    "a column that lists read": (
        "UPDATE documents SET state = 'rejected' WHERE kind = 'version'",
        "document version main/flight-delay@1.0.0",
    ),
    "a lineage edge": (
        "DELETE FROM edges WHERE source LIKE 'version:%' AND target LIKE 'endpoint:prod/%'",
        "lineage edge version:main/flight-delay@1.0.0 released_to endpoint:prod/main/flight-delay",
    ),
    "a missing entry": (
        "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)",
        "a signed checkpoint knows",
    ),
}


@pytest.mark.parametrize("what", ALTERATIONS)
def test_one_altered_row_is_found_and_named(given: Given, when: When, then: Then, what: str) -> None:
    sql, finding = ALTERATIONS[what]
    project = given.version_one_is_live()
    assert project.alters(sql) == 1
    when.somebody("audit verify --json")
    then.it_ends_with(CORRUPT)
    assert then.answer["ok"] is False
    if what == "an entry":
        (seq,) = [
            entry["seq"]
            for entry in project.journal("delivery.release-started/")
            if "prod" in entry["event"]["endpoint"]
        ]
        finding = f"entry {seq}"
    assert any(finding in line for line in then.answer["findings"]), then.answer["findings"]
    if what == "an entry":
        when.somebody("audit verify")
        then.it_ends_with(CORRUPT).it_says("ALTERED", finding)


def test_a_rewritten_tail_does_not_fit_the_signed_checkpoints(given: Given, when: When, then: Then) -> None:
    """The owner of the database puts an older journal back: chain and documents fit, the checkpoints do not."""
    later = given.version_two_is_live()
    earlier = given.version_one_is_live()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (later.dot / name).unlink(missing_ok=True)
    shutil.copy2(earlier.database, later.database)
    done = later.types("audit verify --json").must(CORRUPT)
    assert any("checkpoint" in line for line in done.json["findings"])


def test_without_its_key_the_audit_says_so(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    (project.dot / "keys" / "checkpoint.pem").unlink()
    when.somebody("audit verify")
    then.it_ends_with(NOT_FOUND).it_says("checkpoint.pem")


def test_without_its_key_changes_go_on_and_say_that_no_checkpoint_was_written(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_two_is_live()
    (project.dot / "keys" / "checkpoint.pem").unlink()
    when.the_sre("rollback prod/flight-delay --reason errors")
    assert then.code != NOT_FOUND
    then.it_is_no_bug().it_says("no checkpoint was written", "checkpoint.pem")
    when.grace("quarantine flight-delay@1.1.0 --reason odd")
    then.it_succeeds().it_says("no checkpoint was written")


def flip_a_byte(project: Project, digest: str) -> None:
    file = project.blob_file(digest)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    # The blob is linked to other copies of the project: this one gets a file of its own.
    file.unlink()
    file.write_bytes(data)
    file.chmod(0o444)


def test_worlds_are_left_as_they_were(worlds: Worlds) -> None:
    """The stories above altered copies; the worlds they came from still hold."""
    for project in (worlds.one, worlds.two):
        project.types("audit verify").must(0)
        project.types("package verify prod/flight-delay").must(0)
