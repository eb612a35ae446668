"""What serving reads online is what training saw: a week of flights, replayed event by event, bit for bit.

The views are those of the better version of the example, over the real data. Every row is pushed into an LMDB store
at the minute at which it became known; an hour before each flight leaves, the features of its entities are read as
serving reads them and held against the point-in-time join. That the comparison can fail is shown with stores that are
filled or read wrongly.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from operator_story import BETTER, FEATURES, Project, Worlds

from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.adapters.runners.artifacts import load
from lockgate.adapters.sql.step_cache import SqliteStepCache
from lockgate.app.control import Control
from lockgate.core.clock import Micros, parse_iso
from lockgate.core.digests import Digest
from lockgate.core.names import ModelName
from lockgate.features.join import Timeline, ViewRows, join_as_of
from lockgate.features.online import OnlineFeatures, known_at
from lockgate.features.ports import Key
from lockgate.pipeline.execute import execute
from lockgate.pipeline.recipe import model_contract
from lockgate.registry.packages.contract import ModelContract, encode_columns, encode_rows
from lockgate.workshop.assembly import assemble_runner
from lockgate.workshop.build import Workshop
from lockgate.workshop.layout import Layout
from lockgate.workshop.online import Feed, Materializer

MODEL = ModelName("main", "flight-delay")
BEGIN, DAY_2, END = (parse_iso(f"2013-11-{day:02}T00:00Z") for day in (4, 5, 11))
VIEWS = {
    *("airframe", "carrier_arrivals", "destination_arrivals", "flight_history"),
    *("last_leg", "observed_weather", "origin_departures", "origin_queue"),
}
Push = Callable[[Micros | None, Micros], object]
#: Of one view and one flight: status, age in microseconds, the values with their types and bits.
Seen = tuple[str, int | None, tuple[Any, ...]]


class World(NamedTuple):
    """The better version's service over the real data, and every flight that was asked about."""

    work: Materializer
    rows: dict[str, ViewRows]
    hashes: dict[str, Digest]
    contract: ModelContract
    examples: pa.Table

    def asked(self, begin: Micros, end: Micros) -> pa.Table:
        """The flights asked about in [begin, end), in the order of their questions."""
        at = pc.cast(self.examples["as_of"], pa.int64())
        within = pc.and_(pc.greater_equal(at, begin), pc.less(at, end))
        return self.examples.filter(within).sort_by("as_of")


@pytest.fixture(scope="module")
def world(worlds: Worlds, tmp_path_factory: pytest.TempPathFactory) -> World:
    project: Project = worlds.made.copy(tmp_path_factory.mktemp("week") / "flights")
    project.edit(FEATURES, BETTER)
    premises = Control(Layout(project.root)).premises
    workshop = Workshop(premises, MODEL)
    runner = assemble_runner(
        workshop.root, premises.blobs, premises.tools, workshop.recipe, workshop.sources, workshop.definitions
    )
    nodes = [node for node in workshop.nodes if node.name in ("flights", "examples")]
    with SqliteStepCache(premises.layout.steps, str(MODEL)) as cache:
        record = execute(nodes, cache, runner, workshop.environment, premises.clock, model=str(MODEL))
    examples = load(record.output("examples"), premises.blobs)
    assert isinstance(examples, pa.Table)
    ran: list[str] = []
    work = Materializer(premises, MODEL, observer=lambda progress: ran.append(progress.name))
    assert set(work.rows) == VIEWS
    assert "flights" not in ran and "weather" in ran, "a snapshot that is there is not taken again"
    return World(
        work, work.rows, work.hashes, model_contract(workshop.recipe, workshop.definitions), examples
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbOnline]:
    with LmdbOnline(tmp_path / "online", durable=False) as opened:
        yield opened


def bits(value: object) -> tuple[str, object]:
    return type(value).__name__, struct.pack("<d", value) if isinstance(value, float) else value


def offline(rows: Mapping[str, ViewRows], asked: pa.Table) -> dict[str, list[Seen]]:
    """What the join gives per view and flight."""
    # The join would refuse to bring a column that the examples have.
    spine = asked.select(
        ["as_of", *dict.fromkeys(key for one in rows.values() for key in one.view.entity.keys)]
    )
    joined = join_as_of(spine, list(rows.values()), mode="as_known", status=True)
    found = {}
    for name, one in rows.items():
        states = ["PRESENT" if state == "NULL" else state for state in joined[f"{name}__status"].to_pylist()]
        ages = [None if age is None else round(age * 1e6) for age in joined[f"{name}__age_s"].to_pylist()]
        values = zip(
            *(map(bits, joined[feature].to_pylist()) for feature in one.view.feature_names), strict=True
        )
        found[name] = list(zip(states, ages, values, strict=True))
    return found


def moments(rows: Mapping[str, ViewRows], asked: pa.Table) -> list[Micros]:
    """Every instant of the replay: when a row became known, and when somebody asked."""
    questions = np.asarray(pc.cast(asked["as_of"], pa.int64()))
    first, last = questions[0], questions[-1]
    events = [np.maximum(one.event_at, one.available_at) for one in rows.values()]
    events = [known[(known >= first) & (known <= last)] for known in events]
    return [int(at) for at in np.unique(np.concatenate([questions, *events]))]


