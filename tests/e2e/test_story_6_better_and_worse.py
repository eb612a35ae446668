"""Story 6: a better version takes over directly; a worse one is refused by a gate, with all reasons."""

from __future__ import annotations

import json

from operator_story import FEATURES, MORE_FEATURES, WORSE, Given, Then, When, Worlds, reasons, to_run


def test_the_plan_of_the_better_version_names_what_is_new(worlds: Worlds, given: Given) -> None:
    assert worlds.two.root.is_dir()
    plan = given.told("plan of the better").json
    new_views = {f"view.{name.partition(':')[0]}" for name in MORE_FEATURES}
    assert to_run(plan) == new_views | {
        "model_contract", "training_set", "evaluation_set", "train", "package", "evidence"
    }  # fmt: skip
    assert reasons(plan)["model_contract"] == "service flight_delay changed"


def test_a_better_version_becomes_live(worlds: Worlds, given: Given, then: Then) -> None:
    project = worlds.two
    shipped = given.told("release the better").must(0)
    assert "flight-delay@1.1.0 is live on dev, staging, prod" in shipped.out
    # More inputs, all of which may be missing: callers of 1.0.0 are still understood, so it is no major version.
    explained = project.asks("explain flight-delay@1.1.0")
    assert explained["version"] == "flight-delay@1.1.0" and explained["state"] == "validated"
    for line in project.asks("status")["endpoints"].values():
        assert line["live"]["version"] == "flight-delay@1.1.0"
        assert line["previous"]["version"] == "flight-delay@1.0.0"
        assert line["rollout"] is None
    (against,) = [one for one in explained["evidence"] if one["gate"] == "perf.vs_champion"]
    assert against["verdict"] == "pass" and against["value"].startswith("+0.0")
    assert [(one["environment"], one["approver"]) for one in explained["approvals"]] == [("prod", "grace")]
    releases = {one["endpoint"]: one for one in explained["releases"]}
    assert {one["state"] for one in releases.values()} == {"live"}
    assert releases["prod/main/flight-delay"]["ticket"] == "OPS-2"


def test_a_worse_version_is_refused_with_all_reasons(given: Given, when: When, then: Then) -> None:
    project = given.version_two_is_live()
    known = given.all_is_up()
    given.an_edit(FEATURES, WORSE)
    assert to_run(project.asks("plan")) == {
        "view.origin_departures", "training_set", "evaluation_set", "train", "package", "evidence"
    }  # fmt: skip
    when.ada("ship --to prod --ticket OPS-3 --json")
    then.it_is_refused_by("perf.vs_champion:auc", "governance.approval")
    refusal = then.answer["refusal"]
    assert refusal["waiting"] is False
    by_rule = {reason["rule"].partition(":")[0]: reason for reason in refusal["reasons"]}
    champion = by_rule["perf.vs_champion"]
    assert champion["measured"].startswith("-0.0") and float(champion["limit"]) == -0.005
    evidence = json.loads(project.blob(champion["evidence"]))
    assert evidence["verdict"] == "fail" and evidence["baseline"]["ref"] == "main/flight-delay@1.1.0"
    # Good enough by itself: only beside what runs does it show that it is worse.
    (alone,) = [one for one in project.asks("evidence flight-delay@1.2.0") if one["gate"] == "perf.absolute"]
    assert alone["verdict"] == "pass"

    # A refusal is final for these bytes: no approval, no other ticket, no second try gets them in.
    when.grace("approve flight-delay@1.2.0 --for prod --json")
    when.ada("promote flight-delay@1.2.0 --to prod --ticket OPS-4 --json")
    then.it_is_refused_by("perf.vs_champion:auc")
    then.version_is_live("1.1.0", "prod").version_is_live("1.2.0", "dev", "staging").the_audit_holds()
    assert project.predict(FLIGHT_NOW).body["version"] == "1.1.0" and known["plane_pid"] > 0

    # What changed can be told afterwards, down to the view.
    diff = project.asks("diff flight-delay@1.1.0 flight-delay@1.2.0")
    changed = {(one["section"], one["name"]) for one in diff["differences"]}
    assert ("features", "views.origin_departures") in changed
    assert not {"data", "contract", "params", "environment"} & {section for section, _ in changed}


FLIGHT_NOW = {
    "carrier": "DL",
    "origin": "LGA",
    "scheduled_minute": 540,
    "weekday": 2,
    "scheduled_duration": 150,
    "distance": 760,
}
