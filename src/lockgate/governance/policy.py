"""The tier policy: which gates a version must pass and how many people must agree, by tier and by how
sensitive the environment is. A policy is plain data, named by its digest; editing it makes approvals stale.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lockgate.core.digests import Digest, digest_of
from lockgate.registry.messages import Tier

Sensitivity = Literal["open", "guarded", "production"]


class TierRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tier asks for.

    Attributes:
        gates: gates whose evidence a version needs to become `validated`.
        relative: per sensitivity, gates that compare with what runs in the environment.
        approvals: per sensitivity, how many people other than the author must agree.
        evidence_max_age_days: evidence older than this no longer counts for a promotion.
    """

    gates: tuple[str, ...]
    relative: dict[Sensitivity, tuple[str, ...]] = {}
    approvals: dict[Sensitivity, int] = {}
    evidence_max_age_days: int


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A versioned set of tier rules."""

    schema: Literal["lockgate.policy/1"] = "lockgate.policy/1"
    name: str
    version: int
    tiers: dict[Tier, TierRule]

    @property
    def digest(self) -> Digest:
        return digest_of(self)

    def rule(self, tier: Tier) -> TierRule:
        return self.tiers[tier]
