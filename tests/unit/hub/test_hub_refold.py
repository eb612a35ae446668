"""A store whose documents an earlier release folded otherwise."""

from __future__ import annotations

import pytest

from lockgate.hub import refold as refolding
from lockgate.hub.messages import ChangesSince, ExplainVersion, VerifyAudit
from lockgate.hub.refold import is_outdated, refold
from lockgate.registry.state import VERSION
from lockgate.testing.clock import CountingIds
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted
from lockgate.testing.memory_journal import MemoryJournal, MemoryOutbox

V1 = f"{MODEL_NAME}@1.0.0"


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def world(journal: MemoryJournal) -> HubWorld:
    world = HubWorld(journal, MemoryOutbox(journal.store))
    story = Story(world.hub)
    story.found()
    story.release("one", V1)
    return world


def test_documents_of_this_release_are_left_alone(journal: MemoryJournal, world: HubWorld) -> None:
    head = journal.head()
    assert not refold(journal, world.clock)
    assert journal.head() == head


def test_outdated_documents_are_made_anew_under_an_event(journal: MemoryJournal, world: HubWorld) -> None:
    before = world.ask(ExplainVersion(version=V1))
    kept = dict(journal.store.documents)
    for key, stored in kept.items():
        if stored.kind == VERSION.name:
            # As a release would have left it whose fold knew less.
            journal.store.documents[key] = stored._replace(
                fold_version=VERSION.fold_version - 1, body=stored.body.replace(b"candidate", b"validated")
            )
    assert is_outdated(journal)
    assert refold(journal, world.clock)
    assert not refold(journal, world.clock)
    assert journal.store.documents == kept
    assert world.ask(ExplainVersion(version=V1)) == before
    (told,) = world.ask(ChangesSince(seq=journal.head().seq - 1)).changes
    assert (told.type, told.actor) == ("hub.documents-refolded/1", refolding.ACTOR)
    assert world.ask(VerifyAudit()).ok
    accepted(Story(world.hub, CountingIds("later")).register("two"))
