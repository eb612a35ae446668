"""Planted secrets: none of them is found again in anything that Lockgate writes, prints or answers."""

from __future__ import annotations

import base64
import http.client
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from operator_story import SOURCES, Given, Project, Then, When

from command_line import FLIGHT, OK, USAGE, WAITING, Typed

IN_ENVIRONMENT = "planted-environment-7f3a9c"
IN_FILE = "planted-file-51d0be"
IN_REQUEST = "planted-request-0c44e1"
IN_ERROR = "planted-error-93b2aa"
IN_CONFIG = "planted-config-e6d871"
PLANTED = (IN_ENVIRONMENT, IN_FILE, IN_REQUEST, IN_ERROR, IN_CONFIG)

# The source logs in somewhere: with a password from the environment and a token from a file.
LOGIN = (
    'raw_weather=_read_csv("weather.csv"))',
    'raw_weather=_read_csv("weather.csv") if _login() else None)',
)
LOGS_IN = '''

def _login() -> bool:
    """The way a warehouse wants it: nothing of it may travel."""
    import os

    token = Path(os.environ["WAREHOUSE_TOKEN_FILE"]).read_text().strip()
    return os.environ["WAREHOUSE_PASSWORD"].startswith("planted") and token.startswith("planted")
'''


def settings(project: Project) -> dict[str, str]:
    return {
        "WAREHOUSE_PASSWORD": IN_ENVIRONMENT,
        "WAREHOUSE_TOKEN_FILE": str(project.root / "secrets" / "warehouse.token"),
    }


def files(project: Project, *, but: Iterable[Path] = ()) -> list[Path]:
    """Everything in the project's folder: database, logs, step cache, blobs, control files, exported packages."""
    left_out = set(but)
    return [path for path in project.root.rglob("*") if path.is_file() and path not in left_out]


def found_in(paths: Iterable[Path], secrets: Iterable[bytes]) -> list[tuple[str, bytes]]:
    hits = []
    for path in paths:
        data = path.read_bytes()
        encoded = [
            (one, form) for one in secrets for form in (one, base64.b64encode(one), one.hex().encode())
        ]
        hits += [(str(path), one) for one, form in encoded if form in data]
    return hits


def asked(project: Project, body: Mapping[str, object], headers: Mapping[str, str]) -> int:
    known = project.running
    assert known is not None
    with closing(http.client.HTTPConnection("127.0.0.1", known["plane_port"], timeout=30)) as way:
        sent = {"content-type": "application/json", **headers}
        way.request("POST", "/prod/flight-delay", json.dumps(body), sent)
        return way.getresponse().status


