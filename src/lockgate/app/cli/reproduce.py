"""`reproduce`: build a version again and compare."""

from __future__ import annotations

import click

from lockgate.app.cli.main import Exit
from lockgate.app.cli.progress import Counts, watching
from lockgate.app.cli.session import Session, verb
from lockgate.app.rebuild import rebuild
from lockgate.core.names import parse_version
from lockgate.hub.messages import ExplainVersion, VersionAnswer


@verb
@click.argument("version")
def reproduce(session: Session, version: str) -> None:
    """Build a version again, from its package and snapshots alone, and compare the digests.

    Says `identical`, or `different` and the first step that is. Exit 3 when different.
    """
    key = str(parse_version(version))
    known: VersionAnswer = session.ask(ExplainVersion(version=key))
    control = session.control
    with watching(Counts()) as observer:
        outcome = rebuild(control, control.package(known.version.package), known.version.run, observer)
    text = f"{outcome.verdict}: {version} rebuilt as {outcome.rebuilt}"
    if outcome.first_difference:
        text += f"\n  registered as {outcome.expected}\n  first different step: {outcome.first_difference}"
    if not outcome.environment_matches:
        text += "\n  the environment here is not the one it was built in"
    session.answer(outcome, text)
    if outcome.verdict != "identical":
        raise Exit(3)
