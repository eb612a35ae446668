"""Progress of a run: a bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lockgate.pipeline.execute import Progress as Step
from lockgate.pipeline.execute import StepCached, StepFinished, StepRetried, StepSkipped, StepStarted

Observer = Callable[[Step], None]


class Counts:
    """How many steps ran and how many came from the cache."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.cached: list[str] = []


@contextmanager
def watching(counts: Counts) -> Iterator[Observer]:
    """An observer for the run; what it shows is cleaned up at the end of the block."""
    if not sys.stderr.isatty():
        yield lambda step: _line(step, counts)
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<28}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(step: Step) -> None:
            if isinstance(step, StepStarted):
                bar.update(task, description=step.name, total=step.of, completed=step.n - 1)
            _line(step, counts, write=lambda text: console.print(text, highlight=False, soft_wrap=True))

        yield show


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")


def _line(step: Step, counts: Counts, *, write: Callable[[str], None] = _to_stderr) -> None:
    match step:
        case StepFinished():
            counts.ran.append(step.name)
            write(f"  ran     {step.name:<28} {step.took_ms / 1000:6.1f} s  {step.output.digest[7:19]}")
            if step.differs_from:
                write(
                    f"          {step.name} gave other bytes than before for the same key: not deterministic"
                )
        case StepCached():
            counts.cached.append(step.name)
            write(f"  cached  {step.name:<28}           {step.output.digest[7:19]}")
        case StepRetried():
            write(f"  again   {step.name:<28} after {step.exception}")
        case StepSkipped():
            write(f"  left    {step.name:<28} {step.why}")
        case StepStarted():
            pass
