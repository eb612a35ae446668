from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.delivery.standing import StandingAnswer
from lockgate.governance.messages import (
    AdoptPolicy,
    ApproveVersion,
    ConsentToPolicy,
    DeclineVersion,
    RevokeApproval,
)
from lockgate.governance.policies.laxity import differing
from lockgate.governance.policies.policy import AnyPolicy, Limit, Policy
from lockgate.hub.kernel import LocalHub
from lockgate.hub.messages import ExplainVersion, PolicyInForce, Standing
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import (
    GATE,
    MODEL_NAME,
    POLICY,
    HubWorld,
    Story,
    accepted,
    named_digest,
    rules_of,
)

V1 = f"{MODEL_NAME}@1.0.0"


@pytest.fixture
def story(story: Story) -> Story:
    accepted(story.register("one"))
    return story


@pytest.fixture
def validated(story: Story) -> Story:
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    return story


def standing(story: Story, environment: str = "prod") -> StandingAnswer:
    answer: StandingAnswer = story.ask(Standing(version=V1, environment=environment))
    return answer


def adopt(story: Story, policy: AnyPolicy) -> Any:
    return story.do("petra", AdoptPolicy(id=story.new_id(), namespace="main", policy=policy))


def test_a_policy_is_adopted_once(story: Story) -> None:
    assert accepted(adopt(story, POLICY)).events == ()
    changed = msgspec.structs.replace(POLICY, version=2)
    (event,) = accepted(adopt(story, changed)).events
    assert event["digest"] == changed.digest != POLICY.digest


def test_a_name_and_version_of_a_policy_have_one_content(story: Story) -> None:
    """Else two policies are both called `test 1`, and an approval names the one that nobody reads any more."""
    tiers = {**POLICY.tiers, "high": msgspec.structs.replace(POLICY.tiers["high"], evidence_max_age_days=3)}
    edited = msgspec.structs.replace(POLICY, tiers=tiers)
    receipt = adopt(story, edited)
    assert rules_of(receipt) == ["governance.policy-version"]
    assert receipt.refusal is not None
    (reason,) = receipt.refusal.reasons
    assert "tiers.high.evidence_max_age_days" in reason.message
    assert "version = 2" in (reason.remedy or "")
    accepted(adopt(story, msgspec.structs.replace(edited, version=2)))
    accepted(adopt(story, msgspec.structs.replace(edited, name="other")))


def test_a_policy_of_another_shape_says_which_keys_differ() -> None:
    same = Policy(
        name=POLICY.name, version=POLICY.version, tiers={tier: POLICY.rule(tier) for tier in POLICY.tiers}
    )
    assert {key.partition(".")[0] for key in differing(POLICY, same)} >= {"schema", "kpi", "tiers"}
    assert differing(same, same) == []


def test_without_a_policy_nothing_is_validated(world: HubWorld) -> None:
    story = Story(world.hub)
    accepted(story.do("p", DeclareModel(id="m", model=MODEL_NAME, tier="low", owner="o", purpose="p")))
    accepted(story.register("one"))
    assert rules_of(story.validate(V1)) == ["governance.no-policy"]


def test_a_candidate_without_evidence_is_told_which_gate_is_missing(story: Story) -> None:
    receipt = story.validate(V1)
    assert receipt.refusal is not None
    (reason,) = receipt.refusal.reasons
    assert (reason.rule, reason.measured, reason.remedy) == ("perf.absolute", "none", f"lockgate judge {V1}")
    assert not receipt.refusal.waiting


@pytest.mark.parametrize(
    ("verdict", "severity", "passes"),
    [
        ("pass", "block", True),
        ("warn", "block", True),
        ("fail", "block", False),
        ("error", "block", False),
        ("pass", "warn", True),
        ("warn", "warn", True),
        ("fail", "warn", True),
        ("error", "warn", False),
    ],
)
def test_which_verdicts_let_a_version_through(
    story: Story, verdict: Any, severity: Any, passes: bool
) -> None:
    command = story.judging(V1, named_digest("package", "one"), verdict=verdict)
    lines = tuple(msgspec.structs.replace(line, severity=severity) for line in command.lines)
    accepted(story.do("eve", msgspec.structs.replace(command, lines=lines)))
    receipt = story.validate(V1)
    assert (receipt.refusal is None) == passes
    if receipt.refusal is not None:
        (reason,) = receipt.refusal.reasons
        assert (reason.rule, reason.measured, reason.limit) == ("perf.absolute:auc", "0.81", "0.70")
        assert reason.evidence == command.lines[0].digest


