"""What runs beside the requests: finding new control files, keeping up idle endpoints, loading packages.

Two threads. The watcher sleeps on the worker's bell, which a target rings after every plan, and at most
`poll_s`; it swaps endpoints that see no traffic, so the other side never waits for a request to come. The
loader loads one package after the other, what a plan is waiting for before what is only kept warm; while it
works, the watcher and the requests go on.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from lockgate.core.errors import LockgateError
from lockgate.serving.capture import Captures
from lockgate.serving.control import ControlFile, Presence, discover
from lockgate.serving.endpoint import Endpoint
from lockgate.serving.plane import Plane
from lockgate.serving.ports import Loader
from lockgate.traffic.observed import EndpointReport

_LOG = logging.getLogger("lockgate.serving")
_BACK_OFF_S = 1.0


class Watcher:
    """Keeps a plane on the plans of a run directory, from `start` to `stop`.

    Args:
        poll_s: how long a new control file, or a plan nobody rang for, can go unnoticed while there is no
            traffic.
        captures: where the endpoints write down their traffic; whoever made it starts and stops it.
    """

    def __init__(
        self,
        plane: Plane,
        presence: Presence,
        run_dir: Path,
        loader: Loader,
        *,
        poll_s: float = 0.05,
        captures: Captures | None = None,
    ) -> None:
        self._plane = plane
        self._presence = presence
        self._run_dir = run_dir
        self._loader = loader
        self._poll_s = poll_s
        self._captures = captures
        self._stopping = threading.Event()
        self._work = threading.Event()
        self._report_lock = threading.Lock()
        self._reported: dict[str, EndpointReport] = {}
        self._unreported = False
        self._unreadable: dict[str, tuple[int, int]] = {}
        self._threads = [
            threading.Thread(target=self._watch, name="lockgate-watch", daemon=True),
            threading.Thread(target=self._load, name="lockgate-load", daemon=True),
        ]

    def start(self) -> None:
        """Know all endpoints before the first request, then go on in the background."""
        self._look()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop both threads and leave the run directory; a load that is under way is waited for."""
        self._stopping.set()
        self._work.set()
        self._presence.ring()
        for thread in self._threads:
            thread.join()
        for endpoint in self._plane.endpoints:
            endpoint.close()
        self._presence.close()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._presence.wait(self._poll_s)
            try:
                self._look()
            except Exception:  # noqa: BLE001 - see below
                # Without this thread nothing would ever be loaded again, while requests were answered as before.
                _LOG.exception("a look at the control files failed; the next one follows")

    def _look(self) -> None:
        known = {}
        for endpoint in self._plane.endpoints:
            known[endpoint.name] = endpoint
            endpoint.refresh()
            if endpoint.tidy():
                self._write_report()
            endpoint.beat()
        if self._unreported:
            self._write_report()
        for name, path in discover(self._run_dir).items():
            self._open(name, path, known.get(name))

    def _open(self, name: str, path: Path, endpoint: Endpoint | None) -> None:
        try:
            if endpoint is not None and endpoint.reads(path):
                return
            state = path.stat()
            if self._unreadable.get(name) == (state.st_ino, state.st_mtime_ns):
                return
            self._unreadable[name] = (state.st_ino, state.st_mtime_ns)
            control = ControlFile(path, self._presence)
        except (LockgateError, OSError) as error:
            _LOG.error("the control file of %s cannot be used: %s", name, error)
            return
        self._unreadable.pop(name, None)
        if endpoint is not None:
            endpoint.follow(control)
            return
        endpoint = Endpoint(
            name, control, report=self._write_report, wake=self._work.set, captures=self._captures
        )
        # First known, then looked at: the loader that the look may wake must find the endpoint.
        self._plane.add(endpoint)
        endpoint.refresh()

    def _load(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            try:
                while not self._stopping.is_set() and self._load_one():
                    pass
            except Exception:  # noqa: BLE001 - this thread must outlive what a package or a disk does to it
                _LOG.exception("taking up a loaded package failed; it is tried again")
                self._stopping.wait(_BACK_OFF_S)
                self._work.set()
            if self._stopping.is_set():
                return

    def _load_one(self) -> bool:
        """Load the most wanted package; whether there was one."""
        for urgent in (True, False):
            for endpoint in self._plane.endpoints:
                ref = endpoint.wanted(urgent=urgent)
                if ref is None:
                    continue
                try:
                    package = self._loader.load(ref, endpoint.environment)
                except LockgateError as error:
                    endpoint.refuse(ref, f"{error.code}: {error.message}")
                except Exception as error:  # noqa: BLE001 - whatever a package does to its loader, the plane serves on
                    endpoint.refuse(ref, f"{type(error).__name__}: {error}")
                else:
                    endpoint.provide(ref, package)
                return True
        return False

    def _write_report(self) -> None:
        with self._report_lock:
            reports = {endpoint.name: endpoint.report() for endpoint in self._plane.endpoints}
            if reports == self._reported:
                return
            try:
                self._presence.report(reports)
            except OSError as error:
                # A full disk: plans are taken up all the same, and the report is tried again at the next look.
                if not self._unreported:
                    _LOG.error("the worker's report cannot be written: %s", error)
                self._unreported = True
                return
            self._reported, self._unreported = reports, False
