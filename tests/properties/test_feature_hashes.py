"""What may and what may not move a feature's hash."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.features.definition import Entity, Feature, FeatureView
from lockgate.features.hashes import layout_hash, semantic_hash
from lockgate.features.sql import normal_form

AIRCRAFT = Entity("aircraft", keys=("tailnum",))
WORDS = (
    "SELECT",
    "tailnum",
    ",",
    "Seats",
    "*",
    "2",
    "AS",
    "size",
    "FROM",
    "planes",
    "WHERE",
    "note",
    "=",
    "'A b  -- c'",
)
FILLERS = st.sampled_from([" ", "\n", "\t  ", " -- why\n", " /* a 'quoted' word */ ", "\r\n"])
UPSTREAM = {"planes": "sha256:1"}


def view(sql: str) -> FeatureView:
    return FeatureView(
        "fleet", entity=AIRCRAFT, dataset="planes", sql=sql, features=(Feature("size", "int"),), ttl_s=60
    )


@st.composite
def spellings(draw: st.DrawFn) -> str:
    text = ""
    for word in WORDS:
        cased = word if word.startswith("'") else draw(st.sampled_from([word, word.upper(), word.lower()]))
        text += draw(FILLERS) + cased
    return text + draw(st.sampled_from(["", ";", " ;\n", " -- end"]))


@settings(max_examples=100, deadline=None)
@given(spellings())
def test_layout_comments_and_case_do_not_move_it(sql: str) -> None:
    plain = " ".join(WORDS)
    assert semantic_hash(view(sql), UPSTREAM) == semantic_hash(view(plain), UPSTREAM)


@settings(max_examples=100, deadline=None)
@given(spellings())
def test_the_normal_form_is_its_own_normal_form(sql: str) -> None:
    assert normal_form(normal_form(sql)) == normal_form(sql)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(WORDS) - 1), st.sampled_from(["3", "tail", "'a b  -- c'", "OR"]))
def test_every_other_word_moves_it(position: int, word: str) -> None:
    changed = [*WORDS[:position], word, *WORDS[position + 1 :]]
    assert semantic_hash(view(" ".join(changed)), UPSTREAM) != semantic_hash(view(" ".join(WORDS)), UPSTREAM)


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "ttl_s": st.sampled_from([None, 1, 3600]),
        "event_at": st.just("seen_at"),
        "available_at": st.just("read_at"),
        "entity": st.just(Entity("aircraft", keys=("registration",))),
        "features": st.sampled_from(
            [
                (Feature("size", "float"),),
                (Feature("size", "int", nullable=False),),
                (Feature("size", "int", maximum=9),),
                (Feature("size", "int"), Feature("more", "int")),
            ]
        ),
        "sql": st.just("SELECT 1"),
        "owner": st.text(max_size=3),
        "description": st.text(max_size=3),
    },
)


@settings(max_examples=150, deadline=None)
@given(CHANGES)
def test_what_changes_values_moves_it_and_what_does_not_does_not(changes: dict[str, object]) -> None:
    before = view("SELECT 2")
    after = msgspec.structs.replace(before, **changes)
    says_the_same = not set(changes) - {"owner", "description"}
    assert (semantic_hash(before, UPSTREAM) == semantic_hash(after, UPSTREAM)) is says_the_same
    if not set(changes) & {"entity", "features"}:
        assert layout_hash(before) == layout_hash(after)
