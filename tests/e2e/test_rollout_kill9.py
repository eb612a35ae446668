"""Whatever dies while a release rolls out, whenever: the next process goes on to the same end, by the same counts."""

from __future__ import annotations

import os
import signal
from typing import Any

from rollout_rig import (
    EARLY,
    N_KEYS,
    SHOWN,
    SOAK,
    VERSIONS,
    Eventually,
    Lamps,
    Traffic,
    lamps,
    rollout_table,
    versions_of,
)

from command_line import OK
from lockgate.delivery.rollouts.verdict import judge

LIVE, GOOD = VERSIONS["live"], VERSIONS["good"]


def up_dies(project: Lamps, place: str, *then: str | int) -> None:
    """`lockgate up` runs until it is killed at `place`; the journal holds, and says where the rollout is now."""
    process = project.up_that_dies_at(place)
    process.wait(60)
    assert process.returncode == -signal.SIGKILL, (project.dot / "up.log").read_text()[-4000:]
    assert project.at == then
    project.audit_holds()


def killed_on(project: Lamps, *step: str | int) -> None:
    """kill -9 on a step whose traffic nobody has looked at yet."""
    project.is_ready()
    project.reaches(*step)
    with project.frozen():
        versions_of(project.burst())
        project.kills_up()
    assert project.at == step
    project.audit_holds()


def verdicts_are_those_of_the_files(project: Lamps, *passed: int) -> None:
    """Each verdict a step was passed by is what anybody concludes from the capture files now."""
    steps = project.steps()
    assert steps is not None
    look = project.counted()
    found = {step: verdict for step, verdict in project.judged() if verdict.outcome in ("pass", "fail")}
    assert tuple(found) == passed
    for step, verdict in found.items():
        assert judge(look, steps.policy, step) == verdict


def test_the_controller_dies_in_every_state_of_a_good_release(eventually: Eventually) -> None:
    confirm, judged = "delivery.confirm-plan", "delivery.judge-rollout"
    with lamps(eventually) as project:
        project.begin()
        assert project.state == "preparing"
        up_dies(project, f"{confirm}@decided", "preparing", -1)
        # The first look, at a step that nobody was seen in yet.
        up_dies(project, f"{judged}@decided", "shadow", 0)
        killed_on(project, "shadow", 0)
        up_dies(project, f"{judged}@decided", "shadow", 0)
        up_dies(project, f"{judged}@committed", "moving", 0)
        up_dies(project, f"{confirm}@decided", "moving", 0)
        up_dies(project, f"{confirm}@committed", "canary", 1)
        killed_on(project, "canary", 1)
        project.types(f"rollout pause {SHOWN} --reason lunch", by="sre").must(OK)
        project.is_ready()
        eventually(lambda: project.judged()[-1][1].outcome == "pass")
        project.kills_up()
        assert project.at == ("paused", 1)
        project.is_ready()
        assert "paused by sre: lunch" in project.types(f"rollout show {SHOWN}").must(OK).out
        project.types(f"rollout resume {SHOWN}", by="sre").must(OK)
        project.reaches("canary", 2)
        project.kills_up()
        killed_on(project, "canary", 2)
        killed_on(project, "soak", 3)
        up_dies(project, f"{judged}@committed", "completing", 3)
        up_dies(project, f"{confirm}@decided", "completing", 3)
        assert project.version == LIVE
        project.is_ready()
        project.reaches("")
        assert project.version == GOOD and set(versions_of(project.burst()).values()) == {GOOD}
        verdicts_are_those_of_the_files(project, 0, 1, 2, 3)
        assert sum(one.n_canary for one in project.counted().segments if one.stage == "soak") == N_KEYS
        advanced = [entry["event"]["step"] for entry in project.journal("delivery.rollout-advanced/")]
        assert advanced == [1, 2, 3, 4], "each step was left once"
        assert len(project.journal("delivery.release-went-live/")) == 2
        project.audit_holds()


def test_the_controller_dies_while_it_takes_a_bad_release_back(eventually: Eventually) -> None:
    confirm, judged = "delivery.confirm-plan", "delivery.judge-rollout"
    with lamps(eventually, rollout=rollout_table((EARLY, SOAK))) as project:
        project.begin("wrong")
        killed_on(project, "canary", 0)
        up_dies(project, f"{judged}@decided", "canary", 0)
        up_dies(project, f"{judged}@committed", "rolling_back", 0)
        up_dies(project, f"{confirm}@decided", "rolling_back", 0)
        up_dies(project, f"{confirm}@committed", "", 0)
        project.is_ready()
        assert set(versions_of(project.burst()).values()) == {LIVE} and project.version == LIVE
        eventually(lambda: project.asks("status")["effects_pending"] == 0)
        verdicts_are_those_of_the_files(project, 0)
        assert len(project.journal("delivery.endpoint-rolled-back/")) == 1
        assert "harm by labels" in project.types(f"rollout show {SHOWN}").must(OK).out
        project.begin("good")
        project.reaches("canary", 0)
        project.audit_holds()


