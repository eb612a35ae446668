"""Wrong names, wrong files, missing parts: each is told in one message that says what to do next."""

from __future__ import annotations

import os
import shutil
import socket
from importlib import resources
from pathlib import Path

import pytest
from operator_story import BETTER, FEATURES, MODEL, SOURCES, Given, Project, Then, When, Worlds

from command_line import CONFLICT, NOT_FOUND, OK, REFUSED, UNAVAILABLE, USAGE

UNKNOWN = {
    "stauts": (USAGE, "'status'"),
    "audit verfiy": (USAGE, "verify"),
    "status prod/flight-dealy": (NOT_FOUND, "prod/flight-delay"),
    "explain flight-delay@1.0.9": (NOT_FOUND, "flight-delay@1.0.0"),
    "explain flight-dealy@1.0.0": (NOT_FOUND, "flight-delay@1.0.0"),
    "explain prd/flight-delay": (NOT_FOUND, "prod/flight-delay"),
    "package show flight-delay@1.1.0": (NOT_FOUND, "flight-delay@1.0.0"),
    "diff flight-delay@1.0.0 flight-delay@1.0.1": (NOT_FOUND, "flight-delay@1.0.0"),
    "reproduce flight-delay@2.0.0": (NOT_FOUND, "flight-delay@1.0.0"),
    "plan flight-dealy": (NOT_FOUND, "'flight-delay'"),
    "train flight-dealy": (NOT_FOUND, "'flight-delay'"),
    "plan --force trian": (USAGE, "'train'"),
    "ship --to prdo": (USAGE, "'prod'"),
    "ship --too prod": (USAGE, "--to"),
    "promote flight-delay@1.0.1 --to dev": (NOT_FOUND, "flight-delay@1.0.0"),
    "promote flight-delay@1.0.0 --to prdo": (NOT_FOUND, "'prod'"),
    "rollback prod/flight-dealy": (NOT_FOUND, "prod/flight-delay"),
    "approve flight-delay@1.0.0 --for prdo": (NOT_FOUND, "'prod'"),
    "reject flight-delay@1.0.1 --reason wrong": (NOT_FOUND, "flight-delay@1.0.0"),
    "evidence flight-delay@1.0.0 --for prdo": (NOT_FOUND, "'prod'"),
    "judge flight-delay@1.0.1 --for prod": (NOT_FOUND, "flight-delay@1.0.0"),
    "init other --template flihgts": (NOT_FOUND, "'flights'"),
}


