"""The verb `audit`: the journal read, verified, proved, written out, and checked where there is no journal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from lockgate.app.cli.main import Exit
from lockgate.app.cli.session import Session, of_a_hub, verb
from lockgate.app.cli.verbs.show import when
from lockgate.app.plugins import resolve
from lockgate.core.digests import canonical
from lockgate.core.errors import Unavailable
from lockgate.core.journal import verifier_key
from lockgate.hub.messages import (
    AuditAnswer,
    ChangeLine,
    ChangesAnswer,
    ChangesSince,
    ProveConsistency,
    ProveEntry,
    VerifyAudit,
)

_FOLLOW_EVERY_S = 0.5
_AWAY_S = 1.0


class ProofUnwritable(Unavailable):
    """A proof could not be written where it was to go."""

    code = "cli.proof-unwritable"


@click.group()
def audit() -> None:
    """The journal: read it, verify it, prove what is in it."""


@verb
@click.option(
    "--since",
    type=click.IntRange(min=0),
    help="The first events after this number; default: the newest events.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=200, show_default=True, help="At most this many."
)
@click.option("--follow", is_flag=True, help="Go on with what happens, until Ctrl-C; JSON line by line.")
def log(session: Session, since: int | None, limit: int, follow: bool) -> None:
    """What happened: the newest events, oldest first."""
    if since is None:
        known: ChangesAnswer = session.ask(ChangesSince(limit=0))
        since = max(0, known.head - limit)
    if follow:
        # Only one that was there can come back.
        _changes(session, since, 0)
        _follow(session, since)
    changes, head = _changes(session, since, limit)
    rows = [_row(one) for one in changes]
    if since and rows:
        rows.insert(0, f"{since} older: lockgate audit log --since 0")
    nothing = f"nothing happened after {since}" if since else "nothing happened yet"
    session.answer({"changes": changes, "head": head, "older": since}, "\n".join(rows) or nothing)


def _row(one: ChangeLine) -> str:
    return f"{one.seq:>6}  {when(one.at)}  {one.actor:<20} {one.summary}"


def _follow(session: Session, since: int) -> NoReturn:
    """Tell what happens, as it happens; a hub that looks at part of the journal at a time says how far it came.

    What was told last is known here alone, so nothing is lost or told twice when the hub goes away and comes back.
    """
    is_away = False
    while True:
        try:
            page: ChangesAnswer = session.ask(ChangesSince(seq=since, limit=1000))
        except Unavailable as error:
            if not error.retryable:
                raise
            if not is_away:
                session.note(f"{error.message}; going on after {since} when it is back")
            is_away = True
            time.sleep(_AWAY_S)
            continue
        is_away = False
        for one in page.changes:
            click.echo(msgspec.json.encode(one).decode() if session.json else _row(one))
        if page.read_to <= since:
            time.sleep(_FOLLOW_EVERY_S)
        since = max(since, page.read_to)


def _changes(session: Session, since: int, limit: int) -> tuple[list[ChangeLine], int]:
    """Up to `limit` events after `since` and the number of the last of all; a hub answers with some at a time."""
    changes: list[ChangeLine] = []
    while True:
        after = changes[-1].seq if changes else since
        page: ChangesAnswer = session.ask(ChangesSince(seq=after, limit=limit - len(changes)))
        changes += page.changes
        if not page.changes or len(changes) >= limit:
            return changes, page.head


@verb
@of_a_hub
@click.option("--since", metavar="FILE", help="A checkpoint you kept: what it signs must still be there.")
@click.option("--chain", "chain_only", is_flag=True, help="Chain, tree and checkpoints only, no documents.")
def verify(session: Session, since: str | None, chain_only: bool) -> None:
    """Re-hash the chain, fold every document again, check the signed checkpoints. Exit 7 when altered.

    Example: lockgate audit verify --since checkpoint-of-january.txt
    """
    kept = _note(since) if since else ""
    answer: AuditAnswer = session.deciding.ask(VerifyAudit(since=kept, documents=not chain_only))
    verdict = "ok" if answer.ok else "ALTERED"
    rows = [f"{verdict}: {answer.events} events, {answer.checkpoints} checkpoints, head {answer.head[:16]}"]
    rows += ["documents were not looked at"] * chain_only
    rows += [f"  {finding}" for finding in answer.findings]
    session.answer(answer, "\n".join(rows))
    if not answer.ok:
        raise Exit(7)


@verb
@click.argument("seq", type=click.IntRange(min=1))
@click.option("--checkpoint", metavar="SIZE|FILE", help="Prove against this one; default: the newest.")
@click.option("--out", metavar="FILE", help="Write the proof there instead of showing it.")
def prove(session: Session, seq: int, checkpoint: str | None, out: str | None) -> None:
    """A proof that entry SEQ is in the signed journal. It holds without the journal: `audit check FILE`.

    Example: lockgate audit prove 1042 --out approval.json
    """
    session.seal()
    query = ProveEntry(seq=seq, checkpoint=_note(checkpoint) if checkpoint else "")
    _hand_out(session, session.deciding.ask(query), out)


@verb
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="[NEW]", required=False)
@click.option("--out", metavar="FILE", help="Write the proof there instead of showing it.")
def consistency(session: Session, old: str, new: str | None, out: str | None) -> None:
    """A proof that the journal of checkpoint NEW (default: the newest) begins with that of OLD.

    Each is the number of entries that a checkpoint signs, or the file of one.
    """
    session.seal()
    query = ProveConsistency(old=_note(old), new=_note(new) if new else "")
    _hand_out(session, session.deciding.ask(query), out)


def _note(named: str) -> str:
    """What was meant by SIZE|FILE: the number, or the file's text."""
    return named if named.isdecimal() else resolve("lockgate.adapters.archives.read:text_of")(Path(named))


