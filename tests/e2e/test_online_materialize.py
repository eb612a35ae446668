"""`lockgate materialize`: features by entity key in the project's online store, from its snapshots."""

from __future__ import annotations

import json
from typing import Any

from operator_story import FEATURES, SOURCES, Given, Project, Then, When

from command_line import NOT_FOUND, UNAVAILABLE, USAGE
from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.core.clock import parse_iso

MOMENT = "2013-11-04T12:00Z"
IMPOSSIBLE = ("CASE WHEN wind_speed <= 200 THEN wind_speed END AS wind_speed", "wind_speed")


def materialized(project: Project) -> list[dict[str, Any]]:
    lines = project.asks("audit log")["changes"]
    return [one for one in lines if one["type"] == "features.views-materialized/1"]


def test_views_are_pushed_from_snapshots_and_only_once(given: Given, when: When, then: Then) -> None:
    project = given.a_new_project()
    plan = project.asks("plan")
    when.ada(f"materialize --until {MOMENT} --json")
    then.it_succeeds().it_says("ran     flights ")
    views = {one["view"]: one for one in then.answer["views"]}
    assert set(views) == {"origin_departures", "last_leg"}
    assert all(one["n_rows"] > one["n_keys"] == one["n_new"] > 0 for one in views.values())
    assert all(parse_iso(one["newest_at"]) <= parse_iso(MOMENT) for one in views.values())
    hashes = {one["view"]: one["hash"] for one in project.asks("features")["views"]}
    assert {name: one["hash"] for name, one in views.items()} == hashes

    with LmdbOnline(project.dot / "online", readonly=True) as store:
        assert store.views() == set(hashes.values())
        found = store.read(hashes["origin_departures"], [("EWR",), ("JFK",), ("LAX",)])
    assert found[2] is None
    for row in found[:2]:
        assert row is not None and row.event_at == row.available_at <= parse_iso(MOMENT)
        assert [type(value) for value in row.values] == [float, float]

    # Again: nothing is taken, computed or stored anew. Later: only what is news.
    told = materialized(project)
    when.ada(f"materialize --until {MOMENT} --json")
    then.it_succeeds().it_never_says("ran ")
    assert {one["n_new"] for one in then.answer["views"]} == {0}
    assert len(told) == 1 and materialized(project) == told
    assert all(name in told[0]["summary"] and MOMENT[:16] in told[0]["summary"] for name in views)
    assert told[0]["actor"] == "ada"
    when.ada("materialize --view origin_departures --until 2013-11-04T13:00Z")
    then.it_succeeds().it_says("origin_departures", "3 new of 3 keys").it_never_says("last_leg")
    when.ada("materialize")
    then.it_succeeds().it_says("rows to 2014-01-01")

    # Work on the side: what `plan` says of training is as before.
    assert project.asks("plan") == plan


def test_a_source_that_changed_is_not_read_before_it_is_asked_for(
    given: Given, when: When, then: Then
) -> None:
    project = given.a_copy(given.twin)
    given.an_edit(
        SOURCES, ("ORDER BY scheduled_departure_at", "WHERE year < 0 ORDER BY scheduled_departure_at")
    )
    when.ada("materialize --json")
    then.it_succeeds().it_never_says("ran ")
    assert all(one["n_keys"] for one in then.answer["views"])
    # What the package says of its views is what was pushed.
    online = project.asks("package show flight-delay@1.0.0")["config"]["online"]
    assert {one["name"]: one["view"] for one in online} == {
        one["view"]: one["hash"] for one in then.answer["views"]
    }
    assert {one["name"]: one["keys"] for one in online} == {
        "last_leg": [{"name": "tailnum", "dtype": "string"}],
        "origin_departures": [{"name": "origin", "dtype": "string"}],
    }


