"""A look is a function of the lines, not of files, reads or restarts: whoever counts, and however often it dies."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.adapters.targets.captures import CaptureReader
from lockgate.core.digests import sha256
from lockgate.delivery.rollouts.policy import Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.rollouts.tally import Counter
from lockgate.delivery.rollouts.verdict import Look, judge
from lockgate.traffic.capture import Answered, Dropped, Labelled, Line, Shadowed, encode

ENDPOINT = "prod/main/m"
NEW, OLD = sha256(b"new"), sha256(b"old")
POLICY = RolloutPolicy(
    steps=(
        RolloutStep(stage="shadow", weight=0, min_units=1, bake_s=0),
        RolloutStep(stage="canary", weight=1_000, min_units=1, bake_s=0),
        RolloutStep(stage="canary", weight=5_000, min_units=1, bake_s=0),
        RolloutStep(stage="soak", weight=10_000, min_units=1, bake_s=0),
    ),
    guards={"errors": Guard(), "latency": Guard(bound=5), "labels": Guard(bound=0.5)},
)
GENERATIONS = {1: 0, 2: 1, 3: 2, 4: 2, 5: 3}
WEIGHTS = (0, 1_000, 5_000, 10_000)

Written = tuple[int, int, Line]
"""(generation, worker, line)"""


@st.composite
def traffic(draw: st.DrawFn) -> list[Written]:
    """Lines with times 1, 2, 3, ..: few units, so that being first is in dispute all the time."""
    written: list[Written] = []
    asked: list[str] = []
    n = draw(st.integers(0, 40))
    for at in range(1, n + 1):
        generation = draw(st.integers(1, 6))
        worker = draw(st.integers(0, 2))
        kind = draw(st.sampled_from("aaaasld"))
        request = draw(st.sampled_from(asked)) if asked and draw(st.booleans()) else f"later{at % 7}"
        line: Line
        if kind == "a":
            weight = WEIGHTS[GENERATIONS.get(generation, 3)]
            new = draw(st.booleans())
            # Some requests answer to a name that a label or a shadow was told about before them.
            request = f"r{at}" if draw(st.booleans()) or f"later{at % 7}" in asked else f"later{at % 7}"
            asked.append(request)
            line = Answered(
                at=at,
                request_id=request,
                unit=draw(st.sampled_from(["", "a", "b", "c"])),
                package=NEW if new else OLD,
                weight=weight if new else 10_000 - weight,
                outcome=draw(st.sampled_from(["ok", "ok", "model_error", "shed"])),
                latency_us=draw(st.integers(0, 10)),
                predictions=(0.0, 1.0),
                as_of=at,
            )
        elif kind == "s":
            outcome = draw(st.sampled_from(["ok", "timeout", "shed"]))
            generation = 1
            line = Shadowed(at=at, request_id=request, package=NEW, outcome=outcome, predictions=())
            if any(isinstance(each, Shadowed) and each.request_id == request for *_, each in written):
                continue
        elif kind == "l":
            row, label = draw(st.integers(0, 2)), draw(st.sampled_from([0.0, 1.0]))
            line = Labelled(at=at, request_id=request, row=row, label=label)
        else:
            line = Dropped(at=at, n_lines=draw(st.integers(1, 3)))
        written.append((generation, worker, line))
    return written


def counter() -> Counter:
    return Counter(POLICY, package=NEW, control=OLD, steps=GENERATIONS)


def count(lines: list[Written]) -> Look:
    counting = counter()
    for generation, _, line in lines:
        counting.add(generation, line)
    return counting.look()


@given(lines=traffic(), shuffled=st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_the_order_of_lines_does_not_matter(lines: list[Written], shuffled) -> None:  # type: ignore[no-untyped-def]
    readable = [line for line in lines if line[0] in GENERATIONS]
    other = readable.copy()
    shuffled.shuffle(other)
    assert count(other) == count(readable)


@given(lines=traffic(), cuts=st.lists(st.integers(0, 40), max_size=4), n_bytes=st.integers(0, 60))
@settings(max_examples=80)
def test_files_reads_and_restarts_do_not_matter(lines: list[Written], cuts: list[int], n_bytes: int) -> None:
    """Written in parts; after each a reader that lives reads on, and another one begins anew, as after a kill.
    A part ends in the middle of a line."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "capture" / "prod.main.m"
        directory.mkdir(parents=True)
        living, reader = counter(), CaptureReader(name)
        edges = sorted({0, *(min(cut, len(lines)) for cut in cuts), len(lines)})
        owed: dict[Path, bytes] = {}
        for start, end in zip(edges, [*edges[1:], None], strict=True):
            for generation, worker, line in lines[start:end]:
                path = directory / f"{generation}-{worker}-1.jsonl"
                data = owed.pop(path, b"") + encode(line)
                if n_bytes < len(data):
                    owed[path], data = data[n_bytes:], data[:n_bytes]
                with path.open("ab") as file:
                    file.write(data)
            for generation, line in reader.read(ENDPOINT, living.steps):
                living.add(generation, line)
            anew, restarted = counter(), CaptureReader(name)
            for generation, line in restarted.read(ENDPOINT, anew.steps):
                anew.add(generation, line)
            assert anew.look() == living.look()
        for path, data in owed.items():
            with path.open("ab") as file:
                file.write(data)
        for generation, line in reader.read(ENDPOINT, living.steps):
            living.add(generation, line)
        readable = [line for line in lines if line[0] in GENERATIONS]
        assert living.look() == count(readable)
        assert reader.n_foreign == 0
        for step in range(len(POLICY.steps)):
            assert judge(living.look(), POLICY, step) == judge(count(readable), POLICY, step)
