"""The verb `lockgate hub`."""

from __future__ import annotations

from pathlib import Path

import click

from lockgate.app.http.server import announce
from lockgate.app.team.config import read_hub_config
from lockgate.app.team.hub import Team, check


@click.command()
@click.option("--config", "file", default="hub.toml", show_default=True, help="The hub's configuration.")
@click.option("--check", "only_check", is_flag=True, help="Open everything, say how it is, serve nothing.")
def hub(file: str, only_check: bool) -> None:
    """The hub of a team over HTTP, until SIGTERM. Its first line on standard output is JSON and says where.

    Example: lockgate hub --config /etc/lockgate/hub.toml
    """
    config, base = read_hub_config(Path(file)), Path(file).resolve().parent
    if only_check:
        for line in check(config, base):
            click.echo(line)
        return
    Team(config, base).serve(lambda server: announce(url=server.url, port=server.port))
