"""Story 3: gates write evidence that a machine can read, and that names the bytes it is about."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from operator_story import FEATURES, WORSE, Given, Project, Then, When, Worlds

from command_line import OK, REFUSED

INTRINSIC = {
    *("data.contract", "perf.absolute", "calibration", "model.parity", "model.infra"),
    *("security.format", "security.deps", "privacy.tags", "dossier.complete"),
}
COMPARING = {"perf.vs_champion", "perf.slices"}
RELATIVE = {*COMPARING, "features.compat", "latency"}


def records(project: Project, version: str) -> list[dict[str, Any]]:
    """The evidence on a version, each as the record that its digest names."""
    found = []
    for line in project.asks(f"evidence {version}"):
        data = project.blob(line["digest"])
        assert "sha256:" + hashlib.sha256(data).hexdigest() == line["digest"]
        record = json.loads(data)
        assert (record["gate"], record["metric"], record["verdict"]) == (
            line["gate"],
            line["metric"],
            line["verdict"],
        )
        found.append(record)
    return found


def test_every_gate_of_the_tier_left_a_record_about_exactly_this_package(worlds: Worlds) -> None:
    project = worlds.one
    package = project.asks("explain prod/flight-delay")["digest"]
    found = records(project, "flight-delay@1.0.0")
    assert {record["gate"] for record in found} == INTRINSIC | RELATIVE
    for record in found:
        assert record["schema"] == "lockgate.evidence/1" and record["verdict"] == "pass"
        assert record["inputs"]["package"] == package
        assert record["value"] is not None or record["gate"] in COMPARING
        assert record["environment"] == ("prod" if record["gate"] in RELATIVE else None)
        assert record["n"] > 0 or record["gate"] in COMPARING


def test_contract_evidence_names_each_snapshot(worlds: Worlds) -> None:
    explained = worlds.one.asks("explain prod/flight-delay")
    found = [one for one in records(worlds.one, "flight-delay@1.0.0") if one["gate"] == "data.contract"]
    assert {one["slice"]["dataset"].removeprefix("main/"): one["inputs"]["snapshot"] for one in found} == {
        one["dataset"]: one["snapshot"] for one in explained["datasets"]
    }
    assert all(one["value"] == 0 and one["n"] > 1000 for one in found)


def test_the_absolute_gate_measures_with_its_uncertainty(worlds: Worlds) -> None:
    (auc,) = [one for one in records(worlds.one, "flight-delay@1.0.0") if one["gate"] == "perf.absolute"]
    assert auc["metric"] == "auc" and auc["threshold"] == 0.70 and auc["n"] > 50_000
    assert 0.71 < auc["ci"]["low"] < auc["value"] < auc["ci"]["high"] < 0.74
    # Not the number alone clears the floor: the lower end of its interval does.
    assert auc["ci"]["low"] >= auc["threshold"]


def test_parity_compares_both_forms_and_the_golden_rows(worlds: Worlds) -> None:
    found = records(worlds.one, "flight-delay@1.0.0")
    parity = {(one["slice"]["rows"], one["metric"]): one for one in found if one["gate"] == "model.parity"}
    assert {rows for rows, _ in parity} == {"evaluation", "probes"}
    for (_, metric), record in parity.items():
        assert record["baseline"]["ref"] == "lightgbm-text"
        assert record["value"] <= record["threshold"] == (1e-6 if metric == "max_abs_difference" else 0)
    # The odd rows are among the probes: per input a null and an unseen category, where it may have them.
    golden = json.loads(worlds.one.blob(worlds.one.layers("prod/flight-delay")["golden.json"]))
    (repeated,) = [one for one in found if one["gate"] == "model.infra"]
    assert repeated["n"] == len(golden["rows"]) == len(golden["predictions"]) >= 16
    assert any(row["origin_delay"] is None for row in golden["rows"])
    assert any(
        row["carrier"] not in (None, "UA", "AA", "DL", "B6") and len(row["carrier"]) > 2
        for row in golden["rows"]
    )


def test_the_champion_is_met_on_the_same_rows_in_pairs(worlds: Worlds) -> None:
    two = worlds.two
    (first,) = [one for one in records(two, "flight-delay@1.0.0") if one["gate"] == "perf.vs_champion"]
    assert first["verdict"] == "pass" and first["reason"] == "no_baseline"
    (paired,) = [one for one in records(two, "flight-delay@1.1.0") if one["gate"] == "perf.vs_champion"]
    assert paired["baseline"]["kind"] == "champion"
    assert paired["baseline"]["ref"] == "main/flight-delay@1.0.0"
    assert paired["baseline"]["digest"] == two.asks("explain flight-delay@1.0.0")["digest"]
    assert paired["ci"]["method"] == "delong_paired"
    assert paired["delta"] == pytest.approx(paired["value"] - paired["baseline"]["value"], abs=1e-9)
    assert paired["ci"]["low"] > 0 > paired["threshold"]
    # The champion did as well against the newcomer as it had done alone: it was asked with its own features.
    (alone,) = [one for one in records(two, "flight-delay@1.0.0") if one["gate"] == "perf.absolute"]
    assert paired["baseline"]["value"] == pytest.approx(alone["value"], abs=1e-9)


def test_its_probabilities_mean_what_they_say(worlds: Worlds) -> None:
    found = [one for one in records(worlds.two, "flight-delay@1.1.0") if one["gate"] == "calibration"]
    gap, lower, upper = found
    assert gap["metric"] == "gap" and 0 <= gap["value"] <= gap["ci"]["high"] < 0.02 < gap["threshold"] == 0.05
    assert [(one["slice"], one["threshold"]) for one in (lower, upper)] == [
        ({"limit": "lower"}, 0.8), ({"limit": "upper"}, 1.25)
    ]  # fmt: skip
    assert 1.1 < lower["ci"]["low"] < lower["value"] == upper["value"] < upper["ci"]["high"] < 1.25
    # The expected calibration error is told, not judged.
    assert any(line.startswith("expected calibration error 0.01") for line in gap["details"])
    # Fewer flights are late in autumn than in the months before: the first version says late too often, within limits.
    (first, *_) = [one for one in records(worlds.one, "flight-delay@1.0.0") if one["gate"] == "calibration"]
    assert 0.03 < first["value"] < first["ci"]["high"] < 0.05


def test_it_is_no_worse_for_any_carrier_or_airport_that_has_enough_rows(worlds: Worlds) -> None:
    project = worlds.two
    (first,) = [one for one in records(project, "flight-delay@1.0.0") if one["gate"] == "perf.slices"]
    assert first["reason"] == "no_baseline"
    *small, rest = [one for one in records(project, "flight-delay@1.1.0") if one["gate"] == "perf.slices"]
    # Five carriers have too few flights. Nothing is claimed about them, and they are not left out.
    assert {one["slice"]["carrier"] for one in small} == {"AS", "F9", "HA", "OO", "YV"}
    assert all((one["verdict"], one["reason"]) == ("warn", "insufficient_n") for one in small)
    assert rest["verdict"] == "pass" and rest["n"] == 14 and rest["slice"] == {"slices": "the rest"}
    named = {line.split()[0] for line in rest["details"]}
    assert {"origin=EWR", "origin=JFK", "origin=LGA", "carrier=UA"} <= named and len(named) == 14
    assert rest["baseline"]["ref"] == "main/flight-delay@1.0.0"


def test_its_features_are_defined_as_they_were_when_it_learned(given: Given, then: Then) -> None:
    project = given.version_one_is_live()
    (before,) = [one for one in records(project, "flight-delay@1.0.0") if one["gate"] == "features.compat"]
    assert (before["verdict"], before["value"], before["n"]) == ("pass", 0, 4)
    given.an_edit(FEATURES, WORSE)
    project.types("judge flight-delay@1.0.0 --for prod", by="ada").must(OK)
    (after,) = [one for one in records(project, "flight-delay@1.0.0") if one["gate"] == "features.compat"]
    assert (after["verdict"], after["value"]) == ("fail", 2)
    assert after["details"][0].startswith("origin_delay, origin_late_share: view origin_departures is ")
    then.version_is_live("1.0.0").the_audit_holds()


def test_latency_is_measured_in_the_serving_runtime(worlds: Worlds) -> None:
    found = [one for one in records(worlds.one, "flight-delay@1.0.0") if one["gate"] == "latency"]
    assert found and all(one["metric"].endswith("_us") for one in found)
    assert all(one["n"] >= 1000 and 0 < one["value"] < one["threshold"] == 5000 for one in found)
    assert all(one["ci"]["low"] <= one["value"] <= one["ci"]["high"] for one in found)


def test_a_gate_that_fails_keeps_the_version_a_candidate(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    # The floor is raised above what this model reaches, and a file of the artifact makes it another version.
    given.an_edit("lockgate.toml", ("minimum = 0.70", "minimum = 0.90"))
    given.a_file("evaluation/floor.md", "The floor was raised to 0.90.\n")
    when.ada("train --json")
    then.it_ends_with(REFUSED)
    assert then.answer["state"] == "candidate" and set(then.answer["ran"]) == {"package", "evidence"}
    (reason,) = then.answer["refusal"]["reasons"]
    assert reason["rule"].startswith("perf.absolute:auc")
    assert float(reason["measured"].split()[0]) < 0.75 and reason["limit"].startswith("0.9")
    assert json.loads(project.blob(reason["evidence"]))["verdict"] == "fail"
    name = then.answer["version"]
    assert project.asks(f"explain {name}")["state"] == "candidate"
    # The refusal is part of the record, and what failed cannot be approved away.
    assert [entry["event"]["command"] for entry in project.journal("hub.command-refused/")][-1:] == [
        "governance.validate-version"
    ]
    when.grace(f"approve {name} --for prod")
    then.it_ends_with(REFUSED)
    when.ada(f"promote {name} --to prod --ticket OPS-9 --json")
    then.it_is_refused_by("registry.state", "delivery.ladder")
    then.version_is_live("1.0.0").the_audit_holds()
