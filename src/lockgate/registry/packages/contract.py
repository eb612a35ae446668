"""What goes into a model and what comes out: the declaration, and the one way from values to a matrix.

Training encodes whole columns, serving encodes single requests. If the two differ in one bit, the model that
was judged is not the model that answers. So both live here, both are driven by the same `ModelContract`, and
a property test holds them equal bit for bit.

The matrix is float32, one column per input in the contract's order:

    float     the number; integers are numbers too
    int       the whole number, at most 2^53 in size so that no digit is lost on the way
    bool      0.0 or 1.0; 0 and 1 themselves are refused, they are numbers
    category  the position of the text in `categories`; -1.0 for a text that is not among them
    (null)    NaN

NaN and infinities are refused on both ways: a missing value is null (None), and a NaN that came out of a
division is a mistake upstream. What a caller sends is never corrected, it is refused with the field's name.
This module knows msgspec and numpy only; Arrow columns are understood by their methods, not by an import.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt

from lockgate.core.errors import Bug, Invalid, did_you_mean, near_matches

InputType = Literal["float", "int", "bool", "category"]
Matrix = npt.NDArray[np.float32]

UNSEEN = -1.0
"""What a category outside the contract's list is encoded as."""

_LARGEST_INT = 2**53
# From here on a double rounds to infinity as float32.
_FLOAT32_END = (2.0 - 2.0**-24) * 2.0**127
_NULL = math.nan
_N_SHAPES = 256
"""How many combinations of types an encoder remembers: callers make them up."""


class ContractInvalid(Invalid):
    code = "registry.contract-invalid"


class InputRejected(Invalid):
    """A value that the contract does not admit. Facts: `field`, `reason`, `row` (from 0), `value` (as text).

    `reason` is one of `missing`, `unknown-field`, `null`, `wrong-type`, `not-finite`, `too-large`,
    `out-of-range`, `not-an-object`, `lengths-differ`.
    """

    code = "registry.input-rejected"


class ContractBroken(Bug):
    code = "registry.encoders-disagree"


class InputField(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input of a model.

    Attributes:
        categories: the texts a `category` knows, in the order of their codes.
        nullable: whether null is admitted; a request may leave out a nullable field.
        minimum, maximum: inclusive bounds of a number; None for no bound.
        source: `request`, or `VIEW:feature` when the feature store supplies the value.
    """

    name: str
    dtype: InputType
    categories: tuple[str, ...] = ()
    nullable: bool = True
    minimum: float | None = None
    maximum: float | None = None
    source: str = "request"

    def __post_init__(self) -> None:
        _check_bounds(self)
        if (self.dtype == "category") != bool(self.categories):
            raise _bad(self.name, "a category needs `categories`, and only a category has them")
        if len(set(self.categories)) != len(self.categories):
            raise _bad(self.name, "the same category stands there twice")
        if self.dtype in ("bool", "category") and (self.minimum is not None or self.maximum is not None):
            raise _bad(self.name, f"a {self.dtype} has no minimum and no maximum")


class OutputField(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model answers: the probability of the positive class, or a value."""

    name: str
    kind: Literal["probability", "value"] = "probability"
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        _check_bounds(self)


class ModelContract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inputs in the order of the matrix's columns, and the output."""

    inputs: tuple[InputField, ...]
    output: OutputField

    def __post_init__(self) -> None:
        names = [field.name for field in self.inputs]
        if not names:
            raise ContractInvalid("a model contract needs at least one input", remedy="declare its inputs")
        for name in names:
            if names.count(name) > 1:
                raise _bad(name, "two inputs have this name")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.inputs)


