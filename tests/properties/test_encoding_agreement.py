"""Training encodes columns, serving encodes rows: for every contract and every value, bit for bit the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.registry.packages.contract import (
    InputField,
    InputRejected,
    ModelContract,
    OutputField,
    RowEncoder,
    encode_columns,
    encode_rows,
)

TEXTS = st.text(alphabet="abcé☃", max_size=3)
BOUNDS = st.one_of(st.none(), st.integers(-1000, 1000).map(float))
FLOAT32_EDGES = [3.4028234663852886e38, 3.4028235677973362e38, 3.4028235677973366e38, 1e-45, -0.0, 5e-324]
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(-2000, 2000), st.sampled_from(FLOAT32_EDGES)
)
WHOLE = st.one_of(st.integers(-2000, 2000), st.integers(-(2**53) - 2, 2**53 + 2))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.one_of(NUMBERS, WHOLE),
    "int": st.one_of(WHOLE, st.floats(-5, 5), st.integers(-50, 50).map(float)),
    "bool": st.booleans(),
    "category": TEXTS,
}
ANY = st.one_of(NUMBERS, WHOLE, st.booleans(), TEXTS, st.none(), st.just(math.nan), st.just(-math.inf))


@st.composite
def fields(draw: st.DrawFn, name: str) -> InputField:
    dtype = draw(st.sampled_from(("float", "int", "bool", "category")))
    low, high = (draw(BOUNDS), draw(BOUNDS)) if dtype in ("float", "int") else (None, None)
    if low is not None and high is not None and low > high:
        low, high = high, low
    categories = tuple(draw(st.lists(TEXTS, min_size=1, unique=True))) if dtype == "category" else ()
    nullable = draw(st.booleans())
    return InputField(
        name=name, dtype=dtype, categories=categories, nullable=nullable, minimum=low, maximum=high
    )


@st.composite
def tables(draw: st.DrawFn) -> tuple[ModelContract, list[dict[str, Any]]]:
    """A contract and rows that mostly, not always, keep it."""
    inputs = tuple(draw(fields(f"f{number}")) for number in range(draw(st.integers(1, 4))))
    wild = draw(st.integers(0, 3)) == 0
    row = {
        field.name: ANY if wild else VALUES[field.dtype] | (st.none() if field.nullable else st.nothing())
        for field in inputs
    }
    rows = draw(st.lists(st.fixed_dictionaries(row), min_size=1, max_size=8))
    return ModelContract(inputs=inputs, output=OutputField(name="p")), rows


def _outcome(encode: Any, contract: ModelContract, given: Any) -> Any:
    try:
        return encode(contract, given).tobytes()
    except InputRejected as error:
        return {"field": error.facts["field"], "row": error.facts["row"], "message": error.message}


def _first_refusal(contract: ModelContract, rows: list[dict[str, Any]]) -> Any:
    """What `encode_columns` should say: the first field in contract order, then its first row."""
    for field in contract.inputs:
        alone = ModelContract(inputs=(field,), output=contract.output)
        outcome = _outcome(encode_rows, alone, [{field.name: row[field.name]} for row in rows])
        if isinstance(outcome, dict):
            return outcome
    return _outcome(encode_rows, contract, rows)


def _arrow(rows: list[dict[str, Any]], n_chunks: int) -> pa.Table | None:
    """The same rows as Arrow; None when a column mixes types, which Arrow cannot hold."""
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if len({type(value) for value in values if value is not None}) > 1:
            return None
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, OverflowError):
            return None
    table = pa.table(columns)
    size = max(1, len(rows) // n_chunks)
    return pa.concat_tables([table[at : at + size] for at in range(0, len(rows), size)])


@settings(max_examples=250)
@given(tables(), st.integers(1, 3))
def test_columns_and_rows_agree_bit_for_bit(case: tuple[ModelContract, list[Any]], n_chunks: int) -> None:
    contract, rows = case
    expected = _first_refusal(contract, rows)
    lists = {name: [row[name] for row in rows] for name in rows[0]}
    assert _outcome(encode_columns, contract, lists) == expected
    table = _arrow(rows, n_chunks)
    if table is not None:
        assert _outcome(encode_columns, contract, table) == expected


@settings(max_examples=100)
@given(
    fields("x").filter(lambda field: field.dtype in ("float", "int")),
    st.sampled_from((np.int8, np.int64, np.uint64, np.float32, np.float64)),
    st.data(),
)
def test_numpy_columns_agree_with_their_elements(field: InputField, kind: Any, data: st.DataObject) -> None:
    contract = ModelContract(inputs=(field,), output=OutputField(name="p"))
    if np.issubdtype(kind, np.floating):
        element = st.floats(width=32 if kind is np.float32 else 64)
    else:
        element = st.integers(int(np.iinfo(kind).min), int(np.iinfo(kind).max)) | st.integers(0, 100)
    column = np.array(data.draw(st.lists(element, min_size=1, max_size=6)), dtype=kind)
    expected = _first_refusal(contract, [{"x": value} for value in column.tolist()])
    assert _outcome(encode_columns, contract, {"x": column}) == expected
    assert _outcome(encode_columns, contract, {"x": list(column)}) == _place_of(expected)


def _place_of(outcome: Any) -> Any:
    """A numpy scalar prints as itself, so only the place of a refusal is compared for lists of them."""
    if isinstance(outcome, bytes):
        return outcome
    return _Place(outcome)


class _Place:
    def __init__(self, outcome: dict[str, Any]) -> None:
        self._field, self._row = outcome["field"], outcome["row"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and (other["field"], other["row"]) == (self._field, self._row)


@settings(max_examples=150)
@given(tables(), st.data())
def test_rows_judged_as_a_whole_fare_as_value_by_value(
    case: tuple[ModelContract, list[Any]], data: st.DataObject
) -> None:
    contract, rows = case
    rows = [dict(row) for row in rows]
    for row in rows:
        for name in data.draw(st.lists(st.sampled_from([*contract.names, "other", "stranger"]), max_size=2)):
            if name in contract.names:
                row.pop(name, None)
            else:
                row[name] = 1
    encoder = RowEncoder(contract)
    encoder.tolerated = frozenset({*contract.names, "other"})

    def outcome(encode: Any) -> Any:
        try:
            return encode(rows).tobytes()
        except InputRejected as error:
            return error.message, error.remedy, error.facts

    expected = outcome(encoder._encode_each)
    assert outcome(encoder.encode) == expected
    assert outcome(encoder.encode) == expected, "what it remembers of the first time"
