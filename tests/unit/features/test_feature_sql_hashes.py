from __future__ import annotations

import pytest

from lockgate.features.definition import (
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    RequestFeature,
    UnknownName,
    collect,
)
from lockgate.features.hashes import layout_hash, semantic_hash, service_hash
from lockgate.features.sql import BadSql, UndeclaredDataset, UnstableSql, check_sql, normal_form

AIRCRAFT = Entity("aircraft", keys=("tailnum",))
SQL = """
    -- what the registry says
    SELECT tailnum, seats, make_timestamp(year, 1, 1, 0, 0, 0) AS event_at, event_at AS available_at
    FROM planes WHERE seats > 0
"""


def view(sql: str = SQL, datasets: tuple[str, ...] = ("planes",)) -> FeatureView:
    return FeatureView(
        "fleet",
        entity=AIRCRAFT,
        datasets=datasets,
        sql=sql,
        features=[Feature("seats", "int", minimum=0), Feature("maker", "category", categories=("A", "B"))],
        ttl_s=86_400,
    )


def test_published_hashes_stay() -> None:
    """Hashes of algorithm fd/1 are in people's packages; if this test fails, the change is wrong."""
    service = FeatureService("delay", features=["fleet:seats", RequestFeature("distance", "float")])
    definitions = collect({"v": view(), "s": service})
    assert layout_hash(view()) == "sha256:4dddf4e142e809fd3a5a7d89e3dacebf37cbae478e8b769b42a189ff9e60347e"
    assert (
        semantic_hash(view(), {"planes": "c1"})
        == "sha256:50e9df5ec3e3144955b592b7e073c4d33f2436877b1be5ddd27f34245d482d80"
    )
    assert (
        service_hash(service, definitions, {"planes": "c1"})
        == "sha256:dc288b85bc1b80e7d5ddd088468396afea3495541d94a030366c10c628df49e4"
    )


def test_what_a_view_reads_is_part_of_its_meaning() -> None:
    assert semantic_hash(view(), {"planes": "c1"}) != semantic_hash(view(), {"planes": "c2"})
    assert semantic_hash(view(), {"planes": "c1"}) == semantic_hash(view(), {"planes": "c1", "more": "x"})
    with pytest.raises(UnknownName):
        semantic_hash(view(), {"plane": "c1"})


def test_a_service_moves_with_order_and_with_what_is_behind_it() -> None:
    one = FeatureService("delay", features=["fleet:seats", "fleet:maker"])
    other = FeatureService("delay", features=["fleet:maker", "fleet:seats"])
    definitions = collect({"v": view(), "s": one})
    changed = collect({"v": view(SQL.replace("> 0", "> 1")), "s": one})
    hashes = {
        service_hash(one, definitions, {"planes": "c1"}),
        service_hash(other, definitions, {"planes": "c1"}),
        service_hash(one, changed, {"planes": "c1"}),
        service_hash(one, definitions, {"planes": "c2"}),
    }
    assert len(hashes) == 4


def test_quoted_things_keep_their_case() -> None:
    assert normal_form("SELECT 'A', \"Col\", $$Text$$, X ;") == "select 'A' , \"Col\" , $$Text$$ , x"
    with pytest.raises(BadSql):
        normal_form("SELECT 'unclosed")


@pytest.mark.parametrize(
    "sql",
    [
        SQL,
        "WITH p AS (SELECT * FROM Planes) SELECT * FROM p",
        "FROM planes SELECT seats",
        "SELECT * FROM planes, range(3), unnest([1])",
        "SELECT * FROM (VALUES (1)) v(x), planes UNION ALL SELECT * FROM planes",
    ],
)
def test_declared_reads_are_fine(sql: str) -> None:
    check_sql(view(sql))


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT * FROM plane", UndeclaredDataset),
        ("SELECT * FROM planes JOIN flights USING (tailnum)", UndeclaredDataset),
        ("SELECT * FROM 'planes.parquet', planes", UndeclaredDataset),
        ("SELECT * FROM read_csv('planes.csv'), planes", UndeclaredDataset),
        ("SELECT * FROM other.planes", UndeclaredDataset),
        ("SELECT 1", UndeclaredDataset),
        ("SELECT now(), * FROM planes", UnstableSql),
        ("SELECT current_date, * FROM planes", UnstableSql),
        ("SELECT * FROM planes WHERE random() < 0.5", UnstableSql),
        ("SELECT uuid(), today(), * FROM planes", UnstableSql),
        ("SELECT * FROM planes USING SAMPLE 10", UnstableSql),
        ("SELECT 1; SELECT 2", BadSql),
        ("DROP TABLE planes", BadSql),
        ("SELECT FROM WHERE", BadSql),
        ("SELECT 'unclosed", BadSql),
    ],
)
def test_sql_that_does_other_than_declared_is_refused(sql: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_sql(view(sql))


def test_a_dataset_that_is_declared_is_read() -> None:
    with pytest.raises(UndeclaredDataset) as caught:
        check_sql(view(datasets=("planes", "flights")))
    assert "'flights'" in caught.value.message
