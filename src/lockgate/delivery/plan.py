"""From what was decided to what a data plane is told; and back, when somebody told it something without the hub."""

from __future__ import annotations

from lockgate.core.digests import Digest
from lockgate.delivery.messages import AdoptLocalPlan, ApplyPlan, ByHand, Served
from lockgate.traffic.by_hand import named
from lockgate.traffic.plan import N_SLOTS, LocalOrigin, PackageRef, Plan, Route


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


def is_unadopted(plan: Plan | None, adopted: int) -> bool:
    """Whether what is in force was written without the hub, after all that the hub knows of."""
    return plan is not None and plan.origin == "local" and plan.generation > adopted


def by_hand(plan: Plan | None, adopted: int) -> str:
    """What is in force without the hub having adopted it, in one line; empty when there is no such thing."""
    if plan is None or not is_unadopted(plan, adopted):
        return ""
    found = adoption_of(plan)
    return f"plan {found.generation} was written without the hub, {found.hand}; it is not adopted yet"


def adoption_of(plan: Plan) -> AdoptLocalPlan:
    """The command that takes over a plan of local origin. Whoever finds the same plan makes the same command."""
    origin = plan.local if isinstance(plan.local, LocalOrigin) else None
    whole = plan.live if plan.live is not None and plan.weight_of(plan.live) == N_SLOTS else None
    hand = ByHand(by="", account="", at=0, reason="")
    if origin is not None:
        hand = ByHand(
            by=origin.by,
            account=origin.account,
            at=origin.at,
            reason=origin.reason,
            incident=origin.incident,
        )
    return AdoptLocalPlan(
        id=f"adopt:{plan.digest}:{plan.generation}",
        endpoint=plan.endpoint,
        generation=plan.generation,
        answers=whole if plan.shadow is None else None,
        version=_called(plan, plan.live),
        left=_called(plan, origin.left if origin else None),
        hand=hand,
    )


def _called(plan: Plan, package: Digest | None) -> str:
    return "" if package is None else named(plan, package)


def _ref(served: Served) -> PackageRef:
    return PackageRef(version=served.version, digest=served.package, signatures=served.signatures)