def test_a_gate_nobody_asked_for_still_blocks_when_it_fails(story: Story) -> None:
    command = story.judging(V1, named_digest("package", "one"))
    extra = msgspec.structs.replace(
        command.lines[0], gate="fairness", verdict="fail", digest=named_digest("extra")
    )
    accepted(story.do("eve", msgspec.structs.replace(command, lines=(*command.lines, extra))))
    assert rules_of(story.validate(V1)) == ["fairness:auc"]


def test_evidence_grows_too_old(world: HubWorld, story: Story) -> None:
    accepted(story.judge(V1))
    world.clock.advance(days=7.01)
    receipt = story.validate(V1)
    assert receipt.refusal is not None
    (reason,) = receipt.refusal.reasons
    assert (reason.rule, reason.measured, reason.limit) == ("governance.evidence-age", "7 days", "7 days")
    accepted(story.judge(V1, turn=1))
    accepted(story.validate(V1))


def test_validating_again_is_no_news_until_the_evidence_changes(validated: Story) -> None:
    assert accepted(validated.validate(V1)).events == ()
    accepted(validated.judge(V1, turn=2))
    assert len(accepted(validated.validate(V1)).events) == 1


def test_a_candidate_is_not_approved(story: Story) -> None:
    assert rules_of(story.approve(V1)) == ["registry.state"]


def test_the_author_does_not_approve(validated: Story) -> None:
    receipt = validated.approve(V1, actor="ann")
    assert rules_of(receipt) == ["governance.separation-of-duties"]
    assert receipt.refusal is not None
    assert not receipt.refusal.waiting


def test_an_approval_is_about_the_evidence_that_was_seen(validated: Story) -> None:
    seen = standing(validated).bound
    accepted(validated.judge_for(V1, "prod"))
    command = ApproveVersion(id="a", version=V1, environment="prod", evidence_set=seen)
    assert rules_of(validated.do("bob", command)) == ["governance.evidence-changed"]
    both = validated.do("ann", msgspec.structs.replace(command, id="b"))
    assert rules_of(both) == ["governance.separation-of-duties", "governance.evidence-changed"]


def test_the_same_approval_again_is_no_news(validated: Story) -> None:
    assert len(accepted(validated.approve(V1)).events) == 1
    assert accepted(validated.approve(V1)).events == ()
    assert len(accepted(validated.approve(V1, actor="cleo")).events) == 1
    assert standing(validated).standing == ("bob", "cleo")
    kept = validated.ask(ExplainVersion(version=V1)).approvals["prod"]
    assert [(one.approver, one.comment) for one in kept] == [("bob", "fine"), ("cleo", "fine")]


def test_new_evidence_makes_an_approval_stale_for_good(validated: Story) -> None:
    accepted(validated.approve(V1))
    assert standing(validated).standing == ("bob",)
    accepted(validated.judge(V1, turn=5))
    assert standing(validated).standing == ()
    (missing,) = [reason for reason in standing(validated).reasons if reason.rule == "governance.approval"]
    assert missing.measured == "0 of 1"
    assert "1 given on other evidence or policy no longer counts" in missing.message
    accepted(validated.approve(V1))
    assert standing(validated).standing == ("bob",)


def test_an_approval_that_was_taken_back_is_not_called_stale(validated: Story) -> None:
    accepted(validated.approve(V1))
    command = RevokeApproval(id="r", version=V1, environment="prod", reason="read it again")
    accepted(validated.do("bob", command))
    (missing,) = [reason for reason in standing(validated).reasons if reason.rule == "governance.approval"]
    assert missing.measured == "0 of 1" and "no longer" not in missing.message


def test_another_policy_makes_an_approval_stale(validated: Story) -> None:
    accepted(validated.approve(V1))
    accepted(adopt(validated, msgspec.structs.replace(POLICY, version=2)))
    assert standing(validated).standing == ()


def test_one_person_counts_once_however_often(world: HubWorld) -> None:
    story = Story(world.hub)
    story.found(tier="critical")
    accepted(story.register("one"))
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    accepted(story.approve(V1))
    accepted(story.judge(V1, turn=1))
    accepted(story.approve(V1))
    answer = standing(story)
    assert (answer.quorum, answer.standing) == (2, ("bob",))
    accepted(story.approve(V1, actor="cleo"))
    assert len(standing(story).standing) == 2


