"""What governance needs from outside: somebody who knows the tickets."""

from __future__ import annotations

from typing import Protocol

from lockgate.core.errors import Unavailable
from lockgate.governance.tickets.tracker import TicketAnswer, TicketQuestion


class TrackerUnavailable(Unavailable):
    """The tracker did not answer, or not what it was asked."""

    code = "governance.tracker-unavailable"


class Tracker(Protocol):
    """Whoever keeps the tickets: Jira, ServiceNow, or what stands in front of them. Safe for threads."""

    def ask(self, question: TicketQuestion) -> TicketAnswer:
        """What is known of a ticket at this moment. Asked before any lock, and it has an end: seconds, not minutes.

        Raises:
            TrackerUnavailable: there is no answer; asking again may help. Nothing else is ever raised.
        """
        ...
