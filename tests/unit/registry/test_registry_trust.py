"""Keys revoked and versions signed again: what that does to registering, promoting and to what is live."""

from __future__ import annotations

import pytest

from lockgate.core.digests import BadDigest
from lockgate.core.messages import Reason, Receipt
from lockgate.delivery.lines import LiveLine
from lockgate.hub.messages import ExplainVersion, Standing, Status
from lockgate.registry.messages import RejectVersion, RevokeKey, SignVersion
from lockgate.testing.hub_world import (
    MODEL_NAME,
    SIGNER,
    HubWorld,
    Story,
    accepted,
    named_digest,
    rules_of,
)

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"
NEW_KEY = named_digest("key", "new")


@pytest.fixture
def story(story: Story) -> Story:
    for name in ("one", "two"):
        story.train(name)
    accepted(story.register("one"))
    return story


def revoke(story: Story, key_id: str = SIGNER, *, since: int | None = None) -> Receipt:
    command = RevokeKey(id=story.new_id(), key_id=key_id, reason="the laptop was stolen", since=since)
    return story.do("sam", command)


def sign(story: Story, world: HubWorld, version: str = V1, *, key_id: str = NEW_KEY) -> Receipt:
    envelope = named_digest("signature", f"{version} by {key_id}")
    world.signers[envelope] = key_id
    return story.do("ann", SignVersion(id=story.new_id(), version=version, signature=envelope))


def live(story: Story, environment: str = "dev") -> LiveLine:
    line = story.ask(Status(endpoint=f"{environment}/{MODEL_NAME}")).endpoints
    found: LiveLine = next(iter(line.values())).live
    return found


def test_what_a_revoked_key_signed_is_neither_registered_nor_promoted(story: Story) -> None:
    accepted(revoke(story))
    assert rules_of(story.register("two")) == ["registry.key-revoked"]
    assert "registry.key-revoked" in rules_of(story.promote(V1, "dev"))
    standing = story.ask(Standing(version=V1, environment="prod"))
    assert "registry.key-revoked" in [reason.rule for reason in standing.reasons]


def test_one_key_that_is_left_is_enough(story: Story, world: HubWorld) -> None:
    accepted(sign(story, world))
    accepted(revoke(story))
    accepted(story.promote(V1, "dev"))
    assert story.ask(ExplainVersion(version=V1)).version.signed_by == (SIGNER, NEW_KEY)


def test_a_release_that_is_live_is_flagged_until_it_is_promoted_under_a_new_signature(
    story: Story, world: HubWorld
) -> None:
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    accepted(story.register("two"))
    accepted(story.promote(V2, "dev"))
    accepted(story.confirm("dev"))
    assert live(story).revoked == ()
    accepted(revoke(story))
    assert live(story).revoked == (SIGNER,)
    accepted(sign(story, world, V2))
    assert live(story).revoked == (SIGNER,), "the plan still carries the old signature only"
    accepted(story.promote(V2, "dev"))
    accepted(story.confirm("dev"))
    assert live(story).revoked == ()
    endpoint = next(iter(story.ask(Status(endpoint=f"dev/{MODEL_NAME}")).endpoints.values()))
    assert (endpoint.live.version, endpoint.previous.version) == ("flight-delay@1.0.1", "flight-delay@1.0.0")
    assert accepted(story.promote(V2, "dev")).events == (), "the same signatures again are no news"


def test_the_same_bytes_under_new_signatures_are_refused_when_they_were_shut_away(
    story: Story, world: HubWorld
) -> None:
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    accepted(sign(story, world))
    accepted(story.do("sam", RejectVersion(id=story.new_id(), version=V1, reason="bad")))
    assert rules_of(story.promote(V1, "dev")) == ["registry.state"]


def test_a_key_is_revoked_once_and_since_an_earlier_moment_at_most(story: Story, world: HubWorld) -> None:
    now = world.clock.now()
    assert len(accepted(revoke(story, since=now - 100)).events) == 1
    assert accepted(revoke(story)).events == ()
    assert accepted(revoke(story, since=now - 50)).events == ()
    (event,) = accepted(revoke(story, since=now - 200)).events
    assert event["since"] == now - 200
    assert rules_of(revoke(story, NEW_KEY, since=world.clock.now() + 10**9)) == ["registry.revoked-ahead"]
    with pytest.raises(BadDigest):
        revoke(story, "*")


def test_a_further_signature_must_be_for_these_bytes_and_by_a_key_that_counts(
    story: Story, world: HubWorld
) -> None:
    assert rules_of(sign(story, world, V2)) == ["registry.version-unknown"]
    accepted(sign(story, world))
    assert accepted(sign(story, world)).events == ()
    accepted(revoke(story, NEW_KEY))
    second = named_digest("key", "second")
    accepted(revoke(story, second))
    assert rules_of(sign(story, world, key_id=second)) == ["registry.key-revoked"]
    package = story.ask(ExplainVersion(version=V1)).version.package
    world.complaints[package] = (Reason(rule="registry.signature", message="does not fit"),)
    assert rules_of(sign(story, world, key_id=named_digest("key", "third"))) == ["registry.signature"]


def test_bytes_that_do_not_hold_are_refused_at_promotion_with_the_blob(story: Story, world: HubWorld) -> None:
    package = story.ask(ExplainVersion(version=V1)).version.package
    damaged = named_digest("blob", "weights")
    world.complaints[package] = (
        Reason(rule="registry.bytes", message=f"{damaged} is damaged", evidence=damaged),
    )
    refusal = story.promote(V1, "dev").refusal
    assert refusal is not None
    assert [(reason.rule, reason.evidence) for reason in refusal.reasons] == [("registry.bytes", damaged)]


def test_a_signature_that_arrives_between_the_look_and_the_lock_is_looked_at(
    story: Story, world: HubWorld
) -> None:
    """The facts were made of the old signatures; the kernel makes them anew."""
    accepted(revoke(story))
    meanwhile = [lambda: accepted(sign(story, world))]

    def at(step: str) -> None:
        if step == "established" and meanwhile:
            meanwhile.pop()()

    world.at = at
    accepted(story.promote(V1, "dev"))
