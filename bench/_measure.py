"""How the measurements of this folder take, judge, print and keep their numbers.

Both sides of a ratio are measured in one run, turn by turn, so that what else the machine does falls on both; the
median is kept. CPU seconds of a child come from the kernel (`wait4`), hence a busy machine distorts them least.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


class Cost(NamedTuple):
    """What one run of a program cost, in seconds."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: what was measured, with its unit.
        ours: the figure of Lockgate.
        against: the figure it is held against; None when the budget is an absolute one.
        ratio: ours / against.
        budget: the limit: of the ratio when there is one that is judged, else of `ours`; None: only reported.
        ok: whether the limit holds.
    """

    name: str
    ours: float
    against: float | None
    ratio: float | None
    budget: float | None
    ok: bool


def ratio_row(name: str, ours: float, against: float, budget: float) -> Row:
    """A row whose budget limits the ratio."""
    ratio = ours / against
    return Row(name, ours, against, ratio, budget, ratio <= budget)


def absolute_row(name: str, ours: float, against: float | None, budget: float | None) -> Row:
    """A row whose budget limits `ours`; `against` is there to compare with."""
    ratio = ours / against if against else None
    return Row(name, ours, against, ratio, budget, budget is None or ours <= budget)


def child_environment() -> dict[str, str]:
    """This environment, in which children may write and read byte code, and which points at no other project."""
    left_out = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "LOCKGATE_HUB", "LOCKGATE_AS", "LOCKGATE_DEBUG")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def compile_sources() -> None:
    """Write byte code for src/: no measurement of a start may pay for the compiler."""
    command = [sys.executable, "-m", "compileall", "-q", str(ROOT / "src")]
    subprocess.run(command, check=True, env=child_environment())


def run_child(command: Sequence[str], folder: Path) -> Cost:
    """Run a program to its end, its output thrown away; it must end with 0."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(used.ru_utime + used.ru_stime, wall_s)


def in_turns(sides: Mapping[str, Callable[[], Cost]], n_rounds: int) -> dict[str, Cost]:
    """Medians of all sides, measured round by round; each round goes the other way round."""
    taken: dict[str, list[Cost]] = {name: [] for name in sides}
    for measure in sides.values():
        measure()
    for number in range(n_rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            taken[name].append(sides[name]())
    return {
        name: Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))
        for name, costs in taken.items()
    }


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest rank: a value that was measured."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    width = max(len(row.name) for row in rows)
    print(f"{'':<{width}} {'ours':>10} {'against':>10} {'ratio':>8} {'budget':>8}")
    for row in rows:
        against = "-" if row.against is None else f"{row.against:.3f}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.3g}x"
        budget = "-" if row.budget is None else f"{row.budget:.3g}"
        verdict = "ok" if row.ok else "OUT OF BUDGET"
        print(f"{row.name:<{width}} {row.ours:>10.3f} {against:>10} {ratio:>8} {budget:>8}  {verdict}")


def keep(name: str, rows: Sequence[Row]) -> Path:
    """Write `bench/results/NAME.json`; a row out of its budget stays in it, with `ok` false."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    kept = [{key: _rounded(value) for key, value in asdict(row).items()} for row in rows]
    path.write_text(json.dumps({"rows": kept}, indent=2) + "\n")
    return path


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
