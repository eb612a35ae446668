"""Writing traffic down, beside the requests and never in their way.

A request leaves a tuple in a bounded queue (`Capture.keep`), which takes less than a microsecond and touches no
lock and no file. A thread (`Captures`) turns what has gathered into lines (traffic/capture.py) and appends them,
some twenty times a second. What cannot be written, because the queue is full, the disk is full or the file has
its size, is counted, and a `Dropped` line says so as soon as writing works again.

One file per worker and generation, appended to and never changed: a killed process loses what was not appended
yet and leaves half a line at most; half a line that a full disk left is closed by a line break. Nothing is
fsynced: captures are for judging releases, not for keeping books.

Labels are different, because whoever sent one relies on the answer: they are appended before it is given.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.traffic import control_file
from lockgate.traffic.capture import (
    CAPTURE_DIR,
    Answered,
    Asked,
    CaptureMode,
    Dropped,
    Labelled,
    Line,
    Shadowed,
    encode,
    encode_all,
    file_name,
    unit_of,
)
from lockgate.traffic.errors import ErrorClass
from lockgate.traffic.plan import Plan

Outcome = Literal["ok"] | ErrorClass
Now = Callable[[], Micros]

_ENTRY_BYTES = 256
"""What a request is counted as in the queue, beside its body."""
_N_AT_ONCE = 64
"""Requests that become lines in one go: encoding holds the interpreter, and requests wait for that."""
_TELL_EVERY_US = 1_000_000
_TELL_BYTES = 1 << 20
"""How often a full file is told what it misses, and how much larger it may grow for that."""
_RETIRED_ROUNDS = 200
"""How many rounds a capture of an old plan waits for late lines (of the shadow) before its file is closed."""

_LOG = logging.getLogger("lockgate.serving")

_Entry = tuple[
    Micros,
    str,
    str | None,
    Digest,
    Outcome,
    int,
    Sequence[float],
    Micros,
    list[dict[str, Any]] | None,
    int,
]


class CaptureFile(Protocol):
    """A file that only grows. Both methods raise OSError."""

    def write(self, data: memoryview, /) -> int | None:
        """Append as much as there is room for; how many bytes that was."""
        ...

    def close(self) -> None: ...


class CaptureLimits(NamedTuple):
    """Where a capture begins to drop.

    Attributes:
        queue_bytes: of request bodies that wait to be written.
        file_bytes: of one file.
        label_bytes: how much larger a file may grow for labels, which come late and are few.
    """

    queue_bytes: int = 8 << 20
    file_bytes: int = 256 << 20
    label_bytes: int = 64 << 20


class Ledger:
    """Lines of one endpoint since the process started. Changed under the locks of its captures only."""

    __slots__ = ("_lock", "detail", "n_dropped", "n_written")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.n_written = self.n_dropped = 0
        self.detail = ""

    def add(self, *, written: int = 0, dropped: int = 0) -> None:
        with self._lock:
            self.n_written += written
            self.n_dropped += dropped


class Capture:
    """What one worker writes down under one plan.

    `keep` belongs to the thread that answers; everything else may be called by any other.

    Args:
        path: of the file; it and its directories are made when the first line is written.
        open_file: opens it for appending.
    """

    def __init__(
        self,
        path: Path,
        plan: Plan,
        ledger: Ledger,
        now: Now,
        *,
        limits: CaptureLimits,
        open_file: Callable[[Path], CaptureFile],
    ) -> None:
        self.endpoint = plan.endpoint
        self.mode: CaptureMode = plan.capture
        self._keeps_rows = plan.capture == "rows"
        self.retired = False
        self.n_idle = 0
        self._path = path
        self._salt = plan.salt
        self._weights = {route.package: route.weight for route in plan.routes}
        self._ledger = ledger
        self._now = now
        self._limits = limits
        self._open_file = open_file
        self._queue_bytes = limits.queue_bytes
        self._queue: deque[_Entry] = deque()
        # One side counts up what came in and the other what went out, so neither needs a lock.
        self._bytes_in = self._bytes_out = 0
        self._n_refused = self._n_refused_told = 0
        self._n_owed = 0
        self._told_at: Micros = 0
        self._lock = threading.Lock()
        self._file: CaptureFile | None = None
        self._closed = False
        self._n_bytes = 0
        self._torn = False

    def keep(
        self,
        at: Micros,
        request_id: str,
        key: str | None,
        package: Digest,
        outcome: Outcome,
        latency_us: int,
        predictions: Sequence[float],
        as_of: Micros,
        rows: list[dict[str, Any]] | None,
        n_bytes: int,
    ) -> None:
        """Take note of a request that reached a version; drops and counts when too much waits already.

        Args:
            at: when it was complete; the line says when it was answered.
            rows: kept in mode `rows`, when the version's contract admitted them.
            n_bytes: of its body.
        """
        n_bytes += _ENTRY_BYTES
        if not self._keeps_rows:
            rows = None
        if self._bytes_in - self._bytes_out + n_bytes > self._queue_bytes:
            self._n_refused += 1 if rows is None else 2
            return
        self._bytes_in += n_bytes
        self._queue.append(
            (at, request_id, key, package, outcome, latency_us, predictions, as_of, rows, n_bytes)
        )

    def shadowed(self, lines: Sequence[Shadowed]) -> None:
        """Append the shadow's answers, behind the requests they belong to."""
        with self._lock:
            self._write_queue()
            self._owe(len(lines) - self._append(lines))

    def label(self, lines: Sequence[Labelled]) -> bool:
        """Append labels at once; whether all of them are in the file."""
        with self._lock:
            self._write_queue()
            return self._append(lines, self._limits.label_bytes) == len(lines)

    def flush(self) -> bool:
        """Append all that waits; whether there was anything."""
        with self._lock:
            return self._write_queue()

    def close(self) -> None:
        """Append what waits and close the file. What comes later is dropped and counted."""
        with self._lock:
            self._write_queue()
            if self._n_owed:
                self._tell(beyond=True)
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None

    # --- under the lock ---

    def _write_queue(self) -> bool:
        n_waiting = n_left = len(self._queue)
        while n_left:
            n_now = min(n_left, _N_AT_ONCE)
            lines: list[Line] = []
            n_bytes = 0
            for _ in range(n_now):
                entry = self._queue.popleft()
                n_bytes += entry[-1]
                self._add_lines(entry, lines)
            self._owe(len(lines) - self._append(lines))
            self._bytes_out += n_bytes
            n_left -= n_now
        refused = self._n_refused
        self._owe(refused - self._n_refused_told)
        self._n_refused_told = refused
        if self._n_owed:
            self._tell(beyond=self._now() - self._told_at >= _TELL_EVERY_US)
        return n_waiting > 0

    def _add_lines(self, entry: _Entry, lines: list[Line]) -> None:
        started_at, request_id, key, package, outcome, latency_us, values, as_of, rows, _ = entry
        at = started_at + latency_us
        unit = unit_of(key, self._salt) if key else ""
        weight = self._weights.get(package, 0)
        line = Answered(at, request_id, unit, package, weight, outcome, latency_us, tuple(values), as_of)
        lines.append(line)
        if rows is not None:
            lines.append(Asked(at, request_id, tuple(rows)))

    def _owe(self, n_lines: int) -> None:
        if n_lines:
            self._n_owed += n_lines
            self._ledger.add(dropped=n_lines)

    def _tell(self, *, beyond: bool) -> None:
        """Write how many lines are missing; a file that has its size takes this line all the same, `beyond` it."""
        at = self._now()
        if self._append([Dropped(at, self._n_owed)], _TELL_BYTES if beyond else 0):
            self._n_owed, self._told_at = 0, at

    def _append(self, lines: Sequence[Line], beyond_bytes: int = 0) -> int:
        """Append lines as they fit; how many are in the file as a whole."""
        if not lines or self._closed:
            return 0
        data = _encoded(lines)
        if self._n_bytes + len(data) > self._limits.file_bytes + beyond_bytes:
            self._ledger.detail = f"{self._path.name} has its size"
            return 0
        n_written = self._put(data)
        self._ledger.add(written=n_written)
        if n_written == len(lines) and not isinstance(lines[0], Dropped):
            self._ledger.detail = ""
        return n_written

    def _put(self, data: bytes) -> int:
        """Append; how many lines of `data` are in the file to their end."""
        rest = memoryview(b"\n" + data if self._torn else data)
        mended = self._torn
        written = 0
        try:
            if self._file is None:
                self._file = self._open_file(self._path)
            while rest:
                n = self._file.write(rest) or 0
                written += n
                rest = rest[n:]
        except OSError as error:
            self._ledger.detail = f"{self._path.name}: {error.strerror or type(error).__name__}"
        self._n_bytes += written
        if mended and written:
            written -= 1
            self._torn = False
        if written:
            self._torn = data[written - 1] != ord("\n")
        n_lines = data.count(b"\n", 0, written)
        # Only its line break is missing, and the next write begins with one.
        return n_lines + (self._torn and data[written : written + 1] == b"\n")


