"""Holds, collection and erasure: what is decided, what goes, what stays."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from lockgate.core.digests import canonical
from lockgate.core.messages import RefusedCommand
from lockgate.data.manifest import Column, Snapshot, SnapshotFile
from lockgate.data.messages import EraseSnapshot, RecordSnapshot
from lockgate.hub.audit import read_entry
from lockgate.hub.messages import ChangesSince, ExplainVersion, VerifyAudit
from lockgate.registry.messages import BlobsSwept, LiftHold
from lockgate.registry.packages.package import open_package
from lockgate.testing.clock import CountingIds
from lockgate.testing.furnished import FurnishedStory
from lockgate.testing.house import House
from lockgate.testing.hub_world import MODEL_NAME, accepted, rules_of
from lockgate.traffic.capture import unit_of
from lockgate.workshop.upkeep.erasing import Eraser, UnknownSnapshot, carry_out, decide, erase_captures

V1, V2, V3 = (f"{MODEL_NAME}@1.0.{number}" for number in range(3))


@pytest.fixture
def house() -> House:
    house = House()
    for name in ("one", "two", "three"):
        house.story.train(name)
        accepted(house.story.register(name))
    return house


def test_what_is_rejected_long_enough_goes_and_stays_on_record(house: House) -> None:
    story = house.story
    house.reject(V1)
    house.clock.advance(days=31)
    before = set(house.blobs.digests())
    done = house.collect()
    assert (done.versions, done.kept, done.dry_run) == ((V1,), (), False)
    gone = before - set(house.blobs.digests())
    # The rows of `one` and what steps made of them; weights and golden rows. Those of `three`, the newest, stay.
    assert {story.rows("one"), story.made_on_the_way("one"), story.weights("one")} <= gone
    assert len(gone) == done.n_blobs
    for name in ("two", "three"):
        assert house.holds(*story.package_blobs(name), story.rows(name), story.made_on_the_way(name))
    # What is named on record is there for good: manifests, the run, what the package says of itself.
    named = (story.named("package", "one"), story.named("run", "one"), story.named("snapshot", "one"))
    assert house.holds(*named, story.named("signature", "one"))
    told = house.world.ask(ExplainVersion(version=V1))
    assert (told.version.state, told.version.collected_at is not None) == ("rejected", True)
    assert open_package(told.version.package, house.blobs).config.params == {"name": "one"}
    assert house.world.ask(VerifyAudit()).ok
    again = house.collect()
    assert (again.versions, again.n_blobs) == ((), 0)


def test_a_dry_run_says_the_same_and_changes_nothing(house: House) -> None:
    house.reject(V1)
    house.clock.advance(days=31)
    before, head = set(house.blobs.digests()), house.world.journal.head()
    planned = house.collect(dry_run=True)
    assert (set(house.blobs.digests()), house.world.journal.head()) == (before, head)
    done = house.collect()
    assert (done.versions, done.n_blobs, done.n_bytes) == (planned.versions, planned.n_blobs, planned.n_bytes)
    assert planned.dry_run and planned.n_blobs > 0


def test_what_swept_blobs_were_is_told_before_they_go(house: House) -> None:
    house.reject(V1)
    house.clock.advance(days=31)
    done = house.collect()
    events = [read_entry(one)[0] for one in house.world.journal.entries(0, 1000)]
    swept = [event for event in events if isinstance(event, BlobsSwept)]
    told = {digest for event in swept for digest in event.digests}
    assert (len(told), sum(event.n_bytes for event in swept)) == (done.n_blobs, done.n_bytes)
    assert not house.holds(*told) and not any(map(house.blobs.has, told))


@pytest.mark.parametrize("days", [0, 29.9])
def test_a_term_that_has_not_run_out_is_a_reason(house: House, days: float) -> None:
    house.reject(V1)
    house.clock.advance(days=days)
    assert rules_of(house.collecting(V1)) == ["registry.term"]
    assert house.collect().versions == ()
    house.clock.advance(days=30 - days)
    assert rules_of(house.collecting(V1, term_days=-1)) == ["registry.term"]
    assert house.collect().versions == (V1,)


def test_neither_the_newest_version_nor_one_that_lives_nor_one_in_use_goes(house: House) -> None:
    story = house.story
    for version in (V1, V2):
        accepted(story.judge(version))
        accepted(story.validate(version))
        accepted(story.promote(version, "dev"))
        accepted(story.confirm("dev"))
    house.reject(V3)
    house.clock.advance(days=100)
    assert rules_of(house.collecting(V3)) == ["registry.latest"]
    assert rules_of(house.collecting(V1)) == ["delivery.in-use", "registry.state"]
    # Rejected while it is live: what answers goes on answering, and can be started again.
    house.reject(V2)
    house.reject(V1)
    house.clock.advance(days=100)
    done = house.collect()
    assert done.versions == ()
    assert {one.version for one in done.kept} == {V1, V2, V3}
    for name in ("one", "two", "three"):
        assert house.holds(*story.package_blobs(name))


def test_a_hold_outlasts_every_term_until_its_matter_is_closed(house: House) -> None:
    accepted(house.hold(V1))
    accepted(house.hold(V1, matter="other"))
    house.reject(V1)
    house.clock.advance(days=1000)
    assert rules_of(house.collecting(V1)) == ["registry.held", "registry.held"]
    assert house.collect().versions == ()
    for matter in ("case", "other"):
        lift = LiftHold(id=house.story.new_id(), version=V1, matter=matter, reason="closed")
        accepted(house.story.do("bob", lift))
    assert house.collect().versions == (V1,)
    assert rules_of(house.hold(V1)) == ["registry.collected"]


def test_holding_says_what_is_wrong(house: House) -> None:
    assert rules_of(house.hold(f"{MODEL_NAME}@9.9.9")) == ["registry.version-unknown"]
    assert rules_of(house.hold(V1, matter=" ")) == ["registry.hold-reason"]
    lift = LiftHold(id="l", version=V1, matter="nothing", reason="x")
    assert rules_of(house.story.do("bob", lift)) == ["registry.not-held"]
    accepted(house.hold(V1))
    head = house.world.journal.head()
    accepted(house.hold(V1))
    assert house.world.journal.head() == head


def test_acceptance_6_a_number_and_a_package_that_were_used_are_never_given_again(house: House) -> None:
    """Delete and create anew: the package is no news under its old number, and the number is not free."""
    story = house.story
    house.reject(V1)
    house.clock.advance(days=31)
    assert house.collect().versions == (V1,)
    head = house.world.journal.head()
    accepted(story.register("one"))
    assert house.world.journal.head() == head
    assert house.world.ask(ExplainVersion(version=V1)).version.collected_at is not None
    assert rules_of(story.register("four", version="1.0.0")) == ["registry.bump-too-small"]
    accepted(story.register("four"))
    assert house.world.ask(ExplainVersion(version=f"{MODEL_NAME}@1.0.3")).version.state == "candidate"


def test_erased_rows_are_gone_with_all_that_steps_made_of_them(house: House) -> None:
    story = house.story
    done = house.erase(f"snapshot:{story.named('snapshot', 'one')[7:19]}")
    assert done.snapshots == (story.named("snapshot", "one"),)
    assert done.packages == (story.named("package", "one"),)
    assert not house.blobs.has(story.rows("one"))
    assert not house.blobs.has(story.made_on_the_way("one"))
    # Signed bytes are not taken apart, and nobody else's rows are touched.
    assert house.holds(*story.package_blobs("one"), story.named("run", "one"))
    assert house.holds(story.rows("two"), story.made_on_the_way("two"))
    (erased,) = house.world.ask(ExplainVersion(version=V1)).erased
    assert (erased.state, erased.erasure.reason, erased.erasure.erased_by) == (
        "erased",
        "request 4711",
        "sam",
    )
    assert house.world.ask(ExplainVersion(version=V2)).erased == ()
    assert house.world.ask(VerifyAudit()).ok


def test_erased_rows_do_not_come_back(house: House) -> None:
    story = house.story
    house.erase(story.named("snapshot", "three"))
    again = FurnishedStory(house.world.hub, house.blobs, CountingIds("again"))
    with pytest.raises(AssertionError, match=r"data\.snapshot-erased"):
        again.train("three")
    assert house.blobs.has(story.rows("three"))
    # What was stored before it was refused goes by the same words.
    assert house.erase(story.named("snapshot", "three")).n_blobs == 2
    assert not house.blobs.has(story.rows("three"))


def test_a_hold_and_an_erasure_exclude_each_other(house: House) -> None:
    accepted(house.hold(V1))
    with pytest.raises(RefusedCommand) as caught:
        house.erase(house.story.named("snapshot", "one"))
    assert [reason.rule for reason in caught.value.refusal.reasons] == ["registry.held"]
    assert house.holds(house.story.rows("one"))
    house.erase(house.story.named("snapshot", "two"))


def a_twin(house: House, name: str) -> str:
    """Another dataset with the very same file."""
    manifest = Snapshot(
        dataset="main/other",
        columns=(Column("x", "int64"),),
        n_rows=1,
        files=(SnapshotFile(path="p", digest=house.story.rows(name), n_bytes=1, n_rows=1),),
    )
    twin = house.blobs.put(canonical(manifest))
    record = RecordSnapshot(
        id="twin",
        dataset="main/other",
        snapshot=twin,
        n_rows=1,
        extracted_at=1,
        source="x",
        transformation=twin,
        storage="blobs",
    )
    accepted(house.story.do("ann", record))
    return twin


def test_the_same_rows_under_two_names_are_named_together(house: House) -> None:
    story, twin = house.story, a_twin(house, "one")
    with pytest.raises(RefusedCommand) as caught:
        house.erase(story.named("snapshot", "one"))
    assert [(one.rule, one.evidence) for one in caught.value.refusal.reasons] == [("data.rows-shared", twin)]
    assert not house.is_erased(story.named("snapshot", "one"))
    assert house.holds(story.rows("one"))
    assert len(house.erase(story.named("snapshot", "one"), twin).snapshots) == 2
    assert not house.blobs.has(story.rows("one"))


def test_what_a_crash_has_left_of_erased_rows_goes_with_the_next_collection(house: House) -> None:
    story = house.story
    (snapshot,) = decide(
        house.world.hub("sam"), house.ids.new, named=[story.named("snapshot", "one")], reason="request 4711"
    )
    assert house.is_erased(snapshot) and house.blobs.has(story.rows("one"))
    planned = house.collect(dry_run=True)
    assert planned.n_erased == 0 and house.blobs.has(story.rows("one"))
    assert house.collect().n_erased == 2
    assert not house.blobs.has(story.rows("one")) and not house.blobs.has(story.made_on_the_way("one"))
    assert house.holds(story.rows("two"), *story.package_blobs("one"))
    assert house.collect().n_erased == 0


def test_whoever_is_next_to_the_bytes_carries_out_what_was_decided_elsewhere(house: House) -> None:
    story = house.story
    eraser = Eraser(house.world.journal, house.blobs, tuple)
    eraser.look()
    assert house.holds(story.rows("one"))
    for name in ("one", "two"):
        decide(house.world.hub("sam"), house.ids.new, named=[story.named("snapshot", name)], reason="x")
        assert house.holds(story.rows(name))
        eraser.look()
        assert not house.holds(story.rows(name))
    # It looks again only when there is news, so a store is not listed all the time; a new process looks at all.
    again = FurnishedStory(house.world.hub, house.blobs, CountingIds("again"))
    with pytest.raises(AssertionError, match=r"data\.snapshot-erased"):
        again.train("one")
    eraser.look()
    assert house.holds(story.rows("one"))
    Eraser(house.world.journal, house.blobs, tuple).look()
    assert not house.holds(story.rows("one"))
    assert house.holds(story.rows("three"), story.made_on_the_way("three"))


def test_rows_that_were_recorded_under_another_name_meanwhile_stay_until_both_are_erased(
    house: House,
) -> None:
    story = house.story
    one = story.named("snapshot", "one")
    decide(house.world.hub("sam"), house.ids.new, named=[one], reason="request 4711")
    twin = a_twin(house, "one")
    eraser = Eraser(house.world.journal, house.blobs, tuple)
    eraser.look()
    assert carry_out(house.world.journal, house.blobs).shared == (one,)
    assert house.holds(story.rows("one"))
    decide(house.world.hub("sam"), house.ids.new, named=[twin], reason="request 4711")
    eraser.look()
    assert not house.holds(story.rows("one"))


def test_no_term_is_shorter_than_that_of_the_hub(house: House) -> None:
    house.reject(V1)
    house.clock.advance(days=10)
    house.world.terms = {"low": 0, "moderate": 11, "high": 11, "critical": 11}
    assert rules_of(house.collecting(V1, term_days=0)) == ["registry.term"]
    house.clock.advance(days=2)
    (collected,) = accepted(house.collecting(V1, term_days=0)).events
    assert collected["term_days"] == 11


@pytest.mark.parametrize("named", ["snapshot:", "snapshot:0000000000", "sha256:abc", "x"])
def test_a_snapshot_that_cannot_be_told_is_not_guessed(house: House, named: str) -> None:
    with pytest.raises(UnknownSnapshot):
        house.erase(named)


def test_erasing_needs_a_reason_and_the_right_dataset(house: House) -> None:
    snapshot = house.story.named("snapshot", "one")
    with pytest.raises(RefusedCommand):
        house.erase(snapshot, reason=" ")
    other = EraseSnapshot(id="e", snapshot=snapshot, dataset="main/other", reason="x")
    assert rules_of(house.story.do("sam", other)) == ["data.snapshot-unknown"]


def test_what_nobody_registered_goes_after_its_days(house: House) -> None:
    stray = house.blobs.put(b"left by a step that failed")
    story = house.story
    story.train("never registered")
    house.clock.advance(days=4)
    assert house.collect().n_blobs == 0
    assert house.holds(stray, story.rows("never registered"))
    house.clock.advance(days=2)
    young = house.blobs.put(b"of today")
    # The snapshot is the newest of its dataset, so it stays; the run that nobody took up does not.
    house.collect()
    assert not house.blobs.has(stray)
    assert not house.blobs.has(story.made_on_the_way("never registered"))
    assert house.holds(young, story.rows("never registered"), story.rows("one"))


class OneCapture:
    """Counts what it is asked to erase."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, set[str]]] = []

    def erase(self, endpoint: str, units: Collection[str]) -> int:
        self.asked.append((endpoint, set(units)))
        return 7


def test_a_callers_lines_are_erased_under_every_salt_there_was(house: House) -> None:
    files, endpoint = OneCapture(), f"dev/{MODEL_NAME}"
    execute, journal = house.world.hub("sam").execute, house.world.journal
    how = {"endpoint": endpoint, "key": "passenger-4711", "reason": "request"}
    assert erase_captures(execute, journal, files, house.ids, **how) == 7
    assert files.asked == [(endpoint, {unit_of("passenger-4711", endpoint[:64])})]
    (told,) = house.story.ask(ChangesSince(seq=journal.head().seq - 1)).changes
    assert (told.type, "4711" in told.summary) == ("delivery.captures-erased/1", False)
    # A hash that could be guessed is on no record either.
    assert unit_of("passenger-4711", endpoint[:64]).encode() not in journal.entries(0, 1000)[-1].body
    for wrong in ({"endpoint": "dev/main/nothing"}, {"reason": " "}):
        with pytest.raises(RefusedCommand):
            erase_captures(execute, journal, files, house.ids, **how | wrong)
    assert len(files.asked) == 1