class RowEncoder:
    """`encode_rows` prepared for one contract: build it once, use it for every request.

    Attributes:
        tolerated: names outside the contract that rows may hold all the same. A data plane puts the inputs of the
            other versions it keeps loaded here, so that a caller who already sends a new version's inputs is
            still answered after a rollback. May be replaced at any time, from any thread.
    """

    def __init__(self, contract: ModelContract) -> None:
        self.contract = contract
        self.tolerated: frozenset[str] = frozenset()
        self.n_inputs = len(contract.inputs)
        self._names = frozenset(contract.names)
        self._readers = tuple(
            (field.name, _reader(field), _NULL if field.nullable else None) for field in contract.inputs
        )
        self._ordered = contract.names
        self._values = operator.itemgetter(*self._ordered) if self.n_inputs > 1 else None
        self._shapes: dict[tuple[type, ...], _Shape | None] = {}

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Matrix:
        """The float32 matrix (n rows, k inputs). Raises `InputRejected` for the first value not admitted."""
        cells: list[Any] = []
        for row in rows:
            values = self._admitted(row)
            if values is None:
                return self._encode_each(rows)
            cells += values
        return np.array(cells, dtype=np.float32).reshape(len(rows), self.n_inputs)

    def _admitted(self, row: Mapping[str, Any]) -> Sequence[Any] | None:
        """The values in the contract's order, as numpy turns them into cells; None when they need a closer look.

        A row is judged as a whole by the types of its values: the same ones come again and again. It is never
        refused here.
        """
        if type(row) is not dict:
            return None
        if len(row) == self.n_inputs and self._values is not None:
            try:
                values: Sequence[Any] = self._values(row)
            except KeyError:
                return None
        else:
            if not (row.keys() <= self._names or row.keys() <= self.tolerated):
                return None
            values = tuple(map(row.get, self._ordered))
        types = tuple(map(type, values))
        try:
            shape = self._shapes[types]
        except KeyError:
            shape = _shape(self.contract, types)
            if len(self._shapes) < _N_SHAPES:
                self._shapes[types] = shape
        if shape is None:
            return None
        for value, low, high in zip(shape.numbers(values), shape.lows, shape.highs, strict=True):
            if not low <= value <= high:
                return None
        if not shape.codes:
            return values
        cells = list(values)
        for position, codes in shape.codes:
            cells[position] = codes.get(cells[position], UNSEEN)
        return cells

    def _encode_each(self, rows: Sequence[Mapping[str, Any]]) -> Matrix:
        """Value by value, for the rows that are not plain, and to say what is wrong."""
        cells: list[float] = []
        add = cells.append
        for number, row in enumerate(rows):
            if type(row) is not dict and not isinstance(row, Mapping):
                raise InputRejected(
                    f"row {number} is {_shown(row)}, not an object of named values",
                    remedy="send each row as {field: value}",
                    row=number,
                    reason="not-an-object",
                )
            try:
                n_known = 0
                for name, read, absent in self._readers:
                    if name in row:
                        n_known += 1
                        add(read(row[name]))
                    elif absent is not None:
                        add(absent)
                    else:
                        raise _Rejection("missing", name, None)
                if n_known != len(row):
                    self._refuse_unknown(row)
            except _Rejection as rejection:
                raise rejection.as_error(number, self._names) from None
        return np.array(cells, dtype=np.float32).reshape(len(rows), self.n_inputs)

    def _refuse_unknown(self, row: Mapping[str, Any]) -> None:
        for name in row:
            if name not in self._names and name not in self.tolerated:
                raise _Rejection("unknown-field", str(name), row[name])


def encode_rows(contract: ModelContract, rows: Sequence[Mapping[str, Any]]) -> Matrix:
    """The matrix of some rows of named values; see `RowEncoder` for many calls with one contract.

    A field the contract does not know is refused, with the near names. A nullable field may be absent.

    Raises:
        InputRejected: names the row, the field and what is wrong with it.
    """
    return _row_encoder(contract).encode(rows)


