"""Packages through a real registry: Debian's docker-registry, which has no referrers API."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry import Registry, registry, write_login
from relays import breaking, counting

from decided import Decided
from lockgate.adapters.registries.oci import Held, OciRegistry
from lockgate.core.digests import sha256
from tiny_project import RUN, SBOM, TinyProject, flip, tiny_project

pytestmark = pytest.mark.service

# bcrypt of "only-for-tests", user "pusher".
HTPASSWD = "pusher:$2y$05$abcdefghijklmnopqrstuuDt8u8tY.Zm8YU.pieFNyF5h5afvnc0a\n"
REPOSITORY = "team/flight-delay"


@pytest.fixture(scope="module")
def server() -> Iterator[Registry]:
    with registry() as running:
        yield running


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    project = tiny_project(tmp_path_factory.mktemp("source") / "project")
    project.register(sbom=True)
    return project


@pytest.fixture
def elsewhere(tmp_path: Path, source: TinyProject) -> TinyProject:
    """Another project, which trusts the key of the first."""
    project = tiny_project(tmp_path / "elsewhere")
    project.trust(source)
    return project


def digest_of(project: TinyProject) -> str:
    found: str = project.types("package show flight-delay@1.0.0 --json").must(0).json["digest"]
    return found


def test_a_package_comes_back_with_its_digest_its_signature_and_what_is_attested(
    server: Registry, source: TinyProject, elsewhere: TinyProject
) -> None:
    at = f"{server.host}/{REPOSITORY}"
    first = source.types(f"push flight-delay@1.0.0 {at} --json").must(0).json
    assert (first["digest"], first["reference"]) == (digest_of(source), f"{at}:1.0.0")
    again = source.types(f"push flight-delay@1.0.0 {at} --json").must(0).json
    assert (again["n_sent"], again["n_there"]) == (0, first["n_sent"] + first["n_there"])

    pulled = elsewhere.types(f"pull {at}:1.0.0 --register --as ann --json").must(0).json
    assert (pulled["digest"], pulled["version"]) == (first["digest"], "main/flight-delay@1.0.0")
    explained = elsewhere.types("explain flight-delay@1.0.0 --json").must(0).json
    assert (explained["state"], explained["run"], explained["code"]["commit"]) == ("candidate", RUN, "c0ffee")
    assert [one["predicate_type"] for one in explained["attestations"]] == [SBOM]
    for ref in ("flight-delay@1.0.0", first["digest"], f"{at}@{first['digest']}"):
        found = elsewhere.types(f"verify {ref} --json").must(0).json
        assert (found["ok"], found["digest"]) == (True, first["digest"])
        assert [one["standing"] for one in found["attestations"]] == ["trusted"]


def test_the_tag_of_the_specification_lists_what_refers_to_the_package(
    server: Registry, source: TinyProject
) -> None:
    source.types(f"push flight-delay@1.0.0 {server.host}/team/listed:stable").must(0)
    digest = digest_of(source)
    with OciRegistry(server.host) as client:
        index = json.loads(client.pull_manifest("team/listed", digest.replace(":", "-")))
        kinds = {one["artifactType"] for one in index["manifests"]}
        assert kinds == {"application/vnd.dsse.envelope.v1+json"}
        assert len(index["manifests"]) == 2
        assert sha256(client.pull_manifest("team/listed", "stable")) == digest


def test_without_a_trusted_signature_nothing_comes_in(
    server: Registry, source: TinyProject, tmp_path: Path
) -> None:
    source.types(f"push flight-delay@1.0.0 {server.host}/team/stranger").must(0)
    stranger = tiny_project(tmp_path / "stranger")
    refused = stranger.types(f"pull {server.host}/team/stranger:1.0.0").must(7)
    assert "no such key is trusted here" in refused.err
    assert not [one for one in (stranger.root / ".lockgate/store/blobs/sha256").glob("*") if one.is_file()]
    key = source.root / "trust/signing.pub"
    stranger.types(f"verify {server.host}/team/stranger:1.0.0 --trust {key}").must(0)


def test_one_flipped_byte_in_the_registry_is_named_and_nothing_comes_in(
    server: Registry, source: TinyProject, elsewhere: TinyProject
) -> None:
    at = f"{server.host}/team/flipped"
    source.types(f"push flight-delay@1.0.0 {at}").must(0)
    layers = source.types("package show flight-delay@1.0.0 --json").must(0).json["layers"]
    victim = next(one["digest"] for one in layers if one["path"] == "golden.json")
    flip(server.blob_file(victim), 20)
    try:
        for line in (f"pull {at}:1.0.0", f"verify {at}:1.0.0"):
            refused = elsewhere.types(line).must(7)
            assert victim in refused.err
    finally:
        flip(server.blob_file(victim), 20)
    assert not elsewhere.blob_file(digest_of(source)).exists()


def test_a_login_is_asked_for_and_never_told(source: TinyProject, tmp_path: Path) -> None:
    with registry(HTPASSWD) as closed:
        at = f"{closed.host}/team/closed"
        no_login = {"DOCKER_CONFIG": str(tmp_path)}
        denied = source.types(f"push flight-delay@1.0.0 {at}", env=no_login).must(3)
        assert "registries.denied" in denied.err
        wrong = {**no_login, "LOGIN": "pusher:wrong-password"}
        denied = source.types(f"push flight-delay@1.0.0 {at} --login env:LOGIN", env=wrong).must(3)
        assert "wrong-password" not in denied.text
        right = {**no_login, "LOGIN": "pusher:only-for-tests"}
        source.types(f"push flight-delay@1.0.0 {at} --login env:LOGIN", env=right).must(0)
        write_login(tmp_path, closed.host, "pusher", "only-for-tests")
        source.types(f"verify {at}:1.0.0", env=no_login).must(0)


def test_what_the_journal_attests_goes_through_a_registry_that_knows_no_referrers(
    server: Registry, tmp_path: Path
) -> None:
    project = tiny_project(tmp_path / "decided")
    Decided(project).decide()
    at = f"{server.host}/team/attested"
    first = project.types(f"push flight-delay@1.0.0 {at} --json").must(0).json
    again = project.types(f"push flight-delay@1.0.0 {at} --json").must(0).json
    assert (first["n_signed"], again["n_signed"], again["n_sent"]) == (7, 0, 0)
    asked = "--require provenance --require evidence --require approval:owner --require promotion --for prod"
    found = project.types(f"verify {at}:1.0.0 {asked} --json").must(0).json
    assert {one["proved"] for one in found["attestations"]} == {"holds"}
    project.types(f"verify {at}:1.0.0 --require approval:risk --for prod").must(3)


def test_the_next_version_in_another_repository_takes_what_it_shares_from_there(
    server: Registry, tmp_path: Path
) -> None:
    project = tiny_project(tmp_path / "project")
    shared = os.urandom(3_000_000)
    one = project.register(include__data=shared)
    two = project.register(include__data=shared, include__more=b"the next one")
    with counting(server.host) as (way, sent):
        project.types(f"push {one.digest} {way}/mounted/dev --without all").must(0)
        assert sent[0] > len(shared)
        sent[0] = 0
        done = project.types(f"push {two.digest} {way}/mounted/prod --without all --json").must(0).json
        assert sent[0] < len(shared) / 20
        assert done["n_mounted"] > 1 and done["n_sent"] > 0
        project.types(f"verify {way}/mounted/prod@{two.digest}").must(0)

        # Nobody remembers; then it is said, or the bytes are sent.
        (project.root / ".lockgate/pushed.json").unlink()
        sent[0] = 0
        named = f"push {two.digest} {way}/mounted/named --without all --mount-from mounted/prod --json"
        assert project.types(named).must(0).json["n_sent"] == 0
        assert sent[0] < len(shared) / 20
        (project.root / ".lockgate/pushed.json").write_bytes(b"no JSON at all")
        project.types(f"push {two.digest} {way}/mounted/unknown --without all").must(0)
        assert sent[0] > len(shared)
        project.types(f"push {two.digest} {way}/other --without all --mount-from ../x").must(2)


def test_a_connection_that_breaks_costs_no_byte_up_or_down(server: Registry) -> None:
    """This registry forgets an upload that broke in the middle of a chunk, so that one begins anew; a registry that
    does not is in tests/contract/registries.
    """
    data = os.urandom(1024) * (40 * 1024)
    digest = sha256(data)
    with breaking(server.host, 25_000_000) as way, OciRegistry(way) as client:
        client.push_blob("team/large", digest, Held(data))
    with breaking(server.host, 25_000_000) as way, OciRegistry(way) as client:
        assert client.has_blob("team/large", digest)
        assert client.pull_blob("team/large", digest, len(data)) == data
