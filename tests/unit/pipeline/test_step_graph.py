from __future__ import annotations

import pytest

from lockgate.core.errors import LockgateError
from lockgate.pipeline.code.source import SourceTree
from lockgate.pipeline.graph import BadGraph, Node, in_order, wire_steps
from lockgate.pipeline.step import BadStep

SOURCE = """
import lockgate

@lockgate.step
def table(flights, columns=("a",)): return flights

@lockgate.step(slow=True, timeout_s=9)
def train(table, rounds, rate=0.1, *, seed, rng): return table

@lockgate.step
def evaluate(train, table, params): return params
"""


def wire(source: str = SOURCE, names: str = "evaluate train table", **params: object) -> tuple[Node, ...]:
    tree = SourceTree({"m.py": source.encode()})
    given = [Node(name="flights", kind="snapshot")]
    return wire_steps(tree, [f"m:{name}" for name in names.split()], params=params, given=given)


def test_argument_names_wire_steps_data_and_params() -> None:
    flights, table, train, evaluate = wire(rounds=200)
    assert flights.kind == "snapshot"
    assert (table.name, table.inputs, table.params) == ("table", {"flights": "flights"}, {})
    assert (train.inputs, train.params, train.wants) == ({"table": "table"}, {"rounds": 200}, ("seed", "rng"))
    assert evaluate.inputs == {"train": "train", "table": "table"}
    assert evaluate.params == {"params": {"rounds": 200}}
    assert [node.stage for node in (table, train, evaluate)] == ["fast", "slow", "fast"]
    assert train.options.timeout_s == 9
    assert set(train.parts) == {"train() in m.py"}


def test_a_param_may_replace_a_default() -> None:
    assert wire(rounds=1, rate=0.2)[2].params == {"rounds": 1, "rate": 0.2}


def test_a_seed_in_the_params_is_a_param() -> None:
    train = wire(rounds=1, seed=7)[2]
    assert (train.params["seed"], train.wants) == (7, ("rng",))


def test_the_order_does_not_depend_on_how_steps_are_listed() -> None:
    orders = {tuple(node.name for node in wire(names=names, rounds=1)) for names in
              ("evaluate train table", "table train evaluate", "train evaluate table")}  # fmt: skip
    assert orders == {("flights", "table", "train", "evaluate")}


def test_an_unknown_argument_is_met_with_near_matches() -> None:
    with pytest.raises(BadGraph) as caught:
        wire("def train(tabel): return 1\ndef table(): return 1", "train table")
    assert caught.value.message == "step train() in m.py wants 'tabel', which is neither a step nor a param"
    assert "'table'" in caught.value.remedy


@pytest.mark.parametrize(
    ("source", "names", "params", "says"),
    [
        ("def a(b): ...\ndef b(c): ...\ndef c(a): ...", "a b c", {}, "a -> b -> c -> a"),
        ("def a(a): ...", "a", {}, "a -> a"),
        ("def a(): ...", "a", {"a": 1}, "both a step and a param"),
        ("def a(*rows): ...", "a", {}, "positional-only"),
        ("def a(**rows): ...", "a", {}, "positional-only"),
        ("def a(rows, /): ...", "a", {}, "positional-only"),
        ("def a():\n    yield 1", "a", {}, "generator"),
        ("def flights(): ...", "flights", {}, "two steps are called 'flights'"),
    ],
)
def test_graphs_that_cannot_work_are_refused(
    source: str, names: str, params: dict[str, object], says: str
) -> None:
    with pytest.raises(LockgateError, match=says):
        wire(source, names, **params)


def test_a_generator_inside_a_step_is_no_generator() -> None:
    source = "def a():\n    def rows():\n        yield 1\n    return list(rows())"
    assert wire(source, "a")[0].name == "a"


def test_an_input_from_nowhere_is_refused() -> None:
    with pytest.raises(BadGraph) as caught:
        in_order([Node(name="train", inputs={"x": "tabel"}), Node(name="table")])
    assert "'table'" in caught.value.remedy


def test_a_call_names_module_and_function() -> None:
    with pytest.raises(BadStep, match="does not name a function"):
        wire_steps(SourceTree({}), ["train"])
