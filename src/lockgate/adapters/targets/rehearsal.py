"""Rehearsing a rollback on a real target: the very plans, control file and workers that a rollback uses.

Only requests under `DRILL_KEY` are moved, so nobody else notices. Every flip publishes one plan, asks until the other
version answers, waits until every worker is on it, and then asks once more. What is not part of a flip is the hub's
decision and its journal; they are the same with and without a data plane.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest
from lockgate.core.errors import LockgateError
from lockgate.core.names import parse_endpoint
from lockgate.delivery.messages import DrillFigures
from lockgate.delivery.ports import Target
from lockgate.registry.packages.package import GOLDEN_PATH, decode_golden, open_package
from lockgate.traffic.errors import TargetUnavailable
from lockgate.traffic.plan import DRILL_KEY, Plan

_PATIENCE_S = 5.0
_PAUSE_S = 0.01


class Ask(Protocol):
    def __call__(self) -> Digest | None:
        """One request under the drill's key: the package that answered it, None without an answer."""
        ...


class Asker:
    """Asks a data plane over one connection that stays open.

    Args:
        row: inputs that both versions take.
    """

    def __init__(self, host: str, port: int, endpoint: str, row: Mapping[str, Any]) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_S)
        self._path = f"/{endpoint}"
        self._body = json.dumps({"inputs": [row], "key": DRILL_KEY})

    def __call__(self) -> Digest | None:
        try:
            headers = {"content-type": "application/json"}
            self._connection.request("POST", self._path, self._body, headers)
            answer = self._connection.getresponse()
            body = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()
            # Nobody listens: asking again at once would only be counted.
            time.sleep(_PAUSE_S)
            return None
        return body.get("digest") if answer.status == 200 else None

    def close(self) -> None:
        self._connection.close()


class Flip(NamedTuple):
    """Microseconds from publication to the first answer of the other version, and until all workers were on it."""

    first_us: int
    all_us: int


class Rehearsal:
    """Counts what a drill sees."""

    def __init__(self, target: Target, ask: Ask, *, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._target = target
        self._ask = ask
        self._now_ns = now_ns
        self._n_requests = self._n_failed = self._n_wrong = 0

    def run(self, plan: Plan, back: Digest, *, first: int, n_flips: int) -> DrillFigures:
        """Flip to `back` and away again, `n_flips` times each.

        Args:
            plan: what is in force; it is in force again afterwards, under the last of the generations.
            first: the first of the `2 * n_flips + 1` generations that belong to the drill.
        """
        assert plan.live is not None
        flips: list[Flip] = []
        interrupted = ""
        try:
            for number in range(2 * n_flips):
                to = plan.live if number % 2 else back
                flips.append(self._flip(plan, to, first + number))
        except (LockgateError, _Stuck) as error:
            interrupted = str(error)
        n_workers = len(self._target.observe(plan.endpoint).workers)
        last = msgspec.structs.replace(plan, generation=first + 2 * n_flips, drill=None)
        try:
            self._target.apply(last)
        except LockgateError as error:
            interrupted = interrupted or str(error)
        there = flips[::2]
        return DrillFigures(
            n_flips=len(there),
            n_requests=self._n_requests,
            n_failed=self._n_failed,
            n_wrong=self._n_wrong,
            n_workers=n_workers,
            first_p50_us=_quantile([flip.first_us for flip in there], 0.5),
            first_p99_us=_quantile([flip.first_us for flip in there], 0.99),
            all_p50_us=_quantile([flip.all_us for flip in there], 0.5),
            all_p99_us=_quantile([flip.all_us for flip in there], 0.99),
            interrupted=interrupted,
        )

    def _flip(self, plan: Plan, to: Digest, generation: int) -> Flip:
        began = self._now_ns()
        self._target.apply(msgspec.structs.replace(plan, generation=generation, drill=to))
        first_us = self._until(to, began)
        seen = self._target.wait(plan.endpoint, generation, _PATIENCE_S)
        if not seen.reached(generation):
            raise _Stuck(f"a worker did not take generation {generation} up")
        all_us = (self._now_ns() - began) // 1_000
        # Every worker is on the plan now: another answer would be a mix, unless the plan is another one by now.
        if self._request() not in (to, None):
            if self._target.observe(plan.endpoint).generation != generation:
                raise _Stuck("another plan came into force")
            self._n_wrong += 1
        return Flip(first_us, all_us)

    def _until(self, to: Digest, began: int) -> int:
        while True:
            answered = self._request()
            now = self._now_ns()
            if answered == to:
                return (now - began) // 1_000
            if now - began > _PATIENCE_S * 1e9:
                raise _Stuck(f"the version before did not answer within {_PATIENCE_S:g} s")

    def _request(self) -> Digest | None:
        answered = self._ask()
        self._n_requests += 1
        self._n_failed += answered is None
        return answered


class _Stuck(Exception):
    """A flip did not happen in time."""


def _quantile(values: list[int], share: float) -> int:
    """The value below or at which `share` of the values lie; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0


def walk(
    target: Target, blobs: BlobStore, endpoint: str, *, port: int, first: int, n_flips: int
) -> DrillFigures:
    """Flip the data plane to the version before and back, `n_flips` times each.

    Args:
        first: of the generations that were decided for this drill.
    Raises:
        TargetUnavailable: the data plane is not at the plan that the drill was decided upon.
    """
    plan = _plan_of(target, endpoint, first - 1)
    assert plan.live is not None and plan.previous is not None
    golden = open_package(plan.live, blobs).read(GOLDEN_PATH, blobs)
    # What a caller of today sends.
    row = decode_golden(golden, plan.live).rows[0]
    asker = Asker("127.0.0.1", port, parse_endpoint(endpoint).shown, row)
    try:
        return Rehearsal(target, asker).run(plan, plan.previous, first=first, n_flips=n_flips)
    finally:
        asker.close()


def _plan_of(target: Target, endpoint: str, decided: int) -> Plan:
    plan, shown = target.observe(endpoint).plan, parse_endpoint(endpoint).shown
    if plan is not None and plan.generation != decided:
        raise TargetUnavailable(
            f"the data plane is at plan {plan.generation} of {shown}, and plan {decided} was decided",
            remedy=f"wait until it has taken it: lockgate status {shown}",
            endpoint=endpoint,
        )
    if plan is None or plan.live is None or plan.previous is None:
        raise TargetUnavailable(
            f"the data plane has no plan of {shown} with a version to go back to",
            remedy=f"lockgate status {shown}",
            endpoint=endpoint,
        )
    return plan
