"""MLflow's registry, spoken to in lines: a program for MLflow's own environment.

    .bench/mlflow/bin/python bench/_mlflow.py URI NAME

URI is a database or a server. The first line says it is ready; then each line of standard input is an order as
`_registry_client.py` takes them, and the answer is a list of milliseconds. What Lockgate calls a release (registered,
approved, live) is here a version with a tag that says who approved it, and the alias that is moved to it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

from mlflow import MlflowClient  # noqa: E402

ALIAS = "champion"


class Registry:
    def __init__(self, uri: str, name: str) -> None:
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self.name = name
        self.client.create_registered_model(name)

    def release(self, number: int) -> None:
        made = self.client.create_model_version(self.name, source=f"s3://bucket/{self.name}/{number}")
        self.client.set_model_version_tag(self.name, made.version, "approved_by", "bob")
        self.client.set_registered_model_alias(self.name, ALIAS, made.version)

    def lookup(self, number: int) -> None:
        assert self.client.get_model_version_by_alias(self.name, ALIAS).version

    def mixed(self, number: int) -> None:
        self.release(number)
        self.lookup(number)

    def list(self, number: int) -> None:
        token, n_seen = None, 0
        while True:
            page = self.client.search_model_versions("name='big'", max_results=1000, page_token=token)
            n_seen += len(page)
            token = page.token
            if not token:
                break
        assert n_seen == 10_000, n_seen


def seed(uri: str, n_versions: int) -> None:
    """Versions straight into the table: through the client they would take minutes."""
    import sqlalchemy as sa

    engine, tables = sa.create_engine(uri), sa.MetaData()
    tables.reflect(engine, only=["model_versions", "registered_models"])
    versions, models = tables.tables["model_versions"], tables.tables["registered_models"]
    now = int(time.time() * 1000)
    more = {"workspace": "default"} if "workspace" in versions.c else {}
    with engine.begin() as connection:
        connection.execute(
            models.insert(), [{"name": "big", "creation_time": now, "last_updated_time": now, **more}]
        )
        rows = [
            {
                "name": "big",
                "version": number + 1,
                "creation_time": now + number,
                "last_updated_time": now + number,
                "current_stage": "None",
                "status": "READY",
                "source": f"s3://bucket/big/{number}",
                **more,
            }
            for number in range(n_versions)
        ]
        connection.execute(versions.insert(), rows)
    engine.dispose()


def timed(act: Callable[[int], None], n: int) -> list[float]:
    taken = []
    for number in range(n):
        started = time.perf_counter()
        act(number)
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def main(uri: str, name: str) -> None:
    registry = Registry(uri, name)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "seed":
            seed(uri, order["n"])
            answer = []
        else:
            answer = timed(getattr(registry, order["do"]), order["n"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
