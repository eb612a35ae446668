from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lockgate.core.digests import sha256
from lockgate.pipeline.artifact import RunRecord
from lockgate.pipeline.execute import (
    Progress,
    StepCached,
    StepFinished,
    StepRetried,
    StepSkipped,
    StepStarted,
    execute,
)
from lockgate.pipeline.graph import BadGraph, Node
from lockgate.pipeline.plan import Plan, changes, plan, seed_of, step_key
from lockgate.pipeline.ports import StepFailed
from lockgate.pipeline.step import StepOptions
from lockgate.testing.clock import FakeClock
from lockgate.testing.memory_steps import MemoryRunner, MemoryStepCache

LOCK = sha256(b"lock")
CLEAN = "clean() in flights/features.py"


def node(name: str, *inputs: str, **more: Any) -> Node:
    own = f"{name}() in flights/model.py"
    defaults: dict[str, Any] = {"parts": {own: sha256(name.encode())}, "call": f"flights.model:{name}"}
    return Node(name=name, inputs={source: source for source in inputs}, **{**defaults, **more})


def chain() -> list[Node]:
    """flights -> table -> train -> score, where `train` is slow and takes a param."""
    return [
        node("flights"),
        node("table", "flights", parts={"table() in flights/model.py": sha256(b"t"), CLEAN: sha256(b"c")}),
        node("train", "table", params={"rounds": 200}, stage="slow", options=StepOptions(slow=True)),
        node("score", "train", "table"),
    ]


def replaced(nodes: list[Node], name: str, **changes_: Any) -> list[Node]:
    return [msgspec.structs.replace(n, **changes_) if n.name == name else n for n in nodes]


class World:
    """A project at work: what its functions do, its cache, what it told."""

    def __init__(self) -> None:
        self.cache = MemoryStepCache()
        self.clock = FakeClock()
        self.told: list[Progress] = []
        functions: dict[str, Callable[..., Any]] = {
            "flights": lambda: [1, 2, 3],
            "table": lambda flights: [2 * x for x in flights],
            "train": lambda table, rounds: {"sum": sum(table), "rounds": rounds},
            "score": lambda train, table: train["sum"] / len(table),
        }
        self.runner = MemoryRunner(functions)

    def execute(self, nodes: list[Node], environment: str = LOCK, **more: Any) -> RunRecord:
        self.told.clear()
        self.runner.ran.clear()
        return execute(nodes, self.cache, self.runner, environment, self.clock, self.told.append, **more)

    def plan(self, nodes: list[Node], environment: str = LOCK, **more: Any) -> Plan:
        return plan(nodes, self.cache, environment, available=self.runner.has, **more)

    def why(self, nodes: list[Node], environment: str = LOCK, **more: Any) -> dict[str, str]:
        return {s.name: f"{s.action}: {s.why}" for s in self.plan(nodes, environment, **more).steps}


@pytest.fixture
def world() -> World:
    done = World()
    done.execute(chain())
    return done


def test_at_first_everything_runs() -> None:
    fresh = World()
    assert fresh.why(chain()) == {
        "flights": "run: never ran",
        "table": "run: never ran; because flights runs",
        "train": "run: never ran; because table runs",
        "score": "run: never ran; because table runs; because train runs",
    }
    assert [step.key is None for step in fresh.plan(chain()).steps] == [False, True, True, True]
    record = fresh.execute(chain())
    assert fresh.runner.ran == ["flights", "table", "train", "score"]
    assert msgspec.json.decode(fresh.runner.blobs[record.output("score").digest]) == 4.0


def test_then_everything_is_cached_and_the_record_is_the_same(world: World) -> None:
    first = World().execute(chain())
    again = world.execute(chain())
    assert set(world.why(chain()).values()) == {"cached: nothing changed"}
    assert world.runner.ran == []
    assert [type(event) for event in world.told] == [StepCached] * 4
    assert again == first
    assert again.id == first.id
    assert [step.key for step in world.plan(chain()).steps] == [step.key for step in again.steps]


def test_a_changed_helper_is_named(world: World) -> None:
    edited = replaced(chain(), "table", parts={**chain()[1].parts, CLEAN: sha256(b"other")})
    assert world.why(edited) == {
        "flights": "cached: nothing changed",
        "table": "run: helper clean() in flights/features.py changed",
        "train": "run: because table runs",
        "score": "run: because table runs; because train runs",
    }


