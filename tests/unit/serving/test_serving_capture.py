"""Captures without their thread: the test says when a round is."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from lockgate.serving.capture import Capture, CaptureLimits, Captures
from lockgate.testing.clock import FakeClock
from lockgate.testing.target_suite import package_digest, sample_plan
from lockgate.traffic.capture import (
    Answered,
    Asked,
    CaptureMode,
    Dropped,
    Labelled,
    Line,
    Shadowed,
    decode,
    unit_of,
)
from lockgate.traffic.plan import Plan

ONE, TWO = package_digest("1.0.0"), package_digest("2.0.0")


def plan_of(generation: int = 3, capture: CaptureMode = "scores") -> Plan:
    return replace(sample_plan(generation, {"1.0.0": 9_000, "2.0.0": 1_000}), capture=capture, salt="s")


class MemoryDisk:
    """Files in memory on a disk of `room` bytes."""

    def __init__(self) -> None:
        self.files: dict[Path, bytearray] = {}
        self.room = 1 << 30

    def open(self, path: Path) -> MemoryFile:
        if self.room == 0 and path not in self.files:
            raise OSError(errno.ENOSPC, "No space left on device")
        return MemoryFile(self, self.files.setdefault(path, bytearray()))


class MemoryFile:
    def __init__(self, disk: MemoryDisk, data: bytearray) -> None:
        self._disk = disk
        self._data = data

    def write(self, data: memoryview, /) -> int:
        n = min(len(data), self._disk.room)
        if n == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._data += data[:n]
        self._disk.room -= n
        return n

    def close(self) -> None:
        pass


class Rig:
    def __init__(self, capture: CaptureMode = "scores", **limits: int) -> None:
        self.disk = MemoryDisk()
        self.clock = FakeClock()
        self.captures = Captures(
            Path("run"), "47-11", self.clock.now, limits=CaptureLimits(**limits), open_file=self.disk.open
        )
        found = self.captures.of(plan_of(capture=capture))
        assert found is not None
        self.capture: Capture = found

    @property
    def data(self) -> bytes:
        path = Path("run") / "capture" / "prod.main.flight-delay" / "3-47-11.jsonl"
        return bytes(self.disk.files.get(path, b""))

    def keep(self, number: int = 1, key: str | None = "k", n_bytes: int = 10, **more: Any) -> None:
        given: dict[str, Any] = {
            "package": TWO,
            "outcome": "ok",
            "latency_us": 5,
            "predictions": [0.25],
            "as_of": 7,
            "rows": [{"x": 1}],
            **more,
        }
        self.capture.keep(100 + number, f"r{number}", key, n_bytes=n_bytes, **given)

    def lines(self) -> list[Line | None]:
        """What is in the file; fails on half a line at its end."""
        *whole, rest = self.data.split(b"\n")
        assert rest == b""
        return [decode(line) for line in whole]

    @property
    def counts(self) -> tuple[int, int]:
        ledger = self.captures.ledger("prod/main/flight-delay")
        return ledger.n_written, ledger.n_dropped


def test_a_request_is_one_line_and_its_rows_another() -> None:
    rig = Rig("rows")
    rig.keep(1)
    rig.keep(2, key=None, package=ONE, outcome="contract_error", predictions=[], rows=None)
    assert not rig.disk.files, "a request touches no file"
    rig.captures.flush()
    assert rig.lines() == [
        Answered(106, "r1", unit_of("k", "s"), TWO, 1_000, "ok", 5, (0.25,), 7),
        Asked(106, "r1", ({"x": 1},)),
        Answered(107, "r2", "", ONE, 9_000, "contract_error", 5, (), 7),
    ]
    ledger = rig.captures.ledger("prod/main/flight-delay")
    assert (ledger.n_written, ledger.n_dropped, ledger.detail) == (3, 0, "")


def test_scores_hold_no_rows() -> None:
    rig = Rig()
    rig.keep()
    rig.captures.flush()
    (line,) = rig.lines()
    assert isinstance(line, Answered) and b'"x"' not in rig.data


def test_an_empty_key_is_no_unit() -> None:
    rig = Rig()
    rig.keep(key="")
    rig.captures.flush()
    (line,) = rig.lines()
    assert isinstance(line, Answered) and line.unit == ""


def test_a_plan_that_keeps_nothing_has_no_capture() -> None:
    rig = Rig()
    assert rig.captures.of(plan_of(4, capture="off")) is None
    assert rig.capture.retired and not rig.disk.files


def test_each_generation_has_a_file_and_late_lines_still_find_theirs() -> None:
    rig = Rig()
    rig.keep(1)
    rig.captures.of(plan_of(4))
    rig.captures.flush()
    rig.capture.shadowed([Shadowed(200, "r1", ONE, "ok", (0.5,))])
    assert [type(line) for line in rig.lines()] == [Answered, Shadowed]


def test_a_retired_capture_is_closed_when_nothing_comes_any_more() -> None:
    rig = Rig()
    rig.captures.of(plan_of(4))
    for _ in range(300):
        rig.captures.flush()
    rig.capture.shadowed([Shadowed(200, "r1", ONE, "ok", (0.5,))])
    assert rig.lines() == [] and rig.captures.ledger("prod/main/flight-delay").n_dropped == 1
    assert not rig.capture.label([Labelled(1, "r1", 0, 1.0)])


def test_a_full_queue_drops_counts_and_says_so() -> None:
    rig = Rig(queue_bytes=1_000)
    for number in range(5):
        rig.keep(number)
    rig.captures.flush()
    *kept, told = rig.lines()
    assert len(kept) == 3 and isinstance(told, Dropped) and told.n_lines == 2
    rig.keep(6)
    rig.captures.flush()
    assert isinstance(rig.lines()[-1], Answered)
    ledger = rig.captures.ledger("prod/main/flight-delay")
    assert (ledger.n_written, ledger.n_dropped) == (5, 2)


def test_a_body_counts_for_its_size_and_rows_are_a_line_too() -> None:
    rig = Rig("rows", queue_bytes=1_000)
    rig.keep(1, n_bytes=2_000)
    rig.captures.flush()
    (told,) = rig.lines()
    assert isinstance(told, Dropped) and told.n_lines == 2


def test_what_cannot_be_written_is_dropped_until_writing_works_again() -> None:
    rig = Rig()
    rig.disk.room = 0
    rig.keep(1)
    rig.captures.flush()
    rig.captures.flush()
    assert rig.counts == (0, 1)
    assert "No space left" in rig.captures.ledger("prod/main/flight-delay").detail
    assert not rig.capture.label([Labelled(1, "r1", 0, 1.0)])
    rig.disk.room = 10_000
    rig.keep(2)
    rig.captures.flush()
    answered, told = rig.lines()
    assert isinstance(answered, Answered) and answered.request_id == "r2"
    assert isinstance(told, Dropped) and told.n_lines == 1
    assert rig.counts == (2, 1)
    assert rig.captures.ledger("prod/main/flight-delay").detail == ""


def test_wherever_a_full_disk_cuts_no_line_is_lost_that_counts_as_written() -> None:
    whole = Rig()
    whole.keep(1)
    whole.keep(2)
    whole.captures.flush()
    for room in range(len(whole.data) + 1):
        rig = Rig()
        rig.disk.room = room
        rig.keep(1)
        rig.keep(2)
        rig.captures.flush()
        n_written, n_dropped = rig.counts
        assert n_written + n_dropped == 2
        rig.disk.room = 10_000
        rig.keep(3)
        rig.captures.flush()
        lines = rig.lines()
        kept = [line.request_id for line in lines if isinstance(line, Answered)]
        told = sum(line.n_lines for line in lines if isinstance(line, Dropped))
        assert kept == [*["r1", "r2"][:n_written], "r3"] and told == n_dropped


def test_a_file_has_a_size_and_goes_on_telling_what_it_misses() -> None:
    rig = Rig(file_bytes=1_000)
    for number in range(10):
        rig.keep(number)
        rig.captures.flush()
    lines = rig.lines()
    n_kept = sum(isinstance(line, Answered) for line in lines)
    assert 0 < n_kept < 10 and len(rig.data) < 1_100
    rig.clock.advance(seconds=2)
    rig.captures.flush()
    told = sum(line.n_lines for line in rig.lines() if isinstance(line, Dropped))
    assert told == 10 - n_kept
    assert "size" in rig.captures.ledger("prod/main/flight-delay").detail


def test_what_a_full_file_misses_is_told_at_the_end() -> None:
    rig = Rig(file_bytes=10)
    rig.keep()
    rig.captures.flush()
    rig.keep()
    rig.capture.close()
    assert sum(line.n_lines for line in rig.lines() if isinstance(line, Dropped)) == 2


def test_labels_find_room_in_a_full_file() -> None:
    rig = Rig(file_bytes=10, label_bytes=200)
    label = Labelled(1, "r1", 0, 1.0)
    assert rig.capture.label([label])
    assert label in rig.lines()
    assert not rig.capture.label([label] * 20)
    assert rig.captures.ledger("prod/main/flight-delay").n_dropped == 0, "whoever sent them was told"


def test_labels_stand_behind_the_requests_before_them() -> None:
    rig = Rig()
    rig.keep()
    assert rig.capture.label([Labelled(1, "r1", 0, 1.0)])
    assert [type(line) for line in rig.lines()] == [Answered, Labelled]


def test_rows_that_json_has_no_form_for_take_only_themselves_away() -> None:
    rig = Rig("rows")
    rig.keep(1)
    rig.keep(2, rows=[{"x": object()}])
    rig.keep(3)
    rig.captures.flush()
    kept = [(type(line), line.request_id) for line in rig.lines() if isinstance(line, Answered | Asked)]
    assert kept == [(Answered, "r1"), (Asked, "r1"), (Answered, "r2"), (Answered, "r3"), (Asked, "r3")]
    assert rig.captures.ledger("prod/main/flight-delay").n_dropped == 1


def test_stopping_writes_what_waits() -> None:
    rig = Rig()
    rig.captures.start()
    for number in range(1_000):
        rig.keep(number)
    rig.captures.stop()
    assert len(rig.lines()) == 1_000


@pytest.mark.parametrize("text", ["a\nb", "\u2028", "\x00", "ü🛫"])
def test_no_text_breaks_a_line(text: str) -> None:
    rig = Rig("rows")
    rig.keep(rows=[{text: text}])
    rig.captures.flush()
    assert rig.lines()[1] == Asked(106, "r1", ({text: text},))
