"""Verbs about webhooks: add, list, remove, deliveries, retry. `lockgate up` and `lockgate hub` deliver."""

from __future__ import annotations

import click

from lockgate.app.cli.session import Session, verb
from lockgate.app.cli.verbs.show import when
from lockgate.core.errors import NotFound, did_you_mean
from lockgate.hub.table import EVENT_BY_TAG
from lockgate.hub.telling.subscriptions import (
    AddSubscription,
    DeliveriesAnswer,
    Format,
    ListDeliveries,
    ListSubscriptions,
    RemoveSubscription,
    RequestRedelivery,
    SubscriptionsAnswer,
    SubscriptionState,
    matches,
)


class UnknownSubscription(NotFound):
    code = "cli.unknown-subscription"


@click.group()
def webhook() -> None:
    """Who outside is told of which events. `lockgate up` and `lockgate hub` deliver: signed, stored, tried again."""


@verb
@click.argument("name")
@click.argument("url")
@click.option(
    "--secret",
    required=True,
    metavar="REF",
    help="env:NAME or file:PATH of the key that signs; never the key.",
)
@click.option(
    "--events", "patterns", multiple=True, metavar="PATTERN", help="*, ROOM.* or ROOM.name; may be repeated."
)
@click.option("--namespace", default="", help="Events of this namespace only.")
@click.option("--environment", default="", metavar="ENV", help="Events of this environment only.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["cloudevents", "openlineage"]),
    default="cloudevents",
    show_default=True,
    help="What is posted.",
)
def add(
    session: Session,
    name: str,
    url: str,
    secret: str,
    patterns: tuple[str, ...],
    namespace: str,
    environment: str,
    form: Format,
) -> None:
    """Tell an address of events from now on, as CloudEvents or OpenLineage run events.

    URL is https, http on this machine only, or env:NAME or file:PATH when the address is itself a secret.

    Example: lockgate webhook add chat https://hooks.example.com/lockgate --secret env:CHAT_KEY --events "delivery.*"
    """
    session.tell(
        AddSubscription(
            id=session.new_id(),
            name=name,
            url=url,
            secret=secret,
            events=patterns or ("*",),
            namespace=namespace,
            environment=environment,
            format=form,
        ),
        headline=f"{name} is not added",
    )
    session.answer(
        {"name": name, "events": patterns or ("*",)}, f"{name} is told of {', '.join(patterns) or '*'}"
    )
    for pattern in patterns:
        if not any(matches(pattern, tag) for tag in EVENT_BY_TAG):
            session.note(
                f"warning: this release has no event {pattern}; {did_you_mean(pattern, EVENT_BY_TAG)}"
            )


@verb
def listed(session: Session) -> None:
    """Who is told of what."""
    answer: SubscriptionsAnswer = session.ask(ListSubscriptions())
    session.answer(answer, "\n".join(map(_text, answer.subscriptions)) or "nobody is told of anything")


def _text(one: SubscriptionState) -> str:
    only = "".join(f", {word} {text}" for word, text in _bounds(one) if text)
    ended = f"  removed {when(one.removed_at)}" if one.removed_at else ""
    return f"{one.name:<16} {one.url}  {', '.join(one.events)}{only}  {one.format}{ended}"


def _bounds(one: SubscriptionState) -> tuple[tuple[str, str], ...]:
    return ("namespace", one.namespace), ("environment", one.environment)


@verb
@click.argument("name")
def remove(session: Session, name: str) -> None:
    """Tell an address no more; what is still on its way to it is given up."""
    known = _named(session, name)
    session.tell(
        RemoveSubscription(id=session.new_id(), name=name, **dict(_bounds(known))), headline=f"{name} stays"
    )
    session.answer({"name": name, "removed": True}, f"{name} is told no more")


@verb
@click.argument("name")
@click.option("--limit", type=click.IntRange(min=1, max=1000), default=50, show_default=True)
def deliveries(session: Session, name: str, limit: int) -> None:
    """What became of the newest events that somebody was to be told of."""
    answer: DeliveriesAnswer = session.ask(ListDeliveries(name=name, limit=limit))
    rows = [
        f"{one.seq:>6}  {one.state:<9}  {one.attempts} attempts  {one.detail}"
        + (f"  at {when(one.delivered_at)}" if one.delivered_at else "")
        + (f"  next {when(one.next_at)}" if one.next_at else "")
        for one in reversed(answer.deliveries)
    ]
    session.answer(answer, "\n".join(rows) or f"nothing happened yet that {name} is to be told of")


@verb
@click.argument("name")
@click.option("--seq", type=click.IntRange(min=1), help="One event, delivered or not; default: all given up.")
def retry(session: Session, name: str, seq: int | None) -> None:
    """Have deliveries tried again that were given up, or one event sent once more."""
    known = _named(session, name)
    session.tell(
        RequestRedelivery(id=session.new_id(), name=name, seq=seq, **dict(_bounds(known))),
        headline=f"nothing is tried again for {name}",
    )
    session.answer(
        {"name": name, "seq": seq}, f"{name}: {'all that were given up' if seq is None else seq} again"
    )


def _named(session: Session, name: str) -> SubscriptionState:
    answer: SubscriptionsAnswer = session.ask(ListSubscriptions())
    for one in answer.subscriptions:
        if one.name == name:
            return one
    known = [one.name for one in answer.subscriptions]
    raise UnknownSubscription(f"there is no subscription {name}", remedy=did_you_mean(name, known), name=name)


for one in (add, remove, deliveries, retry):
    webhook.add_command(one)
webhook.add_command(listed, "list")
