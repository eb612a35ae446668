"""What goes out with a package beside its signature, and what somebody who has no journal can hold it against."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
from in_toto_attestation.v1 import statement_pb2

from decided import COMMIT, Decided
from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.identity.keys import SigningKey
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.core.journal import verifier_key
from lockgate.delivery.messages import ReleaseInEmergency
from lockgate.governance.messages import (
    BreakGlass,
    CloseReview,
    DeclineVersion,
    RevokeApproval,
    SecondBreakGlass,
)
from lockgate.hub.kernel import require
from lockgate.hub.messages import Standing
from lockgate.registry.packages.package import BuiltPackage
from lockgate.registry.packages.signing import PAYLOAD_TYPE, seal, store_signature
from lockgate.workshop.transport.statements import (
    APPROVAL,
    EMERGENCY,
    EVIDENCE,
    PROOFS,
    PROVENANCE,
    SUMMARY,
    TEST_RESULT,
)
from tiny_project import TinyProject, tiny_project

V1, FULL = "flight-delay@1.0.0", "main/flight-delay@1.0.0"
ASKED = "--require provenance --require evidence --require approval:owner --require promotion --for prod"


class Done(NamedTuple):
    """A project with a version that is in production, and a layout of it."""

    project: TinyProject
    story: Decided
    package: Digest
    layout: Path

    @property
    def key(self) -> str:
        return verifier_key(self.story.control.note_keys[0])

    def exported(self, folder: Path) -> Path:
        self.project.types(f"package export {V1} {folder}").must(0)
        return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    root = tmp_path_factory.mktemp("decided")
    project = tiny_project(root / "project")
    story = Decided(project)
    package = story.decide()
    project.types(f"package export {V1} {root / 'layout'}").must(0)
    return Done(project, story, package, root / "layout")


def envelopes(layout: Path) -> dict[Digest, dict[str, Any]]:
    """The envelopes of a layout by the digests of their blobs."""
    found = {}
    for file in (layout / "blobs/sha256").iterdir():
        if file.read_bytes().startswith(b'{"payloadType"'):
            found["sha256:" + file.name] = json.loads(file.read_bytes())
    return found


def statements(layout: Path, kind: str) -> list[dict[str, Any]]:
    read = [json.loads(words_of(one)) for one in envelopes(layout).values()]
    return [one for one in read if one["predicateType"] == kind]


def words_of(envelope: dict[str, Any]) -> bytes:
    return base64.b64decode(envelope["payload"])


def put(layout: Path, package: Digest, statement: dict[str, Any], key: Any) -> Digest:
    """Lay one more attestation beside the package, signed by `key`."""
    out = DirectoryBlobs(layout)
    envelope = seal(canonical(statement), PAYLOAD_TYPE, key)
    built = BuiltPackage(digest=package, manifest=out.get(package), blobs={})
    stored = store_signature(built.descriptor, envelope, out, statement["predicateType"])
    out.tag(None, msgspec.to_builtins(stored.referrer))
    return stored.envelope


def test_everything_the_journal_knows_goes_out_and_holds_without_it(done: Done, tmp_path: Path) -> None:
    alone = TinyProject(tmp_path)
    line = f"verify {done.layout} --trust {done.project.root}/trust/signing.pub --journal-key {done.key}"
    found = alone.types(f"{line} {ASKED} --json").must(0).json
    assert {one["proved"] for one in found["attestations"]} == {"holds"}
    assert {one["journal"] for one in found["attestations"]} == {done.key}
    said = [(one["claim"]["kind"], one["claim"]["environment"]) for one in found["attestations"]]
    assert sorted(said) == [
        ("approval", "prod"),
        ("evidence", ""),
        ("evidence", "prod"),
        ("promotion", "dev"),
        ("promotion", "prod"),
        ("promotion", "staging"),
        ("provenance", ""),
    ]
    text = alone.types(line).must(0).out
    assert "approved for prod by bob in the name of owner" in text
    assert f"built from commit {COMMIT[:12]}" in text
    assert "in the journal of lockgate-journal+" in text


def test_without_the_key_of_the_journal_nothing_is_claimed_and_nothing_can_be_required(
    done: Done, tmp_path: Path
) -> None:
    alone = TinyProject(tmp_path)
    line = f"verify {done.layout} --trust {done.project.root}/trust/signing.pub"
    found = alone.types(f"{line} --json").must(0).json
    assert {(one["proved"], one["claim"]) for one in found["attestations"]} == {("unchecked", None)}
    assert "--journal-key" in alone.types(f"{line} --require approval --for prod").must(2).err
    line += f" --journal-key {done.key}"
    assert "--for ENV" in alone.types(f"{line} --require approval").must(2).err
    assert "transport.requirement-invalid" in alone.types(f"{line} --require blessing").must(2).err


@pytest.mark.parametrize(
    ("asked", "lacks"),
    [
        ("approval:risk --for prod", "approval:risk for prod"),
        ("approval --for staging", "approval for staging"),
        ("promotion --for moon", "promotion for moon"),
    ],
)
def test_what_is_required_and_not_there_is_refused_and_named(done: Done, asked: str, lacks: str) -> None:
    refused = done.project.types(f"verify {done.layout} --require {asked}").must(3)
    assert lacks in refused.err


def test_to_export_again_adds_nothing(done: Done, tmp_path: Path) -> None:
    folder = done.exported(tmp_path / "out")
    before = sorted(file.name for file in (folder / "blobs/sha256").iterdir())
    done.exported(folder)
    assert sorted(file.name for file in (folder / "blobs/sha256").iterdir()) == before


def test_a_statement_has_the_same_words_however_far_the_journal_has_grown(done: Done, tmp_path: Path) -> None:
    before = {sha256(canonical(one)) for kind in (APPROVAL, SUMMARY) for one in statements(done.layout, kind)}
    done.story.trained("another run altogether")
    again = done.exported(tmp_path / "later")
    assert before == {
        sha256(canonical(one)) for kind in (APPROVAL, SUMMARY) for one in statements(again, kind)
    }


def test_names_stay_at_home_when_they_are_left_out(done: Done, tmp_path: Path) -> None:
    kept = "--without approval --without promotion --without evidence"
    done.project.types(f"package export {V1} {tmp_path / 'out'} {kept}").must(0)
    words = [words_of(one) for one in envelopes(tmp_path / "out").values()]
    assert len(words) == 2
    for name in (b'\\"bob\\"', b'\\"olga\\"', b'\\"eve\\"'):
        assert not [one for one in words if name in one]
    assert [one for one in words if b'\\"ann\\"' in one]
    done.project.types(f"package export {V1} {tmp_path / 'bare'} --without all").must(0)
    assert len(envelopes(tmp_path / "bare")) == 1


# -- the forms of in-toto and SLSA


def test_statements_have_the_published_forms(done: Done) -> None:
    """The protos of the in-toto project; they take no field of another type, and pass over names they do not know."""
    forms: list[tuple[str, Callable[[], Any], int]] = [
        (PROVENANCE, provenance_pb2.Provenance, 1),
        (TEST_RESULT, test_result_pb2.TestResult, 2),
        (SUMMARY, vsa_pb2.VerificationSummary, 3),
    ]
    for kind, form, n in forms:
        found = statements(done.layout, kind)
        assert len(found) == n
        for one in found:
            json_format.ParseDict(one, statement_pb2.Statement())
            assert one["_type"] == "https://in-toto.io/Statement/v1"
            assert one["subject"] == [
                {"name": "main/flight-delay", "digest": {"sha256": done.package.removeprefix("sha256:")}}
            ]
            # That proto has a text where the specification of SLSA v1 has a list: it is checked below.
            predicate = {name: value for name, value in one["predicate"].items() if name != "verifiedLevels"}
            ours = {name for name in predicate if name.startswith("urn:lockgate:")}
            theirs = {name: value for name, value in predicate.items() if name not in ours}
            json_format.ParseDict(theirs, form())
            assert ours


def test_a_provenance_says_what_is_known_and_nothing_else(done: Done) -> None:
    """slsa.dev/spec/v1.0/provenance: buildType, externalParameters, builder.id are required; the rest is optional."""
    (one,) = statements(done.layout, PROVENANCE)
    definition, details = one["predicate"]["buildDefinition"], one["predicate"]["runDetails"]
    assert definition["externalParameters"] == {
        "model": "main/flight-delay",
        "source": {"digest": {"gitCommit": COMMIT}, "dirty": False},
    }
    names = [each["name"] for each in definition["resolvedDependencies"]]
    assert names == ["source", "main/flights", "code", "environment"]
    assert all(each["digest"] for each in definition["resolvedDependencies"])
    assert details["builder"]["id"] and details["metadata"]["invocationId"].startswith("sha256:")
    assert "startedOn" not in details["metadata"]


def test_a_test_result_names_the_gates_and_the_evidence_behind_them(done: Done) -> None:
    """in-toto.io/attestation/test-result/v0.1: result and configuration are required."""
    by_environment = {
        one["predicate"][EVIDENCE]["environment"]: one["predicate"]
        for one in statements(done.layout, TEST_RESULT)
    }
    alone = by_environment[""]
    assert (alone["result"], alone["passedTests"], alone["failedTests"]) == ("PASSED", ["perf.absolute"], [])
    (record,) = alone[EVIDENCE]["records"]
    assert done.project.blob_file(record["digest"]).exists()
    assert alone["configuration"][0]["digest"]
    assert by_environment["prod"]["passedTests"] == ["perf.vs_champion"]


def test_a_promotion_is_a_summary_of_what_it_was_decided_on(done: Done) -> None:
    """slsa.dev/spec/v1.0/verification_summary: verifier.id, timeVerified, resourceUri, policy.uri, verificationResult
    and verifiedLevels (a list; custom values must not begin with SLSA_) are required."""
    found = {one["predicate"]["resourceUri"]: one["predicate"] for one in statements(done.layout, SUMMARY)}
    prod = found["urn:lockgate:endpoint:prod/main/flight-delay"]
    assert (prod["verificationResult"], prod["verifiedLevels"]) == ("PASSED", ["LOCKGATE_PROMOTED"])
    assert prod["policy"]["uri"].endswith(prod["policy"]["digest"]["sha256"])
    assert prod["verifier"]["id"] == "urn:lockgate:journal:" + sha256(done.key.encode())
    inputs = {one["digest"]["sha256"] for one in prod["inputAttestations"]}
    rests_on = [*statements(done.layout, TEST_RESULT), *statements(done.layout, APPROVAL)]
    digests = {
        sha256(words_of(one)).removeprefix("sha256:")
        for one in envelopes(done.layout).values()
        if json.loads(words_of(one)) in rests_on
    }
    assert inputs == digests and len(digests) == 3


# -- what a person who pushes cannot do


def forged(done: Done, layout: Path, change: Callable[[dict[str, Any]], None]) -> Any:
    """Verify a layout with an approval in it that was changed, and signed anew by the project's own key."""
    (statement,) = statements(layout, APPROVAL)
    change(statement)
    name = put(layout, done.package, statement, done.story.control.signer())
    refused = done.project.types(f"verify {layout}").must(7)
    assert "transport.attestation-forged" in refused.err and name in refused.err
    return refused


