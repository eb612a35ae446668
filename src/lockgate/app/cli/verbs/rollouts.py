"""Verbs about a release on its way, and about rehearsing its way back: rollout, drill."""

from __future__ import annotations

import time
from typing import Any

import click

from lockgate.app.cli.main import REFUSED, WAITING, Exit
from lockgate.app.cli.session import Session, of_a_hub, verb
from lockgate.app.cli.verbs.release import endpoint_line
from lockgate.app.cli.verbs.show import drill_text, rollout_text, when
from lockgate.app.plugins import resolve
from lockgate.app.up.running import NotUp, running
from lockgate.core.errors import Unavailable
from lockgate.core.names import EndpointName, parse_endpoint, parse_version
from lockgate.delivery.lines import DrillLine, EndpointLine, RolloutLine
from lockgate.delivery.messages import (
    AdvanceRollout,
    FinishDrill,
    PauseRollout,
    ResumeRollout,
    RollBackEndpoint,
    StartDrill,
)
from lockgate.delivery.rollouts.verdict import GuardVerdict
from lockgate.hub.messages import RolloutAnswer, ShowRollout
from lockgate.traffic.errors import TargetUnavailable


@click.group()
def rollout() -> None:
    """A release on its way: see it, hold it, move it on, take it back."""


@verb
@click.argument("endpoint")
@click.option("--release", type=click.IntRange(min=0), default=0, help="Its number; default: the latest.")
def show(session: Session, endpoint: str, release: int) -> None:
    """The steps of a release, what its guards see, and what it waits for.

    Example: lockgate rollout show prod/flight-delay
    """
    name = parse_endpoint(endpoint)
    answer: RolloutAnswer = session.ask(ShowRollout(endpoint=str(name), release=release))
    session.answer(answer, _rollout_page(answer))


def _rollout_page(answer: RolloutAnswer) -> str:
    release, steps = answer.release, answer.rollout
    rows = [
        f"release {release.release} of {parse_version(release.version).shown} to "
        f"{parse_endpoint(release.endpoint).shown}: {release.state}, by {release.started_by} "
        f"at {when(release.started_at)}" + (f"; {release.detail}" if release.detail else "")
    ]
    if steps is None:
        return "\n".join([*rows, "  it went at once, without steps"])
    rows.append(f"  held against {parse_version(steps.control.version).shown}")
    served = {run.step: run for run in steps.runs}
    for number, step in enumerate(steps.policy.steps):
        run = served.get(number)
        since = f"since {when(run.started_at)}" if run else "not reached"
        rows.append(
            f"  step {number + 1}  {step.stage:<7} {step.weight / 100:>5g} %  "
            f"at least {step.min_units} units and {step.bake_s:g} s  {since}"
        )
    rows += [f"  overridden by {one}" for one in steps.overrides]
    if steps.verdict is not None:
        rows.append(f"  verdict: {steps.verdict.outcome}: {steps.verdict.reason}")
        rows += [f"    {guard_text(one)}" for one in steps.verdict.guards]
    line = answer.line.rollout
    if line is not None and line.release == release.release:
        rows.append(f"  {rollout_text(line)}")
    return "\n".join(rows)


def guard_text(guard: GuardVerdict) -> str:
    """One guard's figures in one line."""
    interval = ""
    if guard.ratio is not None:
        low = "?" if guard.low is None else f"{guard.low:.2f}"
        high = "?" if guard.high is None else f"{guard.high:.2f}"
        interval = f"rate x{guard.ratio:.2f} [{low}, {high}], "
    detail = f": {guard.detail}" if guard.detail else ""
    return (
        f"{guard.outcome:<8} {guard.guard:<8} {interval}{guard.n_events} bad events, "
        f"evidence of harm 10^{guard.e_value_log10:.1f}{detail}"
    )


