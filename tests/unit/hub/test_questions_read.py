"""What answers read of the journal: each document once, what is near an unknown name, and nobody pushed out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from lockgate.core.documents import DocumentKind
from lockgate.delivery.messages import DeclareEndpoint
from lockgate.hub.kernel import read_body
from lockgate.hub.messages import (
    ChangesSince,
    ExplainVersion,
    Impact,
    ListVersions,
    Queue,
    ShowRollout,
    Status,
)
from lockgate.hub.ports import StoredDocument
from lockgate.hub.questions import Questions, UnknownName
from lockgate.hub.refold import refold
from lockgate.hub.reports.moment import Moment
from lockgate.registry.messages import DeclareModel
from lockgate.registry.state import MODEL, VERSION
from lockgate.testing.hub_world import MODEL_NAME, PLATFORM, HubWorld, Story, accepted
from lockgate.testing.memory_journal import MemoryJournal
from lockgate.traffic.plan import Fallback

V1 = f"{MODEL_NAME}@1.0.0"


class CountingJournal(MemoryJournal):
    """Tells how often each thing was asked for."""

    def __init__(self, journal: MemoryJournal) -> None:
        super().__init__(journal.store)
        self.asked: Counter[object] = Counter()

    def document(self, kind: str, key: str) -> StoredDocument | None:
        self.asked[kind, key] += 1
        return super().document(kind, key)

    def documents(self, kind: str, *args: Any, **named: Any) -> Sequence[StoredDocument]:
        self.asked[kind, args, tuple(named.items())] += 1
        return super().documents(kind, *args, **named)


def others(story: Story, n: int, environments: Sequence[str] = ("dev", "prod")) -> Iterator[str]:
    """Further models, each with an endpoint in these environments."""
    for number in range(n):
        model = f"main/other-{number:03}"
        declared = DeclareModel(
            id=story.new_id(), model=model, tier="high", owner="team", purpose="more of the same"
        )
        accepted(story.do(PLATFORM, declared))
        for environment in environments:
            fallback = Fallback(kind="constant", value=0.1)
            endpoint = DeclareEndpoint(
                id=story.new_id(), endpoint=f"{environment}/{model}", fallback=fallback
            )
            accepted(story.do(PLATFORM, endpoint))
        yield model


@pytest.mark.parametrize("query", [Status(), Queue(), Impact(ref="main/flights.distance")])
def test_an_answer_about_everything_reads_each_document_once(
    world: HubWorld, story: Story, query: Any
) -> None:
    story.release("one", V1)
    story.release("two", f"{MODEL_NAME}@1.0.1")
    list(others(story, 5))
    journal = CountingJournal(world.journal)  # type: ignore[arg-type]
    answer = Questions(journal, world.outbox, world.clock)(query)
    assert answer == world.ask(query)
    assert journal.asked.most_common(1)[0][1] == 1, journal.asked.most_common(5)


@pytest.mark.parametrize("query", [Impact(ref="main/flights.distance"), ChangesSince(seq=0)])
def test_whoever_sees_everything_is_asked_no_tier(world: HubWorld, story: Story, query: Any) -> None:
    list(others(story, 5))
    journal = CountingJournal(world.journal)  # type: ignore[arg-type]
    Questions(journal, world.outbox, world.clock)(query)
    assert [asked for asked in journal.asked if asked[0] == MODEL.name] == []  # type: ignore[index]


def test_an_unknown_version_is_compared_with_those_of_its_model(world: HubWorld, story: Story) -> None:
    list(others(story, 30))
    accepted(story.register("one"))
    accepted(story.register("two"))
    journal = CountingJournal(world.journal)  # type: ignore[arg-type]
    ask = Questions(journal, world.outbox, world.clock)
    for name, remedy in (
        (f"{MODEL_NAME}@1.0.3", "did you mean 'flight-delay@1.0.1' or 'flight-delay@1.0.0'?"),
        ("main/flight-dely@1.0.1", "did you mean 'flight-delay@1.0.1' or 'flight-delay@1.0.0'?"),
        ("main/zzz@1.0.0", "nothing is known by that kind of name yet"),
    ):
        with pytest.raises(UnknownName) as caught:
            ask(ExplainVersion(version=name))
        assert caught.value.remedy == remedy
    whole = [asked for asked in journal.asked if asked == ("version", (), (("bodies", False),))]
    assert whole == []


def test_an_unknown_release_is_compared_with_those_of_its_endpoint(world: HubWorld, story: Story) -> None:
    story.release("one", V1)
    with pytest.raises(UnknownName) as caught:
        world.ask(ShowRollout(endpoint=f"prod/{MODEL_NAME}", release=7))
    assert caught.value.remedy == f"did you mean 'prod/{MODEL_NAME}#000001'?"


def test_an_unknown_model_is_told_a_few_of_many(world: HubWorld, story: Story) -> None:
    list(others(story, 30))
    with pytest.raises(UnknownName) as caught:
        world.ask(ListVersions(model="main/zzz"))
    assert caught.value.remedy.endswith(" and 11 more")


def test_whoever_looks_through_the_store_pushes_out_nothing_that_commands_read(
    world: HubWorld, story: Story
) -> None:
    story.release("one", V1)
    models = list(others(story, 300, ()))

    def read() -> Any:
        stored = world.journal.document(VERSION.name, V1)
        assert stored is not None
        return read_body(VERSION, stored, again=True)

    kept = read()
    assert read() is kept
    for query in (Status(), Queue(), Impact(ref="main/flights.distance"), ListVersions(model=MODEL_NAME)):
        world.ask(query)
    moment = Moment(world.journal)
    assert all(moment.get(MODEL, model) for model in models)
    _outdate(world.journal, VERSION)  # type: ignore[arg-type]
    assert refold(world.journal, world.clock)
    assert read() is kept


def _outdate(journal: MemoryJournal, kind: DocumentKind[Any]) -> None:
    """As an earlier release has left it."""
    for ref, one in journal.store.documents.items():
        if one.kind == kind.name:
            journal.store.documents[ref] = one._replace(fold_version=0)


def test_what_is_read_again_is_what_is_stored(world: HubWorld, story: Story) -> None:
    story.release("one", V1)
    stored = world.journal.document(VERSION.name, V1)
    assert stored is not None
    for again in (False, True):
        assert read_body(VERSION, stored, again=again) == msgspec.json.decode(stored.body, type=VERSION.type)
