"""From what was decided to what a data plane is told."""

from __future__ import annotations

from lockgate.delivery.messages import ApplyPlan, Served
from lockgate.traffic.plan import N_SLOTS, PackageRef, Plan, Route


def plan_of(effect: ApplyPlan) -> Plan:
    """The plan that an effect asks for: all slots to the live version, the previous one kept loaded."""
    kept = [served for served in (effect.live, effect.previous) if served is not None]
    packages = {served.package: _ref(served) for served in reversed(kept)}
    live = effect.live.package if effect.live else None
    previous = effect.previous.package if effect.previous else None
    return Plan(
        endpoint=effect.subject,
        generation=effect.fence,
        packages=tuple(packages.values()),
        routes=() if live is None else (Route(package=live, weight=N_SLOTS),),
        live=live,
        previous=None if previous == live else previous,
        salt=effect.subject[:64],
        fallback=effect.fallback,
    )


def _ref(served: Served) -> PackageRef:
    return PackageRef(version=served.version, digest=served.package, signatures=served.signatures)
