"""Given a project and the hub of a team elsewhere, when somebody trains here and another machine judges, then the bytes
that the commands name are there, and nothing else of either machine is needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from operator_story import Worlds
from test_team_hub import TeamHub

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.hub.messages import ExplainVersion, VersionAnswer

ENVIRONMENTS = ("dev", "staging", "prod")


@pytest.fixture
def team(worlds: Worlds, tmp_path: Path) -> Iterator[TeamHub]:
    trust = "".join(f"[trust.{name}]\nkeys = ['trust/signing.pub']\n" for name in ENVIRONMENTS)
    team = TeamHub(tmp_path / "hub", trust)
    shutil.copytree(worlds.one.root / "trust", team.folder / "trust")
    yield team.start()
    team.kill()


def test_a_version_is_trained_here_kept_there_and_judged_elsewhere(
    worlds: Worlds, team: TeamHub, tmp_path: Path
) -> None:
    builder = worlds.one.copy(tmp_path / "builder")
    hub = {"LOCKGATE_HUB": team.url}
    builder.types("declare", by="petra", env=hub).must(0)
    # The cache is this machine's; whether the hub knows what came of it, only the hub can say.
    here = builder.types("plan --json").must(0).json
    planned = builder.types("plan --json", env=hub).must(0).json
    assert planned == {**here, "registered": None}
    assert {one["action"] for one in here["steps"]} == {"cached"}
    trained = builder.types("train --json", by="ada", env=hub).must(0).json
    assert trained["ran"] == [], "the steps are those of the project, whatever hub they are told to"
    assert (trained["version"], trained["state"]) == ("flight-delay@1.0.0", "validated")
    assert builder.types("plan --json", env=hub).must(0).json == {**here, "registered": "flight-delay@1.0.0"}
    forced = builder.types("plan --force train", env=hub).must(0)
    assert f"registered at {team.url}: not yet" in forced.out
    with team.hub("ann") as asked:
        known: VersionAnswer = asked.ask(ExplainVersion(version="main/flight-delay@1.0.0"))
    kept = set(DirectoryBlobs(team.folder / "blobs").digests())
    assert {known.version.package, known.version.run, *known.version.signatures} <= kept
    assert {line.digest for line in known.evidence} <= kept

    # Another machine: the same files, and none of the bytes.
    judge = worlds.one.copy(tmp_path / "judge")
    for name in ("store", "state.db", "steps.db"):
        path = judge.dot / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    judge.types("judge flight-delay@1.0.0", by="val", env=hub).must(0)
    told = judge.types("package verify flight-delay@1.0.0", env=hub).must(0)
    assert known.version.package in told.out
    assert "flight-delay@1.0.0  validated" in judge.types("explain flight-delay@1.0.0", env=hub).must(0).out
    verified = judge.types("audit verify --json", env=hub).must(0).json
    assert verified["ok"]
