"""Verbs about what is kept and what goes: collect, hold, erase."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lockgate.app.cli.session import Session, of_a_hub, told, verb
from lockgate.app.plugins import resolve
from lockgate.core.digests import short
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.registry.messages import HoldVersion, LiftHold

_UPKEEP = "lockgate.workshop.upkeep"


@verb
@of_a_hub
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
def collect(session: Session, dry_run: bool) -> None:
    """Give up packages whose terms have run out, and remove bytes that nothing needs.

    Terms stand in [retention] of lockgate.toml, or of hub.toml with --config. What is live, previous, on its way, held,
    or of a version that is neither rejected nor retired stays, and so does everything that was recorded. Captures of
    traffic whose term is over go too, as they do by themselves while a data plane is up.
    """
    session.work_here()
    control = session.control
    hub = session.deciding
    with told(session):
        done = resolve(f"{_UPKEEP}.collecting:collect")(
            hub.execute,
            control.journal,
            control.blobs,
            control.clock,
            control.ids,
            control.steps(),
            actor=hub.session.actor,
            terms=control.retention.terms,
            unneeded_days=control.retention.unneeded,
            dry_run=dry_run,
        )
    n_captures = 0 if dry_run else control.prune_captures()
    if n_captures:
        session.note(f"{n_captures} files of captures removed")
    session.seal()
    session.answer(done, done.text())


@verb
@of_a_hub
@click.argument("version")
@click.option(
    "--matter", default="legal", show_default=True, help="What it is held for; each can be lifted by itself."
)
@click.option("--reason", required=True, help="Goes on record for good, so it names no person.")
@click.option("--lift", is_flag=True, help="End the hold of that matter.")
def hold(session: Session, version: str, matter: str, reason: str, lift: bool) -> None:
    """Keep a version and all it rests on, whatever its terms say, until the matter is closed.

    Example: lockgate hold flight-delay@1.4.2 --matter case-17 --reason "complaint of March"
    """
    key = str(parse_version(version))
    kind = LiftHold if lift else HoldVersion
    session.say_identity()
    session.tell(
        kind(id=session.new_id(), version=key, matter=matter, reason=reason),
        headline=f"{version} is {'not let go' if lift else 'not held'}",
    )
    session.answer(
        {"version": key, "matter": matter, "held": not lift},
        f"{version}: hold for {matter} lifted" if lift else f"{version} is held for {matter}",
    )


@verb
@of_a_hub
@click.argument("what", metavar="snapshot:ID...|capture:ENV/NAME", nargs=-1, required=True)
@click.option("--reason", required=True, help="Goes on record for good, so it names no person.")
@click.option(
    "--key",
    metavar="KEY|-",
    help="A caller's routing key, for a capture; - reads standard input.",
)
def erase(session: Session, what: tuple[str, ...], reason: str, key: str | None) -> None:
    """Take rows away for good: of a snapshot, with all that steps made of them; or of one caller, from captures.

    That they were there stays on record. Versions made of a snapshot go on, and can no longer be built again. Their
    packages keep golden rows; those go when the version is retired and collected.

    Example: lockgate erase snapshot:f84592e96077 --reason "request 4711"
    """
    captures = [one.removeprefix("capture:") for one in what if one.startswith("capture:")]
    if bool(captures) != (key is not None) or (captures and len(what) > 1):
        raise click.UsageError("name snapshots; or one capture:ENV/NAME, with --key")
    session.say_identity()
    if captures:
        given = sys.stdin.readline().rstrip("\n") if key == "-" else key
        _erase_captures(session, captures[0], str(given), reason)
        return
    erasing, hub = f"{_UPKEEP}.erasing", session.deciding
    with told(session):
        snapshots = resolve(f"{erasing}:decide")(hub, session.new_id, named=what, reason=reason)
    session.seal()
    if session.hub_url:
        rows = [f"snapshot {short(one)} erased" for one in snapshots]
        session.answer({"snapshots": snapshots}, "\n".join([*rows, "the hub removes the bytes"]))
        return
    control = session.control
    done = resolve(f"{erasing}:carry_out")(
        control.journal, control.blobs, control.steps(), snapshots=snapshots
    )
    session.answer(done, done.text())


def _erase_captures(session: Session, endpoint: str, key: str, reason: str) -> None:
    """Only next to the files: the key goes into no command, because a command goes on record."""
    session.work_here()
    control, named = session.control, str(parse_endpoint(endpoint))
    files = resolve("lockgate.adapters.targets.captures:CaptureReader")(control.run or Path())
    with told(session):
        n = resolve(f"{_UPKEEP}.erasing:erase_captures")(
            session.deciding.execute,
            control.journal,
            files,
            control.ids,
            endpoint=named,
            key=key,
            reason=reason,
        )
    session.seal()
    session.answer({"endpoint": named, "lines": n}, f"{endpoint}: {n} lines erased")
