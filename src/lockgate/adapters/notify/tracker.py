"""A ticket tracker, asked by one signed POST: Jira, ServiceNow or another behind a few lines of glue.

Signed as our webhooks are (`cloud_events.signed_headers`). What comes back is believed as far as it is the answer that
was asked for: a title of one line, an address that a browser may open.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lockgate.adapters.notify.cloud_events import Message, signed_headers
from lockgate.adapters.notify.posting import Outcome, Poster
from lockgate.core.clock import Clock, iso
from lockgate.core.digests import canonical, digest_of
from lockgate.core.errors import LockgateError
from lockgate.governance.tickets.ports import TrackerUnavailable
from lockgate.governance.tickets.tracker import TicketAnswer, TicketQuestion

PATIENCE_S = 5.0
MAX_ANSWER_BYTES = 16_384
_MAX_TITLE, _MAX_URL = 200, 1_000
_CONTENT_TYPE = "application/json"


class HttpTracker:
    """Whoever answers at a URL. Safe for threads.

    Args:
        poster: with a patience of seconds: somebody waits for the answer.
        url: where to ask; read at each question, as it may be a secret.
        secret: the key that questions are signed with; read at each question too.
    """

    def __init__(
        self, poster: Poster, clock: Clock, *, url: Callable[[], str], secret: Callable[[], str]
    ) -> None:
        self._poster = poster
        self._clock = clock
        self._url = url
        self._secret = secret

    def ask(self, question: TicketQuestion) -> TicketAnswer:
        told = {
            "ticket": question.ticket,
            "version": question.version,
            "environment": question.environment,
            "actor": question.actor,
            "requested_at": iso(question.requested_at),
        }
        # An id of any text must not become a header of any text.
        message = Message("ticket/" + digest_of(question.command)[7:39], _CONTENT_TYPE, canonical(told))
        try:
            headers = signed_headers(message, self._secret(), self._clock.now() // 1_000_000)
            outcome = self._poster.post(self._url(), headers, message.body, answer_bytes=MAX_ANSWER_BYTES)
        except LockgateError as error:
            raise _unavailable(question, error.message, error.remedy) from error
        return _read(question, outcome)


def _read(question: TicketQuestion, outcome: Outcome) -> TicketAnswer:
    if not outcome.accepted:
        raise _unavailable(question, outcome.detail)
    try:
        answer = msgspec.json.decode(outcome.body, type=TicketAnswer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unavailable(question, f"its answer is none: {error}") from error
    url = answer.url if answer.url.startswith(("https://", "http://")) else ""
    shown = url.isprintable() and not any(map(str.isspace, url)) and len(url) <= _MAX_URL
    return msgspec.structs.replace(answer, title=_one_line(answer.title), url=url if shown else "")


def _one_line(text: str) -> str:
    """What a terminal prints as it stands."""
    kept = "".join(one if one.isprintable() else " " for one in text[: 4 * _MAX_TITLE])
    return " ".join(kept.split())[:_MAX_TITLE]


def _unavailable(question: TicketQuestion, why: str, first: str = "") -> TrackerUnavailable:
    again = first or "promote again when the tracker answers"
    return TrackerUnavailable(
        f"the tracker could not be asked about {question.ticket}: {why}",
        remedy=f"{again}; in an emergency: lockgate break-glass {question.environment}/NAME --incident ID",
        ticket=question.ticket,
    )