def test_an_approval_for_one_environment_is_none_for_another(validated: Story) -> None:
    accepted(validated.approve(V1, "dev"))
    assert standing(validated, "dev").standing == ("bob",)
    assert standing(validated, "prod").standing == ()


def test_the_next_step_is_named_all_along_the_way(story: Story) -> None:
    steps = []

    def note() -> None:
        steps.append(standing(story).next)

    note()
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    note()
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev"))
    note()
    accepted(story.judge_for(V1, "prod"))
    note()
    accepted(story.approve(V1))
    note()
    accepted(story.promote(V1, "prod"))
    note()
    accepted(story.confirm("prod"))
    note()
    # A validated version that does not run in dev has no next step towards prod but dev.
    assert steps == ["judge", "stop", "judge-for", "approve", "promote", "wait", "done"]
    assert standing(story, "dev").next == "done"


HIGH = ("owner", "risk", "product")


def policy_of_today(version: int = 1, **high: Any) -> Policy:
    """The world's policy with today's terms; what is given is said of the high tier."""
    tiers = {tier: POLICY.rule(tier) for tier in POLICY.tiers}
    tiers["high"] = msgspec.structs.replace(tiers["high"], people={}, **high)
    return Policy(name="today", version=version, tiers=tiers, kpi={"production": ("technical", "product")})


def service(world: HubWorld, actor: str) -> LocalHub:
    hub = world.hub(actor)
    hub.session = msgspec.structs.replace(hub.session, kind="service", claimed=False)
    return hub


def proven(world: HubWorld, actor: str, *roles: str) -> LocalHub:
    hub = world.hub(actor, frozenset(roles))
    hub.session = msgspec.structs.replace(hub.session, claimed=False)
    return hub


@pytest.fixture
def by_role(validated: Story) -> Story:
    accepted(adopt(validated, policy_of_today(approvals={"production": HIGH})))
    return validated


def test_each_seat_of_the_quorum_wants_a_person_of_its_own(by_role: Story) -> None:
    assert (standing(by_role).quorum, standing(by_role).empty) == (3, HIGH)
    accepted(by_role.approve(V1, actor="bob", role="owner"))
    accepted(by_role.approve(V1, actor="bob", role="risk"))
    answer = standing(by_role)
    assert (answer.standing, answer.empty) == (("bob",), ("risk", "product"))
    (missing,) = [one for one in answer.reasons if one.rule == "governance.approval"]
    assert missing.message == (
        "prod asks for 3 approvals by somebody other than ann in the name of owner, risk and product; "
        "risk and product missing"
    )
    assert missing.measured == "1 of 3"
    accepted(by_role.approve(V1, actor="rita", role="risk"))
    accepted(by_role.approve(V1, actor="pia", role="product"))
    answer = standing(by_role)
    assert (answer.standing, answer.empty) == (("bob", "rita", "pia"), ())
    assert "governance.approval" not in [one.rule for one in answer.reasons]


def test_a_kpi_asks_for_a_technical_person_and_one_of_the_product(world: HubWorld) -> None:
    story = Story(world.hub)
    story.found(tier="low", policy=policy_of_today(), kpi="missed connections")
    accepted(story.register("one"))
    accepted(story.judge(V1))
    accepted(story.validate(V1))
    assert standing(story).seats == ("technical", "product")
    accepted(story.approve(V1, actor="val", role="validation"))
    assert standing(story).empty == ("product",)
    accepted(story.approve(V1, actor="pia", role="product"))
    assert standing(story).empty == ()


def test_without_a_kpi_a_low_tier_asks_nobody(world: HubWorld) -> None:
    story = Story(world.hub)
    story.found(tier="low", policy=policy_of_today())
    accepted(story.register("one"))
    assert (standing(story).quorum, standing(story).seats) == (0, ())


def test_a_service_approves_nothing(world: HubWorld, validated: Story) -> None:
    command = ApproveVersion(id="s", version=V1, environment="prod", evidence_set=standing(validated).bound)
    receipt = service(world, "robot").execute(command)
    assert rules_of(receipt) == ["governance.not-a-person"]


