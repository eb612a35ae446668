from __future__ import annotations

import pyarrow as pa
import pytest

from lockgate.adapters.engines.duckdb_tables import DuckDBTables
from lockgate.data.ports import EngineExhausted, TableEngine
from lockgate.testing.table_engine_suite import TableEngineContract


class TestDuckDBTables(TableEngineContract):
    @pytest.fixture
    def make(self) -> TableEngine:
        return DuckDBTables()


def test_a_query_that_does_not_fit_says_so() -> None:
    engine = DuckDBTables(memory_limit="20MB")
    table = pa.table({"x": list(range(1000))})
    with pytest.raises(EngineExhausted):
        engine.query("SELECT a.x + b.x + c.x AS s FROM t a, t b, t c ORDER BY s, a.x", {"t": table})
