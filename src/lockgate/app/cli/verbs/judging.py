"""Verbs by which people and gates judge: judge, approve, reject, quarantine, retire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, get_args

import click
import msgspec

from lockgate.app.cli.main import WAITING, Exit
from lockgate.app.cli.session import Session, told, verb
from lockgate.core.names import parse_version
from lockgate.delivery.messages import RetireVersion
from lockgate.delivery.standing import StandingAnswer
from lockgate.gates.evidence import explain as explain_evidence
from lockgate.gates.messages import RecordEvidence
from lockgate.governance.judgement import own_role, wanted_roles
from lockgate.governance.messages import ApproveVersion, DeclineVersion, RevokeApproval, ValidateVersion
from lockgate.governance.policies.policy import ApproverRole
from lockgate.hub.authority import may
from lockgate.hub.messages import Standing
from lockgate.registry.messages import LiftQuarantine, QuarantineVersion, RejectVersion, model_scope

Said = TypeVar("Said", ApproveVersion, DeclineVersion)


@verb
@click.argument("version")
@click.option("--for", "environment", metavar="ENV", help="Judge against what runs there.")
def judge(session: Session, version: str, environment: str | None) -> None:
    """Make evidence on a version: by itself, or against what runs in an environment."""
    ref = parse_version(version)
    session.require((RecordEvidence, model_scope(str(ref))))
    if environment is None:
        session.require((ValidateVersion, model_scope(str(ref))))
    with told(session):
        found = session.workshop(str(ref.model)).judge(session.working, str(ref), environment)
    if environment is None:
        session.tell(
            ValidateVersion(id=session.new_id(), version=str(ref)), headline=f"{version} is not validated"
        )
    session.seal()
    session.answer(
        [msgspec.to_builtins(item) for item in found], "\n".join(explain_evidence(item) for item in found)
    )


_ROLE = click.option(
    "--role",
    type=click.Choice(get_args(ApproverRole)),
    help="In whose name; default: the first that is missing and that you may speak for.",
)
_SEEN = click.option(
    "--evidence", "seen", metavar="DIGEST", help="The evidence digest you read; default: the present one."
)


@verb
@click.argument("version")
@click.option("--for", "environment", required=True, metavar="ENV", help="The environment.")
@_SEEN
@_ROLE
@click.option("--comment", default="", help="A word for the record.")
@click.option("--revoke", metavar="REASON", help="Take your own approval back.")
def approve(
    session: Session,
    version: str,
    environment: str,
    seen: str | None,
    role: ApproverRole | None,
    comment: str,
    revoke: str | None,
) -> None:
    """Agree to a version in an environment, in the name of a role, on exactly its evidence.

    Example: lockgate approve flight-delay@1.0.0 --for prod --as grace
    """
    key = str(parse_version(version))
    session.say_identity()
    standing: StandingAnswer = session.ask(Standing(version=key, environment=environment))
    if revoke is not None:
        speaking = role or own_role(standing.approvals, session.actor) or "owner"
        session.tell(
            RevokeApproval(
                id=session.new_id(), version=key, environment=environment, role=speaking, reason=revoke
            ),
            headline=f"{session.actor} has nothing to take back",
        )
        session.answer(
            {"version": key, "environment": environment, "role": speaking, "revoked": True},
            f"approval of {version} for {environment} by {session.actor} ({speaking}) taken back",
        )
        return
    already = own_role(standing.approvals, session.actor) if session.actor in standing.standing else None
    if role is None and already is not None and seen in (None, standing.bound):
        _say_approved(
            session, key, environment, already, standing.bound, " already; --role names another role"
        )
        return
    chosen = in_whose_name(
        session,
        ApproveVersion(
            id=session.new_id(),
            version=key,
            environment=environment,
            evidence_set=seen or standing.bound,
            comment=comment,
        ),
        [role] if role else wanted_roles(standing.empty),
    )
    session.tell(chosen, headline=f"{session.actor} cannot approve {version} for {environment}")
    _say_approved(session, key, environment, chosen.role, chosen.evidence_set)


def in_whose_name(session: Session, command: Said, roles: Iterable[ApproverRole]) -> Said:
    """The command in the first of these roles that the session may speak for; in the first one when in none."""
    choices = [msgspec.structs.replace(command, role=role) for role in roles]
    # Where nothing is known of what the session may do, the hub says no to the first one.
    return next((one for one in choices if may(session.deciding.session, one) is None), choices[0])


def _say_approved(
    session: Session, key: str, environment: str, role: ApproverRole, seen: str, more: str = ""
) -> None:
    session.answer(
        {
            "version": key,
            "environment": environment,
            "approver": session.actor,
            "role": role,
            "evidence": seen,
        },
        f"{parse_version(key).shown} approved for {environment} by {session.actor} ({role}) on evidence {seen}{more}",
    )


@verb
@click.argument("version")
@click.option("--reason", required=True, help="Why; it is kept for ever.")
@click.option(
    "--for", "environment", metavar="ENV", help="Say no for this environment only; the version lives on."
)
@_SEEN
@_ROLE
def reject(
    session: Session,
    version: str,
    reason: str,
    environment: str | None,
    seen: str | None,
    role: ApproverRole | None,
) -> None:
    """End a version's way for good; a fix is a new version. With --for: keep it out of one environment.

    What was declined for an environment comes in when whoever declined it approves after all, or on new evidence.
    """
    key = str(parse_version(version))
    session.say_identity()
    if environment is None:
        session.tell(
            RejectVersion(id=session.new_id(), version=key, reason=reason),
            headline=f"{version} cannot be rejected",
        )
        session.answer({"version": key, "state": "rejected"}, f"{version} rejected")
        return
    standing: StandingAnswer = session.ask(Standing(version=key, environment=environment))
    # Whoever has agreed already takes that back; else a seat that is empty speaks first, then any other.
    seats = [*wanted_roles(standing.empty), *wanted_roles(standing.seats), *get_args(ApproverRole)]
    own = own_role(standing.approvals, session.actor)
    chosen = in_whose_name(
        session,
        DeclineVersion(
            id=session.new_id(),
            version=key,
            environment=environment,
            evidence_set=seen or standing.bound,
            reason=reason,
        ),
        [role] if role else [*([own] if own else []), *seats],
    )
    session.tell(
        chosen,
        headline=f"{session.actor} cannot decline {version} for {environment}",
    )
    session.answer(
        {"version": key, "environment": environment, "role": chosen.role},
        f"{version} declined for {environment} by {session.actor} ({chosen.role})",
    )


@verb
@click.argument("version")
@click.option("--reason", required=True, help="Why; it is kept for ever.")
@click.option("--lift", is_flag=True, help="Let it out again; somebody else than who shut it away.")
def quarantine(session: Session, version: str, reason: str, lift: bool) -> None:
    """Forbid new releases of a version at once, or lift that."""
    key = str(parse_version(version))
    session.say_identity()
    kind = LiftQuarantine if lift else QuarantineVersion
    receipt = session.tell(
        kind(id=session.new_id(), version=key, reason=reason), headline=f"{version} stays where it is"
    )
    # The word of the first of two changes nothing yet.
    waits = lift and not any(event["type"] == "registry.quarantine-lifted/1" for event in receipt.events)
    done = "is proposed to be let out" if waits else "let out of quarantine" if lift else "quarantined"
    session.answer({"version": key, "waiting": waits}, f"{version} {done}")
    if waits:
        session.note(
            f"waiting for a second person of security: lockgate quarantine {version} --lift --reason ..."
        )
        raise Exit(WAITING)


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
