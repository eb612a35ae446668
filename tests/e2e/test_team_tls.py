"""Given a team's hub that speaks TLS by itself, when callers trust its authority, or do not, then the first work as
ever, and the others are told why nothing was sent."""

from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from operator_story import LADDER, Project, Worlds
from test_team_hub import TeamHub

from command_line import FLIGHT, OK, UNAVAILABLE, USAGE

NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """Somebody who signs certificates, known to whoever has `ca.pem`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {folder.name}")])
        built = self._begun(self._name, self._key, 1).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.pem = folder / "ca.pem"
        self._write(self.pem, built)

    def certifies(self, name: str, days: int = 30) -> tuple[Path, Path]:
        """Certificate and key of a server on this machine, good for so many days from yesterday on."""
        key, file = ec.generate_private_key(ec.SECP256R1()), self._folder / f"{name}.pem"
        names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = self._begun(subject, key, days).add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        self._write(file, built)
        private = file.with_suffix(".key")
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        private.chmod(0o600)
        return file, private

    def _begun(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
    ) -> x509.CertificateBuilder:
        begins = NOW - datetime.timedelta(days=2)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + datetime.timedelta(days=days + 2))
        )

    def _write(self, path: Path, built: x509.CertificateBuilder) -> None:
        signed = built.sign(self._key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def listening(certificate: tuple[Path, Path]) -> str:
    return "certfile = '{}'\nkeyfile = '{}'\n".format(*certificate)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def team(authority: Authority, tmp_path: Path) -> Iterator[TeamHub]:
    team = TeamHub(tmp_path / "hub", listening(authority.certifies("localhost"))).start()
    yield team
    team.kill()


def test_whoever_trusts_the_authority_works_as_ever(
    team: TeamHub, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    caller, trusting = Project(tmp_path / "work"), {"SSL_CERT_FILE": str(authority.pem)}
    assert team.url.startswith("https://127.0.0.1:")
    for url in (team.url, team.url.replace("127.0.0.1", "localhost")):
        assert caller.types(f"status --hub {url} --json", env=trusting).must(OK).json["endpoints"] == {}
    told = caller.types(f"audit verify --hub {team.url} --json", env=trusting).must(OK).json
    assert told["ok"]


def test_whoever_does_not_is_told_so_and_sends_nothing(team: TeamHub, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    (tmp_path / "work").mkdir()
    caller = Project(tmp_path / "work")
    for env in ({}, {"SSL_CERT_FILE": str(other.pem)}, {"SSL_CERT_FILE": str(tmp_path / "no.pem")}):
        typed = caller.types(f"whoami --hub {team.url} --json", env=env).must(UNAVAILABLE)
        error = json.loads(typed.out)["error"]
        assert error["code"] == "hub.untrusted"
        assert "unable to get local issuer certificate" in error["message"]
        assert "SSL_CERT_FILE" in error["remedy"]
    # No name, hence no token, went over the wire.
    assert "whoami" not in (team.folder / "err").read_text()
    plain = caller.types(f"whoami --hub {team.url.replace('https', 'http')}").must(UNAVAILABLE)
    assert "hub.unreachable" in plain.text


def test_a_certificate_that_names_somebody_else_or_is_out_of_date_is_not_taken(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    caller, trusting = Project(tmp_path / "work"), {"SSL_CERT_FILE": str(authority.pem)}
    for number, (certificate, said) in enumerate(
        (
            (authority.certifies("elsewhere.example.org"), "Hostname mismatch"),
            (authority.certifies("localhost", days=-1), "certificate has expired"),
        )
    ):
        team = TeamHub(tmp_path / f"hub-{number}", listening(certificate)).start()
        try:
            url = team.url.replace("127.0.0.1", "localhost")
            typed = caller.types(f"status --hub {url}", env=trusting).must(UNAVAILABLE)
        finally:
            team.kill()
        assert "hub.untrusted" in typed.text
        assert said in typed.text


def test_the_check_says_how_long_the_certificate_is_good(authority: Authority, tmp_path: Path) -> None:
    def checked(days: int) -> subprocess.CompletedProcess[str]:
        file = tmp_path / f"{days}.toml"
        file.write_text("[listen]\nport = 0\n" + listening(authority.certifies("localhost", days)))
        command = [sys.executable, "-P", "-m", "lockgate.app.cli", "hub", "--config", str(file), "--check"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    well = checked(30)
    assert well.returncode == OK, well.stderr
    assert f"tls: good until {(NOW + datetime.timedelta(days=30)).date().isoformat()}" in well.stdout
    ended = checked(-1)
    assert ended.returncode == USAGE
    assert "http.certificate-invalid" in ended.stderr and "no caller takes it now" in ended.stderr


def test_a_model_ships_over_tls_until_a_data_plane_answers(
    worlds: Worlds, authority: Authority, tmp_path: Path
) -> None:
    tables = "[target]\nrun = 'run'\n" + "".join(
        f"[trust.{name}]\nkeys = ['trust/signing.pub']\n" for name in LADDER
    )
    team = TeamHub(tmp_path / "hub", listening(authority.certifies("localhost")) + tables)
    shutil.copytree(worlds.one.root / "trust", team.folder / "trust")
    builder = worlds.one.copy(tmp_path / "builder")
    with team_and_plane(team) as port:
        url = team.url.replace("127.0.0.1", "localhost")
        env = {"LOCKGATE_HUB": url, "SSL_CERT_FILE": str(authority.pem)}
        builder.types("declare", by="petra", env=env).must(OK)
        shipped = builder.types("ship --to dev --json", by="ada", env=env).must(OK).json
        assert shipped["live_on"] == ["dev"]
        answer = httpx.post(
            f"http://127.0.0.1:{port}/dev/flight-delay",
            json={"inputs": [FLIGHT]},
            trust_env=False,
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        assert f"flight-delay@{answer.json()['version']}" == shipped["version"]
        line = builder.types("status dev/flight-delay --json", env=env).must(OK).json["endpoints"]
        assert line["dev/flight-delay"]["live"]["digest"] == answer.json()["digest"]


@contextmanager
def team_and_plane(team: TeamHub) -> Iterator[int]:
    """The hub, and the data plane on its machine; the port of that one."""
    team.start()
    command = [sys.executable, "-P", "-m", "lockgate.app.dataplane", "--port", "0"]
    command += ["--run-dir", str(team.folder / "run"), "--store", str(team.folder / "blobs")]
    for name in LADDER:
        command += ["--trust", f"{name}={team.folder / 'trust' / 'signing.pub'}"]
    with (team.folder / "plane.err").open("w") as err:
        plane = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
    try:
        assert plane.stdout is not None
        line = plane.stdout.readline()
        assert line, (team.folder / "plane.err").read_text()
        yield json.loads(line)["port"]
    finally:
        plane.terminate()
        plane.communicate(timeout=30)
        team.kill()
