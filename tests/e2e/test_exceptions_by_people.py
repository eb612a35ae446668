"""What does not go by itself, typed by people: plan, ticket, waiver, emergency, review, a policy asked beforehand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from rollout_rig import (
    EARLY,
    LATE,
    SHOWN,
    VERSIONS,
    Eventually,
    Lamps,
    lamps,
    rollout_table,
    two_live,
)

from command_line import OK, REFUSED, USAGE, WAITING

LIVE, GOOD, WRONG = (VERSIONS[name] for name in ("live", "good", "wrong"))

POLICY = """
schema = "lockgate.policy/2"
name = "strict"
version = 1
""" + "".join(
    f"""
[tiers.{tier}]
gates = ["perf.absolute"]
relative.production = []
approvals.production = ["owner"]
release_plan = ["production"]
ticket.production = "OPS-[0-9]+"
waivers = {{ max_days = 7, roles = ["risk"] }}
evidence_max_age_days = 30
"""
    for tier in ("low", "moderate", "high", "critical")
)


@pytest.fixture
def project(eventually: Eventually) -> Iterator[Lamps]:
    """1.0.1 is live after 1.0.0; the policy is strict, and releases roll out by steps."""
    with lamps(eventually, two_live) as made:
        made.write("strict.toml", POLICY)
        made.types("policy adopt strict.toml", by="petra").must(OK)
        yield made


def test_a_plan_a_ticket_and_an_approval_are_asked_for_and_shown(project: Lamps) -> None:
    project.is_ready()
    told = project.types(f"evidence lamp@{WRONG} --for prod --check").must(REFUSED)
    assert "missing: governance.release-plan" in told.out
    assert told.out.startswith(f"lamp@{WRONG} for prod, beside what is there: lamp@{GOOD}\n")
    assert f"next: lockgate release-plan lamp@{WRONG} --for prod" in told.out
    draft = project.types(f"release-plan lamp@{WRONG} --for prod").must(OK).out
    assert f"rollback leads to main/lamp@{GOOD}" in draft
    assert "# signal labels: more of its answers turn out wrong by over 0.5" in draft
    project.write("plan.toml", draft.replace('signal = "labels"', 'signal = "pager"'))
    told = project.types(f"release-plan lamp@{WRONG} --for prod --file plan.toml", by="ada").must(REFUSED)
    assert "governance.no-signal" in told.err and "limit errors, labels" in told.err
    project.write("plan.toml", draft)
    project.types(f"release-plan lamp@{WRONG} --for prod --file plan.toml", by="ada").must(OK)
    page = project.types(f"evidence lamp@{WRONG} --for prod --check").must(WAITING).out
    typed = page.partition("next: lockgate ")[2].strip()
    assert typed.startswith(f"approve lamp@{WRONG} --for prod --evidence sha256:")
    told = project.types(typed.replace("--as NAME", "") + " --comment 'talked it over'", by="grace").must(OK)
    assert "approved for prod by grace (owner)" in told.out
    told = project.types(f"approve lamp@{WRONG} --for prod", by="grace").must(OK)
    assert "by grace (owner)" in told.out and "already" in told.out
    page = project.types(f"evidence lamp@{WRONG} --for prod --check").must(OK).out
    assert "risk: more of its answers turn out wrong" in page
    assert f"next: lockgate promote lamp@{WRONG} --to prod --ticket TICKET" in page
    told = project.types(f"promote lamp@{WRONG} --to prod", by="ada").must(REFUSED)
    assert "governance.ticket" in told.err and "limit OPS-[0-9]+" in told.err
    project.types(f"promote lamp@{WRONG} --to prod --ticket OPS-5", by="ada").must(WAITING)
    found = project.types("ticket OPS-5").must(OK).out
    assert f"{SHOWN} #3  lamp@{WRONG}" in found and "approved by grace" in found
    told = project.types(f"explain lamp@{WRONG}").must(OK)
    assert "ticket OPS-5" in told.out and "; talked it over" in told.out
    assert project.types("audit verify").must(OK).out.startswith("ok: ")


def test_the_ticket_comes_from_the_pull_request_of_a_ci_job(project: Lamps) -> None:
    project.is_ready()
    project.types(f"release-plan lamp@{WRONG} --for prod --accept", by="ada").must(OK)
    project.types(f"approve lamp@{WRONG} --for prod", by="grace").must(OK)
    job = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://forge.example",
        "GITHUB_REPOSITORY": "lamps/lamp",
        "GITHUB_REF": "refs/pull/12/merge",
        "GITHUB_HEAD_REF": "OPS-42-brighter",
    }
    project.types(f"promote lamp@{WRONG} --to prod", by="ci", env=job).must(WAITING)
    told = project.types(f"explain lamp@{WRONG}").must(OK).out
    assert "ticket OPS-42, https://forge.example/lamps/lamp/pull/12" in told
    by_address = project.types("ticket https://forge.example/lamps/lamp/pull/12").must(OK).out
    assert f"lamp@{WRONG}" in by_address


def test_an_emergency_goes_past_the_policy_and_is_reviewed(project: Lamps) -> None:
    project.is_ready()
    smash = f"break-glass {SHOWN} --incident INC-4 --reason 'wrong answers'"
    project.types(f"{smash} --hours 9 --to lamp@{LIVE}", by="ivy").must(REFUSED)
    told = project.types(f"{smash} --to lamp@{LIVE} --json", by="ivy").must(OK)
    assert json.loads(told.out)["live"] is True
    assert project.version == LIVE
    status = project.types(f"status {SHOWN}").must(OK).out
    assert "out of policy: it came in by break-glass B-1" in status
    listed = project.types("review list").must(OK).out
    assert "INC-4" in listed and "lockgate review close prod/lamp B-1" in listed
    # What never was live takes a second person.
    project.types(f"break-glass {SHOWN} --use B-1 --to lamp@{WRONG}", by="ivy").must(WAITING)
    project.types(f"break-glass {SHOWN} --second B-1", by="ivy").must(REFUSED)
    project.types(f"break-glass {SHOWN} --second B-1", by="sam").must(OK)
    project.types(f"break-glass {SHOWN} --use B-1 --to lamp@{WRONG}", by="ivy").must(OK)
    assert project.version == WRONG
    project.types(f"review close {SHOWN} B-1 --finding 'was needed'", by="sam").must(REFUSED)
    project.types(f"review close {SHOWN} B-1 --finding 'was needed'", by="rita").must(OK)
    assert "out of policy" not in project.types(f"status {SHOWN}").must(OK).out
    assert "BREAK-GLASS B-1" in project.types("audit log").must(OK).out
    assert f"{SHOWN} #3 " in project.types("ticket INC-4").must(OK).out


def test_a_waiver_is_asked_for_and_granted_by_two_people(project: Lamps) -> None:
    ask = (
        f"waive lamp@{WRONG} --for prod --gate perf.absolute --reason dark --control 'by hand' --ticket OPS-1"
    )
    told = project.types(f"{ask} --days 9", by="ada").must(REFUSED)
    assert "limit 7 days" in told.err
    told = project.types(f"{ask} --days 3 --json", by="ada").must(WAITING)
    assert json.loads(told.out)["waiver"] == "W-1"
    assert "W-1 of perf.absolute" in project.types("review list").must(OK).out
    project.types("waive lamp --for prod --grant W-1", by="ada").must(REFUSED)
    project.types("waive lamp --for prod --grant W-1", by="rita").must(OK)
    project.types("waive lamp --for prod --end W-1 --reason 'mended'", by="rita").must(OK)
    project.types("waive lamp --for prod --grant W-x", by="rita").must(USAGE)
    hard = ask.replace("perf.absolute", "data.contract")
    assert "never waived" in project.types(hard, by="ada").must(REFUSED).err


def test_a_policy_is_tested_and_replayed_before_it_is_adopted(project: Lamps) -> None:
    assert re.search(r"\d+ cases, 0 otherwise", project.types("policy test").must(OK).out)
    project.write("strict.cases.toml", '[[case]]\nname = "free"\ntier = "low"\nexpect = "allowed"\n')
    told = project.types("policy test strict.toml").must(REFUSED)
    assert "expected allowed, got waiting" in told.out
    told = project.types("policy replay strict.toml").must(OK)
    assert "2 releases, 2 would have been blocked" in told.out and "governance.ticket" in told.out
    before = project.types("audit log").must(OK).out
    project.types(f"evidence lamp@{WRONG} --for prod --check --policy strict.toml").must(REFUSED)
    assert project.types("audit log").must(OK).out == before


def test_somebodys_no_and_somebodys_second_thoughts(project: Lamps) -> None:
    project.types(f"release-plan lamp@{WRONG} --for prod --accept", by="ada").must(OK)
    project.types(f"approve lamp@{WRONG} --for prod", by="grace").must(OK)
    project.types(f"approve lamp@{WRONG} --for prod --revoke 'read it again'", by="grace").must(OK)
    project.types(f"evidence lamp@{WRONG} --for prod --check").must(WAITING)
    project.types(f"reject lamp@{WRONG} --for prod --reason 'too dark'", by="grace").must(OK)
    told = project.types(f"evidence lamp@{WRONG} --for prod --check").must(REFUSED).out
    assert "grace declined it for prod in the name of owner: too dark" in told
    project.types(f"approve lamp@{WRONG} --for prod", by="grace").must(OK)
    project.types(f"evidence lamp@{WRONG} --for prod --check").must(OK)


def test_a_policy_asks_for_a_rollout_and_says_what_to_write(eventually: Eventually) -> None:
    with lamps(eventually, two_live, rollout=rollout_table((EARLY, LATE))) as project:
        asked = 'rollout.production = [{ stage = "shadow" }, { stage = "canary", max_share = 0.3 }]\n'
        text = re.sub(r"(?m)^(approvals|release_plan|ticket)\S* = .*\n", "", POLICY)
        project.write("strict.toml", text.replace("evidence_max", f"{asked}evidence_max"))
        project.types("policy adopt strict.toml", by="petra").must(OK)
        assert "a rollout in production: shadow, then canary" in project.types("policy show").must(OK).out
        project.is_ready()
        told = project.types(f"promote lamp@{WRONG} --to prod", by="ada").must(REFUSED)
        assert "governance.rollout" in told.err and "prod asks for a shadow before everybody" in told.err
        assert "{ weight = 0, min_units = 1 }" in told.err
        config = project.read("lockgate.toml")
        project.write(
            "lockgate.toml", config.replace("steps = [", "steps = [{ weight = 0, min_units = 1 }, ")
        )
        project.types("declare", by="petra").must(OK)
        # Without traffic it stays where it is, and by hand no stage is left out.
        project.types(f"promote lamp@{WRONG} --to prod", by="ada").must(WAITING)
        eventually(lambda: project.types(f"status {SHOWN}").must(OK).out.count("shadow"))
        told = project.types(f"rollout promote {SHOWN} --full --reason hurry", by="ada").must(REFUSED)
        assert "governance.rollout" in told.err and "break-glass" in told.err
        project.types(f"rollback {SHOWN}", by="ada").must(OK)
        assert project.types("audit verify").must(OK).out.startswith("ok: ")
