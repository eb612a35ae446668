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


class EvidenceMachine(RuleBasedStateMachine):
    """
    Attributes:
        measured: when each piece was last measured, or first seen where nobody ever measured it, by the digest.
        runs: what each run of the gates found, and when it began.
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
        self.runs.append((run, began_at))
        if news:
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


TestEvidence = EvidenceMachine.TestCase
TestEvidence.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