def test_equal_output_stops_the_work(world: World) -> None:
    edited = replaced(chain(), "table", parts={**chain()[1].parts, CLEAN: sha256(b"refactored")})
    world.execute(edited)
    assert world.runner.ran == ["table"]
    assert set(world.why(edited).values()) == {"cached: nothing changed"}


def test_a_changed_param_is_named_with_both_values(world: World) -> None:
    edited = replaced(chain(), "train", params={"rounds": 300})
    why = world.why(edited)
    assert why["train"] == "run: params.rounds changed 200 -> 300"
    assert why["score"] == "run: because train runs"
    assert why["table"] == "cached: nothing changed"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"params": {"rounds": 200.0}}, "params.rounds changed 200 -> 200.0"),
        ({"params": {}}, "params.rounds is gone"),
        ({"params": {"rounds": 200, "rate": 1}}, "params.rate is new"),
        ({"parts": {"train() in flights/model.py": sha256(b"x")}}, "train() in flights/model.py changed"),
        ({"parts": {"fit() in a.py": sha256(b"x")}}, "helper fit() in a.py is new"),
        ({"inputs": {"table": "table", "more": "flights"}}, "input more is new"),
        ({"inputs": {"table": "flights"}}, "input table changed"),
    ],
)
def test_what_changed_is_said(world: World, change: dict[str, Any], says: str) -> None:
    assert says in world.why(replaced(chain(), "train", **change))["train"]


def test_nested_params_are_compared_by_path(world: World) -> None:
    nested = replaced(chain(), "train", params={"rounds": {"a": 1, "b": {"c": 2}}})
    world.execute(nested)
    edited = replaced(chain(), "train", params={"rounds": {"a": 1, "b": {"c": 3}}})
    assert world.why(edited)["train"] == "run: params.rounds.b.c changed 2 -> 3"


def test_changed_data_runs_what_depends_on_it(world: World) -> None:
    edited = replaced(chain(), "flights", parts={"all of the file": sha256(b"new")})
    world.runner.functions["flights"] = lambda: [4, 5, 6]
    world.execute(edited)
    assert [e.why for e in world.told if isinstance(e, StepStarted)][1:] == [
        "input flights changed",
        "input table changed",
        "input table changed; input train changed",
    ]


def test_a_new_environment_runs_everything(world: World) -> None:
    assert world.why(chain(), sha256(b"other"))["flights"] == "run: environment changed"


def test_many_reasons_are_counted() -> None:
    one = World()
    one.runner.functions["a"] = lambda **params: 1
    one.execute([node("a", params={str(n): n for n in range(6)})])
    assert one.why([node("a")])["a"].endswith("params.2 is gone; and 3 more")


def test_force_runs_one_step_and_stops_at_equal_output(world: World) -> None:
    assert world.why(chain(), force=["table"])["table"] == "run: forced"
    world.execute(chain(), force=["table"])
    assert world.runner.ran == ["table"]
    with pytest.raises(BadGraph) as caught:
        world.execute(chain(), force=["tabel"])
    assert "'table'" in caught.value.remedy


def test_a_step_that_is_not_deterministic_is_noticed(world: World) -> None:
    before = world.cache.last("train")
    assert before is not None
    world.runner.functions["train"] = lambda table, rounds: {"sum": 0, "rounds": 1}
    world.execute(chain(), force=["train"])
    finished = next(e for e in world.told if isinstance(e, StepFinished))
    assert finished.differs_from == before.output.digest


def test_a_record_whose_bytes_are_gone_runs_again(world: World) -> None:
    table = world.cache.last("table")
    assert table is not None
    del world.runner.blobs[table.output.digest]
    assert world.why(chain())["table"] == "run: its stored output is gone"
    world.execute(chain())
    assert world.runner.ran == ["table"]


def test_going_back_to_older_code_is_cached_and_then_the_last(world: World) -> None:
    edited = replaced(chain(), "train", params={"rounds": 300})
    world.execute(edited)
    assert world.why(chain())["train"] == "cached: same as an earlier run"
    world.execute(chain())
    assert world.why(edited)["train"] == "cached: same as an earlier run"
    assert world.why(replaced(chain(), "train", params={"rounds": 400}))["train"].endswith("200 -> 400")


