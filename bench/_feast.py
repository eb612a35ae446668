"""The same rows in Feast, read by key: a program for Feast's own environment, spoken to in lines.

    .bench/feast/bin/python bench/_feast.py FOLDER

FOLDER holds `VIEW.parquet` for each view and `views.json` (see `_online.py`). Feast's local provider takes the files up
into its SQLite store; when that is done, one line says how long it took. Each line of standard input is then a list of
reads, each a list of ids; one line of JSON answers with the microseconds of each read, or with the values when the line
is `{"values": ids}`.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import warnings
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
os.environ.setdefault("FEAST_USAGE", "False")

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType  # noqa: E402
from feast.types import Float64, Int64  # noqa: E402


def store_of(folder: Path, told: dict[str, Any]) -> tuple[FeatureStore, list[str]]:
    """The store, and the names of all features."""
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    declared: list[Any] = []
    names = []
    for view, features in told["views"].items():
        key = f"{view}_id"
        entity = Entity(name=view, join_keys=[key], value_type=ValueType.INT64)
        source = FileSource(
            name=f"{view}_rows",
            path=str(folder / f"{view}.parquet"),
            timestamp_field="event_at",
            created_timestamp_column="available_at",
        )
        fields = [Field(name=key, dtype=Int64), *(Field(name=name, dtype=Float64) for name in features)]
        ttl = timedelta(seconds=told["ttl_s"])
        declared += [entity, FeatureView(name=view, entities=[entity], ttl=ttl, source=source, schema=fields)]
        names += [f"{view}:{name}" for name in features]
    store.apply(declared)
    return store, names


def main(folder: str) -> None:
    root = Path(folder)
    told = json.loads((root / "views.json").read_text())
    store, names = store_of(root, told)
    end = datetime.fromtimestamp(told["as_of_s"], UTC)
    started = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        store.materialize(end - timedelta(seconds=told["ttl_s"]), end)
    print(json.dumps({"materialize_s": time.perf_counter() - started}), flush=True)
    keys = [f"{view}_id" for view in told["views"]]

    def read(rows: list[dict[str, int]]) -> dict[str, list[Any]]:
        answer: dict[str, list[Any]] = store.get_online_features(features=names, entity_rows=rows).to_dict()
        return answer

    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, dict):
            said = read([dict.fromkeys(keys, number) for number in order["values"]])
            answer: Any = [
                list(row) for row in zip(*(said[name.partition(":")[2]] for name in names), strict=True)
            ]
        else:
            answer = []
            for ids in order:
                rows = [dict.fromkeys(keys, number) for number in ids]
                started = time.perf_counter_ns()
                read(rows)
                answer.append((time.perf_counter_ns() - started) / 1_000)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
