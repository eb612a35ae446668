"""Decisions about a rollout on its way: it begins, is judged, moves on, is held, is moved by hand.

A rollout moves forward only out of a step that is served, on a verdict that passes, after its bake; it moves back
from anywhere. Whoever looks at traffic reports counts; the verdict is made here, under the journal's lock, so it
is the same for everybody and cannot be reported.
"""

from __future__ import annotations

from lockgate.core.clock import Micros
from lockgate.core.digests import digest_of
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Event, Reason, Refusal, refuse
from lockgate.core.names import parse_endpoint
from lockgate.delivery.messages import (
    AdvanceRollout,
    ApplyPlan,
    ConfirmPlan,
    JudgeRollout,
    PauseRollout,
    ResumeRollout,
    RolloutAdvanced,
    RolloutJudged,
    RolloutPaused,
    RolloutPlanned,
    RolloutResumed,
    RolloutStepStarted,
    Served,
)
from lockgate.delivery.rollouts.asked import Passed, passed_over
from lockgate.delivery.rollouts.policy import EndpointSettings, RolloutPolicy
from lockgate.delivery.rollouts.verdict import Verdict, judge
from lockgate.delivery.state import (
    ENDPOINT,
    ENVIRONMENT,
    ON_A_STEP,
    ROLLOUT,
    SETTINGS,
    EndpointState,
    EnvironmentState,
    Rollout,
    RolloutState,
    release_key,
)
from lockgate.delivery.way_back import capture_of, publish, served_of, take_back, unknown_endpoint
from lockgate.governance.policies.policy import StageTerms
from lockgate.traffic.capture import CaptureMode
from lockgate.traffic.plan import FLIP_PATIENCE_S


def settings_of(docs: Docs, endpoint: str) -> EndpointSettings:
    """How an endpoint is served; the defaults when nobody said."""
    known = docs.get(SETTINGS, endpoint)
    return EndpointSettings() if known is None else known.settings


def begin(
    endpoint: EndpointState, settings: EndpointSettings, policy: RolloutPolicy, release: int, served: Served
) -> RolloutPlanned:
    """What a release that follows another one records beside its start."""
    assert endpoint.live is not None
    return RolloutPlanned(
        endpoint=endpoint.endpoint,
        release=release,
        candidate=served,
        control=endpoint.live.served,
        policy=policy,
        salt=digest_of([endpoint.endpoint, release])[7:39],
        # A verdict rests on what is captured, so a rollout captures whatever the endpoint does otherwise.
        capture="scores" if settings.capture == "off" else settings.capture,
    )


def step_plan(
    environment: EnvironmentState,
    endpoint: EndpointState,
    rollout: RolloutState | RolloutPlanned,
    step: int,
    generation: int,
    patience_s: float = FLIP_PATIENCE_S,
) -> ApplyPlan:
    """The effect that brings a target to one step of a rollout."""
    chosen = rollout.policy.steps[step]
    shadowing = chosen.stage == "shadow"
    return ApplyPlan(
        subject=endpoint.endpoint,
        fence=generation,
        target=environment.target,
        live=rollout.control,
        previous=served_of(endpoint.previous),
        fallback=endpoint.fallback,
        patience_s=patience_s,
        canary=rollout.candidate,
        weight=0 if shadowing else chosen.weight,
        shadow=rollout.candidate if shadowing else None,
        salt=rollout.salt,
        capture=rollout.capture,
        adopted=endpoint.adopted,
    )


def standing_plan(
    environment: EnvironmentState,
    endpoint: EndpointState,
    settings: EndpointSettings,
    rollout: RolloutState | None,
) -> ApplyPlan:
    """The plan a target should be at when nothing is being changed; for one that lost it."""
    underway = endpoint.rollout
    if underway is not None and rollout is not None and rollout.run is not None:
        return step_plan(environment, endpoint, rollout, rollout.run.step, endpoint.generation)
    live, previous = served_of(endpoint.live), served_of(endpoint.previous)
    return publish(environment, endpoint, endpoint.generation, live, previous, settings.capture)


def step_served(endpoint: EndpointState, rollout: RolloutState, generation: int) -> RolloutStepStarted:
    """The step a rollout was heading for is seen to be served."""
    step = rollout.policy.steps[rollout.heading]
    return RolloutStepStarted(
        endpoint=endpoint.endpoint,
        release=rollout.release,
        step=rollout.heading,
        stage=step.stage,
        weight=step.weight,
        generation=generation,
    )


