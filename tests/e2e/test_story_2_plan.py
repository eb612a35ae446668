"""Story 2: the plan says what would run and why, and exactly that runs; features know what was known then."""

from __future__ import annotations

import io
import json
from typing import Any

import duckdb
import pyarrow.parquet as pq
from operator_story import LABELS, MODEL, Given, Project, Then, When, Worlds, actions, reasons, to_run

from command_line import REFUSED

DATA_STEPS = {"flights", "weather", "planes", "flights.contract", "weather.contract", "planes.contract"}
BEHIND_TRAIN = {"train", "evaluation_set", "package", "evidence"}
BEHIND_EXAMPLES = {"examples", "training_set", *BEHIND_TRAIN}


def test_a_new_project_plans_to_run_everything_and_runs_nothing(
    worlds: Worlds, given: Given, when: When
) -> None:
    project = given.a_new_project()
    when.somebody("plan").must(0)
    plan = project.asks("plan")
    assert set(actions(plan).values()) == {"run"}
    assert all("never ran" in why for why in reasons(plan).values())
    # Planning is reading: it made no entry, no package and no step.
    assert not project.database.exists() or project.journal() == []


def test_the_fast_stage_then_the_slow_stage_run_what_the_plan_said(worlds: Worlds, given: Given) -> None:
    project = worlds.twin
    fast, slow = given.told("fast stage").json, given.told("slow stage").json
    between = given.told("plan between the stages").json
    assert fast["ok"] is True and set(fast["ran"]) == DATA_STEPS and fast["cached"] == []
    everything = set(actions(given.told("twin plan").json))
    assert to_run(between) == everything - DATA_STEPS
    assert set(slow["ran"]) == to_run(between) and set(slow["cached"]) == DATA_STEPS
    assert to_run(given.told("plan after both stages").json) == set()
    # The unit tests of the project ran in the fast stage, and no gate or registry was asked in it.
    assert "unit tests passed" in project.types("check").must(0).out


def test_a_second_plan_says_all_cached(given: Given, when: When, then: Then) -> None:
    given.version_one_is_live()
    then.everything_is_cached()
    when.somebody("plan")
    then.it_succeeds().it_says("0 to run, 15 cached", "nothing changed")
    # The second ship of the same sources ran nothing either.
    assert "0 steps ran, 15 cached" in given.told("ship").err


def test_editing_a_comment_or_the_layout_runs_nothing(given: Given, when: When, then: Then) -> None:
    given.version_one_is_live()
    given.an_edit(
        MODEL,
        ("@step(slow=True)\n", "# Trees are enough here: a deeper model gained nothing.\n@step(slow=True)\n"),
        (
            "    known = before(training_set,",
            "    # what was known by then\n    known = before(  training_set,",
        ),
        (
            '"""The rows in which the instant `column` lies before',
            '"""Rows whose instant `column` lies before',
        ),
    )
    then.everything_is_cached()
    when.ada("train --json")
    then.it_succeeds()
    assert then.answer["ran"] == [] and then.answer["version"] == "flight-delay@1.0.0"


