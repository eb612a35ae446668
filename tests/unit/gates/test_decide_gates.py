from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.core.messages import Receipt
from lockgate.gates.decide import set_digest
from lockgate.gates.evidence import GATES
from lockgate.gates.messages import TIMED, EvidenceLine, EvidenceRecorded
from lockgate.gates.state import EVIDENCE, EvidenceState, evidence_key
from lockgate.governance.judgement import DAY_US
from lockgate.registry.messages import QuarantineVersion, RejectVersion
from lockgate.testing.hub_world import (
    MAX_AGE_DAYS,
    MODEL_NAME,
    HubWorld,
    Story,
    accepted,
    named_digest,
    rules_of,
)

V1 = f"{MODEL_NAME}@1.0.0"
PACKAGE = named_digest("package", "one")


@pytest.fixture
def story(story: Story) -> Story:
    accepted(story.register("one"))
    return story


def recorded(world: HubWorld, environment: str = "") -> EvidenceState | None:
    stored = world.journal.document(EVIDENCE.name, evidence_key(V1, environment))
    return None if stored is None else msgspec.json.decode(stored.body, type=EvidenceState)


def test_evidence_is_kept_with_who_recorded_it(world: HubWorld, story: Story) -> None:
    accepted(story.do("eve", story.judging(V1, PACKAGE)))
    state = recorded(world)
    assert state is not None
    assert (state.recorded_by, state.package, state.environment, state.baseline) == ("eve", PACKAGE, "", None)
    assert recorded(world, "prod") is None


def test_evidence_about_other_bytes_is_refused(world: HubWorld, story: Story) -> None:
    receipt = story.do("eve", story.judging(V1, named_digest("package", "two")))
    assert rules_of(receipt) == ["gates.other-package"]
    assert recorded(world) is None


def test_evidence_on_a_version_nobody_knows_is_refused(story: Story) -> None:
    receipt = story.do("eve", story.judging(f"{MODEL_NAME}@3.0.0", PACKAGE))
    assert rules_of(receipt) == ["registry.version-unknown"]


def test_new_evidence_replaces_the_whole_set(world: HubWorld, story: Story) -> None:
    accepted(story.do("eve", story.judging(V1, PACKAGE, turn=1)))
    first = recorded(world)
    accepted(story.do("eve", story.judging(V1, PACKAGE, turn=2, verdict="fail")))
    second = recorded(world)
    assert first is not None
    assert second is not None
    assert first.evidence_set != second.evidence_set
    assert [line.verdict for line in second.lines] == ["fail"]


def test_the_same_evidence_again_is_no_news_until_half_a_day_has_passed(
    world: HubWorld, story: Story
) -> None:
    accepted(story.judge(V1))
    world.clock.advance(seconds=11.9 * 3600)
    assert accepted(story.judge(V1)).events == ()
    world.clock.advance(seconds=0.2 * 3600)
    assert len(accepted(story.judge(V1)).events) == 1
    assert days_old(world) == 0


def days_old(world: HubWorld) -> int:
    state = recorded(world)
    assert state is not None
    return round((world.clock.now() - state.measured_at) / DAY_US)


def send(story: Story, **how: Any) -> int:
    return len(accepted(story.do("eve", story.judging(V1, PACKAGE, **how))).events)


def test_what_is_sent_again_is_as_old_as_it_was(world: HubWorld, story: Story) -> None:
    assert send(story, judging="run 1") == 1
    world.clock.advance(days=20)
    assert send(story) == 0, "nobody says that the gates ran"
    assert send(story, judging="run 1") == 0, "that run was told of"
    assert send(story, judging="run 1", began_at=world.clock.now()) == 0
    assert days_old(world) == 20
    assert send(story, judging="run 2") == 1
    assert days_old(world) == 0


def test_what_comes_back_after_something_else_is_as_old_as_it_was(world: HubWorld, story: Story) -> None:
    assert send(story, turn=1, judging="run 1") == 1
    world.clock.advance(days=5)
    assert send(story, turn=2, judging="run 2") == 1
    assert days_old(world) == 0
    world.clock.advance(days=5)
    assert send(story, turn=1) == 1
    assert days_old(world) == 10
    assert send(story, turn=2, judging="run 2") == 1
    assert days_old(world) == 5


def test_some_of_it_among_other_pieces_makes_all_of_it_as_old(world: HubWorld, story: Story) -> None:
    assert send(story, turn=1) == 1
    world.clock.advance(days=5)
    one, two = (story.judging(V1, PACKAGE, turn=turn) for turn in (1, 2))
    both = msgspec.structs.replace(two, lines=one.lines + two.lines)
    assert len(accepted(story.do("eve", both)).events) == 1
    assert days_old(world) == 5
    assert send(story, turn=2) == 1
    assert days_old(world) == 5, "nobody knows when the new piece was measured: it came with the old one"