def test_nobody_can_make_up_an_approval_with_the_key_of_the_project(done: Done, tmp_path: Path) -> None:
    def somebody_else(statement: dict[str, Any]) -> None:
        statement["predicate"]["by"] = "the chief risk officer"

    assert "something else than the entry" in forged(done, done.exported(tmp_path / "1"), somebody_else).err

    def in_the_entry_too(statement: dict[str, Any]) -> None:
        somebody_else(statement)
        entry = statement["predicate"][PROOFS]["entry"]
        entry["entry"] = entry["entry"].replace('"bob"', '"mallory"')

    assert "that the checkpoint signs" in forged(done, done.exported(tmp_path / "2"), in_the_entry_too).err


def test_an_approval_of_another_package_is_none_of_this_one(done: Done, tmp_path: Path) -> None:
    """The approval and its proof are real; only the subject is another one."""
    folder = done.exported(tmp_path / "out")
    (statement,) = statements(folder, APPROVAL)
    other = done.story.named("package", "never approved")
    out = DirectoryBlobs(tmp_path / "other")
    for digest in (other, *done.story.package_blobs("never approved")):
        out.put(done.story.blobs.get(digest))
    built = BuiltPackage(digest=other, manifest=out.get(other), blobs={})
    out.tag("it", msgspec.to_builtins(built.descriptor))
    signature = done.story.blobs.get(done.story.named("signature", "never approved"))
    out.tag(None, msgspec.to_builtins(store_signature(built.descriptor, signature, out).referrer))
    done.project.types(f"verify {tmp_path / 'other'}").must(0)
    statement["subject"][0]["digest"]["sha256"] = other.removeprefix("sha256:")
    put(tmp_path / "other", other, statement, done.story.control.signer())
    refused = done.project.types(f"verify {tmp_path / 'other'} --require approval --for prod").must(7)
    assert "its registration is not of package" in refused.err


