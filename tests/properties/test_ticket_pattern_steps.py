"""Patterns of tickets: they match what Python's own engine matches, and no pattern takes more steps than it has places
times the characters of the text, whatever somebody writes into a policy."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockgate.governance.policies.pattern import MAX_PLACES, MAX_TICKET, PatternRefused, TicketPattern

_ATOMS = st.sampled_from(
    [
        "",
        *[
            r"a",
            r"b",
            r"-",
            r"0",
            r"ab",
            r".",
            r"[ab]",
            r"[^a]",
            r"[a-c0-9]",
            r"[\d-]",
            r"\d",
            r"\w",
            r"\S",
            r"\.",
            r"^",
            r"$",
            r"\b",
            r"\Z",
        ],
    ]
)
_REPEATS = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{2,}", "{0,2}?", "{0}"])


def _more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    grouped = inner.map(lambda one: f"({one})") | inner.map(lambda one: f"(?:{one})")
    return (
        st.lists(inner, min_size=1, max_size=3).map("".join)
        | st.lists(inner, min_size=2, max_size=3).map(lambda some: "(" + "|".join(some) + ")")
        | st.tuples(grouped, _REPEATS).map("".join)
    )


PATTERNS = st.recursive(
    _ATOMS | st.tuples(st.sampled_from("ab0"), _REPEATS).map("".join), _more, max_leaves=8
)
TEXTS = st.text("ab0-\n.", max_size=8)


@settings(max_examples=600)
@given(PATTERNS, st.lists(TEXTS, min_size=1, max_size=6))
@example("^a$", ["a\n", "a"])
@example("(a|ab)(c|bcd)?", ["abcd"])
@example(r"(\b|a)*b", ["ab"])
@example("(a*)*b", ["aab"])
def test_a_pattern_matches_what_pythons_engine_matches(pattern: str, texts: list[str]) -> None:
    ours, theirs = TicketPattern(pattern), re.compile(pattern)
    for text in texts:
        assert ours.matches(text) is (theirs.fullmatch(text) is not None), (pattern, text)


@settings(max_examples=300)
@given(st.text("ab()|*+?{}12,.[]^$\\d-", max_size=40), st.text("ab1-", max_size=MAX_TICKET))
@example("(a+)+$", "a" * (MAX_TICKET - 1) + "!")
@example("(a|a)*b", "a" * MAX_TICKET)
@example("(a|aa)+$", "a" * (MAX_TICKET - 1) + "!")
@example("((a*)*)*b", "a" * MAX_TICKET)
@example("(.*)*(.*)*(.*)*x", "a" * MAX_TICKET)
@example("(a?){100}a{100}", "a" * 100)
@example(r"([a-z]+\d*)+(-|$)+!", "a1" * (MAX_TICKET // 2))
@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
def test_no_pattern_takes_more_steps_than_places_times_characters(pattern: str, text: str) -> None:
    try:
        ours = TicketPattern(pattern)
    except PatternRefused:
        return
    assert ours.n_places <= MAX_PLACES + 1
    assert ours.follow(text).n_steps <= ours.n_places * (len(text) + 1)


def test_what_would_keep_pythons_engine_busy_for_years_is_answered() -> None:
    """In a process of its own, so that a failure here is a failure and no test run without an end."""
    program = """
from lockgate.testing.hub_world import HubWorld, MODEL_NAME, POLICY, Story, rules_of
from lockgate.governance.policies.policy import Policy
from lockgate.hub.messages import ReplayPolicy
import msgspec
story = Story(HubWorld.in_memory().hub)
tiers = {
    tier: msgspec.structs.replace(POLICY.rule(tier), ticket={"open": "(a+)+$", "production": "((a|a)*)*b"})
    for tier in POLICY.tiers
}
policy = Policy(name="hard", version=1, tiers=tiers)
story.found(policy=policy)
story.train("one")
story.register("one")
told = [rules_of(story.promote(f"{MODEL_NAME}@1.0.0", place, ticket="a" * 150 + "!")) for place in ("dev", "prod")]
assert all("governance.ticket" in rules for rules in told), told
assert rules_of(story.promote(f"{MODEL_NAME}@1.0.0", "dev", ticket="a" * 150)) == []
assert story.ask(ReplayPolicy(namespace="main", policy=policy)).blocked == ()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
