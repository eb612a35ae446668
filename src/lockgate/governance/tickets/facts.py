"""The fact about a ticket: made before the lock, by a tracker."""

from __future__ import annotations

from lockgate.core.clock import Micros
from lockgate.governance.tickets.ports import Tracker, TrackerUnavailable
from lockgate.governance.tickets.tracker import TicketFact, TicketQuestion, silent


def ticket_fact(tracker: Tracker | None, question: TicketQuestion, now: Micros) -> TicketFact:
    """What a tracker says; that it does not answer, or that there is none, is a complaint and no failure."""
    if tracker is None:
        message = "the policy has the tracker asked, and no tracker is configured here"
        return TicketFact(
            asked_at=now, complaint=silent(message, "add [tracker] to hub.toml, or to lockgate.toml")
        )
    try:
        return TicketFact(asked_at=now, answer=tracker.ask(question))
    except TrackerUnavailable as error:
        return TicketFact(asked_at=now, complaint=silent(error.message, error.remedy))