def test_a_fast_run_leaves_slow_steps_and_what_needs_them_out() -> None:
    fresh = World()
    record = fresh.execute(chain(), stages=("fast",))
    assert fresh.runner.ran == ["flights", "table"]
    assert [step.name for step in record.steps] == ["flights", "table"]
    skipped = [(e.name, e.why) for e in fresh.told if isinstance(e, StepSkipped)]
    assert skipped == [("train", "it is a slow step"), ("score", "train was not run")]


def test_a_fast_run_uses_slow_steps_that_are_cached(world: World) -> None:
    edited = replaced(chain(), "score", parts={"score() in flights/model.py": sha256(b"new")})
    assert [step.name for step in world.execute(edited, stages=("fast",)).steps][-1] == "score"
    assert world.runner.ran == ["score"]


def test_after_a_failure_the_finished_steps_are_kept() -> None:
    fresh = World()
    good = fresh.runner.functions["train"]
    fresh.runner.functions["train"] = lambda table, rounds: 1 / 0
    with pytest.raises(StepFailed):
        fresh.execute(chain())
    fresh.runner.functions["train"] = good
    fresh.execute(chain())
    assert fresh.runner.ran == ["train", "score"]


@pytest.mark.parametrize(
    ("names", "n_tries"), [(("ConnectionError",), 3), (("OSError",), 3), (("ValueError",), 1)]
)
def test_only_listed_exceptions_are_tried_again(names: tuple[str, ...], n_tries: int) -> None:
    fresh = World()

    def flights() -> None:
        raise ConnectionResetError("gone")

    fresh.runner.functions["flights"] = flights
    options = StepOptions(retries=2, retry_on=names)
    with pytest.raises(StepFailed):
        fresh.execute(replaced(chain(), "flights", options=options))
    assert fresh.runner.ran == ["flights"] * n_tries
    retried = [e.attempt for e in fresh.told if isinstance(e, StepRetried)]
    assert retried == list(range(1, n_tries))


def test_options_and_stage_are_no_part_of_a_key() -> None:
    other = node("train", stage="slow", options=StepOptions(slow=True, timeout_s=5), dynamic=("x",))
    assert step_key(node("train"), {}, LOCK) == step_key(other, {}, LOCK)


def test_everything_else_is_part_of_a_key() -> None:
    nodes = [
        node("train"),
        node("other"),
        node("train", kind="builtin"),
        node("train", parts={"x": LOCK}),
        node("train", params={"x": 1}),
        node("train", params={"x": 1.0}),
        node("train", params={"x": "1"}),
    ]
    keys = [step_key(n, {}, LOCK) for n in nodes]
    keys += [step_key(nodes[0], {"a": LOCK}, LOCK), step_key(nodes[0], {"b": LOCK}, LOCK)]
    keys.append(step_key(nodes[0], {}, sha256(b"other lock")))
    assert len(set(keys)) == len(keys)


def test_seeds_are_stable_and_differ_by_step_and_key() -> None:
    assert seed_of(LOCK, "train") == 9_314_242_573_400_277_751
    assert len({seed_of(LOCK, "train"), seed_of(LOCK, "score"), seed_of(sha256(b""), "train")}) == 3


def test_the_record_holds_no_times_and_its_id_follows_its_content() -> None:
    fresh, later = World(), World()
    later.clock.advance(days=3)
    one, two = fresh.execute(chain(), model="delay"), later.execute(chain(), model="main/delay")
    assert one.id == two.id
    assert (one.model, one.namespace) == ("main/delay", "main")
    assert fresh.execute(chain(), model="other").id != one.id
    assert fresh.execute(chain(), model="delay", settings={"OMP_NUM_THREADS": "2"}).id != one.id
    assert msgspec.json.decode(msgspec.json.encode(one), type=RunRecord) == one


def test_changes_name_nothing_when_nothing_changed(world: World) -> None:
    last = world.cache.last("train")
    assert last is not None
    assert changes(chain()[2], last.inputs, LOCK, last) == []


def test_took_ms_is_measured_by_the_clock_given() -> None:
    fresh = World()

    def flights() -> list[int]:
        fresh.clock.advance(seconds=2.5)
        return [1]

    fresh.runner.functions["flights"] = flights
    fresh.execute([node("flights")])
    record = fresh.cache.last("flights")
    assert record is not None
    assert record.took_ms == 2_500
