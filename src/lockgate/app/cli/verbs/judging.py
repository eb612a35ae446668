"""Verbs by which people and gates judge: judge, approve, reject, quarantine, retire."""

from __future__ import annotations

import click
import msgspec

from lockgate.app.cli.session import Session, verb
from lockgate.core.names import parse_version
from lockgate.delivery.messages import RetireVersion
from lockgate.gates.evidence import explain as explain_evidence
from lockgate.governance.messages import ApproveVersion, ValidateVersion
from lockgate.hub.messages import Standing, StandingAnswer
from lockgate.registry.messages import LiftQuarantine, QuarantineVersion, RejectVersion


@verb
@click.argument("version")
@click.option("--for", "environment", metavar="ENV", help="Judge against what runs there.")
def judge(session: Session, version: str, environment: str | None) -> None:
    """Make evidence on a version: by itself, or against what runs in an environment."""
    ref = parse_version(version)
    found = session.workshop(str(ref.model)).judge(session.deciding, str(ref), environment)
    if environment is None:
        session.tell(
            ValidateVersion(id=session.new_id(), version=str(ref)), headline=f"{version} is not validated"
        )
    session.seal()
    session.answer(
        [msgspec.to_builtins(item) for item in found], "\n".join(explain_evidence(item) for item in found)
    )


@verb
@click.argument("version")
@click.option("--for", "environment", required=True, metavar="ENV", help="The environment.")
@click.option(
    "--evidence", "seen", metavar="DIGEST", help="The evidence digest you read; default: the present one."
)
@click.option("--comment", default="", help="A word for the record.")
def approve(session: Session, version: str, environment: str, seen: str | None, comment: str) -> None:
    """Agree to a version in an environment, on exactly its evidence.

    Example: lockgate approve flight-delay@1.0.0 --for prod --as grace
    """
    key = str(parse_version(version))
    session.say_identity()
    standing: StandingAnswer = session.ask(Standing(version=key, environment=environment))
    session.tell(
        ApproveVersion(
            id=session.new_id(),
            version=key,
            environment=environment,
            evidence_set=seen or standing.bound,
            comment=comment,
        ),
        headline=f"{session.actor} cannot approve {version} for {environment}",
    )
    session.answer(
        {"version": key, "environment": environment, "approver": session.actor, "evidence": standing.bound},
        f"{version} approved for {environment} by {session.actor} on evidence {standing.bound}",
    )


@verb
@click.argument("version")
@click.option("--reason", required=True, help="Why; it is kept for ever.")
def reject(session: Session, version: str, reason: str) -> None:
    """End a version's way for good; a fix is a new version."""
    key = str(parse_version(version))
    session.say_identity()
    session.tell(
        RejectVersion(id=session.new_id(), version=key, reason=reason),
        headline=f"{version} cannot be rejected",
    )
    session.answer({"version": key, "state": "rejected"}, f"{version} rejected")


@verb
@click.argument("version")
@click.option("--reason", required=True, help="Why; it is kept for ever.")
@click.option("--lift", is_flag=True, help="Let it out again; somebody else than who shut it away.")
def quarantine(session: Session, version: str, reason: str, lift: bool) -> None:
    """Forbid new releases of a version at once, or lift that."""
    key = str(parse_version(version))
    session.say_identity()
    kind = LiftQuarantine if lift else QuarantineVersion
    session.tell(
        kind(id=session.new_id(), version=key, reason=reason), headline=f"{version} stays where it is"
    )
    session.answer({"version": key}, f"{version} {'let out of quarantine' if lift else 'quarantined'}")


@verb
@click.argument("version")
@click.option("--reason", required=True, help="Why; it is kept for ever.")
def retire(session: Session, version: str, reason: str) -> None:
    """End the life of a version that no endpoint serves or may fall back to."""
    key = str(parse_version(version))
    session.tell(
        RetireVersion(id=session.new_id(), version=key, reason=reason),
        headline=f"{version} cannot be retired",
    )
    session.answer({"version": key, "state": "retired"}, f"{version} retired")
