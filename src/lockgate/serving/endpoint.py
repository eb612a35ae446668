"""`Endpoint`: what one endpoint serves now, and how it becomes the next thing.

What answers is one immutable `Serving`: a plan, a table from slot to version, the versions themselves. A
request takes that reference once and uses nothing else, so its answer comes from one plan and one version,
whatever happens meanwhile. A swap replaces the reference.

    refresh()     on any thread; looks at the control file; swaps when all packages it needs are loaded
    wanted()      the next package the loader should load, what blocks a plan first
    provide()     a package is loaded: swaps when that was the last one
    refuse()      it cannot be loaded: a plan that needs it has failed, the plan before stays

A failed plan stays failed in this process: trying again on its own could switch versions hours after
everybody looked away. The way on is a new generation. A package that is only kept loaded fails alone; the
plan holds.

When a worker starts and the newest plan fails, the plan before it in the control file is what it serves, as
the workers that did not restart do. When that one fails too, the fallback of the newest is all there is.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.errors import LockgateError
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.registry.packages.contract import InputRejected, Matrix, RowEncoder
from lockgate.serving.capture import Capture, Captures, Ledger
from lockgate.serving.errors import ModelFailed
from lockgate.serving.lookup import Lookup, Row
from lockgate.serving.ports import ReadyPackage
from lockgate.traffic.control_file import Reading
from lockgate.traffic.counts import N_BUCKETS, Counts, bucket_of, trimmed
from lockgate.traffic.errors import ErrorClass
from lockgate.traffic.observed import EndpointReport, State
from lockgate.traffic.plan import DRILL_KEY, Fallback, PackageRef, Plan, slot_of

_ROUNDING = 1e-6
"""How far a float32 model may miss a bound of its output by rounding."""


class Control(Protocol):
    """What an endpoint needs of its control file."""

    def is_at(self, path: Path) -> bool: ...

    def word(self) -> int: ...

    def read(self) -> Reading: ...

    def acknowledge(self, *, generation: int, seen: int, state: State, n_requests: int) -> None: ...

    def close(self) -> None: ...


class Recorder:
    """Counts of one version, written by the thread that answers, read by others as a `Counts`."""

    __slots__ = ("errors", "latency", "n_fallback", "n_requests", "n_rows")

    def __init__(self) -> None:
        self.n_requests = self.n_rows = self.n_fallback = 0
        self.errors: dict[ErrorClass, int] = {}
        self.latency = [0] * N_BUCKETS

    def answered(self, n_rows: int, latency_us: int) -> None:
        self.n_requests += 1
        self.n_rows += n_rows
        self.latency[bucket_of(latency_us)] += 1

    def fell_back(self) -> None:
        self.n_requests += 1
        self.n_fallback += 1

    def failed(self, error_class: ErrorClass) -> None:
        self.n_requests += 1
        self.errors[error_class] = self.errors.get(error_class, 0) + 1

    def counts(self) -> Counts:
        return Counts(
            n_requests=self.n_requests,
            n_rows=self.n_rows,
            n_fallback=self.n_fallback,
            errors=self.errors.copy(),
            latency_us=trimmed(self.latency),
        )


class ShadowCounts:
    """Requests of one endpoint that its shadows answered, could not answer, and were not asked for lack of room."""

    __slots__ = ("n_answered", "n_dropped", "n_failed")

    def __init__(self) -> None:
        self.n_answered = self.n_failed = self.n_dropped = 0


class Runtime:
    """One loaded version: everything a request needs of it. Safe for use by many threads at once."""

    __slots__ = (
        "digest",
        "encode",
        "encoder",
        "high",
        "lookup",
        "low",
        "predict",
        "recorder",
        "version",
        "version_header",
    )

    def __init__(self, version: str, package: ReadyPackage, recorder: Recorder) -> None:
        self.digest = package.digest
        self.version = version
        self.version_header = (b"x-lockgate-version", version.encode())
        self.encoder = RowEncoder(package.contract)
        self.encode = self.encoder.encode
        self.predict = package.predict
        self.lookup = package.lookup or Lookup(package.contract)
        self.recorder = recorder
        output = package.contract.output
        unit = output.kind == "probability"
        low, high = output.minimum, output.maximum
        self.low = low if low is not None else 0.0 if unit else None
        self.high = high if high is not None else 1.0 if unit else None

    def take(
        self, rows: list[Row], entities: list[Row] | None, as_of: Sequence[Micros]
    ) -> tuple[list[Row], Matrix]:
        """The rows with the features that are read by key, and the matrix they make.

        Args:
            entities: one per row; None when the caller sent all features.
            as_of: one per row.

        Raises:
            InputRejected, EntityRejected: the caller sent what the contract does not admit.
            FeaturesUnavailable: a feature that is read by key cannot be had.
        """
        if entities is None:
            return rows, self.encode(rows)
        rows = self.lookup.fill(rows, entities, as_of)
        try:
            return rows, self.encode(rows)
        except InputRejected as error:
            raise self.lookup.blame(error) from None

    def takes_as(self, other: Runtime) -> bool:
        """Whether both make the same matrix of every request."""
        return self.encoder.contract.inputs == other.encoder.contract.inputs and self.lookup.reads_as(
            other.lookup
        )

    def answer(self, matrix: Matrix) -> list[float]:
        """One value per row, within the contract.

        Raises:
            ModelFailed: the version raised, or answered something else.
        """
        try:
            values: list[float] = self.predict(matrix).tolist()
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it is counted and classed
            raise self._failed(f"it raised {type(error).__name__}") from None
        if len(values) != len(matrix):
            raise self._failed(f"it answered {len(values)} values for {len(matrix)} rows")
        low, high = self.low, self.high
        for value in values:
            if not math.isfinite(value):
                raise self._failed("it answered a value that is not finite")
            if (low is not None and value < low - _ROUNDING) or (
                high is not None and value > high + _ROUNDING
            ):
                raise self._failed("it answered a value outside its contract")
        return values

    def _failed(self, why: str) -> ModelFailed:
        return ModelFailed(
            f"version {self.version} could not answer: {why}",
            remedy="tell the owner of the model; the operator can roll back",
            version=self.version,
            digest=self.digest,
        )


class Serving:
    """A plan with its versions: what a request is answered from. Never changed once made.

    Attributes:
        capture: where its traffic is written down; None when the plan keeps nothing.
        shadow: the version that gets copies; None without a capture, which is all that its answers are for.
        alike: the versions that answer from the matrix that the shadow would make as well.
        rehearsal: the version that answers drills: the plan's own for that, else the live one if it has traffic.
    """

    __slots__ = ("_runtimes", "_table", "alike", "capture", "plan", "rehearsal", "shadow")

    def __init__(self, plan: Plan, runtimes: dict[Digest, Runtime], capture: Capture | None = None) -> None:
        self.plan = plan
        self.capture = capture
        self._runtimes = tuple(runtimes[route.package] for route in plan.routes)
        self._table: list[Runtime] = []
        if len(plan.routes) > 1:
            for route, runtime in zip(plan.routes, self._runtimes, strict=True):
                self._table += [runtime] * route.weight
        self.shadow = runtimes[plan.shadow] if plan.shadow is not None and capture is not None else None
        shadow = self.shadow
        self.alike = frozenset(
            runtime.digest for runtime in self._runtimes if shadow is not None and shadow.takes_as(runtime)
        )
        if plan.drill is not None:
            self.rehearsal: Runtime | None = runtimes[plan.drill]
        else:
            live = [runtime for runtime in self._runtimes if runtime.digest == plan.live]
            self.rehearsal = live[0] if live else self.runtime_for(DRILL_KEY)

    def runtime_for(self, key: str) -> Runtime | None:
        """The version that answers a routing key; None when the plan routes nowhere."""
        if self._table:
            return self._table[slot_of(key, self.plan.salt)]
        return self._runtimes[0] if self._runtimes else None


class Endpoint:
    """See the module's text.

    Args:
        name: the full form.
        report: called before an ack that needs its long half (why it failed, what is loaded) to be visible.
        wake: called when there may be something to load.
        captures: where traffic is written down; None writes down nothing, whatever plans say.
    """

    def __init__(
        self,
        name: str,
        control: Control,
        *,
        report: Callable[[], None],
        wake: Callable[[], None],
        captures: Captures | None = None,
    ) -> None:
        parsed = parse_endpoint(name)
        self.name = name
        self.shown = parsed.shown
        self.environment = parsed.environment
        self.serving: Serving | None = None
        self.recorder = Recorder()
        self.shadow_counts = ShadowCounts()
        self.state: State = "idle"
        self.detail = ""
        self._control = control
        self._report = report
        self._wake = wake
        self._captures = captures
        self._lock = threading.Lock()
        self._word = 0
        self._torn = False
        self._seen = 0
        self._pending: Plan | None = None
        self._before: Plan | None = None
        self._stranded: Plan | None = None
        self._loaded: dict[Digest, Runtime] = {}
        self._refused: dict[Digest, str] = {}
        self._recorders: dict[Digest, Recorder] = {}

    @property
    def generation(self) -> int:
        serving = self.serving
        return serving.plan.generation if serving is not None else 0

    @property
    def seen(self) -> int:
        return self._seen

    @property
    def fallback(self) -> Fallback | None:
        """What answers while no version can: the plan in force says it, or the newest one when none could be
        served; None while that is not known yet."""
        serving = self.serving
        plan = serving.plan if serving is not None else self._stranded
        return plan.fallback if plan is not None else None

    def reads(self, path: Path) -> bool:
        """Whether its control file is the one at the path."""
        return self._control.is_at(path)

    def follow(self, control: Control) -> None:
        """Go on with another control file: somebody removed the one before, and its plans were put back.

        The one before is dropped, not closed: a request may be looking at its word.
        """
        with self._lock:
            self._control, self._word = control, -1
        self.refresh()
        self.beat()

    def stale(self) -> bool:
        """Whether the control file moved since the last look: one load from mapped memory."""
        return self._control.word() != self._word

    def refresh(self) -> None:
        """Take up a newer plan if there is one; swap at once when the packages it needs are loaded."""
        with self._lock:
            if not self.stale() and not self._torn:
                return
            try:
                reading = self._control.read()
            except LockgateError as error:
                word, torn = self._control.word(), True
                self._gave_up(word >> 1, f"{error.code}: {error.message}")
            else:
                word, torn = reading.word, reading.torn
                self._take_up(reading)
            # Only now: a request that finds the word unchanged uses what is served without taking the lock, so
            # the swap must be done before the word counts as seen.
            self._word, self._torn = word, torn

    def wanted(self, *, urgent: bool) -> PackageRef | None:
        """The next package to load.

        Args:
            urgent: only what a plan is waiting for; otherwise what the plan in force wants kept loaded.
        """
        with self._lock:
            plan = self._pending
            if plan is not None:
                return next(iter(self._missing(plan)), None)
            if urgent or self.serving is None:
                return None
            refs = self.serving.plan.packages
            return next((ref for ref in refs if not self._has_or_refused(ref.digest)), None)

    def provide(self, ref: PackageRef, package: ReadyPackage) -> None:
        """A wanted package is loaded."""
        version = str(parse_version(ref.version).version)
        with self._lock:
            recorder = self._recorders.setdefault(ref.digest, Recorder())
            self._loaded[ref.digest] = Runtime(version, package, recorder)
            self._tolerate()
            if self._pending is not None:
                self._settle(quick=False)
            else:
                self._report()

    def refuse(self, ref: PackageRef, detail: str) -> None:
        """A wanted package cannot be loaded."""
        with self._lock:
            self._refused[ref.digest] = f"{ref.version}: {detail}"
            if self._pending is not None:
                self._settle(quick=False)
            else:
                if self.state == "serving":
                    self.detail = self._refused[ref.digest]
                self._report()

    def tidy(self) -> bool:
        """Drop packages that no plan names any more; whether there were any. Off the request's way."""
        with self._lock:
            if self._pending is not None or self.serving is None:
                return False
            kept = {ref.digest for ref in self.serving.plan.packages}
            gone = [digest for digest in self._loaded if digest not in kept]
            if not gone:
                return False
            for digest in gone:
                del self._loaded[digest]
            self._tolerate()
            return True

    def _tolerate(self) -> None:
        """Callers may send what any loaded version takes: they do not know which one will answer."""
        names = frozenset(
            name for runtime in self._loaded.values() for name in runtime.encoder.contract.names
        )
        sent = frozenset(name for runtime in self._loaded.values() for name in runtime.lookup.sent)
        for runtime in self._loaded.values():
            runtime.encoder.tolerated = names
            runtime.lookup.ignore(sent)

    def beat(self) -> None:
        """Bring the request count in the ack up to date."""
        with self._lock:
            self._acknowledge()

    def report(self) -> EndpointReport:
        return EndpointReport(seen=self._seen, detail=self.detail, loaded=tuple(self._loaded.copy()))

    def counts(self) -> dict[Digest, Counts]:
        """Per version since the process started."""
        return {digest: recorder.counts() for digest, recorder in self._recorders.copy().items()}

    def ledger(self) -> Ledger:
        """What was written down of its traffic since the process started."""
        return self._captures.ledger(self.name) if self._captures is not None else Ledger()

    def close(self) -> None:
        with self._lock:
            self._control.close()

    # --- under the lock ---

    def _take_up(self, reading: Reading) -> None:
        plan = reading.plan
        if reading.torn:
            self._gave_up(reading.word >> 1, "the newest plan in the control file is torn")
            if self.serving is not None:
                return
        if plan is None or plan.generation <= self.generation:
            return
        if plan.endpoint != self.name:
            self._gave_up(plan.generation, f"the plan is for {plan.endpoint}")
            return
        if not reading.torn:
            self._seen, self.detail = plan.generation, ""
        self._pending, self._before, self._refused = plan, reading.before, {}
        self._settle(quick=True)

    def _settle(self, *, quick: bool) -> None:
        """Swap, give up or go on loading, whichever the pending plan allows."""
        plan = self._pending
        assert plan is not None
        refused = next((self._refused[digest] for digest in sorted(plan.needed & self._refused.keys())), None)
        if refused is not None:
            # A worker that serves nothing yet takes the plan before: the newest one that it can serve.
            self._pending = self._before if self.serving is None else None
            self._before = None
            if plan.generation == self._seen:
                if self.serving is None:
                    self._stranded = plan
                self._gave_up(plan.generation, refused)
            if self._pending is not None:
                self._settle(quick=quick)
            return
        if self._missing(plan):
            if plan.generation == self._seen:
                self.state = "loading"
            self._acknowledge()
            self._wake()
            return
        capture = self._captures.of(plan) if self._captures is not None else None
        self.serving = Serving(plan, self._loaded, capture)
        self._pending = self._before = self._stranded = None
        if plan.generation == self._seen:
            self.state = "serving"
        if not quick:
            self._report()
        self._acknowledge()
        self._wake()

    def _missing(self, plan: Plan) -> list[PackageRef]:
        needed = plan.needed
        return [ref for ref in plan.packages if ref.digest in needed and not self._has_or_refused(ref.digest)]

    def _has_or_refused(self, digest: Digest) -> bool:
        return digest in self._loaded or digest in self._refused

    def _gave_up(self, seen: int, detail: str) -> None:
        if (self._seen, self.state, self.detail) == (seen, "failed", detail):
            return
        self._seen, self.state, self.detail = seen, "failed", detail
        self._report()
        self._acknowledge()

    def _acknowledge(self) -> None:
        recorders = [self.recorder, *self._recorders.values()]
        self._control.acknowledge(
            generation=self.generation,
            seen=self._seen,
            state=self.state,
            n_requests=sum(recorder.n_requests for recorder in recorders),
        )
