"""Verbs about what is kept and what goes: collect, hold, erase."""

from __future__ import annotations

import sys
from typing import Any

import click

from lockgate.app.cli.main import Refused
from lockgate.app.cli.session import Session, verb
from lockgate.app.plugins import resolve
from lockgate.core.digests import short
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.registry.messages import HoldVersion, LiftHold

_UPKEEP = "lockgate.workshop.upkeep"


@verb
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
def collect(session: Session, dry_run: bool) -> None:
    """Give up packages whose terms have run out, and remove bytes that nothing needs.

    Terms stand in [retention] of lockgate.toml. What is live, previous, on its way, held, or of a version that is
    neither rejected nor retired stays, and so does everything that was recorded.
    """
    session.work_here()
    control = session.control
    retention = control.config.retention
    done = _keep(
        session,
        "collecting:collect",
        control.blobs,
        control.clock,
        control.ids,
        headline="not everything was collected",
        actor=session.actor,
        terms=retention.terms,
        unneeded_days=retention.unneeded,
        dry_run=dry_run,
    )
    would = "would be " * dry_run
    rows = [f"{parse_version(one).shown}: package {would}collected" for one in done.versions]
    rows += [f"{parse_version(one.version).shown}: kept, {'; '.join(one.reasons)}" for one in done.kept]
    rows.append(f"{done.n_blobs} blobs, {done.n_bytes:,} bytes {would}removed; {done.n_young} are too young")
    session.answer(done, "\n".join(rows))


@verb
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
    session.tell(
        kind(id=session.new_id(), version=key, matter=matter, reason=reason),
        headline=f"{version} is {'not let go' if lift else 'not held'}",
    )
    session.answer(
        {"version": key, "matter": matter, "held": not lift},
        f"{version}: hold for {matter} lifted" if lift else f"{version} is held for {matter}",
    )


@verb
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
    session.work_here()
    captures = [one.removeprefix("capture:") for one in what if one.startswith("capture:")]
    if bool(captures) != (key is not None) or (captures and len(what) > 1):
        raise click.UsageError("name snapshots; or one capture:ENV/NAME, with --key")
    control = session.control
    if captures:
        named = str(parse_endpoint(captures[0]))
        given = sys.stdin.readline().rstrip("\n") if key == "-" else key
        files = resolve("lockgate.adapters.targets.captures:CaptureReader")(control.layout.run)
        n = _keep(
            session,
            "erasing:erase_captures",
            files,
            control.ids,
            headline="nothing was erased",
            endpoint=named,
            key=given,
            reason=reason,
        )
        session.answer({"endpoint": named, "lines": n}, f"{captures[0]}: {n} lines erased")
        return
    steps = resolve("lockgate.adapters.sql.step_cache:SqliteStepCache")(control.layout.steps)
    done = _keep(
        session,
        "erasing:erase",
        control.blobs,
        control.ids,
        steps.records(),
        headline="nothing was erased",
        named=what,
        reason=reason,
    )
    rows = [f"snapshot {short(one)} erased" for one in done.snapshots]
    rows.append(f"{done.n_blobs} blobs, {done.n_bytes:,} bytes removed")
    rows += [f"  golden rows remain in package {short(one)}" for one in done.packages]
    session.answer(done, "\n".join(rows))


def _keep(session: Session, what: str, *arguments: Any, headline: str, **options: Any) -> Any:
    control = session.control
    try:
        return resolve(f"{_UPKEEP}.{what}")(session.deciding.execute, control.journal, *arguments, **options)
    except resolve(f"{_UPKEEP}.collecting:Refused") as error:
        raise Refused(error.refusal, headline=headline) from error
    finally:
        session.seal()
