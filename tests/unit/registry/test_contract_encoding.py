from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from lockgate.core.digests import canonical
from lockgate.registry.packages.contract import (
    ContractInvalid,
    InputField,
    InputRejected,
    ModelContract,
    OutputField,
    RowEncoder,
    compare_contracts,
    encode_columns,
    encode_rows,
)

CONTRACT = ModelContract(
    inputs=(
        InputField(name="distance", dtype="float", nullable=False, minimum=0, maximum=20_000),
        InputField(name="hour", dtype="int", minimum=0, maximum=23),
        InputField(name="carrier", dtype="category", categories=("AA", "DL")),
        InputField(name="holiday", dtype="bool"),
    ),
    output=OutputField(name="late", minimum=0, maximum=1),
)
ROW: dict[str, Any] = {"distance": 100.5, "hour": 7, "carrier": "DL", "holiday": True}


def _contract(**field: Any) -> ModelContract:
    return ModelContract(inputs=(InputField(name="x", **field),), output=OutputField(name="p"))


def test_each_type_has_one_code() -> None:
    matrix = encode_rows(
        CONTRACT,
        [ROW, {"distance": 3, "hour": None, "carrier": None, "holiday": None}, ROW | {"carrier": "ZZ"}],
    )
    assert matrix.dtype == np.float32
    expected = [[100.5, 7, 1, 1], [3, math.nan, math.nan, math.nan], [100.5, 7, -1, 1]]
    np.testing.assert_array_equal(matrix, np.array(expected, dtype=np.float32))


def test_a_nullable_field_may_be_absent_and_no_rows_are_fine() -> None:
    assert np.isnan(encode_rows(CONTRACT, [{"distance": 1.0}])[0, 1:]).all()
    assert encode_rows(CONTRACT, []).shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"distance": None}, "null", "'distance' is null"),
        ({"distance": "far"}, "wrong-type", "'distance' is 'far', not a number between 0 and 20000"),
        ({"distance": True}, "wrong-type", "'distance' is True"),
        ({"distance": math.nan}, "not-finite", "'distance' is nan"),
        ({"distance": math.inf}, "not-finite", "'distance' is inf"),
        ({"distance": -0.1}, "out-of-range", "'distance' is -0.1, not a number between 0 and 20000"),
        ({"distance": 20_000.1}, "out-of-range", "'distance' is 20000.1"),
        ({"distance": 2**53 + 1}, "too-large", "too large to keep exactly"),
        ({"hour": 7.5}, "wrong-type", "'hour' is 7.5, not a whole number between 0 and 23"),
        ({"hour": 24}, "out-of-range", "'hour' is 24"),
        ({"hour": "7"}, "wrong-type", "'hour' is '7'"),
        ({"carrier": 1}, "wrong-type", "'carrier' is 1, not a text"),
        ({"holiday": 1}, "wrong-type", "'holiday' is 1, not true or false"),
        ({"distanc": 1.0}, "unknown-field", "'distanc' is not known"),
        ({"carrier": {"a": "b" * 1000}}, "wrong-type", "'carrier' is {'a'"),
    ],
)
def test_a_refusal_names_row_field_and_reason(change: dict[str, Any], reason: str, words: str) -> None:
    with pytest.raises(InputRejected) as caught:
        encode_rows(CONTRACT, [ROW, ROW | change])
    error = caught.value
    assert error.facts["reason"] == reason
    assert error.facts["field"] == next(iter(change))
    assert error.facts["row"] == 1
    assert words in error.message
    assert error.message.startswith("row 1: ")
    assert len(error.message) < 160
    assert error.remedy


def test_an_unknown_field_gets_the_near_name() -> None:
    with pytest.raises(InputRejected) as caught:
        encode_rows(CONTRACT, [ROW | {"carier": "DL"}])
    assert caught.value.remedy == "did you mean 'carrier'?"


def test_a_required_field_must_be_there() -> None:
    with pytest.raises(InputRejected, match="'distance' is missing"):
        encode_rows(CONTRACT, [{"hour": 3}])


@pytest.mark.parametrize("row", [None, 3, "distance", ["distance"], [("distance", 1)]])
def test_a_row_is_an_object(row: Any) -> None:
    with pytest.raises(InputRejected, match="not an object") as caught:
        RowEncoder(CONTRACT).encode([row])
    assert caught.value.facts["reason"] == "not-an-object"


