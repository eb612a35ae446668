"""Given a team with a hub on PostgreSQL, an object store, an identity provider and a CI system, when a model goes all
the way from a commit to its callers and back, then everybody did what is his to do and nothing else, and it can be
shown afterwards.

The story is told once, chapter by chapter; the tests look at what was said on the way.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property, partial
from importlib import resources
from typing import Any

import pytest
from postgres import PostgresServer
from team_rig import Actor, Team, all_at_once

from command_line import OK, REFUSED, USAGE, WAITING, Typed
from lockgate.testing.ticket_desk import OPEN, saying

pytestmark = pytest.mark.service

ONE, TWO = "flight-delay@1.0.0", "flight-delay@1.1.0"


class Story:
    """Each chapter begins where the one before it ends; whoever needs one has it told.

    Attributes:
        told: what commands on the way said, by a name of their own.
    """

    def __init__(self, team: Team, eventually: Callable[..., Any]) -> None:
        self.team = team
        self._eventually = eventually
        self.told: dict[str, Typed] = {}

    # -- the team gathers

    @cached_property
    def people(self) -> dict[str, Actor]:
        """Ann is admin by the configuration of the hub; all others are somebody by what she and Kim gave them."""
        self.team.first.start()
        people = {
            name: self.team.person(name) for name in ("ann", "kim", "bob", "olga", "aud", "ivy", "sid", "sue")
        }
        all_at_once(*(person.logs_in for person in people.values()))
        self.told["before any role"] = people["olga"].types("status")
        ann, kim = people["ann"], people["kim"]
        lines = (
            "grant kim@example.org admin",
            "grant kim@example.org approver:owner",
            "grant bob@example.org approver:owner --env prod",
            "grant bob@example.org author --namespace main",
            "grant olga@example.org operator --namespace main",
            "grant aud@example.org auditor",
            "grant ivy@example.org incident",
            "grant sid@example.org security",
            "grant sue@example.org security",
            "create-account ci --purpose 'builds, and brings as far as staging'",
            "create-account validator --purpose 'runs the gates'",
        )
        gifts = (
            "grant service:ci ci --namespace main --env dev --env staging",
            "grant service:validator validator --namespace main",
        )
        for together in (lines, gifts):
            for typed in all_at_once(*(partial(ann.types, f"access {line}") for line in together)):
                typed.must(OK)
        self.told["own gift"] = ann.types("token issue --for service:validator")
        rule = (
            f"access federate release service:ci --issuer {self.team.provider.issuer} "
            "--claim repository=acme/fraud --claim 'ref=refs/tags/*' --claim workflow=release"
        )
        self.told["own rule"] = ann.types(rule)
        kim.types(rule).must(OK)
        return people

    @cached_property
    def validator(self) -> Actor:
        issued = self.people["kim"].asks("token issue --for service:validator --days 1")
        return self.team.machine("validator", issued["token"]).has_a_checkout(self.team.project, keys=False)

    @cached_property
    def declared(self) -> None:
        people = self.people
        kim = people["kim"].has_a_checkout(self.team.project, keys=False)
        self.told["declared by the author"] = (
            people["bob"].has_a_checkout(self.team.project, keys=True).types("declare")
        )
        kim.types("declare").must(OK)
        shipped = resources.files("lockgate.app").joinpath("policies/default.toml").read_text()
        asking = re.sub(r"(?m)^ticket\.production = .*$", r'\g<0>\ntracker = ["production"]', shipped)
        kim.writes("team.toml", asking.replace('name = "default"', 'name = "team"'))
        kim.types("policy adopt team.toml").must(OK)

    # -- a version is built by the CI, judged by somebody else, approved by a third, released by a fourth

    @cached_property
    def ci(self) -> Actor:
        self.declared  # noqa: B018
        return self.team.job("ci").has_a_checkout(self.team.project, keys=True)

    @cached_property
    def judged(self) -> Any:
        told, ci = self.told, self.ci
        told["built"] = ci.types("train --json").must(OK)
        told["judged by the CI"] = ci.types(f"judge {ONE}")
        for verb in ("train", "check", "materialize"):
            told[f"{verb} by a validator"] = self.validator.types(verb)
        told["brought online"] = ci.types("materialize --until 2013-09-10T12:00Z").must(OK)
        told["promoted unjudged"] = ci.types(f"promote {ONE} --to staging")
        told["judged"] = self.validator.types(f"judge {ONE}").must(OK)
        return told["built"].json

    # -- at night somebody shuts it away; by day two others let it out

    @cached_property
    def shut_away(self) -> None:
        self.judged  # noqa: B018
        told, ivy, sid, sue = self.told, *(self.people[name] for name in ("ivy", "sid", "sue"))
        lift = f"quarantine {ONE} --lift --reason 'no leak'"
        told["shut away"] = ivy.types(f"quarantine {ONE} --reason 'a leak?'")
        told["let out by who shut it"] = ivy.types(lift)
        told["let out unseen"] = sid.types(lift)
        told["judged in quarantine"] = self.validator.types(f"judge {ONE}")
        told["let out by one"] = sid.types(lift)
        told["let out by one, twice"] = sid.types(lift)
        told["waits"] = self.people["aud"].types("review list")
        told["let out by two"] = sue.types(lift)

    @cached_property
    def in_staging(self) -> None:
        self.shut_away  # noqa: B018
        self.team.plane  # noqa: B018
        self._through_staging(ONE)
        self.told["promoted by the CI"] = self.ci.types(f"promote {ONE} --to prod --ticket OPS-1")

    def _through_staging(self, version: str) -> None:
        for environment in ("dev", "staging"):
            self.ci.types(f"promote {version} --to {environment}").must(OK)

    @cached_property
    def live(self) -> None:
        self.in_staging  # noqa: B018
        told, people = self.told, self.people
        told["too early"] = people["olga"].types(f"promote {ONE} --to prod --ticket OPS-1")
        told["approved by a machine"] = self.validator.types(f"approve {ONE} --for prod")
        told["approved unseen"] = people["olga"].types(f"approve {ONE} --for prod")
        told["planned by the CI"] = self.ci.types(f"release-plan {ONE} --for prod --accept")
        told["planned"] = people["bob"].types(f"release-plan {ONE} --for prod --accept")
        told["judged for prod"] = self.validator.types(f"judge {ONE} --for prod")
        told["unapproved"] = people["olga"].types(f"promote {ONE} --to prod --ticket OPS-1")
        told["page"] = people["bob"].types(f"evidence {ONE} --for prod")
        told["approved"] = people["bob"].types(f"approve {ONE} --for prod --comment 'read it all'")
        told["without a ticket"] = people["olga"].types(f"promote {ONE} --to prod")
        desk = self.team.desk
        desk.reply = saying({"known": False, "open": False})
        told["with a ticket of nobody"] = people["olga"].types(f"promote {ONE} --to prod --ticket OPS-1")
        desk.reply = lambda question: (503, b"")
        told["tracker away"] = people["olga"].types(f"promote {ONE} --to prod --ticket OPS-1")
        desk.reply = saying({**OPEN, "approved": True})
        told["live"] = people["olga"].types(f"promote {ONE} --to prod --ticket OPS-1")

    # -- a second version, by a person; its way is a rollout, and back it goes through another hub

    @cached_property
    def following(self) -> None:
        self.live  # noqa: B018
        told, bob, kim, olga = self.told, *(self.people[name] for name in ("bob", "kim", "olga"))
        self.answered_by_one = self.team.plane.answer("prod/flight-delay")
        bob.edits("lockgate.toml", ("rounds = 20", "rounds = 25"))
        told["built by Bob"] = bob.types("train --json").must(OK)
        self.validator.types(f"judge {TWO}").must(OK)
        self._through_staging(TWO)
        self.validator.types(f"judge {TWO} --for prod").must(OK)
        bob.types(f"release-plan {TWO} --for prod --accept").must(OK, "rollback to main/flight-delay@1.0.0")
        told["approved by its author"] = bob.types(f"approve {TWO} --for prod")
        kim.types(f"approve {TWO} --for prod").must(OK)
        told["on its way"] = olga.types(f"promote {TWO} --to prod --ticket OPS-2")
        told["rollout"] = olga.types("rollout show prod/flight-delay")

    @cached_property
    def followed(self) -> None:
        """With callers, the rollout comes to its end."""
        self.following  # noqa: B018
        callers = iter(range(1_000_000))

        def asked() -> bool:
            for _ in range(30):
                assert self.team.plane.answer("prod/flight-delay", f"caller-{next(callers)}")[0] == 200
            line = self.people["aud"].asks("status")["endpoints"]["prod/flight-delay"]
            return bool(line["live"]["version"] == TWO and line["rollout"] is None)

        self._eventually(asked, 60.0)
        self.answered_by_two = self.team.plane.answer("prod/flight-delay")

    @cached_property
    def taken_back(self) -> Actor:
        """The first hub is killed; Olga, with a token that any hub of the store knows, goes on at the second."""
        self.followed  # noqa: B018
        olga = self.people["olga"]
        token = olga.asks("token issue --label pager --days 1")["token"]
        before = olga.asks("status")["endpoints"]
        self.team.second.start()
        self.team.first.end(signal.SIGKILL)
        pager = self.team.machine("pager", token, at=self.team.second)
        self.same = pager.asks("status")["endpoints"] == before
        self.told["rolled back"] = pager.types("rollback prod/flight-delay --reason 'callers complain'")
        self.answered_after = self.team.plane.answer("prod/flight-delay")
        # On the machine of the hub and the data plane, with its configuration and her token.
        drill = f"drill rollback prod/flight-delay --n 3 --config {self.team.second.file}"
        here: dict[str, Any] = {"hub": False, "env": self.team.env}
        self.told["drilled nowhere"] = pager.types(drill, **here)
        drill += f" --port {self.team.plane.port}"
        self.told["drilled by a claim"] = pager.types(f"{drill} --as olga@example.org", **here)
        self.told["drilled"] = pager.types(f"{drill} --json", **here)
        return pager

    # -- afterwards

    @cached_property
    def auditor(self) -> Actor:
        self.taken_back  # noqa: B018
        return self.team.person("aud", at=self.team.second).logs_in()


@pytest.fixture(scope="module")
def story(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory, eventually: Callable[..., Any]
) -> Iterator[Story]:
    postgres.administer("CREATE SCHEMA {}", "postgres", "team_story")
    with ExitStack() as running:
        team = Team(tmp_path_factory.mktemp("team"), postgres.dsn(schema="team_story"), running)
        try:
            yield Story(team, eventually)
        finally:
            for hub in (team.first, team.second):
                if hub.process is not None:
                    hub.end()


def test_nobody_is_somebody_before_he_was_made_it(story: Story) -> None:
    people, told = story.people, story.told
    told["before any role"].must(REFUSED, "ask an admin: lockgate access grant olga@example.org viewer")
    assert people["olga"].asks("whoami")["roles"] == ["operator"]
    for name in ("own gift", "own rule"):
        told[name].must(WAITING, "access.own-gift")


def test_what_the_project_declares_is_an_admins_to_tell(story: Story) -> None:
    story.declared  # noqa: B018
    story.told["declared by the author"].must(REFUSED, "lockgate access grant bob@example.org admin")


def test_the_ci_builds_and_does_not_judge(story: Story) -> None:
    built, told = story.judged, story.told
    assert (built["version"], built["state"]) == (ONE, "candidate")
    told["built"].must(OK, f"a validator judges it: lockgate judge {ONE}")
    told["judged by the CI"].must(REFUSED, "gates.record-evidence", "validator")
    told["promoted unjudged"].must(REFUSED, "registry.state", "delivery.ladder")
    # Who may not tell the hub what comes of it is told so before minutes of work.
    assert told["judged by the CI"].out == ""
    told["judged by the CI"].must(REFUSED, "nothing was begun")
    for verb in ("train", "check", "materialize"):
        told[f"{verb} by a validator"].must(REFUSED, "nothing was begun", "data.record-snapshot")
        assert "ran " not in told[f"{verb} by a validator"].text
    story.in_staging  # noqa: B018
    told["promoted by the CI"].must(REFUSED, "hub.permission")


def test_what_was_brought_online_here_is_on_record_there(story: Story) -> None:
    told = story.judged and story.told
    told["brought online"].must(OK, "last_leg", "new of")
    lines = story.people["aud"].asks("audit log")["changes"]
    (line,) = [one for one in lines if one["type"] == "features.views-materialized/1"]
    assert line["actor"] == "service:ci"
    assert "last_leg" in line["summary"]


def test_what_one_has_shut_away_two_others_let_out(story: Story) -> None:
    story.shut_away  # noqa: B018
    told = story.told
    told["shut away"].must(OK, "quarantined")
    told["let out by who shut it"].must(REFUSED, "hub.permission", "security")
    told["let out unseen"].must(REFUSED, "governance.not-judged-since", f"lockgate judge main/{ONE}")
    told["judged in quarantine"].must(REFUSED, "quarantined", "--lift")
    for said in ("let out by one", "let out by one, twice"):
        told[said].must(WAITING, "is proposed to be let out", "a second person of security")
    told["waits"].must(OK, f"{ONE}: sid@example.org proposes to let it out: no leak")
    told["let out by two"].must(OK, f"{ONE} let out of quarantine")
    lines = story.people["aud"].asks("audit log --since 0 --limit 1000")["changes"]
    by = {
        one["type"]: one["actor"] for one in lines if "quarantine" in one["type"] or "lowering" in one["type"]
    }
    assert by == {
        "registry.version-quarantined/1": "ivy@example.org",
        "registry.lowering-proposed/1": "sid@example.org",
        "registry.lowering-agreed/1": "sue@example.org",
        "registry.quarantine-lifted/1": "sue@example.org",
    }


def test_only_somebody_else_lets_it_in(story: Story) -> None:
    story.live  # noqa: B018
    told = story.told
    told["too early"].must(REFUSED, f"lockgate judge main/{ONE} --for prod", "release-plan")
    told["planned by the CI"].must(REFUSED, "--env prod")
    told["planned"].must(OK, "rollback to fallback")
    told["approved by a machine"].must(REFUSED, "is not given to a service account")
    told["approved unseen"].must(REFUSED, "hub.permission")
    told["unapproved"].must(WAITING, "governance.approval").must(WAITING, f"approve main/{ONE} --for prod")
    assert "--as" not in told["unapproved"].text
    told["page"].must(OK, "still owner", f"next: lockgate approve {ONE} --for prod --evidence sha256:")
    assert "--as" not in told["page"].text
    told["approved"].must(OK, "by bob@example.org (owner)")
    told["without a ticket"].must(REFUSED, "governance.ticket", "--ticket")
    told["with a ticket of nobody"].must(REFUSED, "governance.ticket-unknown")
    told["tracker away"].must(WAITING, "governance.tracker-silent", "promote again")
    assert {one["actor"] for one in story.team.desk.asked} == {"olga@example.org"}
    told["live"].must(OK, f"{ONE} is live on prod/flight-delay")


def test_a_release_rolls_out_and_is_taken_back_by_another_hub(story: Story) -> None:
    story.taken_back  # noqa: B018
    told = story.told
    told["approved by its author"].must(REFUSED, "bob@example.org")
    told["on its way"].must(WAITING, "in 2 steps", "lockgate rollout show prod/flight-delay")
    told["rollout"].must(OK, TWO)
    for status, body in (story.answered_by_one, story.answered_by_two, story.answered_after):
        assert status == 200, body
    versions = [body["version"] for _, body in (story.answered_by_one, story.answered_by_two)]
    assert [ONE.partition("@")[2], TWO.partition("@")[2]] == versions
    assert story.same, "both hubs tell the same of one store"
    told["rolled back"].must(OK, f"{TWO} -> {ONE}")
    assert story.answered_after[1]["predictions"] == story.answered_by_one[1]["predictions"]
    told["drilled nowhere"].must(USAGE, "--port")
    told["drilled by a claim"].must(REFUSED, "only claimed")
    drilled = told["drilled"].must(OK, "acting as olga@example.org").json
    assert (drilled["passed"], drilled["n_flips"], drilled["n_wrong"]) == (True, 3, 0)
    assert story.team.plane.answer("prod/flight-delay")[1]["version"] == ONE.partition("@")[2]


def test_it_can_be_shown_afterwards_who_let_it_in(story: Story) -> None:
    auditor = story.auditor
    auditor.types("audit verify").must(OK, "ok:")
    text = auditor.types(f"explain {ONE}").must(OK).out
    assert re.search(r"approved +for prod by bob@example.org \(owner\)", text)
    assert re.search(
        r"release .*prod/flight-delay #1 .*ticket OPS-1 \(Raise the roof, open and approved, .*by olga@example",
        text,
    )
    assert "made by     service:ci" in text
    dossier = auditor.types(f"dossier {ONE}").must(OK).out
    assert "bob@example.org" in dossier
    assert "olga@example.org" in dossier


def test_an_approval_is_proven_where_there_is_no_hub(story: Story) -> None:
    auditor = story.auditor
    changes = auditor.asks("audit log --since 0 --limit 1000")["changes"]
    (approval,) = [one for one in changes if f"{ONE} approved for prod" in one["summary"]]
    auditor.types(f"audit prove {approval['seq']} --out approval.json").must(OK, "--key KEY")
    (key,) = re.findall(r"checked with the key (\S+)", story.team.second.checks())
    checked = auditor.types(f"audit check approval.json --key {key}", hub=False).must(OK)
    assert "bob@example.org" in checked.text
    proof = auditor.folder / "approval.json"
    proof.write_text(proof.read_text().replace("bob@", "eve@"))
    auditor.types(f"audit check approval.json --key {key}", hub=False).must(7)


def test_a_package_goes_by_a_registry_and_is_the_same(story: Story) -> None:
    story.taken_back  # noqa: B018
    image = f"{story.team.images.host}/models/flight-delay"
    pager = story.taken_back.has_a_checkout(story.team.project, keys=False)
    # Who has no key that signs brings the package and what is signed already, and says so.
    assert "transport.nobody-signs" in pager.types(f"push {ONE} {image}").text
    pushed = pager.asks(f"push {ONE} {image} --without all")
    kim = story.people["kim"]
    pulled = kim.types(f"pull {image}:1.0.0 --json", hub=False).must(OK).json
    assert pulled["digest"] == pushed["digest"] == story.judged["package"]


def test_who_has_only_the_registry_and_two_public_keys_knows_who_approved(story: Story) -> None:
    image = f"{story.team.images.host}/models/attested"
    done = story.taken_back.has_a_checkout(story.team.project, keys=True).asks(f"push {ONE} {image}")
    assert done["n_signed"] > 4
    (key,) = re.findall(r"checked with the key (\S+)", story.team.second.checks())
    asked = f"verify {image}:1.0.0 --trust trust/signing.pub --journal-key {key} --for prod"
    kim = story.people["kim"]
    known = kim.types(f"{asked} --require approval:owner --require promotion --json", hub=False).must(OK)
    approvals = [
        one["claim"]
        for one in known.json["attestations"]
        if one["claim"] and one["claim"]["kind"] == "approval"
    ]
    assert {(one["by"], one["result"]) for one in approvals} == {("bob@example.org", "approved")}
    kim.types(f"{asked} --require approval:risk", hub=False).must(REFUSED, "attested.approval")


def test_without_the_bucket_endpoints_come_back_and_go_back(
    story: Story, eventually: Callable[..., Any]
) -> None:
    """The last chapter: the bucket goes, and the data plane is started again without it."""
    pager, team = story.taken_back, story.team
    team.bucket_goes()
    plane = team.plane_starts_again()
    eventually(lambda: plane.answer("prod/flight-delay")[0] == 200, 60.0)
    ladder = {name: plane.answer(f"{name}/flight-delay") for name in ("dev", "staging", "prod")}
    assert {name: status for name, (status, _) in ladder.items()} == dict.fromkeys(ladder, 200), ladder
    assert ladder["prod"][1] | {"request_id": ""} == story.answered_after[1] | {"request_id": ""}
    assert ladder["staging"][1]["version"] == TWO.partition("@")[2]
    # The version before is ready too, and the way there asks the bucket for nothing.
    line = pager.asks("status")["endpoints"]["prod/flight-delay"]
    assert line["rollback_ready"]["ready"], line
    pager.types("rollback prod/flight-delay --reason 'and forth'").must(OK, f"{ONE} -> {TWO}")
    status, body = plane.answer("prod/flight-delay")
    assert (status, body["predictions"]) == (200, story.answered_by_two[1]["predictions"])
