"""The journal, for auditors."""

from __future__ import annotations

import click

from lockgate.app.cli.main import Exit
from lockgate.app.cli.session import Session, verb
from lockgate.app.cli.show import when
from lockgate.hub.messages import AuditAnswer, ChangesAnswer, ChangesSince, VerifyAudit


@click.group()
def audit() -> None:
    """The journal: read it, verify it."""


@verb
@click.option("--since", default=0, help="Only events after this number.")
@click.option("--limit", default=200, help="At most this many.")
def log(session: Session, since: int, limit: int) -> None:
    """What happened, oldest first."""
    answer: ChangesAnswer = session.ask(ChangesSince(seq=since, limit=limit))
    rows = [f"{one.seq:>6}  {when(one.at)}  {one.actor:<20} {one.summary}" for one in answer.changes]
    session.answer(answer, "\n".join(rows) or "nothing happened yet")


@verb
def verify(session: Session) -> None:
    """Re-hash the chain, fold every document again, check the signed checkpoints. Exit 7 when altered."""
    hub = session.deciding
    answer: AuditAnswer = hub.ask(VerifyAudit())
    verdict = "ok" if answer.ok else "ALTERED"
    rows = [f"{verdict}: {answer.events} events, {answer.checkpoints} checkpoints, head {answer.head[:16]}"]
    rows += [f"  {finding}" for finding in answer.findings]
    session.answer(answer, "\n".join(rows))
    if not answer.ok:
        raise Exit(7)


audit.add_command(log)
audit.add_command(verify)
