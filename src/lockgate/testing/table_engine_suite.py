"""The contract suite of the `TableEngine` port. Subclass `TableEngineContract` and override `make`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from lockgate.data.ports import QueryFailed, QueryNotAllowed, TableEngine

FLIGHTS = pa.table(
    {
        "carrier": ["UA", "AA", None, "UA"],
        "delay": [2.0, None, -1.5, 0.1],
        "moment": pa.array([0, 1_000_000, 2_000_000, 3_000_000], pa.timestamp("us")),
    }
)


class TableEngineContract:
    """Every promise of the port, as tests."""

    @pytest.fixture
    def make(self) -> TableEngine:
        raise NotImplementedError("override the fixture `make` to return the engine under test")

    def test_answers_over_the_given_tables(self, make: TableEngine) -> None:
        answer = make.query(
            "SELECT f.carrier, c.name FROM flights f JOIN carriers c USING (carrier) ORDER BY ALL",
            {"flights": FLIGHTS, "carriers": pa.table({"carrier": ["UA"], "name": ["United"]})},
        )
        assert answer.to_pylist() == [{"carrier": "UA", "name": "United"}] * 2

    def test_keeps_the_order_of_rows(self, make: TableEngine) -> None:
        numbers = pa.table({"x": list(range(100_000, 0, -1))})
        answer = make.query("SELECT x FROM numbers WHERE x % 3 = 0", {"numbers": numbers})
        assert answer.column("x").to_pylist() == [x for x in range(100_000, 0, -1) if x % 3 == 0]

    def test_the_zone_is_utc(self, make: TableEngine) -> None:
        aware = FLIGHTS.set_column(
            2, "moment", FLIGHTS["moment"].cast(pa.timestamp("us", "America/New_York"))
        )
        sql = "SELECT epoch_us(moment) AS us, left(CAST(moment AS VARCHAR), 19) AS text FROM f LIMIT 1"
        for table in (FLIGHTS, aware):
            expected = [{"us": 0, "text": "1970-01-01 00:00:00"}]
            assert make.query(sql, {"f": table}).to_pylist() == expected

    def test_forgets_the_tables_of_the_last_call(self, make: TableEngine) -> None:
        make.query("SELECT count(*) FROM flights", {"flights": FLIGHTS})
        with pytest.raises(QueryFailed):
            make.query("SELECT count(*) FROM flights", {})

    def test_does_not_see_variables_of_the_caller(self, make: TableEngine) -> None:
        hidden = FLIGHTS
        assert hidden.num_rows == 4
        with pytest.raises(QueryFailed):
            make.query("SELECT * FROM hidden", {})

    @pytest.mark.parametrize(
        "sql", ["SELECT", "SELECT nope FROM flights", "SELECT 1/0::INT::VARCHAR::DATE", "\0"]
    )
    def test_bad_sql_is_the_callers_fault(self, make: TableEngine, sql: str) -> None:
        with pytest.raises(QueryFailed) as caught:
            make.query(sql, {"flights": FLIGHTS})
        assert caught.value.remedy

    @pytest.mark.parametrize(
        "sql",
        [
            "",
            "SELECT 1; SELECT 2",
            "CREATE TABLE kept AS SELECT 1",
            "COPY (SELECT 1) TO 'lockgate-contract-suite.csv'",
            "SET threads = 4",
            "ATTACH 'lockgate-contract-suite.db'",
        ],
    )
    def test_only_one_select_is_run(self, make: TableEngine, sql: str) -> None:
        with pytest.raises(QueryNotAllowed):
            make.query(sql, {})

    @pytest.mark.parametrize("source", ["'/etc/hostname'", "read_text('/etc/hostname')", "glob('/etc/*')"])
    def test_files_are_out_of_reach(self, make: TableEngine, source: str) -> None:
        with pytest.raises(QueryFailed):
            make.query(f"SELECT * FROM {source}", {})

    def test_sums_of_floats_are_the_same_bits_every_time(self, make: TableEngine) -> None:
        table = pa.table({"k": [i % 7 for i in range(200_000)], "x": [1.0 / (i + 1) for i in range(200_000)]})
        sql = "SELECT k, sum(x) AS s, avg(x) AS a FROM t GROUP BY k ORDER BY k"
        first = make.query(sql, {"t": table})
        assert all(make.query(sql, {"t": table}).equals(first) for _ in range(3))

    def test_many_threads_may_ask_at_once(self, make: TableEngine) -> None:
        def ask(i: int) -> int:
            answer = make.query("SELECT sum(x) AS s FROM t", {"t": pa.table({"x": [i] * 1000})})
            return int(answer.column("s")[0].as_py())

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(40))) == [1000 * i for i in range(40)]