class Captures:
    """All captures of one worker process, and the thread that writes them.

    Args:
        worker: the stem of this worker's files (`control_file.worker_name`).
        interval_s: between two rounds; what a killed process can lose.
        open_file: opens a capture's file for appending.
    """

    def __init__(
        self,
        run_dir: Path,
        worker: str,
        now: Now,
        *,
        limits: CaptureLimits | None = None,
        interval_s: float = 0.05,
        open_file: Callable[[Path], CaptureFile] | None = None,
    ) -> None:
        self._root = run_dir / CAPTURE_DIR
        self._worker = worker
        self._now = now
        self._limits = limits or CaptureLimits()
        self._interval_s = interval_s
        self._open_file = open_file or _append_to
        self._open: tuple[Capture, ...] = ()
        self._ledgers: dict[str, Ledger] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lockgate-capture", daemon=True)

    def of(self, plan: Plan) -> Capture | None:
        """Where the traffic of a plan that comes into force is written; None when it wants nothing kept.

        Touches no file. The capture of the endpoint's plan before is retired: it takes late lines for a while.
        """
        with self._lock:
            for capture in self._open:
                if capture.endpoint == plan.endpoint:
                    capture.retired = True
            if plan.capture == "off":
                return None
            stem = control_file.file_name(plan.endpoint).removesuffix(control_file.CONTROL_SUFFIX)
            path = self._root / stem / file_name(plan.generation, self._worker)
            ledger = self._ledgers.setdefault(plan.endpoint, Ledger())
            capture = Capture(path, plan, ledger, self._now, limits=self._limits, open_file=self._open_file)
            self._open = (*self._open, capture)
            return capture

    def ledger(self, endpoint: str) -> Ledger:
        """The counts of an endpoint; zeros while nothing was kept."""
        return self._ledgers.get(endpoint) or Ledger()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write all that waits, and close."""
        self._stopping.set()
        self._thread.join()
        for capture in self._open:
            capture.close()

    def flush(self) -> None:
        """One round: append what waits, close what is retired and idle."""
        for capture in self._open:
            try:
                busy = capture.flush()
            except Exception as error:  # noqa: BLE001 - one endpoint's capture must not stop the others'
                _LOG.error("the capture of %s failed: %s", capture.endpoint, type(error).__name__)
                continue
            capture.n_idle = 0 if busy or not capture.retired else capture.n_idle + 1
            if capture.n_idle >= _RETIRED_ROUNDS:
                capture.close()
                with self._lock:
                    self._open = tuple(one for one in self._open if one is not capture)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.flush()


def _encoded(lines: Sequence[Line]) -> bytes:
    """The lines in bytes; one that cannot be written down (a row that JSON has no form for) is left out."""
    try:
        return encode_all(lines)
    except Exception:  # noqa: BLE001 - rows hold whatever a caller sent
        parts = []
        for line in lines:
            try:
                parts.append(encode(line))
            except Exception:  # noqa: BLE001 - counted by the caller, who gets fewer lines back
                continue
        return b"".join(parts)


def _append_to(path: Path) -> CaptureFile:
    for directory in (path.parent.parent, path.parent):
        directory.mkdir(mode=0o700, exist_ok=True)
    return io.FileIO(path, "ab", opener=_for_its_user_only)


def _for_its_user_only(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
