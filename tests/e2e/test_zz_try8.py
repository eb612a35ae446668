import pytest
import rollout_rig
o=rollout_rig.Lamps.is_ready
def is_ready(self):
    known=self.up()
    try:
        self.eventually(lambda: self.get("/readyz").status==200, 10.0)
    except BaseException:
        import subprocess
        print(known, self.get("/endpoints"), self.get("/readyz"))
        print(rollout_rig.Control(rollout_rig.Layout(self.root)).target.observe(rollout_rig.ENDPOINT))
        print((self.dot/"up.log").read_text()[-3000:])
        print(subprocess.run(f"ls -laR {self.dot}/run; ps -eo pid,ppid,stat,etime,args | grep {self.root} | cut -c1-150; for t in /proc/{known['plane_pid']}/task/*; do cat $t/comm $t/wchan; echo; done; cat /proc/locks", shell=True, capture_output=True, text=True).stdout)
        raise
    return known
rollout_rig.Lamps.is_ready=is_ready
"""Whatever dies while a release rolls out, whenever: the next process goes on to the same end, by the same counts."""


import os
import signal
from typing import Any

from operator_story import OK
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

from lockgate.delivery.verdict import judge

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
        assert "paused: sre: lunch" in project.types(f"rollout show {SHOWN}").must(OK).out
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



@pytest.mark.parametrize("n", range(5))
def test_rep(eventually, n):
    test_the_controller_dies_in_every_state_of_a_good_release(eventually)
