"""What is asked of a rollout: the stages that the policy of the tier wants, and to watch no less than it did before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lockgate.core.messages import Reason
from lockgate.delivery.rollouts.policy import Guard, GuardName, RolloutPolicy, RolloutStep, Stage
from lockgate.governance.policies.policy import StageTerms
from lockgate.traffic.plan import N_SLOTS

_HOUR_S = 3600.0


class Passed(NamedTuple):
    """A step that a rollout has served: for how long, and how many units were seen to meet the new version."""

    stage: Stage
    lasted_s: float
    n_units: int


def rollout_reasons(
    planned: RolloutPolicy | None, asked: Iterable[StageTerms], *, version: str, endpoint: str
) -> list[Reason]:
    """What is missing in the way that a release would go, one reason for each stage.

    Args:
        planned: None for a release at once.
        endpoint: as people write it.
    """
    environment = endpoint.partition("/")[0]
    reasons = []
    for terms in asked:
        there = [] if planned is None else [step for step in planned.steps if step.stage == terms.stage]
        blind = planned is not None and terms.stage != "shadow" and not planned.guards
        if _suffices(terms, there) and not blind:
            continue
        found = ", ".join(_said(step) for step in there) or f"no {terms.stage}"
        reasons.append(
            Reason(
                rule="governance.rollout",
                message=f"{environment} asks for a {terms.text} before everybody is answered by {version}",
                measured="it releases at once"
                if planned is None
                else f"{found}, without any guard"
                if blind
                else found,
                limit=terms.text,
                remedy=f'in lockgate.toml, under [endpoints."{endpoint}".rollout], let steps hold {_written(terms)}'
                f"{' and guards watch, as errors = {}' if blind else ''}; then lockgate declare",
            )
        )
    return reasons


def passed_over(
    planned: RolloutPolicy,
    served: Sequence[Passed],
    to: int,
    asked: Iterable[StageTerms],
    *,
    environment: str,
) -> list[Reason]:
    """What of the asked stages would be left out, were a rollout moved on to step `to` by hand.

    Args:
        served: the steps so far, the one it stands on last.
        to: the number of steps, for all of the traffic.
    """
    reasons = []
    for terms in asked:
        past = [one for one in served if one.stage == terms.stage]
        ahead = [step for step in planned.steps[to:] if step.stage == terms.stage]
        lasted_s = sum(one.lasted_s for one in past) + sum(step.bake_s for step in ahead)
        met = past[-1].n_units if past and past[-1] is served[-1] else terms.min_units
        enough = len(past) + len(ahead) >= terms.levels and lasted_s >= terms.min_hours * _HOUR_S
        # That nobody was seen at all is a statistic, which a person may pass over; a number of units is not.
        if enough and (terms.min_units == 1 or met >= terms.min_units):
            continue
        reasons.append(
            Reason(
                rule="governance.rollout",
                message=f"{environment} asks for a {terms.text}; the statistics may be passed over, that may not",
                measured=f"{len(past)} steps so far, {lasted_s / _HOUR_S:.1f} h, {met} units in this one",
                limit=terms.text,
                remedy="wait, or take it back; in an emergency lockgate break-glass",
            )
        )
    return reasons


def _suffices(terms: StageTerms, steps: Sequence[RolloutStep]) -> bool:
    return (
        len(steps) >= terms.levels
        and (terms.stage != "canary" or steps[0].weight <= terms.max_share * N_SLOTS)
        and all(step.min_units >= terms.min_units for step in steps)
        and sum(step.bake_s for step in steps) >= terms.min_hours * _HOUR_S
    )


def _written(terms: StageTerms) -> str:
    """A step that would do, or the first of several, as lockgate.toml writes one."""
    share = {"shadow": 0.0, "canary": min(terms.max_share, 0.1), "soak": 1.0}[terms.stage]
    bake = f", bake_s = {terms.min_hours * _HOUR_S / terms.levels:.0f}" if terms.min_hours else ""
    step = f"{{ weight = {share:g}, min_units = {terms.min_units}{bake} }}"
    return f"{step} and {terms.levels - 1} more of bigger shares" if terms.levels > 1 else step


def loosened(before: RolloutPolicy | None, after: RolloutPolicy | None) -> list[str]:
    """In what releases would be watched less than before, one line each; empty when nowhere.

    What cannot be shown to watch as closely counts as less: another bound of what makes an event bad, for example,
    for a bound that every answer breaks shows nothing.
    """
    if before is None:
        return []
    if after is None:
        return [f"releases at once, not in {len(before.steps)} steps"]
    found = list(_fewer_steps(before.steps, after.steps))
    if after.alpha < before.alpha:
        found.append(f"alpha {after.alpha:g}, not {before.alpha:g}")
    for name, guard in sorted(before.guards.items()):
        if name not in after.guards:
            found.append(f"no guard of {name}")
        else:
            found += [f"guard of {name}: {line}" for line in _blunter(name, guard, after.guards[name])]
    return found


def _blunter(name: GuardName, old: Guard, new: Guard) -> Iterator[str]:
    for what, was, is_now in (
        ("floor", old.floor, new.floor),
        ("absolute", old.absolute, new.absolute),
        ("min_events", old.min_events, new.min_events),
    ):
        if is_now > was:
            yield f"{what} {is_now:g}, not {was:g}"
    if old.margin is not None and (new.margin is None or new.margin > old.margin):
        yield f"margin {'none' if new.margin is None else f'{new.margin:g}'}, not {old.margin:g}"
    if name != "errors" and new.bound != old.bound:
        yield f"bound {new.bound:g}, not {old.bound:g}"


def _fewer_steps(old: tuple[RolloutStep, ...], new: tuple[RolloutStep, ...]) -> Iterator[str]:
    """Each old step has one of its own, in the same order: of its stage, no bigger, no shorter, with as many units.

    And the last share before everybody is no smaller, so that it is not from a handful to all.
    """
    left = iter(new)
    for step in old:
        if not any(_stands_for(other, step) for other in left):
            yield f"no {_said(step)}"
            break
    biggest = [max((one.weight for one in steps if one.stage == "canary"), default=0) for steps in (old, new)]
    if biggest[1] < biggest[0]:
        yield f"at most {biggest[1] / 100:g} % before everybody, not {biggest[0] / 100:g} %"


def _stands_for(new: RolloutStep, old: RolloutStep) -> bool:
    return (
        new.stage == old.stage
        and new.weight <= old.weight
        and new.min_units >= old.min_units
        and new.bake_s >= old.bake_s
    )


def _said(step: RolloutStep) -> str:
    share = "" if step.stage == "shadow" else f" of {step.weight / 100:g} %"
    return f"{step.stage}{share} for {step.bake_s:g} s and {step.min_units} units"
