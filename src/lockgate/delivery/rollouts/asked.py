"""What is asked of a rollout: that it watches no less than the one declared before it."""

from __future__ import annotations

from collections.abc import Iterator

from lockgate.delivery.rollouts.policy import Guard, GuardName, RolloutPolicy, RolloutStep


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
