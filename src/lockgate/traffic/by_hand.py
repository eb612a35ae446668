"""The way back without the hub: from what a data plane is seen to serve to the plan that takes it back.

Only the control file and what the workers report are asked; no journal, no policy, no package that the plan does not
name. Whoever may write the run directory may do it. The hub adopts it as an event when it is back.
"""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, short
from lockgate.core.messages import Reason, Refusal, refuse
from lockgate.traffic.observed import Observed
from lockgate.traffic.plan import N_SLOTS, LocalOrigin, Plan, Route


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """Who goes back by hand, and why; see `LocalOrigin`."""

    by: str
    account: str
    at: Micros
    reason: str
    incident: str = ""


def taken_back(seen: Observed, hand: Hand) -> Plan | Refusal:
    """The next plan of the endpoint: all traffic to what a rollback leads to, nothing unloaded.

    While a release is on its way that is what is live; otherwise live and previous change places, so that going back
    twice leads to where one was. Without a living worker the plan waits in the control file for the next one.
    """
    plan = seen.plan
    if plan is None:
        return refuse(
            Reason(
                rule="traffic.no-plan",
                message=f"no plan of {seen.endpoint} is in force here",
                remedy="name the run directory of the data plane: --run DIR",
            )
        )
    underway = _on_its_way(plan)
    to = plan.live if underway else plan.previous
    left = underway or plan.live
    if to is None or left is None:
        return refuse(
            Reason(
                rule="delivery.nothing-before",
                message=f"the plan of {seen.endpoint} names no version to go back to",
                measured=f"plan {plan.generation}",
                remedy="release another version when the hub is back: lockgate promote",
            )
        )
    reasons = tuple(
        Reason(
            rule="traffic.not-loaded",
            message=f"worker {worker.pid} has not loaded {named(plan, to)}",
            measured=worker.state,
            remedy="try again in a moment; a worker that cannot load it says why: GET /endpoints",
        )
        for worker in seen.workers
        if worker.state != "gone" and to not in worker.loaded
    )
    if reasons:
        return Refusal(reasons=reasons)
    return msgspec.structs.replace(
        plan,
        generation=plan.generation + 1,
        routes=(Route(package=to, weight=N_SLOTS),),
        live=to,
        previous=plan.previous if underway else plan.live,
        shadow=None,
        drill=None,
        origin="local",
        local=LocalOrigin(
            by=hand.by,
            account=hand.account,
            at=hand.at,
            reason=hand.reason,
            left=left,
            incident=hand.incident,
        ),
    )


def _on_its_way(plan: Plan) -> Digest | None:
    """A package beside the live one that answers a share, or gets copies."""
    if plan.live is None:
        return None
    others = (*(route.package for route in plan.routes), plan.shadow)
    return next((one for one in others if one is not None and one != plan.live), None)


def named(plan: Plan, package: Digest) -> str:
    """The version of a package as the plan calls it."""
    ref = plan.package(package)
    return short(package) if ref is None else ref.version
