"""Story 4: the package is the whole boundary of the artifact: signed, deterministic, and named by its digest."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from operator_story import Given, Project, Then, When, Worlds, reasons, to_run

from command_line import REFUSED, WAITING

BOUNDARY = {
    "package.json",
    "model/model.onnx",
    "model/model.txt",
    "code.tar",
    "environment.lock",
    "golden.json",
    "include/evaluation/notes.md",
    "include/infra/serving.yaml",
    *(
        f"include/dossier/{name}.md"
        for name in (
            "fairness",
            "human_oversight",
            "intended_use",
            "limitations",
            "monitoring_plan",
            "risk_assessment",
        )
    ),
}


def test_two_folders_with_equal_sources_build_the_same_digest(worlds: Worlds, given: Given) -> None:
    one, twin = worlds.one, worlds.twin
    first, second = one.asks("explain flight-delay@1.0.0"), twin.asks("explain flight-delay@1.0.0")
    assert first["digest"] == second["digest"] == given.told("slow stage").json["package"]
    assert first["run"] == second["run"]
    # Other keys, other people, another moment: all of that is outside the package.
    assert first["signed_by"] != second["signed_by"]
    assert (first["author"], second["author"]) == ("ada", "linus")
    assert first["registered_at"] != second["registered_at"]


def test_the_exported_package_is_an_oci_layout_that_others_can_read_and_verify(
    given: Given, when: When, then: Then, tmp_path: Path
) -> None:
    project = given.version_one_is_live()
    when.somebody(f"package export prod/flight-delay {tmp_path / 'out'} --json")
    then.it_succeeds()
    layout = Layout(tmp_path / "out")
    assert json.loads((layout.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    manifests = {one["digest"]: one for one in layout.index["manifests"]}
    package, digest = layout.json(then.answer["digest"]), then.answer["digest"]
    assert (
        digest in manifests
        and digest == project.asks("status")["endpoints"]["prod/flight-delay"]["live"]["digest"]
    )
    assert package["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert package["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    titles = {one["annotations"]["org.opencontainers.image.title"]: one for one in package["layers"]}
    assert set(titles) | {"package.json"} == BOUNDARY
    for descriptor in [package["config"], *package["layers"]]:
        assert len(layout.blob(descriptor["digest"])) == descriptor["size"]

    # The signature is a referrer of the manifest, and a public key and a hash are all it takes to check it. The bill of
    # materials, and what the journal attests, are others, and say so.
    referrers = [layout.json(one) for one in manifests if one != digest]
    kinds = [one["annotations"]["in-toto.io/predicate-type"] for one in referrers if "annotations" in one]
    assert kinds.count("https://cyclonedx.org/bom") == kinds.count("https://slsa.dev/provenance/v1") == 1
    assert set(kinds) == {
        "https://cyclonedx.org/bom",
        "https://in-toto.io/attestation/test-result/v0.1",
        "https://slsa.dev/provenance/v1",
        "https://slsa.dev/verification_summary/v1",
        "urn:lockgate:attestation:approval:1",
    }
    (referrer,) = [one for one in referrers if "annotations" not in one]
    assert referrer["subject"]["digest"] == digest
    envelope = layout.json(referrer["layers"][0]["digest"])
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    public = serialization.load_pem_public_key((project.root / "trust/signing.pub").read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed, ec.ECDSA(hashes.SHA256()))
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert [subject["digest"]["sha256"] for subject in statement["subject"]] == [
        digest.removeprefix("sha256:")
    ]


class Layout:
    """An OCI image layout, read without Lockgate."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index: dict[str, Any] = json.loads((root / "index.json").read_text())

    def blob(self, digest: str) -> bytes:
        data = (self.root / "blobs" / digest.replace(":", "/")).read_bytes()
        assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
        return data

    def json(self, digest: str) -> Any:
        return json.loads(self.blob(digest))


def test_package_show_prints_the_whole_boundary(worlds: Worlds, given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    when.somebody("package show flight-delay@1.0.0")
    then.it_succeeds().it_says(
        "flight-delay@1.0.0", "sha256:", *BOUNDARY, "carrier (category)", "late (probability)"
    )
    shown = project.asks("package show flight-delay@1.0.0")
    layers = {one["path"]: one["digest"] for one in shown["layers"]}
    assert set(layers) == BOUNDARY
    for file in ("evaluation/notes.md", "infra/serving.yaml"):
        assert project.blob(layers[f"include/{file}"]) == (project.root / file).read_bytes()
    assert project.blob(layers["environment.lock"]) == (project.root / "requirements.lock").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(project.blob(layers["code.tar"]))) as code:
        packed = {member.name for member in code.getmembers()}
    assert {"flights/model.py", "flights/features.py", "contracts/flights.odcs.yaml"} <= packed
    assert not any(name.startswith((".lockgate", "tests/", "trust/")) for name in packed)
    # Known at build time and inside; known later, or to one machine only, and outside.
    config = shown["config"]
    assert config["model"] == "main/flight-delay" and config["params"]["rounds"] == 150
    assert {one["name"] for one in config["contract"]["inputs"]} >= {"carrier", "origin_delay"}
    assert set(config["snapshots"]) == {"flights", "weather", "planes"}
    assert set(config["views"]) == {"origin_departures", "last_leg"}
    assert not {"registered_at", "author", "host", "signatures"} & set(config)
    verified = project.asks("package verify prod/flight-delay")
    assert verified["ok"] is True and verified["layers"] == len(BOUNDARY)
    assert verified["signed_by"] == project.asks("explain prod/flight-delay")["signed_by"] != []


