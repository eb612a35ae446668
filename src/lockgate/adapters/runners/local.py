"""Runs steps on this machine: fast ones in this process, slow ones each in a worker process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from lockgate.adapters.runners import artifacts, worker
from lockgate.adapters.runners.artifacts import NotStorable
from lockgate.adapters.runners.project import Failure, UserCodeFailed, call, importable, read_sources
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest
from lockgate.core.errors import Unsupported, did_you_mean
from lockgate.pipeline.artifact import Artifact
from lockgate.pipeline.graph import Node
from lockgate.pipeline.plan import seed_of
from lockgate.pipeline.ports import StepFailed

#: Settings that can change the bits of a result; they take effect when a process starts.
THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
)
_LINES_KEPT = 40
_SIGNALS = {
    signal.SIGKILL: "the system most likely ran out of memory: use less of it, or a larger machine",
    signal.SIGSEGV: "a native library crashed: run the function by itself under python -X faulthandler",
    signal.SIGTERM: "somebody stopped it: run it again, finished steps are kept",
}


class UnknownKind(Unsupported):
    code = "pipeline.unknown-kind"


class Inputs(Mapping[str, object]):
    """Inputs of a built-in step by argument name; a value is read when it is asked for, once."""

    def __init__(self, given: Mapping[str, Artifact], blobs: BlobStore) -> None:
        self._artifacts = dict(given)
        self._blobs = blobs
        self._values: dict[str, object] = {}

    def artifact(self, name: str) -> Artifact:
        """The artifact behind an input, for steps that need its digest or its bytes only."""
        return self._artifacts[name]

    def load(self, name: str) -> object:
        """The same as `inputs[name]`."""
        return self[name]

    def __getitem__(self, name: str) -> object:
        if name not in self._values:
            self._values[name] = artifacts.load(self._artifacts[name], self._blobs)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._artifacts)

    def __len__(self) -> int:
        return len(self._artifacts)


#: A built-in step: node, key, inputs, seed -> the value to keep, or an artifact it has already kept.
Builtin = Callable[[Node, Digest, Inputs, int], object]
#: Told of each line a slow step prints: the step's name, the line.
Echo = Callable[[str, str], None]


class LocalRunner:
    """The `StepRunner` of one machine. One step at a time; not for several threads.

    Args:
        project_dir: the user's project; the working directory and first import path of its functions.
        blobs: where inputs are and outputs go.
        sources: the project's files by path; give the `SourceTree` that was planned, so that exactly the code
            that was hashed runs. Without it the files are read again for each step.
        builtin: what runs nodes of other kinds than `step`.
        threads: thread settings for workers, such as `{"OMP_NUM_THREADS": "2"}`; others are inherited. In-process
            steps run under the settings this process was started with.
        echo: told of each line a slow step prints.

    What a fast step prints goes to standard error, so that standard output stays machine-readable.
    """

    def __init__(
        self,
        project_dir: Path,
        blobs: BlobStore,
        *,
        sources: Mapping[str, bytes] | None = None,
        builtin: Mapping[str, Builtin] | None = None,
        threads: Mapping[str, str] | None = None,
        echo: Echo | None = None,
    ) -> None:
        self._root = str(project_dir.resolve())
        self._blobs = blobs
        self._sources = sources
        self._builtin = dict(builtin or {})
        self._threads = dict(threads or {})
        self._echo = echo

    @property
    def settings(self) -> dict[str, str]:
        """The settings slow steps run under, for the record of the run."""
        environ = {**os.environ, **self._threads}
        return {name: environ[name] for name in THREAD_SETTINGS if name in environ} | {"PYTHONHASHSEED": "0"}

    def has(self, artifact: Artifact) -> bool:
        return self._blobs.has(artifact.digest)

    def run(self, node: Node, key: Digest, inputs: Mapping[str, Artifact]) -> Artifact:
        """See `StepRunner.run`.

        Raises:
            StepFailed: the function raised, or its worker was stopped.
            NotStorable: it returned a value for which there is no safe format.
            UnknownKind: the node is of a kind nobody registered.
        """
        seed = seed_of(key, node.name)
        if node.kind != "step":
            return self._run_builtin(node, key, inputs, seed)
        if node.options.slow:
            return self._run_in_worker(node, inputs, seed)
        return self._run_here(node, inputs, seed)

    def _run_builtin(self, node: Node, key: Digest, inputs: Mapping[str, Artifact], seed: int) -> Artifact:
        builtin = self._builtin.get(node.kind)
        if builtin is None:
            raise UnknownKind(
                f"step {node.name} is of kind {node.kind!r}, which nothing here can run",
                remedy=did_you_mean(node.kind, {*self._builtin, "step"}),
                step=node.name,
                kind=node.kind,
            )
        with contextlib.redirect_stdout(sys.stderr):
            try:
                value = builtin(node, key, Inputs(inputs, self._blobs), seed)
            except UserCodeFailed as error:
                raise _failed(node, error.failure, ()) from error.__cause__
        return value if isinstance(value, Artifact) else artifacts.store(value, self._blobs, step=node.name)

    def _code(self) -> Mapping[str, bytes]:
        return read_sources(self._root) if self._sources is None else self._sources

    def _run_here(self, node: Node, inputs: Mapping[str, Artifact], seed: int) -> Artifact:
        loaded = {name: artifacts.load(artifact, self._blobs) for name, artifact in inputs.items()}
        with importable(self._root, self._code()), contextlib.redirect_stdout(sys.stderr):
            try:
                value = call(
                    node.call or "", {**node.params, **loaded}, seed=seed, wants=node.wants, root=self._root
                )
            except UserCodeFailed as error:
                raise _failed(node, error.failure, ()) from error.__cause__
        return artifacts.store(value, self._blobs, step=node.name)

    # -- in a worker

    def _run_in_worker(self, node: Node, inputs: Mapping[str, Artifact], seed: int) -> Artifact:
        with tempfile.TemporaryDirectory(prefix="lockgate-step-") as folder:
            job = worker.Job(
                step=node.name,
                call=node.call or "",
                project_dir=self._root,
                sources=dict(self._code()),
                inputs={
                    name: worker.Input(format=artifact.format, path=self._blobs.path(artifact.digest))
                    for name, artifact in inputs.items()
                },
                params=node.params,
                seed=seed,
                wants=node.wants,
                outcome_path=str(Path(folder, "outcome")),
                value_path=str(Path(folder, "value")),
            )
            Path(folder, "job").write_bytes(msgspec.msgpack.encode(job))
            status, printed = self._start(node, str(Path(folder, "job")))
            outcome = _read_outcome(Path(job.outcome_path))
            if outcome is None or status != 0:
                raise _ended(node, status, printed)
            if outcome.failure is not None:
                raise _failed(node, outcome.failure, printed)
            if outcome.refusal is not None:
                refusal = outcome.refusal
                raise NotStorable(refusal.message, remedy=refusal.remedy, **refusal.facts)
            data = Path(job.value_path).read_bytes()
            return Artifact(digest=self._blobs.put(data), format=outcome.format or "bytes", n_bytes=len(data))

    def _start(self, node: Node, job_path: str) -> tuple[int, tuple[str, ...]]:
        """Run a worker to its end; its exit status and the last lines it printed."""
        process = subprocess.Popen(
            # -P: nothing in the project may stand in for a module the worker itself needs.
            [sys.executable, "-P", "-m", worker.__name__, job_path],
            cwd=self._root,
            env={**os.environ, **self._threads, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        tail: deque[str] = deque(maxlen=_LINES_KEPT)
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(node.name, process.stdout, tail), daemon=True)
        reader.start()
        try:
            status = process.wait(node.options.timeout_s)
        except subprocess.TimeoutExpired:
            raise _timed_out(node, node.options.timeout_s, tail) from None
        finally:
            _end(process)
            # The pipe stays open for as long as a process the step left behind holds it.
            reader.join(2.0)
        return status, tuple(tail)

    def _read(self, step: str, stream: IO[bytes], tail: deque[str]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                tail.append(line)
                if self._echo is not None:
                    self._echo(step, line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the worker and everything it started: it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _read_outcome(path: Path) -> worker.Outcome | None:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=worker.Outcome)
    except FileNotFoundError:
        return None


def _with_output(message: str, printed: tuple[str, ...]) -> str:
    return message + ("\nlast lines of its output:\n  " + "\n  ".join(printed) if printed else "")


def _failed(node: Node, failure: Failure, printed: tuple[str, ...]) -> StepFailed:
    place = f", at {failure.where}: {failure.line}" if failure.where else ""
    text = f"step {node.name} failed with {failure.exception}: {failure.message}{place}"
    file, _, number = failure.where.partition(":")
    fix = f"fix {file} line {number}" if file else f"fix {node.call}"
    facts: dict[str, Any] = {"step": node.name, **msgspec.to_builtins(failure), "output": list(printed)}
    if failure.exception == "ModuleNotFoundError":
        fix = "add what it imports to the environment"
    facts["bases"] = failure.bases
    return _step_failed(
        _with_output(text, printed), f"{fix}, then run it again: finished steps are kept", facts
    )


def _step_failed(message: str, remedy: str, facts: dict[str, Any]) -> StepFailed:
    # The fact "message" of the exception cannot go by keyword: that is what happened, in our words.
    failed = StepFailed(message, remedy=remedy)
    failed.facts.update(facts)
    return failed


def _ended(node: Node, status: int, printed: tuple[str, ...]) -> StepFailed:
    if status < 0:
        number = signal.Signals(-status)
        text, remedy = f"was ended by {number.name}", _SIGNALS.get(number, "look at what it printed")
        name = number.name
    else:
        text, remedy = f"ended with status {status} and without a result", "look at what it printed"
        name = "SystemExit"
    facts = {"step": node.name, "exception": name, "bases": (name,), "message": text, "status": status}
    message = _with_output(f"the worker of step {node.name} {text}", printed)
    return _step_failed(message, remedy, {**facts, "output": list(printed)})


def _timed_out(node: Node, timeout_s: float | None, tail: deque[str]) -> StepFailed:
    text = f"took longer than {timeout_s:g} s" if timeout_s is not None else "took too long"
    facts = {"step": node.name, "exception": "TimeoutError", "bases": ("TimeoutError",), "message": text}
    return _step_failed(
        _with_output(f"step {node.name} {text} and was stopped", tuple(tail)),
        f"raise timeout_s of @step above {node.name}(), or make it faster",
        {**facts, "output": list(tail)},
    )