def test_nothing_planted_is_found_again(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    given.a_file("secrets/warehouse.token", IN_FILE + "\n")
    given.an_edit(SOURCES, LOGIN)
    given.a_file(SOURCES, project.read(SOURCES) + LOGS_IN)
    # A new column of weather would change the model; here the same bytes come by another way.
    given.a_file("evaluation/warehouse.md", "The weather comes from the warehouse now.\n")
    secret_file = project.root / "secrets" / "warehouse.token"
    env, said = settings(project), list[Typed]()
    said.append(project.types("up --detach --port 0 --json", env=env).must(OK))
    said.append(project.types("plan --json", env=env).must(OK))
    said.append(project.types("ship --to prod --ticket OPS-9 --json", by="ada", env=env).must(WAITING))
    assert "ran     weather " in said[-1].err, "the source that reads the secrets ran"
    version = (
        json.loads(said[1].out)["steps"]
        and project.asks("status")["endpoints"]["dev/flight-delay"]["live"]["version"]
    )
    said.append(project.types(f"approve {version} --for prod", by="grace", env=env).must(OK))
    said.append(project.types("ship --to prod --ticket OPS-9 --json", by="ada", env=env).must(OK))

    # Callers bring secrets too, in headers, in values, in names of fields, in paths.
    bearer = {"authorization": f"Bearer {IN_REQUEST}", "x-request-id": IN_REQUEST}
    assert asked(project, {"inputs": [FLIGHT], "key": IN_REQUEST}, bearer) == 200
    assert asked(project, {"inputs": [{**FLIGHT, "carrier": IN_REQUEST}]}, bearer) == 200
    assert asked(project, {"inputs": [{**FLIGHT, IN_REQUEST: 1}]}, bearer) == 422
    assert asked(project, {"inputs": [{**FLIGHT, "distance": IN_REQUEST}]}, bearer) == 422

    for line in (
        "status --json", "explain prod/flight-delay --json", f"diff flight-delay@1.0.0 {version} --json",
        "lineage prod/flight-delay --json", f"evidence {version} --json", "audit log --json", "audit verify --json",
        "package show prod/flight-delay --json", "package export prod/flight-delay exported --json",
        "contract check --json", "down --json",
    ):  # fmt: skip
        said.append(project.types(line, env=env).must(OK))
    for typed in said:
        assert not [one for one in PLANTED if one in typed.text], typed.line
    secrets = [one.encode() for one in PLANTED]
    assert found_in(files(project, but=[secret_file]), secrets) == []
    assert len(files(project)) > 60
    with tarfile.open(fileobj=io.BytesIO(project.blob(project.layers(version)["code.tar"]))) as code:
        assert "secrets/warehouse.token" not in code.getnames()


def test_an_error_that_quotes_a_secret_is_not_kept(given: Given, when: When, then: Then) -> None:
    """Whoever typed it sees what the project's own code raised; the store does not remember it."""
    project = given.version_one_is_live()
    given.an_edit(
        SOURCES,
        (
            "return _select(_PLANES,",
            f'raise ConnectionError("refused: postgres://ada:{IN_ERROR[:8]}" + "{IN_ERROR[8:]}@warehouse/planes")\n'
            "    return _select(_PLANES,",
        ),
    )
    when.ada("ship --to dev --json")
    then.it_is_no_bug()
    assert then.code != OK
    assert found_in(files(project), [IN_ERROR.encode()]) == []
    then.the_audit_holds()


def private_parts(pem: bytes) -> list[bytes]:
    """What nobody else may have of a private key: its lines, its bytes, its number."""
    key = serialization.load_pem_private_key(pem, password=None)
    number = getattr(getattr(key, "private_numbers", lambda: None)(), "private_value", None)
    raw = number.to_bytes(32, "big") if number is not None else key.private_bytes_raw()  # type: ignore[union-attr]
    return [*pem.splitlines()[1:-1], raw]


def test_private_keys_are_nowhere_but_in_their_files(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    keys = [project.dot / "keys" / name for name in ("signing.pem", "checkpoint.pem")]
    for key in keys:
        assert key.stat().st_mode & 0o777 == 0o600
    when.somebody("package export prod/flight-delay exported")
    then.it_succeeds()
    for key in keys:
        assert found_in(files(project, but=[key]), private_parts(key.read_bytes())) == []


def test_a_signing_key_from_the_environment_leaves_no_trace(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    key = project.dot / "keys" / "signing.pem"
    pem = key.read_text()
    key.unlink()
    given.an_edit(
        "lockgate.toml", ('key = "file:.lockgate/keys/signing.pem"', 'key = "env:FLIGHTS_SIGNING_KEY"')
    )
    given.a_file("evaluation/more.md", "More.\n")
    when.ada("train")
    then.it_is_no_bug().it_says("FLIGHTS_SIGNING_KEY")
    assert then.code not in (OK, WAITING)
    when.ada("train --json", env={"FLIGHTS_SIGNING_KEY": pem})
    then.it_succeeds()
    version, secrets = then.answer["version"], private_parts(pem.encode())
    assert not [one for one in secrets if one.decode("latin1") in when.typed.text]
    assert found_in(files(project), secrets) == []
    project.types(f"package verify {version}").must(OK)


@pytest.mark.parametrize(
    ("key", "reference"),
    [
        ("signing.key", 'key = "file:.lockgate/keys/signing.pem"'),
        ("audit.checkpoint_key", 'checkpoint_key = "file:.lockgate/keys/checkpoint.pem"'),
    ],
)
def test_a_literal_secret_in_the_config_is_refused_and_not_repeated(
    given: Given, when: When, then: Then, key: str, reference: str
) -> None:
    project = given.version_one_is_live()
    given.an_edit("lockgate.toml", (reference, f'{key.rpartition(".")[2]} = "{IN_CONFIG}"'))
    line = next(
        n for n, text in enumerate(project.read("lockgate.toml").splitlines(), 1) if IN_CONFIG in text
    )
    n_events = len(project.journal())
    for command in ("plan", "ship --to prod", "train --json", "rollback prod/flight-delay", "audit verify"):
        when.ada(command)
        then.it_ends_with(USAGE).it_is_no_bug().it_never_says(IN_CONFIG)
        then.it_says(f"lockgate.toml:{line}: {key}", "env:NAME or file:PATH", "core.secret-in-config")
    assert len(project.journal()) == n_events
    assert found_in(files(project, but=[project.root / "lockgate.toml"]), [IN_CONFIG.encode()]) == []


def test_a_config_that_is_no_toml_does_not_repeat_the_line(given: Given, when: When, then: Then) -> None:
    given.a_new_project()
    given.an_edit("lockgate.toml", ('key = "file:.lockgate/keys/signing.pem"', f"key = {IN_CONFIG}"))
    when.ada("plan --json")
    then.it_ends_with(USAGE).it_never_says(IN_CONFIG).it_says("lockgate.toml:", "key")


@pytest.mark.parametrize("pattern", ["**/*.pem", "../**/*", "/etc/hostname", ".lockgate/**/*"])
def test_no_pattern_packs_a_key_or_a_file_from_outside(
    given: Given, when: When, then: Then, pattern: str
) -> None:
    given.a_new_project()
    given.an_edit("lockgate.toml", ('"evaluation/*"]', f'"evaluation/*", "{pattern}"]'))
    when.ada("plan")
    then.it_ends_with(USAGE).it_is_no_bug().it_says("include", "project.include-refused")


def test_a_link_does_not_lead_a_pattern_to_a_key(given: Given, when: When, then: Then) -> None:
    project = given.a_new_project()
    (project.root / "evaluation" / "notes-too.md").symlink_to(project.dot / "keys" / "signing.pem")
    when.ada("plan")
    then.it_ends_with(USAGE).it_says("evaluation/notes-too.md", "project.include-refused")
