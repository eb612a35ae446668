"""Given a team whose CI registers every version, when somebody has written a commit, then he does not approve what it
became: not by the word of the commit, not by that of the job's token, and not under another address. Others do.

Everything is real: the identity provider, the federation of the CI's jobs, the hub, the repository.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from importlib.resources import files

import pytest
from postgres import PostgresServer
from team_rig import Actor, Team

from command_line import OK, REFUSED, Typed

pytestmark = pytest.mark.service

ONE, TWO = "flight-delay@1.0.0", "flight-delay@1.1.0"
ADA, BOB, HOME, FORGE = "ada@example.org", "bob@example.org", "bob@home.example", "noreply@forge.example"
DUTIES, UNKNOWN = "governance.separation-of-duties", "governance.unknown-maker"


PACK = files("lockgate.app").joinpath("policies/default.toml")


class Story:
    def __init__(self, team: Team) -> None:
        self.team = team
        self.told: dict[str, Typed] = {}

    def commits(self, message: str, *, author: str, committer: str) -> None:
        people = {"AUTHOR": author, "COMMITTER": committer}
        names = {f"GIT_{role}_{part}": value for role, value in people.items() for part in ("NAME", "EMAIL")}
        for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", message)):
            git = ["git", "-C", str(self.team.project), *arguments]
            subprocess.run(git, env={**os.environ, **names}, check=True, timeout=60)

    @cached_property
    def people(self) -> dict[str, Actor]:
        self.team.first.start()
        people = {name: self.team.person(name).logs_in() for name in ("ann", "kim", "ada", "bob")}
        for line in (
            "grant kim@example.org admin",
            f"grant {ADA} approver:owner",
            f"grant {BOB} approver:owner",
            "grant kim@example.org approver:owner",
            "create-account ci --purpose builds",
            "create-account validator --purpose judges",
            "grant service:ci ci --env dev",
            "grant service:validator validator",
        ):
            people["ann"].types(f"access {line}").must(OK)
        people["kim"].types(
            f"access federate release service:ci --issuer {self.team.provider.issuer} "
            "--claim repository=acme/fraud --claim 'ref=refs/tags/*' --claim workflow=release"
        ).must(OK)
        people["kim"].has_a_checkout(self.team.project, keys=False).types("declare").must(OK)
        return people

    @cached_property
    def validator(self) -> Actor:
        token = self.people["kim"].asks("token issue --for service:validator --days 1")["token"]
        return self.team.machine("validator", token)

    def built(self, client: str, version: str) -> None:
        ci = self.team.job("ci", client).has_a_checkout(self.team.project, keys=True)
        self.told[f"built {version}"] = ci.types("train --json").must(OK)
        self.validator.has_a_checkout(self.team.project, keys=False).types(f"judge {version}").must(OK)

    @cached_property
    def first(self) -> None:
        """Ada commits, and her push starts the job that registers."""
        people = self.people
        self.commits("a model", author=ADA, committer=ADA)
        self.built("adas-job", ONE)
        self.told["by ada"] = people["ada"].types(f"approve {ONE} --for prod")
        self.told["by bob"] = people["bob"].types(f"approve {ONE} --for prod")
        self.told["page"] = people["bob"].types(f"evidence {ONE} --for prod")

    @cached_property
    def second(self) -> None:
        """Bob commits at home and merges in the browser; the job's token names nobody."""
        self.first  # noqa: B018
        file = self.team.project / "lockgate.toml"
        file.write_text(file.read_text().replace("rounds = 20", "rounds = 25"))
        self.commits("more rounds", author=HOME, committer=FORGE)
        self.built("job", TWO)
        told, ada, bob, kim, ann = self.told, *(self.people[name] for name in ("ada", "bob", "kim", "ann"))
        strict = kim.folder / "strict.toml"
        strict.write_text(
            PACK.read_text().replace("[tiers.moderate]", '[tiers.moderate]\nknown_makers = ["production"]')
        )
        line = f"evidence {TWO} --for prod --check --policy strict.toml"
        told["unknown"] = kim.types(line)
        told["by ada again"] = ada.types(f"approve {TWO} --for prod")
        told["unnoticed"] = bob.types(f"approve {TWO} --for prod").must(OK)
        ann.types(f"access alias {HOME} {BOB}").must(OK)
        kim.types(f"access alias {FORGE} service:forge").must(OK)
        told["noticed"] = bob.types(f"evidence {TWO} --for prod")
        told["by bob again"] = bob.types(f"approve {TWO} --for prod")
        told["off the list"] = bob.types(f"access unalias {HOME} {BOB}")
        told["by kim alone"] = kim.types(f"approve {TWO} --for prod")
        ann.types(f"access alias {FORGE} service:forge").must(OK)
        told["by kim"] = kim.types(f"approve {TWO} --for prod")
        told["counted"] = kim.types(f"evidence {TWO} --for prod")
        told["known"] = kim.types(line)


