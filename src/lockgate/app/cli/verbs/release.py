"""Verbs that move traffic: promote, rollback. They read no project: at night a second counts."""

from __future__ import annotations

import os
import time

import click

from lockgate.app.cli.main import REFUSED, WAITING, Exit
from lockgate.app.cli.session import Session, verb
from lockgate.core.names import EndpointName, parse_endpoint, parse_version
from lockgate.delivery.messages import PromoteVersion, RollBackEndpoint
from lockgate.hub.messages import EndpointLine, LiveLine, Status, StatusAnswer
from lockgate.workshop.git import change_of


@verb
@click.argument("version")
@click.option("--to", "environment", required=True, metavar="ENV", help="Where to.")
@click.option("--ticket", default="", help="The change ticket; default: that of the commit or pull request.")
def promote(session: Session, version: str, environment: str, ticket: str) -> None:
    """Release a version to an environment: the same bytes, one step up the ladder.

    The ticket and the pull request are taken from the commit's trailers (Ticket:, Pull-Request:), or from the variables
    of GitHub Actions and GitLab CI.

    Example: lockgate promote flight-delay@1.0.0 --to prod --ticket OPS-42
    """
    ref = parse_version(version)
    session.say_identity()
    receipt = session.tell(
        promotion(session, str(ref), environment, ticket), headline=f"{version} may not go to {environment}"
    )
    endpoint = EndpointName(environment, ref.model)
    line = endpoint_line(session, endpoint)
    live = line.live is not None and line.live.version == ref.shown
    rolling = line.rollout if line.rollout is not None and line.rollout.n_steps else None
    on_its_way = f"{ref.shown} is on its way to {endpoint.shown}"
    session.answer(
        {
            "version": ref.shown,
            "endpoint": endpoint.shown,
            "live": live,
            "effects": receipt.effects,
            "rollout": rolling,
        },
        f"{ref.shown} is live on {endpoint.shown}"
        if live
        else on_its_way + (f" in {rolling.n_steps} steps" if rolling else ""),
    )
    if not live:
        session.note(_why_not_live(line, endpoint, receipt.effects))
        raise Exit(WAITING if rolling or receipt.effects == "pending" else REFUSED)


def promotion(session: Session, key: str, environment: str, ticket: str) -> PromoteVersion:
    """The command, with the change that it answers to."""
    change = change_of(session.project_root, os.environ)
    return PromoteVersion(
        id=session.new_id(),
        version=key,
        environment=environment,
        ticket=ticket or change.ticket,
        pull_request=change.pull_request,
    )


def _why_not_live(line: EndpointLine, endpoint: EndpointName, effects: str) -> str:
    if effects == "pending":
        return "no data plane has taken the plan yet; start one: lockgate up"
    if line.rollout is None:
        return "the data plane did not take it: lockgate audit log shows why"
    return f"waiting: its guards are watched at each step: lockgate rollout show {endpoint.shown}"


def endpoint_line(session: Session, endpoint: EndpointName) -> EndpointLine:
    answer: StatusAnswer = session.ask(Status(endpoint=str(endpoint)))
    return answer.endpoints[endpoint.shown]


@verb
@click.argument("endpoint")
@click.option("--reason", default="", help="Why, for the record.")
def rollback(session: Session, endpoint: str, reason: str) -> None:
    """Put the version before back, at once. No policy is asked.

    Example: lockgate rollback prod/flight-delay
    """
    name = parse_endpoint(endpoint)
    session.say_identity()
    hub = session.deciding
    before = endpoint_line(session, name)
    leave = before.rollout.version if before.rollout else _full(before.live)
    command = RollBackEndpoint(id=session.new_id(), endpoint=str(name), reason=reason, leave=leave)
    started = time.perf_counter()
    receipt = hub.execute(command)
    took_ms = round((time.perf_counter() - started) * 1000, 2)
    if receipt.refusal is not None:
        # Told again through the common way: the receipt is the stored one, nothing happens twice.
        session.tell(command, headline=f"{endpoint} cannot be rolled back")
    session.seal()
    after = endpoint_line(session, name)
    left, now = parse_version(leave).shown if leave else "nothing", _shown(after.live)
    done = receipt.effects == "done"
    session.answer(
        {"from": left, "to": now, "took_ms": took_ms, "effects": receipt.effects},
        f"{name.shown}: {left} -> {now} in {took_ms} ms"
        + ("" if done else " (recorded; no data plane has confirmed it yet)"),
    )
    if not done:
        session.note("the data plane has not taken it yet; is it up? lockgate up")
        raise Exit(WAITING)
    if now == left:
        session.note(
            f"{left} still answers: the version before could not be served; lockgate audit log says why"
        )
        raise Exit(REFUSED)


def _full(live: LiveLine | None) -> str:
    return "" if live is None else str(parse_version(live.version))


def _shown(live: LiveLine | None) -> str:
    return "the fallback" if live is None else live.version