def test_what_callers_see_when_everything_is_killed_and_started_again(eventually: Eventually) -> None:
    """kill -9 of `up` ends its data plane politely: answers until then, none wrong; and then the rollout goes on."""
    with lamps(eventually) as project:
        known = project.is_ready()
        project.begin()
        with Traffic(known["plane_port"]) as traffic:
            project.reaches("canary", 1)
            os.kill(known["pid"], signal.SIGKILL)
            project.is_gone(known)
            eventually(lambda: len(traffic.lost) == 2)
        assert traffic.statuses == {200}
        project.types(f"up --detach --port {known['plane_port']}").must(OK)
        eventually(lambda: project.get("/readyz").status == 200)
        with Traffic(known["plane_port"]) as traffic:
            eventually(lambda: project.version == GOOD and project.state == "")
            eventually(lambda: traffic.last() == {GOOD})
        assert not traffic.lost and traffic.statuses == {200}
        for answers in traffic.met.values():
            versions = [version for _, version in answers]
            assert versions == sorted(versions)
        project.audit_holds()


def test_a_killed_data_plane_comes_back_on_its_step_with_its_counts(eventually: Eventually) -> None:
    with lamps(eventually) as project:
        known = project.is_ready()
        project.begin()
        project.reaches("shadow", 0)
        project.types(f"rollout pause {SHOWN}", by="sre").must(OK)
        for number in range(2):
            versions_of(project.burst())
            known = plane_killed(project, known)
            look = project.counted()
            seen = sum(one.n_canary + one.again_canary for one in look.segments)
            assert seen == (number + 1) * N_KEYS
        assert project.at == ("paused", 0)
        project.types(f"rollout resume {SHOWN}", by="sre").must(OK)
        for number, state in enumerate(("canary", "canary", "soak"), start=1):
            project.reaches(state, number)
            project.burst()
        project.reaches("")
        assert project.version == GOOD
        project.audit_holds()


def plane_killed(project: Lamps, known: dict[str, Any]) -> dict[str, Any]:
    """kill -9 of the data plane alone; the supervisor starts another one, where it was."""
    os.kill(known["plane_pid"], signal.SIGKILL)
    again: dict[str, Any] = project.eventually(
        lambda: (now := project.running) and now["plane_pid"] != known["plane_pid"] and now
    )
    assert (again["pid"], again["plane_port"]) == (known["pid"], known["plane_port"])
    project.eventually(lambda: project.get("/readyz").status == 200)
    return again


def test_a_data_plane_that_keeps_dying_ends_the_rollout(eventually: Eventually) -> None:
    with lamps(eventually, rollout=rollout_table((EARLY, SOAK))) as project:
        known = project.is_ready()
        project.begin()
        project.reaches("canary", 0)
        for _ in range(3):
            assert project.at == ("canary", 0)
            known = plane_killed(project, known)
        project.reaches("")
        assert set(versions_of(project.burst()).values()) == {LIVE} and project.version == LIVE
        text = project.types(f"rollout show {SHOWN}").must(OK).out
        assert "failed" in text and "the data plane ended 3 times within a minute" in text
        eventually(lambda: project.asks("status")["effects_pending"] == 0)
        # It dies on: no rollout is to blame now, and it is started again all the same.
        plane_killed(project, known)
        assert set(versions_of(project.burst()).values()) == {LIVE}
        project.audit_holds()


def test_a_data_plane_killed_while_it_takes_up_a_step(eventually: Eventually) -> None:
    """It stands still, does not answer the controller, and is killed: the one after it takes up the step."""
    with lamps(eventually) as project:
        known = project.is_ready()
        project.begin()
        project.reaches("shadow", 0)
        with project.frozen():
            project.burst()
            os.kill(known["plane_pid"], signal.SIGSTOP)
            os.kill(known["pid"], signal.SIGCONT)
            project.reaches("moving")
            os.kill(known["plane_pid"], signal.SIGKILL)
        eventually(lambda: (now := project.running) and now["plane_pid"] != known["plane_pid"])
        project.reaches("canary", 1)
        assert set(versions_of(project.burst()).values()) == {LIVE, GOOD}
        project.audit_holds()
