"""Cases that a policy is tested by: what they say, what they leave out, and that one can fail."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.app.declare import default_cases, default_policy
from lockgate.governance.policies.policy import Limit, Policy
from lockgate.workshop.policies.cases import Case, CasesInvalid, Figure, decide_case, parse_cases

DEFAULT, CASES = default_policy(), parse_cases(default_cases(), where="default.cases.toml")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_default_pack_keeps_its_promises(case: Case) -> None:
    outcome = decide_case(DEFAULT, case)
    assert outcome.holds, (outcome.decided, outcome.reasons)


def test_the_cases_speak_of_every_tier_and_every_decision() -> None:
    assert {case.tier for case in CASES} == {"low", "moderate", "high", "critical"}
    assert {case.expect for case in CASES} == {"allowed", "waiting", "refused"}


@pytest.mark.parametrize(
    "change", [{"expect": "waiting"}, {"expect": "refused"}, {"rules": ("governance.ticket",)}]
)
def test_a_case_that_comes_out_otherwise_does_not_hold(change: dict[str, Any]) -> None:
    low = Case(name="low", tier="low", expect="allowed")
    assert decide_case(DEFAULT, low).holds
    assert not decide_case(DEFAULT, msgspec.structs.replace(low, **change)).holds


def test_figures_are_held_against_the_limits_of_the_policy() -> None:
    assert isinstance(DEFAULT, Policy)
    limit = Limit(gate="perf.vs_champion", metric="auc", at_least=-0.005)
    rule = msgspec.structs.replace(DEFAULT.rule("low"), limits=(limit,))
    policy = msgspec.structs.replace(DEFAULT, tiers={**DEFAULT.tiers, "low": rule})
    good = Figure(gate="perf.vs_champion", metric="auc", measured=0.01, low=-0.002, high=0.02)
    wide = msgspec.structs.replace(good, low=-0.006)
    for figure, expect in ((good, "allowed"), (wide, "refused")):
        case = Case(name="limit", tier="low", figures=(figure,), expect=expect)  # type: ignore[arg-type]
        assert decide_case(policy, case).holds


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[case]]\nname = 'x'\n", "expect"),
        ("[[case]]\nname = 'x'\nexpect = 'maybe'\n", "maybe"),
        ("[[case]]\nname = 'x'\nexpect = 'allowed'\ntier = 'huge'\n", "huge"),
        ("[[case]]\nname = 'x'\nexpect = 'allowed'\nteir = 'low'\n", "teir"),
        ("case = 1\n", "case"),
        ("[[case\n", "my.cases.toml:1: "),
    ],
)
def test_a_mistake_in_a_file_of_cases_is_named(text: str, place: str) -> None:
    with pytest.raises(CasesInvalid) as caught:
        parse_cases(text, where="my.cases.toml")
    assert place in caught.value.message
    assert "my.cases.toml" in caught.value.message
