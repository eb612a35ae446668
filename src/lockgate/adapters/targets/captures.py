"""`CaptureReader`: what the workers of this machine's data plane wrote down, read while they go on writing.

A reader remembers per file how far it has come, in memory only: a new one begins again with the first line. What
is concluded from captures is then a function of the files, and a process that dies has nothing to lose.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from lockgate.core.clock import Micros
from lockgate.traffic.capture import CAPTURE_DIR, Answered, Dropped, Line, decode, generation_of
from lockgate.traffic.control_file import CONTROL_SUFFIX, file_name
from lockgate.traffic.errors import TargetUnavailable

_BLOCK_BYTES = 1 << 18


class CaptureReader:
    """Follows the capture files below one run directory. For one thread.

    Attributes:
        n_foreign: lines so far that no line of this release could be made of; they count for nothing.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self.run_dir = Path(run_dir)
        self.n_foreign = 0
        self._read_bytes: dict[Path, int] = {}

    def read(self, endpoint: str, generations: Collection[int]) -> Iterator[tuple[int, Line]]:
        """The lines of these generations that are new to this reader, each with its generation, by time.

        Ends with what was there when it began. A line without its line break is left for the next time; a line
        that was not taken from the iterator is read again. Lines of one worker keep their order even where
        their times do not rise. Memory: one line and one block per file.

        Raises:
            TargetUnavailable: the run directory cannot be read. A file or a directory that is not there is none.
        """
        with self._translated():
            heap: list[_Head] = []
            for path, generation in self._files(endpoint):
                if generation in generations:
                    self._push(heap, path, generation, self._lines(path), 0)
            while heap:
                head = heapq.heappop(heap)
                self._read_bytes[head.path] = head.end
                yield head.generation, head.line
                self._push(heap, head.path, head.generation, head.rest, head.at)

    def prune(self, endpoint: str, before_generation: int, *, last_at: Micros) -> int:
        """Remove the files of all generations before this one that nothing was added to since `last_at`; how many
        they were. Whoever still writes one writes into the void.

        Raises:
            TargetUnavailable: the run directory cannot be written.
        """
        n_removed = 0
        with self._translated():
            for path, generation in self._files(endpoint):
                if generation >= before_generation:
                    continue
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime_ns // 1000 < last_at:
                        path.unlink()
                        n_removed += 1
                        self._read_bytes.pop(path, None)
        return n_removed

    def erase(self, endpoint: str, units: Collection[str]) -> int:
        """Blank every line about a request of these units, in place; how many they were.

        The lines keep their length, so whoever is just writing or reading a file is not disturbed; they count for
        nothing from then on. A request may have lines in files of several workers.

        Raises:
            TargetUnavailable: the run directory cannot be read or written.
        """
        with self._translated():
            files = [path for path, _ in self._files(endpoint)]
            requests = {
                line.request_id
                for path in files
                for _, _, line in _whole_lines(path)
                if isinstance(line, Answered) and line.unit in units
            }
            return sum(self._blank(path, requests) for path in files) if requests else 0

    @staticmethod
    def _blank(path: Path, requests: Collection[str]) -> int:
        about = [
            (start, length)
            for start, length, line in _whole_lines(path)
            if not isinstance(line, Dropped) and line.request_id in requests
        ]
        if about:
            with path.open("rb+", buffering=0) as file:
                for start, length in about:
                    os.pwrite(file.fileno(), b" " * length, start)
                os.fsync(file.fileno())
        return len(about)

    def _files(self, endpoint: str) -> list[tuple[Path, int]]:
        directory = self.run_dir / CAPTURE_DIR / file_name(endpoint).removesuffix(CONTROL_SUFFIX)
        found = []
        with suppress(FileNotFoundError):
            for path in sorted(directory.iterdir()):
                generation = generation_of(path.name)
                if generation is not None:
                    found.append((path, generation))
        return found

    def _push(
        self, heap: list[_Head], path: Path, generation: int, lines: Iterator[tuple[int, Line]], at: Micros
    ) -> None:
        """Put the next line of a file among the candidates; it counts as no earlier than the one before it."""
        head = next(lines, None)
        if head is not None:
            end, line = head
            heapq.heappush(heap, _Head(max(at, line.at), str(path), end, generation, line, path, lines))

    def _lines(self, path: Path) -> Iterator[tuple[int, Line]]:
        """The new whole lines of a file, each with where it ends."""
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            return
        with file:
            position = self._read_bytes.get(path, 0)
            left = os.fstat(file.fileno()).st_size - position
            file.seek(position)
            parts: list[bytes] = []
            while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
                left -= len(block)
                *whole, rest = block.split(b"\n")
                for data in whole:
                    if parts:
                        data, parts = b"".join((*parts, data)), []
                    position += len(data) + 1
                    line = decode(data)
                    if line is None:
                        self.n_foreign += 1
                        self._read_bytes[path] = position
                    else:
                        yield position, line
                parts.append(rest)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TargetUnavailable(
                f"the captures in {self.run_dir} cannot be used: {error.strerror or error}",
                remedy="check that the run directory belongs to this user and is readable",
                run_dir=str(self.run_dir),
            ) from error


def _whole_lines(path: Path) -> Iterator[tuple[int, int, Line]]:
    """Where each whole line of a file begins, its length without the break, what it says."""
    start = 0
    with path.open("rb") as file:
        for data in file:
            line = decode(data) if data.endswith(b"\n") else None
            if line is not None:
                yield start, len(data) - 1, line
            start += len(data)


class _Head(NamedTuple):
    """The next line of a file. Ordered by time, then by file; one file has one head at a time."""

    at: Micros
    name: str
    end: int
    generation: int
    line: Line
    path: Path
    rest: Iterator[tuple[int, Line]]
