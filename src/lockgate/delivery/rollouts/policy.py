"""How a release gets to all of the traffic: steps, and the guards that are watched on the way.

Plain data, declared per endpoint in `lockgate.toml` and fixed for each release when it starts. A step is left
when it has lasted long enough, enough was seen, and every guard that needs proof has it; it is left backwards as
soon as one guard proves harm. What was not seen proves nothing: without traffic a rollout stays where it is.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lockgate.traffic.capture import CaptureMode

Stage = Literal["shadow", "canary", "soak"]
GuardName = Literal["errors", "latency", "labels"]


class RolloutStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One level of the lock.

    Attributes:
        stage: `shadow` answers nobody, `canary` answers its share, `soak` answers everybody while the version
            before is still called live.
        weight: slots of 10,000 that the new version answers: 0 in shadow, 1 to 9,999 as canary, 10,000 in soak.
        min_units: routing keys (requests, where they have none) that must have met the new version in this step;
            in shadow, pairs of answers.
        bake_s: how long the step lasts at least, in seconds.
    """

    stage: Stage
    weight: int
    min_units: int
    bake_s: float


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rate of bad events that must not be worse under the new version.

    Attributes:
        floor: harm smaller than this is not worth an abort, as a share of the rate before (0.1: a tenth more).
        margin: how much worse is still tolerated when a step is passed, as a share of the rate before; proven, not
            seen. None asks for no proof: the guard only aborts.
        absolute: a difference of the two rates that is tolerated in any case (0.001: one in a thousand); it lets
            a step pass when bad events are too rare for the ratio to be known.
        min_events: bad events of both versions together before the guard may abort.
        bound: what makes an event bad: microseconds for `latency`, distance of the answer from what
            turned out true for `labels`; not used for `errors`.
    """

    floor: float = 0.1
    margin: float | None = 0.25
    absolute: float = 0.001
    min_events: int = 20
    bound: float = 0.0

    def shows(self, name: GuardName) -> str:
        """What this guard would show of a new version, in words."""
        match name:
            case "errors":
                return "it fails to answer where the version before answers"
            case "latency":
                return f"more of its answers take over {self.bound / 1000:g} ms"
            case "labels":
                return f"more of its answers turn out wrong by over {self.bound:g}"


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way of every release of an endpoint that follows another one.

    Attributes:
        alpha: the chance, over the whole rollout and all guards together, that a harmless version is aborted.
    """

    steps: tuple[RolloutStep, ...]
    guards: dict[GuardName, Guard]
    alpha: float = 0.05


class EndpointSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an endpoint is served, beside what it answers without a model.

    Attributes:
        features: whether callers send all features themselves, or entity keys under which they are looked up.
        rollout: None releases at once.
    """

    features: Literal["request", "online"] = "request"
    capture: CaptureMode = "off"
    rollout: RolloutPolicy | None = None


def complaints(policy: RolloutPolicy) -> tuple[str, ...]:
    """What is wrong with a policy, one sentence each; empty when it can be followed."""
    found = []
    if not policy.steps:
        found.append("a rollout needs at least one step")
    if not 0 < policy.alpha <= 0.5:
        found.append(f"alpha is {policy.alpha:g}: give a share above 0 and at most 0.5")
    stages = [step.stage for step in policy.steps]
    if "soak" in stages and "canary" not in stages:
        found.append(
            "a soak needs a canary before it: there is nothing else that its rates could be held against"
        )
    weight = -1
    for number, step in enumerate(policy.steps, start=1):
        low, high = _WEIGHTS[step.stage]
        if not low <= step.weight <= high:
            found.append(f"step {number} is {step.stage} and has {step.weight} slots: give {low} to {high}")
        if step.weight <= weight and step.stage != "shadow":
            found.append(f"step {number} does not raise the weight: a rollout goes up")
        if step.stage == "shadow" and number > 1:
            found.append(f"step {number} is shadow: only the first step can be")
        if step.min_units < 1 or not 0 <= step.bake_s <= _MAX_BAKE_S:
            found.append(f"step {number} needs min_units of 1 or more, and bake_s of 0 to {_MAX_BAKE_S:.0f}")
        weight = max(weight, step.weight)
    for name, guard in policy.guards.items():
        figures = (guard.floor, guard.absolute, guard.bound, guard.min_events, guard.margin or 0)
        if not all(0 <= figure < _ENDLESS for figure in figures) or guard.margin == 0:
            found.append(f"guard {name} has a negative or endless figure, or a margin of nothing")
        if guard.absolute >= 1:
            found.append(f"guard {name} tolerates any difference of rates: absolute is a share below 1")
        if name != "errors" and guard.bound == 0:
            found.append(f"guard {name} needs a bound: what makes an event bad")
    return tuple(found)


_ENDLESS = 1e15
_MAX_BAKE_S = 31 * 24 * 3600.0
_WEIGHTS: dict[Stage, tuple[int, int]] = {"shadow": (0, 0), "canary": (1, 9_999), "soak": (10_000, 10_000)}