def test_a_changed_include_shows_in_plan_and_diff_and_trains_nothing(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    given.a_file("infra/serving.yaml", project.read("infra/serving.yaml") + "# two replicas since October\n")
    given.an_edit(
        "lockgate.toml", ('["infra/*.yaml", "evaluation/*"]', '["infra/*.yaml", "evaluation/*", "prompts/*"]')
    )
    given.a_file("prompts/apology.txt", "Your flight {flight} is expected to arrive late.\n")
    plan = project.asks("plan")
    assert to_run(plan) == {"package", "evidence"}
    assert "include/infra/serving.yaml changed" in reasons(plan)["package"]
    assert "include/prompts/apology.txt is new" in reasons(plan)["package"]
    when.ada("train --json")
    then.it_succeeds()
    name = then.answer["version"]
    assert set(then.answer["ran"]) == {"package", "evidence"} and name != "flight-delay@1.0.0"
    diff = project.asks(f"diff flight-delay@1.0.0 {name}")["differences"]
    changed = {(one["section"], one["name"]): one for one in diff}
    serving = changed["artifact", "include/infra/serving.yaml"]
    assert serving["before"] and serving["after"] and serving["before"] != serving["after"]
    assert changed["artifact", "include/prompts/apology.txt"]["before"] is None
    assert not {"data", "features", "code", "environment", "contract"} & {section for section, _ in changed}
    assert {path for section, path in changed if section == "artifact"} == {
        "include/infra/serving.yaml",
        "include/prompts/apology.txt",
    }
    assert project.blob(project.layers(name)["include/prompts/apology.txt"]).startswith(b"Your flight")
    # The same model bytes, in another package.
    assert (
        project.layers(name)["model/model.onnx"] == project.layers("flight-delay@1.0.0")["model/model.onnx"]
    )


def test_the_author_cannot_approve_and_the_cli_says_that_names_are_claimed(
    worlds: Worlds, given: Given
) -> None:
    project = worlds.one
    asked = given.told("ship without approval").must(WAITING)
    assert "governance.approval" in asked.err and "other than ada" in asked.err
    own = given.told("own approval").must(REFUSED)
    assert "ada cannot approve" in own.err and "limit not ada" in own.err
    given.told("approval").must(0)
    for name in ("own approval", "approval", "ship without approval"):
        assert "claimed, not proven" in given.told(name).err
    granted = [entry for entry in project.journal("governance.") if "approv" in entry["event"]["type"]]
    assert [entry["actor"] for entry in granted] == ["grace"]
    refused = [entry for entry in project.journal("hub.command-refused/") if entry["actor"] == "ada"]
    assert [entry["event"]["command"] for entry in refused] == ["governance.approve-version"]


def test_a_version_is_registered_as_candidate_and_validated_by_evidence(worlds: Worlds) -> None:
    events = [entry["event"]["type"].partition("/")[0] for entry in worlds.one.journal("")]
    registered, recorded, validated = (
        events.index(name)
        for name in ("registry.version-registered", "gates.evidence-recorded", "registry.version-validated")
    )
    assert registered < recorded < validated
    explained = worlds.one.asks("explain flight-delay@1.0.0")
    assert explained["state"] == "validated" and explained["tier"] == "moderate"


def test_evidence_is_as_old_as_the_run_of_the_gates_that_found_it(worlds: Worlds) -> None:
    """The step of a training measured it before there was a version; another run was made for an environment."""
    (registered, *_) = worlds.one.journal("registry.version-registered/")
    alone, *further = worlds.one.journal("gates.evidence-recorded/")
    assert alone["event"]["measured_at"] < registered["at"] < alone["at"]
    for one in further:
        assert registered["at"] < one["event"]["measured_at"] < one["at"]
    runs = [one["event"]["judging"] for one in (alone, *further)]
    assert all(runs) and len(set(runs)) == len(runs) > 1


def test_a_package_of_another_key_is_not_registered(
    given: Given, when: When, then: Then, worlds: Worlds
) -> None:
    """The signing key is replaced by a stranger's: the package is built, and nothing takes it in."""
    project = given.version_one_is_live()
    stranger: Project = worlds.twin
    key = project.dot / "keys" / "signing.pem"
    key.write_bytes((stranger.dot / "keys" / "signing.pem").read_bytes())
    given.a_file("evaluation/more.md", "More.\n")
    n_versions = len(project.journal("registry.version-registered/"))
    when.ada("train")
    then.it_ends_with(7).it_is_no_bug().it_says("trusted")
    assert len(project.journal("registry.version-registered/")) == n_versions
    then.the_audit_holds()

    key.chmod(0o644)
    when.ada("train")
    then.it_ends_with(REFUSED).it_is_no_bug().it_says("chmod 600", "signing.pem")
