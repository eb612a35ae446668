"""A narrower grant never allows more, whatever is asked; and what is shared by two allows what both allow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockgate.access.roles import ANY, ROLES, TIERS, Grant, is_within, meet, narrowed
from lockgate.core.messages import Scope

NAMESPACES, ENVIRONMENTS = ("main", "fraud"), ("dev", "staging", "prod")
PERMISSIONS = sorted({name for permissions in ROLES.values() for name in permissions})


def some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=len(values)).map(tuple)


grants = st.builds(
    Grant,
    role=st.sampled_from([*ROLES, "unknown"]),
    namespace=st.sampled_from([ANY, *NAMESPACES]),
    tiers=some(TIERS),
    environments=some(ENVIRONMENTS),
)
scopes = st.builds(
    Scope,
    namespace=st.sampled_from(["", *NAMESPACES]),
    model=st.sampled_from(["", "x"]),
    environment=st.sampled_from(["", *ENVIRONMENTS]),
    target=st.sampled_from(["", "owner", "risk"]),
    within=st.booleans(),
)
tiers = st.sampled_from([None, *TIERS])
questions = st.tuples(st.sampled_from(PERMISSIONS), scopes, tiers)


def allows(held: tuple[Grant, ...], asked: tuple[str, Scope, str | None]) -> bool:
    return any(grant.covers(*asked) for grant in held)


@given(grants, grants, questions)
def test_what_two_share_allows_only_what_both_allow(
    one: Grant, other: Grant, asked: tuple[str, Scope, str | None]
) -> None:
    both = meet(one, other)
    if both is not None and both.covers(*asked):
        assert one.covers(*asked)
        assert other.covers(*asked)


@given(st.lists(grants, max_size=3).map(tuple), st.lists(grants, max_size=3).map(tuple), questions)
def test_narrowing_takes_away_and_never_gives(
    held: tuple[Grant, ...], scope: tuple[Grant, ...], asked: tuple[str, Scope, str | None]
) -> None:
    left = narrowed(held, scope)
    assert not allows(left, asked) or (allows(held, asked) and allows(scope, asked))
    assert all(is_within(grant, held) and is_within(grant, scope) for grant in left)


@given(grants, st.lists(grants, max_size=3).map(tuple), questions)
def test_what_lies_within_allows_no_more(
    grant: Grant, held: tuple[Grant, ...], asked: tuple[str, Scope, str | None]
) -> None:
    if is_within(grant, held):
        assert not grant.covers(*asked) or allows(held, asked)


@given(grants, some(TIERS), some(ENVIRONMENTS), st.sampled_from(NAMESPACES), questions)
def test_each_bound_makes_a_grant_smaller(
    grant: Grant,
    by_tier: tuple[str, ...],
    by_place: tuple[str, ...],
    namespace: str,
    asked: tuple[str, Scope, str | None],
) -> None:
    bound = meet(grant, Grant(role=grant.role, namespace=namespace, tiers=by_tier, environments=by_place))
    assert bound is None or not bound.covers(*asked) or grant.covers(*asked)


@given(grants)
def test_a_grant_lies_within_itself_unless_nobody_knows_its_role(grant: Grant) -> None:
    assert is_within(grant, (grant,)) == (grant.role in ROLES)
    assert (meet(grant, grant) == grant) == (grant.role in ROLES)
