"""Ways around the rules that somebody might look for, each of them closed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from governance_rig import ENDPOINT, V1, V2, bring, policy, ready, rules

from lockgate.access.roles import Grant
from lockgate.core.messages import Command, Receipt
from lockgate.core.names import BadName
from lockgate.delivery.messages import (
    AdvanceRollout,
    DeclareEnvironment,
    DrillFigures,
    FinishDrill,
    ReleaseInEmergency,
    StartDrill,
)
from lockgate.governance.messages import (
    AdoptPolicy,
    ApproveVersion,
    BreakGlass,
    CloseReview,
    ConsentToPolicy,
    RequestWaiver,
    SecondBreakGlass,
    ValidateVersion,
)
from lockgate.governance.policies.file import parse_policy
from lockgate.governance.policies.policy import BreakGlassTerms, Policy, PolicyInvalid, TierRule, WaiverTerms
from lockgate.hub.authority import Session
from lockgate.hub.messages import ExplainVersion, Queue, ReplayPolicy, Standing, VerifyAudit
from lockgate.registry.messages import DeclareModel, LiftQuarantine, QuarantineVersion, RevokeKey
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted, named_digest, rules_of

DRILL = DrillFigures(
    n_flips=5,
    n_requests=100,
    n_failed=0,
    n_wrong=0,
    n_workers=2,
    first_p50_us=1000,
    first_p99_us=2000,
    all_p50_us=1500,
    all_p99_us=2500,
)


def proven(world: HubWorld, actor: str, *grants: Grant, **more: Any) -> Any:
    return world.hub_for(Session(actor=actor, grants=grants, claimed=False, **more))


def live_twice(story: Story) -> None:
    accepted(story.approve(V1))
    accepted(story.promote(V1, "prod"))
    accepted(story.confirm("prod"))
    bring(story, "two", V2)
    accepted(story.approve(V2))
    accepted(story.promote(V2, "prod"))
    accepted(story.confirm("prod"))


def test_nothing_is_validated_that_nobody_judged_whatever_the_policy_asks_for(world: HubWorld) -> None:
    story = Story(world.hub)
    story.found(policy=policy(gates=(), relative={}))
    story.train("one")
    accepted(story.register("one"))
    refused = story.validate(V1)
    assert rules_of(refused) == ["gates.no-evidence"]
    assert refused.refusal is not None
    assert refused.refusal.reasons[0].remedy == f"lockgate judge {V1}"
    accepted(story.judge(V1))
    accepted(story.validate(V1))


def smash(story: Story) -> None:
    accepted(
        story.do(
            "ivy",
            BreakGlass(
                id=story.new_id(), model=MODEL_NAME, environment="prod", incident="I", reason="r", hours=4.0
            ),
        )
    )


def test_a_right_whose_review_is_closed_is_over(world: HubWorld) -> None:
    """Else a friend closes the review at once, and what is done with the right afterwards owes none."""
    story = ready(world, policy())
    live_twice(story)
    smash(story)
    named = {"model": MODEL_NAME, "environment": "prod", "number": 1}
    accepted(story.do("rita", CloseReview(id=story.new_id(), finding="fine", **named)))
    late = ReleaseInEmergency(id=story.new_id(), version=V1, environment="prod", number=1)
    assert rules_of(story.do("ivy", late)) == ["governance.break-glass-over"]
    second = SecondBreakGlass(id=story.new_id(), **named)
    assert rules_of(story.do("sam", second)) == ["governance.break-glass-over"]


def test_the_figures_of_a_drill_are_told_once(world: HubWorld) -> None:
    """Else a drill that failed is told anew as one that passed, or an old one as one of today."""
    story = ready(world, policy(drill_max_age_days={"production": 30}))
    live_twice(story)
    accepted(story.do("olga", StartDrill(id=story.new_id(), endpoint=ENDPOINT, n_flips=5)))
    bring(story, "three", f"{MODEL_NAME}@1.0.2")

    def finish(figures: DrillFigures) -> Receipt:
        return story.do("olga", FinishDrill(id=story.new_id(), endpoint=ENDPOINT, drill=1, figures=figures))

    accepted(finish(msgspec.structs.replace(DRILL, n_failed=1)))
    assert "governance.drill-age" in rules(story, f"{MODEL_NAME}@1.0.2")
    assert accepted(finish(DRILL)).events == ()
    assert "governance.drill-age" in rules(story, f"{MODEL_NAME}@1.0.2")


def test_a_machine_is_no_second_person(world: HubWorld) -> None:
    story = ready(world, policy())
    accepted(story.do("sam", QuarantineVersion(id=story.new_id(), version=V1, reason="odd")))
    robot = proven(world, "service:sam", Grant(role="security"), kind="service")
    lift = LiftQuarantine(id=story.new_id(), version=V1, reason="fine")
    assert rules_of(robot.execute(lift)) == ["registry.second-person"]


def test_a_machine_does_not_pass_over_the_statistics(world: HubWorld) -> None:
    story = ready(world, policy())
    move = AdvanceRollout(id=story.new_id(), endpoint=ENDPOINT, release=1, step=0, full=True, reason="hurry")
    robot = proven(world, "service:ci", Grant(role="ci"), kind="service")
    assert rules_of(robot.execute(move)) == ["governance.not-a-person"]


@pytest.mark.parametrize(
    ("role", "command"),
    [
        ("approver:risk", ConsentToPolicy(id="x", namespace="main", digest=named_digest("p"))),
        ("security", RevokeKey(id="x", key_id=named_digest("k"), reason="r")),
    ],
)
@pytest.mark.parametrize("bound", [{"tiers": ("low",)}, {"environments": ("dev",)}])
def test_what_concerns_every_tier_and_environment_takes_a_grant_over_them(
    world: HubWorld, role: str, command: Command, bound: dict[str, Any]
) -> None:
    story = ready(world, policy())
    narrow = proven(world, "rita", Grant(role=role, **bound))
    assert rules_of(narrow.execute(msgspec.structs.replace(command, id=story.new_id()))) == ["hub.permission"]
    wide = proven(world, "rita", Grant(role=role))
    assert "hub.permission" not in rules_of(wide.execute(command))


def _tiers(*names: str, **rule: Any) -> dict[Any, TierRule]:
    one = TierRule(gates=("perf.absolute",), evidence_max_age_days=7, **rule)
    return dict.fromkeys(names, one)


ALL = ("low", "moderate", "high", "critical")


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (Policy(name="p", version=1, tiers=_tiers("low")), "moderate"),
        (Policy(name="p", version=1, tiers=_tiers(*ALL, ticket={"production": "("})), "ticket"),
        (Policy(name="p", version=1, tiers=_tiers(*ALL, ticket={"production": "(OPS-.*)?"})), "ticket"),
        (
            Policy(name="p", version=1, tiers=_tiers(*ALL, waivers=WaiverTerms(max_days=float("inf")))),
            "max_days",
        ),
        (
            Policy(
                name="p",
                version=1,
                tiers=_tiers(*ALL),
                break_glass=BreakGlassTerms(review_hours=float("inf")),
            ),
            "review_hours",
        ),
    ],
    ids=["a tier is missing", "no expression", "asks for nothing", "for ever", "never reviewed"],
)
def test_a_policy_that_does_not_hold_together_is_not_adopted_by_whatever_door(
    world: HubWorld, wrong: Policy, place: str
) -> None:
    adopt = AdoptPolicy(id="a", namespace="main", policy=wrong)
    refused = world.hub("petra").execute(adopt)
    assert set(rules_of(refused)) == {"governance.policy-invalid"}
    assert refused.refusal is not None and place in refused.refusal.reasons[0].message


def test_what_would_be_under_half_a_policy_is_not_asked(world: HubWorld) -> None:
    story = ready(world, policy())
    half = Policy(name="p", version=1, tiers=_tiers("low"))
    for question in (
        Standing(version=V1, environment="prod", policy=half),
        ReplayPolicy(namespace="main", policy=half),
    ):
        with pytest.raises(PolicyInvalid):
            story.ask(question)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ticket.production = 'OPS-[0-9]+'", "ticket.production = '.*'"),
        ("waivers = { max_days = 7 }", "waivers = { max_days = inf }"),
        ("waivers = { max_days = 7 }", "waivers = { max_days = nan }"),
        ("review_hours = 72", "review_hours = inf"),
        ("at_least = -0.005", "at_least = -inf"),
    ],
)
def test_a_file_that_only_seems_to_ask_for_something_is_no_policy(old: str, new: str) -> None:
    text = """
