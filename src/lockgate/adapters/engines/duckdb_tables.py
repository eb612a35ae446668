"""`DuckDBTables`: the table engine inside the process.

DuckDB is told to forget everything that would make an answer depend on the machine: one thread by default
(parallel sums of floats add in another order each time), insertion order kept, zone UTC, no extensions from
outside, no files, no network, no look into Python variables; then the configuration is locked, so that SQL
from a contract or a feature view cannot undo it.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from lockgate.data.ports import EngineExhausted, QueryFailed, QueryNotAllowed


class DuckDBTables:
    """Runs each query on a cursor of its own, so tables of one call are invisible to every other.

    Args:
        threads: more than one is faster on large tables and gives up bit-for-bit equal sums of floats and
            the order of rows after GROUP BY; counts, minima and maxima stay exact.
        memory_limit: as DuckDB writes sizes, for example `4GB`; None for DuckDB's own default.
        spill_dir: where a query that does not fit in memory may spill; None forbids spilling.
    """

    def __init__(
        self, *, threads: int = 1, memory_limit: str | None = None, spill_dir: str | None = None
    ) -> None:
        config = {
            "threads": str(threads),
            "preserve_insertion_order": "true",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        self._connection = duckdb.connect(":memory:", config=config)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET temp_directory = " + _text(spill_dir or ""))
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def query(self, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        cursor = self._connection.cursor()
        try:
            statements = cursor.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise QueryNotAllowed(
                    "the SQL must be one SELECT statement, "
                    + (f"not {len(statements)} statements" if len(statements) != 1 else "not another kind"),
                    remedy="write a single SELECT; WITH ... SELECT is fine",
                    sql=sql,
                )
            for name, table in tables.items():
                cursor.register(name, table)
            answer: pa.Table = cursor.sql(sql).to_arrow_table()
            return answer
        except duckdb.OutOfMemoryException as error:
            raise EngineExhausted(
                f"the query does not fit in memory: {_first_line(error)}",
                remedy="raise memory_limit, or give the engine a spill_dir",
                sql=sql,
            ) from error
        except duckdb.Error as error:
            raise QueryFailed(
                f"the SQL was refused: {_first_line(error)}",
                remedy="correct the SQL; it is DuckDB's dialect",
                sql=sql,
                reason=str(error),
            ) from error
        finally:
            cursor.close()

    def close(self) -> None:
        """Free the engine's memory; every later query raises `QueryFailed`."""
        self._connection.close()


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__
