"""What delivery needs from outside: somewhere that serves packages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lockgate.traffic.observed import Observed
from lockgate.traffic.plan import Plan


class Target(Protocol):
    """Somewhere that serves endpoints by plan.

    Safe to call twice; a plan with an older generation than the one in force is refused, whoever sends it. What
    a target was told and what it was seen to do are different things: only `observe` counts.
    """

    name: str

    def apply(self, plan: Plan, *, adopted: int = 0) -> None:
        """Publish a plan, durably. Returns at once; workers follow.

        Args:
            adopted: the newest plan of local origin that whoever decided this plan knew of.

        Raises:
            StalePlan: it is too old.
            LocalPlanInForce: somebody went back without the hub, and that is not adopted yet.
        """
        ...

    def observe(self, endpoint: str) -> Observed:
        """What the workers of the target do at this moment."""
        ...

    def wait(self, endpoint: str, generation: int, timeout_s: float) -> Observed:
        """Observe until every living worker has settled on `generation`, or the time is up."""
        ...

    def distrust(self, key_ids: Sequence[str]) -> None:
        """From now on load nothing that only these keys have signed. Durable; what is loaded goes on answering.

        The list is whole each time; a key that was on it is never left out.
        """
        ...