def encode_columns(contract: ModelContract, columns: Any) -> Matrix:
    """The matrix of a table, column by column: equal to `encode_rows` of its rows, bit for bit.

    Args:
        columns: a mapping from name to column, or anything with `column_names` and `[name]` as an Arrow table
            has. A column is an Arrow array, a numpy array (masked where null) or a sequence of Python values.
            All inputs must be there, nullable ones too; further columns (keys, the label) are ignored.

    Raises:
        InputRejected: names the field, the first row and what is wrong with it.
    """
    known: Collection[str] = getattr(columns, "column_names", None) or columns.keys()
    encoded: list[npt.NDArray[np.float64]] = []
    for field in contract.inputs:
        if field.name not in known:
            raise InputRejected(
                f"the column {field.name!r} is missing",
                remedy=did_you_mean(field.name, map(str, known)),
                field=field.name,
                reason="missing",
            )
        column = _encode_column(field, columns[field.name])
        if encoded and len(column) != len(encoded[0]):
            raise InputRejected(
                f"the column {field.name!r} has {len(column)} values, the ones before have {len(encoded[0])}",
                remedy="give every column one value per row",
                field=field.name,
                reason="lengths-differ",
            )
        encoded.append(column)
    matrix = np.empty((len(encoded[0]), len(encoded)), dtype=np.float32)
    for number, column in enumerate(encoded):
        matrix[:, number] = column
    return matrix


class ContractChange(NamedTuple):
    """One difference; `breaking` when a caller of the old contract can be refused or misled."""

    breaking: bool
    field: str
    message: str


def compare_contracts(old: ModelContract, new: ModelContract) -> tuple[ContractChange, ...]:
    """All changes, in the order of the old inputs, then the new ones, then the output.

    Breaking: an input is gone, has another type, is newly required, admits less; anything about the output.
    Compatible: an optional input is added, an input admits more, the store supplies what callers sent.
    The order of inputs is of no concern to callers, who name them.
    """
    before = {field.name: field for field in old.inputs}
    after = {field.name: field for field in new.inputs}
    changes: list[ContractChange] = []
    for name, field in before.items():
        if name in after:
            changes += _compare_inputs(field, after[name])
        else:
            near = near_matches(name, after.keys() - before.keys(), limit=1)
            hint = f" (renamed to {near[0]}?)" if near else ""
            changes.append(ContractChange(True, name, f"input {name} is gone{hint}"))
    for name, field in after.items():
        if name not in before:
            # A caller who sends raw features sends the looked-up ones too, so they count alike.
            word = "optional" if field.nullable else "required"
            changes.append(ContractChange(not field.nullable, name, f"{word} input {name} is new"))
    for part in ("name", "kind", "minimum", "maximum"):
        was, now = getattr(old.output, part), getattr(new.output, part)
        if was != now:
            message = f"output {part} changed {_shown(was)} -> {_shown(now)}"
            changes.append(ContractChange(True, old.output.name, message))
    return tuple(changes)


def _compare_inputs(old: InputField, new: InputField) -> list[ContractChange]:
    name, changes = old.name, []
    if old.dtype != new.dtype:
        return [ContractChange(True, name, f"input {name} changed type {old.dtype} -> {new.dtype}")]
    if old.nullable != new.nullable:
        word = "optional" if new.nullable else "required"
        changes.append(ContractChange(not new.nullable, name, f"input {name} is now {word}"))
    low, new_low = _or(old.minimum, -math.inf), _or(new.minimum, -math.inf)
    high, new_high = _or(old.maximum, math.inf), _or(new.maximum, math.inf)
    if (low, high) != (new_low, new_high):
        narrower = new_low > low or new_high < high
        message = f"input {name} range changed [{low:g}, {high:g}] -> [{new_low:g}, {new_high:g}]"
        changes.append(ContractChange(narrower, name, message))
    gone = [text for text in old.categories if text not in new.categories]
    added = [text for text in new.categories if text not in old.categories]
    if gone:
        changes.append(ContractChange(True, name, f"input {name} lost the categories {', '.join(gone)}"))
    if added:
        changes.append(ContractChange(False, name, f"input {name} gained the categories {', '.join(added)}"))
    if old.source != new.source:
        asks_more = new.source == "request" and not new.nullable
        message = f"input {name} comes from {new.source}, before from {old.source}"
        changes.append(ContractChange(asks_more, name, message))
    return changes


