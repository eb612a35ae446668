"""What may be known about a flight an hour before it leaves.

Every view says since when each of its rows could be known (`available_at`): a departure delay when the plane
leaves the gate, an arrival delay when it has arrived, an observation of the weather an hour later. Lockgate
joins each example with the latest row known at its `as_of`, in training and in service alike.

Means are built from sums of whole minutes, so they do not depend on the order of the rows. The rows of one
view are first brought to one per key and minute: several planes may leave in the same minute.
"""

from __future__ import annotations

from lockgate import Entity, Feature, FeatureService, FeatureView, RequestFeature

HOUR_S = 3600
DAY_S = 24 * HOUR_S

ORIGINS = ("EWR", "JFK", "LGA")
CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")

airport = Entity("airport", keys=("origin",))
destination = Entity("destination", keys=("dest",))
carrier = Entity("carrier", keys=("carrier",))
aircraft = Entity("aircraft", keys=("tailnum",))
flight_number = Entity("flight_number", keys=("carrier", "flight", "origin"))

origin_departures = FeatureView(
    "origin_departures",
    entity=airport,
    dataset="flights",
    description="How punctual the airport is: its departures of the last three hours.",
    owner="flight-data",
    ttl_s=3 * HOUR_S,
    sql="""
        WITH minutes AS (
            SELECT
                origin,
                departed_at AS event_at,
                count(*) AS n,
                sum(dep_delay) AS delay,
                count(*) FILTER (WHERE dep_delay > 15) AS n_late
            FROM flights
            WHERE departed_at IS NOT NULL
            GROUP BY origin, departed_at
        )
        SELECT
            origin,
            event_at,
            event_at AS available_at,
            sum(delay) OVER recent / sum(n) OVER recent AS origin_delay,
            sum(n_late) OVER recent / sum(n) OVER recent AS origin_late_share
        FROM minutes
        WINDOW recent AS (
            PARTITION BY origin ORDER BY event_at
            RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW
        )
    """,
    features=(
        Feature("origin_delay", "float", minimum=-60, maximum=2880, description="mean, minutes"),
        Feature("origin_late_share", "float", minimum=0, maximum=1, description="share of late ones"),
    ),
)

origin_queue = FeatureView(
    "origin_queue",
    entity=airport,
    dataset="flights",
    description="How many flights of the last four hours should have left and have not.",
    owner="flight-data",
    ttl_s=3 * HOUR_S,
    sql="""
        WITH moves AS (
            SELECT origin, scheduled_departure_at AS event_at, 1 AS change FROM flights
            UNION ALL
            SELECT origin, departed_at AS event_at, -1 AS change FROM flights WHERE departed_at IS NOT NULL
        ),
        minutes AS (
            SELECT origin, event_at, sum(change) AS change FROM moves GROUP BY origin, event_at
        )
        SELECT
            origin,
            event_at,
            event_at AS available_at,
            CAST(sum(change) OVER recent AS INTEGER) AS origin_waiting
        FROM minutes
        WINDOW recent AS (
            PARTITION BY origin ORDER BY event_at
            RANGE BETWEEN INTERVAL 4 HOURS PRECEDING AND CURRENT ROW
        )
    """,
    features=(
        Feature("origin_waiting", "int", minimum=-500, maximum=500, description="scheduled less gone"),
    ),
)

last_leg = FeatureView(
    "last_leg",
    entity=aircraft,
    dataset="flights",
    description="The latest news of this aircraft: its last departure from New York, or that flight's arrival.",
    owner="flight-data",
    ttl_s=16 * HOUR_S,
    sql="""
        WITH news AS (
            SELECT tailnum, departed_at AS event_at, dep_delay AS delay, true AS in_air FROM flights
            UNION ALL
            SELECT tailnum, arrived_at AS event_at, arr_delay AS delay, false AS in_air FROM flights
        )
        SELECT
            tailnum,
            event_at,
            event_at AS available_at,
            max(delay) AS aircraft_delay,
            bool_or(in_air) AS aircraft_in_air
        FROM news
        WHERE tailnum IS NOT NULL AND event_at IS NOT NULL
        GROUP BY tailnum, event_at
    """,
    features=(
        Feature("aircraft_delay", "float", minimum=-240, maximum=2880, description="latest known, minutes"),
        Feature("aircraft_in_air", "bool", description="whether it was last seen leaving New York"),
    ),
)

carrier_arrivals = FeatureView(
    "carrier_arrivals",
    entity=carrier,
    dataset="flights",
    description="How punctual the carrier is: its arrivals of the last four hours.",
    owner="flight-data",
    ttl_s=6 * HOUR_S,
    sql="""
        WITH minutes AS (
            SELECT
                carrier,
                arrived_at AS event_at,
                count(*) AS n,
                sum(arr_delay) AS delay,
                count(*) FILTER (WHERE arr_delay > 15) AS n_late
            FROM flights
            WHERE arrived_at IS NOT NULL
            GROUP BY carrier, arrived_at
        )
        SELECT
            carrier,
            event_at,
            event_at AS available_at,
            sum(delay) OVER recent / sum(n) OVER recent AS carrier_delay,
            sum(n_late) OVER recent / sum(n) OVER recent AS carrier_late_share
        FROM minutes
        WINDOW recent AS (
            PARTITION BY carrier ORDER BY event_at
            RANGE BETWEEN INTERVAL 4 HOURS PRECEDING AND CURRENT ROW
        )
    """,
    features=(
        Feature("carrier_delay", "float", minimum=-240, maximum=2880, description="mean, minutes"),
        Feature("carrier_late_share", "float", minimum=0, maximum=1, description="share of late ones"),
    ),
)

