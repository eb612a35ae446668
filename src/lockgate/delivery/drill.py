"""Decisions about drills: the way back is rehearsed on the real target, under a routing key that no caller has.

A drill needs generations of the endpoint's plan, so it asks for a run of them before it begins. Whatever becomes of
the process that drills, the endpoint's callers stay where they are, and the next plan of the hub is newer than any of
the drill's. A rollback or a release does not wait for a drill: it takes the generation after, and the drill, whose
plans then come too late, ends.
"""

from __future__ import annotations

from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import parse_endpoint
from lockgate.delivery.messages import DrillFigures, DrillFinished, DrillStarted, FinishDrill, StartDrill
from lockgate.delivery.state import DRILL, ENDPOINT, ENVIRONMENT, SETTINGS
from lockgate.delivery.way_back import nothing_before, unknown_endpoint

MAX_FLIPS = 1000


def needs_drill(command: StartDrill | FinishDrill, docs: Docs) -> tuple[DocRef, ...]:
    environment = parse_endpoint(command.endpoint).environment
    return (
        DocRef(ENDPOINT.name, command.endpoint),
        DocRef(DRILL.name, command.endpoint),
        DocRef(SETTINGS.name, command.endpoint),
        DocRef(ENVIRONMENT.name, environment),
    )


def start_drill(docs: Docs, command: StartDrill, context: Context) -> Decision | Refusal:
    endpoint = docs.get(ENDPOINT, command.endpoint)
    if endpoint is None:
        return unknown_endpoint(command.endpoint)
    if not 1 <= command.n_flips <= MAX_FLIPS:
        return refuse(
            Reason(
                rule="delivery.drill-size",
                message=f"a drill of {command.n_flips} flips is not possible",
                measured=str(command.n_flips),
                limit=f"1 to {MAX_FLIPS}",
                remedy=f"give --n from 1 to {MAX_FLIPS}",
            )
        )
    if endpoint.rollout is not None:
        return refuse(
            Reason(
                rule="delivery.rollout-active",
                message=f"{endpoint.rollout.served.version} is on its way to {endpoint.endpoint}",
                measured=endpoint.rollout.state,
                remedy=f"drill when it is done: lockgate rollout show {endpoint.endpoint}",
            ),
            waiting=True,
        )
    if endpoint.live is None or endpoint.previous is None:
        return nothing_before(endpoint)
    before = docs.get(DRILL, command.endpoint)
    started = DrillStarted(
        endpoint=command.endpoint,
        drill=1 if before is None else before.n_drills + 1,
        from_version=endpoint.live.served.version,
        to_version=endpoint.previous.served.version,
        first=endpoint.generation + 1,
        last=endpoint.generation + 2 * command.n_flips + 1,
        by_hub=command.by_hub,
    )
    return Decision((started,))


def finish_drill(docs: Docs, command: FinishDrill, context: Context) -> Decision | Refusal:
    """Keep the figures of a drill that was begun; told twice, or after a later one, they are old news."""
    drill, endpoint = docs.get(DRILL, command.endpoint), docs.get(ENDPOINT, command.endpoint)
    if (
        drill is None
        or endpoint is None
        or drill.n_drills != command.drill
        or drill.finished == command.drill
    ):
        return Decision(())
    finished = DrillFinished(
        endpoint=command.endpoint,
        drill=command.drill,
        to_version=endpoint.previous.served.version if endpoint.previous else "",
        figures=command.figures,
    )
    return Decision((finished,))


def not_walked(why: str) -> DrillFigures:
    """The figures of a drill of which not one flip was begun."""
    return DrillFigures(
        n_flips=0,
        n_requests=0,
        n_failed=0,
        n_wrong=0,
        n_workers=0,
        first_p50_us=0,
        first_p99_us=0,
        all_p50_us=0,
        all_p99_us=0,
        interrupted=why,
    )
