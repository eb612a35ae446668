"""Waivers: who asks, who grants, how long they hold, and what they never reach."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from governance_rig import ENDPOINT, V1, V2, bring, policy, ready, rules, standing

from lockgate.core.messages import Receipt
from lockgate.delivery.state import ReleaseState
from lockgate.governance.messages import AdoptPolicy, EndWaiver, GrantWaiver, RequestWaiver
from lockgate.governance.policies.policy import Limit, WaiverTerms
from lockgate.hub.messages import ExplainVersion, Status
from lockgate.registry.messages import QuarantineVersion
from lockgate.testing.hub_world import GATE, MODEL_NAME, RELATIVE_GATE, HubWorld, Story, accepted, rules_of

DAY = 24 * 3600 * 1_000_000


@pytest.fixture
def failing(world: HubWorld) -> Story:
    """A version that lacks nothing but a pass of the relative gate."""
    story = ready(world, policy())
    accepted(story.judge_for(V1, "prod", verdict="fail", turn=1))
    accepted(story.approve(V1))
    assert rules(story) == ["perf.vs_champion:auc"]
    return story


def ask(story: Story, world: HubWorld, *, actor: str = "ann", days: float = 10, **change: Any) -> Receipt:
    command = RequestWaiver(
        id=story.new_id(),
        model=MODEL_NAME,
        versions="1.0.0",
        environment="prod",
        gate=RELATIVE_GATE,
        reason="the champion saw a warmer autumn",
        control="thresholds are checked by hand each morning",
        ticket="OPS-7",
        until=world.clock.now() + int(days * DAY),
    )
    return story.do(actor, msgspec.structs.replace(command, **change))


def grant(
    story: Story, number: int = 1, *, actor: str = "rita", role: Any = "risk", **change: Any
) -> Receipt:
    command = GrantWaiver(id=story.new_id(), model=MODEL_NAME, environment="prod", number=number, role=role)
    return story.do(actor, msgspec.structs.replace(command, **change))


def test_a_failure_is_passed_over_and_stays_a_failure(failing: Story, world: HubWorld) -> None:
    accepted(ask(failing, world))
    assert rules(failing) == ["perf.vs_champion:auc"]
    accepted(grant(failing))
    answer = standing(failing)
    assert (answer.next, answer.decision, answer.reasons) == ("promote", "allowed", ())
    (waived,) = answer.waived
    assert (waived.rule, waived.waiver) == ("perf.vs_champion:auc", "W-1")
    assert [line.verdict for line in answer.evidence if line.gate == RELATIVE_GATE] == ["fail"]
    (started,) = accepted(failing.promote(V1, "prod")).events
    assert started["waivers"] == ["W-1"]


def test_it_ends_at_its_hour_and_live_traffic_stays(failing: Story, world: HubWorld) -> None:
    """Acceptance: expiry at T, promotion at T + 1 s refused, what is live untouched but out of policy."""
    accepted(ask(failing, world, days=2))
    accepted(grant(failing))
    accepted(failing.promote(V1, "prod"))
    accepted(failing.confirm("prod"))
    bring(failing, "two", V2)
    accepted(failing.judge_for(V2, "prod", verdict="fail", turn=2))
    accepted(failing.approve(V2))
    accepted(ask(failing, world, versions="1.0.1", days=1))
    accepted(grant(failing, 2))
    world.clock.advance(seconds=86_340)
    assert rules(failing, V2) == []
    world.clock.advance(seconds=61)
    receipt = failing.promote(V2, "prod")
    assert rules_of(receipt) == ["perf.vs_champion:auc"]

    def line() -> Any:
        return failing.ask(Status(endpoint=ENDPOINT)).endpoints["prod/flight-delay"]

    assert line().out_of_policy == ()
    world.clock.advance(days=1)
    (why,) = line().out_of_policy
    assert "W-1" in why
    assert line().live.version == "flight-delay@1.0.0"


@pytest.mark.parametrize(
    ("actor", "who"), [("ann", "ann made main/flight-delay@1.0.0 and"), ("olga", "olga asked for it")]
)
def test_nobody_grants_what_they_asked_for(failing: Story, world: HubWorld, actor: str, who: str) -> None:
    accepted(ask(failing, world, actor=actor))
    receipt = grant(failing, actor=actor)
    assert rules_of(receipt) == ["governance.separation-of-duties"]
    assert receipt.refusal is not None
    assert receipt.refusal.reasons[0].message.startswith(who)


def test_nobody_grants_for_what_they_made(failing: Story, world: HubWorld) -> None:
    accepted(ask(failing, world, actor="olga"))
    assert rules_of(grant(failing, actor="ann")) == ["governance.separation-of-duties"]


def test_one_for_many_versions_does_not_reach_those_of_whoever_granted_it(
    failing: Story, world: HubWorld
) -> None:
    accepted(ask(failing, world, actor="olga", versions="1.*"))
    accepted(grant(failing, actor="ann"))
    assert rules(failing) == ["perf.vs_champion:auc"]
    accepted(ask(failing, world, actor="olga", versions="1.0.*"))
    accepted(grant(failing, 2))
    assert rules(failing) == []


@pytest.mark.parametrize("versions", ["1.0.1", "1.1.*", "2.*"])
def test_it_holds_for_its_versions_only(failing: Story, world: HubWorld, versions: str) -> None:
    accepted(failing.register("two"))
    accepted(ask(failing, world, versions=versions))
    accepted(grant(failing))
    assert rules(failing) == ["perf.vs_champion:auc"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gate": "data.contract"}, "governance.not-waivable"),
        ({"gate": "latency"}, "governance.gate-not-asked"),
        ({"reason": " "}, "governance.waiver-terms"),
        ({"control": ""}, "governance.waiver-terms"),
        ({"ticket": ""}, "governance.waiver-terms"),
        ({"versions": "1"}, "governance.waiver-terms"),
        ({"versions": "*"}, "governance.waiver-terms"),
        ({"versions": "7.7.7"}, "registry.version-unknown"),
        ({"days": 31}, "governance.waiver-terms"),
        ({"days": 0}, "governance.waiver-terms"),
    ],
)
def test_what_cannot_be_asked_for(failing: Story, world: HubWorld, change: dict[str, Any], rule: str) -> None:
    assert rules_of(ask(failing, world, **change)) == [rule]


def test_the_policy_may_name_more_that_is_never_waived(failing: Story, world: HubWorld) -> None:
    accepted(ask(failing, world))
    accepted(grant(failing))
    stricter = policy(2, rest={"never_waived": (RELATIVE_GATE,)})
    accepted(failing.do("petra", adopt(failing, stricter)))
    assert "perf.vs_champion:auc" in rules(failing)
    assert rules_of(ask(failing, world, days=5)) == ["governance.not-waivable"]


def adopt(story: Story, rules: Any) -> Any:
    return AdoptPolicy(id=story.new_id(), namespace="main", policy=rules)


def test_what_nobody_measured_is_not_passed_over(failing: Story, world: HubWorld) -> None:
    accepted(ask(failing, world))
    accepted(grant(failing))
    accepted(failing.judge_for(V1, "prod", verdict="error", turn=3))
    assert "perf.vs_champion:auc" in rules(failing)


def test_a_gate_that_did_not_run_is_not_passed_over(world: HubWorld) -> None:
    story = ready(world, policy(relative={"production": (RELATIVE_GATE, "latency")}))
    accepted(ask(story, world, gate="latency"))
    accepted(grant(story))
    assert "latency" in rules(story)


def test_a_limit_of_the_policy_is_passed_over_like_a_verdict(world: HubWorld) -> None:
    limit = Limit(gate=RELATIVE_GATE, metric="auc", at_least=0.5, bound="measured")
    story = ready(world, policy(limits=(limit,)))
    command = story.judging(V1, story.ask(ExplainVersion(version=V1)).version.package, environment="prod")
    line = msgspec.structs.replace(command.lines[0], measured=0.1, baseline="")
    accepted(story.do("eve", msgspec.structs.replace(command, baseline="", lines=(line,))))
    accepted(story.approve(V1))
    assert rules(story) == ["perf.vs_champion:auc"]
    accepted(ask(story, world))
    accepted(grant(story))
    assert rules(story) == []


def test_an_intrinsic_failure_may_be_waived_on_the_way_to_prod(world: HubWorld) -> None:
    story = Story(world.hub)
    story.found(policy=policy())
    accepted(story.register("one"))
    accepted(story.judge(V1, verdict="fail"))
    assert rules_of(story.validate(V1)) == [f"{GATE}:auc"]
    accepted(ask(story, world, gate=GATE))
    accepted(grant(story))
    accepted(story.validate(V1))
    world.clock.advance(days=11)
    accepted(story.judge(V1, verdict="fail", turn=2))
    assert rules_of(story.validate(V1)) == [f"{GATE}:auc"]


def test_the_policy_says_who_grants_and_when_it_is_for_risk(failing: Story, world: HubWorld) -> None:
    accepted(ask(failing, world))
    assert rules_of(grant(failing, actor="pia", role="product")) == ["governance.waiver-terms"]
    accepted(grant(failing, actor="bob", role="owner"))
    assert accepted(grant(failing, actor="bob", role="owner")).events == ()
    accepted(ask(failing, world, days=11))
    accepted(grant(failing, 2, actor="bob", role="owner"))
    accepted(ask(failing, world, days=12))
    assert rules_of(grant(failing, 3, actor="bob", role="owner")) == ["governance.waiver-renewals"]
    accepted(grant(failing, 3))


def test_a_critical_tier_grants_shorter_ones(world: HubWorld) -> None:
    story = ready(world, policy(waivers=WaiverTerms(max_days=7.0, roles=("risk",))))
    assert rules_of(ask(story, world, days=8)) == ["governance.waiver-terms"]
    accepted(ask(story, world, days=7))
    assert rules_of(grant(story, actor="bob", role="owner")) == ["governance.waiver-terms"]
    accepted(grant(story))


def test_it_is_refused_or_ended_and_then_over(failing: Story, world: HubWorld) -> None:
    accepted(ask(failing, world))
    end = EndWaiver(id="e1", model=MODEL_NAME, environment="prod", number=1, role="risk", reason="no")
    elsewhere = msgspec.structs.replace(end, id="e0", environment="dev")
    assert rules_of(failing.do("rita", elsewhere)) == ["governance.waiver-unknown"]
    accepted(failing.do("rita", end))
    assert rules_of(grant(failing)) == ["governance.waiver-over"]
    assert rules_of(failing.do("rita", msgspec.structs.replace(end, id="e2"))) == ["governance.waiver-over"]
    accepted(ask(failing, world))
    accepted(grant(failing, 2))
    assert rules(failing) == []
    accepted(failing.do("rita", msgspec.structs.replace(end, id="e3", number=2)))
    assert rules(failing) == ["perf.vs_champion:auc"]


def test_a_service_grants_nothing(failing: Story, world: HubWorld) -> None:
    accepted(ask(failing, world))
    hub = world.hub("robot")
    hub.session = msgspec.structs.replace(hub.session, kind="service")
    command = GrantWaiver(id="g", model=MODEL_NAME, environment="prod", number=1, role="risk")
    assert rules_of(hub.execute(command)) == ["governance.not-a-person"]


def test_no_waiver_lets_quarantined_bytes_in(failing: Story, world: HubWorld) -> None:
    accepted(ask(failing, world))
    accepted(grant(failing))
    accepted(failing.do("sam", QuarantineVersion(id="q", version=V1, reason="a leak")))
    assert rules_of(failing.promote(V1, "prod")) == ["registry.state"]


def test_the_release_remembers_its_waivers(failing: Story, world: HubWorld) -> None:
    accepted(ask(failing, world))
    accepted(grant(failing))
    accepted(failing.promote(V1, "prod"))
    accepted(failing.confirm("prod"))
    releases: tuple[ReleaseState, ...] = failing.ask(ExplainVersion(version=V1)).releases
    assert [one.waivers for one in releases] == [(), ("W-1",)]
