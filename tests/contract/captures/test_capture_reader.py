"""`CaptureReader` on real files: while they grow, vanish, end in half a line, or are of somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.adapters.targets.captures import CaptureReader
from lockgate.core.digests import sha256
from lockgate.traffic.capture import Answered, Asked, Dropped, Labelled, Line, encode
from lockgate.traffic.errors import TargetUnavailable

ENDPOINT = "prod/main/flight-delay"
DIRECTORY = "capture/prod.main.flight-delay"


def line(at: int) -> Labelled:
    return Labelled(at=at, request_id=f"r{at}", row=0, label=1.0)


def append(run_dir: Path, name: str, *lines: Line | bytes) -> Path:
    path = run_dir / DIRECTORY / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for each in lines:
            file.write(each if isinstance(each, bytes) else encode(each))
    return path


def times(reader: CaptureReader, *generations: int) -> list[tuple[int, int]]:
    return [(generation, read.at) for generation, read in reader.read(ENDPOINT, generations)]


def test_without_a_directory_there_is_nothing(tmp_path: Path):
    reader = CaptureReader(tmp_path / "nowhere")
    assert times(reader, 1) == []
    assert reader.prune(ENDPOINT, 9, last_at=1 << 62) == 0


def test_lines_of_all_workers_come_by_time_and_once(tmp_path: Path):
    append(tmp_path, "1-10-5.jsonl", line(1), line(4), line(7))
    append(tmp_path, "1-11-6.jsonl", line(2), line(3), line(8))
    append(tmp_path, "2-10-5.jsonl", line(5), line(9))
    append(tmp_path, "3-10-5.jsonl", line(6))
    reader = CaptureReader(tmp_path)
    assert times(reader, 1, 2) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (1, 7), (1, 8), (2, 9)]
    assert times(reader, 1, 2) == []
    append(tmp_path, "1-11-6.jsonl", line(10))
    append(tmp_path, "1-12-1.jsonl", line(0))
    assert times(reader, 1, 2) == [(1, 0), (1, 10)]
    # A generation that becomes of interest later is read from its beginning.
    assert times(reader, 1, 2, 3) == [(3, 6)]
    assert len(times(CaptureReader(tmp_path), 1, 2, 3)) == 11


def test_every_kind_of_line_comes_as_it_was(tmp_path: Path):
    lines = [
        Answered(
            at=1,
            request_id="r",
            unit="u",
            package=sha256(b"p"),
            weight=100,
            outcome="ok",
            latency_us=3,
            predictions=(0.1,),
            as_of=1,
        ),
        Asked(at=2, request_id="r", rows=({"x": "á\n"},)),
        Dropped(at=3, n_lines=2),
    ]
    append(tmp_path, "1-1-1.jsonl", *lines)
    assert [read for _, read in CaptureReader(tmp_path).read(ENDPOINT, {1: 0})] == lines


def test_a_worker_keeps_its_order_even_when_its_clock_goes_back(tmp_path: Path):
    append(tmp_path, "1-10-5.jsonl", line(5), line(3), line(6))
    append(tmp_path, "1-11-6.jsonl", line(4))
    assert [at for _, at in times(CaptureReader(tmp_path), 1)] == [4, 5, 3, 6]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path):
    whole = encode(line(2))
    append(tmp_path, "1-10-5.jsonl", line(1), whole[:9])
    reader = CaptureReader(tmp_path)
    assert times(reader, 1) == [(1, 1)]
    assert times(reader, 1) == []
    append(tmp_path, "1-10-5.jsonl", whole[9:-1])
    assert times(reader, 1) == []
    append(tmp_path, "1-10-5.jsonl", b"\n", line(3))
    assert times(reader, 1) == [(1, 2), (1, 3)]
    assert reader.n_foreign == 0


def test_foreign_lines_are_counted_once_and_stop_nothing(tmp_path: Path):
    append(tmp_path, "1-10-5.jsonl", b'["z",1]\n', line(1), b"\n", b"\xff\xfe\n", b'["l",2,"r"]\n', line(3))
    append(tmp_path, "1-11-5.jsonl", b"nothing of ours\n")
    reader = CaptureReader(tmp_path)
    assert times(reader, 1) == [(1, 1), (1, 3)]
    assert times(reader, 1) == []
    assert reader.n_foreign == 5


def test_other_files_are_left_alone(tmp_path: Path):
    for name in ("notes.txt", "1-10-5.json", "x-10-5.jsonl", "1.jsonl"):
        append(tmp_path, name, line(1))
    append(tmp_path, "1-1-1.jsonl", line(2))
    (tmp_path / "capture/prod.main.other").mkdir()
    (tmp_path / "capture/prod.main.other/1-1-1.jsonl").write_bytes(encode(line(3)))
    assert times(CaptureReader(tmp_path), 1) == [(1, 2)]


def test_lines_longer_than_a_block_are_read(tmp_path: Path):
    long = Asked(at=2, request_id="r", rows=({"x": "y" * 700_000},))
    append(tmp_path, "1-1-1.jsonl", line(1), long, line(3))
    read = [each for _, each in CaptureReader(tmp_path).read(ENDPOINT, [1])]
    assert read == [line(1), long, line(3)]


def test_a_line_that_was_not_taken_is_read_again(tmp_path: Path):
    append(tmp_path, "1-10-5.jsonl", line(1), line(3), line(5))
    append(tmp_path, "1-11-5.jsonl", line(2), line(4))
    reader, taken = CaptureReader(tmp_path), []
    while True:
        lines = reader.read(ENDPOINT, [1])
        first = next(lines, None)
        lines.close()  # type: ignore[attr-defined]
        if first is None:
            break
        taken.append(first[1].at)
    assert taken == [1, 2, 3, 4, 5]


def test_a_reading_ends_although_the_file_goes_on(tmp_path: Path):
    append(tmp_path, "1-10-5.jsonl", line(1), line(2))
    reader, seen = CaptureReader(tmp_path), []
    for _, read in reader.read(ENDPOINT, [1]):
        seen.append(read.at)
        append(tmp_path, "1-10-5.jsonl", line(read.at + 10))
    assert seen == [1, 2]
    assert [at for _, at in times(reader, 1)] == [11, 12]


def test_files_that_vanish_are_no_trouble(tmp_path: Path):
    first = append(tmp_path, "1-10-5.jsonl", line(1))
    append(tmp_path, "1-11-5.jsonl", line(2))
    reader = CaptureReader(tmp_path)
    assert len(times(reader, 1)) == 2
    first.unlink()
    append(tmp_path, "1-11-5.jsonl", line(3))
    assert times(reader, 1) == [(1, 3)]


def test_old_generations_are_removed(tmp_path: Path):
    for generation in (1, 2, 10):
        append(tmp_path, f"{generation}-1-1.jsonl", line(generation))
    kept = append(tmp_path, "notes.txt", line(1))
    reader = CaptureReader(tmp_path)
    assert reader.prune(ENDPOINT, 10, last_at=0) == 0
    assert reader.prune(ENDPOINT, 10, last_at=1 << 62) == 2
    assert reader.prune(ENDPOINT, 10, last_at=1 << 62) == 0
    assert times(reader, 1, 2, 10) == [(10, 10)]
    assert kept.exists()


def test_a_directory_that_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / "capture").write_text("in the way")
    reader = CaptureReader(tmp_path)
    for ask in (lambda: times(reader, 1), lambda: reader.prune(ENDPOINT, 2, last_at=0)):
        with pytest.raises(TargetUnavailable, match="captures"):
            ask()


def answered(at: int, unit: str) -> Answered:
    return Answered(
        at=at,
        request_id=f"r{at}",
        unit=unit,
        package=sha256(b"p"),
        weight=0,
        outcome="ok",
        latency_us=1,
        predictions=(0.5,),
        as_of=at,
    )


def test_what_is_about_one_unit_is_blanked_where_it_stands(tmp_path: Path):
    kept, gone = answered(1, "u1"), answered(2, "u2")
    asked = Asked(at=2, request_id="r2", rows=({"who": "somebody"},))
    label = Labelled(at=9, request_id="r2", row=0, label=1.0)
    one = append(tmp_path, "1-10-5.jsonl", kept, gone, asked, b'["a",3')
    # Of another worker, and of a request that has only its label there.
    two = append(tmp_path, "2-11-6.jsonl", line(1), label)
    reader = CaptureReader(tmp_path)
    list(reader.read(ENDPOINT, [1]))
    before = [one.stat().st_size, two.stat().st_size]
    assert CaptureReader(tmp_path).erase(ENDPOINT, {"u2", "u3"}) == 3
    assert [one.stat().st_size, two.stat().st_size] == before
    assert b"somebody" not in one.read_bytes() and b"r2" not in one.read_bytes() + two.read_bytes()
    assert [read for _, read in CaptureReader(tmp_path).read(ENDPOINT, [1, 2])] == [kept, line(1)]
    # Whoever was reading goes on where he was, and the half line can still become a whole one.
    append(tmp_path, "1-10-5.jsonl", encode(answered(3, "u1"))[6:])
    assert CaptureReader(tmp_path).erase(ENDPOINT, {"u2"}) == 0
    assert CaptureReader(tmp_path).erase("dev/main/other", {"u1"}) == 0
    assert times(reader, 1) == [(1, 3)]
