"""Features by key: the same bits as features sent raw, and every failure on the right account."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from lockgate.core.digests import Digest, sha256
from lockgate.core.errors import LockgateError
from lockgate.features.ports import Key, OnlineRow, Value
from lockgate.registry.packages.contract import InputField, ModelContract, OutputField, RowEncoder
from lockgate.registry.packages.package import KeyField, OnlineView
from lockgate.serving.endpoint import Recorder, Runtime
from lockgate.serving.errors import EntityRejected, FeaturesUnavailable, ViewMisfit
from lockgate.serving.lookup import Lookup
from lockgate.serving.ports import ReadyPackage
from lockgate.testing.memory_online import MemoryOnline
from lockgate.testing.memory_target import constant

NOW = 1_000_000_000
WEATHER, PLANE = sha256(b"weather"), sha256(b"plane")
VIEWS = (
    OnlineView(
        name="weather",
        view=WEATHER,
        keys=(KeyField(name="origin", dtype="string"),),
        features=("wind", "rain", "sky"),
        ttl_s=60,
    ),
    OnlineView(
        name="plane",
        view=PLANE,
        keys=(KeyField(name="carrier", dtype="string"), KeyField(name="flight", dtype="int")),
        features=("age",),
    ),
)
CONTRACT = ModelContract(
    inputs=(
        InputField(name="distance", dtype="float", nullable=False),
        InputField(name="sky", dtype="category", categories=("clear", "cloudy"), source="weather:sky"),
        InputField(name="gusts", dtype="float", maximum=100.0, source="weather:wind"),
        InputField(name="age", dtype="int", nullable=False, source="plane:age"),
    ),
    output=OutputField(name="p"),
)
KEYS: dict[str, Any] = {"origin": "EWR", "carrier": "UA", "flight": 1545}
ROW: dict[str, Any] = {"distance": 1400}


def put(store: MemoryOnline, view: Digest, key: Key, *values: Value, event_at: int = NOW) -> None:
    store.write(view, [(key, OnlineRow(event_at, event_at, values))])


@pytest.fixture
def store() -> MemoryOnline:
    filled = MemoryOnline()
    put(filled, WEATHER, ("EWR",), 12.5, True, "cloudy")
    put(filled, PLANE, ("UA", 1545), 7)
    return filled


@pytest.fixture
def lookup(store: MemoryOnline) -> Lookup:
    return Lookup(CONTRACT, VIEWS, store)


def test_features_are_named_as_the_contract_names_them(lookup: Lookup) -> None:
    rows = [dict(ROW)]
    assert lookup.fill(rows, [KEYS], [NOW]) == [{"distance": 1400, "sky": "cloudy", "gusts": 12.5, "age": 7}]
    assert rows == [ROW], "the caller's rows stay what they are"


def test_looked_up_and_sent_give_the_same_bits(lookup: Lookup) -> None:
    encoder = RowEncoder(CONTRACT)
    sent = {"distance": 1400, "sky": "cloudy", "gusts": 12.5, "age": 7}
    filled = lookup.fill([ROW], [KEYS], [NOW])
    assert encoder.encode(filled).tobytes() == encoder.encode([sent]).tobytes()


@pytest.mark.parametrize(
    ("as_of", "sky"),
    [(NOW - 1, None), (NOW, "cloudy"), (NOW + 60_000_000, "cloudy"), (NOW + 60_000_001, None)],
)
def test_a_row_counts_from_when_it_is_known_until_it_expires(
    lookup: Lookup, store: MemoryOnline, as_of: int, sky: str | None
) -> None:
    put(store, PLANE, ("B6", 1), 3, event_at=0)
    keys = {**KEYS, "carrier": "B6", "flight": 1}
    assert lookup.fill([ROW], [keys], [as_of])[0]["sky"] == sky


def test_a_row_that_happened_but_is_not_available_yet_is_missing(lookup: Lookup, store: MemoryOnline) -> None:
    store.write(WEATHER, [(("JFK",), OnlineRow(NOW, NOW + 5, (1.0, False, "clear")))])
    keys = {**KEYS, "origin": "JFK"}
    assert lookup.fill([ROW], [keys], [NOW + 4])[0]["sky"] is None
    assert lookup.fill([ROW], [keys], [NOW + 5])[0]["sky"] == "clear"


def test_each_row_has_its_own_moment(lookup: Lookup) -> None:
    filled = lookup.fill([ROW] * 2, [KEYS] * 2, [NOW, NOW + 60_000_001])
    assert [row["sky"] for row in filled] == ["cloudy", None]


def test_each_row_has_its_own_keys_and_an_unknown_key_gives_nulls(lookup: Lookup) -> None:
    filled = lookup.fill(
        [ROW] * 3, [KEYS, {**KEYS, "origin": "XXX", "more": [1]}, {**KEYS, "origin": None}], [NOW] * 3
    )
    assert [row["gusts"] for row in filled] == [12.5, None, None]
    assert [row["age"] for row in filled] == [7, 7, 7]


@pytest.mark.parametrize(
    ("keys", "field", "reason"),
    [
        ({"origin": 7}, "origin", "wrong-type"),
        ({"origin": ["EWR"]}, "origin", "wrong-type"),
        ({"flight": "1545"}, "flight", "wrong-type"),
        ({"flight": 1545.0}, "flight", "wrong-type"),
        ({"flight": True}, "flight", "wrong-type"),
        ({"flight": 2**63}, "flight", "wrong-type"),
        ({"origin": None, "carrier": 3}, "carrier", "wrong-type"),
        ({"carrier": None, "flight": "x"}, "flight", "wrong-type"),
    ],
)
def test_a_key_of_the_wrong_type_is_the_callers(
    lookup: Lookup, keys: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(EntityRejected) as caught:
        lookup.fill([ROW, ROW], [KEYS, {**KEYS, **keys}], [NOW] * 2)
    assert (caught.value.facts["field"], caught.value.facts["reason"]) == (field, reason)
    assert caught.value.facts["row"] == 1 and caught.value.remedy


def test_a_key_column_that_is_not_there_is_named(lookup: Lookup) -> None:
    with pytest.raises(EntityRejected, match="row 0: key 'flight' of plane is missing"):
        lookup.fill([ROW], [{"origin": "EWR", "carrier": "UA"}], [NOW])


def test_a_feature_that_is_read_by_key_may_not_be_sent_too(lookup: Lookup) -> None:
    with pytest.raises(EntityRejected, match="field 'gusts' is read from weather by key") as caught:
        lookup.fill([ROW, {**ROW, "gusts": 1.0}], [KEYS, KEYS], [NOW] * 2)
    assert caught.value.facts == {"field": "gusts", "view": "weather", "row": 1, "reason": "sent-too"}


@pytest.mark.parametrize("keys", [{**KEYS, "flight": 1}, {**KEYS, "flight": None}])
def test_a_null_that_may_not_be_is_no_callers_fault(lookup: Lookup, keys: dict[str, Any]) -> None:
    with pytest.raises(FeaturesUnavailable, match="plane: 'age' is missing, and the version needs it"):
        lookup.fill([ROW], [keys], [NOW])


def test_what_another_loaded_version_takes_from_the_request_is_ignored(lookup: Lookup) -> None:
    """An input that moves to a view: in its canary one request must fit the version before and the one after."""
    assert lookup.sent == {"distance"}
    lookup.ignore(frozenset({"gusts", "distance"}))
    (filled,) = lookup.fill([{"distance": 1400, "gusts": 99.0}], [KEYS], [NOW])
    assert filled["gusts"] == 12.5
    with pytest.raises(EntityRejected, match="age"):
        lookup.fill([{"distance": 1400, "age": 1}], [KEYS], [NOW])


class Refusing(MemoryOnline):
    def read_many(self, requests: Sequence[tuple[Digest, Sequence[Key]]]) -> list[list[OnlineRow | None]]:
        raise OSError("secret path")


def test_a_store_that_cannot_be_read_degrades(store: MemoryOnline) -> None:
    with pytest.raises(FeaturesUnavailable, match=r"cannot be read \(OSError\)") as caught:
        Lookup(CONTRACT, VIEWS, Refusing()).fill([ROW], [KEYS], [NOW])
    assert caught.value.retryable and "secret" not in str(caught.value.record())


def test_without_a_store_it_says_so(lookup: Lookup) -> None:
    with pytest.raises(FeaturesUnavailable, match="no online store"):
        Lookup(CONTRACT, VIEWS).fill([ROW], [KEYS], [NOW])


def test_a_stored_row_of_another_shape_degrades(lookup: Lookup, store: MemoryOnline) -> None:
    put(store, WEATHER, ("LGA",), 1.0)
    with pytest.raises(FeaturesUnavailable, match="has 1 values, not 3"):
        lookup.fill([ROW], [{**KEYS, "origin": "LGA"}], [NOW])


def test_a_version_that_reads_nothing_ignores_entities() -> None:
    contract = ModelContract(inputs=(InputField(name="x", dtype="float"),), output=OutputField(name="p"))
    assert Lookup(contract).fill([{"x": 1}], [{"origin": 3}], [NOW]) == [{"x": 1}]


def test_a_package_that_names_no_keys_takes_the_features_raw_or_says_so() -> None:
    lookup = Lookup(CONTRACT)
    whole = {"distance": 1400, "sky": "cloudy", "gusts": 12.5, "age": 7}
    assert lookup.fill([whole], [KEYS], [NOW]) == [whole]
    with pytest.raises(EntityRejected, match="cannot read 'sky' by key") as caught:
        lookup.fill([ROW], [KEYS], [NOW])
    assert caught.value.facts["reason"] == "no-keys"


def test_a_view_without_the_feature_does_not_load() -> None:
    contract = ModelContract(
        inputs=(InputField(name="x", dtype="float", source="plane:weight"),), output=OutputField(name="p")
    )
    with pytest.raises(ViewMisfit, match="plane:weight"):
        Lookup(contract, VIEWS)


@pytest.mark.parametrize(
    ("wind", "why"), [(math.nan, "nan"), (101.0, "101.0"), ("strong", "strong"), (1e300, "1e\\+300")]
)
def test_a_stored_value_that_the_contract_does_not_admit_is_no_callers_fault(
    store: MemoryOnline, lookup: Lookup, wind: Value, why: str
) -> None:
    put(store, WEATHER, ("LGA",), wind, True, "clear")
    runtime = Runtime("1.0.0", ReadyPackage(sha256(b"p"), CONTRACT, constant(0.5), lookup), Recorder())
    with pytest.raises(FeaturesUnavailable, match=f"weather does not fit the contract: .*{why}"):
        runtime.take([ROW], [{**KEYS, "origin": "LGA"}], [NOW])
    with pytest.raises(LockgateError, match="'distance' is missing") as caught:
        runtime.take([{}], [KEYS], [NOW])
    assert caught.value.code == "registry.input-rejected"
