"""Releases that roll out by themselves under real traffic, are held, steered by people, and taken back."""

from __future__ import annotations

import json
import os
import signal
import stat

from operator_story import ended
from rollout_rig import (
    ALL_STEPS,
    EARLY,
    LATE,
    MIN_UNITS,
    N_KEYS,
    SHADOW,
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

from command_line import OK, REFUSED, USAGE, WAITING
from lockgate.traffic.capture import CAPTURE_DIR, Shadowed
from lockgate.traffic.plan import N_SLOTS, slot_of

LIVE, GOOD, ERRING, WRONG = (VERSIONS[name] for name in ("live", "good", "erring", "wrong"))


def show(project: Lamps, release: int = 0) -> str:
    return project.types(f"rollout show {SHOWN} --release {release}").must(OK).out


def early(salt: str) -> set[str]:
    """The keys that meet the new version first."""
    return {key for key in KEYS if slot_of(key, salt) < EARLY * N_SLOTS}


KEYS = [f"key-{number}" for number in range(N_KEYS)]


def test_a_good_version_goes_all_the_way_by_itself(eventually: Eventually) -> None:
    with lamps(eventually) as project:
        known = project.is_ready()
        with Traffic(known["plane_port"]) as traffic:
            project.begin()
            eventually(lambda: project.version == GOOD, 40.0)
            eventually(lambda: traffic.last() == {GOOD})
        assert not traffic.lost and traffic.statuses == {200}
        steps = project.steps()
        assert steps is not None
        assert [run.weight / N_SLOTS for run in steps.runs] == list(ALL_STEPS)
        for key in KEYS:
            answered = [version for _, version in traffic.met[key]]
            # Once a key has met the new version it stays with it.
            assert answered == sorted(answered) and set(answered) == {LIVE, GOOD}
        assert project.lines(Shadowed)
        # What is told afterwards.
        text = show(project)
        assert "release 2 of lamp@1.0.1" in text and "live, by ada" in text and "verdict: pass" in text
        assert "step 4  soak      100 %" in text and "not reached" not in text
        status = project.types(f"status {SHOWN}").must(OK).out
        assert "live     lamp@1.0.1" in status and "previous lamp@1.0.0" in status
        assert "rollback ready: yes" in status
        assert f"release     {SHOWN} #2 live" in project.types(f"explain {SHOWN}").must(OK).out
        log = project.types("audit log").must(OK).out
        assert "lockgate-controller" in log
        outcomes = [(step, verdict.outcome) for step, verdict in project.judged()]
        assert [step for step, outcome in outcomes if outcome == "pass"] == [0, 1, 2, 3]
        assert project.types("audit verify").must(OK).out.startswith("ok: ")
        files = sorted((project.dot / "run" / CAPTURE_DIR).rglob("*.jsonl"))
        assert len(files) >= len(ALL_STEPS)
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert {stat.S_IMODE(file.parent.stat().st_mode) for file in files} == {0o700}


def test_each_step_shares_the_callers_as_its_weight_says(eventually: Eventually) -> None:
    with lamps(eventually) as project:
        project.is_ready()
        project.begin()
        for number, weight in enumerate(ALL_STEPS):
            project.reaches({SHADOW: "shadow", SOAK: "soak"}.get(weight, "canary"), number)
            met = versions_of(project.burst())
            steps = project.steps()
            assert steps is not None
            chosen = {key for key in KEYS if slot_of(key, steps.salt) < weight * N_SLOTS}
            assert {key for key, version in met.items() if version == GOOD} == chosen
        project.reaches("")
        assert project.version == GOOD
        # Nothing was lost on the way from the data plane to the verdicts: the counts of each step are all callers.
        look = project.counted()
        for segment in look.segments:
            n_canary = segment.n_canary + segment.again_canary
            n_control = segment.n_control + segment.again_control
            if segment.stage == "shadow":
                assert (n_canary, n_control) == (N_KEYS, N_KEYS)
        by_step = {
            step: sum(
                one.n_canary + one.again_canary + one.n_control + one.again_control
                for one in look.segments
                if one.step == step
            )
            for step in range(4)
        }
        assert by_step == {0: 2 * N_KEYS, 1: N_KEYS, 2: N_KEYS, 3: N_KEYS}
        assert look.n_dropped == 0


def test_errors_are_found_by_the_shadow_before_anybody_meets_them(eventually: Eventually) -> None:
    with lamps(eventually) as project:
        known = project.is_ready()
        with Traffic(known["plane_port"], trouble=1.0) as traffic:
            project.begin("erring")
            eventually(lambda: project.steps() is not None and project.state == "", 40.0)
        assert not traffic.lost and traffic.statuses == {200}
        assert {version for each in traffic.met.values() for _, version in each} == {LIVE}
        assert project.version == LIVE
        text = show(project)
        assert "release 2 of lamp@1.0.2" in text and "rolled_back" in text
        assert "verdict: harm by errors" in text and "only the new version failed" in text
        assert "step 2  canary     30 %" in text and "not reached" in text
        project.audit_holds()


def test_errors_and_wrong_answers_in_the_canary_are_taken_back(eventually: Eventually) -> None:
    with lamps(eventually, rollout=rollout_table((EARLY, SOAK))) as project:
        project.is_ready()
        for number, (version, harm) in enumerate((("erring", "errors"), ("wrong", "labels")), start=2):
            project.begin(version)
            project.reaches("canary", 0)
            replies = project.burst(trouble=1.0)
            steps = project.steps()
            assert steps is not None
            mine = early(steps.salt)
            assert len(mine) >= MIN_UNITS
            for key, reply in replies.items():
                met = key in mine and version == "erring"
                assert reply.status == (500 if met else 200)
                assert not met or reply.body["class"] == "model_error"
            project.reaches("")
            # At once nobody meets it any more, and so it stays.
            for _ in range(2):
                assert set(versions_of(project.burst(trouble=1.0)).values()) == {LIVE}
            assert project.version == LIVE
            text = show(project)
            assert f"release {number} of lamp@{VERSIONS[version]}" in text and "rolled_back" in text
            assert f"harm by {harm}" in text
            step, verdict = project.judged()[-1]
            assert (step, verdict.outcome) == (0, "fail")
        assert "rolled_back" in show(project, 2) and "harm by errors" in show(project, 2)
        # What was taken back may be tried again, and meets other callers first.
        before = project.steps(3)
        project.begin("wrong")
        project.reaches("canary", 0)
        again = project.steps(4)
        assert before is not None and again is not None and again.salt != before.salt
        # Held by hand it is guarded all the same.
        project.types(f"rollout pause {SHOWN}", by="sre").must(OK)
        project.burst()
        project.reaches("")
        assert "harm by labels" in show(project, 4) and project.version == LIVE
        project.audit_holds()


def test_nothing_seen_proves_nothing(eventually: Eventually) -> None:
    """No traffic, too little of it, no labels: it stays, and says what it waits for."""
    with lamps(eventually, rollout=rollout_table((EARLY, SOAK), bake_s=0.0)) as project:
        project.is_ready()
        project.begin()

        def waits() -> str:
            return str(project.asks(f"status {SHOWN}")["endpoints"][SHOWN]["rollout"]["waits_for"])

        eventually(lambda: "no units of the new version in this step yet" in waits())
        assert "verdict no_data" in project.types(f"status {SHOWN}").out
        assert "verdict: no_data" in show(project)
        project.burst(12, labels=False)
        eventually(lambda: f"of {MIN_UNITS} units of the new version seen" in waits())
        project.burst(labels=False)
        # The errors guard has its proof, the labels guard has seen nothing; more of the same changes nothing.
        project.burst(labels=False)
        assert project.at == ("canary", 0)
        eventually(lambda: "no proof yet for labels" in waits())
        events = len(project.journal())
        project.burst(labels=False)
        assert len(project.journal()) == events, "looks that change nothing stay untold"
        project.burst()
        project.reaches("soak", 1)
        project.burst()
        project.reaches("")
        assert project.version == GOOD
        project.audit_holds()


def test_people_hold_it_and_let_it_go(eventually: Eventually) -> None:
    with lamps(eventually) as project:
        project.is_ready()
        for verb in ("pause", "resume", "promote --full --reason x"):
            refused = project.types(f"rollout {verb} {SHOWN}", by="sre").must(REFUSED)
            assert "delivery.no-rollout" in refused.err and "no rollout is under way" in refused.err
        assert (
            "no rollout is under way" in project.types(f"rollout abort {SHOWN}", by="sre").must(REFUSED).out
        )
        project.types("rollout show prod/lump").must(4)
        project.begin()
        project.reaches("shadow", 0)
        paused = project.types(f"rollout pause {SHOWN} --reason 'freeze until Monday'", by="sre").must(OK)
        assert "paused lamp@1.0.1" in paused.out and "paused by sre: freeze until Monday" in paused.out
        project.types(f"rollout pause {SHOWN}", by="sre").must(OK)
        project.burst()
        eventually(lambda: [verdict.outcome for _, verdict in project.judged()][-1:] == ["pass"])
        # It has all it needs, and stays.
        assert project.at == ("paused", 0)
        assert "paused by sre: freeze until Monday" in show(project)
        project.types(f"rollout resume {SHOWN}", by="sre").must(OK)
        project.reaches("canary", 1)
        # A paused rollout keeps its share of the callers.
        project.types(f"rollout pause {SHOWN}", by="sre").must(OK)
        assert set(versions_of(project.burst()).values()) == {LIVE, GOOD}
        told = project.types(f"rollout promote {SHOWN}", by="sre").must(USAGE)
        assert "--reason" in told.err
        told = project.types(f"rollout promote {SHOWN} --full --reason ' '", by="sre").must(REFUSED)
        assert "delivery.override-reason" in told.err
        told = project.types(f"rollout promote {SHOWN} --full --reason 'fixes OPS-9'", by="sre").must(OK)
        assert f"{SHOWN}: lamp@1.0.1 is live" in told.out
        assert set(versions_of(project.burst()).values()) == {GOOD} and project.version == GOOD
        assert "overridden by sre: fixes OPS-9" in show(project)
        project.audit_holds()


def test_without_a_data_plane_it_says_that_it_waits(eventually: Eventually) -> None:
    with lamps(eventually) as project:
        project.begin()
        assert project.state == "preparing"
        for verb in ("pause", "resume", "promote --reason x"):
            told = project.types(f"rollout {verb} {SHOWN}", by="sre").must(WAITING)
            assert "delivery.rollout-moving" in told.err and "next: try again" in told.err
        assert "something still waits" in project.types("control").must(OK).out
        told = project.types(f"rollout abort {SHOWN}", by="sre").must(WAITING)
        assert "is it up? lockgate up" in told.err
        told = project.types(f"rollout abort {SHOWN}", by="sre").must(WAITING)
        assert "delivery.rollback-underway" in told.err
        project.is_ready()
        project.reaches("")
        assert project.version == LIVE and set(versions_of(project.burst()).values()) == {LIVE}
        assert "rolled_back" in show(project)
        project.audit_holds()


def test_abort_while_it_moves(eventually: Eventually) -> None:
    """The data plane does not take the next step up; whoever aborts does not wait for that."""
    with lamps(eventually) as project:
        known = project.is_ready()
        project.begin()
        project.reaches("shadow", 0)
        with project.frozen():
            project.burst()
            with project.frozen("plane_pid"):
                os.kill(known["pid"], signal.SIGCONT)
                project.reaches("moving")
                with ended(project.starts(f"rollout abort {SHOWN}", by="sre")) as abort:
                    project.reaches("rolling_back")
                    os.kill(known["plane_pid"], signal.SIGCONT)
                    out, errors = abort.communicate(timeout=60)
        assert abort.returncode == OK, out + errors
        assert "lamp@1.0.1 is taken back; lamp@1.0.0 answers everything" in out
        assert set(versions_of(project.burst()).values()) == {LIVE}
        eventually(lambda: project.asks("status")["effects_pending"] == 0)
        assert project.state == "" and project.version == LIVE
        assert project.plan.generation == project.endpoint.generation
        project.audit_holds()


def test_two_operators_at_once(eventually: Eventually) -> None:
    """Both press the same button, or opposite ones: one of them wins, and it happens once."""
    with lamps(eventually) as project:
        project.is_ready()
        project.begin()
        project.reaches("shadow", 0)
        lines = [f"rollout promote {SHOWN} --reason same"] * 2
        codes = race(project, lines)
        assert OK in codes and codes <= {OK, WAITING}
        # Whoever looked after the first one had moved it means the step after; it is one step each at most.
        moves = [entry["event"] for entry in project.journal("delivery.rollout-advanced/")]
        assert [event["step"] for event in moves] == list(range(1, len(moves) + 1))
        project.reaches("canary")
        codes = race(project, [f"rollout promote {SHOWN} --full --reason go", f"rollout abort {SHOWN}"])
        assert OK in codes and codes <= {OK, REFUSED, WAITING}
        project.reaches("")
        assert set(versions_of(project.burst()).values()) == {project.version}
        if project.version == GOOD:
            project.types(f"rollback {SHOWN}", by="sre").must(OK)
        codes = race(project, [f"promote lamp@{ERRING} --to prod", f"promote lamp@{WRONG} --to prod"])
        assert project.endpoint.n_releases == 3 and codes <= {REFUSED, WAITING}
        project.reaches("shadow")
        codes = race(project, [f"rollout abort {SHOWN}"] * 2)
        assert OK in codes and codes <= {OK, REFUSED, WAITING}
        project.reaches("")
        taken_back = project.journal("delivery.endpoint-rolled-back/")
        assert len([entry for entry in taken_back if entry["event"]["release"] == 3]) == 1
        project.audit_holds()


def race(project: Lamps, lines: list[str]) -> set[int]:
    """Type two lines at the same moment; their exit codes."""
    one, two = lines
    with (
        ended(project.starts(one, by="ada")) as first,
        ended(project.starts(two, by="sre")) as second,
    ):
        told = [process.communicate(timeout=60) for process in (first, second)]
    codes = {first.returncode, second.returncode}
    assert not any("Traceback" in errors or "broke a promise" in errors for _, errors in told), told
    return codes


def test_show_is_the_same_for_machines(eventually: Eventually) -> None:
    with lamps(eventually) as project:
        project.is_ready()
        project.begin()
        project.reaches("shadow", 0)
        typed = project.types(f"rollout show {SHOWN} --json").must(OK)
        answer = json.loads(typed.out)
        assert answer["release"]["version"] == f"main/lamp@{GOOD}"
        assert [step["weight"] for step in answer["rollout"]["policy"]["steps"]] == [0, 3000, 6000, 10_000]
        assert answer["line"]["rollout"]["n_steps"] == 4
        assert round(LATE * N_SLOTS) == answer["rollout"]["policy"]["steps"][2]["weight"]
