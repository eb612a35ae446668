"""What the registry costs: against MLflow on the same database, against a bare insert, against hashlib.

    make bench registry

Both sides of a ratio are measured in one run, turn by turn, on SQLite and on a PostgreSQL that is started for it (the
one that `make test-services` installs). Budgets: 0.2 is five times as fast as MLflow, 0.1 ten times. Writes
`bench/results/registry.json`.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

from _journal_cost import a_million_events, audit_rows, opened, transition_rows, write_all
from _measure import ROOT, Row, absolute_row, compile_sources, keep, show
from _registry_peers import DSN, mlflow_python, peer_rows

from lockgate.core.messages import Context
from lockgate.hub.kernel import load
from lockgate.hub.table import COMMANDS
from lockgate.testing.hub_world import MODEL_NAME, Story, accepted

MAX_DECISION_MS = 1.0


def bare_sqlite(path: Path) -> Callable[[bytes], None]:
    """An insert and commit, as durable as the journal's."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")

    def insert(body: bytes) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO bare (body) VALUES (?)", (body,))
        connection.execute("COMMIT")

    return insert


def bare_postgres(dsn: str) -> Callable[[bytes], None]:
    import psycopg

    connection = psycopg.connect(dsn)
    connection.execute("CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea)")
    connection.commit()

    def insert(body: bytes) -> None:
        connection.execute("INSERT INTO bare (body) VALUES (%s)", (body,))
        connection.commit()

    return insert


def decision_row(folder: Path) -> Row:
    """A promotion to production with all it asks for, decided over documents that were read: the policy alone."""
    world = opened(f"sqlite:{folder / 'decision.db'}")
    story = Story(world.hub)
    story.found()
    story.release("one", f"{MODEL_NAME}@1.0.0")
    version = f"{MODEL_NAME}@1.0.1"
    accepted(story.register("two"))
    accepted(story.judge(version))
    accepted(story.validate(version))
    accepted(story.promote(version, "dev"))
    accepted(story.confirm("dev"))
    accepted(story.judge_for(version, "prod"))
    accepted(story.approve(version))
    from lockgate.delivery.messages import PromoteVersion

    command = PromoteVersion(id="asked", version=version, environment="prod", ticket="CHG-1")
    handler = COMMANDS[PromoteVersion]
    with world.journal.transaction() as transaction:
        docs = load(transaction, handler, command)
    context = Context(
        actor="olga", now=world.clock.now(), person=True, claimed=True, facts=world._establish(command)
    )
    outcome = handler.decide(docs, command, context)
    assert type(outcome).__name__ == "Decision", outcome
    timer, n = timeit.Timer(lambda: handler.decide(docs, command, context)), 500
    taken_ms = min(timer.repeat(7, n)) / n * 1000
    return absolute_row("decision about a promotion to production, ms", taken_ms, None, MAX_DECISION_MS)


def main() -> int:
    compile_sources()
    mlflow_python()
    from postgres import postgres_server

    with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as folder, postgres_server() as server:
        root = Path(folder)
        os.environ[DSN] = server.dsn()
        rows = peer_rows(root / "peers", server)
        rows += transition_rows(
            f"sqlite:{root / 'peers' / 'SQLite' / 'journal.db'}", "SQLite", bare_sqlite(root / "bare.db")
        )
        rows += transition_rows(f"env:{DSN}", "PostgreSQL", bare_postgres(server.dsn()))
        rows.append(decision_row(root))
        commits = a_million_events(root)
        server.administer("CREATE SCHEMA audited")
        os.environ[DSN] = server.dsn(schema="audited")
        for url, database in ((f"sqlite:{root / 'audited.db'}", "SQLite"), (f"env:{DSN}", "PostgreSQL")):
            write_all(opened(url).journal, commits)
            rows += audit_rows(url, database)
            show(rows[-2:])
    show(rows)
    print(f"written to {keep('registry', rows).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
