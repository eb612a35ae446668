"""What a hub promises about tickets: the tracker is asked once, before any lock, and its answer goes on record.

Subclass `TicketContract` and override `furnish`: the hub of any actor over the store of a world.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import pytest

from lockgate.adapters.notify.opening import open_tracker
from lockgate.core.messages import Receipt
from lockgate.delivery.messages import PromoteVersion, ReleaseInEmergency
from lockgate.delivery.state import ReleaseState
from lockgate.governance.messages import AdoptPolicy, BreakGlass, SecondBreakGlass
from lockgate.governance.policies.policy import Policy
from lockgate.hub.kernel import Hub
from lockgate.hub.messages import ExplainVersion, FindReleases, ReplayPolicy, VerifyAudit
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import (
    MODEL_NAME,
    OPERATOR,
    PLATFORM,
    POLICY,
    HubWorld,
    Story,
    accepted,
    rules_of,
)
from lockgate.testing.ticket_desk import KEY, OPEN, TicketDesk, saying, ticket_desk

V1 = f"{MODEL_NAME}@1.0.0"
PATIENCE_S = 30.0


def asking(version: int = 1, **rule: Any) -> Policy:
    """Production asks for a ticket `OPS-N` that the tracker knows."""
    wanted = {"ticket": {"production": "OPS-[0-9]+"}, "tracker": ("production",), **rule}
    tiers = {tier: msgspec.structs.replace(POLICY.rule(tier), **wanted) for tier in POLICY.tiers}
    return Policy(name="asking", version=version, tiers=tiers)


class Counter(NamedTuple):
    """A hub, and the desk that its tracker is."""

    desk: TicketDesk
    story: Story
    hub: Callable[[str], Hub]

    def promote(self, ticket: str = "OPS-1", environment: str = "prod") -> Receipt:
        return self.story.promote(V1, environment, ticket=ticket)

    @property
    def releases(self) -> tuple[ReleaseState, ...]:
        found: tuple[ReleaseState, ...] = self.story.ask(ExplainVersion(version=V1)).releases
        return tuple(one for one in found if one.endpoint.startswith("prod/"))


class TicketContract:
    """Every promise about tickets, as tests."""

    @pytest.fixture
    def world(self) -> HubWorld:
        raise NotImplementedError("override the fixture `world` to return one over a fresh, empty store")

    @pytest.fixture
    def connect(self, world: HubWorld) -> Callable[[str], Hub]:
        return world.hub

    @pytest.fixture
    def desk(self) -> Iterator[TicketDesk]:
        with ticket_desk() as desk:
            yield desk

    @pytest.fixture
    def counter(self, world: HubWorld, connect: Callable[[str], Hub], desk: TicketDesk) -> Counter:
        """A version that lacks nothing for prod but a ticket."""
        world.tracker = open_tracker(
            desk.url, "env:KEY", world.clock, networks=["127.0.0.0/8"], secret=lambda reference: KEY
        )
        story = Story(connect)
        story.found(policy=asking())
        story.train("one")
        for receipt in (
            story.register("one"),
            story.judge(V1),
            story.validate(V1),
            story.promote(V1, "dev", ticket="OPS-7"),
            story.confirm("dev"),
            story.judge_for(V1, "prod"),
            story.approve(V1),
        ):
            accepted(receipt)
        assert desk.asked == [], "the policy does not have the tracker asked in dev"
        return Counter(desk, story, connect)

    def test_what_the_tracker_says_goes_on_record_with_the_release(self, counter: Counter) -> None:
        receipt = accepted(counter.promote())
        (question,) = counter.desk.asked
        assert (question.pop("requested_at")[-1], question) == (
            "Z",
            {"ticket": "OPS-1", "version": V1, "environment": "prod", "actor": OPERATOR},
        )
        assert counter.desk.strangers == 0
        assert [event["type"] for event in receipt.events] == [
            "delivery.release-started/2",
            "delivery.ticket-confirmed/1",
        ]
        (release,) = counter.releases
        assert release.confirmed is not None
        assert (release.ticket, release.confirmed.title) == ("OPS-1", OPEN["title"])
        assert (release.confirmed.url, release.confirmed.approved) == (OPEN["url"], None)
        assert release.confirmed.asked_at > 0
        assert counter.story.ask(FindReleases(ticket="OPS-1")).releases == (release,)
        assert counter.story.ask(VerifyAudit()).ok

    def test_a_command_that_is_sent_again_asks_nobody_again(self, counter: Counter) -> None:
        for ticket, reply in (("OPS-2", saying({"known": False, "open": False})), ("OPS-1", saying(OPEN))):
            counter.desk.reply, before = reply, len(counter.desk.asked)
            command = PromoteVersion(id=f"again {ticket}", version=V1, environment="prod", ticket=ticket)
            first = counter.hub(OPERATOR).execute(command)
            counter.desk.reply = saying(b"gone")
            assert (
                msgspec.structs.replace(counter.hub(OPERATOR).execute(command), effects=first.effects)
                == first
            )
            assert len(counter.desk.asked) == before + 1
        assert len(set(counter.desk.ids)) == 2, "one id for each command"

    @pytest.mark.parametrize(
        ("answer", "rule", "waiting"),
        [
            ({"known": False, "open": False}, "governance.ticket-unknown", False),
            ({"known": True, "open": False, "approved": True}, "governance.ticket-closed", False),
            ({"known": True, "open": True, "approved": False}, "governance.ticket-unapproved", True),
        ],
    )
    def test_a_ticket_that_does_not_cover_the_release_stops_it(
        self, counter: Counter, answer: dict[str, Any], rule: str, waiting: bool
    ) -> None:
        counter.desk.reply = saying(
            {"title": "Raise\n\x1b[31mthe roof", "url": "javascript:alert(1)", **answer}
        )
        receipt = counter.promote()
        assert rules_of(receipt) == [rule]
        assert receipt.refusal is not None
        assert receipt.refusal.waiting is waiting
        said = " ".join(receipt.refusal.reasons[0].message.split())
        assert "\x1b" not in said and "OPS-1" in said
        assert "javascript" not in str(receipt.refusal)
        assert receipt.refusal.reasons[0].remedy
        counter.desk.reply = saying({**OPEN, "approved": True})
        accepted(counter.promote())
        assert counter.releases[0].confirmed is not None
        assert counter.releases[0].confirmed.approved is True

    def test_a_ticket_of_another_form_is_not_asked_about(self, counter: Counter) -> None:
        for ticket in ("", "fix it", "OPS-1\nOPS-2"):
            assert rules_of(counter.promote(ticket)) == ["governance.ticket"]
        assert counter.desk.asked == []

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (500, b"", "500"),
            (404, b"", "404"),
            (302, b"", "redirects are not followed"),
            (200, b"", "its answer is none"),
            (200, b"<html>", "its answer is none"),
            (200, b'{"known": true}', "its answer is none"),
            (200, b'{"known": 1, "open": true}', "its answer is none"),
            (200, b'{"known": true, "open": true, "title": "\xff"}', "its answer is none"),
            (200, b" " * 20_000, "more than"),
        ],
    )
    def test_a_tracker_that_gives_no_answer_is_no_consent(
        self, counter: Counter, status: int, body: bytes, said: str
    ) -> None:
        counter.desk.location = "http://127.0.0.1:1/elsewhere" if status == 302 else ""
        counter.desk.reply = lambda question: (status, body)
        receipt = counter.promote()
        assert rules_of(receipt) == ["governance.tracker-silent"]
        assert receipt.refusal is not None
        assert receipt.refusal.waiting, "asking again may help"
        reason = receipt.refusal.reasons[0]
        assert said in reason.message
        assert "again" in (reason.remedy or "") and "break-glass" in (reason.remedy or "")
        assert counter.releases == ()

    def test_a_tracker_that_is_away_stops_no_emergency(self, counter: Counter) -> None:
        counter.desk.server_close()
        assert rules_of(counter.promote()) == ["governance.tracker-silent"]
        story, where = counter.story, {"model": MODEL_NAME, "environment": "prod"}
        right = BreakGlass(id=story.new_id(), **where, incident="INC-1", reason="down", hours=1.0)
        accepted(story.do("ivy", right))
        accepted(story.do("sam", SecondBreakGlass(id=story.new_id(), **where, number=1)))
        command = ReleaseInEmergency(id=story.new_id(), version=V1, environment="prod", number=1)
        accepted(story.do("ivy", command))
        assert counter.releases[0].ticket == "INC-1"

    def test_without_a_tracker_a_policy_that_has_it_asked_lets_nothing_in(
        self, counter: Counter, world: HubWorld
    ) -> None:
        world.tracker = None
        receipt = counter.promote()
        assert rules_of(receipt) == ["governance.tracker-silent"]
        assert receipt.refusal is not None
        assert "[tracker]" in (receipt.refusal.reasons[0].remedy or "")

    def test_nobody_waits_while_the_tracker_thinks(self, counter: Counter) -> None:
        arrived, told = threading.Event(), threading.Event()

        def slowly(question: dict[str, Any]) -> tuple[int, bytes]:
            arrived.set()
            assert told.wait(PATIENCE_S)
            return saying(OPEN)(question)

        counter.desk.reply = slowly
        with ThreadPoolExecutor(1) as pool:
            promoted = pool.submit(counter.promote)
            assert arrived.wait(PATIENCE_S)
            other = DeclareModel(id="meanwhile", model="main/x", tier="low", owner="o", purpose="p")
            before = accepted(counter.hub(PLATFORM).execute(other)).head
            told.set()
            assert accepted(promoted.result(PATIENCE_S)).head == before + 2

    def test_history_is_judged_by_what_the_tracker_said_then(self, counter: Counter) -> None:
        accepted(counter.promote())
        story = counter.story
        asked = len(counter.desk.asked)
        assert story.ask(ReplayPolicy(namespace="main", policy=asking(2))).blocked == ()
        everywhere = asking(
            2, tracker=("open", "production"), ticket={"open": "OPS-[0-9]+", "production": "OPS-[0-9]+"}
        )
        (line,) = story.ask(ReplayPolicy(namespace="main", policy=everywhere)).blocked
        assert (line.endpoint, [one.rule for one in line.reasons]) == (
            f"dev/{MODEL_NAME}",
            ["governance.tracker-silent"],
        )
        assert len(counter.desk.asked) == asked

    def test_where_the_policy_does_not_have_it_asked_nobody_asks(self, counter: Counter) -> None:
        story = counter.story
        quiet = AdoptPolicy(id=story.new_id(), namespace="main", policy=asking(2, tracker=()))
        accepted(story.do(PLATFORM, quiet))
        accepted(story.approve(V1))
        accepted(counter.promote())
        assert counter.desk.asked == []
        assert counter.releases[0].confirmed is None