destination_arrivals = FeatureView(
    "destination_arrivals",
    entity=destination,
    dataset="flights",
    description="How it goes at the other end: arrivals from New York of the last six hours.",
    owner="flight-data",
    ttl_s=8 * HOUR_S,
    sql="""
        WITH minutes AS (
            SELECT
                dest,
                arrived_at AS event_at,
                count(*) AS n,
                sum(arr_delay) AS delay,
                count(*) FILTER (WHERE arr_delay > 15) AS n_late
            FROM flights
            WHERE arrived_at IS NOT NULL
            GROUP BY dest, arrived_at
        )
        SELECT
            dest,
            event_at,
            event_at AS available_at,
            sum(delay) OVER recent / sum(n) OVER recent AS destination_delay,
            sum(n_late) OVER recent / sum(n) OVER recent AS destination_late_share
        FROM minutes
        WINDOW recent AS (
            PARTITION BY dest ORDER BY event_at
            RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW
        )
    """,
    features=(
        Feature("destination_delay", "float", minimum=-240, maximum=2880, description="mean, minutes"),
        Feature("destination_late_share", "float", minimum=0, maximum=1, description="share of late ones"),
    ),
)

flight_history = FeatureView(
    "flight_history",
    entity=flight_number,
    dataset="flights",
    description="How this flight number did the last ten times.",
    owner="flight-data",
    ttl_s=30 * DAY_S,
    sql="""
        WITH minutes AS (
            SELECT
                carrier,
                flight,
                origin,
                arrived_at AS event_at,
                count(*) AS n,
                sum(arr_delay) AS delay,
                count(*) FILTER (WHERE arr_delay > 15) AS n_late
            FROM flights
            WHERE arrived_at IS NOT NULL
            GROUP BY carrier, flight, origin, arrived_at
        )
        SELECT
            carrier,
            flight,
            origin,
            event_at,
            event_at AS available_at,
            sum(delay) OVER recent / sum(n) OVER recent AS history_delay,
            sum(n_late) OVER recent / sum(n) OVER recent AS history_late_share
        FROM minutes
        WINDOW recent AS (
            PARTITION BY carrier, flight, origin ORDER BY event_at
            ROWS BETWEEN 9 PRECEDING AND CURRENT ROW
        )
    """,
    features=(
        Feature("history_delay", "float", minimum=-240, maximum=2880, description="mean, minutes"),
        Feature("history_late_share", "float", minimum=0, maximum=1, description="share of late ones"),
    ),
)

observed_weather = FeatureView(
    "observed_weather",
    entity=airport,
    dataset="weather",
    description="The weather at the airport, published an hour after it was observed.",
    owner="weather-desk",
    ttl_s=4 * HOUR_S,
    sql="""
        SELECT
            origin,
            observed_at AS event_at,
            observed_at + INTERVAL 1 HOUR AS available_at,
            humid AS humidity,
            wind_dir AS wind_direction,
            wind_speed,
            precip AS precipitation,
            pressure,
            visib AS visibility
        FROM weather
    """,
    features=(
        Feature("humidity", "float", minimum=0, maximum=100, description="percent"),
        Feature("wind_direction", "int", minimum=0, maximum=360, description="degrees"),
        Feature("wind_speed", "float", minimum=0, maximum=200, description="miles per hour"),
        Feature("precipitation", "float", minimum=0, maximum=10, description="inches in the hour"),
        Feature("pressure", "float", minimum=900, maximum=1100, description="millibars at sea level"),
        Feature("visibility", "float", minimum=0, maximum=10, description="miles"),
    ),
)

airframe = FeatureView(
    "airframe",
    entity=aircraft,
    dataset="planes",
    description="What the register knows of the aircraft; it was published before the year began.",
    owner="flight-data",
    sql="""
        SELECT
            tailnum,
            TIMESTAMPTZ '2013-01-01 00:00:00+00' AS event_at,
            TIMESTAMPTZ '2013-01-01 00:00:00+00' AS available_at,
            seats
        FROM planes
    """,
    features=(Feature("seats", "int", minimum=1, maximum=900),),
)

flight_delay = FeatureService(
    "flight_delay",
    features=(
        RequestFeature("carrier", "category", categories=CARRIERS, nullable=False),
        RequestFeature("origin", "category", categories=ORIGINS, nullable=False),
        RequestFeature(
            "scheduled_minute", "int", nullable=False, minimum=0, maximum=1439, description="of the local day"
        ),
        RequestFeature("weekday", "int", nullable=False, minimum=1, maximum=7, description="1 is Monday"),
        RequestFeature(
            "scheduled_duration", "int", nullable=False, minimum=10, maximum=1440, description="minutes"
        ),
        RequestFeature("distance", "int", nullable=False, minimum=1, maximum=10_000, description="miles"),
        "origin_departures:origin_delay",
        "origin_departures:origin_late_share",
        "last_leg:aircraft_delay",
        "last_leg:aircraft_in_air",
    ),
)
