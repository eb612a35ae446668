"""Whoever types `promote` or `rollback` and is killed in the middle: it happened or it did not, and all goes on."""

from __future__ import annotations

import pytest
from rollout_rig import MIN_UNITS, SHOWN, VERSIONS, Eventually, lamps, two_live, versions_of

from command_line import OK, WAITING

LIVE, GOOD = VERSIONS["live"], VERSIONS["good"]


@pytest.mark.parametrize(
    ("place", "state"),
    [
        ("delivery.promote-version@decided", ""),
        ("delivery.promote-version@committed", "preparing"),
        ("delivery.confirm-plan@decided", "preparing"),
    ],
)
def test_a_killed_promote(eventually: Eventually, place: str, state: str) -> None:
    with lamps(eventually) as project:
        project.is_ready()
        with project.frozen():
            project.dies_typing(place, f"promote lamp@{GOOD} --to prod")
            assert project.state == state
            project.audit_holds()
            # Whatever of the plan is there: the version on its way answers nobody yet. Too few to pass a step by.
            assert set(versions_of(project.burst(MIN_UNITS - 1)).values()) == {LIVE}
            if state:
                # What a dead process had leased is free for a controller that begins, at once.
                project.kills_up()
        if state:
            project.is_ready()
        else:
            project.begin()
        project.reaches("shadow", 0)
        assert project.endpoint.n_releases == 2
        project.types(f"rollout promote {SHOWN} --full --reason x", by="sre").must(OK)
        assert project.version == GOOD
        project.audit_holds()


@pytest.mark.parametrize(
    ("place", "state"),
    [
        ("delivery.roll-back-endpoint@decided", ""),
        ("delivery.roll-back-endpoint@committed", "rolling_back"),
        ("delivery.confirm-plan@decided", "rolling_back"),
    ],
)
def test_a_killed_rollback(eventually: Eventually, place: str, state: str) -> None:
    with lamps(eventually, two_live) as project:
        project.is_ready()
        with project.frozen():
            project.dies_typing(place, f"rollback {SHOWN}")
            assert project.state == state
            project.audit_holds()
            answering = set(versions_of(project.burst(20)).values())
            assert answering == ({LIVE} if place.startswith("delivery.confirm") else {GOOD})
            if state:
                told = project.types(f"rollback {SHOWN}", by="sre").must(WAITING)
                assert "delivery.rollback-underway" in told.err
                project.kills_up()
        if state:
            project.is_ready()
            project.reaches("")
        else:
            project.types(f"rollback {SHOWN}", by="sre").must(OK)
        assert project.version == LIVE and set(versions_of(project.burst(20)).values()) == {LIVE}
        eventually(lambda: project.asks("status")["effects_pending"] == 0)
        assert len(project.journal("delivery.endpoint-rolled-back/")) == 1
        project.audit_holds()
