"""A policy of today over the world of `hub_world`, and a version that is ready but for what a test is about."""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.standing import StandingAnswer
from lockgate.governance.policies.policy import Policy
from lockgate.hub.messages import Standing
from lockgate.testing.hub_world import MODEL_NAME, POLICY, HubWorld, Story, accepted

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"
ENDPOINT = f"prod/{MODEL_NAME}"
STEPWISE = EndpointSettings(
    rollout=RolloutPolicy(
        steps=(RolloutStep(stage="canary", weight=1000, min_units=1, bake_s=0.0),),
        guards={"errors": Guard(), "labels": Guard(bound=0.5)},
    )
)


def policy(version: int = 1, *, rest: dict[str, Any] | None = None, **rule: Any) -> Policy:
    """The world's rules, one owner's approval in production, and what is given, for every tier."""
    tiers = {
        tier: msgspec.structs.replace(
            POLICY.rule(tier), people={}, **{"approvals": {"production": ("owner",)}, **rule}
        )
        for tier in POLICY.tiers
    }
    return Policy(name="today", version=version, tiers=tiers, **(rest or {}))


def ready(world: HubWorld, rules: Policy, *, name: object = "one", version: str = V1, **found: Any) -> Story:
    """A story in which a version is judged and live in dev."""
    story = Story(world.hub)
    story.found(policy=rules, **found)
    bring(story, name, version)
    return story


def bring(story: Story, name: object, version: str) -> None:
    """A package as far as it gets without people."""
    story.train(name)
    accepted(story.register(name))
    accepted(story.judge(version))
    accepted(story.validate(version))
    accepted(story.promote(version, "dev"))
    accepted(story.confirm("dev"))
    accepted(story.judge_for(version, "prod"))


def standing(story: Story, version: str = V1) -> StandingAnswer:
    answer: StandingAnswer = story.ask(Standing(version=version, environment="prod"))
    return answer


def rules(story: Story, version: str = V1) -> list[str]:
    return [reason.rule for reason in standing(story, version).reasons]
