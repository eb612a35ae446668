"""An endpoint is taken down under a running data plane: it stops answering, its history stays, it stays down."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from operator_story import ENDPOINT, Project, Worlds

from command_line import FLIGHT, NOT_FOUND, OK, REFUSED


@pytest.fixture
def project(worlds: Worlds, tmp_path: Path) -> Project:
    return worlds.two.copy(tmp_path / "flights")


def test_an_endpoint_is_taken_down_and_stays_down(
    project: Project, eventually: Callable[..., object]
) -> None:
    project.up()
    try:
        assert project.predict(FLIGHT).status == 200
        line = "endpoint remove prod/flight-delay --reason 'the app is gone'"
        refused = project.types(line, by="petra").must(REFUSED)
        consumers = project.asks("endpoint show prod/flight-delay")["consumers"]
        assert consumers
        assert all(name in refused.text for name in consumers)
        assert "flight-delay@1.1.0 is live" in refused.text
        for name in consumers:
            project.types(f"endpoint sign-off prod/flight-delay --consumer {name}", by="carl").must(OK)
        assert project.predict(FLIGHT).status == 200
        done = project.types(f"{line} --live flight-delay@1.1.0", by="petra").must(OK)
        assert "lockgate.toml" in done.text
        # Not the constant that it would fall back to either: nothing is served here any more.
        eventually(lambda: project.predict(FLIGHT).status == 503)
        assert project.predict(FLIGHT, at="staging/flight-delay").status == 200
        assert ENDPOINT not in project.asks("status")["endpoints"]
        assert "removed" in project.types("status prod/flight-delay").must(OK).text
        releases = project.asks("explain flight-delay@1.1.0")["releases"]
        assert [one["state"] for one in releases if one["endpoint"].startswith("prod/")] == ["removed"]
        project.types("explain prod/flight-delay").must(NOT_FOUND)
        project.types("audit verify").must(OK)
    finally:
        project.down()
    # It stays down over a restart when the file no longer declares it.
    tables = re.split(r"\n(?=\[)", project.read("lockgate.toml"))
    kept = [one for one in tables if not re.match(r'\[+endpoints\."prod/flight-delay"', one)]
    assert len(kept) < len(tables)
    project.write("lockgate.toml", "\n".join(kept))
    project.up()
    try:
        assert project.predict(FLIGHT).status == 503
        project.types("promote flight-delay@1.1.0 --to prod", by="ada").must(REFUSED)
    finally:
        project.down()


def test_declared_again_it_is_held_against_what_ran_there_last(project: Project) -> None:
    line = "endpoint remove prod/flight-delay --live flight-delay@1.1.0 --despite-consumers --reason tidying"
    project.types(line, by="petra").must(OK)
    told = project.types("endpoint show prod/flight-delay").must(OK)
    assert "declared again, it is as it was" in told.text
    project.types("declare", by="petra").must(OK)
    told = project.types("judge flight-delay@1.0.0 --for prod", by="vic")
    assert "perf.vs_champion" in told.text and "against main/flight-delay@1.1.0" in told.text
    assert "nothing to compare with yet" not in told.text
