"""The graph of steps: argument names wire functions to other steps, to data and to params.

`def evaluate(model, test_set, threshold)` depends on the nodes `model` and `test_set` and takes the param
`threshold`. Everything is read from source text; an argument that means nothing is refused with near matches.
"""

from __future__ import annotations

import ast
import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from lockgate.core.digests import Digest
from lockgate.core.errors import Invalid, did_you_mean
from lockgate.pipeline.code.closure import closure
from lockgate.pipeline.code.source import SourceTree, find_function
from lockgate.pipeline.step import BadStep, StepOptions

Stage = Literal["fast", "slow"]
#: Arguments the runner fills in from the step's key.
GIVEN_BY_RUNNER = frozenset({"seed", "rng"})
#: The argument that takes all params at once, when no single param bears that name.
ALL_PARAMS = "params"


class BadGraph(Invalid):
    """The steps do not fit together."""

    code = "pipeline.bad-graph"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the graph.

    Attributes:
        name: of the step; its output goes by the same name.
        kind: `step` for a function of the project, else the name of a built-in the runner knows.
        stage: `fast` steps run in `lockgate check` too, `slow` ones in `lockgate train` only.
        parts: what the step's own code consists of, by label; see `Closure.parts`.
        params: the values it takes, by argument name.
        inputs: argument name -> name of the node whose output it gets.
        call: `module:function` for kind `step`.
        wants: which of `seed` and `rng` the function asks for.
        dynamic: see `Closure.dynamic`.
    """

    name: str
    kind: str = "step"
    stage: Stage = "fast"
    parts: dict[str, Digest] = msgspec.field(default_factory=dict)
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    inputs: dict[str, str] = msgspec.field(default_factory=dict)
    call: str | None = None
    options: StepOptions = StepOptions()
    wants: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()


def wire_steps(
    tree: SourceTree,
    calls: Sequence[str],
    *,
    params: Mapping[str, Any] | None = None,
    given: Iterable[Node] = (),
) -> tuple[Node, ...]:
    """Make the graph of the step functions `calls` (each `module:function`) and the nodes already `given`.

    A node bears the name of its function. Each argument is, in this order: `seed` or `rng` (see `Node.wants`),
    the output of the node of that name, the param of that name, all params when it is called `params`, or left
    to its default. Params that no step takes are no error.

    Returns:
        All nodes, given ones included, in the order of `in_order`.

    Raises:
        BadGraph: an argument means nothing or two things, two nodes share a name, or there is a cycle.
        NoSuchStep, BadStep, BadSource: a call does not lead to a plain function.
    """
    values = dict(params or {})
    nodes = {node.name: node for node in given}
    functions: dict[str, str] = {}
    for call in calls:
        name = call.partition(":")[2]
        if name in functions or name in nodes:
            raise BadGraph(
                f"two steps are called {name!r}", remedy="give one of them another name", name=name, call=call
            )
        functions[name] = call
    for name in sorted({*functions, *nodes} & set(values)):
        raise BadGraph(
            f"{name!r} is both a step and a param",
            remedy="rename the param",
            name=name,
            params=sorted(values),
        )
    known = {*functions, *nodes}
    made = [_node(tree, name, call, known, values) for name, call in functions.items()]
    return in_order([*nodes.values(), *made])


def _node(tree: SourceTree, name: str, call: str, known: set[str], values: dict[str, Any]) -> Node:
    module, unit = find_function(tree, call)
    function = unit.node
    assert isinstance(function, ast.FunctionDef)
    where = f"step {name}() in {module.path}"
    if any(isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in _own_scope(function)):
        raise BadStep(
            f"{where} is a generator", remedy="return one value: a table, an array, a dict", call=call
        )
    inputs: dict[str, str] = {}
    taken: dict[str, Any] = {}
    wants: list[str] = []
    for argument, has_default in _arguments(function, where):
        if argument in known:
            inputs[argument] = argument
        elif argument in values:
            taken[argument] = values[argument]
        elif argument in GIVEN_BY_RUNNER:
            wants.append(argument)
        elif argument == ALL_PARAMS:
            taken[argument] = values
        elif not has_default:
            raise BadGraph(
                f"{where} wants {argument!r}, which is neither a step nor a param",
                remedy=did_you_mean(argument, {*known, *values, *GIVEN_BY_RUNNER} - {name}),
                step=name,
                argument=argument,
            )
    code = closure(tree, call)
    options = unit.options or StepOptions()
    return Node(
        name=name,
        stage="slow" if options.slow else "fast",
        parts=code.parts,
        params=taken,
        inputs=inputs,
        call=call,
        options=options,
        wants=tuple(wants),
        dynamic=code.dynamic,
    )


def _own_scope(function: ast.FunctionDef) -> Iterable[ast.AST]:
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(node))


def _arguments(function: ast.FunctionDef, where: str) -> list[tuple[str, bool]]:
    arguments = function.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        raise BadStep(
            f"{where} has *, ** or positional-only arguments, which no name can wire",
            remedy="give each argument a name of its own",
        )
    first_default = len(arguments.args) - len(arguments.defaults)
    found = [(argument.arg, n >= first_default) for n, argument in enumerate(arguments.args)]
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append((argument.arg, default is not None))
    return found


def in_order(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes, each after its inputs; among those that could be next, the first by name.

    Raises:
        BadGraph: an input names no node, two nodes share a name, or the nodes form a cycle.
    """
    by_name: dict[str, Node] = {}
    for node in nodes:
        if node.name in by_name:
            raise BadGraph(f"two steps are called {node.name!r}", remedy="rename one", name=node.name)
        by_name[node.name] = node
    waits: dict[str, set[str]] = {name: set(node.inputs.values()) for name, node in by_name.items()}
    for name, sources in waits.items():
        for source in sorted(sources - set(by_name)):
            raise BadGraph(
                f"step {name!r} takes the output of {source!r}, which is no step",
                remedy=did_you_mean(source, by_name),
                step=name,
                input=source,
            )
    users: dict[str, list[str]] = {}
    for name, sources in waits.items():
        for source in sources:
            users.setdefault(source, []).append(name)
    ready = [name for name, sources in waits.items() if not sources]
    heapq.heapify(ready)
    ordered: list[Node] = []
    while ready:
        name = heapq.heappop(ready)
        ordered.append(by_name[name])
        for user in users.get(name, []):
            waits[user].discard(name)
            if not waits[user]:
                heapq.heappush(ready, user)
    if len(ordered) < len(by_name):
        cycle = _cycle(waits)
        raise BadGraph(
            "the steps wait for one another: " + " -> ".join(cycle),
            remedy="rename an argument, or split a step, so that nothing needs its own result",
            cycle=cycle,
        )
    return tuple(ordered)


def _cycle(waits: Mapping[str, set[str]]) -> list[str]:
    """One cycle, written from a step to the one it needs, ending where it began."""
    path = [min(name for name, sources in waits.items() if sources)]
    while True:
        needed = min(waits[path[-1]])
        if needed in path:
            return [*path[path.index(needed) :], needed]
        path.append(needed)
