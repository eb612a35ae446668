"""Which columns each input of a model is made from, over SQL and over code."""

from __future__ import annotations

from lockgate.features.definition import Entity, Feature, FeatureService, FeatureView, RequestFeature, collect
from lockgate.pipeline.code.source import SourceTree
from lockgate.pipeline.origins import input_traces
from lockgate.pipeline.recipe import Recipe, Sources
from lockgate.registry.packages.contract import OutputField
from lockgate.registry.packages.package import ColumnUse

PLANE = Entity("plane", keys=("tail",))
FLEET = FeatureView(
    "fleet",
    entity=PLANE,
    dataset="planes",
    sql="SELECT tail, built AS event_at, built AS available_at, seats FROM planes WHERE owner IS NOT NULL",
    features=(Feature("seats", "int"),),
)
SERVICE = FeatureService("delay", features=(RequestFeature("distance", "int"), "fleet:seats"))
CODE = b'''
"""Reads owner: in a docstring, which is no use of it."""

def examples(flights):
    """The tail and the delay."""
    return flights.select(["tail"]).filter("delay > 15")

def unused(planes):
    return 1
'''
COLUMNS = {
    "flights": ["tail", "delay", "Distance", "gate"],
    "planes": ["tail", "built", "seats", "owner", "maker"],
}


def test_inputs_are_traced_through_sql_by_name_and_by_code() -> None:
    recipe = Recipe(
        model="main/x", datasets={}, definitions="f", service="delay", examples="m:examples", train="m:t",
        evaluation_set="m:e", label="late", output=OutputField(name="late", kind="probability"), params={},
    )  # fmt: skip
    sources = Sources(
        code=SourceTree({"m.py": CODE, "other.py": b"x = 'gate'"}),
        contracts={},
        include={},
        lock=b"",
        lockgate="1",
    )
    definitions = collect({"fleet": FLEET, "delay": SERVICE})
    traces = input_traces(recipe, sources, definitions, COLUMNS, ["examples() in m.py", "clean() in m.py"])
    assert [(one.input, one.source) for one in traces] == [
        ("distance", "request"), ("seats", "fleet:seats"), ("", "m.py")
    ]  # fmt: skip
    assert traces[0].columns == (ColumnUse("flights", "Distance", "name"),)
    assert set(traces[1].columns) == {
        ColumnUse("planes", "seats", "value"),
        ColumnUse("planes", "owner", "rows"),
        ColumnUse("planes", "tail", "rows"),
        ColumnUse("planes", "built", "rows"),
    }
    # `planes` is an argument in that file as well; what only a docstring says is no use.
    assert traces[2].columns == (
        ColumnUse("flights", "delay", "code"),
        ColumnUse("flights", "tail", "code"),
        ColumnUse("planes", "tail", "code"),
    )
