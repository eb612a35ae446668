"""From what was decided to what a data plane is told."""

from __future__ import annotations

from lockgate.delivery.messages import ApplyPlan, Served
from lockgate.traffic.plan import N_SLOTS, PackageRef, Plan, Route


def plan_of(effect: ApplyPlan) -> Plan:
    """The plan that an effect asks for: a canary's share first, the rest to what is live, the way back kept loaded.

    With the canary in front, raising its weight only adds routing keys to it: nobody changes sides twice.
    """
    kept = [one for one in (effect.live, effect.canary, effect.shadow, effect.previous) if one is not None]
    packages = {served.package: _ref(served) for served in reversed(kept)}
    live = effect.live.package if effect.live else None
    previous = effect.previous.package if effect.previous else None
    shares = [
        (effect.canary.package if effect.canary else None, effect.weight),
        (live, N_SLOTS - effect.weight),
    ]
    return Plan(
        endpoint=effect.subject,
        generation=effect.fence,
        packages=tuple(packages.values()),
        routes=tuple(Route(package=one, weight=weight) for one, weight in shares if one and weight),
        live=live,
        previous=None if previous == live else previous,
        salt=effect.salt or effect.subject[:64],
        fallback=effect.fallback,
        shadow=effect.shadow.package if effect.shadow else None,
        capture=effect.capture,
    )


def brought_in(effect: ApplyPlan, plan: Plan | None) -> tuple[Served, ...]:
    """The packages of an effect that the plan in force does not name with the same signatures."""
    known = () if plan is None else plan.packages
    named = (effect.live, effect.canary, effect.shadow, effect.previous)
    return tuple(served for served in named if served is not None and _ref(served) not in known)


def _ref(served: Served) -> PackageRef:
    return PackageRef(version=served.version, digest=served.package, signatures=served.signatures)
