"""What scripts and other tools may rely on: the JSON of the fixed verbs, one document each, and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from operator_story import ENDPOINT, LADDER, Given, Project, Story, Then, When, Worlds

from command_line import CONFLICT, FLIGHT, NOT_FOUND, REFUSED, UNAVAILABLE, USAGE, WAITING

DIGEST = "sha256:"


def shaped(value: Any, shape: Any) -> bool:
    """Whether JSON has a shape: types, dicts with at least the keys given, lists of one kind, `None` beside."""
    if isinstance(shape, tuple):
        return any(shaped(value, one) for one in shape)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(
            key in value and shaped(value[key], inner) for key, inner in shape.items()
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(shaped(one, shape[0]) for one in value)
    if shape is None or isinstance(shape, str):
        return value is None if shape is None else isinstance(value, str) and value.startswith(shape)
    return type(value) is shape


LIVE = {"version": "flight-delay@", "digest": DIGEST, "since": int, "approved_by": [str]}
STATUS_LINE = {
    "live": LIVE,
    "previous": (LIVE, None),
    "rollback_ready": {"ready": bool, "reason": (str, None)},
    "rollout": (dict, None),
}
EXPLAIN = {
    "version": "flight-delay@",
    "digest": DIGEST,
    "code": {"commit": str, "dirty": bool, "closure": DIGEST, "parts": dict},
    "environment": DIGEST,
    "datasets": [{"dataset": str, "snapshot": DIGEST}],
    "features": [{"view": str, "hash": DIGEST}],
    "evidence": [{"gate": str, "verdict": str, "value": str, "threshold": (str, None), "digest": DIGEST}],
    "approvals": [{"environment": str, "approver": str, "evidence_set": DIGEST, "approved_at": int}],
    "releases": [{"endpoint": str, "version": str, "state": str, "ticket": str, "started_by": str}],
}


def test_status(worlds: Worlds, serving: Project) -> None:
    for project, ready in ((serving, True), (worlds.two, False)):
        answer = project.asks("status")
        assert set(answer["endpoints"]) == {f"{name}/flight-delay" for name in LADDER}
        for line in answer["endpoints"].values():
            assert shaped(line, STATUS_LINE), line
            assert line["rollback_ready"]["ready"] is ready
            assert (line["rollback_ready"]["reason"] is None) is ready
    one = worlds.one.asks("status prod/flight-delay")["endpoints"]
    assert set(one) == {ENDPOINT} and one[ENDPOINT]["previous"] is None
    assert one[ENDPOINT]["rollback_ready"]["ready"] is False


def test_status_of_a_release_under_way(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    given.a_file("evaluation/more.md", "More.\n")
    when.ada("ship --to dev --json")
    then.it_ends_with(WAITING)
    assert shaped(
        then.answer, {"version": "flight-delay@", "package": DIGEST, "live_on": [str], "waiting": str}
    )
    rollout = project.asks("status dev/flight-delay")["endpoints"]["dev/flight-delay"]["rollout"]
    assert shaped(rollout, {"state": "preparing", "version": str, "started_at": int, "started_by": "ada"})


def test_explain(serving: Project) -> None:
    by_endpoint, by_version = (serving.asks(f"explain {ref}") for ref in (ENDPOINT, "flight-delay@1.1.0"))
    assert shaped(by_endpoint, EXPLAIN), by_endpoint
    # Only an endpoint has a way back.
    ready, rollout = by_endpoint.pop("rollback_ready"), by_endpoint.pop("rollout")
    assert (ready["ready"], rollout) == (True, None)
    assert (by_version.pop("rollback_ready"), by_version.pop("rollout")) == (None, None)
    assert by_endpoint == by_version
    for part in ("datasets", "features", "evidence", "approvals", "releases"):
        assert by_endpoint[part], part


def test_plan(worlds: Worlds, given: Given) -> None:
    fresh, cached = worlds.made.asks("plan"), worlds.one.asks("plan")
    for plan in (fresh, cached):
        assert set(plan) == {"steps"}
        assert all(set(step) == {"name", "action", "why", "key"} for step in plan["steps"])
        names = [step["name"] for step in plan["steps"]]
        assert len(set(names)) == len(names) and names.index("train") < names.index("package")
    assert all(shaped(step, {"action": "cached", "why": str, "key": DIGEST}) for step in cached["steps"])
    # A key is known where all inputs are, and left open where one is still to be made.
    keys = {step["name"]: step["key"] for step in fresh["steps"]}
    assert keys["weather"].startswith(DIGEST) and keys["train"] is None


def test_audit_verify(worlds: Worlds) -> None:
    answer = worlds.two.asks("audit verify")
    assert shaped(answer, {"ok": bool, "events": int, "head": str})
    assert answer["ok"] is True and answer["events"] == len(worlds.two.journal())
    assert len(answer["head"]) == 64 and int(answer["head"], 16) >= 0
    log = worlds.two.asks("audit log --limit 1000")
    assert [one["seq"] for one in log["changes"]] == list(range(1, answer["events"] + 1))
    assert all(shaped(one, {"at": int, "actor": str, "type": str, "summary": str}) for one in log["changes"])


def test_rollback(given: Given, when: When, then: Then, story: Story) -> None:
    """With nothing up it is decided and recorded at once, and waits for a data plane to take it."""
    project = given.version_two_is_live()
    when.the_sre("rollback prod/flight-delay --json")
    then.it_waits()
    shape = {"from": "flight-delay@1.1.0", "to": "flight-delay@1.0.0", "took_ms": float, "effects": "pending"}
    assert shaped(then.answer, shape)
    given.all_is_up()
    story.eventually(lambda: project.asks("status")["effects_pending"] == 0)
    assert project.predict(FLIGHT).body["version"] == "1.0.0"
    when.the_sre("rollback prod/flight-delay --json")
    then.it_succeeds()
    shape = {"from": "flight-delay@1.0.0", "to": "flight-delay@1.1.0", "took_ms": float, "effects": "done"}
    assert shaped(then.answer, shape)


def test_every_answer_is_one_document_and_every_error_too(
    worlds: Worlds, given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    # One of each kind: an error, what is no command, a refusal, one that waits, an answer that comes with a refusal.
    when.somebody("explain flight-delay@9.9.9 --json")
    then.it_ends_with(NOT_FOUND)
    assert shaped(
        then.answer,
        {
            "error": {
                "code": "hub.unknown-name",
                "message": str,
                "remedy": str,
                "facts": dict,
                "retryable": bool,
            }
        },
    )
    when.somebody("rollback --jsn --json")
    then.it_ends_with(USAGE)
    assert shaped(then.answer, {"error": {"code": "cli.usage", "remedy": "lockgate rollback --help"}})
    when.the_sre("rollback prod/flight-delay --json")
    then.it_ends_with(REFUSED)
    assert shaped(
        then.answer,
        {"refused": str, "refusal": {"reasons": [{"rule": str, "message": str}], "waiting": bool}},
    )
    given.an_edit("lockgate.toml", ("minimum = 0.70", "minimum = 0.90"))
    when.ada("train --json")
    then.it_ends_with(REFUSED)
    assert shaped(then.answer, {"version": str, "refusal": {"reasons": [dict]}, "ran": ["evidence"]})
    waiting = given.told("ship without approval")
    assert waiting.code == WAITING and "claimed" in waiting.err
    assert project.running is None


CODES = {
    "status": 0,
    "status --jsn": USAGE,
    "explain flight-delay": USAGE,
    "rollback prod/flight-delay": REFUSED,
    "down": NOT_FOUND,
    "init .": CONFLICT,
    "status --hub http://127.0.0.1:1": UNAVAILABLE,
}


@pytest.mark.parametrize("line", CODES)
def test_exit_codes(given: Given, when: When, then: Then, line: str) -> None:
    given.version_one_is_live()
    when.somebody(line)
    then.it_ends_with(CODES[line]).it_is_no_bug()


def test_standard_output_is_the_answer_and_nothing_else(worlds: Worlds, given: Given) -> None:
    assert worlds.one.root.is_dir()
    for name in ("first plan", "up"):
        json.loads(given.told(name).out)
    text = given.told("ship").must(0)
    assert text.out.count("\n") == 1 and "cached  train" in text.err


def test_help_and_version_need_no_project(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = Project(tmp_path_factory.mktemp("nowhere"))
    text = nowhere.types("--help").must(0).out
    for verb in (
        "status",
        "explain",
        "plan",
        "audit",
        "rollback",
        "ship",
        "approve",
        "reproduce",
        "up",
        "down",
    ):
        assert f"  {verb} " in text
    assert "lockgate" in nowhere.types("--version").must(0).out
    for verb in ("ship", "rollback", "approve", "explain"):
        shown = nowhere.types(f"{verb} --help").must(0).out
        assert "--json" in shown and "Example:" in shown


NOBODY = "http://127.0.0.1:1"


def test_a_hub_that_does_not_answer_is_named_and_so_is_the_way_without_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    nowhere = Project(tmp_path_factory.mktemp("nowhere"))
    said = nowhere.types(f"rollback {ENDPOINT} --hub {NOBODY}").must(UNAVAILABLE).err
    assert f'lockgate rollback {ENDPOINT} --local --run DIR --reason "..."' in said
    said = nowhere.types(f"login --hub {NOBODY}").must(UNAVAILABLE).err
    assert f"no answer from the hub at {NOBODY}" in said and "provider" not in said
    # Whoever goes back by hand stands on the machine of the data plane, not in a project.
    said = nowhere.types(f"rollback {ENDPOINT} --local --reason x").must(USAGE).err
    assert "--run DIR" in said and "init" not in said


def test_the_wrong_folder_is_told_as_that(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = Project(tmp_path_factory.mktemp("nowhere"))
    assert "--project DIR" in nowhere.types("status").must(NOT_FOUND).err
    # Whoever checks a package of a hub has no project, and need not have one.
    said = nowhere.types(f"verify flight-delay@1.0.0 --hub {NOBODY}").must(USAGE).err
    assert "--trust FILE" in said


def test_an_answer_for_which_there_is_no_room_is_no_bug(worlds: Worlds, given: Given) -> None:
    given.version_one_is_live()
    with Path("/dev/full").open("w") as full:
        process = worlds.one.starts("status", out=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == UNAVAILABLE
    assert "has no room: No space left on device" in said and "code: bug" not in said


def test_a_grant_says_what_it_stands_beside_and_what_may_be_mistyped(worlds: Worlds, given: Given) -> None:
    given.version_one_is_live()
    project = worlds.one
    first = project.types("access grant sre@example.org operator --env prod", by="ann").must(0)
    assert "beside" not in first.err and "no endpoint" not in first.err
    second = project.types("access grant sre@example.org operator --env prdo --json", by="ann").must(0)
    assert [one["environments"] for one in second.json["beside"]] == [["prod"]]
    assert "there is no endpoint in prdo so far; did you mean 'prod'?" in second.err
    assert "beside operator over everything in prod: grants add up" in second.err


def test_a_process_that_resolves_ends_without_a_word_of_its_libraries() -> None:
    """Some list on standard error what the collector has not taken when a process ends."""
    program = "from lockgate.app.plugins import resolve; resolve('duckdb:connect')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")
