"""OpenLineage run events of a real training: of the shapes that the specification asks for, and true."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from open_lineage_client import rebuilt, without_empty
from open_lineage_shapes import RUN_EVENT
from operator_story import Worlds
from webhook_receiver import KEY, Receiver, receiving

from command_line import NOT_FOUND, OK

ASSETS = Path(__file__).parents[1] / "contract" / "imports" / "assets"
_FORMATS = jsonschema.FormatChecker(())


@_FORMATS.checks("uuid", raises=ValueError)
def _is_uuid(text: object) -> bool:
    return str(uuid.UUID(str(text))) == text


@_FORMATS.checks("date-time", raises=ValueError)
def _is_instant(text: object) -> bool:
    return datetime.fromisoformat(str(text)).tzinfo is not None


CHECK = jsonschema.Draft202012Validator(RUN_EVENT, format_checker=_FORMATS)


def check(told: Any) -> None:
    wrong = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in CHECK.iter_errors(told)]
    assert not wrong, "\n".join(wrong)


def test_the_check_finds_faults() -> None:
    jsonschema.Draft202012Validator.check_schema(RUN_EVENT)
    with pytest.raises(AssertionError, match="runId"):
        check({"eventTime": "2026-01-01T00:00:00Z", "run": {}, "job": {"namespace": "a", "name": "b"}})
    with pytest.raises(AssertionError, match="eventTime"):
        check({"eventTime": "yesterday"})


@pytest.fixture(scope="module")
def told(worlds: Worlds, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    project = worlds.one.copy(tmp_path_factory.mktemp("lineage") / "flights")
    project.types("materialize --until 2013-11-04T12:00Z").must(OK)
    lines = project.types("lineage flight-delay@1.0.0 --openlineage").must(OK).out.splitlines()
    return [json.loads(line) for line in lines]


def test_every_event_has_the_published_shape(told: list[dict[str, Any]]) -> None:
    assert told
    for one in told:
        check(one)


def test_the_client_of_openlineage_reads_every_event_and_writes_it_again(told: list[dict[str, Any]]) -> None:
    """Its classes are generated from the published schemas, versions of facets included."""
    for one in told:
        assert rebuilt(one) == without_empty(one)
    broken = {**told[0], "eventType": "ENDED"}
    with pytest.raises(ValueError, match="ENDED"):
        rebuilt(broken)
    foreign = {**told[0], "job": {**told[0]["job"], "owner": "nobody"}}
    with pytest.raises(TypeError, match="owner"):
        rebuilt(foreign)


def test_every_run_begins_and_ends_once(told: list[dict[str, Any]]) -> None:
    kinds: dict[str, list[str]] = {}
    for one in told:
        kinds.setdefault(one["run"]["runId"], []).append(one["eventType"])
    for found in kinds.values():
        assert found[:2] == ["START", "COMPLETE"]
        assert set(found[2:]) <= {"OTHER"}


def test_the_training_reads_snapshots_and_makes_a_model(worlds: Worlds, told: list[dict[str, Any]]) -> None:
    known = worlds.one.asks("explain flight-delay@1.0.0")
    (trained,) = [
        one
        for one in told
        if one["job"]["name"] == "main/flight-delay.train" and one["eventType"] == "COMPLETE"
    ]
    snapshots = {one["name"]: one["facets"]["version"]["datasetVersion"] for one in trained["inputs"]}
    assert snapshots == {f"main/{one['dataset']}": one["snapshot"] for one in known["datasets"]}
    assert all(one["facets"]["schema"]["fields"] for one in trained["inputs"])
    (model,) = trained["outputs"]
    assert model["facets"]["version"]["datasetVersion"] == known["digest"]
    fields = {field["name"]: field["type"] for field in model["facets"]["schema"]["fields"]}
    assert fields["late"] == "probability"
    # From which columns an input is made, as the package says; a guess by name is not told.
    origin = model["facets"]["columnLineage"]["fields"]["origin_delay"]["inputFields"]
    assert {"main/flights"} <= {one["name"] for one in origin}
    assert {one["transformations"][0]["type"] for one in origin} == {"DIRECT", "INDIRECT"}
    assert "distance" not in model["facets"]["columnLineage"]["fields"]
    (named,) = [one for one in told if one["eventType"] == "OTHER"]
    assert named["run"]["runId"] == trained["run"]["runId"]
    (identifier,) = named["outputs"][0]["facets"]["symlinks"]["identifiers"]
    assert identifier["name"] == "main/flight-delay@1.0.0"


def test_extractions_are_runs_of_their_own(told: list[dict[str, Any]]) -> None:
    ends = [
        one for one in told if one["job"]["name"] == "main/flights.extract" and one["eventType"] == "COMPLETE"
    ]
    assert ends
    assert all(one["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] > 0 for one in ends)


def test_features_brought_online_are_a_run_from_snapshots_to_views(
    worlds: Worlds, told: list[dict[str, Any]]
) -> None:
    known = worlds.one.asks("explain flight-delay@1.0.0")
    begun, ended = [one for one in told if one["job"]["name"] == "main/flight-delay.materialize"]
    assert (begun["eventType"], begun["outputs"], ended["eventType"]) == ("START", [], "COMPLETE")
    assert begun["run"] == ended["run"]
    assert {one["key"]: one["value"] for one in ended["run"]["facets"]["tags"]["tags"]} == {
        "until": "2013-11-04T12:00:00.000000Z"
    }
    (flights,) = ended["inputs"]
    snapshots = {one["dataset"]: one["snapshot"] for one in known["datasets"]}
    assert (flights["name"], flights["facets"]["version"]["datasetVersion"]) == (
        "main/flights",
        snapshots["flights"],
    )
    hashes = {f"main/{one['view']}@lmdb:.lockgate/online": one["hash"] for one in known["features"]}
    assert {one["name"]: one["facets"]["version"]["datasetVersion"] for one in ended["outputs"]} == hashes
    for one in ended["outputs"]:
        assert one["outputFacets"]["outputStatistics"]["rowCount"] > 0
        assert one["facets"]["schema"]["fields"]


def test_an_import_is_a_run_too(worlds: Worlds, tmp_path: Path) -> None:
    project = worlds.one.copy(tmp_path / "flights")
    project.types(f"import mlflow {ASSETS / 'lightgbm'} --model flight-delay", by="ada").must(OK)
    lines = project.types("lineage flight-delay@2.0.0 --openlineage").must(OK).out.splitlines()
    events = [json.loads(line) for line in lines]
    for one in events:
        check(one)
    assert [one["eventType"] for one in events] == ["START", "COMPLETE", "OTHER"]
    assert {one["job"]["name"] for one in events} == {"main/flight-delay.import"}
    assert events[0]["inputs"] == [{"namespace": "mlflow", "name": "folder:lightgbm"}]
    project.types("lineage flight-delay@9.0.0 --openlineage").must(NOT_FOUND)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def test_a_subscription_gets_the_same_events(
    worlds: Worlds, tmp_path: Path, receiver: Receiver, eventually: Any
) -> None:
    project = worlds.one.copy(tmp_path / "flights")
    project.write(".lockgate/keys/lineage", KEY)
    project.write(
        "lockgate.toml", project.read("lockgate.toml") + '\n[webhooks]\nnetworks = ["127.0.0.0/8"]\n'
    )
    project.types(
        f"webhook add lineage {receiver.url}/api/v1/lineage --secret file:.lockgate/keys/lineage --format openlineage"
    ).must(OK)
    project.types(f"import mlflow {ASSETS / 'lightgbm'} --model flight-delay", by="ada").must(OK)
    lines = project.types("lineage flight-delay@2.0.0 --openlineage").must(OK).out.splitlines()
    project.up()
    try:
        eventually(lambda: len(receiver.got) >= len(lines))
    finally:
        project.down()
    assert [one.event for one in receiver.got] == [json.loads(line) for line in lines]
    assert all(one.is_signed() and one.headers["content-type"] == "application/json" for one in receiver.got)
    assert len({one.headers["webhook-id"] for one in receiver.got}) == len(lines)
