"""A writer is killed again and again in the middle of its stores; a reader never sees a plan that nobody wrote."""

from __future__ import annotations

import mmap
import random
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lockgate.adapters.targets.local import LocalTarget
from lockgate.testing.target_suite import ENDPOINT, sample_plan
from lockgate.traffic import control_file as codec
from lockgate.traffic.plan import N_SLOTS, Plan

N_KILLS = 8

# Writes plans as fast as it can. `words` does the same stores in the same order, but eight bytes at a time; after
# some plans it stops in the middle of one, says so, and waits to be killed there.
WRITER = """
import mmap, sys
from lockgate.adapters.targets.local import LocalTarget
from lockgate.traffic import control_file as codec
from test_dataplane_torn_writer import telling_plan

how, run_dir, path, n_plans, cut = sys.argv[1:]
target = LocalTarget(run_dir)
with open(path, "r+b") as file:
    view = memoryview(mmap.mmap(file.fileno(), codec.SIZE_BYTES))
    generation = codec.read(view).plan.generation
    while True:
        generation += 1
        plan = telling_plan(generation)
        if how == "apply":
            target.apply(plan)
            continue
        stores = codec.publish(view, plan)
        words = [(o + i, d[i : i + 8]) for o, d in stores for i in range(0, len(d), 8)]
        n_plans = int(n_plans) - 1
        for done, (offset, data) in enumerate(words):
            if n_plans < 0 and done == 20 + int(cut) % (len(words) - 20):
                print("in the middle", flush=True)
                sys.stdin.read()
            codec.carry_out(view, [codec.Store(offset, data)])
"""


def telling_plan(generation: int) -> Plan:
    """A plan whose every part follows from its generation, so that a mix of two would show."""
    weight = 1 + generation % (N_SLOTS - 1)
    versions = {f"{generation}.0.0": weight, f"{generation}.0.1": N_SLOTS - weight}
    standby = {f"{generation}.1.{number}": 0 for number in range(generation % 5)}
    return sample_plan(generation, versions | standby, salt=f"salt-{generation}")


@pytest.fixture
def control_file(tmp_path: Path) -> Iterator[memoryview]:
    """The mapped control file of a fresh run directory, with the first telling plan in force."""
    LocalTarget(tmp_path).apply(telling_plan(1))
    path = tmp_path / codec.ENDPOINTS_DIR / codec.file_name(ENDPOINT)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), codec.SIZE_BYTES, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        yield view


@contextmanager
def writer(run_dir: Path, how: str, n_plans: int = 0, cut: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A writing process, killed at the end of the block."""
    path = run_dir / codec.ENDPOINTS_DIR / codec.file_name(ENDPOINT)
    command = [sys.executable, "-c", WRITER, how, str(run_dir), str(path), str(n_plans), str(cut)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
            assert process.poll() is None, "the writer failed"
        finally:
            process.kill()


def read_whole(view: memoryview) -> codec.Reading:
    """One look, as a data plane takes it; what it shows is a plan that was written, and all of it."""
    reading = codec.read(view)
    assert reading.plan is not None and not reading.torn
    assert reading.plan == telling_plan(reading.plan.generation)
    return reading


def test_a_target_that_is_killed_at_any_moment_leaves_a_whole_plan(
    tmp_path: Path, control_file: memoryview
) -> None:
    chance, last = random.Random(1), 1
    for _ in range(N_KILLS):
        end, n_more = last + chance.randint(2, 60), chance.randint(0, 30)
        with writer(tmp_path, "apply") as process:
            while process.poll() is None and (last < end or n_more > 0):
                n_more -= last >= end
                generation = read_whole(control_file).word >> 1
                assert generation >= last
                last = generation
        last = read_whole(control_file).word >> 1
    LocalTarget(tmp_path).apply(telling_plan(last + 1))
    assert LocalTarget(tmp_path).observe(ENDPOINT).plan == telling_plan(last + 1)


def test_a_writer_that_is_killed_between_two_words_leaves_the_plan_before(
    tmp_path: Path, control_file: memoryview
) -> None:
    chance = random.Random(2)
    for _ in range(N_KILLS):
        n_plans = chance.randint(1, 40)
        start = read_whole(control_file).word >> 1
        with writer(tmp_path, "words", n_plans, chance.randint(0, 10_000)) as process:
            assert process.stdout is not None
            while not select.select([process.stdout], [], [], 0)[0]:
                read_whole(control_file)
        reading = read_whole(control_file)
        assert reading.word >> 1 == start + n_plans
        # The area that was being written holds neither plan any more.
        assert reading.before is None