def needs_rollout(
    command: ConfirmPlan | JudgeRollout | PauseRollout | ResumeRollout | AdvanceRollout, docs: Docs
) -> tuple[DocRef, ...]:
    """The endpoint, its environment and settings, and the rollout that is under way there."""
    ref = DocRef(ENDPOINT.name, command.endpoint)
    environment = parse_endpoint(command.endpoint).environment
    refs = [ref, DocRef(ENVIRONMENT.name, environment), DocRef(SETTINGS.name, command.endpoint)]
    endpoint = docs.get(ENDPOINT, command.endpoint) if docs.has(ref) else None
    if endpoint is not None and endpoint.rollout is not None:
        refs.append(DocRef(ROLLOUT.name, release_key(endpoint.endpoint, endpoint.rollout.release)))
    return tuple(refs)


def rollout_of(docs: Docs, endpoint: EndpointState) -> tuple[Rollout, RolloutState] | None:
    """The rollout by steps that is under way on an endpoint."""
    underway = endpoint.rollout
    if underway is None or underway.strategy != "canary" or not underway.underway:
        return None
    rollout = docs.get(ROLLOUT, release_key(endpoint.endpoint, underway.release))
    return None if rollout is None else (underway, rollout)


def judge_rollout(docs: Docs, command: JudgeRollout, context: Context) -> Decision | Refusal:
    """Act on what was seen of a step. A report about another step, or another release, is old news."""
    endpoint = docs.get(ENDPOINT, command.endpoint)
    environment = docs.get(ENVIRONMENT, parse_endpoint(command.endpoint).environment)
    found = None if endpoint is None else rollout_of(docs, endpoint)
    if endpoint is None or environment is None or found is None:
        return Decision(())
    underway, rollout = found
    run = rollout.run
    here = run is not None and (underway.release, run.step) == (command.release, command.step)
    if not here or underway.state not in ON_A_STEP:
        return Decision(())
    verdict = judge(command.look, rollout.policy, command.step)
    told: tuple[Event, ...] = ()
    if _is_news(rollout, command.step, verdict):
        told = (
            RolloutJudged(
                endpoint=command.endpoint, release=command.release, step=command.step, verdict=verdict
            ),
        )
    if verdict.outcome == "fail":
        capture = settings_of(docs, command.endpoint).capture
        back = take_back(environment, endpoint, f"verdict: {verdict.reason}", capture)
        return Decision(told + back.events, back.effects)
    if verdict.outcome == "void" and underway.state != "paused":
        held = RolloutPaused(endpoint=command.endpoint, release=command.release, reason=verdict.reason)
        return Decision((*told, held))
    if not passes(rollout, underway, verdict, context.now):
        return Decision(told)
    capture = capture_of(docs, command.endpoint)
    onward = _onward(environment, endpoint, rollout, command.step + 1, overridden="", capture=capture)
    return Decision(told + onward.events, onward.effects)


def passes(rollout: RolloutState, underway: Rollout, verdict: Verdict, now: Micros) -> bool:
    """Whether a rollout may leave its step forward: proven, baked, and not held."""
    run = rollout.run
    if run is None or verdict.outcome != "pass" or underway.state == "paused":
        return False
    return now - run.started_at >= rollout.policy.steps[run.step].bake_s * 1_000_000


def worth_telling(rollout: RolloutState, underway: Rollout, verdict: Verdict, now: Micros) -> bool:
    """Whether reporting what led to this verdict would change anything; looks that change nothing stay untold."""
    run = rollout.run
    changed = run is not None and _is_news(rollout, run.step, verdict)
    unheld = verdict.outcome == "void" and underway.state != "paused"
    return changed or unheld or verdict.outcome == "fail" or passes(rollout, underway, verdict, now)


def _is_news(rollout: RolloutState, step: int, verdict: Verdict) -> bool:
    """Whether a verdict says something else than the last one: another outcome, or that it waits for something else.

    Only that; its figures change with every request.
    """
    known, min_units = rollout.verdict, rollout.policy.steps[step].min_units
    return known is None or _gist(known, min_units) != _gist(verdict, min_units)


def _gist(verdict: Verdict, min_units: int) -> tuple[str, tuple[str, ...] | None]:
    """The outcome, and the guards without proof once enough was seen to ask for it."""
    asked = verdict.outcome == "continue" and verdict.n_canary >= min_units
    waiting = tuple(guard.guard for guard in verdict.guards if guard.outcome == "continue")
    return verdict.outcome, waiting if asked else None