schema = "lockgate.policy/2"
name = "p"
version = 1
break_glass = { max_hours = 4, review_hours = 72 }
""" + "".join(
        f"""
[tiers.{tier}]
gates = ["perf.absolute"]
limits = [{{ gate = "perf.absolute", metric = "auc", at_least = -0.005 }}]
ticket.production = 'OPS-[0-9]+'
waivers = {{ max_days = 7 }}
evidence_max_age_days = 7
"""
        for tier in ALL
    )
    parse_policy(text, where="policy.toml")
    with pytest.raises(PolicyInvalid):
        parse_policy(text.replace(old, new), where="policy.toml")


def judged_by(world: HubWorld, story: Story, actor: str, turn: object) -> Receipt:
    command = story.judging(V1, named_digest("package", "one"), turn=turn)
    receipt: Receipt = proven(world, actor, Grant(role="validator")).execute(command)
    return receipt


def test_whoever_made_a_version_does_not_judge_it(world: HubWorld) -> None:
    """Where names are proven; where they are only claimed, one person may well do everything up to there."""
    story = ready(world, policy())
    assert rules_of(judged_by(world, story, "ann", 1)) == ["governance.separation-of-duties"]
    validate = ValidateVersion(id=story.new_id(), version=V1)
    ann = proven(world, "ann", Grant(role="validator"))
    assert rules_of(ann.execute(validate)) == ["governance.separation-of-duties"]
    accepted(judged_by(world, story, "vic", 1))


def test_whoever_brought_the_evidence_does_not_approve_on_it(world: HubWorld) -> None:
    story = ready(world, policy())
    accepted(judged_by(world, story, "vic", 1))
    answer = story.ask(Standing(version=V1, environment="prod"))

    def approve(actor: str) -> Receipt:
        command = ApproveVersion(id=story.new_id(), version=V1, environment="prod", evidence_set=answer.bound)
        receipt: Receipt = proven(world, actor, Grant(role="approver:owner")).execute(command)
        return receipt

    assert rules_of(approve("vic")) == ["governance.separation-of-duties"]
    accepted(approve("bob"))


@pytest.mark.parametrize("environment", ["", "prod/main", "Prod"])
def test_what_names_no_environment_is_not_recorded(world: HubWorld, environment: str) -> None:
    """Else nobody bound to an environment is bound, and the queue cannot say what it is about."""
    story = ready(world, policy())
    for command in (
        BreakGlass(id="b", model=MODEL_NAME, environment=environment, incident="I", reason="r", hours=1.0),
        RequestWaiver(
            id="w",
            model=MODEL_NAME,
            versions="1.*",
            environment=environment,
            gate="perf.absolute",
            reason="r",
            control="c",
            ticket="t",
            until=world.clock.now() + 1,
        ),
        ApproveVersion(id="a", version=V1, environment=environment, evidence_set=named_digest("e")),
    ):
        with pytest.raises(BadName):
            story.do("bob", command)
    assert story.ask(Queue()).waiting is not None


def declare(world: HubWorld, actor: str, number: int, **change: Any) -> Receipt:
    """The model of the story as it is declared, but for what is said."""
    said: dict[str, Any] = {"tier": "high", "owner": "team", "purpose": "delays", "kpi": ""} | change
    command = DeclareModel(id=f"d{number}", model=MODEL_NAME, **said)
    receipt: Receipt = proven(world, actor, Grant(role="admin")).execute(command)
    return receipt


def kinds(receipt: Receipt) -> list[str]:
    return [event["type"] for event in accepted(receipt).events]


def test_an_admin_alone_makes_no_model_harmless(world: HubWorld) -> None:
    """A lower tier asks for fewer people: that is a laxer policy by another name."""
    story = ready(world, policy(), kpi="missed connections")
    assert kinds(declare(world, "petra", 1, tier="low", kpi="x")) == ["registry.lowering-proposed/1"]
    assert kinds(declare(world, "petra", 2, tier="low", kpi="x")) == []
    assert story.ask(ExplainVersion(version=V1)).model.tier == "high"
    assert kinds(declare(world, "paul", 3, tier="high")) == ["registry.lowering-proposed/1"]
    assert kinds(declare(world, "paul", 4, tier="low", kpi="x")) == ["registry.lowering-proposed/1"]
    agreed = ["registry.lowering-agreed/1", "registry.model-declared/2"]
    assert kinds(declare(world, "petra", 5, tier="low", kpi="x")) == agreed
    assert story.ask(ExplainVersion(version=V1)).model.tier == "low"
    assert kinds(declare(world, "petra", 6, tier="critical", kpi="x")) == ["registry.model-declared/2"]
    assert kinds(declare(world, "petra", 7, tier="high", kpi="x")) == ["registry.lowering-proposed/1"]
    assert kinds(declare(world, "paul", 8, tier="high", kpi="x")) == agreed
    assert kinds(declare(world, "petra", 9, tier="critical", kpi="x")) == ["registry.model-declared/2"]
    again = declare(world, "paul", 10, tier="high", kpi="x")
    assert kinds(again) == ["registry.lowering-proposed/1"], (
        "what was agreed to once is not agreed to for ever"
    )
    assert story.ask(VerifyAudit()).ok


@pytest.mark.parametrize("change", [{"sensitivity": "open"}, {"sensitivity": "guarded"}, {"order": 0}])
def test_an_admin_alone_makes_no_environment_harmless(world: HubWorld, change: dict[str, Any]) -> None:
    ready(world, policy())
    said: dict[str, Any] = {"order": 1, "sensitivity": "production", "target": "local", "trust": ("key",)}

    def send(actor: str, number: int) -> Receipt:
        command = DeclareEnvironment(id=f"e{number}", environment="prod", **(said | change))
        receipt: Receipt = proven(world, actor, Grant(role="admin")).execute(command)
        return receipt

    assert kinds(send("petra", 1)) == ["registry.lowering-proposed/1"]
    assert kinds(send("petra", 2)) == []
    assert kinds(send("paul", 3)) == ["registry.lowering-agreed/1", "delivery.environment-declared/1"]
