from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from lockgate.core.names import BadName
from lockgate.features.definition import (
    BadDefinition,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    RequestFeature,
    UnknownName,
    collect,
    service_fields,
    service_views,
)

AIRCRAFT = Entity("aircraft", keys=("tailnum",))
SEATS = Feature("seats", "int", minimum=0)
MAKER = Feature("maker", "category", categories=("BOEING", "AIRBUS"))
DISTANCE = RequestFeature("distance", "float", minimum=0)


def fleet(**changes: Any) -> FeatureView:
    given: dict[str, Any] = {
        "entity": AIRCRAFT, "dataset": "planes", "sql": "SELECT 1", "features": [SEATS, MAKER]
    }  # fmt: skip
    return FeatureView("fleet", **(given | changes))


def test_a_module_is_collected_with_its_references_resolved() -> None:
    view = fleet()
    service = FeatureService("delay", features=["fleet:maker", DISTANCE, "fleet:seats"])
    definitions = collect({"a": view, "again": view, "s": service, "other": 3, "DISTANCE": DISTANCE})
    assert definitions.entities == {"aircraft": AIRCRAFT}
    assert definitions.view("fleet") is view
    assert service_views(service, definitions) == (view,)
    fields = service_fields(definitions.service("delay"), definitions)
    assert [(f.name, f.dtype, f.source) for f in fields] == [
        ("maker", "category", "fleet:maker"),
        ("distance", "float", "request"),
        ("seats", "int", "fleet:seats"),
    ]
    assert fields[0].categories == ("BOEING", "AIRBUS")
    assert fields[2].minimum == 0


@pytest.mark.parametrize(
    ("reference", "near"), [("flet:seats", "'fleet'"), ("fleet:seat", "'seats'"), ("fleet:nothing", "seats")]
)
def test_a_reference_to_nothing_names_what_is_near(reference: str, near: str) -> None:
    with pytest.raises(UnknownName) as caught:
        collect({"v": fleet(), "s": FeatureService("delay", features=[reference])})
    assert near in caught.value.remedy


def test_two_things_of_one_name_are_refused() -> None:
    with pytest.raises(BadDefinition):
        collect({"a": fleet(), "b": fleet(ttl_s=5)})
    with pytest.raises(BadDefinition):
        collect({"a": fleet(), "b": Entity("aircraft", keys=("id",))})
    assert len(collect({"a": fleet(), "b": fleet()}).views) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Entity("aircraft", keys=()),
        lambda: Entity("aircraft", keys="tailnum"),  # type: ignore[arg-type]
        lambda: Entity("aircraft", keys=("a", "A")),
        lambda: Feature("a b", "float"),
        lambda: Feature("a__b", "float"),
        lambda: Feature("a", "double"),  # type: ignore[arg-type]
        lambda: Feature("a", "category"),
        lambda: Feature("a", "float", categories=("x",)),
        lambda: Feature("a", "category", categories=("x", "x")),
        lambda: Feature("a", "category", categories="xy"),  # type: ignore[arg-type]
        lambda: Feature("a", "bool", minimum=0),
        lambda: Feature("a", "int", minimum=2, maximum=1),
        lambda: Feature("a", "float", maximum=float("nan")),
        lambda: Feature("a", "float", maximum=float("inf")),
        lambda: fleet(sql="  "),
        lambda: fleet(dataset=""),
        lambda: fleet(datasets=("planes",)),
        lambda: fleet(features=[]),
        lambda: fleet(features=[DISTANCE]),
        lambda: fleet(features=[SEATS, SEATS]),
        lambda: fleet(features=[Feature("Tailnum", "int")]),
        lambda: fleet(available_at="event_at"),
        lambda: fleet(ttl_s=0),
        lambda: fleet(ttl_s=True),
        lambda: fleet(entity="aircraft"),
        lambda: FeatureService("s", features=[]),
        lambda: FeatureService("s", features=["fleet"]),
        lambda: FeatureService("s", features=[SEATS]),  # type: ignore[list-item]
        lambda: FeatureService("s", features=["a:x", "b:x"]),
        lambda: FeatureService("s", features=["a:distance", DISTANCE]),
    ],
)
def test_a_definition_that_contradicts_itself_is_never_made(wrong: Any) -> None:
    with pytest.raises(BadDefinition) as caught:
        wrong()
    assert caught.value.remedy


def test_names_follow_the_rules_of_the_house() -> None:
    for wrong in (lambda: Entity("Air Craft", keys=("a",)), lambda: fleet(dataset="Planes!")):
        with pytest.raises(BadName):
            wrong()


def test_several_datasets_may_be_read() -> None:
    assert fleet(dataset="", datasets=["flights", "planes"]).reads == ("flights", "planes")
    assert fleet(datasets=["flights"]).reads == ("planes", "flights")


@pytest.fixture(scope="module")
def heavy_imports() -> str:
    """Heavy packages that a fresh interpreter holds after importing the definitions."""
    heavy = "sorted({'numpy', 'pyarrow', 'sqlglot', 'duckdb', 'yaml'} & set(sys.modules))"
    code = f"import sys, lockgate.features.definition; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_definitions_imports_nothing_heavy(heavy_imports: str) -> None:
    assert heavy_imports == "[]"
