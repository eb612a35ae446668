"""The notifier: follows the journal by a cursor, and carries events to who subscribed to them, at least once.

Two halves, joined by the table of deliveries. *Following* reads entries after the cursor and writes down who is owed
which, and the new cursor, in one transaction. *Delivering* claims what is due, posts it, and writes down what came of
it. A process that is killed anywhere loses nothing: what was not followed is followed by the next one, what was claimed
is due again when its claim runs out. Several notifiers may work on one store.

Of one subscription events arrive in the order of the journal: the next one waits until the one before was taken or
given up. An attempt that fails is repeated after 1, 2, 4 ... seconds, 10 minutes at most; after twelve it is given up
(`dead`) and stays listed until somebody has it tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property

import msgspec

from lockgate.adapters.notify.cloud_events import Message, cloud_event, signed_headers
from lockgate.adapters.notify.posting import Outcome, Poster
from lockgate.core.clock import Clock
from lockgate.core.errors import LockgateError
from lockgate.core.messages import Event, Scope, Stamp
from lockgate.core.secrets import is_secret_ref
from lockgate.hub.audit import read_entry
from lockgate.hub.kernel import body_of, read_body
from lockgate.hub.ports import NEVER, Deliveries, Delivery, Journal
from lockgate.hub.telling.subscriptions import SUBSCRIPTION, RedeliveryRequested, SubscriptionState
from lockgate.hub.within import scope_of_event

MAX_ATTEMPTS = 12
N_WORKERS = 4
_PAGE = 500
_LEASE_US = 60_000_000
_LONGEST_WAIT_S = 600
_KEPT_US = 30 * 86_400 * 1_000_000
_TICK_S = 0.25
_PRUNE_EVERY = 2_000

Render = Callable[[Event, Stamp], Sequence[Message]]
"""What one event is posted as; nothing when the format has no words for it."""


class Notifier:
    """Works for all subscriptions of one store.

    Args:
        secret: the text behind a reference; read at each attempt, so that a changed key needs no restart.
        lineage: renders the format `openlineage`.
    """

    def __init__(
        self,
        journal: Journal,
        deliveries: Deliveries,
        clock: Clock,
        poster: Poster,
        *,
        secret: Callable[[str], str],
        lineage: Render,
    ) -> None:
        self._journal = journal
        self._deliveries = deliveries
        self._clock = clock
        self._poster = poster
        self._secret = secret
        self._lineage = lineage

    def run(self, leaving: threading.Event, note: Callable[[str], None]) -> None:
        """Follow and deliver until `leaving` is set. What fails on this side is told, and tried again."""
        workers = [
            threading.Thread(target=self._keep, args=(leaving, note, self.deliver), daemon=True)
            for _ in range(N_WORKERS)
        ]
        for worker in workers:
            worker.start()
        self._keep(leaving, note, self.follow)

    def _keep(self, leaving: threading.Event, note: Callable[[str], None], work: Callable[[], bool]) -> None:
        told = ""
        while not leaving.is_set():
            busy = False
            try:
                busy = work()
                told = ""
            except Exception as error:  # noqa: BLE001 - a store that is away for a while must not end the thread
                if str(error) != told:
                    told = str(error)
                    note(f"webhooks: {type(error).__name__}: {error}")
            if not busy:
                leaving.wait(_TICK_S)

    def follow(self) -> bool:
        """Write down who is owed what of the next entries; whether there may be more."""
        after, head = self._deliveries.followed(), self._journal.head().seq
        if after >= head:
            return False
        subscriptions = self._subscriptions()
        first = min((one.since for one in subscriptions if one.removed_at is None), default=head)
        if after < first:
            # Nobody is owed anything that old.
            self._deliveries.owe(first, ())
            return True
        owed: list[tuple[str, int]] = []
        # Not past the head that was read before the subscriptions: who is added now is owed what follows.
        entries = self._journal.entries(after, min(_PAGE, head - after))
        for stored in entries:
            event, stamp = read_entry(stored)
            if isinstance(event, RedeliveryRequested):
                self._deliveries.reopen(event.name, event.seq)
            scope = place_of(event)
            owed += [
                (one.name, stamp.seq)
                for one in subscriptions
                if one.removed_at is None and one.since < stamp.seq and one.wants(event, scope)
            ]
        self._deliveries.owe(entries[-1].seq, owed)
        if entries[-1].seq % _PRUNE_EVERY < len(entries):
            self._deliveries.prune(self._clock.now() - _KEPT_US)
        return entries[-1].seq < head

    def deliver(self) -> bool:
        """Try one delivery that is due; whether there was one."""
        now = self._clock.now()
        claimed = self._deliveries.claim(now, now + _LEASE_US)
        if claimed is None:
            return False
        outcome = self._attempt(claimed)
        done_at = self._clock.now()
        delivered_at, next_at = (done_at, done_at) if outcome.accepted else (None, NEVER)
        if not (outcome.accepted or outcome.final or claimed.attempts >= MAX_ATTEMPTS):
            wait_s = min(max(2 ** (claimed.attempts - 1), outcome.wait_s), _LONGEST_WAIT_S)
            next_at = done_at + wait_s * 1_000_000
        self._deliveries.settle(claimed, delivered_at=delivered_at, next_at=next_at, detail=outcome.detail)
        return True

    def _attempt(self, claimed: Delivery) -> Outcome:
        subscription = body_of(self._journal, SUBSCRIPTION, claimed.subscription)
        if subscription is None or subscription.removed_at is not None:
            return Outcome(False, "the subscription was removed", final=True)
        (entry,) = self._journal.entries(claimed.seq - 1, 1)
        event, stamp = read_entry(entry)
        try:
            url = self._plain(subscription.url)
            outcome = Outcome(True, "nothing to tell in this format")
            for message in self._messages(subscription, event, stamp):
                now_s = self._clock.now() // 1_000_000
                headers = signed_headers(message, self._secret(subscription.secret), now_s)
                outcome = self._poster.post(url, headers, message.body)
                if not outcome.accepted:
                    break
        except LockgateError as error:
            # A secret that is not there, or no key: somebody has to put it right, and what waits is then told.
            return Outcome(False, error.message)
        return outcome

    def _plain(self, url: str) -> str:
        return self._secret(url) if is_secret_ref(url) else url

    def _messages(self, subscription: SubscriptionState, event: Event, stamp: Stamp) -> Sequence[Message]:
        if subscription.format == "openlineage":
            return self._lineage(event, stamp)
        return (cloud_event(event, stamp, place_of(event), self._origin),)

    @cached_property
    def _origin(self) -> str:
        return origin_of(self._journal)

    def _subscriptions(self) -> list[SubscriptionState]:
        return [read_body(SUBSCRIPTION, one) for one in self._journal.documents(SUBSCRIPTION.name)]


def origin_of(journal: Journal) -> str:
    """The name of a journal: the beginning of the hash of its first entry, which no other one has."""
    (first,) = journal.entries(0, 1)
    return first.hash.hex()[:16]


def place_of(event: Event) -> Scope:
    """What an event is about, with the environment it names: an approval is of a version, for an environment."""
    scope, named = scope_of_event(event), getattr(event, "environment", "")
    return msgspec.structs.replace(scope, environment=scope.environment or named)
