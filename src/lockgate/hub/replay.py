"""What another policy would have said: history judged anew. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, pairwise
from typing import Any

from lockgate.core.documents import DocRef
from lockgate.core.messages import Reason, Stamp
from lockgate.core.names import parse_endpoint
from lockgate.delivery.messages import PromoteVersion, ReleaseStarted, TicketConfirmed
from lockgate.delivery.standing import needs_promote, stopped_by
from lockgate.governance.policies.policy import AnyPolicy
from lockgate.governance.tickets.tracker import ConfirmedTicket
from lockgate.hub.audit import read_entry
from lockgate.hub.kernel import Folded, gather, iter_entries
from lockgate.hub.messages import ReplayAnswer, ReplayLine
from lockgate.hub.ports import Journal, StoredEntry
from lockgate.hub.table import KIND_BY_NAME


def replayed(
    journal: Journal, namespace: str, policy: AnyPolicy, sees: Callable[[str], bool]
) -> ReplayAnswer:
    """What would have been blocked, had this policy been in force all the time. Changes nothing.

    The journal is folded again from its beginning; before each release starts, the policy is asked about the very
    documents and the very moment that the decision had. Approvals count as they did then.

    Args:
        sees: whether whoever asks may know of an endpoint.
    """
    folded, blocked, n_releases = Folded(lambda kind, key: None), list[ReplayLine](), 0
    for stored, following in pairwise(chain[StoredEntry | None](iter_entries(journal), (None,))):
        assert stored is not None
        event, stamp = read_entry(stored)
        if isinstance(event, ReleaseStarted) and not event.break_glass and sees(event.endpoint):
            # What the tracker said stands right behind it.
            after = None if following is None else read_entry(following)[0]
            ticket = after.confirmed if isinstance(after, TicketConfirmed) else None
            reasons = _would_stop(folded, event, ticket, stamp, namespace, policy)
            n_releases += reasons is not None
            if reasons:
                blocked.append(
                    ReplayLine(
                        endpoint=event.endpoint,
                        release=event.release,
                        version=event.served.version,
                        started_at=stamp.at,
                        started_by=stamp.actor,
                        reasons=tuple(reasons),
                    )
                )
        folded.apply(event, stamp)
    return ReplayAnswer(n_releases=n_releases, blocked=tuple(blocked))


def _would_stop(
    folded: Folded,
    event: ReleaseStarted,
    ticket: ConfirmedTicket | None,
    stamp: Stamp,
    namespace: str,
    policy: AnyPolicy,
) -> list[Reason] | None:
    """The reasons against a release that was started; None for one of another namespace."""
    name, key = parse_endpoint(event.endpoint), event.served.version
    if name.model.namespace != namespace:
        return None
    promote = PromoteVersion(id="", version=key, environment=name.environment)

    def read(ref: DocRef) -> Any:
        kind = KIND_BY_NAME[ref.kind]
        return folded.all(kind, ref.key[:-1]) if ref.key.endswith("*") else folded.get(kind, ref.key)

    return stopped_by(gather(needs_promote, promote, read), event, ticket, policy, stamp.at)
