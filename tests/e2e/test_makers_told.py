"""A checkout tells who made a version: what its commits say, and that they are not all there when they are not."""

from __future__ import annotations

import subprocess

import pytest
from operator_story import Given, Project, Then, When

ADA, BOB = "ada@air.example", "bob@air.example"


def committed(project: Project, message: str, who: str) -> None:
    git = ["git", "-C", str(project.root), "-c", f"user.name={who}", "-c", f"user.email={who}"]
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", message)):
        subprocess.run([*git, *arguments], check=True)


def head_of(project: Project) -> str:
    command = ["git", "-C", str(project.root), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(given: Given) -> Project:
    """Version 1.0.0 was made outside of git; from then on Ada and Bob commit."""
    project = given.version_one_is_live()
    committed(project, "what there was", ADA)
    given.a_file("evaluation/more.md", "More.\n")
    committed(project, "more", BOB)
    return project


def told(project: Project) -> tuple[set[tuple[str, str]], str | None]:
    answer = project.asks("explain flight-delay@1.1.0")
    return {(one["name"], one["did"]) for one in answer["makers"]}, answer["makers_told_since"]


def test_everybody_whom_the_commits_name_is_told_once(project: Project, when: When, then: Then) -> None:
    when.ada("train")
    then.it_succeeds()
    everybody = {(ADA, "authored"), (ADA, "committed"), (BOB, "authored"), (BOB, "committed")}
    assert told(project) == ({("ada", "registered"), ("ada", "ran")} | everybody, "")
    when.ada("explain flight-delay@1.1.0")
    then.it_says("made by     ada", f"{BOB} = nobody known (authored, committed {head_of(project)[:7]})")
    when.ada("makers flight-delay@1.1.0")
    then.it_says("ada (registered, ran)", ADA)
    n_events = len(project.journal())
    when.ada("train")
    assert not [one for one in project.journal()[n_events:] if "makers" in one["event"]["type"]]
    when.somebody("dossier flight-delay@1.1.0")
    then.it_says("none of them can approve it", BOB)
    then.the_audit_holds()


def test_a_checkout_that_was_cut_says_so_and_a_whole_one_makes_up_for_it(
    project: Project, when: When, then: Then
) -> None:
    shallow = project.root / ".git" / "shallow"
    shallow.write_text(head_of(project) + "\n")
    when.ada("train")
    then.it_succeeds()
    makers, since = told(project)
    assert (BOB, "authored") in makers
    assert (ADA, "authored") not in makers
    assert since is None
    when.ada("explain flight-delay@1.1.0")
    then.it_says("whom the commits name that were not in the checkout")
    shallow.unlink()
    when.grace("train")
    then.it_succeeds()
    makers, since = told(project)
    assert {(ADA, "authored"), ("grace", "told")} <= makers
    assert since == ""
