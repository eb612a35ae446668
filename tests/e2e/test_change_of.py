"""The ticket and the pull request of a release, from a real git history and the variables that CI sets."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lockgate.workshop.git import Change, change_of

GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://forge.example",
    "GITHUB_REPOSITORY": "air/flights",
    "GITHUB_REF": "refs/heads/main",
}
GITLAB = {"GITLAB_CI": "true", "CI_PROJECT_URL": "https://lab.example/air/flights"}


def committed(folder: Path, message: str) -> Path:
    git = ["git", "-C", str(folder), "-c", "user.name=ada", "-c", "user.email=ada@air.example"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", message], check=True)
    return folder


@pytest.mark.parametrize(
    ("message", "environ", "expected"),
    [
        ("work", {}, Change("", "")),
        ("work\n\nTicket: OPS-7\n", {}, Change("OPS-7", "")),
        ("work\n\nTicket: OPS-7\nPull-Request: https://x/1\n", {}, Change("OPS-7", "https://x/1")),
        ("mentions OPS-9 and (#3)", {}, Change("", "")),
        (
            "work",
            {**GITHUB, "GITHUB_REF": "refs/pull/12/merge", "GITHUB_HEAD_REF": "OPS-42-late-flights"},
            Change("OPS-42", "https://forge.example/air/flights/pull/12"),
        ),
        ("Late flights (#13)", GITHUB, Change("#13", "https://forge.example/air/flights/pull/13")),
        (
            "Merge pull request #14 from ada/OPS-5",
            GITHUB,
            Change("OPS-5", "https://forge.example/air/flights/pull/14"),
        ),
        ("pushed past review", GITHUB, Change("", "")),
        (
            "work",
            {**GITLAB, "CI_MERGE_REQUEST_IID": "8", "CI_MERGE_REQUEST_TITLE": "OPS-3: later"},
            Change("OPS-3", "https://lab.example/air/flights/-/merge_requests/8"),
        ),
        (
            "work",
            {**GITLAB, "CI_MERGE_REQUEST_IID": "8"},
            Change("!8", "https://lab.example/air/flights/-/merge_requests/8"),
        ),
        (
            "work\n\nTicket: OPS-7\n",
            {**GITHUB, "GITHUB_REF": "refs/pull/12/merge", "GITHUB_HEAD_REF": "OPS-42"},
            Change("OPS-7", "https://forge.example/air/flights/pull/12"),
        ),
    ],
)
def test_what_a_change_answers_to(
    tmp_path: Path, message: str, environ: dict[str, str], expected: Change
) -> None:
    assert change_of(committed(tmp_path, message), environ) == expected


def test_outside_of_git_nothing_is_known_but_what_ci_says(tmp_path: Path) -> None:
    assert change_of(tmp_path, {}) == Change("", "")
    job = {**GITHUB, "GITHUB_REF": "refs/pull/12/merge"}
    assert change_of(tmp_path, job) == Change("#12", "https://forge.example/air/flights/pull/12")