@pytest.fixture(scope="module")
def project(worlds: Worlds, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Version 1.0.0 live, for commands that change nothing but the list of what was refused."""
    return worlds.one.copy(tmp_path_factory.mktemp("bad-input") / "flights")


@pytest.mark.parametrize("line", UNKNOWN)
def test_an_unknown_name_gets_its_near_matches(project: Project, line: str) -> None:
    code, near = UNKNOWN[line]
    typed = project.types(line, by=None if line.split()[0] in ("stauts", "audit") else "ada").must(code)
    assert near in typed.err and ("did you mean" in typed.err.lower() or "No such option" in typed.err), (
        typed.err
    )
    assert "Traceback" not in typed.text


MALFORMED = {
    "a misspelt key": ('tier = "moderate"', 'teir = "moderate"', "models.flight-delay.teir", "'tier'"),
    "an unknown value": ('tier = "moderate"', 'tier = "modest"', "models.flight-delay.tier", "modest"),
    "a wrong type": ("order = 2", 'order = "two"', "environments.staging.order", "int"),
    "a missing key": ('owner = "flight-data"\n', "", "models.flight-delay", "owner"),
    "a misspelt table": ("[datasets.planes]", "[dataset.planes]", "dataset", "'datasets'"),
    "no value": ("rounds = 150", "rounds =", "rounds", "not TOML"),
    "a key twice": ("rounds = 150", "rounds = 150\nrounds = 151", "rounds", "not TOML"),
    "a list for a number": ("leaves = 31", "leaves = [31]", "models.flight-delay.params.leaves", "array"),
    "an unknown endpoint": (
        '[endpoints."prod/flight-delay"]',
        '[endpoints."prod/flight-dealy"]',
        "prod/flight-dealy",
        "'flight-delay'",
    ),
    "an unknown fallback": (
        'kind = "none"',
        'kind = "nun"',
        "endpoints.dev/flight-delay.fallback.kind",
        "nun",
    ),
    "a schema of the future": ("schema = 1", "schema = 2", "schema", "upgrade"),
    "an unknown gate": (
        '"model.parity" = { tolerance = 1e-6 }',
        '"model.party" = { tolerance = 1e-6 }',
        "models.flight-delay.gates.model.party",
        "'model.parity'",
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_config_names_line_and_key(given: Given, when: When, then: Then, what: str) -> None:
    old, new, key, more = MALFORMED[what]
    project = given.a_new_project()
    before = project.read("lockgate.toml")
    place = before[: before.index(old)].count("\n") + 1
    given.a_file("lockgate.toml", before.replace(old, new, 1))
    when.ada("plan")
    then.it_ends_with(USAGE).it_is_no_bug().it_says(key, more, "next:")
    # Where a key is missing the line of its table is meant; a key that stands there twice is seen at the second.
    line = {"a missing key": line_of(before, "[models.flight-delay]"), "a key twice": place + 1}.get(
        what, place
    )
    then.it_says(f"lockgate.toml:{line}:")
    assert not project.database.exists()


def line_of(text: str, start: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(start))


WRONG_PARTS = {
    "a function that is not there": (
        'source = "flights.sources:planes"',
        'source = "flights.sources:plains"',
        ("flights/sources.py", "plains", "'planes'"),
    ),
    "a file that is not there": (
        'contract = "contracts/planes.odcs.yaml"',
        'contract = "contracts/plane.odcs.yaml"',
        ("contracts/plane.odcs.yaml",),
    ),
    "a service that is not there": (
        'service = "flight_delay"',
        'service = "flight_dealy"',
        ("flight_dealy", "'flight_delay'"),
    ),
    "a pattern that matches nothing": (
        '"evaluation/*"]',
        '"evaluations/*"]',
        ("evaluations/*", "matches no file"),
    ),
    "a parameter that a step misses": ("rounds = 150", "round = 150", ("train()", "rounds", "'round'")),
}


@pytest.mark.parametrize("what", WRONG_PARTS)
def test_a_config_that_fits_nothing_is_told_so(given: Given, when: When, then: Then, what: str) -> None:
    old, new, words = WRONG_PARTS[what]
    given.a_new_project()
    given.an_edit("lockgate.toml", (old, new))
    when.ada("plan")
    assert then.code in (USAGE, NOT_FOUND)
    then.it_is_no_bug().it_says(*words)


BROKEN_CODE = {
    # file, what stands there, what is put in its place, the command that meets it, what it must say
    "a step that does not parse": (
        MODEL,
        "def before(table:",
        "def before(table::",
        "plan",
        ("flights/model.py", "line ", "not valid Python"),
    ),
    "a step that raises": (
        MODEL,
        "    arrived = flights.filter",
        "    raise ValueError('no flights today')\n    arrived = flights.filter",
        "train",
        ("examples", "ValueError", "no flights today", "flights/model.py"),
    ),
    "a source that raises": (
        SOURCES,
        "    return _select(_PLANES,",
        "    raise ConnectionError('the register is closed')\n    return _select(_PLANES,",
        "snapshot",
        ("planes", "ConnectionError", "the register is closed", "flights/sources.py"),
    ),
    "features that do not import": (
        FEATURES,
        "HOUR_S = 3600\n",
        "HOUR_S = 3600 / 0\n",
        "plan",
        ("flights.features", "ZeroDivisionError", "flights/features.py:"),
    ),
    "features that want a missing library": (
        FEATURES,
        "HOUR_S = 3600\n",
        "import nosuchlibrary\nHOUR_S = 3600\n",
        "plan",
        ("flights.features", "nosuchlibrary", "environment"),
    ),
    "a view of a table that is not declared": (
        FEATURES,
        "        FROM weather\n",
        "        FROM whether\n",
        "check",
        ("observed_weather", "whether", "'weather'"),
    ),
    "a service with a feature that is not there": (
        FEATURES,
        '"last_leg:aircraft_delay"',
        '"last_leg:aircraft_dealy"',
        "plan",
        ("aircraft_dealy", "aircraft_delay"),
    ),
    "a source that gives no table": (
        SOURCES,
        "    return _select(_PLANES,",
        "    return ['N14228']\n    return _select(_PLANES,",
        "snapshot",
        ("planes() of flights.sources", "list", "pyarrow.Table"),
    ),
    "a training that gives no model": (
        MODEL,
        "    known = before(training_set",
        "    return None\n    known = before(training_set",
        "train",
        ("train() of flights.model", "lightgbm.Booster"),
    ),
    "an evaluation set without rows": (
        MODEL,
        "    return since(before(training_set",
        "    return training_set.slice(0, 0)\n    return since(before(training_set",
        "train",
        ("evaluation_set() of flights.model", "no rows"),
    ),
    "an evaluation set without the label": (
        MODEL,
        "    return since(before(training_set",
        "    return training_set.slice(0, 9).drop_columns(['late'])\n    return since(before(training_set",
        "train",
        ("evaluation_set() of flights.model", "'late'", "label"),
    ),
    "an evaluation set without an input": (
        MODEL,
        "    return since(before(training_set",
        "    return training_set.slice(0, 9).drop_columns(['distance'])\n    return since(before(training_set",
        "train",
        ("evaluation_set() of flights.model", "'distance'", "is missing"),
    ),
}


@pytest.mark.parametrize("what", BROKEN_CODE)
def test_broken_code_of_the_project_is_named_with_its_place(
    given: Given, when: When, then: Then, what: str
) -> None:
    file, old, new, line, words = BROKEN_CODE[what]
    given.version_one_is_live()
    if file == FEATURES:
        given.an_edit(FEATURES, BETTER)
    given.an_edit(file, (old, new))
    when.ada(line)
    assert then.code != OK
    then.it_is_no_bug().it_says(*words, "next:")


def test_what_the_project_prints_is_no_part_of_an_answer(given: Given, when: When, then: Then) -> None:
    given.version_one_is_live()
    given.an_edit(FEATURES, ("HOUR_S = 3600\n", "HOUR_S = 3600\nprint('features speak')\n"))
    given.an_edit(
        SOURCES, ("    return _select(_PLANES,", "    print('planes speak')\n    return _select(_PLANES,")
    )
    when.ada("snapshot --json")
    then.it_succeeds().it_says("features speak", "planes speak")
    assert {one["dataset"] for one in then.answer} == {"main/flights", "main/planes", "main/weather"}


@pytest.mark.parametrize(("module", "extra"), [("lightgbm", "lightgbm"), ("onnxmltools", "onnx")])
def test_a_missing_extra_gives_the_install_command(
    given: Given, when: When, then: Then, tmp_path: Path, module: str, extra: str
) -> None:
    project = given.version_one_is_live()
    shadow = tmp_path / module / "__init__.py"
    shadow.parent.mkdir()
    shadow.write_text(f'raise ModuleNotFoundError("No module named {module!r}", name={module!r})\n')
    env = {"PYTHONPATH": ":".join([str(tmp_path), *python_path()])}
    given.a_file("evaluation/more.md", "More.\n")
    for line in ("train", "judge flight-delay@1.0.0 --for prod"):
        when.ada(line, env=env)
        then.it_ends_with(USAGE).it_is_no_bug().it_says(module, f"pip install 'lockgate[{extra}]'")
    # Planning and reading ask for none of it.
    for line in (
        "plan",
        "status",
        "explain prod/flight-delay",
        "audit verify",
        "package verify prod/flight-delay",
    ):
        when.somebody(line, env=env)
        then.it_succeeds()
    assert project.database.exists()


def python_path() -> list[str]:
    """What the tests themselves were started with, so that the same sources run."""
    return [part for part in os.environ.get("PYTHONPATH", "").split(":") if part]


def test_commands_outside_a_project_say_where_to_begin(tmp_path: Path) -> None:
    for line in ("plan", "status", "ship", "up --detach"):
        typed = Project(tmp_path).types(line).must(NOT_FOUND)
        assert "lockgate.toml" in typed.err and "lockgate init" in typed.err


def test_nothing_is_overwritten_and_nothing_stopped_that_is_not_up(
    given: Given, when: When, then: Then, tmp_path: Path
) -> None:
    project = given.a_new_project()
    before = project.read("lockgate.toml")
    typed = Project(project.root.parent).types("init flights").must(CONFLICT)
    assert "not empty" in typed.err and project.read("lockgate.toml") == before
    when.the_sre("down")
    then.it_ends_with(NOT_FOUND).it_says("nothing is up", "lockgate up")
    when.somebody("status")
    then.it_ends_with(NOT_FOUND).it_says("no store", "lockgate ship")


def test_a_port_that_is_taken_is_named_where_it_was_typed(given: Given, when: When, then: Then) -> None:
    given.version_one_is_live()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        when.the_sre(f"up --detach --port {port}")
        then.it_ends_with(UNAVAILABLE).it_is_no_bug()
        then.it_says(f"port {port} of 127.0.0.1 is taken by another program", "--port 0")


def test_a_checkout_without_the_signing_key_trains_nothing(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    (project.dot / "keys" / "signing.pem").unlink()
    given.a_file("evaluation/more.md", "More.\n")
    when.ada("train")
    then.it_ends_with(NOT_FOUND).it_is_no_bug().it_says("signs packages", 'signing.key = "env:NAME"')
    then.it_never_says("  ran ")
    when.somebody("doctor")
    then.it_says("BAD signing.key", "next: lockgate key rotate makes one")
    when.somebody("key rotate --json")
    then.it_succeeds()
    assert then.answer["signs"] and then.answer["file"].startswith("trust/signing-")
    when.somebody("doctor")
    then.it_succeeds().it_says("ok  signing.key")


def test_a_checkout_begins_a_journal_of_its_own(given: Given, when: When, then: Then) -> None:
    project = given.a_new_project()
    shutil.rmtree(project.dot)
    when.ada("declare")
    then.it_succeeds().it_never_says("warning", "no checkpoint")
    when.somebody("audit verify --json")
    then.it_succeeds()
    assert then.answer["checkpoints"]
    (project.dot / "keys" / "checkpoint.pem").unlink()
    given.an_edit("lockgate.toml", ('owner = "flight-data"', 'owner = "flights"'))
    when.ada("declare")
    then.it_succeeds()
    assert then.told("no checkpoint was written") == 1
    assert not (project.dot / "keys" / "checkpoint.pem").exists(), (
        "another key would not vouch for what is signed"
    )


def test_what_init_says_next_can_be_typed(tmp_path: Path) -> None:
    typed = Project(tmp_path).types("init 'the flights'").must(OK)
    assert "next: cd 'the flights' && lockgate plan" in typed.out


def test_a_rollback_without_a_way_back_is_refused(project: Project) -> None:
    refused = project.types("rollback prod/flight-delay", by="sre").must(3)
    assert "no previous version" in refused.err and "delivery.nothing-before" in refused.err


def test_a_policy_file_is_read_strictly(given: Given, when: When, then: Then) -> None:
    project = given.a_new_project()
    when.ada("policy adopt nofile.toml")
    then.it_ends_with(NOT_FOUND).it_is_no_bug().it_says("nofile.toml", "next:")
    (project.root / "latin.toml").write_bytes(b"name = '\xf6'\n")
    when.ada("policy adopt latin.toml")
    then.it_ends_with(USAGE).it_is_no_bug().it_says("latin.toml", "UTF-8")
    when.somebody("policy show --json")
    then.it_succeeds()
    assert then.answer["source"] == "default"
    when.ada("policy adopt")
    when.somebody("policy show --json")
    assert then.answer["source"] == "adopted"
    shipped = resources.files("lockgate.app").joinpath("policies/default.toml").read_text()
    (project.root / "edited.toml").write_text(
        shipped.replace("evidence_max_age_days = 30", "evidence_max_age_days = 29")
    )
    when.ada("policy adopt edited.toml")
    then.it_ends_with(REFUSED).it_says(
        "governance.policy-version", "tiers.low.evidence_max_age_days", "next:"
    )


@pytest.mark.parametrize("line", ["ship", "train", "check", "snapshot", "judge flight-delay@1.0.0"])
def test_what_builds_for_a_hub_that_does_not_answer_begins_no_work(
    given: Given, when: When, then: Then, line: str
) -> None:
    project = given.a_new_project()
    when.ada(f"{line} --hub http://127.0.0.1:1")
    then.it_ends_with(UNAVAILABLE).it_is_no_bug().it_says("hub.unreachable")
    # check and snapshot freeze the data first; the others ask before any work.
    if line not in ("check", "snapshot"):
        assert not [path for path in (project.dot / "store" / "blobs").rglob("*") if path.is_file()]


def test_the_log_shows_the_newest_and_says_how_many_are_older(project: Project) -> None:
    newest = project.types("audit log --limit 3 --json").must(OK).json
    assert [one["seq"] for one in newest["changes"]] == list(range(newest["head"] - 2, newest["head"] + 1))
    assert newest["older"] == newest["head"] - 3
    assert f"{newest['older']} older" in project.types("audit log --limit 3").must(OK).out
    first = project.types("audit log --since 0 --limit 3 --json").must(OK).json
    assert [one["seq"] for one in first["changes"]] == [1, 2, 3]


def test_a_damaged_database_is_no_bug(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    project.database.write_bytes(b"this is no database, whatever its name says\n" * 200)
    when.somebody("status")
    then.it_ends_with(7).it_is_no_bug().it_says("state.db", "backup")


@pytest.mark.parametrize("option", ["--port", "--hub-port"])
def test_a_number_that_is_no_port_is_told_before_anything_starts(
    given: Given, when: When, then: Then, option: str
) -> None:
    project = given.a_new_project()
    when.the_sre(f"up --detach {option} 80000")
    then.it_ends_with(USAGE).it_is_no_bug().it_says(option, "65535")
    assert not (project.dot / "up.log").exists()
