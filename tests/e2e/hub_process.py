"""A process that speaks to the store at a URL, for the tests that kill it. Not a test.

hub_process.py STORE declare NAME N        N commands; the id of each is printed once it is acknowledged
hub_process.py STORE die STEP ID           one promotion, killed by SIGKILL when the kernel reaches STEP
hub_process.py STORE carry-out FILE        settle every effect, appending `SUBJECT FENCE` of each to FILE
hub_process.py STORE serve                 the hub over HTTP, until SIGTERM
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from lockgate.app.http.server import by_claimed_name, create_app, serve
from lockgate.app.stores import open_store
from lockgate.delivery.messages import ConfirmPlan, PromoteVersion
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import CONTROLLER, MODEL_NAME, OPERATOR, PLATFORM, HubWorld, accepted

_LEASE_US = 1_000_000


def declare(world: HubWorld, name: str, count: str) -> None:
    for number in range(int(count)):
        command = DeclareModel(
            id=f"{name}-{number}",
            model=f"main/{name}-{number % 7}",
            tier="low",
            owner=name,
            purpose=f"number {number}",
        )
        receipt = accepted(world.hub(PLATFORM).execute(command))
        print(command.id, receipt.head, flush=True)


def die(world: HubWorld, step: str, command_id: str) -> None:
    def at(reached: str) -> None:
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    world.at = at
    command = PromoteVersion(id=command_id, version=f"{MODEL_NAME}@1.0.0", environment="dev")
    print(accepted(world.hub(OPERATOR).execute(command)).effects, flush=True)


def carry_out(world: HubWorld, file: str) -> None:
    now = world.clock.now()
    while (row := world.outbox.lease(now, now + _LEASE_US)) is not None:
        with Path(file).open("a") as log:
            log.write(f"{row.subject} {row.fence}\n")
        confirm = ConfirmPlan(
            id=f"confirm-{row.id}", endpoint=row.subject, generation=row.fence, applied=True, took_us=1
        )
        accepted(world.hub(CONTROLLER).execute(confirm))
        world.outbox.settle(row)


def main(store: str, verb: str, *arguments: str) -> None:
    world = HubWorld(*open_store(store, base=Path.cwd())[:2])
    if verb == "serve":
        serve(create_app(lambda session: world.hub(session.actor), by_claimed_name), 0)
    else:
        {"declare": declare, "die": die, "carry-out": carry_out}[verb](world, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
