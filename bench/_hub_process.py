"""A hub over HTTP for the measurements of the registry: the composition root of a hub, over the store at a URL.

    python bench/_hub_process.py URL FOLDER

It says `{"ready": true, "port": N, "pid": N}`. What it knows of packages is given (see `_registry_client.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.identity.checkpoints import FileSink
from lockgate.app.deciding import Deciding
from lockgate.app.http.server import by_claimed_name, create_app, serve
from lockgate.app.stores import open_store
from lockgate.testing.hub_world import HubWorld


def main(url: str, folder: str) -> None:
    home = Path(folder)
    store = open_store(url, base=home)
    deciding = Deciding(
        store,
        DirectoryBlobs(home / "blobs"),
        trusted=lambda environment: (),
        run=None,
        sink=FileSink(home / "checkpoints"),
        checkpoint_key=lambda: home / "checkpoint.key",
    )
    world = HubWorld(store.journal, store.outbox, clock=deciding.clock)  # type: ignore[arg-type]
    serve(create_app(lambda session: world.hub(session.actor), by_claimed_name), 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
