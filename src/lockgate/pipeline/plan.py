"""Which steps have to run, and why.

A key is made of everything that may change a step's answer: its name and kind, the parts of its code, params,
the digests of its inputs and the environment. A step whose key is in the cache is not run. The key of a step
behind one that has to run is not known yet; the plan says `because train runs`, and the run itself may still
find that nothing changed for it (`execute.py`: equal output, equal key).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

import msgspec

from lockgate.core.digests import Digest, digest_of
from lockgate.core.errors import did_you_mean
from lockgate.pipeline.artifact import Artifact, StepRecord
from lockgate.pipeline.graph import BadGraph, Node, Stage, in_order
from lockgate.pipeline.ports import StepCache

#: Raised when the meaning of a key changes, so that no older record can be taken for a newer one.
KEY_SCHEMA = "lockgate.step/1"
_SHOWN = 3


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan says about one step; `key` is None while an input is still to be made."""

    name: str
    action: Literal["run", "cached"]
    why: str
    key: Digest | None
    stage: Stage


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    steps: tuple[PlannedStep, ...]

    @property
    def n_to_run(self) -> int:
        return sum(step.action == "run" for step in self.steps)


def step_key(node: Node, inputs: Mapping[str, Digest], environment: Digest) -> Digest:
    """The key of `node` on these inputs (argument name -> digest). Options such as retries are no part of it."""
    return digest_of(
        [KEY_SCHEMA, node.name, node.kind, node.parts, node.params, dict(inputs), environment, node.wants]
    )


def seed_of(key: Digest, name: str) -> int:
    """The seed of a step: the first 8 bytes of SHA-256 over key and name, big-endian; 0 <= seed < 2**64.

    Stable for equal inputs, different for every step, and nobody can forget to set it.
    """
    return int.from_bytes(hashlib.sha256(f"{key} {name}".encode()).digest()[:8], "big")


def plan(
    nodes: Iterable[Node],
    cache: StepCache,
    environment: Digest,
    force: Collection[str] = (),
    *,
    available: Callable[[Artifact], bool] | None = None,
) -> Plan:
    """Say for each step whether it would run, in the order it would.

    Args:
        nodes: the graph; see `wire_steps`.
        force: names of steps to run whatever the cache holds.
        available: whether the bytes of a remembered output are still there; all are taken to be by default.

    Raises:
        BadGraph: the nodes do not fit together, or `force` names an unknown step.
    """
    ordered = in_order(nodes)
    check_force(force, ordered)
    outputs: dict[str, Digest] = {}
    steps: list[PlannedStep] = []
    for node in ordered:
        waiting = sorted({source for source in node.inputs.values() if source not in outputs})
        inputs = {name: outputs[source] for name, source in node.inputs.items() if source in outputs}
        last = cache.last(node.name)
        if waiting:
            own = changes(node, inputs, environment, last) if last else ["never ran"]
            why = own + [f"because {source} runs" for source in waiting]
            if node.name in force:
                why.insert(0, "forced")
            steps.append(_step(node, "run", summary(why), None))
            continue
        key = step_key(node, inputs, environment)
        record = cache.get(key)
        gone = record is not None and available is not None and not available(record.output)
        if record is None or gone or node.name in force:
            reasons = reasons_to_run(
                node, inputs, environment, last, forced=node.name in force, known=record is not None
            )
            steps.append(_step(node, "run", reasons, key))
        else:
            outputs[node.name] = record.output.digest
            steps.append(_step(node, "cached", cached_because(key, last), key))
    return Plan(steps=tuple(steps))


def _step(node: Node, action: Literal["run", "cached"], why: str, key: Digest | None) -> PlannedStep:
    return PlannedStep(name=node.name, action=action, why=why, key=key, stage=node.stage)


def check_force(force: Collection[str], nodes: Collection[Node]) -> None:
    names = {node.name for node in nodes}
    for name in sorted(set(force) - names):
        raise BadGraph(
            f"cannot force {name!r}: no step is called so", remedy=did_you_mean(name, names), step=name
        )


def cached_because(key: Digest, last: StepRecord | None) -> str:
    return "nothing changed" if last is not None and last.key == key else "same as an earlier run"


def reasons_to_run(
    node: Node,
    inputs: Mapping[str, Digest],
    environment: Digest,
    last: StepRecord | None,
    *,
    forced: bool,
    known: bool,
) -> str:
    """Why a step runs, as one line; `known` when the cache holds its key, so that only the bytes are gone."""
    if forced:
        return "forced"
    if known:
        return "its stored output is gone"
    if last is None:
        return "never ran"
    return summary(changes(node, inputs, environment, last) or ["its record is gone"])


def summary(reasons: list[str]) -> str:
    """The first reasons in words, the number of the others."""
    shown = "; ".join(reasons[:_SHOWN])
    return shown if len(reasons) <= _SHOWN else f"{shown}; and {len(reasons) - _SHOWN} more"


def changes(node: Node, inputs: Mapping[str, Digest], environment: Digest, last: StepRecord) -> list[str]:
    """What differs from the last recorded run, the most telling first: code, params, inputs, environment."""
    found = _code_changes(node, last)
    for name in sorted({*node.params, *last.params}):
        if name not in last.params:
            found.append(f"params.{name} is new")
        elif name not in node.params:
            found.append(f"params.{name} is gone")
        elif node.params[name] != last.params[name] or type(node.params[name]) is not type(last.params[name]):
            found.extend(_param_changes(f"params.{name}", last.params[name], node.params[name]))
    for name in sorted({*node.inputs, *last.inputs}):
        if name not in last.inputs:
            found.append(f"input {name} is new")
        elif name not in node.inputs:
            found.append(f"input {name} is gone")
        elif name in inputs and inputs[name] != last.inputs[name]:
            found.append(f"input {name} changed")
    if environment != last.environment:
        found.append("environment changed")
    return found


def _param_changes(path: str, before: object, after: object) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted({*before, *after}, key=str)
        inner = [(name, before.get(name), after.get(name)) for name in names]
        return [
            line for n, old, new in inner if old != new for line in _param_changes(f"{path}.{n}", old, new)
        ]
    return [f"{path} changed {_shown(before)} -> {_shown(after)}"]


def _shown(value: object) -> str:
    text = msgspec.json.encode(value, order="deterministic").decode()
    return text if len(text) <= 40 else text[:37] + "..."


def _code_changes(node: Node, last: StepRecord) -> list[str]:
    own = (node.call or "").partition(":")[2]
    changed = [label for label in node.parts if last.parts.get(label, node.parts[label]) != node.parts[label]]
    added = [label for label in node.parts if label not in last.parts]
    removed = [label for label in last.parts if label not in node.parts]
    # The helper that was edited comes before the step that merely mentions it, orders come last.
    return [
        *(f"{_named(label, own)} changed" for label in sorted(changed, key=_rank)),
        *(f"{_named(label, own)} is new" for label in sorted(added, key=_rank)),
        *(f"{_named(label, own)} is used no longer" for label in sorted(removed, key=_rank)),
    ]


def _rank(label: str) -> tuple[bool, bool, str]:
    return (label.startswith("order of "), label.startswith("import of "), label)


def _named(label: str, own: str) -> str:
    if "()" in label and not label.startswith(f"{own}()"):
        return f"helper {label}"
    return label
