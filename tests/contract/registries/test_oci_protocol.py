"""The OCI distribution protocol against a registry of 1.1 that can be told to misbehave.

`tests/services/test_oci_registry.py` speaks to a real one of 1.0.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_server import Oci, certificate, elsewhere, oci

from lockgate.adapters.identity.keys import SigningKey
from lockgate.adapters.registries.oci import (
    BytesDiffer,
    Held,
    Login,
    NotInRegistry,
    OciReference,
    OciRegistry,
    ReferenceInvalid,
    RegistryDenied,
    RegistryRefused,
    RegistryUnreachable,
)
from lockgate.core.digests import BadDigest, sha256
from lockgate.registry.packages.package import BuiltPackage
from lockgate.registry.packages.signing import signature_envelope, signature_referrer
from lockgate.testing.packages import tiny_package

REPOSITORY = "team/model"
LARGE = b"".join(number.to_bytes(4, "big") for number in range(5 * 1024 * 1024))
KEY = SigningKey.generate()


@pytest.fixture
def server() -> Iterator[Oci]:
    with oci() as running:
        yield running


@pytest.fixture
def client(server: Oci) -> Iterator[OciRegistry]:
    with OciRegistry(server.host) as registry:
        yield registry


def referrer(package: BuiltPackage) -> BuiltPackage:
    return signature_referrer(package.descriptor, signature_envelope(package.digest, KEY, model="m"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("registry.example.com/team/model", ("registry.example.com", "team/model", None, None)),
        ("localhost:5000/m:1.0.0", ("localhost:5000", "m", "1.0.0", None)),
        ("[::1]:5000/m", ("[::1]:5000", "m", None, None)),
        (f"a.b/c/d@{sha256(b'x')}", ("a.b", "c/d", None, sha256(b"x"))),
        (f"a.b/c:t@{sha256(b'x')}", ("a.b", "c", "t", sha256(b"x"))),
    ],
)
def test_a_reference_is_read(text: str, parts: tuple[str | None, ...]) -> None:
    assert tuple(OciReference.parse(text)) == parts
    assert str(OciReference.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "prod/flight-delay",
        "flight-delay@1.0.0",
        "model",
        "a.b/",
        "a.b/C",
        "a.b/c:",
        "a.b/../c",
        "u:p@a.b/c",
        "",
    ],
)
def test_what_is_no_reference_is_not_guessed_at(text: str) -> None:
    assert not OciReference.fits(text)
    with pytest.raises((ReferenceInvalid, BadDigest)):
        OciReference.parse(text)


@pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "chunks"])
def test_a_blob_goes_and_comes_back(client: OciRegistry, data: bytes) -> None:
    digest = sha256(data)
    assert not client.has_blob(REPOSITORY, digest)
    client.push_blob(REPOSITORY, digest, Held(data))
    assert client.has_blob(REPOSITORY, digest)
    assert client.pull_blob(REPOSITORY, digest, len(data)) == data


@pytest.mark.parametrize("after", [0, 2, 3_000_000])
def test_an_upload_goes_on_where_it_broke(server: Oci, client: OciRegistry, after: int) -> None:
    server.breaks_at = after
    client.push_blob(REPOSITORY, sha256(LARGE), Held(LARGE))
    assert server.blobs == {sha256(LARGE): LARGE}
    assert [line for line in server.seen if line.startswith("POST")] == [
        f"POST /v2/{REPOSITORY}/blobs/uploads/"
    ]


@pytest.mark.parametrize("after", [0, 2, 3_000_000])
def test_a_download_goes_on_where_it_broke(server: Oci, client: OciRegistry, after: int) -> None:
    server.blobs[sha256(LARGE)] = LARGE
    server.breaks_at = after
    assert client.pull_blob(REPOSITORY, sha256(LARGE), len(LARGE)) == LARGE
    assert server.breaks_at is None


def test_other_bytes_than_asked_for_are_never_handed_on(server: Oci, client: OciRegistry) -> None:
    digest = sha256(b"hello")
    for lie in (b"hullo", b"hell", b"hello and much more"):
        server.lies[digest] = lie
        with pytest.raises(BytesDiffer) as caught:
            client.pull_blob(REPOSITORY, digest, 5)
        assert digest in caught.value.message
    package = tiny_package()
    client.push_manifest(REPOSITORY, "t", package.manifest)
    server.manifests[f"{REPOSITORY} {package.digest}"] = package.manifest + b" "
    with pytest.raises(BytesDiffer):
        client.pull_manifest(REPOSITORY, package.digest)


@pytest.mark.parametrize("api", [True, False], ids=["1.1", "1.0"])
def test_what_refers_to_a_manifest_is_found(server: Oci, client: OciRegistry, api: bool) -> None:
    server.referrers_api = api
    package = tiny_package()
    assert client.referrers(REPOSITORY, package.digest) == []
    client.push_manifest(REPOSITORY, package.digest, package.manifest)
    signed = [referrer(package), referrer(package)]
    for one in (*signed, signed[0]):
        client.push_referrer(REPOSITORY, package.digest, one.manifest, one.descriptor)
    found = client.referrers(REPOSITORY, package.digest)
    assert sorted(one.digest for one in found) == sorted(one.digest for one in signed)
    tag = f"{REPOSITORY} {package.digest.replace(':', '-')}"
    assert (tag in server.manifests) is not api


def test_referrers_that_a_registry_of_1_0_was_told_are_found_after_its_upgrade_by_those_it_knows(
    server: Oci, client: OciRegistry
) -> None:
    server.referrers_api = False
    package = tiny_package()
    one = referrer(package)
    client.push_referrer(REPOSITORY, package.digest, one.manifest, one.descriptor)
    server.referrers_api = True
    assert [found.digest for found in client.referrers(REPOSITORY, package.digest)] == [one.digest]


def test_a_token_is_fetched_for_what_is_wanted_and_nothing_else(server: Oci) -> None:
    server.login = "ann:the-password"
    package = tiny_package()
    with OciRegistry(server.host, Login("ann", "the-password")) as client:
        client.push_blob(REPOSITORY, sha256(b"x"), Held(b"x"))
        client.push_manifest(REPOSITORY, "t", package.manifest)
        assert client.pull_blob(REPOSITORY, sha256(b"x"), 1) == b"x"
        assert client.pull_manifest(REPOSITORY, "t") == package.manifest
    assert {sent for _, sent in server.told if sent} == {
        f"Bearer repository:{REPOSITORY}:pull",
        f"Bearer repository:{REPOSITORY}:pull,push",
    }


@pytest.mark.parametrize("login", [None, Login("ann", "wrong")])
def test_without_the_right_login_it_is_denied_and_no_password_is_told(
    server: Oci, login: Login | None
) -> None:
    server.login = "ann:right"
    with OciRegistry(server.host, login) as client:
        for act in (
            lambda: client.pull_blob(REPOSITORY, sha256(b"x"), 1),
            lambda: client.has_blob("a", sha256(b"")),
        ):
            with pytest.raises(RegistryDenied) as caught:
                act()
            assert "wrong" not in f"{caught.value.record()} {login!r}"


def test_a_redirect_to_another_host_is_followed_without_the_login(server: Oci) -> None:
    server.login, server.redirects = "ann:right", True
    server.blobs[sha256(LARGE)] = LARGE
    with OciRegistry(server.host, Login("ann", "right")) as client:
        assert client.pull_blob(REPOSITORY, sha256(LARGE), len(LARGE)) == LARGE
    assert [sent for host, sent in server.told if host.startswith("localhost")] == [None]


def test_what_is_not_there_and_what_is_refused_are_told_apart(server: Oci, client: OciRegistry) -> None:
    with pytest.raises(NotInRegistry, match="no nothing"):
        client.pull_manifest(REPOSITORY, "nothing")
    with pytest.raises(NotInRegistry):
        client.pull_blob(REPOSITORY, sha256(b"nothing"), 7)
    with pytest.raises(RegistryRefused, match="DIGEST_INVALID") as caught:
        client.push_blob(REPOSITORY, sha256(b"other"), Held(b"bytes"))
    assert "secret?" not in caught.value.message


def test_a_registry_that_is_down_is_said_so() -> None:
    with oci() as server:
        host = server.host
    with OciRegistry(host) as client, pytest.raises(RegistryUnreachable, match=host):
        client.pull_manifest(REPOSITORY, "t")


def test_the_fallback_index_is_one_that_other_tools_read(server: Oci, client: OciRegistry) -> None:
    server.referrers_api = False
    package = tiny_package()
    one = referrer(package)
    client.push_referrer(REPOSITORY, package.digest, one.manifest, one.descriptor)
    index = json.loads(server.manifests[f"{REPOSITORY} {package.digest.replace(':', '-')}"])
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    (entry,) = index["manifests"]
    assert set(entry) == {"mediaType", "digest", "size", "artifactType"}


def test_hosts_other_than_this_machine_are_spoken_to_by_https() -> None:
    for host, scheme in itertools.chain(
        ((one, "http") for one in ("localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000")),
        ((one, "https") for one in ("registry.example.com", "10.0.0.7:5000", "localhost.example.com")),
    ):
        with OciRegistry(host) as registry:
            assert registry.base == f"{scheme}://{host}"


@pytest.mark.parametrize("path", ["manifest", "token", "refusal"])
def test_an_answer_that_is_no_blob_has_an_end(server: Oci, path: str) -> None:
    """A registry of somebody else must not be able to fill the memory, be it by bytes that were packed small."""
    server.floods = path
    server.login = "ann:right" if path == "token" else None
    with (
        OciRegistry(server.host, Login("ann", "right")) as client,
        pytest.raises(RegistryRefused, match="bytes"),
    ):
        client.pull_manifest(REPOSITORY, "t")
    assert server.n_flooded < 64 << 20


def test_packed_bytes_are_not_unpacked(server: Oci, client: OciRegistry) -> None:
    zeros = bytes(64 << 20)
    server.manifests[f"{REPOSITORY} t"] = server.lies[sha256(b"x")] = gzip.compress(zeros)
    server.packs = True
    assert len(client.pull_manifest(REPOSITORY, "t")) < 1 << 20
    with pytest.raises(BytesDiffer):
        client.pull_blob(REPOSITORY, sha256(b"x"), 1)


def test_a_registry_elsewhere_sends_nobody_to_this_machine(
    server: Oci, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a login nor for bytes: what listens on the loopback interface trusts whoever comes from there."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path, "127.0.0.2")))
    inside = f"http://{server.host}/v2/"
    with elsewhere(tmp_path, inside) as host, OciRegistry(host, Login("ann", "right")) as client:
        with pytest.raises(RegistryDenied, match="in the clear"):
            client.pull_manifest("login", "t")
        with pytest.raises(RegistryRefused, match="plain http"):
            client.pull_blob("away", sha256(b"x"), 1)
        with pytest.raises(RegistryRefused, match="plain http"):
            client.push_blob("up", sha256(b"x"), Held(b"x"))
    assert server.seen == []


@pytest.mark.parametrize("login", [None, "pusher:secret"])
def test_a_blob_is_taken_from_another_repository_instead_of_being_sent(
    server: Oci, login: str | None
) -> None:
    server.apart, server.login = True, login
    digest = sha256(b"shared")
    with OciRegistry(server.host, Login(*login.split(":")) if login else None) as client:
        client.push_blob("team/one", digest, Held(b"shared"))
        assert not client.has_blob("team/two", digest)
        assert client.mount_blob("team/two", digest, ["team/two", "team/none", "team/one"])
        assert client.pull_blob("team/two", digest, 6) == b"shared"
        assert not client.mount_blob("team/two", sha256(b"nowhere"), ["team/one"])


def test_a_registry_that_mounts_nothing_is_left_with_no_upload_open(server: Oci, client: OciRegistry) -> None:
    server.apart, server.mounts = True, False
    digest = sha256(b"shared")
    client.push_blob("team/one", digest, Held(b"shared"))
    assert not client.mount_blob("team/two", digest, ["team/one"])
    assert server.uploads == {}
    client.push_blob("team/two", digest, Held(b"shared"))
    assert client.has_blob("team/two", digest)


def test_who_may_not_read_the_other_repository_sends_what_he_has(server: Oci) -> None:
    server.apart = True
    digest = sha256(b"shared")
    with OciRegistry(server.host) as client:
        client.push_blob("team/one", digest, Held(b"shared"))
        server.login = "pusher:secret"
        assert not client.mount_blob("team/two", digest, ["team/one"])