def _onward(
    environment: EnvironmentState,
    endpoint: EndpointState,
    rollout: RolloutState,
    step: int,
    *,
    overridden: str,
    capture: CaptureMode,
) -> Decision:
    """To step `step`; past the last one the new version goes live and what was live is the way back."""
    generation = endpoint.generation + 1
    final = step >= len(rollout.policy.steps)
    advanced = RolloutAdvanced(
        endpoint=endpoint.endpoint,
        release=rollout.release,
        step=step,
        final=final,
        generation=generation,
        overridden=overridden,
    )
    if final:
        effect = publish(environment, endpoint, generation, rollout.candidate, rollout.control, capture)
    else:
        effect = step_plan(environment, endpoint, rollout, step, generation)
    return Decision((advanced,), (effect,))


def pause_rollout(docs: Docs, command: PauseRollout, context: Context) -> Decision | Refusal:
    found = _steered(docs, command.endpoint)
    if isinstance(found, Refusal):
        return found
    _, underway, rollout = found
    if underway.state == "paused":
        return Decision(())
    reason = f"{context.actor}: {command.reason}" if command.reason else f"by {context.actor}"
    return Decision((RolloutPaused(endpoint=command.endpoint, release=rollout.release, reason=reason),))


def resume_rollout(docs: Docs, command: ResumeRollout, context: Context) -> Decision | Refusal:
    found = _steered(docs, command.endpoint)
    if isinstance(found, Refusal):
        return found
    _, underway, rollout = found
    if underway.state != "paused" or rollout.run is None:
        return Decision(())
    resumed = RolloutResumed(endpoint=command.endpoint, release=rollout.release, stage=rollout.run.stage)
    return Decision((resumed,))


def _steered(docs: Docs, name: str) -> tuple[EndpointState, Rollout, RolloutState] | Refusal:
    """A rollout that stands on a step, where people may steer it."""
    endpoint = docs.get(ENDPOINT, name)
    if endpoint is None:
        return unknown_endpoint(name)
    found = rollout_of(docs, endpoint)
    if found is None:
        return refuse(
            Reason(
                rule="delivery.no-rollout",
                message=f"no rollout is under way on {name}",
                measured=endpoint.rollout.state if endpoint.rollout else "none",
                remedy=f"lockgate status {name}",
            )
        )
    underway, rollout = found
    if underway.state not in ON_A_STEP:
        return refuse(
            Reason(
                rule="delivery.rollout-moving",
                message=f"the rollout on {name} is between two steps",
                measured=underway.state,
                remedy=f"try again when the target serves the next one: lockgate rollout show {name}",
            ),
            waiting=True,
        )
    return endpoint, underway, rollout


def stages_left_out(
    docs: Docs, command: AdvanceRollout, endpoint: EndpointState, asked: tuple[StageTerms, ...], now: Micros
) -> list[Reason]:
    """What the policy asks of a rollout on its way and a move by hand would leave out, by the plan it began with."""
    found = rollout_of(docs, endpoint)
    if found is None or found[1].run is None:
        return []
    rollout, runs = found[1], found[1].runs
    ends = [run.started_at for run in runs[1:]] + [now]
    seen = rollout.verdict.n_canary if rollout.verdict else 0
    served = [
        Passed(run.stage, (end - run.started_at) / 1_000_000, seen)
        for run, end in zip(runs, ends, strict=True)
    ]
    to = len(rollout.policy.steps) if command.full else runs[-1].step + 1
    environment = parse_endpoint(endpoint.endpoint).environment
    return passed_over(rollout.policy, served, to, asked, environment=environment)


def advance_rollout(
    docs: Docs, command: AdvanceRollout, context: Context, standing: list[Reason]
) -> Decision | Refusal:
    """Move on over the statistics; everything else that a promotion asks for must still hold (`standing`)."""
    found = _steered(docs, command.endpoint)
    if isinstance(found, Refusal):
        return found
    endpoint, _, rollout = found
    run = rollout.run
    if run is None or (rollout.release, run.step) != (command.release, command.step):
        return Decision(())
    if not command.reason.strip():
        return refuse(
            Reason(
                rule="delivery.override-reason",
                message="moving a rollout on over its statistics needs a reason",
                remedy='add --reason "..."',
            )
        )
    if standing:
        return Refusal(reasons=tuple(standing))
    environment = docs.get(ENVIRONMENT, parse_endpoint(command.endpoint).environment)
    assert environment is not None
    step = len(rollout.policy.steps) if command.full else run.step + 1
    why, capture = f"{context.actor}: {command.reason}", capture_of(docs, command.endpoint)
    return _onward(environment, endpoint, rollout, step, overridden=why, capture=capture)