@verb
@click.argument("endpoint")
@click.option("--reason", default="", help="Why, for the record.")
def pause(session: Session, endpoint: str, reason: str) -> None:
    """Hold a rollout at its step. Proven harm still takes it back."""
    name = parse_endpoint(endpoint)
    session.say_identity()
    command = PauseRollout(id=session.new_id(), endpoint=str(name), reason=reason)
    session.tell(command, headline=f"the rollout on {endpoint} cannot be paused")
    _say_where(session, name)


@verb
@click.argument("endpoint")
def resume(session: Session, endpoint: str) -> None:
    """Let a paused rollout go on."""
    name = parse_endpoint(endpoint)
    session.say_identity()
    command = ResumeRollout(id=session.new_id(), endpoint=str(name))
    session.tell(command, headline=f"the rollout on {endpoint} cannot be resumed")
    _say_where(session, name)


@verb
@click.argument("endpoint")
@click.option("--full", is_flag=True, help="To all of the traffic at once, instead of to the next step.")
@click.option("--reason", required=True, help="Why the statistics are passed over; it is recorded.")
def promote(session: Session, endpoint: str, full: bool, reason: str) -> None:
    """Move a rollout on by hand, over its statistics. Evidence and approvals must still hold.

    Example: lockgate rollout promote prod/flight-delay --full --reason "fixes the outage of OPS-9"
    """
    name = parse_endpoint(endpoint)
    session.say_identity()
    line = _line(session, name)
    command = AdvanceRollout(
        id=session.new_id(),
        endpoint=str(name),
        release=line.release if line else 0,
        step=max(line.step - 1, 0) if line else 0,
        full=full,
        reason=reason,
    )
    receipt = session.tell(command, headline=f"the rollout on {endpoint} cannot be moved on")
    after = _say_where(session, name)
    if line is not None and not _leads_to(after, line):
        session.note(f"somebody took it back meanwhile: lockgate rollout show {name.shown}")
        raise Exit(REFUSED)
    if receipt.effects == "pending":
        session.note("the data plane has not taken it yet; is it up? lockgate up")
        raise Exit(WAITING)


@verb
@click.argument("endpoint")
@click.option("--reason", default="", help="Why, for the record.")
def abort(session: Session, endpoint: str, reason: str) -> None:
    """Take a release on its way back: what is live answers everything again, at once."""
    name = parse_endpoint(endpoint)
    session.say_identity()
    line = _line(session, name)
    if line is None:
        session.answer({"aborted": None}, f"no rollout is under way on {name.shown}")
        raise Exit(REFUSED)
    command = RollBackEndpoint(id=session.new_id(), endpoint=str(name), reason=reason, leave=line.version)
    receipt = session.tell(command, headline=f"the rollout on {endpoint} cannot be aborted")
    after = endpoint_line(session, name)
    now = after.live.version if after.live else "the fallback"
    session.answer(
        {"aborted": parse_version(line.version).shown, "live": now, "effects": receipt.effects},
        f"{parse_version(line.version).shown} is taken back; {now} answers everything",
    )
    if receipt.effects == "pending":
        session.note("the data plane has not taken it yet; is it up? lockgate up")
        raise Exit(WAITING)


def _line(session: Session, name: EndpointName) -> RolloutLine | None:
    return endpoint_line(session, name).rollout


def _leads_to(line: EndpointLine, rollout: RolloutLine) -> bool:
    """Whether the version of a rollout is live, or still on its way there."""
    underway = line.rollout
    if underway is not None and underway.release == rollout.release:
        return underway.state != "rolling_back"
    return line.live is not None and line.live.version == parse_version(rollout.version).shown


def _say_where(session: Session, name: EndpointName) -> EndpointLine:
    line = endpoint_line(session, name)
    where = (
        rollout_text(line.rollout)
        if line.rollout
        else f"{line.live.version if line.live else 'nothing'} is live"
    )
    session.answer(line, f"{name.shown}: {where}")
    return line


for _part in (show, pause, resume, promote, abort):
    rollout.add_command(_part)


class DrillNotWalked(Unavailable):
    """A hub was asked for a drill, and none that has a data plane at its machine has walked it."""

    code = "cli.drill-not-walked"


