"""An endpoint in a line: what runs there, what is on its way, and whether the way back is ready."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.delivery.state import ON_A_STEP, EndpointState, LocalState, Rollout, RolloutState
from lockgate.traffic.observed import Observed


class RolloutLine(msgspec.Struct, frozen=True, kw_only=True):
    """What is on its way to an endpoint.

    Attributes:
        release: its number; when rolling back, of the one that is left.
        step: the step it is on or heads for, from 1; 0 for a release without steps.
        weight: share of the traffic that the step gives to the new version, in percent.
        verdict: what is known of the step: pass, fail, continue, no_data, void; empty before the first look.
        waits_for: what keeps it where it is, for people.
    """

    state: str
    version: str
    strategy: str
    generation: int
    started_at: Micros
    started_by: str
    release: int = 0
    step: int = 0
    n_steps: int = 0
    weight: float = 0.0
    step_started_at: Micros | None = None
    verdict: str = ""
    waits_for: str = ""


def astray(endpoint: EndpointState, seen: Observed | None) -> str:
    """How the workers differ from the plan that was decided. A target that cannot be seen is not astray but down."""
    changing = endpoint.rollout is not None and endpoint.rollout.state not in ON_A_STEP
    if seen is None or not seen.alive or changing or endpoint.generation == 0:
        return ""
    behind = [
        worker
        for worker in seen.workers
        if worker.state != "gone" and worker.generation < endpoint.generation
    ]
    if not behind:
        return ""
    why = f": {behind[0].detail}" if behind[0].detail else ""
    answers = f"answers by plan {behind[0].generation}" if behind[0].generation else "answers by no plan"
    return f"worker {behind[0].pid} {answers}, plan {endpoint.generation} was decided{why}"


def lately(endpoint: EndpointState) -> LocalState | None:
    """What was last done without the hub, unless something has gone live, or is about to, since."""
    local, live = endpoint.local, endpoint.live
    if local is None or endpoint.rollout is not None or (live is not None and live.since > local.adopted_at):
        return None
    return local


def rollout_line(underway: Rollout, steps: RolloutState | None, now: Micros) -> RolloutLine:
    line = RolloutLine(
        state=underway.state,
        version=underway.served.version,
        strategy=underway.strategy,
        generation=underway.generation,
        started_at=underway.started_at,
        started_by=underway.started_by,
        release=underway.release,
    )
    if steps is None:
        return line
    policy, run = steps.policy, steps.run
    heading = min(steps.heading, len(policy.steps) - 1)
    return msgspec.structs.replace(
        line,
        step=heading + 1,
        n_steps=len(policy.steps),
        weight=policy.steps[heading].weight / 100,
        step_started_at=run.started_at if run else None,
        verdict=steps.verdict.outcome if steps.verdict else "",
        waits_for=_waits_for(underway, steps, now),
    )


def _waits_for(underway: Rollout, steps: RolloutState, now: Micros) -> str:
    """What keeps a rollout on its step, in the order in which it can be helped."""
    if underway.state == "paused":
        return f"somebody to resume it; paused by {steps.paused}"
    if underway.state not in ON_A_STEP or steps.run is None:
        return "the data plane takes up the next step"
    if steps.verdict is None:
        return "a first look at its traffic (lockgate up)"
    if steps.verdict.outcome != "pass":
        return steps.verdict.reason
    left_s = steps.policy.steps[steps.run.step].bake_s - (now - steps.run.started_at) / 1_000_000
    return f"{left_s:.0f} s of its bake" if left_s > 0 else "the controller (lockgate up)"


class LiveLine(msgspec.Struct, frozen=True, kw_only=True):
    """A release on an endpoint.

    Attributes:
        revoked: the keys that signed it, when every one of them is revoked: it would not be loaded again.
    """

    version: str
    digest: Digest
    since: Micros
    approved_by: tuple[str, ...]
    ticket: str = ""
    revoked: tuple[str, ...] = ()


class DrillLine(msgspec.Struct, frozen=True, kw_only=True):
    """The last rehearsal of a way back; times in milliseconds."""

    passed: bool
    to_version: str
    finished_at: Micros
    n_flips: int
    p50_ms: float
    p99_ms: float
    all_p99_ms: float
    n_failed: int
    n_wrong: int
    interrupted: str = ""
    number: int = 0


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a rollback would work now, why not, and what its last rehearsal found."""

    ready: bool
    reason: str | None
    drill: DrillLine | None = None


class EndpointLine(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about an endpoint, and what is seen of it.

    Attributes:
        astray: how the data plane differs from what was decided; empty when it does as it was told, or is just being
            told.
        let_go: the consumers that no longer need it; removed_at: since when it is taken down.
        out_of_policy: why what is live would not be let in as it is; it stays live.
        local: what was done here without the hub, as long as nothing was decided to go live since.
        order: of its environment on the ladder, the lowest first.
    """

    live: LiveLine | None
    previous: LiveLine | None
    rollback_ready: Readiness
    rollout: RolloutLine | None
    consumers: tuple[str, ...] = ()
    dashboards: tuple[str, ...] = ()
    astray: str = ""
    let_go: tuple[str, ...] = ()
    removed_at: Micros | None = None
    out_of_policy: tuple[str, ...] = ()
    local: LocalState | None = None
    order: int = 0
