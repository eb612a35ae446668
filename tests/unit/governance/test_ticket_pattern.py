"""Which patterns a policy may ask of tickets, and what is told about the others."""

from __future__ import annotations

import pytest
from governance_rig import V1, policy, ready

from lockgate.delivery.messages import PromoteVersion
from lockgate.governance.messages import AdoptPolicy
from lockgate.governance.policies.pattern import MAX_TICKET, PatternRefused, TicketPattern
from lockgate.governance.policies.policy import PolicyInvalid, complaints
from lockgate.governance.tickets.tracker import asked_in, ticket_reasons
from lockgate.hub.messages import ReplayPolicy
from lockgate.testing.hub_world import OPERATOR, PLATFORM, HubWorld, accepted, rules_of


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        (r"\S+", "OPS-1", "OPS 1"),
        ("[A-Z]+-[0-9]+", "OPS-42", "ops-42"),
        (r"^(OPS|CHG)-\d{1,6}$", "CHG-7", "CHG-1234567"),
        (r"[#!]\d+|[A-Z]+-\d+", "#12", "12"),
        ("[^a]b{2,}", "cbbb", "abb"),
        (r"https://t\.example/\w+?", "https://t.example/OPS_1", "https://t-example/x"),
        ("Änderung-[0-9]+", "Änderung-3", "Anderung-3"),
    ],
)
def test_usual_patterns_are_matched_in_full(pattern: str, fits: str, does_not: str) -> None:
    ours = TicketPattern(pattern)
    assert ours.matches(fits)
    assert not any(map(ours.matches, (does_not, f" {fits}", f"{fits} ", "")))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("OPS-[0-9", "cannot be read"),
        ("a{99999999999}", "cannot be read"),
        ("(" * 150 + "a", "cannot be read"),
        ("a" * 201, "longer than 200"),
        ("(a{100}){100}", "more than 1000 places"),
        ("((a{9}){9}){9}", "more than 1000 places"),
        ("(?i)ops-1", "flags"),
        ("(?i:ops)-1", "looks around or back"),
        ("(?=OPS).*", "looks around or back"),
        ("(?<!x)OPS", "looks around or back"),
        (r"(a)\1", "looks around or back"),
        ("(a)?(?(1)b|c)", "looks around or back"),
        ("(?>a+)b", "looks around or back"),
        ("a++b", "looks around or back"),
    ],
)
def test_a_pattern_that_cannot_be_followed_is_refused_with_the_policy(pattern: str, said: str) -> None:
    with pytest.raises(PatternRefused, match=said) as caught:
        TicketPattern(pattern)
    assert caught.value.remedy
    rules = policy(ticket={"production": pattern})
    assert any("ticket pattern for production" in complaint for complaint, _ in complaints(rules))
    story = ready(HubWorld.in_memory(), policy())
    receipt = story.do(PLATFORM, AdoptPolicy(id="adopt", namespace="main", policy=rules))
    assert set(rules_of(receipt)) == {"governance.policy-invalid"}
    with pytest.raises(PolicyInvalid):
        story.ask(ReplayPolicy(namespace="main", policy=rules))


def test_a_pattern_that_was_adopted_before_lets_nothing_in_and_says_why() -> None:
    old = policy(ticket={"production": "(?=OPS).*"}, tracker=("production",)).rule("high")
    assert not asked_in(old, "production", "OPS-1")
    (reason,) = ticket_reasons(old, "production", "prod", "OPS-1", None)
    assert reason.rule == "governance.ticket"
    assert "looks around" in reason.message
    assert "policy adopt" in (reason.remedy or "")


@pytest.mark.parametrize("ticket", ["a" * (MAX_TICKET + 1), "OPS-1\nOPS-2", "OPS\x00", "\x1b[31mOPS-1"])
def test_a_ticket_is_one_short_line_wherever_it_goes(ticket: str) -> None:
    story = ready(HubWorld.in_memory(), policy())
    told = story.promote(V1, "dev", ticket=ticket)
    assert told.refusal is None, "what is live already is no news"
    accepted(story.approve(V1))
    assert rules_of(story.promote(V1, "prod", ticket=ticket)) == ["governance.ticket"]
    command = PromoteVersion(id="p", version=V1, environment="prod", pull_request=ticket)
    assert rules_of(story.do(OPERATOR, command)) == ["governance.pull-request"]