def test_an_approval_that_only_a_stranger_has_signed_does_not_count(done: Done, tmp_path: Path) -> None:
    done.project.types(f"package export {V1} {tmp_path / 'out'} --without approval").must(0)
    (statement,) = statements(done.layout, APPROVAL)
    put(tmp_path / "out", done.package, statement, SigningKey.generate())
    assert "not trusted" in done.project.types(f"verify {tmp_path / 'out'}").must(0).out
    refused = done.project.types(f"verify {tmp_path / 'out'} --require approval --for prod").must(3)
    assert "attested.approval" in refused.err


def test_another_journal_proves_nothing_here(done: Done, tmp_path: Path) -> None:
    """The same package, registered by the same name elsewhere, and approved there by the same people."""
    project = tiny_project(tmp_path / "elsewhere")
    for path in (".lockgate/keys/signing.pem", "trust/signing.pub"):
        (project.root / path).parent.mkdir(parents=True, exist_ok=True)
        (project.root / path).unlink(missing_ok=True)
        (project.root / path).write_bytes((done.project.root / path).read_bytes())
    (project.root / ".lockgate/keys/signing.pem").chmod(0o600)
    elsewhere = Decided(project)
    assert elsewhere.decide() == done.package
    project.types(f"package export {V1} {tmp_path / 'out'}").must(0)
    found = done.project.types(f"verify {tmp_path / 'out'} --json").must(0).json
    assert {(one["proved"], one["claim"]) for one in found["attestations"]} == {("unknown-journal", None)}
    done.project.types(f"verify {tmp_path / 'out'} --require approval --for prod").must(3)
    both = f"--journal-key {done.key} --journal-key {verifier_key(elsewhere.control.note_keys[0])}"
    done.project.types(f"verify {tmp_path / 'out'} {both} --require approval --for prod").must(0)

    (statement,) = statements(tmp_path / "out", APPROVAL)
    for proof in statement["predicate"][PROOFS].values():
        proof["key"] = done.key
    put(tmp_path / "out", done.package, statement, done.story.control.signer())
    refused = done.project.types(f"verify {tmp_path / 'out'}").must(7)
    assert "no valid signature of this journal's key" in refused.err


