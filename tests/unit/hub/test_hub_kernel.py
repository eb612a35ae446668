"""The steps of the kernel, one by one, over the journal in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lockgate.access.roles import everywhere
from lockgate.core.clock import Micros
from lockgate.core.errors import Bug, Conflict, Forbidden, Unavailable
from lockgate.core.messages import Command
from lockgate.delivery.messages import PromoteVersion
from lockgate.hub import audit
from lockgate.hub.authority import Session, embedded
from lockgate.hub.kernel import DocumentUnreadable, LocalHub, iter_entries, require
from lockgate.hub.messages import ChangesSince, ListVersions, Status, VerifyAudit
from lockgate.registry.decide import PACKAGE_FACT, PackageFact
from lockgate.registry.messages import DeclareModel, RejectVersion
from lockgate.testing.clock import CountingIds, FakeClock
from lockgate.testing.hub_world import AUTHOR, MODEL_NAME, HubWorld, Story, accepted, named_digest, rules_of
from lockgate.testing.memory_journal import MemoryJournal

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"
STEPS = ["received", "authorised", "established", "locked", "decided", "committed", "effected"]


class Crashed(Exception):
    """The process dies."""


def declare(command_id: str = "c1", purpose: str = "x") -> DeclareModel:
    return DeclareModel(id=command_id, model="main/m", tier="low", owner="o", purpose=purpose)


def test_a_command_passes_every_step_in_order(world: HubWorld, story: Story) -> None:
    accepted(story.register("one"))
    seen: list[str] = []
    world.at = seen.append
    accepted(story.promote(V1, "dev"))
    # The story asks nothing here; all steps are those of the one command.
    assert seen == STEPS


def test_a_command_without_effects_is_done_with_its_commit(world: HubWorld) -> None:
    seen: list[str] = []
    world.at = seen.append
    assert world.hub("p").execute(declare()).effects == "done"
    assert seen == STEPS[:-1]


def test_a_retry_of_what_rests_on_facts_gets_no_further_than_the_door(world: HubWorld, story: Story) -> None:
    command = story.registering("one")
    first = world.hub(AUTHOR).execute(command)
    seen: list[str] = []
    world.at = seen.append
    assert world.hub(AUTHOR).execute(command) == first
    assert seen == ["received"]


def test_a_retry_of_anything_else_is_recognised_under_the_lock(world: HubWorld) -> None:
    first = world.hub("p").execute(declare())
    seen: list[str] = []
    world.at = seen.append
    assert world.hub("p").execute(declare()) == first
    assert seen == ["received", "authorised", "established", "committed"]
    assert world.journal.head().seq == 1


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_and_a_retry_make_one_effect(world: HubWorld, story: Story, step: str) -> None:
    accepted(story.register("one"))
    before = world.journal.head().seq

    def at(reached: str) -> None:
        if reached == step:
            raise Crashed

    command = story.registering("two")
    promote = PromoteVersion(id=story.new_id(), version=V1, environment="dev")
    world.at = at
    with pytest.raises(Crashed):
        world.hub("olga").execute(promote)
    committed = step in ("committed", "effected")
    assert world.journal.head().seq == before + committed
    assert world.outbox.open_rows() == committed
    world.at = lambda reached: None
    receipt = world.hub("olga").execute(promote)
    assert receipt.effects == "pending"
    assert world.journal.head().seq == before + 1 == receipt.head
    assert world.outbox.open_rows() == 1
    accepted(world.hub("ann").execute(command))


def test_effects_are_done_when_the_runner_says_so(world: HubWorld, story: Story) -> None:
    accepted(story.register("one"))
    asked: list[str] = []
    world.carry_out = lambda subject: not asked.append(subject)  # type: ignore[func-returns-value]
    assert accepted(story.promote(V1, "dev")).effects == "done"
    assert asked == [f"dev/{MODEL_NAME}"]


def test_a_refusal_is_journaled_with_its_reasons_and_changes_nothing_else(
    world: HubWorld, story: Story
) -> None:
    documents = {kind: len(world.journal.documents(kind)) for kind in ("version", "endpoint", "release")}
    receipt = story.promote(V1, "prod")
    assert rules_of(receipt) == ["registry.version-unknown"]
    (change,) = world.ask(ChangesSince(seq=receipt.head - 1)).changes
    assert change.type == "hub.command-refused/1"
    assert change.summary.startswith(
        "delivery.promote-version of prod/main/flight-delay refused: there is no version"
    )
    assert {kind: len(world.journal.documents(kind)) for kind in documents} == documents
    assert world.outbox.open_rows() == 0


def test_a_forbidden_command_is_a_refusal_and_asks_for_no_facts(world: HubWorld) -> None:
    def establish(command: Command) -> Mapping[str, Any]:
        raise AssertionError("a stranger must not cause work")

    stranger = Session(actor="mallory", grants=everywhere(frozenset({"viewer"})), claimed=False)
    hub = LocalHub(world.journal, world.clock, stranger, answer=world.ask, establish=establish)
    receipt = hub.execute(Story(world.hub).registering("one"))
    assert rules_of(receipt) == ["hub.permission"]
    assert [entry[1].actor for entry in map(audit.read_entry, iter_entries(world.journal))] == ["mallory"]


def test_a_forbidden_question_is_an_error(world: HubWorld) -> None:
    with pytest.raises(Forbidden) as caught:
        world.hub("vic", frozenset({"viewer"})).ask(VerifyAudit())
    assert caught.value.code == "hub.not-allowed"
    assert world.hub("vic", frozenset({"viewer"})).ask(Status()).endpoints == {}


def test_an_unknown_version_makes_no_document(world: HubWorld, story: Story) -> None:
    assert rules_of(story.do("sam", RejectVersion(id="r", version=V1, reason="x"))) == [
        "registry.version-unknown"
    ]
    assert list(world.journal.documents("version")) == []


def test_one_command_may_make_no_event(world: HubWorld) -> None:
    accepted(world.hub("p").execute(declare("c1")))
    receipt = accepted(world.hub("p").execute(declare("c2")))
    assert (receipt.events, receipt.head) == ((), 1)
    assert world.hub("p").execute(declare("c2")) == receipt


def test_an_id_is_bound_to_content_and_actor(world: HubWorld) -> None:
    world.hub("p").execute(declare())
    for actor, command in (("q", declare()), ("p", declare(purpose="y"))):
        with pytest.raises(Conflict) as caught:
            world.hub(actor).execute(command)
        assert caught.value.code == "hub.command-id-reused"
    assert world.journal.head().seq == 1


def test_time_and_actor_are_those_of_the_session(world: HubWorld) -> None:
    class Noon(FakeClock):
        def now(self) -> Micros:
            return 12

    LocalHub(world.journal, Noon(), embedded("ann"), answer=world.ask).execute(declare("c9"))
    (entry,) = iter_entries(world.journal)
    stamp = audit.read_entry(entry)[1]
    assert (stamp.seq, stamp.at, stamp.actor, stamp.command_id) == (1, 12, "ann", "c9")


class Overtaken:
    """Facts that another version makes stale, as often as told."""

    def __init__(self, world: HubWorld, times: int) -> None:
        self.world, self.times, self.rounds = world, times, 0
        self.story = Story(world.hub, CountingIds("other"))

    def __call__(self, command: Command) -> Mapping[str, Any]:
        facts = self.world._establish(command)
        self.rounds += 1
        if self.rounds <= self.times:
            accepted(self.story.register(f"faster {self.rounds}", author="zoe"))
        return facts


def test_stale_facts_are_made_anew(world: HubWorld, story: Story) -> None:
    accepted(story.register("one"))
    establish = Overtaken(world, times=2)
    hub = LocalHub(world.journal, world.clock, embedded("ann"), answer=world.ask, establish=establish)
    receipt = accepted(hub.execute(story.registering("two")))
    assert establish.rounds == 3
    assert receipt.events[0]["version"] == f"{MODEL_NAME}@1.0.3"
    assert [one.version[-1] for one in world.ask(ListVersions(model=MODEL_NAME)).versions] == list("0123")


def test_facts_that_do_not_settle_are_made_under_the_lock(world: HubWorld, story: Story) -> None:
    """Else one of many that register at once would never get its turn."""
    accepted(story.register("one"))
    seen: list[str] = []
    establish = Overtaken(world, times=3)
    hub = LocalHub(
        world.journal, world.clock, embedded("ann"), answer=world.ask, establish=establish, at=seen.append
    )
    receipt = accepted(hub.execute(story.registering("two")))
    assert receipt.events[0]["version"] == f"{MODEL_NAME}@1.0.4"
    assert establish.rounds == 4
    assert seen[-4:] == ["established", "locked", "decided", "committed"]


def test_others_are_asked_once_and_never_under_the_lock(world: HubWorld, story: Story) -> None:
    accepted(story.register("one"))
    told: list[str] = []
    establish = Overtaken(world, times=3)

    def inquire(command: Command) -> Mapping[str, Any]:
        told.append("asked")
        return {"a fact": command.id}

    hub = LocalHub(
        world.journal,
        world.clock,
        embedded("ann"),
        answer=world.ask,
        establish=establish,
        inquire=inquire,
        at=told.append,
    )
    command = story.registering("two")
    accepted(hub.execute(command))
    assert told[:4] == ["received", "authorised", "asked", "established"]
    assert (told.count("asked"), establish.rounds) == (1, 4)
    assert hub.execute(command).refusal is None
    assert told.count("asked") == 1


def test_a_failure_while_facts_are_made_leaves_no_trace(world: HubWorld, story: Story) -> None:
    def establish(command: Command) -> Mapping[str, Any]:
        raise Unavailable("the blob store is down", remedy="try again")

    before = world.journal.head()
    hub = LocalHub(world.journal, world.clock, embedded("ann"), answer=world.ask, establish=establish)
    with pytest.raises(Unavailable):
        hub.execute(story.registering("one"))
    assert world.journal.head() == before
    assert world.journal.receipt("c1") is None


def test_a_fact_about_another_model_is_refused(world: HubWorld, story: Story) -> None:
    package = named_digest("package", "one")
    fact = PackageFact(
        package=package, model="main/other", signed_by=(), against=None, minimum_bump="patch", why=()
    )
    hub = LocalHub(
        world.journal,
        world.clock,
        embedded("ann"),
        answer=world.ask,
        establish=lambda command: {PACKAGE_FACT: fact},
    )
    assert rules_of(hub.execute(story.registering("one"))) == ["registry.other-model"]


def test_an_altered_document_is_named_instead_of_crashing(world: HubWorld, story: Story) -> None:
    accepted(story.register("one"))
    assert isinstance(world.journal, MemoryJournal)
    stored = world.journal.store.documents["version", V1]
    for body in (b"{}", b"", b'{"version": "\xff"}'):
        world.journal.store.documents["version", V1] = stored._replace(body=body)
        with pytest.raises(DocumentUnreadable) as caught:
            story.judge(V1)
        assert caught.value.facts == {"kind": "version", "key": V1}
        assert not world.ask(VerifyAudit()).ok


def test_require_turns_a_refusal_into_a_bug(story: Story) -> None:
    with pytest.raises(Bug):
        require(story.promote(V1, "dev"))
    receipt = story.register("one")
    assert require(receipt) is receipt


def test_entries_come_page_by_page(world: HubWorld) -> None:
    for number in range(7):
        world.hub("p").execute(declare(f"c{number}", f"p{number}"))
    assert [entry.seq for entry in iter_entries(world.journal, page=3)] == list(range(1, 8))
    assert [entry.seq for entry in iter_entries(world.journal, 5, page=3)] == [6, 7]


def test_a_summary_is_one_line_whatever_people_typed(world: HubWorld, story: Story) -> None:
    accepted(story.register("one"))
    accepted(story.do("sam", RejectVersion(id="r", version=V1, reason="two\nlines\r\n and \t tabs")))
    assert world.ask(ChangesSince(limit=1000)).changes[-1].summary == f"{V1} rejected: two lines and tabs"


def test_changes_come_a_page_at_a_time(world: HubWorld) -> None:
    for number in range(5):
        world.hub("p").execute(declare(f"c{number}", f"p{number}"))
    answer = world.ask(ChangesSince(seq=1, limit=2))
    assert ([change.seq for change in answer.changes], answer.head) == ([2, 3], 5)
    assert [change.seq for change in world.ask(ChangesSince(seq=-3, limit=10**12)).changes] == [1, 2, 3, 4, 5]
    for seq, limit in ((5, 1), (10**12, 1), (0, 0), (0, -1)):
        assert world.ask(ChangesSince(seq=seq, limit=limit)).changes == ()