# --- one value ---------------------------------------------------------------------------------------------


class _Rejection(Exception):
    def __init__(self, reason: str, field: str, value: Any, wanted: str = "") -> None:
        self.reason, self.field, self.value, self.wanted = reason, field, value, wanted

    def as_error(self, row: int, known: Iterable[str] = ()) -> InputRejected:
        field, value = self.field, _shown(self.value)
        message, remedy = {
            "missing": (f"field {field!r} is missing", f"send {field!r} with every row"),
            "unknown-field": (f"field {field!r} is not known", did_you_mean(field, known)),
            "null": (f"field {field!r} is null, and it must have a value", f"send {self.wanted}"),
            "wrong-type": (f"field {field!r} is {value}, not {self.wanted}", f"send {self.wanted}"),
            "not-finite": (f"field {field!r} is {value}", "send a finite number, or null when it is missing"),
            "too-large": (f"field {field!r} is {value}, too large to keep exactly", f"send {self.wanted}"),
            "out-of-range": (f"field {field!r} is {value}, not {self.wanted}", f"send {self.wanted}"),
        }[self.reason]
        facts = {"field": field, "row": row, "reason": self.reason, "value": value}
        return InputRejected(f"row {row}: {message}", remedy=remedy, **facts)


class _Shape(NamedTuple):
    """What is left to look at in rows whose values have certain types, all of which the contract admits.

    Attributes:
        numbers: takes the numbers out of the values; each has its bounds in `lows` and `highs`.
        codes: where a text stands, and what it is encoded as.
    """

    numbers: Callable[[Sequence[Any]], Iterable[Any]]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    codes: tuple[tuple[int, dict[str, float]], ...]


def _shape(contract: ModelContract, types: Sequence[type]) -> _Shape | None:
    """None when the types alone do not say that such values are admitted."""
    bounded: list[tuple[int, float, float]] = []
    codes = []
    for position, (field, kind) in enumerate(zip(contract.inputs, types, strict=True)):
        if kind is type(None) and field.nullable:
            continue
        if field.dtype == "category" and kind is str:
            codes.append((position, {text: float(code) for code, text in enumerate(field.categories)}))
        elif (field.dtype in ("int", "float") and kind is int) or (field.dtype == "float" and kind is float):
            low, high = _limits(field)
            if kind is int:
                low, high = max(low, -_LARGEST_INT), min(high, _LARGEST_INT)
            bounded.append((position, low, high))
        elif field.dtype != "bool" or kind is not bool:
            return None
    positions = [position for position, _, _ in bounded]
    if len(positions) > 1:
        numbers: Callable[[Sequence[Any]], Iterable[Any]] = operator.itemgetter(*positions)
    else:
        # Of one position it would give the value itself.
        numbers = functools.partial(_picked, positions)
    return _Shape(
        numbers, tuple(low for _, low, _ in bounded), tuple(high for _, _, high in bounded), tuple(codes)
    )


def _picked(positions: Sequence[int], values: Sequence[Any]) -> list[Any]:
    return [values[position] for position in positions]


_Reader = Callable[[Any], float]


def _reader(field: InputField) -> _Reader:
    if field.dtype == "category":
        return _category_reader(field)
    if field.dtype == "bool":
        return _bool_reader(field)
    return _number_reader(field)


def _number_reader(field: InputField) -> _Reader:
    low, high = _limits(field)
    whole = field.dtype == "int"

    def read(value: Any) -> float:
        kind = type(value)
        if kind is int:
            if not -_LARGEST_INT <= value <= _LARGEST_INT:
                raise _Rejection("too-large", field.name, value, "a number between -2^53 and 2^53")
            number = float(value)
        elif kind is float:
            number = value
        elif value is None:
            return _read_null(field)
        elif isinstance(value, (np.integer, np.floating)):
            return read(value.item())
        else:
            raise _Rejection("wrong-type", field.name, value, _wanted(field))
        if low <= number <= high and (not whole or number.is_integer()):
            return number
        _reject_number(field, value, number)

    return read


