from __future__ import annotations

import msgspec
import pytest

from lockgate.core.messages import Receipt
from lockgate.data.messages import RecordContractCheck, RecordSnapshot
from lockgate.data.state import DATASET, SNAPSHOT, DatasetState, SnapshotState
from lockgate.pipeline.messages import RecordRun
from lockgate.testing.hub_world import DATASET as FLIGHTS
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted, named_digest, rules_of

CONTRACT = named_digest("contract")


class Told:
    """The commands of this room and the next, in short."""

    def __init__(self) -> None:
        self.world = HubWorld.in_memory()
        self.story = Story(self.world.hub)

    def snapshot(self, name: str, dataset: str = FLIGHTS) -> Receipt:
        command = RecordSnapshot(
            id=self.story.new_id(),
            dataset=dataset,
            snapshot=named_digest(name),
            n_rows=10,
            extracted_at=1,
            source="file",
            transformation=named_digest("t"),
            storage="blobs",
        )
        return self.story.do("ann", command)

    def check(self, name: str, *violations: str, dataset: str = FLIGHTS) -> Receipt:
        command = RecordContractCheck(
            id=self.story.new_id(),
            dataset=dataset,
            snapshot=named_digest(name),
            contract=CONTRACT,
            violations=violations,
        )
        return self.story.do("ann", command)

    def run(self, name: str, **snapshots: str) -> Receipt:
        command = RecordRun(
            id=self.story.new_id(),
            model=MODEL_NAME,
            run=named_digest("run", name),
            package=named_digest("package", name),
            snapshots={f"main/{dataset}": named_digest(one) for dataset, one in snapshots.items()},
        )
        return self.story.do("ann", command)

    def state(self, name: str) -> SnapshotState:
        stored = self.world.journal.document(SNAPSHOT.name, named_digest(name))
        assert stored is not None
        return msgspec.json.decode(stored.body, type=SnapshotState)

    def dataset(self) -> DatasetState:
        stored = self.world.journal.document(DATASET.name, FLIGHTS)
        assert stored is not None
        return msgspec.json.decode(stored.body, type=DatasetState)


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_snapshot_is_recorded_once_and_starts_unchecked(told: Told) -> None:
    accepted(told.snapshot("one"))
    assert accepted(told.snapshot("one")).events == ()
    assert (told.state("one").state, told.state("one").contract) == ("unchecked", None)
    assert (told.dataset().latest, told.dataset().n_snapshots) == (named_digest("one"), 1)


def test_going_back_to_older_data_is_news(told: Told) -> None:
    for name in ("one", "two", "one"):
        assert len(accepted(told.snapshot(name)).events) == 1
    assert told.dataset().latest == named_digest("one")


def test_a_snapshot_keeps_its_checks_when_it_comes_back(told: Told) -> None:
    accepted(told.snapshot("one"))
    accepted(told.check("one"))
    accepted(told.snapshot("two"))
    accepted(told.snapshot("one"))
    assert told.state("one").state == "kept"


def test_a_snapshot_does_not_change_hands(told: Told) -> None:
    accepted(told.snapshot("one"))
    receipt = told.snapshot("one", dataset="main/weather")
    assert rules_of(receipt) == ["data.snapshot-owner"]
    assert FLIGHTS in str(receipt.refusal)
    elsewhere = told.snapshot("one", dataset="other/weather")
    assert rules_of(elsewhere) == ["data.snapshot-owner"]
    assert FLIGHTS not in str(elsewhere.refusal), "what another namespace has is not told"
    assert rules_of(told.check("one", dataset="main/weather")) == ["data.snapshot-unknown"]


def test_a_check_of_a_snapshot_nobody_recorded_is_refused(told: Told) -> None:
    assert rules_of(told.check("one")) == ["data.snapshot-unknown"]


def test_a_check_may_be_repeated_and_may_change_its_mind(told: Told) -> None:
    accepted(told.snapshot("one"))
    for violations, state in (
        ((), "kept"),
        (("a is null",), "broken"),
        (("b is null",), "broken"),
        ((), "kept"),
    ):
        receipt = accepted(told.check("one", *violations))
        assert len(receipt.events) == 1
        assert accepted(told.check("one", *violations)).events == ()
        assert (told.state("one").state, told.state("one").violations) == (state, violations)


def test_a_run_counts_when_all_it_read_keeps_its_contract(told: Told) -> None:
    for name, dataset in (("one", FLIGHTS), ("two", "main/weather"), ("three", "main/planes")):
        accepted(told.snapshot(name, dataset))
    accepted(told.check("one"))
    accepted(told.check("two", "dew is null", dataset="main/weather"))
    receipt = told.run("r", flights="one", weather="two", planes="three", airports="four")
    assert rules_of(receipt) == ["data.snapshot-unknown", "data.contract", "data.contract"]
    assert receipt.refusal is not None
    assert [reason.measured for reason in receipt.refusal.reasons] == [None, "unchecked", "dew is null"]
    assert len(accepted(told.run("r", flights="one")).events) == 1
    assert accepted(told.run("r", flights="one")).events == ()
