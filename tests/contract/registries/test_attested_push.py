"""What is attested goes through a registry, with the referrers API and without it, and only once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_server import Oci, oci

from decided import Decided
from lockgate.governance.messages import RevokeApproval
from tiny_project import TinyProject, tiny_project

V1, AT = "flight-delay@1.0.0", "models/flight-delay"
ASKED = "--require provenance --require evidence --require approval --require promotion --for prod"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Decided:
    story = Decided(tiny_project(tmp_path_factory.mktemp("decided") / "project"))
    story.decide()
    return story


@pytest.fixture
def project(story: Decided) -> TinyProject:
    return TinyProject(story.control.layout.root)


@pytest.fixture(params=[True, False], ids=["referrers", "fallback-tag"])
def server(request: pytest.FixtureRequest) -> Iterator[Oci]:
    with oci() as server:
        server.referrers_api = request.param
        yield server


def test_what_is_attested_goes_along_and_is_signed_and_sent_once(server: Oci, project: TinyProject) -> None:
    first = project.types(f"push {V1} {server.host}/{AT} --json").must(0).json
    assert (first["n_referrers"], first["n_signed"]) == (8, 7)
    found = project.types(f"verify {server.host}/{AT}:1.0.0 {ASKED} --json").must(0).json
    assert sorted(one["claim"]["kind"] for one in found["attestations"]) == [
        "approval",
        *["evidence"] * 2,
        *["promotion"] * 3,
        "provenance",
    ]
    kept, server.seen[:] = (dict(server.blobs), dict(server.manifests)), []
    again = project.types(f"push {V1} {server.host}/{AT} --json").must(0).json
    assert (again["n_sent"], again["n_signed"], again["n_referrers"]) == (0, 0, 8)
    assert (server.blobs, server.manifests) == kept
    assert not [one for one in server.seen if one.startswith(("POST", "PATCH"))]


def test_what_was_decided_since_goes_along_the_next_time(server: Oci, tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "project")
    story = Decided(project)
    story.decide()
    project.types(f"push {V1} {server.host}/{AT}").must(0)
    command = RevokeApproval(id=story.new_id(), version=f"main/{V1}", environment="prod", reason="read again")
    story.must("bob", command)
    again = project.types(f"push {V1} {server.host}/{AT} --json").must(0).json
    assert again["n_signed"] == 1
    project.types(f"verify {server.host}/{AT}:1.0.0 --require promotion --for prod").must(0)
    project.types(f"verify {server.host}/{AT}:1.0.0 --require approval --for prod").must(3)


def test_what_is_left_out_is_not_there(server: Oci, project: TinyProject) -> None:
    done = project.types(f"push {V1} {server.host}/{AT} --without all --json").must(0).json
    assert (done["n_referrers"], done["n_signed"]) == (1, 0)
    project.types(f"verify {server.host}/{AT}:1.0.0 --require provenance").must(3)


def test_it_comes_in_elsewhere_and_claims_nothing_there(
    server: Oci, project: TinyProject, tmp_path: Path
) -> None:
    """Another project trusts the signer; who approved here has approved nothing there."""
    project.types(f"push {V1} {server.host}/{AT}").must(0)
    elsewhere = tiny_project(tmp_path / "elsewhere")
    elsewhere.trust(project)
    elsewhere.types(f"pull {server.host}/{AT}:1.0.0 --register --as ann").must(0)
    explained = elsewhere.types(f"explain {V1} --json").must(0).json
    assert (explained["state"], explained["approvals"]) == ("candidate", [])
    assert len(explained["attestations"]) == 7
    assert "whose key is not known here" in elsewhere.types(f"verify {V1}").must(0).out
    elsewhere.types(f"verify {V1} --require approval --for prod").must(3)
