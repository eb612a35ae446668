"""The worker's end of the run directory: its own presence, and the control files it follows.

    RUN_DIR/endpoints/ENV.NAMESPACE.NAME.ctl    the control file (traffic/control_file.py)
    RUN_DIR/endpoints/ENV.NAMESPACE.NAME.lock   flock for whoever writes plans or claims a worker slot
    RUN_DIR/revoked-keys.json                   keys whose signatures count no longer (traffic/plan.py)
    RUN_DIR/workers/PID-TOKEN.live              flock held for the life of the worker process
    RUN_DIR/workers/PID-TOKEN.bell              a FIFO; any byte wakes the worker's watcher at once
    RUN_DIR/workers/PID-TOKEN.json              the worker's report

Directories are 0700 and files 0600: who may write here decides what answers (within what the trusted keys
have signed). Control files are never truncated or replaced while a worker runs; both would pull the mapped
memory from under it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from lockgate.core.digests import canonical
from lockgate.serving.errors import PackageUntrusted
from lockgate.traffic import control_file as codec
from lockgate.traffic.errors import NoWorkerSlot
from lockgate.traffic.observed import EndpointReport, State, WorkerReport
from lockgate.traffic.plan import REVOKED_FILE, decode_revoked


def revoked_keys(run_dir: Path) -> frozenset[str]:
    """The keys that are trusted no longer, as of now.

    Raises:
        PackageUntrusted: the list is there and cannot be read; then nobody knows whom to trust.
    """
    try:
        return decode_revoked((run_dir / REVOKED_FILE).read_bytes())
    except FileNotFoundError:
        return frozenset()
    except (OSError, msgspec.DecodeError) as error:
        raise PackageUntrusted(
            f"the list of revoked keys {run_dir / REVOKED_FILE} cannot be read: {error}",
            remedy="remove it and start lockgate up, which writes it anew",
            file=str(run_dir / REVOKED_FILE),
        ) from error


class Presence:
    """One worker process in a run directory: alive as long as this object is open and the process lives.

    Args:
        run_dir: made when missing.
        token: tells apart two processes that get the same pid one after the other; positive, below 2^63.
    """

    def __init__(self, run_dir: Path, *, pid: int, token: int) -> None:
        self.run_dir = run_dir
        self.pid = pid
        self.token = token
        self._dir = run_dir / codec.WORKERS_DIR
        for directory in (run_dir, self._dir, run_dir / codec.ENDPOINTS_DIR):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stem = codec.worker_name(pid, token)
        self._live = self._dir / (stem + codec.LIVE_SUFFIX)
        self._bell = self._dir / (stem + codec.BELL_SUFFIX)
        self._report = self._dir / (stem + codec.REPORT_SUFFIX)
        with _locked(self._dir / ("all" + codec.LOCK_SUFFIX)):
            self._sweep()
            self._live_fd = os.open(self._live, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._live_fd, fcntl.LOCK_EX)
        os.mkfifo(self._bell, 0o600)
        # Read and write, so that the bell never reports an end of file when the last ringer closes it.
        self._bell_fd = os.open(self._bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._bell_fd, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until somebody rings or the time is up; whether it rang."""
        if not self._poll.poll(timeout_s * 1_000):
            return False
        with suppress(BlockingIOError):
            os.read(self._bell_fd, 4_096)
        return True

    def ring(self) -> None:
        """Wake the own watcher."""
        with suppress(BlockingIOError):
            os.write(self._bell_fd, b"!")

    def report(self, endpoints: Mapping[str, EndpointReport]) -> None:
        """Replace the report as a whole. Not fsynced: a power cut ends the worker too."""
        temporary = self._report.with_suffix(".new")
        temporary.touch(mode=0o600)
        temporary.write_bytes(
            canonical(WorkerReport(pid=self.pid, token=self.token, endpoints=dict(endpoints)))
        )
        temporary.replace(self._report)

    def alive(self, pid: int, token: int) -> bool:
        """Whether the worker process of that name lives."""
        if (pid, token) == (self.pid, self.token):
            return True
        return _is_held(self._dir / (codec.worker_name(pid, token) + codec.LIVE_SUFFIX))

    def close(self) -> None:
        """Leave: what this worker left in control files and in the directory is gone or seen as dead."""
        for path in (self._report, self._bell, self._live):
            path.unlink(missing_ok=True)
        os.close(self._bell_fd)
        os.close(self._live_fd)

    def _sweep(self) -> None:
        """Remove the files of workers that died without leaving."""
        for live in self._dir.glob("*" + codec.LIVE_SUFFIX):
            if not _is_held(live):
                for suffix in (codec.REPORT_SUFFIX, ".new", codec.BELL_SUFFIX, codec.LIVE_SUFFIX):
                    live.with_suffix(suffix).unlink(missing_ok=True)


class ControlFile:
    """One endpoint's control file, mapped, with a slot of this worker's own in its ack area.

    Raises (on opening):
        ControlFileCorrupt, ControlFileVersion: see the codec.
        NoWorkerSlot: more workers than slots.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, presence: Presence) -> None:
        self._presence = presence
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            codec.check(os.pread(fd, codec.SIZE_BYTES + 1, 0))
            self._identity = _identity(os.fstat(fd))
            self._map = mmap.mmap(fd, codec.SIZE_BYTES)
        finally:
            os.close(fd)
        self._view = memoryview(self._map)
        with _locked(path.with_suffix(codec.LOCK_SUFFIX)):
            self._slot = self._claim(path)

    def is_at(self, path: Path) -> bool:
        """Whether the path still leads to this file: a wiped run directory gets new ones."""
        return _identity(path.stat()) == self._identity

    def word(self) -> int:
        """The active word: the one look that every request takes."""
        return codec.active_word(self._view)

    def read(self) -> codec.Reading:
        return codec.read(self._view)

    def acknowledge(self, *, generation: int, seen: int, state: State, n_requests: int) -> None:
        """Tell the other side: `generation` answers, and the newest plan `seen` is in `state`."""
        ack = codec.Ack(
            self._slot, self._presence.pid, self._presence.token, generation, seen, state, n_requests
        )
        codec.carry_out(self._view, codec.acknowledge(ack))

    def close(self) -> None:
        codec.carry_out(self._view, codec.release(self._slot))
        self._view.release()
        self._map.close()

    def _claim(self, path: Path) -> int:
        for ack in codec.read_acks(self._view):
            if not self._presence.alive(ack.pid, ack.token):
                codec.carry_out(self._view, codec.release(ack.slot))
        slot = codec.free_slot(self._view)
        if slot is None:
            raise NoWorkerSlot(
                f"all {codec.N_WORKER_SLOTS} worker slots of {path.name} are taken",
                remedy="stop a worker, or give some of them a run directory of their own",
            )
        presence = self._presence
        ack = codec.Ack(slot, presence.pid, presence.token, 0, 0, "idle", 0)
        codec.carry_out(self._view, codec.acknowledge(ack))
        return slot


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def discover(run_dir: Path) -> dict[str, Path]:
    """Control files by the endpoint they are named for."""
    found = {}
    with suppress(FileNotFoundError), os.scandir(run_dir / codec.ENDPOINTS_DIR) as entries:
        for entry in entries:
            endpoint = codec.endpoint_of(entry.name)
            if endpoint is not None:
                found[endpoint] = Path(entry.path)
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _is_held(path: Path) -> bool:
    """Whether some process holds the lock of a liveness file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