def _hand_out(session: Session, proof: Any, out: str | None) -> None:
    text = canonical(proof).decode()
    if out is None:
        session.answer(proof, text)
        return
    try:
        Path(out).write_text(text + "\n")
    except OSError as error:
        raise ProofUnwritable(
            f"{out} cannot be written: {error.strerror or error}",
            remedy="see that its folder is there, that you may write to it, and that it has room",
            file=out,
        ) from error
    key = " --key KEY" if session.hub_url else ""
    session.answer(
        {"file": out, "key": proof.key}, f"{out}: to be checked with: lockgate audit check {out}{key}"
    )


@verb
@of_a_hub
@click.argument("file", metavar="FILE")
@click.option("--since", type=click.IntRange(min=0), default=0, help="Only the entries after this number.")
def export(session: Session, file: str, since: int) -> None:
    """Write the journal into a tar that holds its own proof: entries, checkpoints, verifier keys.

    Example: lockgate audit export journal.tar
    """
    _write(session, file, after=since)


@verb
@of_a_hub
@click.argument("file", metavar="FILE")
@click.option("--without-data", is_flag=True, help="Leave out snapshots, and what runs made on the way.")
def export_all(session: Session, file: str, without_data: bool) -> None:
    """Write the whole registry with its history into one tar, for `lockgate import` elsewhere.

    Example: lockgate export registry.tar
    """
    control = session.control
    _write(session, file, blobs=control.blobs, homes=control.homes, data=not without_data)


def _write(session: Session, file: str, **what: Any) -> None:
    session.work_here()
    session.seal()
    control = session.control
    keys = [verifier_key(one) for one in control.note_keys]
    made = resolve("lockgate.adapters.archives.write:write_archive")(
        Path(file), control.journal, control.sink.read(), keys, **what
    )
    held = f"{made.n_blobs} blobs, " if made.whole else ""
    text = f"{file}: entries {made.after + 1} to {made.size}, {held}{made.n_checkpoints} checkpoints"
    session.answer({"file": file, "manifest": made, "keys": keys}, text)


@verb
@of_a_hub
@click.argument("file", metavar="FILE")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="The journal's verifier key, or the file of its public half; repeated when it had another one before.",
)
def check(session: Session, file: str, keys: tuple[str, ...]) -> None:
    """Check a proof, or an archive, without the journal it came from. Exit 7 when it does not hold.

    Without --key, the key of the project here is taken, or that of --config; that of a hub elsewhere is told by
    `lockgate hub --check`. Never take the one that the file itself names.
    """
    if not keys and session.hub_url:
        raise click.UsageError("what a hub hands out is checked with the hub's key: --key KEY")
    read_key = resolve("lockgate.adapters.identity.checkpoints:read_key")
    verifiers = [read_key(one) for one in keys] or session.control.note_keys
    checked = resolve("lockgate.adapters.archives.read:check_file")(Path(file), verifiers)
    session.answer(checked, checked.text())


@verb
@of_a_hub
def key(session: Session) -> None:
    """The verifier key of the journal's checkpoints, to be kept where the journal is not.

    That of a team's hub is told where the hub is, with --config.
    """
    session.work_here()
    text, *earlier = (verifier_key(one) for one in session.control.note_keys)
    session.answer({"key": text, "earlier": earlier}, text)
    for one in earlier:
        session.note(f"what was signed before another key took over: {one}")


for one in (log, verify, prove, consistency, export, check, key):
    audit.add_command(one)