def test_an_approval_is_taken_back_by_whoever_gave_it(validated: Story) -> None:
    accepted(validated.approve(V1))
    take_back = RevokeApproval(id="r1", version=V1, environment="prod", reason="read it again")
    assert rules_of(validated.do("cleo", take_back)) == ["governance.not-approved"]
    other_role = msgspec.structs.replace(take_back, id="r2", role="risk")
    assert rules_of(validated.do("bob", other_role)) == ["governance.not-approved"]
    accepted(validated.do("bob", msgspec.structs.replace(take_back, id="r3")))
    assert standing(validated).standing == ()
    (kept,) = validated.ask(ExplainVersion(version=V1)).approvals["prod"]
    assert kept.revoked == "read it again"
    assert rules_of(validated.do("bob", msgspec.structs.replace(take_back, id="r4"))) == [
        "governance.not-approved"
    ]
    accepted(validated.approve(V1))
    assert standing(validated).standing == ("bob",)


def decline(story: Story, actor: str, command_id: str) -> Any:
    bound = standing(story).bound
    command = DeclineVersion(
        id=command_id, version=V1, environment="prod", evidence_set=bound, reason="wrong season"
    )
    return story.do(actor, command)


def objections(story: Story) -> list[Any]:
    return [one for one in standing(story).reasons if one.rule == "governance.declined"]


def test_a_persons_no_keeps_a_version_out_until_they_say_yes(validated: Story) -> None:
    accepted(validated.approve(V1, actor="cleo"))
    accepted(decline(validated, "bob", "d1"))
    assert accepted(decline(validated, "bob", "d2")).events == ()
    (no,) = objections(validated)
    assert no.message == "bob declined it for prod in the name of owner: wrong season"
    accepted(validated.approve(V1, actor="cleo"))
    assert len(objections(validated)) == 1
    accepted(validated.approve(V1, actor="bob"))
    assert objections(validated) == []


def test_a_no_is_about_the_evidence_it_was_said_on(validated: Story) -> None:
    accepted(decline(validated, "bob", "d1"))
    accepted(validated.judge(V1, turn=9))
    assert objections(validated) == []


def test_whoever_approved_and_then_declines_may_approve_again_at_once(validated: Story) -> None:
    accepted(validated.approve(V1))
    accepted(decline(validated, "bob", "d1"))
    assert len(accepted(validated.approve(V1)).events) == 1
    assert objections(validated) == []


def test_approving_again_the_next_day_renews_the_date(world: HubWorld, validated: Story) -> None:
    accepted(validated.approve(V1))
    world.clock.advance(days=1)
    assert len(accepted(validated.approve(V1)).events) == 1
    assert standing(validated).standing == ("bob",)


LIMIT = Limit(gate=GATE, metric="auc", at_least=0.8)


@pytest.mark.parametrize(
    ("limit", "figures", "message"),
    [
        (LIMIT, {"measured": 0.82, "low": 0.8, "high": 0.84}, ""),
        (LIMIT, {"measured": 0.82, "low": 0.79, "high": 0.85}, "by its confidence interval"),
        (LIMIT, {"measured": 0.82}, "by its confidence interval, which this evidence does not have"),
        (LIMIT, {}, "by its measured figure, which this evidence does not have"),
        (msgspec.structs.replace(LIMIT, bound="measured"), {"measured": 0.82}, ""),
        (msgspec.structs.replace(LIMIT, bound="measured"), {"measured": 0.79}, "auc of at least 0.8:"),
        (Limit(gate=GATE, metric="auc", at_most=0.8), {"measured": 0.7, "low": 0.6, "high": 0.9}, "at most"),
        (Limit(gate=GATE, metric="brier", at_most=0.2), {"measured": 0.8}, "did not measure"),
        (msgspec.structs.replace(LIMIT, slice="a=b"), {"measured": 0.8}, "did not measure"),
    ],
)
def test_the_policy_may_be_stricter_than_the_project(
    story: Story, limit: Limit, figures: dict[str, float], message: str
) -> None:
    accepted(adopt(story, policy_of_today(limits=(limit,))))
    command = story.judging(V1, named_digest("package", "one"))
    (line,) = command.lines
    line = msgspec.structs.replace(line, **figures)
    accepted(story.do("eve", msgspec.structs.replace(command, lines=(line,))))
    receipt = story.validate(V1)
    assert (receipt.refusal is None) == (not message)
    if receipt.refusal is not None:
        (reason,) = receipt.refusal.reasons
        assert message in reason.message
        assert reason.limit == limit.text


