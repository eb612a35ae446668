"""Run a graph: each step whose key is not known, in order, remembering each result as soon as it is there.

- *Early cut-off*: keys are made of the digests of what the steps before really gave. A refactoring of
  `features()` that yields the same table leaves `train()` cached.
- *Crash and resume*: a record is put only after its output is durable, and right away; running again after a
  crash finds every finished step.
- *Retries* happen for the exceptions a step lists, at once, since waiting is not this room's to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from lockgate.core.clock import Clock
from lockgate.core.digests import Digest
from lockgate.core.names import parse_model
from lockgate.pipeline.artifact import Artifact, RunRecord, RunStep, StepRecord
from lockgate.pipeline.graph import Node, Stage, in_order
from lockgate.pipeline.plan import cached_because, check_force, reasons_to_run, seed_of, step_key
from lockgate.pipeline.ports import StepCache, StepFailed, StepRunner

EVERY_STAGE: tuple[Stage, ...] = ("fast", "slow")


class StepStarted(msgspec.Struct, frozen=True, kw_only=True):
    """A step is about to run; `n` counts from 1 to `of`, over all steps of the graph."""

    name: str
    why: str
    stage: Stage
    n: int
    of: int


class StepFinished(msgspec.Struct, frozen=True, kw_only=True):
    """A step gave its result.

    `differs_from` is set when an earlier run of the very same key gave other bytes: the step is not
    deterministic, and whoever relies on its record should know.
    """

    name: str
    key: Digest
    output: Artifact
    took_ms: int
    differs_from: Digest | None = None


class StepCached(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    key: Digest
    output: Artifact
    why: str


class StepRetried(msgspec.Struct, frozen=True, kw_only=True):
    """A step failed with an exception it lists and is tried again; `attempt` counts the failures."""

    name: str
    attempt: int
    exception: str


class StepSkipped(msgspec.Struct, frozen=True, kw_only=True):
    """A step was left out: it is of a stage not asked for, or needs the output of one that was left out."""

    name: str
    why: str


Progress = StepStarted | StepFinished | StepCached | StepRetried | StepSkipped
Observer = Callable[[Progress], None]


def execute(
    nodes: Iterable[Node],
    cache: StepCache,
    runner: StepRunner,
    environment: Digest,
    clock: Clock,
    observer: Observer | None = None,
    stages: Collection[Stage] = EVERY_STAGE,
    force: Collection[str] = (),
    *,
    model: str = "main/model",
    settings: Mapping[str, str] | None = None,
) -> RunRecord:
    """Bring every step of `stages` up to date; steps of other stages count when they are cached.

    Args:
        nodes: the graph; see `wire_steps`.
        environment: digest of everything third-party the steps run on.
        observer: told of each step as it happens, in the calling thread.
        force: names of steps to run whatever the cache holds.
        model: `NAME` or `NAMESPACE/NAME`, for the record.
        settings: thread settings, for the record.

    Returns:
        The record of the run; the same whether its steps were run or remembered.

    Raises:
        StepFailed: a step failed; the steps before it are remembered.
        BadGraph: the nodes do not fit together, or `force` names an unknown step.
    """
    ordered = in_order(nodes)
    check_force(force, ordered)
    run = _Run(cache, runner, environment, clock, observer or _ignore, frozenset(force), len(ordered))
    for n, node in enumerate(ordered, start=1):
        run.take(node, n, stages)
    name = parse_model(model)
    return RunRecord(
        model=str(name),
        namespace=name.namespace,
        steps=tuple(run.steps),
        environment=environment,
        settings=dict(settings or {}),
    )


def _ignore(_: Progress) -> None:
    pass


class _Run:
    def __init__(
        self,
        cache: StepCache,
        runner: StepRunner,
        environment: Digest,
        clock: Clock,
        observer: Observer,
        force: frozenset[str],
        of: int,
    ) -> None:
        self.cache = cache
        self.runner = runner
        self.environment = environment
        self.clock = clock
        self.tell = observer
        self.force = force
        self.of = of
        self.outputs: dict[str, Artifact] = {}
        self.steps: list[RunStep] = []

    def take(self, node: Node, n: int, stages: Collection[Stage]) -> None:
        """Bring one step up to date, its inputs being done or left out."""
        missing = sorted({source for source in node.inputs.values() if source not in self.outputs})
        if missing:
            self.tell(StepSkipped(name=node.name, why=f"{missing[0]} was not run"))
            return
        inputs = {name: self.outputs[source] for name, source in node.inputs.items()}
        digests = {name: artifact.digest for name, artifact in inputs.items()}
        key = step_key(node, digests, self.environment)
        record, last = self.cache.get(key), self.cache.last(node.name)
        usable = record is not None and self.runner.has(record.output)
        if record is not None and usable and node.name not in self.force:
            if last is None or last.key != key:
                self.cache.touch(key)
            self.tell(
                StepCached(name=node.name, key=key, output=record.output, why=cached_because(key, last))
            )
            self._done(node, key, digests, record.output)
            return
        if node.stage not in stages:
            self.tell(StepSkipped(name=node.name, why=f"it is a {node.stage} step"))
            return
        why = reasons_to_run(
            node, digests, self.environment, last, forced=node.name in self.force, known=record is not None
        )
        self.tell(StepStarted(name=node.name, why=why, stage=node.stage, n=n, of=self.of))
        self._run(node, key, inputs, digests, record)

    def _run(
        self,
        node: Node,
        key: Digest,
        inputs: Mapping[str, Artifact],
        digests: dict[str, Digest],
        before: StepRecord | None,
    ) -> None:
        started_at = self.clock.now()
        output = self._with_retries(node, key, inputs)
        finished_at = self.clock.now()
        took_ms = (finished_at - started_at) // 1000
        self.cache.put(
            StepRecord(
                name=node.name,
                key=key,
                parts=node.parts,
                params=node.params,
                inputs=digests,
                environment=self.environment,
                output=output,
                took_ms=took_ms,
                finished_at=finished_at,
            )
        )
        differs = (
            before.output.digest if before is not None and before.output.digest != output.digest else None
        )
        self.tell(StepFinished(name=node.name, key=key, output=output, took_ms=took_ms, differs_from=differs))
        self._done(node, key, digests, output)

    def _with_retries(self, node: Node, key: Digest, inputs: Mapping[str, Artifact]) -> Artifact:
        for attempt in range(1, node.options.retries + 1):
            try:
                return self.runner.run(node, key, inputs)
            except StepFailed as failure:
                names = {failure.facts.get("exception"), *failure.facts.get("bases", ())}
                if names.isdisjoint(node.options.retry_on):
                    raise
                exception = str(failure.facts.get("exception"))
                self.tell(StepRetried(name=node.name, attempt=attempt, exception=exception))
        return self.runner.run(node, key, inputs)

    def _done(self, node: Node, key: Digest, inputs: dict[str, Digest], output: Artifact) -> None:
        self.outputs[node.name] = output
        self.steps.append(
            RunStep(
                name=node.name,
                kind=node.kind,
                key=key,
                parts=node.parts,
                params=node.params,
                inputs=inputs,
                seed=seed_of(key, node.name),
                output=output,
            )
        )
