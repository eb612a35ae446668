"""What somebody changes in the example project, as (old, new) texts; each old text stands there once."""

from __future__ import annotations

Edit = tuple[str, str]

FEATURES, SOURCES = "flights/features.py", "flights/sources.py"

_MORE_FEATURES = (
    "origin_queue:origin_waiting",
    "carrier_arrivals:carrier_delay",
    "carrier_arrivals:carrier_late_share",
    "destination_arrivals:destination_delay",
    "destination_arrivals:destination_late_share",
    "flight_history:history_delay",
    "flight_history:history_late_share",
    "observed_weather:humidity",
    "observed_weather:wind_direction",
    "observed_weather:wind_speed",
    "observed_weather:precipitation",
    "observed_weather:pressure",
    "observed_weather:visibility",
    "airframe:seats",
)
_LAST_FEATURE = '        "last_leg:aircraft_in_air",\n'

BETTER: Edit = (_LAST_FEATURE, _LAST_FEATURE + "".join(f'        "{name}",\n' for name in _MORE_FEATURES))
"""More features, from views that are defined already."""

WORSE: Edit = ("INTERVAL 3 HOURS PRECEDING AND CURRENT ROW", "INTERVAL 3 DAYS PRECEDING AND CURRENT ROW")
"""A mean over three days where one over three hours was meant."""

RENAMED: tuple[Edit, ...] = (
    ("engines, seats\n", "engines, seats AS seat_count\n"),
    ('("seats"', '("seat_count"'),
)
"""A column of a source gets another name."""

IMPOSSIBLE: Edit = ("CASE WHEN wind_speed <= 200 THEN wind_speed END AS wind_speed", "wind_speed")
"""The broken sensor that the source leaves out is let in: 1,048 miles per hour."""

FRAGILE_VIEW = "origin_overdue"
_BEFORE_VIEW = "last_leg = FeatureView(\n"
_VIEW = '''origin_overdue = FeatureView(
    "origin_overdue",
    entity=airport,
    dataset="flights",
    description="The share of flights that were not gone 15 minutes after their time, of the last hours.",
    owner="flight-data",
    ttl_s=7 * DAY_S,
    sql="""
        WITH settled AS (
            SELECT
                origin,
                least(departed_at, scheduled_departure_at + INTERVAL 15 MINUTES) AS event_at,
                departed_at IS NULL OR departed_at > scheduled_departure_at + INTERVAL 15 MINUTES AS overdue
            FROM flights
        ),
        minutes AS (
            SELECT origin, event_at, count(*) AS n, count(*) FILTER (WHERE overdue) AS n_overdue
            FROM settled
            GROUP BY origin, event_at
        )
        SELECT
            origin,
            event_at,
            event_at AS available_at,
            sum(n_overdue) OVER one_hour / sum(n) OVER one_hour AS overdue_share_1h,
            sum(n_overdue) OVER two_hours / sum(n) OVER two_hours AS overdue_share_2h,
            sum(n_overdue) OVER four_hours / sum(n) OVER four_hours AS overdue_share_4h
        FROM minutes
        WINDOW
            one_hour AS (
                PARTITION BY origin ORDER BY event_at
                RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW
            ),
            two_hours AS (
                PARTITION BY origin ORDER BY event_at
                RANGE BETWEEN INTERVAL 2 HOURS PRECEDING AND CURRENT ROW
            ),
            four_hours AS (
                PARTITION BY origin ORDER BY event_at
                RANGE BETWEEN INTERVAL 4 HOURS PRECEDING AND CURRENT ROW
            )
    """,
    features=(
        Feature("overdue_share_1h", "float", minimum=0, maximum=1),
        Feature("overdue_share_2h", "float", minimum=0, maximum=1),
        Feature("overdue_share_4h", "float", minimum=0, maximum=1),
    ),
)

'''

FRAGILE: tuple[Edit, ...] = (
    (_BEFORE_VIEW, _VIEW + _BEFORE_VIEW),
    (
        '        "origin_departures:origin_delay",\n        "origin_departures:origin_late_share",\n',
        "".join(f'        "{FRAGILE_VIEW}:overdue_share_{hours}h",\n' for hours in (1, 2, 4)),
    ),
    ('        "origin_queue:origin_waiting",\n', ""),
)
"""After `BETTER`: one view in the place of two. It judges as well, and it is believed for seven days: should its job
ever stop, the model goes on answering from the last thing it heard. The two views stay defined, for they serve the
version before."""
