"""Many threads that write to the store at a URL, for test_hub_postgres.py. Not a test.

writers_process.py URL N_THREADS N_ROUNDS NAME      says "ready", waits for a line, writes, tells the outcomes as JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lockgate.app.stores import open_store
from lockgate.core.errors import LockgateError
from lockgate.core.messages import Receipt
from lockgate.delivery.messages import PromoteVersion
from lockgate.registry.messages import DeclareModel, RegisterVersion
from lockgate.testing.hub_world import AUTHOR, MODEL_NAME, OPERATOR, PLATFORM, HubWorld, named_digest


def persistent(send: Callable[[], Receipt]) -> Receipt:
    """As a client does it: what may be tried again is, under the same id."""
    while True:
        try:
            return send()
        except LockgateError as error:
            if not error.retryable:
                raise


def work(world: HubWorld, name: str, n_rounds: int) -> dict[str, Any]:
    declared, won, refused = {}, [], 0
    for number in range(n_rounds):
        declare = DeclareModel(
            id=f"{name}-{number}", model=f"main/{name}-{number}", tier="low", owner=name, purpose="x"
        )
        declared[declare.id] = persistent(lambda one=declare: world.hub(PLATFORM).execute(one)).head
        wanted = f"1.0.{number}"
        register = RegisterVersion(
            id=f"{name}-register-{number}",
            model=MODEL_NAME,
            package=named_digest("package", name, number),
            run=named_digest("run", name, number),
            signatures=(named_digest("signature", name),),
            version=wanted,
        )
        if persistent(lambda one=register: world.hub(AUTHOR).execute(one)).refusal is None:
            won.append(wanted)
        else:
            refused += 1
    promote = PromoteVersion(id=f"{name}-promote", version=f"{MODEL_NAME}@1.0.0", environment="dev")
    receipt = persistent(lambda: world.hub(OPERATOR).execute(promote))
    started = sum(event["type"].startswith("delivery.release-started/") for event in receipt.events)
    return {
        "declared": declared,
        "won": won,
        "refused": refused,
        "started": started,
        "turned_away": int(receipt.refusal is not None),
    }


def main(url: str, n_threads: str, n_rounds: str, name: str) -> None:
    world = HubWorld(*open_store(url, base=Path.cwd())[:2])
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(int(n_threads)) as pool:
        names = [f"{name}-{number}" for number in range(int(n_threads))]
        done = list(pool.map(lambda one: work(world, one, int(n_rounds)), names))
    total: dict[str, Any] = {"declared": {}, "won": [], "refused": 0, "started": 0, "turned_away": 0}
    for each in done:
        total["declared"] |= each["declared"]
        for key in ("won", "refused", "started", "turned_away"):
            total[key] += each[key]
    print(json.dumps(total))


if __name__ == "__main__":
    main(*sys.argv[1:])
