"""The two ends of a data plane, in memory: a target without processes, and a loader without packages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lockgate.core.blobs import BlobMissing
from lockgate.core.digests import Digest
from lockgate.core.errors import LockgateError
from lockgate.core.names import parse_endpoint
from lockgate.registry.packages.contract import InputField, Matrix, ModelContract, OutputField
from lockgate.serving.ports import Predict, ReadyPackage
from lockgate.traffic.control_file import check_adopted
from lockgate.traffic.errors import StalePlan
from lockgate.traffic.observed import Observed, WorkerState
from lockgate.traffic.plan import PackageRef, Plan


class MemoryTarget:
    """A target with one worker that takes up every plan at once, unless told otherwise.

    Attributes:
        broken: why a package does not load, by digest.
        alive: set to False to kill the worker; set back to True, a new one takes up the newest plans.
        stuck: while true the worker stays at `loading`.
        revoked: the keys it was told to trust no longer.
    """

    def __init__(self, *, name: str = "memory") -> None:
        self.name = name
        self.broken: dict[Digest, str] = {}
        self.alive = True
        self.stuck = False
        self.revoked: set[str] = set()
        self._plans: dict[str, Plan] = {}
        self._serving: dict[str, Plan] = {}

    def apply(self, plan: Plan, *, adopted: int = 0) -> None:
        current = self._plans.get(plan.endpoint)
        if current is not None and plan.generation <= current.generation:
            if plan == current:
                return
            raise StalePlan(
                f"{plan.endpoint} is at generation {current.generation}, {plan.generation} comes too late",
                remedy="observe the endpoint and decide again",
                endpoint=plan.endpoint,
                given=plan.generation,
                current=current.generation,
            )
        if current is not None:
            check_adopted(current, plan, adopted)
        self._plans[plan.endpoint] = plan

    def distrust(self, key_ids: Sequence[str]) -> None:
        self.revoked |= set(key_ids)

    def observe(self, endpoint: str) -> Observed:
        name = str(parse_endpoint(endpoint))
        plan = self._plans.get(name)
        if plan is None:
            return Observed(endpoint=name, alive=self.alive)
        return Observed(
            endpoint=name,
            generation=plan.generation,
            plan=plan,
            workers=(self._worker(plan),),
            alive=self.alive,
        )

    def wait(self, endpoint: str, generation: int, timeout_s: float) -> Observed:
        """As `observe`: what can happen here has happened."""
        return self.observe(endpoint)

    def _worker(self, plan: Plan) -> WorkerState:
        why = next((self.broken[digest] for digest in sorted(plan.needed & self.broken.keys())), "")
        if self.alive and not self.stuck and not why:
            self._serving[plan.endpoint] = plan
        serving = self._serving.get(plan.endpoint)
        if not self.alive:
            self._serving.pop(plan.endpoint, None)
        return WorkerState(
            pid=1,
            generation=serving.generation if serving is not None else 0,
            seen=plan.generation,
            state="gone" if not self.alive else "loading" if self.stuck else "failed" if why else "serving",
            detail=why if self.alive else "",
            loaded=tuple(ref.digest for ref in serving.packages) if serving is not None else (),
        )


def constant(value: float) -> Predict:
    """A model that answers every row with one value."""

    def predict(matrix: Matrix) -> npt.NDArray[np.float64]:
        return np.full(len(matrix), value)

    return predict


ONE_NUMBER = ModelContract(inputs=(InputField(name="x", dtype="float"),), output=OutputField(name="p"))
"""A contract with one optional number `x` and a probability."""


class MemoryLoader:
    """Loads from a dictionary, when it is let.

    Attributes:
        packages: what there is; an error is raised instead of loading.
        loaded: the digests that were asked for, in order.
        before: called with the digest on the loading thread before anything else; block in it to hold a load.
    """

    def __init__(self) -> None:
        self.packages: dict[Digest, ReadyPackage | LockgateError] = {}
        self.loaded: list[Digest] = []
        self.before: Callable[[Digest], object] = lambda digest: None
        self._lock = threading.Lock()

    def add(self, digest: Digest, predict: Predict, contract: ModelContract = ONE_NUMBER) -> None:
        self.packages[digest] = ReadyPackage(digest, contract, predict)

    def load(self, ref: PackageRef, environment: str) -> ReadyPackage:
        self.before(ref.digest)
        with self._lock:
            self.loaded.append(ref.digest)
            found = self.packages.get(ref.digest)
        if found is None:
            raise BlobMissing(f"there is no blob {ref.digest}", remedy="push the package", digest=ref.digest)
        if isinstance(found, LockgateError):
            raise found
        return found
