"""A team's hub as a process, for the tests of identity. Not a test.

team_hub.py STORE OPTIONS PORT    over the SQLite store at STORE, with the table `[identity]` as JSON; until SIGTERM
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
from litestar import Request

from lockgate.adapters.http.identity import identity_routes
from lockgate.adapters.identity.team import IdentityOptions, open_identity
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.app.http.server import create_app, serve
from lockgate.app.system import SystemClock, SystemIds
from lockgate.core.messages import Command, Receipt
from lockgate.hub.authority import Session
from lockgate.hub.kernel import LocalHub
from lockgate.hub.questions import Questions


def main(path: str, options: str, port: str) -> None:
    store, clock = open_sqlite(Path(path)), SystemClock()
    questions = Questions(store.journal, store.outbox, clock, last_used=store.usage.last_used)

    def hub_for(session: Session) -> LocalHub:
        return LocalHub(store.journal, clock, session, answer=questions)

    def execute(session: Session, command: Command) -> Receipt:
        return hub_for(session).execute(command)

    identity = open_identity(
        msgspec.json.decode(options, type=IdentityOptions),
        store,
        clock,
        execute=execute,
        new_id=SystemIds().new,
    )
    app = create_app(hub_for, identity.authenticate)

    async def read(request: Request[Any, Any, Any]) -> bytes:
        return await request.body()

    async def run(work: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(work)

    routes = identity_routes(
        lambda request: None,
        read,
        run,
        offered=identity.offered,
        exchange=identity.exchange,
        browser=identity.browser,
    )
    for route in routes:
        app.register(route)
    serve(app, int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
