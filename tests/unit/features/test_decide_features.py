"""What goes on record of features that were brought online, and what does not count."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.core.messages import Receipt
from lockgate.data.messages import EraseSnapshot, RecordContractCheck, RecordSnapshot
from lockgate.features.messages import OnlineView, RecordMaterialization, ViewsMaterialized
from lockgate.features.state import MATERIALIZATION, MaterializationState
from lockgate.hub.messages import Lineage, LineageAnswer
from lockgate.testing.hub_world import DATASET, MODEL_NAME, HubWorld, Story, accepted, named_digest, rules_of

FIRST, SECOND = named_digest("first snapshot"), named_digest("second snapshot")
DELAYS, LEGS = named_digest("meaning of delays"), named_digest("meaning of legs")
STORE = "lmdb:.lockgate/online"


def view(snapshot: str, *, name: str = "delays", meaning: str = DELAYS, **more: Any) -> OnlineView:
    shape = {"n_rows": 10, "n_keys": 3, "n_new": 3, "newest_at": 5} | more
    return OnlineView(
        view=name, hash=meaning, features=("late", "delay"), snapshots={DATASET: snapshot}, **shape
    )


class Told:
    def __init__(self) -> None:
        self.world = HubWorld.in_memory()
        self.story = Story(self.world.hub)
        for snapshot in (FIRST, SECOND):
            self.take(snapshot)

    def take(self, snapshot: str) -> None:
        recorded = RecordSnapshot(
            id=self.story.new_id(),
            dataset=DATASET,
            snapshot=snapshot,
            n_rows=10,
            extracted_at=1,
            source="file",
            transformation=named_digest("t"),
            storage="blobs",
        )
        checked = RecordContractCheck(
            id=self.story.new_id(), dataset=DATASET, snapshot=snapshot, contract=named_digest("contract")
        )
        for command in (recorded, checked):
            accepted(self.story.do("ann", command))

    def push(self, *views: OnlineView, until: int, store: str = STORE) -> Receipt:
        command = RecordMaterialization(
            id=self.story.new_id(), model=MODEL_NAME, store=store, until=until, views=views
        )
        return self.story.do("ann", command)

    def state(self) -> MaterializationState:
        stored = self.world.journal.document(MATERIALIZATION.name, MODEL_NAME)
        assert stored is not None
        return msgspec.json.decode(stored.body, type=MaterializationState)

    def lineage(self, ref: str) -> set[tuple[str, str, str]]:
        answer: LineageAnswer = self.world.hub("ann").ask(Lineage(ref=ref))
        return {(one.source, one.kind, one.target) for one in answer.readers}


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_run_is_on_record_with_what_it_read_and_how_far_it_reached(told: Told) -> None:
    (event,) = accepted(told.push(view(FIRST), until=5)).events
    assert (event["type"], event["model"], event["until"]) == ("features.views-materialized/1", MODEL_NAME, 5)
    (one,) = told.state().views
    assert (one.online, one.store, one.until, one.by) == (view(FIRST), STORE, 5, "ann")


def test_what_brought_nothing_further_is_no_news(told: Told) -> None:
    accepted(told.push(view(FIRST), until=5))
    for until in (5, 4):
        assert accepted(told.push(view(FIRST, n_new=0), until=until)).events == ()
    # Further, from other data, with new rows or in another store, it is.
    for until, one, store in (
        (6, view(FIRST, n_new=0), STORE),
        (6, view(SECOND, n_new=0), STORE),
        (4, view(SECOND, n_new=1), STORE),
        (4, view(SECOND, n_new=0), "lmdb:elsewhere"),
    ):
        assert len(accepted(told.push(one, until=until, store=store)).events) == 1


def test_of_several_views_those_with_news_are_told(told: Told) -> None:
    legs = view(FIRST, name="legs", meaning=LEGS)
    accepted(told.push(view(FIRST), legs, until=5))
    (event,) = accepted(told.push(view(FIRST, n_new=0), legs, until=5)).events
    assert [one["view"] for one in event["views"]] == ["legs"]
    assert accepted(told.push(until=9)).events == ()


def test_an_earlier_moment_takes_nothing_back(told: Told) -> None:
    accepted(told.push(view(SECOND), until=9))
    accepted(told.push(view(FIRST), until=5))
    (one,) = told.state().views
    assert (one.until, one.online.snapshots) == (9, {DATASET: SECOND})


def test_a_snapshot_that_is_unknown_unchecked_or_erased_does_not_count(told: Told) -> None:
    unknown = named_digest("never taken")
    assert rules_of(told.push(view(unknown), until=5)) == ["data.snapshot-unknown"]
    erased = EraseSnapshot(id=told.story.new_id(), snapshot=FIRST, dataset=DATASET, reason="asked for")
    accepted(told.story.do("petra", erased))
    assert rules_of(told.push(view(FIRST), until=5)) == ["data.contract"]


def test_lineage_leads_through_the_store_as_it_was_filled_last(told: Told) -> None:
    accepted(told.push(view(FIRST), until=5))
    accepted(told.push(view(SECOND), until=6))
    here = f"online:main/delays@{DELAYS.removeprefix('sha256:')[:12]}"
    features = {
        f"feature:main/delays:{name}@{DELAYS.removeprefix('sha256:')[:12]}" for name in ("late", "delay")
    }
    ahead = {(here, "serves", feature) for feature in features}
    assert told.lineage(f"snapshot:{SECOND}") == {(f"snapshot:{SECOND}", "pushed_to", here), *ahead}
    assert told.lineage(f"snapshot:{FIRST}") == set()
    for feature in features:
        assert told.lineage(feature) == {
            (f"snapshot:{SECOND}", "pushed_to", here),
            (here, "serves", feature),
        }


def test_a_line_of_the_log_says_what_where_and_how_far() -> None:
    event = ViewsMaterialized(model=MODEL_NAME, store=STORE, until=0, views=(view(FIRST, n_new=1234),))
    assert event.summary() == (
        "features of main/flight-delay brought to lmdb:.lockgate/online up to 1970-01-01T00:00:00.000000Z: "
        f"delays {DELAYS.removeprefix('sha256:')[:12]} (1,234 new rows)"
    )