def test_what_float32_cannot_hold_is_refused_and_its_largest_is_not() -> None:
    largest = float(np.finfo(np.float32).max)
    contract = _contract(dtype="float")
    assert encode_rows(contract, [{"x": largest}])[0, 0] == np.float32(largest)
    with pytest.raises(InputRejected, match="too large"):
        encode_rows(contract, [{"x": 3.4028235677973366e38}])
    with pytest.raises(InputRejected, match="too large"):
        encode_columns(contract, {"x": np.array([1.0, 3.4028235677973366e38])})


@pytest.mark.parametrize("value", [2**53, -(2**53)])
def test_the_last_exact_integers(value: int) -> None:
    contract = _contract(dtype="int")
    beyond = value + (1 if value > 0 else -1)
    assert encode_rows(contract, [{"x": value}])[0, 0] == value
    for columns in ({"x": [beyond]}, {"x": np.array([beyond])}, pa.table({"x": [None, beyond]})):
        with pytest.raises(InputRejected, match="too large"):
            encode_columns(contract, columns)


def test_columns_of_every_kind_encode_alike() -> None:
    table = pa.table(
        {
            "holiday": pa.array([True, None]),
            "carrier": pa.array(["ZZ", None]).dictionary_encode(),
            "hour": pa.array([3, None], pa.int16()),
            "distance": pa.array([1.5, 2.0], pa.float32()),
            "label": pa.array([0, 1]),
        }
    )
    expected = encode_rows(CONTRACT, table.drop_columns(["label"]).to_pylist())
    masked = np.ma.masked_array([3, 0], mask=[False, True])
    columns = {
        "distance": np.array([1.5, 2.0]),
        "hour": masked,
        "carrier": np.array(["ZZ", None], dtype=object),
        "holiday": [True, None],
    }
    for given in (table, table.to_pydict(), columns, pa.concat_tables([table[:1], table[1:]])):
        assert encode_columns(CONTRACT, given).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("column", "row", "words"),
    [
        (pa.chunked_array([[1.0, 2.0], [3.0, -1.0]]), 3, "-1.0"),
        (pa.chunked_array([[1.0, 2.0], [None]]), 2, "null"),
        (pa.array([1.0, math.nan]), 1, "nan"),
        (pa.array(["a"]), 0, "'a'"),
        (pa.array([True]), 0, "True"),
        (np.array([1.0, math.nan]), 1, "nan"),
        (np.ma.masked_array([1.0, 2.0], mask=[False, True]), 1, "null"),
        ([1.0, None], 1, "null"),
        ([1.0, "a"], 1, "'a'"),
        (np.array(["1"]), 0, "'1'"),
    ],
    ids=repr,
)
def test_a_bad_value_in_a_column_is_found_by_row(column: Any, row: int, words: str) -> None:
    contract = _contract(dtype="float", nullable=False, minimum=0)
    with pytest.raises(InputRejected) as caught:
        encode_columns(contract, {"x": column})
    assert caught.value.facts["row"] == row
    assert words in caught.value.message


def test_bad_categories_in_a_column_are_found_by_row() -> None:
    contract = _contract(dtype="category", categories=("a",), nullable=False)
    for column in (pa.chunked_array([["a"], ["b", None]]), ["a", "b", None]):
        with pytest.raises(InputRejected) as caught:
            encode_columns(contract, {"x": column})
        assert caught.value.facts["row"] == 2
    with pytest.raises(InputRejected, match="is 7"):
        encode_columns(contract, {"x": pa.array([7])})


def test_a_missing_column_gets_the_near_name_and_lengths_must_agree() -> None:
    columns = {"distance": [1.0], "hour": [1], "carrier": ["AA"], "hoilday": [True]}
    with pytest.raises(InputRejected, match="'holiday' is missing") as caught:
        encode_columns(CONTRACT, columns)
    assert "hoilday" in caught.value.remedy
    with pytest.raises(InputRejected, match="has 2 values"):
        encode_columns(CONTRACT, columns | {"holiday": [True, None]})