def _reject_number(field: InputField, value: Any, number: float) -> NoReturn:
    if not math.isfinite(number):
        raise _Rejection("not-finite", field.name, value)
    if field.dtype == "int" and not number.is_integer():
        raise _Rejection("wrong-type", field.name, value, _wanted(field))
    if abs(number) >= _FLOAT32_END or (field.dtype == "int" and abs(number) > _LARGEST_INT):
        raise _Rejection("too-large", field.name, value, _wanted(field))
    raise _Rejection("out-of-range", field.name, value, _wanted(field))


def _bool_reader(field: InputField) -> _Reader:
    def read(value: Any) -> float:
        if value is True:
            return 1.0
        if value is False:
            return 0.0
        if value is None:
            return _read_null(field)
        if isinstance(value, np.bool_):
            return float(value)
        raise _Rejection("wrong-type", field.name, value, _wanted(field))

    return read


def _category_reader(field: InputField) -> _Reader:
    codes = {text: float(code) for code, text in enumerate(field.categories)}

    def read(value: Any) -> float:
        if isinstance(value, str):
            return codes.get(value, UNSEEN)
        if value is None:
            return _read_null(field)
        raise _Rejection("wrong-type", field.name, value, _wanted(field))

    return read


def _read_null(field: InputField) -> float:
    if field.nullable:
        return _NULL
    raise _Rejection("null", field.name, None, _wanted(field))


def _limits(field: InputField) -> tuple[float, float]:
    """The inclusive bounds of an admitted number: the declared ones inside what the matrix can hold."""
    end = float(_LARGEST_INT) if field.dtype == "int" else math.nextafter(_FLOAT32_END, 0.0)
    return max(_or(field.minimum, -end), -end), min(_or(field.maximum, end), end)


def _wanted(field: InputField) -> str:
    word = {"float": "a number", "int": "a whole number", "bool": "true or false", "category": "a text"}
    text = word[field.dtype]
    if field.minimum is not None and field.maximum is not None:
        return f"{text} between {field.minimum:g} and {field.maximum:g}"
    if field.minimum is not None:
        return f"{text} of at least {field.minimum:g}"
    if field.maximum is not None:
        return f"{text} of at most {field.maximum:g}"
    return text


# --- one column --------------------------------------------------------------------------------------------


def _encode_column(field: InputField, column: Any) -> npt.NDArray[np.float64]:
    try:
        if hasattr(column, "null_count") and hasattr(column, "type"):
            return _encode_chunks(field, getattr(column, "chunks", [column]))
        if isinstance(column, np.ndarray) and column.dtype.kind in "iufb":
            present = ~np.ma.getmaskarray(column)
            return _scatter(field, np.ma.getdata(column)[present], present)
        values = column.tolist() if isinstance(column, np.ndarray) else list(column)
        return _each(field, values)
    except _RejectionAt as found:
        raise found.rejection.as_error(found.row) from None


class _RejectionAt(Exception):
    def __init__(self, row: int, rejection: _Rejection) -> None:
        self.row, self.rejection = row, rejection


def _encode_chunks(field: InputField, chunks: Sequence[Any]) -> npt.NDArray[np.float64]:
    encoded, start = [np.empty(0)], 0
    for chunk in chunks:
        try:
            encoded.append(_encode_arrow(field, chunk))
        except _RejectionAt as found:
            raise _RejectionAt(start + found.row, found.rejection) from None
        start += len(chunk)
    return np.concatenate(encoded)


