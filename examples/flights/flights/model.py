"""The model: which examples, how to train, what to judge by. Plain functions; their argument names wire them.

`flights` is the dataset, `training_set` the examples with their features, `contract` what the model takes in;
all other arguments are parameters of `lockgate.toml`.
"""

from __future__ import annotations

import lightgbm
import pyarrow as pa
import pyarrow.compute as pc
from lockgate import ModelContract, encode_columns, step

from flights.labels import asked_at, late

KEYS = ("carrier", "flight", "origin", "dest", "tailnum")

# With these, the same data gives the same model, byte for byte. One thread is no slower here: with two, each
# waits for the other a hundred thousand times, and on a busy machine that takes longer than the work.
REPRODUCIBLE = {"deterministic": True, "force_row_wise": True, "num_threads": 1}


@step
def examples(flights: pa.Table) -> pa.Table:
    """One row per flight that arrived: when it was asked about, what the caller knows, and the answer.

    Columns: the keys, `as_of`, the request features, `label_known_at`, `late`.
    """
    arrived = flights.filter(pc.is_valid(flights["arrived_at"]))
    duration = pc.minutes_between(arrived["scheduled_departure_at"], arrived["scheduled_arrival_at"])
    columns = {name: arrived[name] for name in KEYS}
    columns["as_of"] = asked_at(arrived)
    columns["scheduled_minute"] = arrived["scheduled_minute"]
    columns["weekday"] = pc.day_of_week(arrived["local_date"], count_from_zero=False)
    columns["scheduled_duration"] = duration
    columns["distance"] = arrived["distance"]
    columns["label_known_at"] = arrived["arrived_at"]
    columns["late"] = late(arrived)
    return pa.table(columns)


@step(slow=True)
def train(
    training_set: pa.Table,
    contract: ModelContract,
    train_until: str,
    rounds: int,
    learning_rate: float,
    leaves: int,
    min_rows_in_leaf: int,
    seed: int,
) -> lightgbm.Booster:
    """Boosted trees on every flight whose delay was known by `train_until`."""
    known = before(training_set, "label_known_at", train_until)
    data = lightgbm.Dataset(
        encode_columns(contract, known),
        label=known["late"].to_numpy(zero_copy_only=False),
        feature_name=list(contract.names),
        categorical_feature=[field.name for field in contract.inputs if field.dtype == "category"],
    )
    settings = {
        "objective": "binary",
        "learning_rate": learning_rate,
        "num_leaves": leaves,
        "min_data_in_leaf": min_rows_in_leaf,
        "seed": seed,
        "verbose": -1,
        **REPRODUCIBLE,
    }
    return lightgbm.train(settings, data, num_boost_round=rounds)


@step
def evaluation_set(training_set: pa.Table, train_until: str, evaluate_until: str) -> pa.Table:
    """The flights asked about after training ended; nothing later than `evaluate_until` is looked at."""
    return since(before(training_set, "as_of", evaluate_until), "as_of", train_until)


def before(table: pa.Table, column: str, day: str) -> pa.Table:
    """The rows in which the instant `column` lies before midnight UTC of `day` (2013-09-01)."""
    return table.filter(pc.less(table[column], _midnight(day)))


def since(table: pa.Table, column: str, day: str) -> pa.Table:
    """The rows in which the instant `column` lies at or after midnight UTC of `day`."""
    return table.filter(pc.greater_equal(table[column], _midnight(day)))


def _midnight(day: str) -> pa.Scalar:
    return pc.assume_timezone(pc.strptime(day, format="%Y-%m-%d", unit="us"), "UTC")
