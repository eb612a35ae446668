"""Verbs that move traffic: promote, rollback. They read no project: at night a second counts."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import Any

import click

from lockgate.app.cli.main import REFUSED, WAITING, Exit, Refused
from lockgate.app.cli.session import Session, verb
from lockgate.app.plugins import resolve
from lockgate.core.errors import Unavailable
from lockgate.core.messages import Refusal
from lockgate.core.names import EndpointName, parse_endpoint, parse_version
from lockgate.delivery.lines import EndpointLine, LiveLine
from lockgate.delivery.messages import PromoteVersion, RollBackEndpoint
from lockgate.hub.messages import Status, StatusAnswer
from lockgate.traffic.by_hand import Hand, named, taken_back
from lockgate.traffic.plan import FLIP_PATIENCE_S, LocalOrigin
from lockgate.workshop.config import NoProject
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
        session.note(_why_not_live(line, endpoint, receipt.effects, here=not session.hub_url))
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


def start_plane(*, here: bool) -> str:
    """How whoever may do it starts a data plane: of a project, or on the machine of a team's hub."""
    return "lockgate up" if here else "python -m lockgate.app.dataplane on the hub's machine (docs/hub.md)"


def _why_not_live(line: EndpointLine, endpoint: EndpointName, effects: str, *, here: bool) -> str:
    if effects == "pending":
        return f"no data plane has taken the plan yet; start one: {start_plane(here=here)}"
    if line.rollout is None:
        return "the data plane did not take it: lockgate audit log shows why"
    return f"waiting: its guards are watched at each step: lockgate rollout show {endpoint.shown}"


def endpoint_line(session: Session, endpoint: EndpointName) -> EndpointLine:
    answer: StatusAnswer = session.ask(Status(endpoint=str(endpoint)))
    return answer.endpoints[endpoint.shown]


@verb
@click.argument("endpoint")
@click.option("--reason", default="", help="Why, for the record; with --local it has to be given.")
@click.option("--local", is_flag=True, help="Without hub and database, on the data plane's own machine.")
@click.option("--run", metavar="DIR", help="With --local: the data plane's run directory.")
@click.option("--incident", default="", help="With --local: the incident it belongs to.")
def rollback(
    session: Session, endpoint: str, reason: str, local: bool, run: str | None, incident: str
) -> None:
    """Put the version before back, at once. No policy is asked.

    With --local no hub is asked either: whoever may write the run directory may do it. The hub takes it over into the
    journal when it is back.

    Example: lockgate rollback prod/flight-delay
    """
    name = parse_endpoint(endpoint)
    if local:
        if not reason.strip():
            raise click.UsageError('say why, nothing else will: --reason "..."')
        _by_hand(session, name, _run_dir(session, run), reason, incident)
        return
    if run or incident:
        raise click.UsageError("--run and --incident go with --local")
    try:
        _by_the_hub(session, name, reason)
    except Unavailable as error:
        # Read at night, by somebody for whom waiting for a hub is the wrong thing to do.
        by_hand = f'lockgate rollback {name.shown} --local --run DIR --reason "..."'
        error.remedy += f"; or, on the data plane's machine and without the hub: {by_hand}"
        raise


def _run_dir(session: Session, run: str | None) -> Path:
    """Of the data plane: whoever is woken for it need not know where the project is."""
    if run:
        return Path(run)
    try:
        return session.layout.run
    except NoProject:
        raise click.UsageError(
            "say where the data plane keeps its plans: --run DIR; it is --run-dir of its command line"
        ) from None


def _by_the_hub(session: Session, name: EndpointName, reason: str) -> None:
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
        session.tell(command, headline=f"{name.shown} cannot be rolled back")
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
        up = f"lockgate status {name.shown}" if session.hub_url else "lockgate up"
        session.note(f"the data plane has not taken it yet; is it up? {up}")
        raise Exit(WAITING)
    if now == left:
        session.note(
            f"{left} still answers: the version before could not be served; lockgate audit log says why"
        )
        raise Exit(REFUSED)


def _by_hand(session: Session, name: EndpointName, run: Path, reason: str, incident: str) -> None:
    target: Any = resolve("lockgate.adapters.targets.local:LocalTarget")(run)
    now = resolve("lockgate.app.system:SystemClock")().now()
    hand = Hand(by=session.claim, account=_account(), at=now, reason=reason, incident=incident)
    started = time.perf_counter()
    plan = taken_back(target.observe(str(name)), hand)
    if isinstance(plan, Refusal):
        raise Refused(plan, headline=f"{name.shown} cannot be rolled back here")
    target.apply(plan)
    seen = target.observe(str(name))
    if seen.alive:
        seen = target.wait(str(name), plan.generation, FLIP_PATIENCE_S)
    took_ms = round((time.perf_counter() - started) * 1000, 2)
    assert isinstance(plan.local, LocalOrigin) and plan.live is not None
    left, to = (parse_version(named(plan, one)).shown for one in (plan.local.left, plan.live))
    done = seen.reached(plan.generation)
    session.answer(
        {"from": left, "to": to, "took_ms": took_ms, "effects": "done" if done else "pending"},
        f"{name.shown}: {left} -> {to} in {took_ms} ms, by hand"
        + ("" if done else " (written; no data plane has confirmed it yet)"),
    )
    session.note("the hub takes it over when it is back: lockgate status shows it then")
    if not done:
        session.note("is the data plane running? The next one begins with this plan")
        raise Exit(WAITING)


def _account() -> str:
    """Who the operating system says is at work; no environment variable changes that."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _full(live: LiveLine | None) -> str:
    return "" if live is None else str(parse_version(live.version))


def _shown(live: LiveLine | None) -> str:
    return "the fallback" if live is None else live.version
