"""Who vouches for a package, from the command line: a flipped byte anywhere, keys rotated, revoked, kept elsewhere."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from lockgate.adapters.identity.keys import generate_key
from lockgate.app.control import Control
from lockgate.delivery.messages import PromoteVersion
from lockgate.hub.kernel import require
from lockgate.hub.messages import ExplainVersion, VersionAnswer
from lockgate.registry.packages.signing import CHUNK_BYTES
from tiny_project import MODEL, SBOM, TinyProject, flip, tiny_project

V1 = "flight-delay@1.0.0"

SIGNS = """\
import base64, sys
from lockgate.adapters.identity.keys import FileKey
key = FileKey(sys.argv[1])
if sys.argv[2] == "public-key":
    sys.stdout.buffer.write(key.public.pem())
else:
    sys.stdout.write(base64.b64encode(key.sign(sys.stdin.buffer.read())).decode())
"""


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return tiny_project(tmp_path / "project")


def test_one_flipped_byte_in_any_blob_is_refused_by_verify_and_by_promote_and_named(
    project: TinyProject,
) -> None:
    built = project.register()
    hub = (control := project.control()).hub("olga")
    for digest in (*built.blobs, built.digest, signature_of(control)):
        file = project.blob_file(digest)
        flip(file)
        try:
            assert digest in project.types(f"verify {V1}").must(7).err
            command = PromoteVersion(id=control.ids.new(), version=f"main/{V1}", environment="dev")
            refusal = hub.execute(command).refusal
            assert refusal is not None
            (reason,) = refusal.reasons
            assert digest in reason.message and reason.evidence == digest
        finally:
            flip(file)
    project.types(f"verify {V1}").must(0)


def signature_of(control: Control) -> str:
    version: VersionAnswer = control.hub("ann").ask(ExplainVersion(version=f"main/{V1}"))
    return version.version.signatures[0]


def test_every_shape_of_a_reference_is_looked_through(project: TinyProject, tmp_path: Path) -> None:
    built = project.register(sbom=True)
    folder = tmp_path / "layout"
    project.types(f"package export {V1} {folder}").must(0)
    for ref in (V1, built.digest, str(folder)):
        found = project.types(f"verify {ref} --json").must(0).json
        assert (found["digest"], found["model"]) == (built.digest, MODEL)
        assert [(one["predicate_type"], one["standing"]) for one in found["attestations"]] == [
            (SBOM, "trusted")
        ]
    key = project.root / "trust/signing.pub"
    # Outside of any project, with nothing but the public key.
    alone = TinyProject(tmp_path)
    assert alone.types(f"verify {folder} --trust {key} --json").must(0).json["digest"] == built.digest
    victim = next(iter(built.blobs))
    flip(folder / "blobs/sha256" / victim.removeprefix("sha256:"))
    assert victim in alone.types(f"verify {folder} --trust {key}").must(7).err


def test_a_large_layer_is_checked_in_parts_and_the_part_is_named(project: TinyProject) -> None:
    data = os.urandom(1024) * (CHUNK_BYTES // 1024) + b"and a little more"
    built = project.register(include__data=data)
    victim = next(digest for digest, blob in built.blobs.items() if len(blob) > CHUNK_BYTES)
    assert project.types(f"verify {V1} --json").must(0).json["n_chunks"] == 2
    flip(project.blob_file(victim), CHUNK_BYTES + 3)
    refused = project.types(f"verify {V1}").must(7)
    assert victim in refused.err
    assert f"bytes {CHUNK_BYTES} to {len(data)}" in refused.err


def test_a_key_is_rotated_and_the_old_one_revoked(project: TinyProject) -> None:
    project.register()
    first = project.types("key list --json").must(0).json["trusted"]
    assert {(row["environment"], row["signs"]) for row in first} == {
        ("dev", True),
        ("staging", True),
        ("prod", True),
    }
    old = first[0]["key_id"]
    made = project.types("key rotate --json").must(0).json
    project.types("key rotate").must(8)
    project.edit('trust = ["trust/signing.pub"]', f'trust = ["trust/signing.pub", "{made["file"]}"]')
    project.types("key rotate").must(0)
    signs = {
        row["key_id"] for row in project.types("key list --json").must(0).json["trusted"] if row["signs"]
    }
    assert signs == {made["key_id"]}
    assert oct((project.root / ".lockgate/keys/signing.pem").stat().st_mode)[-3:] == "600"

    project.types(f"key revoke {old} --reason stolen --as sam").must(0)
    refused = project.types(f"promote {V1} --to dev --as olga").must(3)
    assert "registry.key-revoked" in refused.err
    project.types(f"verify {V1}").must(7)
    project.types(f"package sign {V1} --as ann").must(0)
    project.types(f"promote {V1} --to dev --as olga").must(8)
    assert project.types(f"verify {V1} --json").must(0).json["signed_by"] == [made["key_id"]]
    assert "REVOKED" in project.types("key list").must(0).out
    project.types("audit verify").must(0)


def test_a_package_signed_by_the_old_key_cannot_be_registered_once_that_is_revoked(
    project: TinyProject,
) -> None:
    project.register()
    key_id = project.types("key list --json").must(0).json["trusted"][0]["key_id"]
    project.types(f"key revoke {key_id} --reason stolen --as sam").must(0)
    with pytest.raises(Exception, match="signed by revoked keys only"):
        project.register(include__data=b"another package")


def test_the_deployer_looks_again_just_before_a_package_is_brought_to_a_target(project: TinyProject) -> None:
    """Decided by a hub that reaches no target; carried out later, by one that finds the signature gone bad."""
    project.register()
    control = project.control()
    control.carry_out = lambda subject=None: False
    command = PromoteVersion(id=control.ids.new(), version=f"main/{V1}", environment="dev")
    assert require(control.hub("olga").execute(command)).effects == "pending"
    signature = signature_of(control)
    flip(project.blob_file(signature))
    # What is left is the plan of before, which waits for a data plane.
    assert not project.control().effects.carry_out()
    line = project.types("status dev/flight-delay --json").must(0).json["endpoints"]
    assert [(one["live"], one["rollout"]) for one in line.values()] == [(None, None)]
    (release,) = project.types(f"explain {V1} --json").must(0).json["releases"]
    assert release["state"] == "failed" and signature in release["detail"]
    seen = control.target.observe(f"dev/{MODEL}")
    assert seen.plan is None or seen.plan.packages == ()


def test_a_key_that_only_a_command_can_reach_signs(project: TinyProject, tmp_path: Path) -> None:
    hidden = generate_key(tmp_path / "hidden.pem")
    script = tmp_path / "sign.py"
    script.write_text(SIGNS)
    command = shlex.join([sys.executable, str(script), str(tmp_path / "hidden.pem")])
    project.edit('key = "file:.lockgate/keys/signing.pem"', f'key = "exec:{command}"')
    (project.root / "trust/signing.pub").write_bytes(hidden.public.pem())
    project.register()
    assert project.types(f"verify {V1} --json").must(0).json["signed_by"] == [hidden.key_id]
    project.types("doctor").must(0)
    other = generate_key(tmp_path / "other.pem")
    script.write_text(SIGNS.replace("key.public.pem()", f"{other.public.pem()!r}"))
    assert "identity.signer-wrong" in project.types(f"package sign {V1}").must(7).err
    script.write_text("import sys; sys.exit(3)")
    assert "identity.signer-failed" in project.types(f"package sign {V1}").must(6).err