@pytest.fixture(scope="module")
def story(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    postgres.administer("CREATE SCHEMA {}", "postgres", "makers_story")
    with ExitStack() as running:
        team = Team(tmp_path_factory.mktemp("makers"), postgres.dsn(schema="makers_story"), running)
        try:
            yield Story(team)
        finally:
            if team.first.process is not None:
                team.first.end()


def test_the_author_of_a_commit_does_not_approve_what_the_ci_registered_of_it(story: Story) -> None:
    story.first  # noqa: B018
    told = story.told
    told["by ada"].must(REFUSED, DUTIES, f"{ADA} wrote ", "cannot approve it")
    told["by bob"].must(OK, f"by {BOB} (owner)")
    told["page"].must(OK, f"approvals for prod: 1 of 1 ({BOB})", "github:ada-at-forge", f"{ADA} (authored")


def test_who_started_the_job_is_told_by_its_token_and_by_nobody_else(story: Story) -> None:
    story.second  # noqa: B018
    ann, bob = story.people["ann"], story.people["bob"]
    (started,) = [one for one in bob.asks(f"explain {ONE}")["makers"] if one["did"] == "started"]
    assert (started["name"], started["known"]) == ("github:ada-at-forge", False)
    assert "started" not in [one["did"] for one in bob.asks(f"explain {TWO}")["makers"]]
    ann.types("access grant ann@example.org auditor").must(OK, "another admin confirms")
    story.people["kim"].types("access confirm ann@example.org auditor").must(OK)
    changes = ann.asks("audit log --since 0 --limit 1000")["changes"]
    exchanged = [one["summary"] for one in changes if "given to a job by rule" in one["summary"]]
    assert [one.rpartition(", ")[2] for one in exchanged] == [
        "started by github:ada-at-forge",
        "started by nobody it names",
    ]
    ann.types("audit verify").must(OK, "ok:")


def test_what_was_let_in_nowhere_yet_still_has_its_makers(story: Story) -> None:
    """Ada's commit is in the second version too, though the first one was registered meanwhile."""
    story.second  # noqa: B018
    story.told["by ada again"].must(REFUSED, DUTIES, f"{ADA} wrote ")


def test_another_address_counts_from_when_it_is_known_whose_it_is(story: Story) -> None:
    story.second  # noqa: B018
    told = story.told
    told["unknown"].must(REFUSED, UNKNOWN, HOME, FORGE)
    told["noticed"].must(
        OK, "approvals for prod: 0 of 1", f"{BOB} had a hand in it", f"{HOME} = {BOB} (authored"
    )
    told["by bob again"].must(REFUSED, DUTIES, f"as {HOME} and cannot approve it")
    told["off the list"].must(REFUSED, "hub.permission")
    told["by kim alone"].must(REFUSED, DUTIES, f"alone says who {FORGE} is")
    told["by kim"].must(OK, "by kim@example.org (owner)")
    assert UNKNOWN not in told["known"].text
    told["counted"].must(OK, "approvals for prod: 1 of 1 (kim@example.org)")