def test_when_it_was_measured_makes_it_older_and_never_newer(world: HubWorld, story: Story) -> None:
    now = world.clock.now()
    assert send(story, judging="run 1", began_at=now - 3 * DAY_US) == 1
    assert days_old(world) == 3
    assert send(story, judging="run 2", began_at=now + 30 * DAY_US) == 1
    assert days_old(world) == 0


def test_its_age_is_that_of_its_measurement_and_approvals_stay(world: HubWorld, story: Story) -> None:
    story.train("one")
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    accepted(story.judge_for(V1, "prod"))
    accepted(story.approve(V1))
    world.clock.advance(days=MAX_AGE_DAYS + 1)
    assert send(story) == 0
    assert rules_of(story.promote(V1, "prod")) == ["governance.evidence-age"] * 2
    accepted(story.judge(V1))
    accepted(story.judge_for(V1, "prod"))
    accepted(story.promote(V1, "prod"))


def test_a_run_after_a_quarantine_is_news(world: HubWorld, story: Story) -> None:
    accepted(story.judge(V1))
    world.clock.advance(seconds=60)
    accepted(story.do("sam", QuarantineVersion(id="q", version=V1, reason="x")))
    world.clock.advance(seconds=60)
    assert send(story) == 0
    assert len(accepted(story.judge(V1)).events) == 1
    assert accepted(story.judge(V1)).events == ()


class Proven:
    """A validator and a version that a machine registered, at a hub where names are proven."""

    def __init__(self) -> None:
        self.world = HubWorld.in_memory()
        self.story = Story(self.world.proven)
        self.story.found()
        accepted(self.story.register("one", author="service:ci"))

    def begins(self, actor: str = "eve", environment: str = "") -> str:
        begun = self.story.start_judging(V1, environment)
        accepted(self.story.do(actor, begun))
        return begun.id

    def sends(self, actor: str = "eve", *, timed: bool = False, **how: Any) -> Receipt:
        command = self.story.judging(V1, PACKAGE, **how)
        if timed:
            lines = tuple(
                msgspec.structs.replace(one, gate="latency", measured=120.5) for one in command.lines
            )
            command = msgspec.structs.replace(command, lines=lines)
        return self.story.do(actor, command)

    @property
    def days_old(self) -> int:
        return days_old(self.world)


@pytest.fixture
def proven() -> Proven:
    return Proven()


def test_what_a_run_found_is_as_old_as_its_beginning_at_the_hub(proven: Proven) -> None:
    proven.world.clock.advance(days=20)
    run = proven.begins()
    proven.world.clock.advance(days=2)
    (event,) = accepted(proven.sends(judging=run, began_at=proven.world.clock.now())).events
    assert (event["judging"], proven.days_old) == (run, 2)


def test_a_run_that_never_was_makes_nothing_younger(proven: Proven) -> None:
    accepted(proven.sends(judging=proven.begins()))
    proven.world.clock.advance(days=20)
    assert accepted(proven.sends(judging="a run that never was")).events == ()
    assert proven.days_old == 20
    # Nor does something else that nobody was seen to measure.
    (event,) = accepted(proven.sends(turn=2, judging="another", began_at=proven.world.clock.now())).events
    assert (event["judging"], proven.days_old) == ("", 20)
    accepted(proven.sends(turn=2, judging=proven.begins()))
    assert proven.days_old == 0


def test_what_came_without_a_run_may_be_as_old_as_the_version_and_is_told_so(proven: Proven) -> None:
    proven.world.clock.advance(days=MAX_AGE_DAYS + 1)
    accepted(proven.sends())
    receipt = proven.story.validate(V1)
    assert rules_of(receipt) == ["governance.evidence-age"]
    assert receipt.refusal is not None
    assert receipt.refusal.reasons[0].message.endswith("without a run of the gates that was begun here")
    accepted(proven.story.judge(V1))
    accepted(proven.story.validate(V1))


def test_a_run_is_whose_it_is_and_about_what_it_is(proven: Proven) -> None:
    run = proven.begins()
    assert rules_of(proven.sends("vic", judging=run)) == ["gates.other-run"]
    relative = proven.sends(environment="prod", baseline="", judging=run)
    assert rules_of(relative) == ["gates.other-run"]
    accepted(proven.sends(judging=run))


def test_the_gates_that_measure_times_are_gates() -> None:
    assert set(GATES) >= TIMED