@pytest.mark.parametrize(
    "field",
    [
        {"dtype": "category"},
        {"dtype": "float", "categories": ("a",)},
        {"dtype": "category", "categories": ("a", "a")},
        {"dtype": "bool", "minimum": 0},
        {"dtype": "float", "minimum": 2, "maximum": 1},
        {"dtype": "float", "minimum": math.nan},
        {"dtype": "float", "maximum": math.inf},
    ],
    ids=repr,
)
def test_a_field_that_makes_no_sense_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ContractInvalid, match="'x'"):
        InputField(name="x", **field)


def test_a_contract_needs_inputs_with_different_names() -> None:
    with pytest.raises(ContractInvalid):
        ModelContract(inputs=(), output=OutputField(name="p"))
    with pytest.raises(ContractInvalid, match="two inputs"):
        ModelContract(inputs=CONTRACT.inputs + CONTRACT.inputs[:1], output=OutputField(name="p"))


def test_a_contract_has_one_byte_form() -> None:
    data = canonical(CONTRACT)
    assert msgspec.json.decode(data, type=ModelContract) == CONTRACT
    assert canonical(msgspec.json.decode(data, type=ModelContract)) == data
    whole, real = _contract(dtype="float", minimum=0), _contract(dtype="float", minimum=0.0)
    assert canonical(whole) == canonical(real)


def _changed(**change: Any) -> ModelContract:
    first = msgspec.structs.replace(CONTRACT.inputs[0], **change)
    return msgspec.structs.replace(CONTRACT, inputs=(first, *CONTRACT.inputs[1:]))


@pytest.mark.parametrize(
    ("new", "breaking", "words"),
    [
        (_changed(name="distance_km"), [True, True], "input distance is gone (renamed to distance_km?)"),
        (_changed(name="distance_km", nullable=True), [True, False], "optional input distance_km is new"),
        (_changed(dtype="int"), [True], "changed type float -> int"),
        (_changed(nullable=True), [False], "now optional"),
        (_changed(maximum=10), [True], "[0, 20000] -> [0, 10]"),
        (_changed(maximum=None), [False], "[0, 20000] -> [0, inf]"),
        (_changed(source="flights:distance"), [False], "comes from flights:distance"),
        (msgspec.structs.replace(CONTRACT, inputs=CONTRACT.inputs[:3]), [True], "input holiday is gone"),
        (msgspec.structs.replace(CONTRACT, inputs=CONTRACT.inputs[::-1]), [], ""),
        (
            msgspec.structs.replace(CONTRACT, output=OutputField(name="late", kind="value")),
            [True, True, True],
            "output kind changed 'probability' -> 'value'",
        ),
    ],
)
def test_what_breaks_a_caller(new: ModelContract, breaking: list[bool], words: str) -> None:
    changes = compare_contracts(CONTRACT, new)
    assert [change.breaking for change in changes] == breaking
    assert words in "; ".join(change.message for change in changes)


def test_categories_may_be_gained_and_not_lost() -> None:
    few, many = (_contract(dtype="category", categories=texts) for texts in (("a",), ("b", "a")))
    assert [change.breaking for change in compare_contracts(few, many)] == [False]
    assert [change.breaking for change in compare_contracts(many, few)] == [True]


def test_a_looked_up_value_that_callers_must_now_send_breaks_them() -> None:
    here = _contract(dtype="float", nullable=False)
    there = _contract(dtype="float", nullable=False, source="flights:x")
    assert [change.breaking for change in compare_contracts(there, here)] == [True]
    added = ModelContract(inputs=(*there.inputs, *_renamed(there)), output=there.output)
    # Today the request carries looked-up inputs too: a new one that must have a value breaks callers.
    assert [change.breaking for change in compare_contracts(there, added)] == [True]


def _renamed(contract: ModelContract) -> tuple[InputField, ...]:
    return (msgspec.structs.replace(contract.inputs[0], name="y"),)


def test_what_is_tolerated_is_passed_over_and_nothing_else() -> None:
    encoder = RowEncoder(CONTRACT)
    encoder.tolerated = frozenset({"visibility", *CONTRACT.names})
    with_more = encoder.encode([ROW | {"visibility": 3.0}])
    np.testing.assert_array_equal(with_more, encode_rows(CONTRACT, [ROW]))
    with pytest.raises(InputRejected, match="visiblity"):
        encoder.encode([ROW | {"visibility": 3.0, "visiblity": 3.0}])
