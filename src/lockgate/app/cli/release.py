"""Verbs that move traffic: promote, rollback, and ship, which goes the whole way.

`ship` keeps no state. At each turn it asks the hub what comes next, does that, or stops and says what it waits for;
running it again goes on from wherever things stand, whoever brought them there.
"""

from __future__ import annotations

import time
from typing import Any

import click

from lockgate.app.cli.build import build_version, told
from lockgate.app.cli.main import WAITING, Exit, Refused
from lockgate.app.cli.session import Session, verb
from lockgate.core.errors import did_you_mean
from lockgate.core.messages import Refusal
from lockgate.core.names import EndpointName, parse_endpoint, parse_version
from lockgate.delivery.messages import PromoteVersion, RollBackEndpoint
from lockgate.gates.evidence import explain
from lockgate.governance.messages import ValidateVersion
from lockgate.hub.messages import EndpointLine, Standing, StandingAnswer, Status, StatusAnswer
from lockgate.workshop.config import ConfigInvalid


@verb
@click.argument("version")
@click.option("--to", "environment", required=True, metavar="ENV", help="Where to.")
@click.option("--ticket", default="", help="The change ticket, for the record.")
def promote(session: Session, version: str, environment: str, ticket: str) -> None:
    """Release a version to an environment: the same bytes, one step up the ladder.

    Example: lockgate promote flight-delay@1.0.0 --to prod --ticket OPS-42
    """
    ref = parse_version(version)
    session.say_identity()
    receipt = session.tell(
        PromoteVersion(id=session.new_id(), version=str(ref), environment=environment, ticket=ticket),
        headline=f"{version} may not go to {environment}",
    )
    endpoint = EndpointName(environment, ref.model)
    line = endpoint_line(session, endpoint)
    live = line.live is not None and line.live.version == ref.shown
    session.answer(
        {"version": ref.shown, "endpoint": endpoint.shown, "live": live, "effects": receipt.effects},
        f"{ref.shown} is live on {endpoint.shown}"
        if live
        else f"{ref.shown} is on its way to {endpoint.shown}",
    )
    if not live:
        session.note(_why_not_live(line, receipt.effects))
        raise Exit(WAITING if receipt.effects == "pending" else 3)


def _why_not_live(line: EndpointLine, effects: str) -> str:
    if effects == "pending":
        return "no data plane has taken the plan yet; start one: lockgate up"
    return (
        "the data plane did not take it: lockgate audit log shows why"
        if line.rollout is None
        else "under way"
    )


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
    command = RollBackEndpoint(id=session.new_id(), endpoint=str(name), reason=reason)
    started = time.perf_counter()
    receipt = hub.execute(command)
    took_ms = round((time.perf_counter() - started) * 1000, 2)
    if receipt.refusal is not None:
        # Told again through the common way: the receipt is the stored one, nothing happens twice.
        session.tell(command, headline=f"{endpoint} cannot be rolled back")
    session.seal()
    event = receipt.events[0]
    before, after = parse_version(event["from_version"]).shown, parse_version(event["to"]["version"]).shown
    session.answer(
        {"from": before, "to": after, "took_ms": took_ms, "effects": receipt.effects},
        f"{name.shown}: {before} -> {after} in {took_ms} ms"
        + ("" if receipt.effects == "done" else " (recorded; no data plane has confirmed it yet)"),
    )


_MAX_TURNS = 8


@verb
@click.argument("model", required=False)
@click.option("--to", "environment", default="dev", show_default=True, help="How far.")
@click.option("--ticket", default="", help="The change ticket, for the record.")
@click.option(
    "--version", "number", metavar="X.Y.Z", help="The number to take; default: the smallest allowed."
)
def ship(session: Session, model: str | None, environment: str, ticket: str, number: str | None) -> None:
    """Plan, run, judge, package, register and promote, step by step up to an environment.

    Exit 8 says that it waits for somebody: an approval, a data plane. Run it again afterwards.

    Example: lockgate ship --to prod --ticket OPS-42
    """
    ladder = _ladder(session, environment)
    session.say_identity()
    record, counts = build_version(session, model, number=number)
    for item in record["evidence"]:
        session.note(f"  {explain(item)}")
    session.note(f"{record['version']}: {len(counts.ran)} steps ran, {len(counts.cached)} cached")
    done: list[str] = []
    outcome: dict[str, Any] = {"version": record["version"], "package": record["package"], "live_on": done}
    for step in ladder:
        _reach(session, record["version"], step, ticket, outcome)
        done.append(step)
    session.seal()
    session.answer(outcome, f"{record['version']} is live on " + ", ".join(done))


def _ladder(session: Session, environment: str) -> list[str]:
    tables = session.control.config.environments
    if environment not in tables:
        raise ConfigInvalid(
            f"there is no environment {environment!r}",
            remedy=did_you_mean(environment, tables),
            key=environment,
        )
    order = tables[environment].order
    return sorted(
        (name for name, table in tables.items() if table.order <= order), key=lambda name: tables[name].order
    )


def _reach(session: Session, version: str, environment: str, ticket: str, outcome: dict[str, Any]) -> None:
    """Bring a version to one environment, or end the verb saying what it waits for."""
    key, hub = str(parse_version(version)), session.deciding
    for _ in range(_MAX_TURNS):
        standing: StandingAnswer = hub.ask(Standing(version=key, environment=environment))
        match standing.next:
            case "done":
                session.note(f"{environment}: {version} is live")
                return
            case "judge-for":
                _judge(session, key, environment)
            case "validate":
                session.tell(
                    ValidateVersion(id=session.new_id(), version=key), headline=f"{version} is not validated"
                )
            case "promote":
                session.note(f"{environment}: promoting {version}")
                session.tell(
                    PromoteVersion(id=session.new_id(), version=key, environment=environment, ticket=ticket),
                    headline=f"{version} may not go to {environment}",
                )
                _require_motion(session, key, environment)
            case "wait":
                _wait(
                    session,
                    outcome,
                    f"a release to {environment} is under way and no data plane has taken it yet",
                    "lockgate up, then run this again",
                )
            case _:
                session.seal()
                refusal = Refusal(reasons=standing.reasons, waiting=standing.next == "approve")
                raise Refused(refusal, headline=f"{version} stops before {environment}")
    raise ConfigInvalid(
        f"{version} gets no nearer to {environment}",
        remedy=f"lockgate evidence {version} --for {environment}",
    )


def _judge(session: Session, key: str, environment: str) -> None:
    workshop = session.workshop(str(parse_version(key).model))
    with told(session):
        found = workshop.judge(session.deciding, key, environment)
    for item in found:
        session.note(f"  {explain(item)}  ({environment})")


def _require_motion(session: Session, key: str, environment: str) -> None:
    """After a promotion the version is live, or on its way; anything else is a failed release."""
    standing: StandingAnswer = session.deciding.ask(Standing(version=key, environment=environment))
    if standing.next not in ("done", "wait"):
        refusal = Refusal(reasons=standing.reasons) if standing.reasons else None
        session.note(f"the data plane of {environment} did not take {key}: lockgate audit log says why")
        if refusal is not None:
            raise Refused(refusal, headline=f"{key} did not go live on {environment}")
        raise Exit(3)


def _wait(session: Session, outcome: dict[str, Any], what: str, remedy: str) -> None:
    session.seal()
    session.answer({**outcome, "waiting": what}, None)
    session.note(f"waiting: {what}\n next: {remedy}")
    raise Exit(WAITING)
