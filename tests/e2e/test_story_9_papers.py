"""Story 9: what a version is made of, what reaches it, who depends on it: papers that nobody has to keep by hand."""

from __future__ import annotations

import json
import multiprocessing.util
import pickle
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import referencing
from operator_story import Given, Then, When, Worlds

from command_line import REFUSED

MARKER = "/tmp/lockgate-marker-of-a-test"


class Marker:
    """Pickles as a call that would leave a file behind."""

    def __reduce__(self) -> Any:
        spawn = getattr(multiprocessing.util, "spawnv_passfds")  # noqa: B009 - not in the stubs
        return spawn, (b"/bin/touch", [b"touch", MARKER.encode()], [])


def _schema(name: str) -> Any:
    folder = resources.files("cyclonedx.schema") / "_res"
    return json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text())


def test_every_version_has_a_bill_of_materials_that_others_can_read(worlds: Worlds) -> None:
    project = worlds.one
    bill = project.asks("package sbom flight-delay@1.0.0")
    known = referencing.Registry()
    for name in ("spdx", "jsf-0.82"):
        contents = _schema(name)
        known = known.with_resource(contents["$id"], referencing.Resource.from_contents(contents))
    jsonschema.Draft7Validator(_schema("bom-1.6"), registry=known).validate(bill)
    explained = project.asks("explain flight-delay@1.0.0")
    model = bill["metadata"]["component"]
    assert model["bom-ref"] == f"package:{explained['digest']}" and model["version"] == "1.0.0"
    parts = {part["bom-ref"]: part for part in bill["components"]}
    (lightgbm,) = [part for ref, part in parts.items() if ref.startswith("pkg:pypi/lightgbm@")]
    assert f"lightgbm=={lightgbm['version']}" in project.read("requirements.lock") and lightgbm["hashes"]
    snapshots = {part["version"] for part in parts.values() if part["type"] == "data"}
    assert {one["snapshot"] for one in explained["datasets"]} <= snapshots
    (attested,) = explained["attestations"]
    assert attested["predicate_type"] == "https://cyclonedx.org/bom" and attested["attached_by"] == "ada"
    # Another folder builds the same package, so it has the same bill; only its signature is another one.
    assert worlds.twin.asks("package sbom flight-delay@1.0.0") == bill


def test_the_dossier_tells_the_whole_way_and_is_the_same_bytes_each_time(worlds: Worlds) -> None:
    project = worlds.one
    text = project.types("dossier flight-delay@1.0.0 --profile eu-ai-act").must(0).out
    assert project.types("dossier flight-delay@1.0.0 --profile eu-ai-act").out == text
    for words in (
        "grace",
        "OPS-1",
        "passenger-app",
        "operations/flight-delay",
        "main/flights.dep_delay",
        "Annex IV 9",
    ):
        assert words in text
    document = project.asks("dossier flight-delay@1.0.0 --profile sr-11-7")
    assert document["missing"] == [] and document["reading"]["profile"] == "sr-11-7"
    written = [one for one in document["sections"] if one["origin"] == "written"]
    assert len(written) == 6
    for one in written:
        assert one["text"] == project.read(one["file"])


def test_a_column_leads_to_its_consumers_and_back(worlds: Worlds) -> None:
    project = worlds.one
    down = project.asks("lineage flights.dep_delay")
    assert {one["target"] for one in down["readers"]} == {
        "consumer:passenger-app", "consumer:gate-planning", "dashboard:operations/flight-delay"
    }  # fmt: skip
    up = project.asks("lineage prod/flight-delay")
    assert down["edges"][0] in up["edges"] and "column:main/flights.arr_delay" in {
        one["source"] for one in up["edges"]
    }
    impact = project.asks("impact flights.dep_delay")
    assert {one["endpoint"] for one in impact["lines"]} == {
        f"{env}/flight-delay" for env in ("dev", "staging", "prod")
    }
    assert impact["untraced"] == []
    assert project.asks("impact weather.temp")["lines"] == []


def test_a_pickle_in_an_included_file_is_refused_at_registration_and_never_runs(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    (project.root / "evaluation" / "rows.dat").write_bytes(pickle.dumps(Marker()))
    n_versions = len(project.journal("registry.version-registered/"))
    when.ada("train")
    then.it_ends_with(REFUSED).it_is_no_bug()
    then.it_says("security.format", "include/evaluation/rows.dat", "multiprocessing.util.spawnv_passfds")
    assert len(project.journal("registry.version-registered/")) == n_versions
    (refused,) = project.journal("hub.command-refused/")[-1:]
    assert refused["event"]["reasons"][0]["rule"] == "security.format"
    assert not Path(MARKER).exists()
    then.the_audit_holds()


def test_what_was_not_scanned_not_declared_or_not_written_refuses_the_version(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    text = project.read("contracts/flights.odcs.yaml")
    purpose = "- { property: lockgate.purpose, value: delay-prediction }"
    assert text.count(purpose) == 1
    project.write(
        "contracts/flights.odcs.yaml",
        text.replace(purpose, "- { property: lockgate.privacy, value: personal }"),
    )
    given.an_edit(
        "lockgate.toml",
        ('advisories = "security/advisories.json"', 'advisories = "security/nowhere.json"'),
        ('tier = "moderate"', 'tier = "high"'),
    )
    project.write("dossier/limitations.md", "# Known limitations\n\nTODO\n")
    when.ada("train --json")
    then.it_ends_with(REFUSED).it_is_no_bug()
    lines = {one["gate"]: one for one in project.asks("evidence flight-delay@1.1.0")}
    assert (
        lines["security.deps"]["verdict"] == "error"
        and "nowhere.json is not there" in lines["security.deps"]["summary"]
    )
    assert (
        lines["privacy.tags"]["verdict"] == "fail" and "flights.tailnum" in lines["privacy.tags"]["summary"]
    )
    assert (
        lines["dossier.complete"]["verdict"] == "fail"
        and "missing: limitations" in lines["dossier.complete"]["summary"]
    )
    assert lines["security.format"]["verdict"] == "pass"
    assert project.asks("explain flight-delay@1.1.0")["state"] == "candidate"
    assert project.asks("dossier flight-delay@1.1.0")["missing"] == ["limitations"]
    # What the owner wrote is no reason for a larger step; a contract that means something else is.
    changed = project.asks("diff flight-delay@1.0.0 flight-delay@1.1.0")
    assert ("artifact", "include/dossier/limitations.md") in {
        (one["section"], one["name"]) for one in changed["differences"]
    }
    assert "perf.absolute:auc" in changed["evidence"]["new"] and changed["libraries"] == []
