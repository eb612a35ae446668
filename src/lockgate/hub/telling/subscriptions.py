"""Subscriptions: who outside is told of which events, as documents of the hub.

The hub decides who may be told what; carrying it there is the work of a notifier (`adapters/notify`), which follows the
journal. A secret never stands here, only a reference to where the notifier finds it; the same holds for an address that
is itself a secret.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

import msgspec
from msgspec.structs import replace

from lockgate.core.clock import Micros
from lockgate.core.documents import Columns, DocRef, Docs, DocumentKind
from lockgate.core.messages import (
    Command,
    Context,
    Decision,
    Event,
    Query,
    Reason,
    Refusal,
    Scope,
    Stamp,
    refuse,
    tag_of,
)
from lockgate.core.names import check_part
from lockgate.core.secrets import is_secret_ref, parse_secret_ref
from lockgate.hub.ports import Delivery

Format = Literal["cloudevents", "openlineage"]
_PATTERN = re.compile(r"\*|[a-z]+\.\*|[a-z]+\.[a-z]+(-[a-z]+)*(\*|/[1-9][0-9]*)?")
# No user and password in front of the host: they would stand in the journal for ever.
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]+\]|[^\s/@?#:\[\]]+)(:[0-9]{1,5})?(/[^\s#]*)?"
)
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")


class AddSubscription(Command, frozen=True, kw_only=True, tag="hub.add-subscription"):
    """Tell an address of events from now on.

    Attributes:
        url: `https://...`, `http://` on this machine only, or a reference to a secret that holds it.
        secret: a reference to the key that every delivery is signed with.
        events: patterns of event types: `*`, `ROOM.*`, `ROOM.name` or `ROOM.name/N`.
        namespace, environment: tell of these only; empty for all.
    """

    permission: ClassVar[str] = "hub.subscribe"
    name: str
    url: str
    secret: str
    events: tuple[str, ...] = ("*",)
    namespace: str = ""
    environment: str = ""
    format: Format = "cloudevents"

    def scope(self) -> Scope:
        return Scope(namespace=self.namespace, environment=self.environment)


class RemoveSubscription(Command, frozen=True, kw_only=True, tag="hub.remove-subscription"):
    """Tell an address no more; what is still on its way to it is given up. `namespace` is that of the subscription."""

    permission: ClassVar[str] = "hub.subscribe"
    name: str
    namespace: str = ""
    environment: str = ""

    def scope(self) -> Scope:
        return Scope(namespace=self.namespace, environment=self.environment)


class RequestRedelivery(Command, frozen=True, kw_only=True, tag="hub.request-redelivery"):
    """Have deliveries tried again: of event `seq`, or (None) all that were given up."""

    permission: ClassVar[str] = "hub.subscribe"
    name: str
    seq: int | None = None
    namespace: str = ""
    environment: str = ""

    def scope(self) -> Scope:
        return Scope(namespace=self.namespace, environment=self.environment)


class SubscriptionAdded(Event, frozen=True, kw_only=True, tag="hub.subscription-added/1"):
    name: str
    url: str
    secret: str
    events: tuple[str, ...]
    namespace: str
    environment: str
    format: Format

    def summary(self) -> str:
        return f"subscription {self.name} added: {', '.join(self.events)} to {self.url}"


class SubscriptionRemoved(Event, frozen=True, kw_only=True, tag="hub.subscription-removed/1"):
    name: str

    def summary(self) -> str:
        return f"subscription {self.name} removed"


class RedeliveryRequested(Event, frozen=True, kw_only=True, tag="hub.redelivery-requested/1"):
    name: str
    seq: int | None

    def summary(self) -> str:
        what = "all that were given up" if self.seq is None else f"event {self.seq}"
        return f"subscription {self.name}: {what} to be delivered again"


class SubscriptionState(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told of what. `since` is the event that added it: it is told of later ones only."""

    name: str
    url: str
    secret: str
    events: tuple[str, ...]
    namespace: str
    environment: str
    format: Format
    since: int
    added_by: str
    added_at: Micros
    removed_at: Micros | None = None
    redelivery: int = 0

    def wants(self, event: Event, scope: Scope) -> bool:
        """Whether it is to be told of an event that is about `scope`."""
        if self.namespace and scope.namespace != self.namespace:
            return False
        if self.environment and scope.environment != self.environment:
            return False
        tag = tag_of(type(event))
        return any(matches(pattern, tag) for pattern in self.events)


def matches(pattern: str, tag: str) -> bool:
    """Whether `tag` (`ROOM.name/N`) is of the kind that `pattern` names."""
    if pattern.endswith("*"):
        return tag.startswith(pattern[:-1])
    return tag == pattern or tag.rpartition("/")[0] == pattern


def _added(body: SubscriptionState | None, event: SubscriptionAdded, stamp: Stamp) -> SubscriptionState:
    return SubscriptionState(
        name=event.name,
        url=event.url,
        secret=event.secret,
        events=event.events,
        namespace=event.namespace,
        environment=event.environment,
        format=event.format,
        since=stamp.seq,
        added_by=stamp.actor,
        added_at=stamp.at,
    )


