"""The port through which tables are questioned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from lockgate.core.errors import Invalid, Unavailable


class QueryFailed(Invalid):
    """The engine refused the SQL: it does not parse, names unknown columns, or fails on a value."""

    code = "data.query-failed"


class QueryNotAllowed(Invalid):
    """The SQL would do more than read the tables that were handed over."""

    code = "data.query-not-allowed"


class EngineExhausted(Unavailable):
    """The engine met its memory limit; nothing was returned."""

    code = "data.engine-exhausted"


class TableEngine(Protocol):
    """Answers one SELECT (DuckDB dialect) over in-memory Arrow tables.

    Promises every adapter keeps: the query sees the given tables and nothing else (no file, no network, no
    table of an earlier call); it changes nothing; the session zone is UTC; rows of a query without ORDER BY
    over one table keep that table's order; the same query over the same tables gives the same bits, sums of
    floats included. Safe for use by many threads.
    """

    def query(self, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        """The result of `sql`, in which each key of `tables` is a table name.

        Raises:
            QueryFailed: the engine refused the SQL; the message holds its reason.
            QueryNotAllowed: more than one statement, or not a SELECT.
            EngineExhausted: the memory limit was met.
        """
        ...