def test_no_run_measures_the_same_time_twice(proven: Proven) -> None:
    accepted(proven.sends(timed=True, judging=proven.begins()))
    proven.world.clock.advance(days=5)
    assert accepted(proven.sends(timed=True, judging=proven.begins())).events == ()
    assert proven.days_old == 5, "the very same time is a copy"
    accepted(proven.sends(timed=True, turn=2, judging=proven.begins()))
    assert proven.days_old == 0
    accepted(proven.sends(judging=proven.begins()))
    proven.world.clock.advance(days=5)
    accepted(proven.sends(judging=proven.begins()))
    assert proven.days_old == 0, "a gate that measures no time finds the same again"


def test_a_run_is_started_by_who_may_say_what_it_found(proven: Proven) -> None:
    receipt = proven.story.do("service:ci", proven.story.start_judging(V1))
    assert rules_of(receipt) == ["governance.separation-of-duties"]
    assert rules_of(proven.story.do("eve", proven.story.start_judging(f"{MODEL_NAME}@9.0.0"))) == [
        "registry.version-unknown"
    ]
    accepted(proven.story.do("rita", RejectVersion(id="x", version=V1, reason="worse")))
    assert rules_of(proven.story.do("eve", proven.story.start_judging(V1))) == ["registry.state"]


def test_intrinsic_and_relative_evidence_live_side_by_side(world: HubWorld, story: Story) -> None:
    accepted(story.do("eve", story.judging(V1, PACKAGE)))
    accepted(story.do("eve", story.judging(V1, PACKAGE, environment="prod", baseline="")))
    intrinsic, relative = recorded(world), recorded(world, "prod")
    assert intrinsic is not None
    assert relative is not None
    assert (relative.environment, relative.baseline) == ("prod", "")
    assert intrinsic.evidence_set != relative.evidence_set


def test_another_baseline_is_another_judgement(world: HubWorld, story: Story) -> None:
    for baseline in ("", named_digest("package", "champion")):
        command = story.judging(V1, PACKAGE, environment="prod", baseline=baseline)
        receipt = story.do("eve", command)
        assert len(accepted(receipt).events) == 1


def test_evidence_may_be_recorded_in_quarantine(world: HubWorld, story: Story) -> None:
    accepted(story.do("sam", QuarantineVersion(id="q", version=V1, reason="x")))
    accepted(story.do("eve", story.judging(V1, PACKAGE)))
    assert recorded(world) is not None


def line(name: str) -> EvidenceLine:
    return EvidenceLine(
        gate="g",
        metric="m",
        verdict="pass",
        severity="block",
        value="1",
        threshold="0",
        summary="s",
        digest=named_digest(name),
    )


def test_a_set_is_named_whatever_its_order() -> None:
    assert set_digest((line("a"), line("b"))) == set_digest((line("b"), line("a")))
    assert set_digest((line("a"),)) != set_digest((line("a"), line("b")))
    assert set_digest(()) != set_digest((line("a"),))
    assert set_digest((line("a"),)) != set_digest((msgspec.structs.replace(line("a"), verdict="warn"),))


@pytest.mark.parametrize(
    ("gate", "metric", "slice", "name"),
    [("g", "m", "", "g:m"), ("g", "m", "s", "g:m:s"), ("g", "", "", "g")],
)
def test_a_line_has_a_name(gate: str, metric: str, slice: str, name: str) -> None:
    assert msgspec.structs.replace(line("a"), gate=gate, metric=metric, slice=slice).name == name


def test_a_summary_counts_verdicts() -> None:
    lines = tuple(
        msgspec.structs.replace(line(str(n)), verdict=v) for n, v in enumerate(["fail", "pass", "pass"])
    )
    event = EvidenceRecorded(
        version=V1,
        package=PACKAGE,
        environment="prod",
        baseline=None,
        evidence_set=set_digest(lines),
        lines=lines,
        judging="",
        measured_at=None,
    )
    assert event.summary().endswith("on main/flight-delay@1.0.0 for prod: 2 pass, 1 fail")


def test_years_of_nightly_runs_leave_a_document_of_some_size_and_nothing_old_gets_young(
    proven: Proven,
) -> None:
    for night in range(700):
        accepted(proven.sends(turn=night, judging=proven.begins()))
        proven.world.clock.advance(days=1)
    state = recorded(proven.world)
    assert state is not None
    assert 500 < len(state.measured) <= 1024
    assert [line.digest in state.measured for line in state.lines] == [True]
    (event,) = accepted(proven.sends(turn=0)).events
    assert (event["judging"], proven.days_old) == ("", 700), "forgotten, and so as old as its version"
