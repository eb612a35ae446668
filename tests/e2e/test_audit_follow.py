"""`audit log --follow` tells what happens while it happens, and ends on Ctrl-C."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from operator_story import Project, Worlds
from test_team_hub import TeamHub, declared

from command_line import OK


def test_what_happens_is_told_as_it_happens(worlds: Worlds, tmp_path: Path) -> None:
    project = worlds.one.copy(tmp_path / "flights")
    n_before = len(project.journal())
    following = project.starts("audit log --follow --since 0 --json")
    try:
        assert following.stdout is not None
        told = [json.loads(following.stdout.readline()) for _ in range(n_before)]
        assert [one["seq"] for one in told] == list(range(1, n_before + 1))
        project.types("webhook add chat https://hooks.example.com --secret env:KEY", by="petra").must(OK)
        last = json.loads(following.stdout.readline())
        assert (last["type"], last["actor"]) == ("hub.subscription-added/1", "petra")
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 130
    finally:
        following.kill()
        following.communicate()


@pytest.fixture
def team(tmp_path: Path) -> Iterator[TeamHub]:
    team = TeamHub(tmp_path / "hub").start()
    # It comes back where it was.
    file = team.folder / "hub.toml"
    file.write_text(file.read_text().replace("port = 0", f"port = {team.url.rpartition(':')[2]}"))
    yield team
    team.kill()


def test_a_hub_that_is_killed_and_comes_back_is_followed_on_without_a_gap(
    team: TeamHub, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    following = Project(tmp_path / "elsewhere").starts(
        f"audit log --follow --since 0 --json --hub {team.url}"
    )
    assert following.stdout is not None and following.stderr is not None
    told: list[int] = []

    def happens(numbers: range) -> None:
        with team.hub("petra") as hub:
            for number in numbers:
                hub.execute(declared(number))

    def hears(n_more: int) -> None:
        assert following.stdout is not None
        told.extend(json.loads(following.stdout.readline())["seq"] for _ in range(n_more))

    try:
        happens(range(1, 6))
        hears(3)
        for first in (6, 9):
            team.kill()
            assert "going on after" in following.stderr.readline()
            team.start()
            happens(range(first, first + 3))
            hears(3)
        hears(2)
        assert told == list(range(1, 12))
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 130
        assert following.stdout.read() == ""
    finally:
        following.kill()
        following.communicate()


def test_a_hub_that_was_never_there_is_not_waited_for(tmp_path: Path) -> None:
    typed = Project(tmp_path).types("audit log --follow --since 0 --hub http://127.0.0.1:1")
    assert (typed.code, typed.out) == (6, "")
    assert "going on" not in typed.err