def test_a_policy_is_never_laxer_than_the_project(story: Story) -> None:
    lax = msgspec.structs.replace(LIMIT, at_least=0.1)
    accepted(adopt(story, policy_of_today(limits=(lax,))))
    command = story.judging(V1, named_digest("package", "one"), verdict="fail")
    line = msgspec.structs.replace(command.lines[0], measured=0.5, low=0.4, high=0.6)
    accepted(story.do("eve", msgspec.structs.replace(command, lines=(line,))))
    assert rules_of(story.validate(V1)) == ["perf.absolute:auc"]


def test_a_limit_on_a_comparison_with_nothing_is_kept(validated: Story) -> None:
    limit = Limit(gate="perf.vs_champion", metric="auc", at_least=0.0)
    accepted(adopt(validated, policy_of_today(limits=(limit,))))
    command = validated.judging(V1, named_digest("package", "one"), environment="prod", baseline="")
    (line,) = command.lines
    first = msgspec.structs.replace(line, value="")
    accepted(validated.do("eve", msgspec.structs.replace(command, lines=(first,))))
    assert "perf.vs_champion:auc" not in [one.rule for one in standing(validated).reasons]
    worse = msgspec.structs.replace(line, measured=-0.1, low=-0.2, high=-0.05)
    accepted(validated.do("eve", msgspec.structs.replace(command, id="w", lines=(worse,))))
    assert "perf.vs_champion:auc" in [one.rule for one in standing(validated).reasons]


def test_a_laxer_policy_waits_for_somebody_of_risk(world: HubWorld, by_role: Story) -> None:
    strict, lax = policy_of_today(approvals={"production": HIGH}), policy_of_today(2)
    propose = AdoptPolicy(id="a1", namespace="main", policy=lax)
    (event,) = accepted(proven(world, "petra", "admin").execute(propose)).events
    assert event["type"] == "governance.policy-proposed/1"
    assert event["laxer"] == ["high: approvals in production: 0, not 3 (owner, risk, product)"]
    assert by_role.ask(PolicyInForce(namespace="main")).policy.digest == strict.digest
    again = msgspec.structs.replace(propose, id="a2")
    assert accepted(proven(world, "petra", "admin").execute(again)).events == ()

    consent = ConsentToPolicy(id="k1", namespace="main", digest=lax.digest)
    assert rules_of(proven(world, "petra", "admin").execute(consent)) == ["hub.permission"]
    own = msgspec.structs.replace(consent, id="k2")
    assert rules_of(proven(world, "petra", "approver:risk").execute(own)) == [
        "governance.separation-of-duties"
    ]
    other = ConsentToPolicy(id="k3", namespace="main", digest=strict.digest + "0")
    assert rules_of(proven(world, "rita", "approver:risk").execute(other)) == ["governance.no-proposal"]
    (event,) = accepted(
        proven(world, "rita", "approver:risk").execute(msgspec.structs.replace(consent, id="k4"))
    ).events
    assert (event["type"], event["proposed_by"]) == ("governance.policy-adopted/2", "petra")
    answer = by_role.ask(PolicyInForce(namespace="main"))
    assert (answer.policy.digest, answer.policy.adopted_by, answer.proposal) == (lax.digest, "rita", None)


def test_a_stricter_policy_rules_at_once_and_ends_an_open_proposal(world: HubWorld, by_role: Story) -> None:
    lax = policy_of_today(2)
    petra = proven(world, "petra", "admin")
    accepted(petra.execute(AdoptPolicy(id="a1", namespace="main", policy=lax)))
    assert by_role.ask(PolicyInForce(namespace="main")).proposal.proposed_by == "petra"
    stricter = policy_of_today(3, approvals={"production": (*HIGH, "validation")})
    (event,) = accepted(petra.execute(AdoptPolicy(id="a2", namespace="main", policy=stricter))).events
    assert event["type"] == "governance.policy-adopted/2"
    assert by_role.ask(PolicyInForce(namespace="main")).proposal is None
    late = ConsentToPolicy(id="k1", namespace="main", digest=lax.digest)
    assert rules_of(proven(world, "rita", "approver:risk").execute(late)) == ["governance.no-proposal"]