_LOOK_S, _DRILL_S, _FLIP_S = 0.2, 15.0, 0.5
"""How often it is looked, and how long it is waited: for the hub to begin, and for each flip."""


@click.group()
def drill() -> None:
    """Rehearse: the way back is only as good as the last time it was walked."""


@verb
@of_a_hub
@click.argument("endpoint")
@click.option(
    "--port", type=int, help="Of the data plane on this machine; default: what lockgate up started."
)
@click.option("--n", "n_flips", type=click.IntRange(1, 1000), default=20, show_default=True, help="Flips.")
def rollback(session: Session, endpoint: str, port: int | None, n_flips: int) -> None:
    """Flip the running data plane to the previous version and back, under a key that no caller uses.

    Callers' traffic does not move. The figures are journaled, and `status` shows them. With --hub the hub on the
    machine of the data plane walks it.

    Example: lockgate drill rollback prod/flight-delay --n 50
    """
    name = parse_endpoint(endpoint)
    session.say_identity()
    if session.hub_url:
        if port is not None:
            raise click.UsageError("--port is of a data plane on this machine, not of one at a hub elsewhere")
        _ask_the_hub(session, name, n_flips)
        return
    control = session.control
    port = port or _port(session)
    if control.target is None:
        raise TargetUnavailable(
            f"{session.config} names no data plane of this machine",
            remedy="drill where it is; [target] run is its folder",
            endpoint=str(name),
        )
    # What is still to be told is told first, and what a killed drill left behind is put right.
    control.effects.carry_out(str(name))
    control.republish()
    started = _start(session, name, n_flips, by_hub=False)
    figures = resolve("lockgate.adapters.targets.rehearsal:walk")(
        control.target, control.blobs, str(name), port=port, first=started["first"], n_flips=n_flips
    )
    session.tell(
        FinishDrill(id=session.new_id(), endpoint=str(name), drill=started["drill"], figures=figures),
        headline="the drill cannot be recorded",
    )
    _report(session, name, started["drill"])


def _start(session: Session, name: EndpointName, n_flips: int, *, by_hub: bool) -> Any:
    command = StartDrill(id=session.new_id(), endpoint=str(name), n_flips=n_flips, by_hub=by_hub)
    return session.tell(command, headline=f"the way back of {name.shown} cannot be rehearsed").events[0]


def _ask_the_hub(session: Session, name: EndpointName, n_flips: int) -> None:
    """The hub on the machine of the data plane walks it; this side waits for its figures."""
    number = _start(session, name, n_flips, by_hub=True)["drill"]
    until = time.monotonic() + _DRILL_S + n_flips * _FLIP_S
    while _drill(session, name, number) is None:
        if time.monotonic() > until:
            raise DrillNotWalked(
                f"no hub has walked drill {number} of {name.shown}",
                remedy="the hub on the data plane's machine needs [target] run and port in its hub.toml; "
                "or walk it there: lockgate drill rollback with --config hub.toml --port PORT",
                endpoint=str(name),
                drill=number,
            )
        time.sleep(_LOOK_S)
    _report(session, name, number)


def _drill(session: Session, name: EndpointName, number: int) -> DrillLine | None:
    """The drill of that number or a later one, when its figures are told."""
    line = endpoint_line(session, name).rollback_ready.drill
    return None if line is None or line.number < number else line


def _port(session: Session) -> int:
    """Of the data plane that `lockgate up` started."""
    if session.config:
        raise click.UsageError("--config means a data plane that something else started: say its --port")
    known = running(session.layout)
    if known is None:
        raise NotUp("there is no data plane to drill with", remedy="lockgate up --detach")
    return known.plane_port


def _report(session: Session, name: EndpointName, number: int) -> None:
    line = _drill(session, name, number)
    if line is None or line.number != number:
        session.note("a later drill took this one's place; its figures are not kept")
        raise Exit(REFUSED)
    session.answer(line, f"{name.shown}: {drill_text(line)}")
    if not line.passed:
        raise Exit(REFUSED)


drill.add_command(rollback)