def test_explain_and_lineage_know_how_far_features_reach_online(given: Given, when: When, then: Then) -> None:
    project = given.a_copy(given.twin)
    assert all(one["online"] == [] for one in project.asks("explain flight-delay@1.0.0")["features"])
    when.ada(f"materialize --until {MOMENT} --json")
    then.it_succeeds()
    explained = project.asks("explain flight-delay@1.0.0")
    snapshots = {one["dataset"]: one["snapshot"] for one in explained["datasets"]}
    for one in explained["features"]:
        (online,) = one["online"]
        assert online["until"] == parse_iso(MOMENT)
        assert online["store"] == "lmdb:.lockgate/online"
        assert online["online"]["snapshots"] == {"main/flights": snapshots["flights"]}
    when.ada("explain flight-delay@1.0.0")
    then.it_says("last_leg", "in lmdb:.lockgate/online to 2013-11-04 12:00:00Z")
    reached = {one["target"] for one in project.asks(f"lineage snapshot:{snapshots['flights']}")["readers"]}
    assert any(one.startswith("online:main/last_leg@") for one in reached)
    assert any(one.startswith("feature:main/last_leg:aircraft_delay@") for one in reached)
    when.ada("audit verify")
    then.it_succeeds()


def test_a_key_that_left_the_data_goes_when_it_is_brought_anew(given: Given, when: When, then: Then) -> None:
    project = given.a_copy(given.twin)
    when.ada(f"materialize --until {MOMENT} --json")
    (legs,) = [one for one in then.answer["views"] if one["view"] == "last_leg"]
    with LmdbOnline(project.dot / "online") as store:
        (row,) = store.read(legs["hash"], [("N14228",)])
        assert row is not None
        store.write(legs["hash"], [(("who asked to be forgotten",), row)])
    when.ada(f"materialize --until {MOMENT}")
    then.it_succeeds()
    gone = [("who asked to be forgotten",), ("N14228",)]
    with LmdbOnline(project.dot / "online", readonly=True) as store:
        assert store.read(legs["hash"], gone) == [row, row]
    when.ada(f"materialize --until {MOMENT} --anew --json")
    assert all(one["n_new"] == one["n_keys"] > 0 for one in then.it_succeeds().answer["views"])
    with LmdbOnline(project.dot / "online", readonly=True) as store:
        assert store.read(legs["hash"], gone) == [None, row]


def test_another_definition_lies_beside_the_one_that_was_packaged(
    given: Given, when: When, then: Then
) -> None:
    project = given.a_copy(given.twin)
    when.ada(f"materialize --until {MOMENT} --json")
    before = {one["view"]: one["hash"] for one in then.answer["views"]}
    given.an_edit(FEATURES, ("ttl_s=16 * HOUR_S", "ttl_s=12 * HOUR_S"))
    when.ada(f"materialize --until {MOMENT} --json")
    after = {one["view"]: one["hash"] for one in then.it_succeeds().answer["views"]}
    assert after["last_leg"] != before["last_leg"]
    assert after["origin_departures"] == before["origin_departures"]
    with LmdbOnline(project.dot / "online", readonly=True) as store:
        assert store.views() == {*before.values(), *after.values()}


def test_a_snapshot_that_breaks_its_contract_is_not_served(given: Given, when: When, then: Then) -> None:
    project = given.a_new_project()
    last = '        "last_leg:aircraft_in_air",\n'
    given.an_edit(FEATURES, (last, last + '        "observed_weather:wind_speed",\n'))
    given.an_edit(SOURCES, IMPOSSIBLE)
    when.ada("materialize")
    then.it_ends_with(USAGE).it_is_no_bug().it_says("data.contract-violated", "weather", "nothing was pushed")
    assert not (project.dot / "online").exists()


def test_mistakes_are_told_before_anything_is_done(given: Given, when: When, then: Then) -> None:
    project = given.a_new_project()
    when.ada("materialize --view last_legs")
    then.it_ends_with(USAGE).it_is_no_bug().it_says("last_legs", "did you mean 'last_leg'")
    when.ada("materialize --view airframe")
    then.it_ends_with(USAGE).it_is_no_bug().it_says("takes nothing from a view 'airframe'")
    for text in ("yesterday", "2013-11-04T12:00", "9999-01-01T00:00Z"):
        when.ada(f"materialize --until {text}")
        then.it_ends_with(USAGE).it_is_no_bug().it_says("cli.bad-instant")
    when.ada("materialize flight-delays")
    then.it_ends_with(NOT_FOUND).it_is_no_bug().it_says("'flight-delay'")
    when.ada("materialize --hub http://127.0.0.1:1 --json")
    then.it_ends_with(UNAVAILABLE).it_is_no_bug().it_never_says("ran ")
    assert json.loads(when.typed.out)["error"]["code"] == "hub.unreachable"
    assert not (project.dot / "online").exists()
