"""Gate `features.compat`: each way a definition can move on under a package."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.core.digests import canonical, sha256
from lockgate.gates.evidence import Evidence, Subject, explain
from lockgate.gates.features import ServedFeature, ServedFeatures, ServedView, features_compat
from lockgate.registry.packages.contract import InputField

BUILT = {"fleet": sha256(b"fleet"), "queue": sha256(b"queue")}
INPUTS = (
    InputField(name="distance", dtype="int"),
    InputField(name="seats", dtype="int", source="fleet:seats"),
    InputField(name="maker", dtype="category", categories=("A", "B"), source="fleet:maker"),
    InputField(name="waiting", dtype="int", source="queue:waiting"),
)
FLEET = ServedView(
    view=BUILT["fleet"],
    keys=("tailnum",),
    features={
        "seats": ServedFeature(dtype="int"),
        "maker": ServedFeature(dtype="category", categories=("A", "B")),
    },
)
QUEUE = ServedView(view=BUILT["queue"], keys=("origin",), features={"waiting": ServedFeature(dtype="int")})
NOW = ServedFeatures(views={"fleet": FLEET, "queue": QUEUE})
PACKAGE = sha256(b"package")


def judged(served: ServedFeatures | None, **changes: Any) -> Evidence:
    given: dict[str, Any] = {
        "inputs": INPUTS,
        "views": BUILT,
        "subject": Subject(inputs={"package": PACKAGE}, environment="prod"),
        **changes,
    }
    return features_compat(given.pop("inputs"), given.pop("views"), served, **given)


def with_fleet(**changes: Any) -> ServedFeatures:
    return ServedFeatures(views={"fleet": msgspec.structs.replace(FLEET, **changes), "queue": QUEUE})


def test_definitions_as_they_were_pass() -> None:
    found = judged(NOW)
    assert (found.verdict, found.value, found.n, found.threshold) == ("pass", 0.0, 3, 0.0)
    assert found.details == ("3 of 4 inputs come from feature views, sent by callers",)
    assert set(found.inputs) == {"package", "definitions"} and found.environment == "prod"


MOVED: dict[str, tuple[ServedFeatures, float, str]] = {
    "gone": (ServedFeatures(views={"fleets": FLEET, "queue": QUEUE}), 2, "did you mean 'fleets'?"),
    "meaning": (with_fleet(view=sha256(b"other")), 2, "it means something else"),
    "key": (with_fleet(keys=("plane",)), 2, "keyed by plane now, by tailnum"),
    "feature": (
        with_fleet(features={"seat": ServedFeature(dtype="int"), "maker": FLEET.features["maker"]}),
        1,
        "no feature seats any more; did you mean 'seat'?",
    ),
    "dtype": (
        with_fleet(features={**FLEET.features, "seats": ServedFeature(dtype="float")}),
        1,
        "fleet:seats is float now, int when it was built",
    ),
    "categories": (
        with_fleet(
            features={**FLEET.features, "maker": ServedFeature(dtype="category", categories=("B", "A"))}
        ),
        1,
        "other categories",
    ),
}


@pytest.mark.parametrize("case", MOVED)
def test_what_moved_on_is_named(case: str) -> None:
    served, n, words = MOVED[case]
    found = judged(served, keys={"fleet": ("tailnum",), "queue": ("origin",)})
    assert (found.verdict, found.reason, found.value, found.n) == ("fail", "beyond_limit", n, 3)
    assert words in found.details[0] and words in explain(found)
    assert "seats" in found.details[0] or "maker" in found.details[0]
    assert found.blocks and found.digest != judged(NOW).digest


def test_keys_are_columns_of_sql_and_have_no_case() -> None:
    assert judged(NOW, keys={"fleet": ("TailNum",), "queue": ("origin",)}).verdict == "pass"


def test_what_is_read_by_key_must_have_rows() -> None:
    keys = {"fleet": ("tailnum",), "queue": ("origin",)}
    filled = msgspec.structs.replace(NOW, online=frozenset(BUILT.values()))
    assert judged(filled, keys=keys).verdict == "pass"
    assert "read from the online store" in judged(filled, keys=keys).details[0]
    half = msgspec.structs.replace(NOW, online=frozenset({BUILT["fleet"]}))
    found = judged(half, keys=keys)
    assert (found.verdict, found.value) == ("fail", 1.0)
    assert found.details == (
        f"waiting: the online store holds no rows of view queue ({BUILT['queue'][7:19]}); "
        "fill it: lockgate materialize",
    )
    empty = judged(msgspec.structs.replace(NOW, online=frozenset()), keys=keys)
    assert empty.value == 3.0 and len(empty.details) == 2
    # A package of before views could be read by key does not say which key it is.
    old = judged(filled)
    assert old.value == 3.0 and "build it again" in old.details[0]


def test_a_model_of_request_features_asks_nothing() -> None:
    for served in (NOW, None):
        found = judged(served, inputs=INPUTS[:1], views={})
        assert (found.verdict, found.n) == ("pass", 1)
        assert found.details == ("all 1 inputs come with the request",)
        assert "definitions" not in found.inputs


def test_other_views_do_not_change_the_record() -> None:
    more = ServedFeatures(
        views={**NOW.views, "weather": msgspec.structs.replace(QUEUE, view=sha256(b"weather"))}
    )
    assert canonical(judged(more)) == canonical(judged(NOW))


@pytest.mark.parametrize(
    "changes", [{"inputs": ()}, {"views": {}}, {"inputs": (None,)}, {"views": None}], ids=str
)
def test_what_cannot_be_compared_is_an_error(changes: dict[str, Any]) -> None:
    found = judged(NOW, **changes)
    assert (found.verdict, found.n) == ("error", 0) and found.details


def test_nobody_to_say_what_is_served_is_an_error() -> None:
    found = judged(None)
    assert (found.verdict, found.reason) == ("error", "missing_input")