def replay(
    world: World, asked: pa.Table, store: LmdbOnline, push: Push, *, ttl: bool = True
) -> dict[str, list[OnlineFeatures]]:
    """Push event by event, and answer each question in between as serving does: one read of all views."""
    views = [one.view for one in world.rows.values()]
    keys: dict[str, list[Key]] = {view.name: [] for view in views}
    for view in views:
        columns = [asked[key].to_pylist() for key in view.entity.keys]
        # No row has the empty key: it stands for one with a null in it.
        keys[view.name] += [() if None in key else key for key in zip(*columns, strict=True)]
    questions = pc.cast(asked["as_of"], pa.int64()).to_pylist()
    found: dict[str, list[OnlineFeatures]] = {view.name: [] for view in views}
    place, before = 0, None
    for at in moments(world.rows, asked):
        push(before, at)
        before, first = at, place
        while place < len(questions) and questions[place] == at:
            place += 1
        if place == first:
            continue
        read = store.read_many([(world.hashes[view.name], keys[view.name][first:place]) for view in views])
        for view, rows in zip(views, read, strict=True):
            ttl_s = view.ttl_s if ttl else None
            n_features = len(view.feature_names)
            found[view.name] += [known_at(row, at, ttl_s=ttl_s, n_features=n_features) for row in rows]
    assert place == len(questions)
    return found


def seen(found: Sequence[OnlineFeatures]) -> list[Seen]:
    return [(one.status, one.age_us, tuple(map(bits, one.values))) for one in found]


def test_a_week_read_online_is_the_week_that_training_joined(
    world: World, store: LmdbOnline, tmp_path: Path
) -> None:
    asked = world.asked(BEGIN, END)
    assert asked.num_rows > 5000
    work = world.work
    work.store = store
    online = replay(world, asked, store, lambda since, until: work.push(until, since=since))
    joined = offline(world.rows, asked)
    for name in VIEWS:
        assert seen(online[name]) == joined[name], name
    # The week has all there is to get wrong.
    states = {state for name in VIEWS for state, _, _ in joined[name]}
    assert states == {"PRESENT", "EXPIRED", "MISSING"}

    # A model is given the same matrix, byte for byte.
    features = join_as_of(asked, list(world.rows.values()), mode="as_known")
    offline_matrix = encode_columns(world.contract, {name: features[name] for name in world.contract.names})
    given = {name: asked[name].to_pylist() for name in world.contract.names if name in asked.column_names}
    for name, rows in world.rows.items():
        columns = zip(*(one.values for one in online[name]), strict=True)
        given |= {
            feature: list(values)
            for feature, values in zip(rows.view.feature_names, columns, strict=True)
            if feature in world.contract.names
        }
    lines = [dict(zip(given, line, strict=True)) for line in zip(*given.values(), strict=True)]
    online_matrix = encode_rows(world.contract, lines)
    assert online_matrix.dtype == np.float32 and online_matrix.shape == (
        asked.num_rows,
        len(world.contract.names),
    )
    assert online_matrix.tobytes() == offline_matrix.tobytes()

    # Thousands of small pushes, one large one, and either of them again: the same bytes.
    last = moments(world.rows, asked)[-1]
    assert set(work.push(last).values()) == {0}
    with LmdbOnline(tmp_path / "at-once", durable=False) as other:
        work.store = other
        taken = work.push(last)
        assert taken.keys() == VIEWS and all(taken.values())
    store.close()
    assert content(tmp_path / "online") == content(tmp_path / "at-once")


def content(folder: Path) -> list[tuple[bytes, bytes]]:
    with lmdb.open(str(folder), readonly=True) as files, files.begin() as txn:
        return list(txn.cursor())


def _by_event_only(rows: ViewRows) -> ViewRows:
    """As if a row were known as soon as it is true."""
    return dataclasses.replace(rows, available_at=rows.event_at, timeline=_when_true(rows))


def _pushed_by_event(rows: ViewRows) -> ViewRows:
    """Pushed as soon as it is true, though it still says since when it may be known."""
    return dataclasses.replace(rows, timeline=_when_true(rows))


def _when_true(rows: ViewRows) -> Timeline:
    return Timeline(rows.starts, rows.event_at, np.arange(rows.n_rows, dtype=np.int64))


def _in_time(rows: ViewRows) -> ViewRows:
    return rows


@pytest.mark.parametrize(
    ("mistake", "ttl", "wrong"),
    [
        (_in_time, True, set()),
        (_by_event_only, True, {"observed_weather"}),
        (_pushed_by_event, True, {"observed_weather"}),
        (_in_time, False, VIEWS - {"airframe"}),
    ],
)
def test_a_store_filled_or_read_wrongly_is_noticed(
    world: World, store: LmdbOnline, mistake: Callable[[ViewRows], ViewRows], ttl: bool, wrong: set[str]
) -> None:
    asked = world.asked(BEGIN, DAY_2)
    feeds = {name: Feed(mistake(rows)) for name, rows in world.rows.items()}

    def push(since: Micros | None, until: Micros) -> None:
        for name, feed in feeds.items():
            store.write(world.hashes[name], feed.between(since, until))

    online, joined = replay(world, asked, store, push, ttl=ttl), offline(world.rows, asked)
    differ = {name for name in VIEWS if seen(online[name]) != joined[name]}
    assert differ <= wrong and bool(differ) == bool(wrong)


def test_a_push_of_many_views_at_a_moment_long_gone_serves_nothing_early(
    world: World, store: LmdbOnline
) -> None:
    """A store that is ahead of the question has forgotten what was known then: it says so, it does not guess."""
    asked = world.asked(BEGIN, DAY_2)
    world.work.store = store
    world.work.push(END)
    online = replay(world, asked, store, lambda since, until: None)
    joined = offline(world.rows, asked)
    for name in VIEWS:
        for got, right in zip(seen(online[name]), joined[name], strict=True):
            assert got == right or got[0] == "MISSING"
