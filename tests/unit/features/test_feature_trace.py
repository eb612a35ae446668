"""Tracing columns through SQL: never one too few."""

from __future__ import annotations

import pytest

from lockgate.features.definition import Entity, Feature, FeatureView
from lockgate.features.trace import trace_view

COLUMNS = {"t": ["k", "a", "b", "ts", "S"], "u": ["k", "c", "ts2"]}
ENTITY = Entity("thing", keys=("k",))
TIMES = "ts AS event_at, ts AS available_at"
FOUND_BY = {"t.k:rows", "t.ts:rows"}
WHOLE = {f"t.{name}:whole" for name in COLUMNS["t"]}


def traced(sql: str, *datasets: str) -> set[str]:
    view = FeatureView(
        "v", entity=ENTITY, datasets=datasets or ("t",), sql=sql, features=(Feature("x", "float"),)
    )
    return {f"{one.dataset}.{one.column}:{one.how}" for one in trace_view(view, COLUMNS)["x"]}


@pytest.mark.parametrize(
    ("sql", "more"),
    [
        (f"SELECT k, {TIMES}, a AS x FROM t", {"t.a:value"}),
        (f"SELECT K, {TIMES}, A AS x FROM T", {"t.a:value"}),
        (f"SELECT k, {TIMES}, count(*) AS x FROM t GROUP BY ALL", set()),
        (f"SELECT k, {TIMES}, a AS x FROM t WHERE s = 'f'", {"t.a:value", "t.S:rows"}),
        (f"SELECT k, {TIMES}, CASE WHEN s = 'f' THEN 1 END AS x FROM t", {"t.S:value"}),
        (f"SELECT k, {TIMES}, count(*) FILTER (WHERE b > 0) AS x FROM t GROUP BY ALL", {"t.b:value"}),
        (f"SELECT k, {TIMES}, a AS x FROM t QUALIFY row_number() OVER (ORDER BY b) = 1", {"t.a:value", "t.b:rows"}),
        (
            f"SELECT k, {TIMES}, sum(a) OVER w AS x FROM t WINDOW w AS (PARTITION BY b)",
            {"t.a:value", "t.b:rows"},
        ),
        (f"SELECT DISTINCT ON (s) k, {TIMES}, a AS x FROM t ORDER BY b", {"t.a:value", "t.S:rows", "t.b:rows"}),
        (f"WITH q AS (SELECT k, ts, a + b AS y FROM t) SELECT k, {TIMES}, y AS x FROM q", {"t.a:value", "t.b:value"}),
        (
            f"SELECT k, {TIMES}, any_value(y) AS x FROM (SELECT k, ts, a AS y FROM t WHERE s IS NULL) GROUP BY ALL",
            {"t.a:value", "t.S:rows"},
        ),
        (f"SELECT k, {TIMES}, a AS x FROM t, generate_series(1, 3) g(n) WHERE g.n = b", {"t.a:value", "t.b:rows"}),
        (f"SELECT k, {TIMES}, list_transform([a], y -> y + b)[1] AS x FROM t", {"t.a:value", "t.b:value"}),
        (f"SELECT k, {TIMES}, a AS x FROM t UNION ALL SELECT k, ts, ts, b FROM t", {"t.a:value", "t.b:value"}),
        ("SELECT *, a AS x, ts AS event_at, ts AS available_at FROM t", {"t.a:value"}),
    ],
)  # fmt: skip
def test_a_column_is_found_by_value_or_by_the_rows_it_chooses(sql: str, more: set[str]) -> None:
    assert traced(sql) == FOUND_BY | more


def test_joined_and_nested_queries_are_followed_into_their_datasets() -> None:
    both = traced(f"SELECT t.k, {TIMES}, a + c AS x FROM t JOIN u ON t.k = u.k WHERE b > 0", "t", "u")
    assert both == FOUND_BY | {"t.a:value", "u.c:value", "t.b:rows", "u.k:rows"}
    for inner in ("k IN (SELECT k FROM u WHERE c > 0)", "EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND c > 0)"):
        found = traced(f"SELECT k, {TIMES}, a AS x FROM t WHERE {inner}", "t", "u")
        assert found == FOUND_BY | {"t.a:value", "u.c:rows", "u.k:rows"}
    scalar = traced(f"SELECT k, {TIMES}, (SELECT max(c) FROM u WHERE u.k = t.k) AS x FROM t", "t", "u")
    assert {"u.c:rows", "u.k:rows"} < scalar


def test_what_decides_which_rows_of_a_union_stay_is_each_of_its_values() -> None:
    sql = f"SELECT k, {TIMES}, a AS x, b AS z FROM t {{}} SELECT k, ts, ts, a, b FROM t"
    assert "t.b:rows" not in traced(sql.format("UNION ALL"))
    assert "t.b:rows" in traced(sql.format("UNION")) and "t.b:rows" in traced(sql.format("EXCEPT"))


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT k, {TIMES}, COLUMNS('a') AS x FROM t",
        f"SELECT k, {TIMES}, t AS x FROM t",
        f"SELECT k, {TIMES}, nosuch AS x FROM t",
        f"SELECT k, {TIMES}, x FROM (PIVOT t ON s USING sum(a) AS x GROUP BY k, ts)",
        f"WITH RECURSIVE r AS (SELECT k, ts, a FROM t UNION ALL SELECT k, ts, a + 1 FROM r WHERE a < 3) "
        f"SELECT k, {TIMES}, a AS x FROM r",
    ],
)
def test_sql_that_cannot_be_followed_reaches_everything(sql: str) -> None:
    assert traced(sql) == WHOLE


def test_a_dataset_whose_columns_nobody_knows_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        traced(f"SELECT k, {TIMES}, a AS x FROM elsewhere", "elsewhere")
