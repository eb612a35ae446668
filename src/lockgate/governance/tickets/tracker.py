"""What a tracker says of the ticket that a promotion names: the question, the answer, and what follows from it.

The tracker is asked before the lock, once for a command. What it said enters the decision as a dated fact, and the
journal beside the release that rests on it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lockgate.core.clock import Micros, iso
from lockgate.core.messages import Reason
from lockgate.governance.policies.pattern import MAX_TICKET, PatternRefused, ticket_pattern
from lockgate.governance.policies.policy import Sensitivity, TierRule

TICKET_FACT = "ticket"
WAITS_FOR_TRACKER = frozenset({"governance.ticket-unapproved", "governance.tracker-silent"})
"""Rules of reasons that go away without another ticket: the tracker answers again, somebody approves there."""


class TicketQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What a tracker is asked: whether this ticket covers this release.

    Attributes:
        command: the id of the promotion; the same for every attempt of one command.
    """

    ticket: str
    version: str
    environment: str
    actor: str
    requested_at: Micros
    command: str


class TicketAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a tracker says of a ticket.

    Attributes:
        open: work under it may still be done.
        approved: the change was approved there; None when the tracker knows no such thing.
    """

    known: bool
    open: bool
    title: str = ""
    url: str = ""
    approved: bool | None = None


class TicketFact(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking. Exactly one of `answer` and `complaint` is there."""

    asked_at: Micros
    answer: TicketAnswer | None = None
    complaint: Reason | None = None


class ConfirmedTicket(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket as its tracker knew it when a release began on it."""

    title: str
    url: str
    approved: bool | None
    asked_at: Micros

    @property
    def said(self) -> str:
        """What the tracker said, on one line."""
        told = (self.title, "open and approved" if self.approved else "open", self.url)
        return f"{', '.join(filter(None, told))}; so the tracker at {iso(self.asked_at)}"


def asked_in(rule: TierRule, sensitivity: Sensitivity, ticket: str) -> bool:
    """Whether the tracker is to be asked about a ticket. One of another form than the policy asks for is none."""
    try:
        return sensitivity in rule.tracker and bool(ticket) and _has_form(rule, sensitivity, ticket)
    except PatternRefused:
        return False


def _has_form(rule: TierRule, sensitivity: Sensitivity, ticket: str) -> bool:
    pattern = rule.ticket.get(sensitivity)
    return not line_reasons(ticket) and (pattern is None or ticket_pattern(pattern).matches(ticket))


def line_reasons(text: str, what: str = "ticket") -> list[Reason]:
    """Why a text goes on no record as a ticket, or as the address of a pull request."""
    if len(text) <= MAX_TICKET and text.isprintable():
        return []
    return [
        Reason(
            rule=f"governance.{what.replace(' ', '-')}",
            message=f"a {what} is one line of at most {MAX_TICKET} characters that can be printed",
            measured=f"{len(text)} characters",
            limit=f"{MAX_TICKET} characters, printable",
            remedy=f"name the {what} by its key or address alone",
        )
    ]


def ticket_reasons(
    rule: TierRule, sensitivity: Sensitivity, environment: str, ticket: str, fact: TicketFact | None
) -> list[Reason]:
    """What stands against a ticket: its form, and what the tracker says where the policy has it asked.

    Args:
        fact: None when nobody has asked the tracker.
    """
    if no_line := line_reasons(ticket):
        return no_line
    try:
        if not _has_form(rule, sensitivity, ticket):
            return [_formless(rule.ticket[sensitivity], environment, ticket)]
    except PatternRefused as error:
        # Adopted before such patterns were refused. Nobody is let in by a demand that cannot be checked.
        return [
            Reason(
                rule="governance.ticket",
                message=f"{environment} asks for a ticket, and {error.message}",
                measured=ticket or "none",
                remedy="lockgate policy adopt FILE, with another ticket pattern",
            )
        ]
    if sensitivity not in rule.tracker or not ticket:
        return []
    if fact is None:
        message = f"{environment} has the tracker asked about {ticket}, and nobody has"
        return [silent(message, "promote again: the policy asks for it since a moment ago")]
    if fact.complaint is not None:
        return [fact.complaint]
    assert fact.answer is not None
    return list(_against(ticket, fact.answer))


def _formless(pattern: str, environment: str, ticket: str) -> Reason:
    return Reason(
        rule="governance.ticket",
        message=f"{environment} asks for a ticket"
        + (f", and {ticket!r} is none" if ticket else "; give it with --ticket"),
        measured=ticket or "none",
        limit=pattern,
        remedy="name the ticket with --ticket, or in a Ticket: line of the commit",
    )


def silent(message: str, remedy: str) -> Reason:
    """That there is no answer of the tracker."""
    return Reason(
        rule="governance.tracker-silent", message=message, measured="no answer", limit="known", remedy=remedy
    )


def _against(ticket: str, answer: TicketAnswer) -> Iterator[Reason]:
    named = ticket + (f" ({answer.title})" if answer.title else "")
    where = answer.url or "the tracker"
    if not answer.known:
        yield Reason(
            rule="governance.ticket-unknown",
            message=f"the tracker knows no ticket {ticket}",
            measured="unknown",
            limit="an open ticket",
            remedy="name the ticket of this change: --ticket KEY",
        )
        return
    if not answer.open:
        yield Reason(
            rule="governance.ticket-closed",
            message=f"ticket {named} is not open",
            measured="closed",
            limit="an open ticket",
            remedy=f"open it again at {where}, or name the ticket of this change: --ticket KEY",
        )
    if answer.approved is False:
        yield Reason(
            rule="governance.ticket-unapproved",
            message=f"ticket {named} is not approved",
            measured="not approved",
            limit="approved",
            remedy=f"have it approved at {where}, then promote again",
        )


def confirmed(fact: TicketFact | None) -> ConfirmedTicket | None:
    """What goes on record beside a release; nothing when the tracker was not asked."""
    if fact is None or fact.answer is None:
        return None
    return ConfirmedTicket(
        title=fact.answer.title, url=fact.answer.url, approved=fact.answer.approved, asked_at=fact.asked_at
    )


def fact_of(ticket: ConfirmedTicket) -> TicketFact:
    """The fact that a release rested on, as it is on record."""
    answer = TicketAnswer(known=True, open=True, title=ticket.title, url=ticket.url, approved=ticket.approved)
    return TicketFact(asked_at=ticket.asked_at, answer=answer)
