"""`LocalTarget`: this machine's data plane, reached through its run directory (see serving/control.py for its
files).

`apply` stores the plan into mapped memory, makes it durable and rings the workers. What a worker
can see is ahead of the disk by one `msync`. A power cut in between brings back the plan before, and the
caller, who got no answer yet, applies again. It works without the hub and without a worker; a worker that
starts later finds the plan there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from lockgate.core.names import parse_endpoint
from lockgate.traffic import control_file as codec
from lockgate.traffic.errors import ControlFileCorrupt, ControlFileVersion, TargetUnavailable
from lockgate.traffic.observed import EndpointReport, Observed, WorkerReport, WorkerState
from lockgate.traffic.plan import REVOKED_FILE, Plan, decode_revoked, encode_revoked

_FIRST_PAUSE_S = 0.0002
_LONGEST_PAUSE_S = 0.01


class LocalTarget:
    """Applies plans to, and observes, the data plane processes that run on one run directory.

    Safe for use by many threads and processes at once: writers of one endpoint take turns by a file lock, and
    a generation that is not newer than the one in force is refused.

    Args:
        run_dir: made when missing, for this user only.
        name: how the target is called in an environment's settings.
    """

    def __init__(self, run_dir: str | os.PathLike[str], *, name: str = "local") -> None:
        self.run_dir = Path(run_dir)
        self.name = name
        self._endpoints = self.run_dir / codec.ENDPOINTS_DIR
        self._workers = self.run_dir / codec.WORKERS_DIR

    def apply(self, plan: Plan, *, adopted: int = 0) -> None:
        """Put a plan in force. When it returns, the plan is visible to workers and survives a power cut.

        Applying the plan that is in force again does nothing.

        Raises:
            StalePlan: this generation or a newer one is in force, with other content.
            LocalPlanInForce: a plan of local origin newer than `adopted` is in force.
            PlanTooLarge: it names more than fits.
            ControlFileCorrupt, ControlFileVersion: the endpoint's file is no control file of this release.
            TargetUnavailable: the run directory cannot be written.
        """
        file = codec.file_name(plan.endpoint)
        with self._translated(), self._locked(file):
            path = self._endpoints / file
            if not path.exists():
                self._create(path, plan)
                self._ring()
                return
            with _mapped(path, writable=True) as (mapped, view):
                stores = codec.publish(view, plan, adopted)
                codec.carry_out(view, stores)
                mapped.flush()
            # Last: traffic takes up the plan by itself, and a waking watcher would only be in its way.
            self._ring()

    def observe(self, endpoint: str) -> Observed:
        """What is in force and what every worker really answers with, now.

        An endpoint that never had a plan has generation 0 and no workers.

        Raises:
            ControlFileCorrupt, ControlFileVersion: the endpoint's file is no control file of this release.
            TargetUnavailable: the run directory cannot be read.
        """
        name = str(parse_endpoint(endpoint))
        plan: Plan | None = None
        acks: tuple[codec.Ack, ...] = ()
        with self._translated():
            with (
                suppress(FileNotFoundError),
                _mapped(self._endpoints / codec.file_name(name), writable=False) as (_, view),
            ):
                plan = codec.read(view).plan
                acks = codec.read_acks(view)
            living = self._living()
            workers = [self._worker(name, ack, living) for ack in acks]
        known = {(ack.pid, ack.token) for ack in acks}
        # A worker that did not find the endpoint yet will: it counts as on its way.
        workers += [
            WorkerState(pid=pid, generation=0, seen=0, state="idle")
            for pid, token in sorted(living)
            if (pid, token) not in known
        ]
        return Observed(
            endpoint=name,
            generation=plan.generation if plan is not None else 0,
            plan=plan,
            workers=tuple(workers),
            alive=bool(living),
        )

    def local_plans(self, endpoint: str | None = None) -> tuple[Plan, ...]:
        """The plans in force that somebody wrote without the hub, of one endpoint or of all.

        What cannot be read is left out here: whoever applies or observes is told why.
        """
        found = []
        for name in self.endpoints() if endpoint is None else (endpoint,):
            with (
                suppress(OSError, ControlFileCorrupt, ControlFileVersion),
                _mapped(self._endpoints / codec.file_name(name), writable=False) as (_, view),
            ):
                plan = codec.read(view).plan
                if plan is not None and plan.origin == "local":
                    found.append(plan)
        return tuple(found)

    def wait(self, endpoint: str, generation: int, timeout_s: float) -> Observed:
        """Observe until no living worker is on its way to `generation` any more, or the time is up.

        Returns the last observation: ask it `reached(generation)`. Without a living worker it waits for one
        to start until the time is up.
        """
        end = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            observed = self.observe(endpoint)
            left_s = end - time.monotonic()
            if observed.settled(generation) or left_s <= 0:
                return observed
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.2, _LONGEST_PAUSE_S)

    def distrust(self, key_ids: Sequence[str]) -> None:
        """Write the revoked keys down beside the control files; each worker reads them before it loads anything.

        Raises:
            TargetUnavailable: the run directory cannot be used, or the list there is damaged.
        """
        path, known = self.run_dir / REVOKED_FILE, frozenset[str]()
        with self._translated(), self._locked(REVOKED_FILE):
            with suppress(FileNotFoundError):
                known = decode_revoked(path.read_bytes())
            if not known.issuperset(key_ids):
                _place(path, encode_revoked({*known, *key_ids}))

    def endpoints(self) -> tuple[str, ...]:
        """All endpoints that ever had a plan here, in full form, sorted."""
        with self._translated(), suppress(FileNotFoundError):
            names = [codec.endpoint_of(entry.name) for entry in self._endpoints.iterdir()]
            return tuple(sorted(name for name in names if name is not None))
        return ()

    def _create(self, path: Path, plan: Plan) -> None:
        """A new control file becomes visible with its first plan in it, whole, or not at all."""
        image = bytearray(codec.blank())
        codec.carry_out(image, codec.publish(image, plan))
        _place(path, image)

    def _ring(self) -> None:
        """Wake the workers. Losing a ring costs a worker's poll interval, so nothing here may fail a plan."""
        with suppress(OSError):
            for bell in self._workers.glob("*" + codec.BELL_SUFFIX):
                with suppress(OSError):
                    fd = os.open(bell, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                    try:
                        os.write(fd, b"!")
                    finally:
                        os.close(fd)

    def _worker(self, endpoint: str, ack: codec.Ack, living: set[tuple[int, int]]) -> WorkerState:
        stem = codec.worker_name(ack.pid, ack.token)
        alive = (ack.pid, ack.token) in living
        report = self._report(stem, endpoint) if alive else EndpointReport(seen=0)
        return WorkerState(
            pid=ack.pid,
            generation=ack.generation,
            seen=ack.seen,
            state=ack.state if alive else "gone",
            detail=report.detail if report.seen == ack.seen else "",
            loaded=report.loaded,
            n_requests=ack.n_requests,
        )

    def _report(self, stem: str, endpoint: str) -> EndpointReport:
        try:
            text = (self._workers / (stem + codec.REPORT_SUFFIX)).read_bytes()
            report = msgspec.json.decode(text, type=WorkerReport)
        except (FileNotFoundError, msgspec.DecodeError):
            return EndpointReport(seen=0)
        return report.endpoints.get(endpoint, EndpointReport(seen=0))

    def _living(self) -> set[tuple[int, int]]:
        """The worker processes that live, as (pid, token)."""
        living = set()
        for live in self._workers.glob("*" + codec.LIVE_SUFFIX):
            worker = codec.worker_of(live.stem)
            if worker is not None and _is_held(live):
                living.add(worker)
        return living

    @contextmanager
    def _locked(self, file: str) -> Iterator[None]:
        lock = (self._endpoints / file).with_suffix(codec.LOCK_SUFFIX)
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        try:
            fd = os.open(lock, flags, 0o600)
        except FileNotFoundError:
            for directory in (self.run_dir, self._endpoints):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(lock, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, msgspec.DecodeError) as error:
            why = error.strerror or error if isinstance(error, OSError) else f"{REVOKED_FILE} is damaged"
            raise TargetUnavailable(
                f"the run directory {self.run_dir} cannot be used: {why}",
                remedy="check that it exists, belongs to this user and has room",
                run_dir=str(self.run_dir),
            ) from error


def _place(path: Path, data: bytes | bytearray) -> None:
    """Put a whole file in place of the one before, or leave that as it is."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _mapped(path: Path, *, writable: bool) -> Iterator[tuple[mmap.mmap, memoryview]]:
    """The control file in memory; raises when it is none."""
    fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size != codec.SIZE_BYTES:
            codec.check(b"")
        mapped = mmap.mmap(fd, codec.SIZE_BYTES, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    finally:
        os.close(fd)
    with mapped, memoryview(mapped) as view:
        codec.check(view)
        yield mapped, view


def _is_held(live: Path) -> bool:
    """Whether a worker process holds the lock of its liveness file, that is: whether it lives."""
    try:
        fd = os.open(live, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
