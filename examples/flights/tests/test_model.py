"""The functions are plain ones: they are tested with small tables, without Lockgate running."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
from lockgate import InputField, ModelContract, OutputField

from flights import model

INSTANT = pa.timestamp("us", tz="UTC")
NOON = datetime(2013, 6, 3, 12, 0, tzinfo=UTC)


def timetable(*arrival_delays: int | None) -> pa.Table:
    """One flight an hour from Monday noon on, two hours long, with these delays."""
    leaves = [NOON + timedelta(hours=n) for n in range(len(arrival_delays))]
    due = [at + timedelta(hours=2) for at in leaves]
    n = len(arrival_delays)
    return pa.table(
        {
            "local_date": pa.array([date(2013, 6, 3)] * n),
            "carrier": ["UA"] * n,
            "flight": pa.array(range(n), pa.int32()),
            "origin": ["EWR"] * n,
            "dest": ["IAH"] * n,
            "tailnum": ["N14228"] * n,
            "distance": pa.array([1400] * n, pa.int32()),
            "scheduled_minute": pa.array([480 + 60 * i for i in range(n)], pa.int32()),
            "scheduled_departure_at": pa.array(leaves, INSTANT),
            "scheduled_arrival_at": pa.array(due, INSTANT),
            "arrived_at": pa.array(
                [
                    None if delay is None else at + timedelta(minutes=delay)
                    for at, delay in zip(due, arrival_delays, strict=True)
                ],
                INSTANT,
            ),
            "arr_delay": pa.array(arrival_delays, pa.int32()),
        }
    )


def contract() -> ModelContract:
    return ModelContract(
        inputs=(InputField(name="distance", dtype="float"),),
        output=OutputField(name="late", kind="probability"),
    )


def training_set(n: int = 400) -> pa.Table:
    """Far flights are late. Known one by one from Monday on, a minute apart."""
    rng = np.random.default_rng(7)
    distance = rng.uniform(100, 3000, n)
    known = [NOON + timedelta(minutes=i) for i in range(n)]
    return pa.table(
        {
            "distance": distance,
            "as_of": pa.array([at - timedelta(hours=4) for at in known], INSTANT),
            "label_known_at": pa.array(known, INSTANT),
            "late": distance > 1500,
        }
    )


def train(rows: pa.Table, until: str = "2013-06-05"):  # type: ignore[no-untyped-def]
    return model.train(
        rows,
        contract(),
        train_until=until,
        rounds=5,
        learning_rate=0.3,
        leaves=4,
        min_rows_in_leaf=5,
        seed=1,
    )


def test_a_flight_is_late_after_fifteen_minutes() -> None:
    assert model.examples(timetable(-5, 15, 16))["late"].to_pylist() == [False, False, True]


def test_the_question_is_asked_an_hour_before_departure() -> None:
    assert model.examples(timetable(0))["as_of"].to_pylist() == [NOON - timedelta(hours=1)]


def test_flights_that_never_arrived_are_no_examples() -> None:
    rows = model.examples(timetable(0, None, 30))
    assert rows["flight"].to_pylist() == [0, 2]
    assert rows["late"].null_count == 0


def test_what_the_caller_knows() -> None:
    row = model.examples(timetable(0)).to_pylist()[0]
    assert (row["weekday"], row["scheduled_duration"], row["scheduled_minute"]) == (1, 120, 480)


def test_training_finds_the_rule_and_repeats_itself() -> None:
    booster = train(training_set())
    low, high = booster.predict(np.array([[300.0], [2500.0]], dtype=np.float32))
    assert low < 0.3
    assert high > 0.7
    assert train(training_set()).model_to_string() == booster.model_to_string()


def test_training_ignores_what_was_known_too_late() -> None:
    rows = training_set()
    turned = rows.set_column(
        rows.column_names.index("late"), "late", pa.array(rows["distance"].to_numpy() < 1500)
    )
    later = turned.set_column(
        turned.column_names.index("label_known_at"),
        "label_known_at",
        pa.array([datetime(2013, 6, 5, tzinfo=UTC)] * len(turned), INSTANT),
    )
    alone, with_later = train(rows), train(pa.concat_tables([rows, later]))
    assert alone.model_to_string() == with_later.model_to_string()


def test_the_evaluation_set_lies_between_its_days() -> None:
    rows = model.examples(timetable(*[0] * 48))
    judged = model.evaluation_set(rows, train_until="2013-06-04", evaluate_until="2013-06-05")
    assert judged["as_of"].to_pylist() == [datetime(2013, 6, 4, hour, tzinfo=UTC) for hour in range(24)]