SUBSCRIPTION = DocumentKind(
    name="subscription",
    type=SubscriptionState,
    keys=lambda event: (event.name,),
    made_by={SubscriptionAdded: _added},
    changed_by={
        SubscriptionRemoved: lambda body, event, stamp: replace(body, removed_at=stamp.at),
        RedeliveryRequested: lambda body, event, stamp: replace(body, redelivery=stamp.seq),
    },
    columns=lambda body: Columns(body.namespace, "active" if body.removed_at is None else "removed", ""),
)


def needs_subscription(
    command: AddSubscription | RemoveSubscription | RequestRedelivery, docs: Docs
) -> tuple[DocRef, ...]:
    return (DocRef(SUBSCRIPTION.name, command.name),)


def add_subscription(docs: Docs, command: AddSubscription, context: Context) -> Decision | Refusal:
    """A name is used once: what was delivered under it stays what it was."""
    check_part(command.name, what="subscription")
    reasons = address_reasons(command.url) + _pattern_reasons(command.events)
    if not is_secret_ref(command.secret):
        # Neither the journal nor a message repeats what stands there.
        parse_secret_ref(command.secret, where="--secret")
    if docs.get(SUBSCRIPTION, command.name) is not None:
        reasons.append(
            Reason(
                rule="hub.subscription-name-taken",
                message=f"there is, or was, a subscription {command.name}",
                remedy="choose another name",
            )
        )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    added = SubscriptionAdded(
        name=command.name,
        url=command.url,
        secret=command.secret,
        events=command.events,
        namespace=command.namespace,
        environment=command.environment,
        format=command.format,
    )
    return Decision((added,))


def address_reasons(url: str) -> list[Reason]:
    """Why nothing is posted to an address that somebody wrote down; empty when it may be."""
    if is_secret_ref(url):
        return []
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return [
            Reason(
                rule="hub.subscription-address",
                message="the address is no http or https URL without user, password and fragment",
                remedy="write https://HOST/PATH; one that is itself a secret as env:NAME or file:PATH",
            )
        ]
    if found["scheme"] == "http" and _LOOPBACK.fullmatch(found["host"]) is None:
        return [
            Reason(
                rule="hub.subscription-insecure",
                message=f"what is told to {found['host']} could be read on the way",
                measured="http",
                limit="https, or http to this machine",
                remedy="write https://",
            )
        ]
    return []


def _pattern_reasons(patterns: tuple[str, ...]) -> list[Reason]:
    wrong = [pattern for pattern in patterns if _PATTERN.fullmatch(pattern) is None]
    if patterns and not wrong:
        return []
    return [
        Reason(
            rule="hub.subscription-events",
            message=f"{', '.join(wrong) or 'nothing'} names no kind of event",
            remedy="write *, ROOM.*, ROOM.name or ROOM.name/N, for example delivery.*",
        )
    ]


def remove_subscription(docs: Docs, command: RemoveSubscription, context: Context) -> Decision | Refusal:
    known = _known(docs, command)
    if isinstance(known, Refusal):
        return known
    return Decision((SubscriptionRemoved(name=command.name),))


def request_redelivery(docs: Docs, command: RequestRedelivery, context: Context) -> Decision | Refusal:
    known = _known(docs, command)
    if isinstance(known, Refusal):
        return known
    return Decision((RedeliveryRequested(name=command.name, seq=command.seq),))


def _known(docs: Docs, command: RemoveSubscription | RequestRedelivery) -> SubscriptionState | Refusal:
    """The subscription, when it is there and of the scope that the command was allowed for."""
    known = docs.get(SUBSCRIPTION, command.name)
    if (
        known is None
        or known.removed_at is not None
        or (known.namespace, known.environment) != (command.namespace, command.environment)
    ):
        return refuse(
            Reason(
                rule="hub.subscription-unknown",
                message=f"there is no subscription {command.name}",
                remedy="lockgate webhook list",
            )
        )
    return known


class SubscriptionsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    subscriptions: tuple[SubscriptionState, ...]


class ListSubscriptions(Query, frozen=True, kw_only=True, tag="hub.list-subscriptions"):
    """Who is told of what; removed ones too, with when."""

    permission: ClassVar[str] = "hub.subscribe"
    answer: ClassVar[Any] = SubscriptionsAnswer

    def scope(self) -> Scope:
        return Scope()


class DeliveryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one subscription; `state` is waiting, delivered or dead, `detail` what the other side said."""

    seq: int
    state: str
    attempts: int
    next_at: Micros | None
    delivered_at: Micros | None
    detail: str


def line_of_delivery(one: Delivery) -> DeliveryLine:
    return DeliveryLine(
        seq=one.seq,
        state=one.state,
        attempts=one.attempts,
        next_at=one.next_at if one.state == "waiting" else None,
        delivered_at=one.delivered_at,
        detail=one.detail,
    )


class DeliveriesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    subscription: SubscriptionState
    deliveries: tuple[DeliveryLine, ...]


class ListDeliveries(Query, frozen=True, kw_only=True, tag="hub.list-deliveries"):
    """What became of the newest events that a subscription was owed, newest first; at most 1,000."""

    permission: ClassVar[str] = "hub.subscribe"
    answer: ClassVar[Any] = DeliveriesAnswer
    name: str
    limit: int = 50

    def scope(self) -> Scope:
        return Scope()
