"""Columns as the join needs them: instants as microseconds, keys in one type per kind, features as declared.

Arrow's types are known at run time only, so columns are typed `Any` here and checked by hand.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lockgate.core.errors import Invalid, did_you_mean
from lockgate.features.definition import Feature, FeatureView

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
ArrowColumn = Any  # a pa.ChunkedArray of a type known at run time only

_DAY_US: Final = 86_400_000_000
# Instants between the years 1 and 9999; beyond them differences could leave int64.
_EARLIEST: Final = -719_162 * _DAY_US
_LATEST: Final = 2_932_897 * _DAY_US - 1


class ViewInvalid(Invalid):
    """A view's rows break its own declaration: a column, an instant, a null or a range."""

    code = "features.view-invalid"


class BadSpine(Invalid):
    """The spine lacks a key or the instant, or names a column that a view also brings."""

    code = "features.bad-spine"


def view_column(view: FeatureView, table: pa.Table, found: dict[str, str], name: str) -> ArrowColumn:
    if name.lower() not in found:
        raise ViewInvalid(
            f"the SQL of view {view.name!r} yields no column {name!r}",
            remedy=did_you_mean(name, table.column_names),
            view=view.name,
            column=name,
        )
    return table.column(found[name.lower()])


def feature_column(view: FeatureView, feature: Feature, column: ArrowColumn) -> ArrowColumn:
    """A feature's column in its declared type, held to its declaration."""
    what = f"feature {feature.name!r} of view {view.name!r}"

    def refuse(problem: str, remedy: str) -> ViewInvalid:
        return ViewInvalid(f"{what} {problem}", remedy=remedy, view=view.name, column=feature.name)

    target = _ARROW[feature.dtype]
    if not _castable(column.type, feature.dtype):
        raise refuse(f"is {column.type}, declared {feature.dtype}", "cast it in the SQL, or declare its type")
    try:
        column = column if column.type == target else pc.cast(column, target)
    except pa.ArrowInvalid as reason:
        raise refuse(f"does not fit {feature.dtype}: {reason}", "cast it in the SQL") from reason
    if feature.dtype == "float":
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, target), column)
    if column.null_count and not feature.nullable:
        raise refuse(f"is null in {column.null_count} rows, declared not nullable", "filter or fill them")
    bounds: list[Any] = []
    if feature.minimum is not None:
        bounds.append(pc.less(column, pa.scalar(feature.minimum)))
    if feature.maximum is not None:
        bounds.append(pc.greater(column, pa.scalar(feature.maximum)))
    outside = sum(int(np.count_nonzero(mask(bad.fill_null(False)))) for bad in bounds)
    if outside:
        low, high = ("any" if bound is None else f"{bound:g}" for bound in (feature.minimum, feature.maximum))
        raise refuse(f"is outside {low} to {high} in {outside} rows", "filter them, or widen the range")
    return column


def _castable(kind: pa.DataType, dtype: str) -> bool:
    if pa.types.is_null(kind):
        return True
    if dtype == "category":
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(
            pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
        )
    if dtype == "bool":
        return bool(pa.types.is_boolean(kind))
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


_ARROW: Final = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "category": pa.string()}


def view_instants(view: FeatureView, table: pa.Table, found: dict[str, str], name: str) -> Ints:
    column = view_column(view, table, found, name)
    instants = _instants(column)
    if isinstance(instants, str):
        raise ViewInvalid(
            f"{name} of view {view.name!r} {instants}",
            remedy="yield a TIMESTAMP in UTC, or BIGINT microseconds, in every row",
            view=view.name,
            column=name,
        )
    return instants


def spine_instants(spine: pa.Table, name: str, naive_is_utc: bool) -> Ints:
    if name not in spine.column_names:
        raise BadSpine(
            f"the spine has no column {name!r}", remedy=did_you_mean(name, spine.column_names), column=name
        )
    kind = spine.column(name).type
    if pa.types.is_timestamp(kind) and kind.tz is None and not naive_is_utc:
        raise BadSpine(
            f"{name!r} of the spine is a TIMESTAMP without a zone",
            remedy="write `x AT TIME ZONE 'ZONE'` or epoch_us(x) in its SQL, or pass naive_is_utc=True",
            column=name,
        )
    instants = _instants(spine.column(name))
    if isinstance(instants, str):
        raise BadSpine(
            f"{name!r} of the spine {instants}",
            remedy="give every row a TIMESTAMP with zone, or BIGINT microseconds",
            column=name,
        )
    return instants


def _instants(column: ArrowColumn) -> Ints | str:
    """Microseconds since 1970, or what is wrong with the column."""
    kind = column.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_integer(kind)):
        return f"is {kind}, not an instant"
    if column.null_count:
        return f"is null in {column.null_count} rows"
    try:
        if pa.types.is_timestamp(kind):
            column = pc.cast(column, pa.timestamp("us", tz=kind.tz))
        whole: ArrowColumn = pc.cast(column, pa.int64())
        instants: Ints = whole.to_numpy()
    except pa.ArrowInvalid as error:
        return f"does not fit microseconds: {error}"
    if len(instants) and (instants.min() < _EARLIEST or instants.max() > _LATEST):
        return "leaves the years 1 to 9999"
    return instants


def key_column(column: ArrowColumn, where: str, name: str, error: type[Invalid]) -> ArrowColumn:
    """A key column in the one type of its kind, so that equal keys meet."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    target: pa.DataType
    if pa.types.is_integer(kind):
        target = pa.int64()
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        target = pa.string()
    elif pa.types.is_boolean(kind) or pa.types.is_date(kind) or pa.types.is_binary(kind):
        target = kind
    else:
        raise error(
            f"key {name!r} of {where} is {column.type}",
            remedy="join on text, whole numbers, booleans or dates",
            column=name,
        )
    try:
        return column if column.type == target else pc.cast(column, target)
    except pa.ArrowInvalid as reason:
        raise error(
            f"key {name!r} of {where} does not fit {target}: {reason}",
            remedy="cast it in the SQL",
            column=name,
        ) from reason


def arrow(values: npt.NDArray[Any], mask: Bools | None = None) -> Any:
    return pa.array(values, mask=mask)


def mask(column: Any) -> Bools:
    mask: Bools = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return mask
