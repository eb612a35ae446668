"""Story 1: sources become snapshots that hold their contracts; a broken contract stops everything after it."""

from __future__ import annotations

import json

from operator_story import SOURCES, Given, Then, When

from command_line import USAGE

RENAMED = (
    ("engines, seats\n", "engines, seats AS seat_count\n"),
    ('("seats", pa.int32())', '("seat_count", pa.int32())'),
)
# The broken sensor that the project's source leaves out: 1,048 miles per hour.
IMPOSSIBLE = ("CASE WHEN wind_speed <= 200 THEN wind_speed END AS wind_speed", "wind_speed")
LATER_STEPS = ("examples", "view.", "training_set", "train", "package", "evidence")


def test_snapshots_are_named_by_content_and_journaled_with_their_origin(given: Given, when: When) -> None:
    project = given.version_one_is_live()
    taken = {entry["event"]["dataset"]: entry for entry in project.journal("data.snapshot-taken/")}
    assert set(taken) == {"main/flights", "main/weather", "main/planes"}
    for dataset, entry in taken.items():
        event, name = entry["event"], dataset.removeprefix("main/")
        assert event["source"] == f"flights.sources:{name}"
        assert event["transformation"].startswith("sha256:")
        assert event["storage"] == f"blobs:{event['snapshot']}"
        assert 0 < event["extracted_at"] <= entry["at"]
        manifest = json.loads(project.blob(event["snapshot"]))
        assert manifest["dataset"] == dataset
        assert sum(file["n_rows"] for file in manifest["files"]) == event["n_rows"]
        for file in manifest["files"]:
            assert len(project.blob(file["digest"])) == file["n_bytes"]
        # When and from where it was extracted is journaled, and is no part of what it is called.
        assert not {"extracted_at", "source", "storage"} & set(manifest)
    assert {entry["event"]["dataset"] for entry in project.journal("data.contract-kept/")} == set(taken)


def test_extracting_the_same_bytes_again_gives_the_same_ids(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    before = {
        line["dataset"]: line["snapshot"] for line in project.asks("explain flight-delay@1.0.0")["datasets"]
    }
    n_before = len(project.journal())
    when.ada("snapshot --refresh --json")
    then.it_succeeds().it_says("ran     flights ", "ran     weather ", "ran     planes ")
    assert {one["dataset"].removeprefix("main/"): one["snapshot"] for one in then.answer} == before
    # Nothing is new, so nothing was journaled.
    assert len(project.journal()) == n_before


def test_a_renamed_column_stops_the_run_and_is_named_with_its_near_match(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    given.an_edit(SOURCES, *RENAMED)
    n_runs = len(project.journal("pipeline."))
    when.ada("ship --to prod --ticket OPS-9")
    then.it_ends_with(USAGE).it_is_no_bug()
    then.it_says("main/planes", "seats", "seat_count", "missing", "data.contract-violated")
    nothing_later_ran(then)
    (broken,) = project.journal("data.contract-broken/")
    assert broken["event"]["dataset"] == "main/planes"
    assert "seats" in broken["event"]["violations"][0] and broken["actor"] == "ada"
    assert len(project.journal("pipeline.")) == n_runs
    then.the_audit_holds()


def test_an_impossible_value_stops_the_run_and_shows_example_rows(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    sound = project.read(SOURCES)
    given.an_edit(SOURCES, IMPOSSIBLE)
    when.ada("ship --to prod --ticket OPS-9")
    then.it_ends_with(USAGE).it_is_no_bug()
    then.it_says("main/weather.wind_speed", "maximum", "200", "example row", "EWR", "1048")
    nothing_later_ran(then)
    (broken,) = project.journal("data.contract-broken/")
    assert broken["event"]["dataset"] == "main/weather"

    # A program gets the same as data: which rule, how many rows, which rows.
    when.ada("contract check --json")
    then.it_ends_with(USAGE)
    error = then.answer["error"]
    assert error["code"] == "data.contract-violated" and error["facts"]["datasets"] == ["main/weather"]
    (violation,) = error["facts"]["violations"]
    assert violation["dataset"] == "main/weather" and violation["column"] == "wind_speed"
    assert violation["n_rows"] == 1 and "maximum" in violation["rule"]
    (row,) = violation["examples"]
    assert row["origin"] == "EWR" and row["wind_speed"] > 1000
    # What is live is not touched by data that came later.
    then.version_is_live("1.0.0").the_audit_holds()

    given.a_file(SOURCES, sound)
    when.ada("contract check --json")
    then.it_succeeds()
    assert {report["dataset"]: report["violations"] for report in then.answer} == {
        "main/flights": [],
        "main/weather": [],
        "main/planes": [],
    }


def test_two_broken_datasets_are_told_together(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    given.an_edit(SOURCES, *RENAMED, IMPOSSIBLE)
    when.ada("check")
    then.it_ends_with(USAGE).it_is_no_bug().it_says(
        "2 datasets break their contracts", "main/planes", "main/weather.wind_speed"
    )
    assert {entry["event"]["dataset"] for entry in project.journal("data.contract-broken/")} == {
        "main/planes",
        "main/weather",
    }


def nothing_later_ran(then: Then) -> None:
    for step in LATER_STEPS:
        then.it_never_says(f"ran     {step}", f"cached  {step}")
