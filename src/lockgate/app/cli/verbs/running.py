"""Verbs that run until stopped: up, control; and down."""

from __future__ import annotations

import click
import msgspec

from lockgate.app.cli.session import Session, verb
from lockgate.app.plugins import resolve
from lockgate.app.up.running import Running, detach, stop

PORT = click.IntRange(0, 65_535)


@verb
@click.option(
    "--port", type=PORT, default=8080, show_default=True, help="Port of the data plane; 0 for any free one."
)
@click.option("--hub-port", type=PORT, default=0, help="Port of the hub; 0 for any free one.")
@click.option("--detach", "background", is_flag=True, help="Return as soon as it serves.")
def up(session: Session, port: int, hub_port: int, background: bool) -> None:
    """Data plane, controller and hub on loopback, until Ctrl-C or `lockgate down`."""
    if background:
        known = detach(session.layout, ["--port", str(port), "--hub-port", str(hub_port)])
        session.answer(known, _text(known))
        return
    control = session.control
    resolve("lockgate.app.declare:declare")(control, session.deciding)
    supervisor = resolve("lockgate.app.up.supervise:Supervisor")(control, port=port, hub_port=hub_port)
    supervisor.run(lambda known: _announce(session, known))


def _announce(session: Session, known: Running) -> None:
    if session.json:
        click.echo(msgspec.json.encode(known).decode())
    else:
        click.echo(_text(known))


def _text(known: Running) -> str:
    return (
        f"up: endpoints at {known.plane_url}/ENV/NAME, hub at {known.hub_url} (loopback, claimed identities)\n"
        f"stop with: lockgate down"
    )


@verb
def down(session: Session) -> None:
    """Stop what `up` started."""
    known = stop(session.layout)
    session.answer({"stopped": known.pid}, f"stopped {known.pid}")


@verb
def control(session: Session) -> None:
    """Carry out once what waits in the outbox, look once at every rollout, then end.

    A rollback that was done without the hub is adopted first.
    """
    runner = session.control.effects
    session.control.adopt()
    runner.carry_out()
    session.control.rollouts.look()
    done = runner.carry_out()
    session.seal()
    session.answer({"done": done}, "nothing is left to do" if done else "something still waits (lockgate up)")
