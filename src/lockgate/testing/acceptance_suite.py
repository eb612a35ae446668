"""What a registry must stand to be believed: checks that break other registries, over any store.

Twelve checks in all; those that need nothing but a hub and its bytes are here, so that they hold on every database.
`tests/e2e/test_acceptance_twelve.py` says where the others are. Subclass `AcceptanceContract` and override `make`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec
import pytest

from lockgate.access.messages import NameAlias
from lockgate.access.roles import Grant
from lockgate.core.journal import EMPTY_HEAD, extend, sign_checkpoint
from lockgate.core.messages import Receipt, Stamp
from lockgate.delivery.messages import ApplyPlan, DeclareEndpoint, RemoveEndpoint
from lockgate.delivery.plan import adoption_of, plan_of
from lockgate.governance.messages import AdoptPolicy, GrantWaiver, RequestWaiver, VersionApproved
from lockgate.governance.policies.policy import Policy, WaiverTerms
from lockgate.hub.audit import pages, read_entry
from lockgate.hub.authority import Session
from lockgate.hub.kernel import Folded, entry_bytes
from lockgate.hub.messages import ChangesSince, ExplainVersion, ListVersions, Standing, Status, VerifyAudit
from lockgate.hub.ports import Commit, Store, StoredEntry
from lockgate.registry.messages import CommitPerson, RejectVersion
from lockgate.registry.packages.package import build_package
from lockgate.testing.clock import CountingIds
from lockgate.testing.hub_world import (
    APPROVER,
    AUTHOR,
    CONTROLLER,
    MAX_AGE_DAYS,
    MODEL_NAME,
    PLATFORM,
    POLICY,
    RELATIVE_GATE,
    HubWorld,
    Story,
    accepted,
    rules_of,
)
from lockgate.testing.memory_journal import MemoryCheckpoints
from lockgate.testing.notes import TestKey
from lockgate.testing.packages import package_config, package_files
from lockgate.traffic.by_hand import Hand, taken_back
from lockgate.traffic.observed import Observed
from lockgate.traffic.plan import Fallback, Plan

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"
PATIENCE_S = 30.0


class Registry(NamedTuple):
    """A hub over one store, with its checkpoints outside of it."""

    store: Store
    sink: MemoryCheckpoints
    world: HubWorld
    story: Story


class AcceptanceContract:
    """The checks, each under its number."""

    key = TestKey()

    @pytest.fixture
    def make(self) -> Callable[[], Store]:
        raise NotImplementedError("override the fixture `make` to return a maker of fresh, empty stores")

    def registry(self, store: Store) -> Registry:
        sink = MemoryCheckpoints()
        world = HubWorld(store.journal, store.outbox, checkpoints=(sink, self.key))
        return Registry(store, sink, world, Story(world.hub))

    @pytest.fixture
    def founded(self, make: Callable[[], Store]) -> Registry:
        registry = self.registry(make())
        registry.story.found()
        return registry

    @pytest.fixture
    def ready(self, founded: Registry) -> Registry:
        """V1 lacks nothing for prod but an approval."""
        self.bring(founded.story, "one", V1)
        return founded

    def bring(self, story: Story, name: str, version: str) -> None:
        """A package as far as it gets without people."""
        story.train(name)
        for receipt in (
            story.register(name),
            story.judge(version),
            story.validate(version),
            story.promote(version, "dev"),
            story.confirm("dev"),
            story.judge_for(version, "prod"),
        ):
            accepted(receipt)

    def test_acceptance_2_the_authors_own_approval_is_refused_and_on_record(self, ready: Registry) -> None:
        receipt = ready.story.approve(V1, actor=AUTHOR)
        assert rules_of(receipt)
        assert [event["type"] for event in receipt.events] == ["hub.command-refused/1"]
        told = ready.story.ask(ChangesSince(seq=receipt.head - 1)).changes[0]
        assert (told.actor, told.type) == (AUTHOR, "hub.command-refused/1")
        assert "governance.approval" in " ".join(rules_of(ready.story.promote(V1, "prod", ticket="CHG-1")))

    def test_acceptance_2_an_approval_is_a_makers_own_from_when_it_is_known_whose_name_a_commit_bears(
        self, founded: Registry
    ) -> None:
        story, home = founded.story, "bob@home.example"
        story.train("one")
        people = (CommitPerson(name=home, did="authored", commit="3f2a91c0"),)
        for receipt in (
            story.register("one", people=people),
            story.judge(V1),
            story.validate(V1),
            story.promote(V1, "dev"),
            story.confirm("dev"),
            story.judge_for(V1, "prod"),
            story.approve(V1),
        ):
            accepted(receipt)
        accepted(story.do(PLATFORM, NameAlias(id=story.new_id(), alias=home, subject=APPROVER)))
        assert "governance.approval" in rules_of(story.promote(V1, "prod", ticket="CHG-1"))
        assert rules_of(story.approve(V1)) == ["governance.separation-of-duties"]
        told = {one.name: one.people for one in story.ask(ExplainVersion(version=V1)).makers}
        assert told == {AUTHOR: (), home: (APPROVER,)}
        accepted(story.approve(V1, actor="cy"))
        accepted(story.promote(V1, "prod", ticket="CHG-1"))
        assert story.ask(VerifyAudit()).ok

    def test_acceptance_3_new_evidence_after_the_approval_makes_it_stale(self, ready: Registry) -> None:
        story = ready.story
        accepted(story.approve(V1))
        accepted(story.judge_for(V1, "prod", turn=2))
        assert "governance.approval" in " ".join(rules_of(story.promote(V1, "prod", ticket="CHG-1")))
        accepted(story.approve(V1))
        accepted(story.promote(V1, "prod", ticket="CHG-1"))

    def test_acceptance_3_evidence_that_is_sent_again_is_as_old_as_it_was(self, ready: Registry) -> None:
        story, package = ready.story, ready.story.named("package", "one")
        accepted(story.approve(V1))
        ready.world.clock.advance(days=MAX_AGE_DAYS + 1)
        for environment, baseline in (("", None), ("prod", "")):
            again = story.judging(V1, package, environment=environment, baseline=baseline)
            assert accepted(story.do("eve", again)).events == ()
        assert set(rules_of(story.promote(V1, "prod", ticket="CHG-1"))) == {"governance.evidence-age"}
        accepted(story.judge(V1))
        accepted(story.judge_for(V1, "prod"))
        accepted(story.promote(V1, "prod", ticket="CHG-1"))
        assert story.ask(VerifyAudit()).ok

    def test_acceptance_4_a_policy_edited_after_the_approval_is_asked_anew(self, ready: Registry) -> None:
        story = ready.story
        accepted(story.approve(V1))
        edited = msgspec.structs.replace(POLICY, version=2)
        accepted(story.do(PLATFORM, AdoptPolicy(id=story.new_id(), namespace="main", policy=edited)))
        assert rules_of(story.promote(V1, "prod", ticket="CHG-1"))
        assert story.ask(Status()).endpoints["prod/flight-delay"].live is None

    def test_acceptance_5_of_two_releases_at_once_exactly_one_wins(self, founded: Registry) -> None:
        story = founded.story
        for name, version in (("one", V1), ("two", V2)):
            story.train(name)
            accepted(story.register(name))
            accepted(story.judge(version))
            accepted(story.validate(version))
        before, start = founded.store.journal.head().seq, threading.Barrier(2)

        def release(version: str) -> Receipt:
            mine = Story(founded.world.hub, CountingIds(version))
            start.wait(PATIENCE_S)
            return mine.promote(version, "dev")

        with ThreadPoolExecutor(2) as pool:
            receipts = list(pool.map(release, (V1, V2)))
        won, lost = sorted(receipts, key=lambda one: one.refusal is not None)
        accepted(won)
        assert rules_of(lost) == ["delivery.rollout-active"]
        # Both are in the history, one after the other, and nothing of either is lost.
        told = founded.story.ask(ChangesSince(seq=before, limit=100)).changes
        assert len(told) == len(won.events) + len(lost.events)
        kinds = {one.type.partition("/")[0] for one in told}
        assert kinds >= {"delivery.release-started", "hub.command-refused"}
        accepted(story.confirm("dev"))
        live = story.ask(Status()).endpoints["dev/flight-delay"].live
        assert live is not None
        assert won.events[0]["served"]["version"] == f"main/{live.version}"
        assert story.ask(VerifyAudit()).ok

    def test_acceptance_6_a_name_that_ended_cannot_be_created_anew(self, founded: Registry) -> None:
        story = founded.story
        story.train("one")
        accepted(story.register("one"))
        accepted(story.do(APPROVER, RejectVersion(id=story.new_id(), version=V1, reason="worse")))
        head = founded.store.journal.head()
        accepted(story.register("one"))
        assert founded.store.journal.head() == head
        assert rules_of(story.register("two", version="1.0.0")) == ["registry.bump-too-small"]
        accepted(story.register("two"))
        versions = story.ask(ListVersions(model=MODEL_NAME)).versions
        assert [(one.version, one.state) for one in versions] == [(V1, "rejected"), (V2, "candidate")]

    def test_acceptance_6_an_endpoint_that_was_removed_comes_back_with_what_it_asks_for(
        self, founded: Registry
    ) -> None:
        story = founded.story
        story.release("one", V1)
        name = f"prod/{MODEL_NAME}"
        removal = RemoveEndpoint(
            id=story.new_id(), endpoint=name, reason="tidying up", live=V1, despite_consumers=True
        )
        accepted(story.do(PLATFORM, removal))
        admin = Session(actor=PLATFORM, grants=(Grant(role="admin"),), claimed=False)
        fallback = Fallback(kind="constant", value=0.2)
        for consumers, event in (
            ((), "registry.lowering-proposed/1"),
            (("app",), "delivery.endpoint-declared/1"),
        ):
            again = DeclareEndpoint(id=story.new_id(), endpoint=name, fallback=fallback, consumers=consumers)
            told = accepted(founded.world.hub_for(admin).execute(again)).events
            assert [one["type"] for one in told] == [event]
        story.train("two")
        for receipt in (
            story.register("two"),
            story.judge(V2),
            story.validate(V2),
            story.promote(V2, "dev"),
            story.confirm("dev"),
        ):
            accepted(receipt)
        assert story.ask(Standing(version=V2, environment="prod")).baseline_version == V1
        assert story.ask(VerifyAudit()).ok

    def test_acceptance_7_a_rewritten_chain_is_whole_and_does_not_pass_a_checkpoint_that_was_exported(
        self, ready: Registry, make: Callable[[], Store]
    ) -> None:
        accepted(ready.story.approve(V1))
        kept = sign_checkpoint(ready.store.journal.head(), self.key).note
        assert ready.world.ask(VerifyAudit(since=kept)).ok
        rewritten = self.registry(make())
        rewrite(ready.store, rewritten.store)
        # The chain is whole, every document is what its events make of it: no look inside finds anything.
        assert rewritten.world.ask(VerifyAudit()).ok
        (approval,) = rewritten.world.ask(ExplainVersion(version=V1)).approvals["prod"]
        assert approval.approver == "mallory"
        answer = rewritten.world.ask(VerifyAudit(since=kept))
        size = ready.store.journal.head().seq
        assert answer.findings == (
            f"entries 1 to {size} are not those of the signed checkpoint of that size",
        )

    def test_acceptance_8_a_waiver_ends_at_its_instant_and_live_traffic_stays(
        self, make: Callable[[], Store]
    ) -> None:
        registry, hour_us = self.registry(make()), 3600 * 1_000_000
        story, clock = registry.story, registry.world.clock
        tiers = {
            tier: msgspec.structs.replace(POLICY.rule(tier), waivers=WaiverTerms()) for tier in POLICY.tiers
        }
        story.found(policy=Policy(name="waivers", version=1, tiers=tiers))
        self.bring(story, "one", V1)
        for receipt in (story.approve(V1), story.promote(V1, "prod", ticket="CHG-1"), story.confirm("prod")):
            accepted(receipt)
        self.bring(story, "two", V2)
        asked = RequestWaiver(
            id=story.new_id(),
            model=MODEL_NAME,
            versions="1.0.1",
            environment="prod",
            gate=RELATIVE_GATE,
            reason="the champion saw a warmer autumn",
            control="thresholds are checked by hand each hour",
            ticket="OPS-7",
            until=clock.now() + hour_us,
        )
        granted = GrantWaiver(id=story.new_id(), model=MODEL_NAME, environment="prod", number=1, role="risk")
        for receipt in (
            story.judge_for(V2, "prod", verdict="fail", turn=2),
            story.approve(V2),
            story.do(AUTHOR, asked),
            story.do("rita", granted),
        ):
            accepted(receipt)
        clock.advance(seconds=3599)
        assert story.ask(Standing(version=V2, environment="prod")).decision == "allowed"
        clock.advance(seconds=2)
        assert set(rules_of(story.promote(V2, "prod", ticket="CHG-2"))) == {f"{RELATIVE_GATE}:auc"}
        (line,) = story.ask(Status(endpoint=f"prod/{MODEL_NAME}")).endpoints.values()
        assert line.live.version.endswith("@1.0.0")
        assert story.ask(VerifyAudit()).ok

    def test_acceptance_9_a_rollback_that_was_done_without_the_hub_is_taken_over_by_the_journal(
        self, ready: Registry
    ) -> None:
        story, name = ready.story, f"dev/{MODEL_NAME}"
        self.bring(story, "two", V2)
        served = self.last_plan(ready, name)
        found = taken_back(
            Observed(endpoint=name, plan=served),
            Hand(by="ann", account="ops", at=7, reason="the hub is down"),
        )
        assert isinstance(found, Plan)
        (event,) = accepted(story.do(CONTROLLER, adoption_of(found))).events
        assert event["type"] == "delivery.local-rollback-adopted/1"
        assert (event["from_version"], event["to"]["version"]) == (V2, V1)
        assert event["generation"] > found.generation
        (line,) = story.ask(Status(endpoint=name)).endpoints.values()
        assert (line.live.version[-5:], line.previous.version[-5:]) == ("1.0.0", "1.0.1")
        accepted(story.do(CONTROLLER, adoption_of(found)))
        assert story.ask(VerifyAudit()).ok

    def last_plan(self, registry: Registry, endpoint: str) -> Plan:
        """What the endpoint's target was told last."""
        now, told = registry.world.clock.now(), []
        while (row := registry.store.outbox.lease(now, now + 1)) is not None:
            told.append(plan_of(msgspec.json.decode(row.body, type=ApplyPlan)))
            registry.store.outbox.settle(row)
        return [plan for plan in told if plan.endpoint == endpoint][-1]

    def test_acceptance_12_the_same_package_built_twice_has_one_digest_and_one_number(
        self, founded: Registry
    ) -> None:
        one, two = (build_package(package_config(), package_files()) for _ in range(2))
        assert one == two
        story = founded.story
        story.train("one")
        accepted(story.register("one"))
        head = founded.store.journal.head()
        accepted(Story(founded.world.hub, CountingIds("again")).register("one"))
        assert founded.store.journal.head() == head


def rewrite(store: Store, into: Store) -> None:
    """What an owner of the database with time on his hands makes of it: another past, and all that follows from it."""
    head, folded, entries = EMPTY_HEAD, Folded(), list[StoredEntry]()
    for page in pages(store.journal):
        for stored in page:
            event, stamp = read_entry(stored)
            if isinstance(event, VersionApproved):
                stamp = msgspec.structs.replace(stamp, actor="mallory")
            plain = Stamp(stamp.seq, stamp.at, stamp.actor, stamp.command_id)
            body = entry_bytes(event, plain)
            head = extend(head, body)
            folded.apply(event, stamp)
            entries.append(StoredEntry(head.seq, body, head.hash))
    with into.journal.transaction() as transaction:
        transaction.commit(
            Commit(head, entries, folded.changed(), tuple(folded.edges), (), "rewritten", b"{}")
        )
