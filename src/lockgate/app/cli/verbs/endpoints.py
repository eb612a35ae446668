"""Verbs about endpoints: show, sign-off, remove. They are declared in lockgate.toml."""

from __future__ import annotations

import click

from lockgate.app.cli.main import WAITING, Exit
from lockgate.app.cli.session import Session, verb
from lockgate.app.cli.verbs.release import endpoint_line
from lockgate.app.cli.verbs.show import when
from lockgate.core.names import EndpointName, parse_endpoint, parse_version
from lockgate.delivery.lines import EndpointLine
from lockgate.delivery.messages import RemoveEndpoint, SignOffRemoval


@click.group()
def endpoint() -> None:
    """Who depends on an endpoint, and taking it down. ENDPOINT is ENV/NAME."""


@verb
@click.argument("endpoint")
def show(session: Session, endpoint: str) -> None:
    """What is live there, who depends on it, and who has let it go."""
    name = parse_endpoint(endpoint)
    line = endpoint_line(session, name)
    session.answer(line, _text(name, line))


def _text(name: EndpointName, line: EndpointLine) -> str:
    if line.removed_at is not None:
        return f"{name.shown}  removed {when(line.removed_at)}; declared again, it is as it was"
    rows = [f"{name.shown}  live {line.live.version if line.live else 'nothing'}"]
    rows += [
        f"  consumer   {one}" + ("  (has let it go)" if one in line.let_go else "") for one in line.consumers
    ]
    return "\n".join(rows + [f"  dashboard  {one}" for one in line.dashboards])


@verb
@click.argument("endpoint")
@click.option("--consumer", required=True, metavar="NAME", help="In whose name, as lockgate.toml has it.")
@click.option("--comment", default="", help="A word for the record.")
def sign_off(session: Session, endpoint: str, consumer: str, comment: str) -> None:
    """Say in the name of a consumer that it no longer needs an endpoint."""
    name = parse_endpoint(endpoint)
    session.say_identity()
    session.tell(
        SignOffRemoval(id=session.new_id(), endpoint=str(name), consumer=consumer, comment=comment),
        headline=f"nothing is signed off for {name.shown}",
    )
    session.answer({"endpoint": name.shown, "consumer": consumer}, f"{consumer} lets {name.shown} go")


@verb
@click.argument("endpoint")
@click.option("--reason", required=True, help="Why; it is kept for ever.")
@click.option("--live", default="", metavar="VERSION", help="What is live there and goes with it.")
@click.option("--despite-consumers", is_flag=True, help="Although consumers have not signed off; it is told.")
def remove(session: Session, endpoint: str, reason: str, live: str, despite_consumers: bool) -> None:
    """Take an endpoint down: it answers nobody any more. Its history stays.

    Refused while consumers depend on it, while a release is on its way, and while something is live that you do not
    name. Over the heads of consumers, a guarded or production endpoint waits for a second admin (exit 8).

    Example: lockgate endpoint remove prod/flight-delay --live flight-delay@1.2.0 --reason "replaced by arrivals"
    """
    name = parse_endpoint(endpoint)
    session.say_identity()
    receipt = session.tell(
        RemoveEndpoint(
            id=session.new_id(),
            endpoint=str(name),
            reason=reason,
            live=str(parse_version(live)) if live else "",
            despite_consumers=despite_consumers,
        ),
        headline=f"{name.shown} stays",
    )
    # The word of the first of two changes nothing yet.
    waits = endpoint_line(session, name).removed_at is None
    if waits:
        session.answer(
            {"endpoint": name.shown, "removed": False, "waiting": True, "effects": receipt.effects},
            f"{name.shown} is proposed to be taken down over the heads of its consumers",
        )
        session.note("waiting for a second admin, who types the same; it shows in lockgate review list")
        raise Exit(WAITING)
    session.answer(
        {"endpoint": name.shown, "removed": True, "waiting": False, "effects": receipt.effects},
        f"{name.shown} is removed" + ("" if receipt.events else " already"),
    )
    if not session.hub_url and name.shown in session.control.config.endpoints:
        session.note(
            f'next: take [endpoints."{name.shown}"] out of lockgate.toml, or it is declared again, empty'
        )


for one in (show, sign_off, remove):
    endpoint.add_command(one)
