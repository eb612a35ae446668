"""Key values to dense codes, so that a key of any width and type is one small integer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lockgate.core.errors import did_you_mean
from lockgate.features.columns import BadSpine, Ints, ViewInvalid, key_column, mask, view_column
from lockgate.features.definition import FeatureView


@dataclass(frozen=True, eq=False)
class Keys:
    """Key values to dense codes: one dictionary per key column, then one for their combinations.

    Attributes:
        values: per key column, its distinct values.
        radix: per key column, how many there are.
        combined: sorted mixed-radix numbers of the combinations that occur; a key's code is its position.
    """

    names: tuple[str, ...]
    values: tuple[Any, ...]
    radix: tuple[int, ...]
    combined: Ints


def given_keys(view: FeatureView, table: pa.Table, found: dict[str, str]) -> pa.Table:
    """`table` without the rows whose key holds a null."""
    given: Any = None
    for name in view.entity.keys:
        valid = pc.is_valid(view_column(view, table, found, name))
        given = valid if given is None else pc.and_(given, valid)
    return table if pc.all(given).as_py() in (True, None) else table.filter(given)


def learn_keys(view: FeatureView, table: pa.Table, found: dict[str, str]) -> tuple[Keys, Ints]:
    """The dictionary of a view's keys, and the code of each row."""
    values, radix, numbers = [], [], np.zeros(table.num_rows, dtype=np.int64)
    for name in view.entity.keys:
        column = key_column(view_column(view, table, found, name), f"view {view.name!r}", name, ViewInvalid)
        encoded: Any = column.combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        values.append(encoded.dictionary)
        radix.append(max(len(encoded.dictionary), 1))
        numbers = numbers * radix[-1] + encoded.indices.to_numpy().astype(np.int64)
        if len(values) < len(view.entity.keys) and numbers.max(initial=0) > 2**62 // max(table.num_rows, 1):
            raise ViewInvalid(
                f"view {view.name!r} has too many distinct keys to combine",
                remedy="build one key column in its SQL",
                view=view.name,
            )
    combined, codes = np.unique(numbers, return_inverse=True)
    keys = Keys(view.entity.keys, tuple(values), tuple(radix), combined)
    return keys, codes.astype(np.int64, copy=False)


def find_keys(keys: Keys, view: FeatureView, spine: pa.Table) -> Ints:
    """The code of each spine row's key; -1 where the view has no such key."""
    numbers = np.zeros(spine.num_rows, dtype=np.int64)
    known = np.ones(spine.num_rows, dtype=np.bool_)
    for name, values, radix in zip(keys.names, keys.values, keys.radix, strict=True):
        if name not in spine.column_names:
            raise BadSpine(
                f"the spine has no column {name!r}, which view {view.name!r} joins on",
                remedy=did_you_mean(name, spine.column_names),
                view=view.name,
                column=name,
            )
        column = key_column(spine.column(name), "the spine", name, BadSpine)
        if column.type != values.type:
            raise BadSpine(
                f"key {name!r} is {spine.column(name).type} in the spine and {values.type} in view "
                f"{view.name!r}",
                remedy="cast one of them",
                view=view.name,
                column=name,
            )
        positions: Any = pc.index_in(column, value_set=values, skip_nulls=True)
        known &= mask(positions.is_valid())
        numbers = numbers * radix + positions.fill_null(0).to_numpy().astype(np.int64)
    if not len(keys.combined):
        return np.full(spine.num_rows, -1, dtype=np.int64)
    codes = np.minimum(np.searchsorted(keys.combined, numbers), len(keys.combined) - 1)
    return np.where(known & (keys.combined[codes] == numbers), codes, -1).astype(np.int64, copy=False)


def show_key(keys: Keys, code: int) -> str:
    number = int(keys.combined[code])
    shown = []
    for name, values, radix in reversed(list(zip(keys.names, keys.values, keys.radix, strict=True))):
        number, position = divmod(number, radix)
        shown.append(f"{name}={values[position].as_py()!r}")
    return ", ".join(reversed(shown))