# -- what was said and no longer holds


def test_an_approval_that_was_taken_back_does_not_count_once_that_was_pushed_too(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "project")
    story = Decided(project)
    story.decide()
    layout, asked = tmp_path / "out", "--require approval --for prod"
    project.types(f"package export {V1} {layout}").must(0)
    project.types(f"verify {layout} {asked}").must(0)
    story.must(
        "bob", RevokeApproval(id=story.new_id(), version=FULL, environment="prod", reason="read again")
    )
    project.types(f"verify {layout} {asked}").must(0)
    project.types(f"package export {V1} {layout}").must(0)
    assert "revoked for prod by bob" in project.types(f"verify {layout} {asked}").must(3).err

    require(story.approve(FULL, actor="carol"))
    story.control.checkpoint()
    project.types(f"package export {V1} {layout}").must(0)
    project.types(f"verify {layout} {asked}").must(0)
    bound = story.ask(Standing(version=FULL, environment="prod")).bound
    story.must(
        "carol",
        DeclineVersion(
            id=story.new_id(), version=FULL, environment="prod", evidence_set=bound, reason="no", role="risk"
        ),
    )
    project.types(f"package export {V1} {layout}").must(0)
    assert "declined for prod by carol" in project.types(f"verify {layout} {asked}").must(3).err


def test_what_went_by_break_glass_travels_as_that_and_is_no_approval(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "project")
    story = Decided(project)
    story.decide()
    two, full = "flight-delay@2.0.0", "main/flight-delay@2.0.0"
    story.trained("two")
    story.must("ann", story.registering("two", version="2.0.0"))
    story.must("eve", story.judging(full, story.named("package", "two")))
    require(story.validate(full))
    glass = {"model": "main/flight-delay", "environment": "prod"}
    breaking = BreakGlass(id="b", incident="INC-4", reason="wrong answers", hours=2.0, **glass)
    story.must("ivy", breaking)
    story.must("sam", SecondBreakGlass(id="s", number=1, **glass))
    story.must("ivy", ReleaseInEmergency(id="r", version=full, environment="prod", number=1))
    layout = tmp_path / "out"
    project.types(f"package export {two} {layout}").must(0)
    (said,) = statements(layout, EMERGENCY)
    assert said["predicate"]["right"]["name"] == "B-1"
    assert (said["predicate"]["ticket"], said["predicate"]["review"]) == ("INC-4", None)
    asked = (("approval:owner", 3), ("promotion", 3), ("evidence", 0))
    for kind, code in asked:
        refused = project.types(f"verify {layout} --require {kind} --for prod").must(code)
        if code == 3:
            assert (
                "it went to prod/flight-delay past the policy, by break-glass B-1 of ivy, with sam"
                in refused.err
            )
            assert "(incident INC-4: wrong answers); no review of it was told, due at" in refused.err
    assert "past the policy" not in project.types(f"verify {layout} --require approval --for dev").must(3).err
    assert "past the policy" in project.types(f"verify {layout}").must(0).out
    assert (
        "transport.requirement-invalid" in project.types(f"verify {layout} --require emergency").must(2).err
    )

    story.must("rita", CloseReview(id="c", number=1, finding="was needed", **glass))
    project.types(f"package export {two} {layout}").must(0)
    assert len(statements(layout, EMERGENCY)) == 2, "what was pushed once stays"
    refused = project.types(f"verify {layout} --require approval --for prod").must(3)
    assert "reviewed by rita at" in refused.err and "no review" not in refused.err
    project.types(f"package export {two} {tmp_path / 'quiet'} --without emergency").must(0)
    assert statements(tmp_path / "quiet", EMERGENCY) == []
