"""Whom the commits of a project name, from a real git history: since a version, in a folder of it, cut short."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lockgate.workshop.git import People, people_of

ADA, BOB, CY = "ada@air.example", "bob@air.example", "cy@air.example"


class Repository:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str, who: str = ADA, committer: str = "") -> str:
        people = {"AUTHOR": who, "COMMITTER": committer or who}
        env = {f"GIT_{role}_{part}": value for role, value in people.items() for part in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments],
            env={**env, "PATH": "/usr/bin:/bin", "HOME": str(self.root)},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, message: str, who: str = ADA, *, file: str = "model.py", committer: str = "") -> str:
        path = self.root / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(message)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message, who=who, committer=committer)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def told(people: People) -> set[tuple[str, str]]:
    return {(one.name, one.did) for one in people.named}


def test_everybody_is_told_by_what_he_did_with_the_newest_commit_of_his(repository: Repository) -> None:
    repository.commit("one", ADA)
    two = repository.commit(
        f"two\n\nCo-authored-by: Cy <{CY.upper()}>\nCo-authored-by: nobody's address", BOB
    )
    three = repository.commit("three", "Ada@Air.example", committer="noreply@forge.example")
    found = people_of(repository.root)
    assert found.are_all
    assert told(found) == {
        (ADA, "authored"),
        (ADA, "committed"),
        (BOB, "authored"),
        (BOB, "committed"),
        (CY, "co-authored"),
        ("nobody's_address", "co-authored"),
        ("noreply@forge.example", "committed"),
    }
    commits = {(one.name, one.did): one.commit for one in found.named}
    assert commits[(ADA, "authored")] == three
    assert commits[(BOB, "committed")] == two


def test_a_mailmap_of_the_project_renames_nobody(repository: Repository) -> None:
    (repository.root / ".mailmap").write_text(f"Bob <{BOB}> <{ADA}>\n")
    repository.commit("one", ADA)
    repository.git("config", "log.mailmap", "true")
    assert {name for name, _ in told(people_of(repository.root))} == {ADA}


def test_since_a_version_only_what_came_after_it_and_always_the_last_commit(repository: Repository) -> None:
    repository.commit("one", ADA)
    base = repository.commit("two", BOB)
    assert {name for name, _ in told(people_of(repository.root, base))} == {BOB}
    repository.commit("three", CY)
    assert {name for name, _ in told(people_of(repository.root, base))} == {CY}
    assert {name for name, _ in told(people_of(repository.root, base, base))} == {BOB}
    # A commit that is not there is as good as none.
    assert {name for name, _ in told(people_of(repository.root, "0" * 40))} == {ADA, BOB, CY}


def test_of_a_folder_only_what_changed_it(repository: Repository) -> None:
    repository.commit("one", ADA, file="flights/model.py")
    repository.commit("two", BOB, file="other/model.py")
    repository.commit("three", CY, file="flights/model.py")
    assert {name for name, _ in told(people_of(repository.root / "flights"))} == {ADA, CY}


def test_what_a_merge_brings_in_is_told(repository: Repository) -> None:
    base = repository.commit("one", BOB)
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("two", ADA, file="more.py")
    repository.git("checkout", "-q", "main")
    repository.commit("three", BOB)
    repository.git("merge", "-q", "--no-ff", "-m", "merged", "side", who=CY)
    assert {name for name, _ in told(people_of(repository.root, base))} == {ADA, BOB, CY}


def test_a_history_that_was_cut_says_so(repository: Repository, tmp_path: Path) -> None:
    """As the checkout of a CI job is, unless it is asked for all of it."""
    repository.commit("one", ADA)
    repository.commit("two", BOB)
    clone = tmp_path / "clone"
    repository.git("clone", "-q", "--depth", "1", f"file://{repository.root}", str(clone))
    found = people_of(clone)
    assert {name for name, _ in told(found)} == {BOB}
    assert not found.are_all
    assert people_of(repository.root).are_all


def test_outside_of_git_nobody_is_told(tmp_path: Path) -> None:
    assert people_of(tmp_path) == People((), False)


def test_more_people_than_anybody_looks_at_are_not_all(repository: Repository) -> None:
    others = "\n".join(f"Co-authored-by: x <{number}@air.example>" for number in range(300))
    repository.commit(f"one\n\n{others}", ADA)
    found = people_of(repository.root)
    assert len(found.named) == 200
    assert not found.are_all
    assert (ADA, "authored") in told(found)


def test_an_address_that_breaks_the_line_hides_nobody(repository: Repository) -> None:
    repository.commit("one", BOB)
    repository.commit("two", "ada\x02@air.example")
    assert {name for name, _ in told(people_of(repository.root))} == {"unreadable", BOB}
