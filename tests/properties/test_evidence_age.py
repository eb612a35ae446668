"""Evidence measured, sent, and sent again in any order and company: it is never younger than its measurement."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lockgate.gates.messages import RecordEvidence
from lockgate.gates.state import EVIDENCE, EvidenceState, evidence_key
from lockgate.governance.judgement import DAY_US
from lockgate.hub.messages import VerifyAudit
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted, named_digest

V1, PACKAGE = f"{MODEL_NAME}@1.0.0", named_digest("package", "one")
PIECES = st.sets(st.sampled_from([1, 2, 3]), min_size=1)


class ProvenEvidenceMachine(RuleBasedStateMachine):
    """Where names are proven, whatever a validator sends: nothing is younger than the beginning of the newest run that
    he was seen to begin, and no time that was measured once is younger than it was.

    Attributes:
        begun: when each run began, by its name; timed: when a time was first told of, by the digest of its piece.
    """

    @initialize()
    def found(self) -> None:
        self.world = HubWorld.in_memory()
        self.story = Story(self.world.proven)
        self.story.found()
        accepted(self.story.register("one", author="service:ci"))
        self.registered_at = self.world.clock.now()
        self.begun: dict[str, int] = {}
        self.timed: dict[str, int] = {}

    def state(self) -> EvidenceState | None:
        stored = self.world.journal.document(EVIDENCE.name, evidence_key(V1))
        return None if stored is None else msgspec.json.decode(stored.body, type=EvidenceState)

    @rule()
    def a_run_begins(self) -> None:
        begun = self.story.start_judging(V1)
        accepted(self.story.do("eve", begun))
        self.begun[begun.id] = self.world.clock.now()

    @rule(numbers=PIECES, run=st.integers(0, 9), claims_days=st.sampled_from([None, -3, 0, 9]))
    def it_is_sent(self, numbers: set[int], run: int, claims_days: int | None) -> None:
        """Some pieces, the first of which is a time, as of a run that was begun, of one that never was, or of none."""
        made = [self.story.judging(V1, PACKAGE, turn=number).lines[0] for number in sorted(numbers)]
        lines = tuple(
            msgspec.structs.replace(one, gate="latency", measured=1.5) if number == 1 else one
            for number, one in zip(sorted(numbers), made, strict=True)
        )
        names = ["", f"never was {run}", *self.begun]
        now = self.world.clock.now()
        command = msgspec.structs.replace(
            self.story.judging(V1, PACKAGE),
            lines=lines,
            judging=names[run % len(names)],
            began_at=None if claims_days is None else now + claims_days * DAY_US,
        )
        known = self.state()
        accepted(self.story.do("eve", command))
        state = self.state()
        assert state is not None
        if command.judging not in self.begun and known is not None:
            assert state.measured_at <= max(known.measured_at, *known.measured.values())
        for line in state.lines:
            if line.gate == "latency":
                first = self.timed.setdefault(line.digest, state.measured_at)
                assert state.measured_at <= first

    @rule(days=st.sampled_from([0.2, 0.6, 3]))
    def time_passes(self, days: float) -> None:
        self.world.clock.advance(days=days)

    @invariant()
    def nothing_is_younger_than_the_newest_run(self) -> None:
        state = self.state() if hasattr(self, "begun") else None
        if state is None:
            return
        assert state.measured_at <= max(self.begun.values(), default=self.registered_at)
        if state.judging:
            assert state.measured_at <= self.begun[state.judging]

    def teardown(self) -> None:
        if hasattr(self, "world"):
            assert self.world.ask(VerifyAudit()).ok


class EvidenceMachine(RuleBasedStateMachine):
    """
    Attributes:
        measured: when each piece was last measured, or first seen where nobody ever measured it, by the digest.
        runs: what each run of the gates found that was news, and when it began.
    """

    @initialize()
    def found(self) -> None:
        self.world = HubWorld.in_memory()
        self.story = Story(self.world.hub)
        self.story.found()
        accepted(self.story.register("one"))
        self.measured: dict[str, int] = {}
        self.runs: list[tuple[RecordEvidence, int]] = []

    def pieces(self, numbers: set[int], **how: Any) -> RecordEvidence:
        made = [self.story.judging(V1, PACKAGE, turn=number, **how) for number in sorted(numbers)]
        return msgspec.structs.replace(made[0], lines=tuple(one.lines[0] for one in made))

    def state(self) -> EvidenceState | None:
        stored = self.world.journal.document(EVIDENCE.name, evidence_key(V1))
        return None if stored is None else msgspec.json.decode(stored.body, type=EvidenceState)

    def sends(self, command: RecordEvidence) -> bool:
        """Whether it was news."""
        return bool(accepted(self.story.do("eve", command)).events)

    @rule(numbers=PIECES, days_ago=st.sampled_from([0, 0, 2]), days_ahead=st.sampled_from([0, 0, 9]))
    def the_gates_run(self, numbers: set[int], days_ago: int, days_ahead: int) -> None:
        now = self.world.clock.now()
        began_at = now + (days_ahead - days_ago) * DAY_US
        run = self.pieces(numbers, judging=self.story.new_id(), began_at=began_at)
        news, began_at = self.sends(run), min(began_at, self.world.clock.now())
        # Of a run that was no news nothing is kept, so that it is a new one when it is told of again.
        if news:
            self.runs.append((run, began_at))
            for line in run.lines:
                self.measured[line.digest] = began_at

    @rule(which=st.integers(0, 50), claims_now=st.booleans())
    def a_run_is_told_of_again(self, which: int, claims_now: bool) -> None:
        if not self.runs:
            return
        run, began_at = self.runs[which % len(self.runs)]
        claimed = self.world.clock.now() if claims_now else run.began_at
        again = msgspec.structs.replace(run, id=self.story.new_id(), began_at=claimed)
        known = self.state()
        if self.sends(again) and known is not None and run.judging in known.measured:
            state = self.state()
            assert state is not None and state.measured_at <= began_at

    @rule(numbers=PIECES)
    def pieces_are_sent(self, numbers: set[int]) -> None:
        command = self.pieces(numbers)
        self.sends(command)
        for line in command.lines:
            self.measured.setdefault(line.digest, self.world.clock.now())

    @rule(days=st.sampled_from([0.2, 0.6, 3]))
    def time_passes(self, days: float) -> None:
        self.world.clock.advance(days=days)

    @invariant()
    def it_is_as_old_as_its_oldest_piece(self) -> None:
        state = self.state()
        if state is None:
            return
        assert state.measured_at <= self.world.clock.now()
        newest_run = {
            line.digest: max(
                (at for run, at in self.runs if line in run.lines), default=self.measured[line.digest]
            )
            for line in state.lines
        }
        assert state.measured_at <= min(newest_run.values())

    def teardown(self) -> None:
        if hasattr(self, "world"):
            assert self.world.ask(VerifyAudit()).ok


TestProvenEvidence = ProvenEvidenceMachine.TestCase
TestProvenEvidence.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestEvidence = EvidenceMachine.TestCase
TestEvidence.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
