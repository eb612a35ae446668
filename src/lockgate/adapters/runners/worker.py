"""The process a slow step runs in: `python -P -m lockgate.adapters.runners.worker JOB_FILE`.

It reads one `Job`, calls the function, writes one `Outcome` beside it and ends. What the step prints goes to
standard output as it is. The parent holds the other end of standard input: when the parent dies, even by
kill -9, the pipe closes and the worker ends too.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from lockgate.adapters.runners import artifacts
from lockgate.adapters.runners.artifacts import NotStorable
from lockgate.adapters.runners.project import Failure, UserCodeFailed, call, importable

#: Exit status of a worker whose parent is gone.
ORPHANED = 70


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """An input artifact as a local file."""

    format: str
    path: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to know; `sources` is the project's code, by path."""

    step: str
    call: str
    project_dir: str
    sources: dict[str, bytes]
    inputs: dict[str, Input]
    params: dict[str, Any]
    seed: int
    wants: tuple[str, ...]
    outcome_path: str
    value_path: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The step returned something that cannot be kept."""

    message: str
    remedy: str
    facts: dict[str, Any]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One of the three; the bytes of the value are in the file the job names."""

    format: str | None = None
    failure: Failure | None = None
    refusal: Refusal | None = None


def perform(job: Job) -> Outcome:
    """Run the job and write its value."""
    try:
        with importable(job.project_dir, job.sources):
            loaded = {
                name: artifacts.decode(given.format, Path(given.path).read_bytes())
                for name, given in job.inputs.items()
            }
            value = call(
                job.call, {**job.params, **loaded}, seed=job.seed, wants=job.wants, root=job.project_dir
            )
            format, data = artifacts.encode(value, step=job.step)
    except UserCodeFailed as error:
        return Outcome(failure=error.failure)
    except NotStorable as error:
        return Outcome(refusal=Refusal(message=error.message, remedy=error.remedy, facts=error.facts))
    Path(job.value_path).write_bytes(data)
    return Outcome(format=format)


def _end_with_parent(folder: Path) -> None:
    """Watch the pipe from the parent, and clear the job's folder in its place when it is gone.

    The step itself reads an empty standard input.
    """
    watched = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def watch() -> None:
        while os.read(watched, 1):
            pass
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def main(path: str) -> None:
    job = msgspec.msgpack.decode(Path(path).read_bytes(), type=Job)
    _end_with_parent(Path(path).parent)
    outcome = perform(job)
    # Written under another name first: a worker killed here has left no outcome, rather than half of one.
    partial = Path(job.outcome_path + ".part")
    partial.write_bytes(msgspec.msgpack.encode(outcome))
    partial.replace(job.outcome_path)


if __name__ == "__main__":
    main(sys.argv[1])
