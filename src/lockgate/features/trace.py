"""Which columns of which datasets a feature is made from, read from the SQL of its view.

Two ways lead from a column to a feature. By its *value*: it stands in the expression that yields the feature, in a
CASE, an aggregate or a window included. By the *rows*: it decides which rows there are, in WHERE, GROUP BY, a join, a
key of the entity or one of the instants by which rows are found. Both count. Whoever drops a column that only filters
breaks the view all the same, and a feature that counts the rows of one group tells of the group.

The answer may name a column too many, never one too few. SQL that cannot be followed (a name that fits two tables, a
construct the parser does not resolve) is answered with every column of every dataset that the view reads, `whole`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope

from lockgate.features.definition import FeatureView

How = Literal["value", "rows", "whole"]

# The order of strength: a column that gives the value is told as that, whatever else it does.
_STRENGTH: Mapping[How, int] = {"value": 0, "rows": 1, "whole": 2}
_ROWS = (
    "from_",
    "where",
    "group",
    "having",
    "qualify",
    "order",
    "limit",
    "distinct",
    "windows",
    "joins",
    "laterals",
)


class SourceColumn(msgspec.Struct, frozen=True, order=True):
    """A column that a feature depends on, and how."""

    dataset: str
    column: str
    how: How


class _Untraceable(Exception):
    pass


_Found = frozenset[tuple[str, str]]
_NONE: _Found = frozenset()


class _Reached(msgspec.Struct, frozen=True):
    """What a query is made from: per output column in order, and for its rows as a whole."""

    outputs: tuple[tuple[str, _Found], ...]
    rows: _Found

    def output(self, name: str) -> _Found:
        found = [columns for output, columns in self.outputs if output.lower() == name.lower()]
        if not found:
            raise _Untraceable(name)
        return frozenset().union(*found)

    @property
    def everything(self) -> _Found:
        return self.rows.union(*(columns for _, columns in self.outputs))


def trace_view(
    view: FeatureView, columns: Mapping[str, Sequence[str]]
) -> dict[str, tuple[SourceColumn, ...]]:
    """The columns behind each feature of `view`, sorted.

    Args:
        columns: the columns of each dataset that the view reads.

    Raises:
        KeyError: `columns` lacks a dataset of `view.reads`.
    """
    schemas = {dataset: tuple(columns[dataset]) for dataset in view.reads}
    try:
        reached = _reached(_scope(view, schemas))
        found_by = (*view.entity.keys, view.event_at, view.available_at)
        rows = reached.rows.union(*(reached.output(name) for name in found_by))
        return {name: _told(reached.output(name), rows, schemas) for name in view.feature_names}
    except (_Untraceable, SqlglotError):
        whole = tuple(
            SourceColumn(dataset, column, "whole")
            for dataset in sorted(schemas)
            for column in sorted(schemas[dataset])
        )
        return dict.fromkeys(view.feature_names, whole)


def _told(value: _Found, rows: _Found, schemas: Mapping[str, Sequence[str]]) -> tuple[SourceColumn, ...]:
    """Found columns under the names their datasets give them; SQL does not tell upper from lower case."""
    ways: dict[tuple[str, str], How] = {}
    for way, found in (("rows", rows), ("value", value)):
        for dataset, column in found:
            names = {name.lower(): name for name in schemas[dataset]}
            if column.lower() not in names:
                raise _Untraceable(column)
            ways[dataset, names[column.lower()]] = "value" if way == "value" else "rows"
    return tuple(SourceColumn(dataset, column, how) for (dataset, column), how in sorted(ways.items()))


def _scope(view: FeatureView, schemas: Mapping[str, Sequence[str]]) -> Scope:
    tree = sqlglot.parse_one(view.sql, read="duckdb")
    schema: dict[str, object] = {
        dataset: dict.fromkeys(columns, "unknown") for dataset, columns in schemas.items()
    }
    qualified = qualify(tree, dialect="duckdb", schema=schema, identify=False, quote_identifiers=False)
    scope = build_scope(qualified)
    if scope is None or any(_hides_columns(node) for node in qualified.walk()):
        raise _Untraceable(view.name)
    return scope


def _hides_columns(node: exp.Expr) -> bool:
    """Whether a part of the query stands for columns that it does not name: `COLUMNS('x.*')`, a whole row, a pivot."""
    if isinstance(node, exp.Star):
        return not isinstance(node.parent, exp.Count)
    return isinstance(node, exp.Columns | exp.TableColumn | exp.Pivot)


def _reached(scope: Scope) -> _Reached:
    if scope.set_operation_scopes:
        keeps_all = isinstance(scope.expression, exp.Union) and scope.expression.args.get("distinct") is False
        return _set_operation([_reached(part) for part in scope.set_operation_scopes], keeps_all=keeps_all)
    select = scope.expression
    if not isinstance(select, exp.Select):
        raise _Untraceable(type(select).__name__)
    sources = _Sources(scope)
    # A query inside an expression may decide anything; what it is made from counts for every column.
    rows = sources.rows.union(*(_reached(inner).everything for inner in scope.subquery_scopes))
    for clause in _ROWS:
        rows |= sources.behind(_expressions(select.args.get(clause)))
    outputs = tuple((item.alias_or_name, sources.behind([item])) for item in select.selects)
    reached = _Reached(outputs, rows)
    return _Reached(outputs, reached.everything) if select.args.get("distinct") else reached


def _set_operation(parts: Sequence[_Reached], *, keeps_all: bool) -> _Reached:
    """Columns meet by their place; the first part names them. But for UNION ALL every value decides which rows stay."""
    if len({len(part.outputs) for part in parts}) != 1:
        raise _Untraceable("union")
    outputs = tuple(
        (places[0][0], frozenset().union(*(columns for _, columns in places)))
        for places in zip(*(part.outputs for part in parts), strict=True)
    )
    decides = (part.rows if keeps_all else part.everything for part in parts)
    return _Reached(outputs, frozenset().union(*decides))


class _Sources:
    """What the names in one SELECT stand for: tables that are datasets, and queries."""

    def __init__(self, scope: Scope) -> None:
        self._tables: dict[str, str] = {}
        self._queries: dict[str, _Reached] = {}
        self._made: dict[str, _Found] = {}
        self._outer = scope.external_columns
        for name, source in scope.sources.items():
            if name not in scope.selected_sources:
                continue
            if isinstance(source, exp.Table):
                self._table(name, source)
            elif isinstance(source, Scope) and source.is_udtf:
                self._made[name] = _NONE
            elif isinstance(source, Scope):
                self._queries[name] = _reached(source)
            else:
                raise _Untraceable(name)

    def _table(self, name: str, table: exp.Table) -> None:
        if isinstance(table.this, exp.Identifier):
            self._tables[name] = table.name.lower()
        else:
            # A table function, generate_series: what it is called with is looked at with the rest of the clause.
            self._made[name] = _NONE

    @property
    def rows(self) -> _Found:
        return frozenset().union(*(query.rows for query in self._queries.values()))

    def behind(self, expressions: Iterable[exp.Expr]) -> _Found:
        found: set[tuple[str, str]] = set()
        for expression in expressions:
            for column in expression.find_all(exp.Column):
                found |= self._behind_one(column)
        return frozenset(found)

    def _behind_one(self, column: exp.Column) -> _Found:
        name = column.table
        if name in self._tables:
            return frozenset({(self._tables[name], column.name)})
        if name in self._queries:
            return self._queries[name].output(column.name)
        if name in self._made:
            return self._made[name]
        # A column of a query inside this expression is followed there; one of an outer query, in the outer one.
        inside = column.find_ancestor(exp.Subquery, exp.Exists, exp.In)
        if inside is not None or column in self._outer:
            return _NONE
        raise _Untraceable(column.sql())


def _expressions(clause: object) -> list[exp.Expr]:
    parts = clause if isinstance(clause, list) else [clause]
    return [part for part in parts if isinstance(part, exp.Expr)]