def test_editing_a_helper_runs_exactly_its_steps_and_their_dependants(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    given.an_edit(LABELS, ("pc.greater(flights", "pc.greater_equal(flights"))
    plan = project.asks("plan")
    assert to_run(plan) == BEHIND_EXAMPLES
    assert reasons(plan)["examples"] == "helper late() in flights/labels.py changed"
    assert reasons(plan)["training_set"] == "because examples runs"
    assert "late() in flights/labels.py" in reasons(plan)["package"]
    when.ada("train --json")
    then.it_succeeds()
    assert set(then.answer["ran"]) == to_run(plan)
    assert set(then.answer["cached"]) == set(actions(plan)) - to_run(plan)
    # Another code is at least a minor version; the tool computed it.
    assert then.answer["version"] == "flight-delay@1.1.0"
    then.everything_is_cached()


def test_an_edit_that_changes_no_result_is_cut_off_early(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    given.an_edit(
        LABELS,
        (
            'return pc.greater(flights["arr_delay"], LATE_AFTER_MINUTES)',
            'delay = flights["arr_delay"]\n    return pc.greater(delay, LATE_AFTER_MINUTES)',
        ),
    )
    assert to_run(project.asks("plan")) == BEHIND_EXAMPLES
    when.ada("train --json")
    then.it_succeeds()
    # The labels came out the same, byte for byte: no training. The package holds the code, so it is a new one.
    assert set(then.answer["ran"]) == {"examples", "package", "evidence"}


def test_each_cause_is_named(given: Given) -> None:
    project = given.version_one_is_live()
    given.an_edit(MODEL, ("pc.less(table[column]", "pc.less_equal(table[column]"))
    plan = project.asks("plan")
    assert to_run(plan) == BEHIND_TRAIN
    for name in ("train", "evaluation_set"):
        assert "helper before() in flights/model.py changed" in reasons(plan)[name]

    project = given.version_one_is_live()
    given.an_edit("lockgate.toml", ("rounds = 150", "rounds = 160"))
    plan = project.asks("plan")
    assert to_run(plan) == {"train", "package", "evidence"}
    assert reasons(plan)["train"] == "params.rounds changed 150 -> 160"

    project = given.version_one_is_live()
    given.an_edit("requirements.lock", ("\nlightgbm==", "\n# pinned\nlightgbm=="))
    plan = project.asks("plan")
    assert set(actions(plan).values()) == {"run"} and "environment changed" in reasons(plan)["flights"]

    project = given.version_one_is_live()
    given.an_edit("lockgate.toml", ("minimum = 0.70", "minimum = 0.71"))
    plan = project.asks("plan")
    assert to_run(plan) == {"evidence"}, "judging a model differently must not build it anew"


def test_a_broken_unit_test_stops_the_fast_stage(given: Given, when: When, then: Then) -> None:
    given.version_one_is_live()
    given.a_file(
        "tests/test_broken.py", "def test_nothing_holds() -> None:\n    assert 'late' == 'on time'\n"
    )
    when.ada("check")
    then.it_ends_with(REFUSED).it_says("test_nothing_holds", "1 failed")


def test_features_hold_what_was_known_at_the_time_of_the_question(worlds: Worlds) -> None:
    """Against sums over the raw flights: no departure, delay or arrival later than the question shows."""
    project = worlds.one
    training = table_of(project, "training_set")
    flights = table_of(project, "flights")
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    database.register("training", training)
    database.register("flights", flights)
    database.execute(
        """
        CREATE TABLE asked AS SELECT * FROM (
            SELECT row_number() OVER () AS row, * FROM training
        ) WHERE row % 997 = 0;
        CREATE TABLE news AS
            SELECT tailnum, departed_at AS seen_at, dep_delay AS delay, true AS in_air FROM flights
            WHERE departed_at IS NOT NULL
            UNION ALL
            SELECT tailnum, arrived_at, arr_delay, false FROM flights WHERE arrived_at IS NOT NULL;
        """
    )
    rows = database.execute(
        """
        WITH known AS (
            SELECT *,
                (SELECT max(departed_at) FROM flights f
                 WHERE f.origin = asked.origin AND f.departed_at <= asked.as_of) AS last_out,
                (SELECT max(seen_at) FROM news
                 WHERE news.tailnum = asked.tailnum AND news.seen_at <= asked.as_of) AS last_seen
            FROM asked
        )
        SELECT
            origin_delay,
            CASE WHEN as_of - last_out <= INTERVAL 3 HOURS THEN (
                SELECT avg(dep_delay) FROM flights f WHERE f.origin = known.origin
                AND f.departed_at BETWEEN known.last_out - INTERVAL 3 HOURS AND known.last_out) END,
            aircraft_delay,
            CASE WHEN as_of - last_seen <= INTERVAL 16 HOURS THEN (
                SELECT max(delay) FROM news
                WHERE news.tailnum = known.tailnum AND news.seen_at = known.last_seen) END,
            aircraft_in_air,
            CASE WHEN as_of - last_seen <= INTERVAL 16 HOURS THEN (
                SELECT bool_or(in_air) FROM news
                WHERE news.tailnum = known.tailnum AND news.seen_at = known.last_seen) END
        FROM known
        """
    ).fetchall()
    database.close()
    assert len(rows) > 300
    for origin_delay, origin_expected, delay, delay_expected, in_air, in_air_expected in rows:
        assert about(origin_delay, origin_expected)
        assert about(delay, delay_expected)
        assert in_air == in_air_expected
    # Both ends occur: something known, and nothing known (any more).
    assert {None, True, False} == {row[4] for row in rows}


def about(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return abs(found - expected) < 1e-6


def table_of(project: Project, step: str) -> Any:
    """What a step of the live version's run left behind, by the run's own record."""
    run = json.loads(project.blob(project.asks("explain prod/flight-delay")["run"]))
    (output,) = [one["output"]["digest"] for one in run["steps"] if one["name"] == step]
    return pq.read_table(io.BytesIO(project.blob(output)))
