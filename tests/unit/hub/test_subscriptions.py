"""Who may be told what, and under which name."""

from __future__ import annotations

from typing import Any

import pytest

from lockgate.core.messages import Receipt, Scope
from lockgate.core.secrets import NotAReference
from lockgate.delivery.messages import EndpointRemoved, RollbackConfirmed
from lockgate.hub.telling.subscriptions import (
    AddSubscription,
    ListDeliveries,
    ListSubscriptions,
    RemoveSubscription,
    RequestRedelivery,
    SubscriptionState,
    matches,
)
from lockgate.testing.hub_world import HubWorld, Story, accepted, rules_of


@pytest.fixture
def story() -> Story:
    return Story(HubWorld.in_memory().hub)


def add(story: Story, **changes: Any) -> Receipt:
    given = {"name": "chat", "url": "https://hooks.example.com/x", "secret": "env:CHAT_KEY", **changes}
    return story.do("petra", AddSubscription(id=story.new_id(), **given))


def listed(story: Story) -> tuple[SubscriptionState, ...]:
    found: tuple[SubscriptionState, ...] = story.ask(ListSubscriptions()).subscriptions
    return found


def test_somebody_is_told_until_somebody_says_no_more(story: Story) -> None:
    accepted(add(story, events=("delivery.*",), namespace="main"))
    (one,) = listed(story)
    assert (one.name, one.events, one.added_by, one.removed_at) == ("chat", ("delivery.*",), "petra", None)
    assert one.since == 1
    wrong = RemoveSubscription(id=story.new_id(), name="chat", namespace="other")
    assert rules_of(story.do("petra", wrong)) == ["hub.subscription-unknown"]
    accepted(story.do("petra", RemoveSubscription(id=story.new_id(), name="chat", namespace="main")))
    assert listed(story)[0].removed_at is not None
    again = RemoveSubscription(id=story.new_id(), name="chat", namespace="main")
    assert rules_of(story.do("petra", again)) == ["hub.subscription-unknown"]
    assert rules_of(add(story)) == ["hub.subscription-name-taken"]


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://hooks.example.com", None),
        ("https://hooks.example.com:8443/a/b?c=d", None),
        ("http://127.0.0.1:9000/x", None),
        ("http://localhost/x", None),
        ("http://[::1]:9000/", None),
        ("env:CHAT_URL", None),
        ("http://hooks.example.com/x", "hub.subscription-insecure"),
        ("http://127.0.0.1.example.com/x", "hub.subscription-insecure"),
        ("https://user:" + "word@example.com/x", "hub.subscription-address"),
        ("https://user@example.com/x", "hub.subscription-address"),
        ("https://example.com/x#y", "hub.subscription-address"),
        ("ftp://example.com/x", "hub.subscription-address"),
        ("https://", "hub.subscription-address"),
        ("https://exa mple.com", "hub.subscription-address"),
        ("", "hub.subscription-address"),
    ],
)
def test_an_address_is_safe_to_write_down(story: Story, url: str, rule: str | None) -> None:
    assert rules_of(add(story, url=url)) == ([] if rule is None else [rule])


def test_a_secret_itself_is_neither_kept_nor_repeated(story: Story) -> None:
    with pytest.raises(NotAReference) as refused:
        add(story, secret="whsec_c2VjcmV0")
    assert "whsec" not in str(refused.value.record())


@pytest.mark.parametrize(
    "patterns", [(), ("",), ("**",), ("delivery",), ("Delivery.*",), ("a.b/0",), ("delivery.* ",)]
)
def test_patterns_name_kinds_of_events(story: Story, patterns: tuple[str, ...]) -> None:
    assert rules_of(add(story, events=patterns)) == ["hub.subscription-events"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*", True),
        ("delivery.*", True),
        ("delivery.rollback-confirmed", True),
        ("delivery.rollback-confirmed/1", True),
        ("delivery.rollback*", True),
        ("delivery.rollback-confirmed/2", False),
        ("delivery.rollback", False),
        ("registry.*", False),
    ],
)
def test_a_pattern_matches_by_room_name_or_number(pattern: str, wanted: bool) -> None:
    assert matches(pattern, "delivery.rollback-confirmed/1") is wanted


def test_events_are_told_by_namespace_and_environment(story: Story) -> None:
    accepted(add(story, events=("delivery.*",), namespace="main", environment="prod"))
    (one,) = listed(story)
    event = RollbackConfirmed(endpoint="prod/main/x", generation=1, took_us=1)
    assert one.wants(event, Scope(namespace="main", environment="prod", model="x"))
    assert not one.wants(event, Scope(namespace="main", environment="dev", model="x"))
    assert not one.wants(event, Scope(namespace="risk", environment="prod", model="x"))
    removed = EndpointRemoved(
        endpoint="prod/main/x", generation=1, release=None, live="", reason="r", overridden=()
    )
    assert one.wants(removed, Scope(namespace="main", environment="prod", model="x"))


def test_redelivery_is_asked_for_and_written_down(story: Story) -> None:
    accepted(add(story))
    (event,) = accepted(story.do("petra", RequestRedelivery(id=story.new_id(), name="chat", seq=3))).events
    assert (event["name"], event["seq"]) == ("chat", 3)
    unknown = RequestRedelivery(id=story.new_id(), name="nobody")
    assert rules_of(story.do("petra", unknown)) == ["hub.subscription-unknown"]
    assert story.ask(ListDeliveries(name="chat")).deliveries == ()
