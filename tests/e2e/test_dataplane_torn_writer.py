"""A writer is killed again and again in the middle of its stores; a reader never sees a plan that nobody wrote."""

from __future__ import annotations

import mmap
import random
import subprocess
import sys
from pathlib import Path

import pytest

from lockgate.adapters.targets.local import LocalTarget
from lockgate.testing.target_suite import ENDPOINT, sample_plan
from lockgate.traffic import control_file as codec
from lockgate.traffic.plan import N_SLOTS, Plan

N_KILLS = 8

# Writes plans as fast as it can. `words` does the same stores in the same order, but eight bytes at a time, so
# that nearly every kill lands in the middle of one.
WRITER = """
import mmap, sys
from lockgate.adapters.targets.local import LocalTarget
from lockgate.testing.target_suite import ENDPOINT
from lockgate.traffic import control_file as codec
from test_dataplane_torn_writer import telling_plan

how, run_dir, path = sys.argv[1:]
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
        for offset, data in codec.publish(view, plan):
            for start in range(0, len(data), 8):
                codec.carry_out(view, [codec.Store(offset + start, data[start : start + 8])])
"""


def telling_plan(generation: int) -> Plan:
    """A plan whose every part follows from its generation, so that a mix of two would show."""
    weight = 1 + generation % (N_SLOTS - 1)
    versions = {f"{generation}.0.0": weight, f"{generation}.0.1": N_SLOTS - weight}
    standby = {f"{generation}.1.{number}": 0 for number in range(generation % 5)}
    return sample_plan(generation, versions | standby, salt=f"salt-{generation}")


@pytest.mark.parametrize("how", ["apply", "words"])
def test_a_killed_writer_leaves_a_whole_plan(tmp_path: Path, how: str) -> None:
    LocalTarget(tmp_path).apply(telling_plan(1))
    path = tmp_path / codec.ENDPOINTS_DIR / codec.file_name(ENDPOINT)
    chance = random.Random(how)
    last, n_read, n_unfinished = 1, 0, 0
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), codec.SIZE_BYTES, access=mmap.ACCESS_READ) as mapped,
    ):
        view = memoryview(mapped)
        for _ in range(N_KILLS):
            command = [sys.executable, "-c", WRITER, how, str(tmp_path), str(path)]
            writer = subprocess.Popen(command, cwd=Path(__file__).parent)
            try:
                end = last + chance.randint(2, 60)
                n_extra = chance.randint(0, 30)
                while writer.poll() is None and (last < end or n_extra > 0):
                    n_extra -= last >= end
                    reading = codec.read(view)
                    assert reading.plan is not None and not reading.torn
                    assert reading.plan == telling_plan(reading.plan.generation)
                    assert reading.plan.generation >= last
                    last, n_read = reading.plan.generation, n_read + 1
                assert writer.poll() is None, "the writer failed"
            finally:
                writer.kill()
                writer.wait(timeout=30)
            reading = codec.read(view)
            assert reading.plan == telling_plan(reading.word >> 1) and not reading.torn
            n_unfinished += reading.before is None
            last = reading.word >> 1
        view.release()
    assert n_read > N_KILLS
    if how == "words":
        # The area that was being written does not verify: the kills did land in the middle.
        assert n_unfinished > N_KILLS // 2
    LocalTarget(tmp_path).apply(telling_plan(last + 1))
    assert LocalTarget(tmp_path).observe(ENDPOINT).generation == last + 1