def _each(field: InputField, values: Sequence[Any]) -> npt.NDArray[np.float64]:
    read = _reader(field)
    cells = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            cells[row] = read(value)
        except _Rejection as rejection:
            raise _RejectionAt(row, rejection) from None
    return cells


def _encode_arrow(field: InputField, chunk: Any) -> npt.NDArray[np.float64]:
    if field.dtype == "category":
        encoded = chunk.dictionary_encode()
        texts = [*encoded.dictionary.to_pylist(), None]
        indices = encoded.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)
        read, codes = _reader(field), np.empty(len(texts))
        for position in set(indices.tolist()):
            try:
                codes[position] = read(texts[position])
            except _Rejection as rejection:
                row = int(np.flatnonzero(indices == position)[0])
                raise _RejectionAt(row, rejection) from None
        return codes[np.asarray(indices, dtype=np.intp)]
    present = ~chunk.is_null().to_numpy(zero_copy_only=False)
    values = chunk.drop_null().to_numpy(zero_copy_only=False)
    return _scatter(field, values, present)


def _scatter(
    field: InputField, values: npt.NDArray[Any], present: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The column with `values` where something is present and NaN elsewhere, every value checked."""
    where = np.flatnonzero(present)
    bad: npt.NDArray[np.bool_]
    if values.dtype.kind == "b" and field.dtype == "bool":
        bad = np.zeros(len(values), dtype=bool)
    elif values.dtype.kind in "iuf" and field.dtype in ("int", "float"):
        bad = _bad_numbers(field, values)
    else:
        bad = np.ones(len(values), dtype=bool)
    first_bad = int(where[bad.argmax()]) if bad.any() else len(present)
    if not field.nullable and not present.all():
        first_null = int((~present).argmax())
        if first_null < first_bad:
            raise _RejectionAt(first_null, _Rejection("null", field.name, None, _wanted(field)))
    if bad.any():
        value = values[bad.argmax()]
        try:
            _reader(field)(value.item() if isinstance(value, np.generic) else value)
        except _Rejection as rejection:
            raise _RejectionAt(first_bad, rejection) from None
        raise ContractBroken(
            f"the column check refuses {_shown(value)} for {field.name!r} and the row check admits it",
            remedy="report this with the contract and the value",
            field=field.name,
        )
    column = np.full(len(present), _NULL)
    column[where] = values
    return column


def _bad_numbers(field: InputField, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    low, high = _limits(field)
    bad = np.zeros(len(values), dtype=bool)
    if values.dtype.kind == "u":
        bad |= values > np.uint64(_LARGEST_INT)
    elif values.dtype.kind == "i":
        wide = values.astype(np.int64)
        bad |= (wide > _LARGEST_INT) | (wide < -_LARGEST_INT)
    numbers = values.astype(np.float64)
    bad |= ~((numbers >= low) & (numbers <= high))
    if field.dtype == "int" and values.dtype.kind == "f":
        finite = np.isfinite(numbers)
        bad[finite] |= np.floor(numbers[finite]) != numbers[finite]
    return bad


# --- small parts -------------------------------------------------------------------------------------------


def _check_bounds(field: InputField | OutputField) -> None:
    for part in ("minimum", "maximum"):
        bound = getattr(field, part)
        if bound is not None:
            if not math.isfinite(bound):
                raise _bad(field.name, f"its {part} is {bound}")
            # 0 and 0.0 are one bound and must have one digest.
            msgspec.structs.force_setattr(field, part, float(bound))
    if field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:
        raise _bad(field.name, f"its minimum {field.minimum:g} is above its maximum {field.maximum:g}")


def _bad(name: str, why: str) -> ContractInvalid:
    return ContractInvalid(
        f"field {name!r}: {why}", remedy=f"correct {name!r} in the feature service", field=name
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _shown(value: Any) -> str:
    """A value for people, cut to a length that is safe to print and to log."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


@functools.lru_cache(maxsize=64)
def _row_encoder(contract: ModelContract) -> RowEncoder:
    return RowEncoder(contract)
