"""Verbs for what does not go by itself: release-plan, sign-off, waive, break-glass, review, ticket."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, get_args

import click

from lockgate.access.subjects import alias_of
from lockgate.app.cli.main import REFUSED, WAITING, Exit
from lockgate.app.cli.session import Session, verb
from lockgate.app.cli.verbs.release import endpoint_line
from lockgate.app.cli.verbs.show import when
from lockgate.core.errors import Invalid
from lockgate.core.names import EndpointName, parse_endpoint, parse_model, parse_version
from lockgate.delivery.messages import ReleaseInEmergency
from lockgate.governance.messages import (
    BreakGlass,
    CloseReview,
    EndWaiver,
    GrantWaiver,
    RequestWaiver,
    SecondBreakGlass,
    SignOff,
    WriteReleasePlan,
)
from lockgate.governance.policies.policy import ApproverRole
from lockgate.governance.release_plan import PlanFile, parse_plan, plan_text
from lockgate.hub.messages import (
    DraftAnswer,
    DraftReleasePlan,
    ExplainVersion,
    FindReleases,
    Queue,
    QueueAnswer,
    ReleasesAnswer,
    VersionAnswer,
)
from lockgate.registry.makers import maker_texts
from lockgate.registry.messages import CommitPerson, NameMakers

_DAY_S = 24 * 3600


class ArgumentInvalid(Invalid):
    code = "cli.argument-invalid"


def _number(text: str, letter: str) -> int:
    """3 of `W-3`."""
    match = re.fullmatch(rf"(?:{letter}-)?([1-9][0-9]*)", text, re.IGNORECASE)
    if match is None:
        raise ArgumentInvalid(
            f"{text!r} is no {letter}-number", remedy=f"write {letter}-3; lockgate review list names them"
        )
    return int(match[1])


@verb
@click.argument("version")
@click.option(
    "--add", "names", multiple=True, metavar="NAME", help="Somebody else: an address, github:LOGIN."
)
@click.option("--all", "everybody", is_flag=True, help="There is nobody else, since the first commit.")
def makers(session: Session, version: str, names: tuple[str, ...], everybody: bool) -> None:
    """Who had a hand in a version, none of whom approves it; add who else did.

    Commits and CI jobs are told by themselves; this is for a version that came without them: imported, pulled, made by
    an earlier release. Nobody is taken off again, and whoever adds somebody counts as a maker from then on.

    Example: lockgate makers flight-delay@1.1.0 --add ada@home.example
    """
    key = str(parse_version(version))
    if names or everybody:
        session.say_identity()
        people = tuple(CommitPerson(name=alias_of(name), did="named") for name in names)
        command = NameMakers(
            id=session.new_id(), version=key, people=people, told_since="" if everybody else None
        )
        session.tell(command, headline=f"the makers of {version} are who they were")
    found: VersionAnswer = session.ask(ExplainVersion(version=key))
    session.answer(
        {"version": key, "makers": found.makers, "told_since": found.version.told_since},
        "\n".join(maker_texts(found.makers)),
    )


@verb
@click.argument("version")
@click.option("--for", "environment", required=True, metavar="ENV", help="The environment.")
@click.option("--file", type=click.Path(dir_okay=False), help="Record the plan in this file (TOML).")
@click.option("--accept", is_flag=True, help="Record the draft as it is.")
def release_plan(session: Session, version: str, environment: str, file: str | None, accept: bool) -> None:
    """What could fail when a version is released, and which guard would show it.

    Without options, the plan that was written; before that, a draft: what has failed before on that endpoint, and what
    its guards watch for. Save it, edit it, record it with --file. Approvals are bound to it.

    Example: lockgate release-plan flight-delay@1.1.0 --for prod > plan.toml
    """
    key = str(parse_version(version))
    draft: DraftAnswer = session.ask(DraftReleasePlan(version=key, environment=environment))
    if file is None and not accept:
        shown = draft.risks if draft.written is None else draft.written.risks
        note = "" if draft.written is None else draft.written.note
        session.answer(draft, _plan_text(draft, PlanFile(risk=shown, note=note)))
        if draft.written is None:
            # Beside the answer, which is meant to be saved as a file.
            what = f"lockgate release-plan {parse_version(key).shown} --for {environment}"
            session.note(
                f"nothing is recorded yet\n next: {what} --accept, or save it, edit it and record it: --file"
            )
        return
    plan = PlanFile(risk=draft.risks) if file is None else _read_plan(file)
    session.say_identity()
    record_plan(session, key, environment, plan)
    session.answer(
        {"version": key, "environment": environment, "risks": plan.risk},
        f"release plan of {version} for {environment}: {len(plan.risk)} risks, rollback to {draft.back_to}",
    )


def record_plan(session: Session, key: str, environment: str, plan: PlanFile) -> None:
    command = WriteReleasePlan(
        id=session.new_id(), version=key, environment=environment, risks=plan.risk, note=plan.note
    )
    session.tell(command, headline=f"{parse_version(key).shown} has no release plan for {environment}")


def accept_draft(session: Session, key: str, environment: str) -> int:
    """Record the draft as the plan; how many risks it names."""
    draft: DraftAnswer = session.ask(DraftReleasePlan(version=key, environment=environment))
    record_plan(session, key, environment, PlanFile(risk=draft.risks))
    return len(draft.risks)


def _plan_text(draft: DraftAnswer, plan: PlanFile) -> str:
    state = "draft" if draft.written is None else "written"
    rows = [f"# release plan ({state}); rollback leads to {draft.back_to}"]
    if draft.written is not None and draft.written.drilled_at is not None:
        rows[0] += f", drilled {when(draft.written.drilled_at)}, p99 {draft.written.drilled_ms:.1f} ms"
    rows += [f"# signal {name}: {words}" for name, words in draft.guards.items()]
    if not draft.guards:
        rows.append("# no guard is configured: a plan needs a rollout with guards in lockgate.toml")
    return "\n".join([*rows, plan_text(plan)])


def _read_plan(file: str) -> PlanFile:
    try:
        return parse_plan(Path(file).read_text(encoding="utf-8"), where=file)
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentInvalid(f"{file} cannot be read: {error}", remedy=f"correct {file}") from error


@verb
@click.argument("version")
@click.option("--for", "environment", required=True, metavar="ENV", help="The environment.")
@click.option("--consumer", required=True, help="For which consumer of the endpoint.")
@click.option("--comment", default="", help="A word for the record.")
def sign_off(session: Session, version: str, environment: str, consumer: str, comment: str) -> None:
    """Agree, for a consumer of an endpoint, to a new major version of what it reads."""
    key = str(parse_version(version))
    session.say_identity()
    command = SignOff(
        id=session.new_id(), version=key, environment=environment, consumer=consumer, comment=comment
    )
    session.tell(command, headline=f"{version} is not signed off for {consumer}")
    session.answer(
        {"version": key, "environment": environment, "consumer": consumer},
        f"{version} signed off for {environment} by {session.actor} for {consumer}",
    )


@verb
@click.argument("subject", metavar="VERSION|MODEL")
@click.option(
    "--for", "environment", required=True, metavar="ENV", help="Where it holds, and on the way there."
)
@click.option("--gate", help="Ask: whose failure is to be passed over.")
@click.option("--reason", default="", help="Why.")
@click.option("--control", default="", help="Ask: what is done instead.")
@click.option("--ticket", default="", help="Ask: where it is followed up.")
@click.option("--days", type=float, default=14.0, show_default=True, help="Ask: for how long.")
@click.option("--grant", metavar="W-N", help="Grant what somebody else has asked for.")
@click.option("--end", metavar="W-N", help="Refuse, or end, a waiver.")
@click.option(
    "--role",
    type=click.Choice(get_args(ApproverRole)),
    default="risk",
    show_default=True,
    help="In whose name.",
)
def waive(session: Session, subject: str, environment: str, role: ApproverRole, **given: Any) -> None:
    """Ask that a gate's failure be passed over for a time; grant that, or end it.

    VERSION may be a range: flight-delay@1.4.* or flight-delay@1.*. To grant or end, name the model.

    Example: lockgate waive flight-delay@1.2.0 --for prod --gate perf.slices --reason "no flights from UA this month"
    --control "UA is answered by hand" --ticket OPS-9
    """
    model, _, versions = subject.partition("@")
    name = str(parse_model(model))
    session.say_identity()
    if given["grant"]:
        number = _number(given["grant"], "W")
        session.tell(
            GrantWaiver(
                id=session.new_id(),
                model=name,
                environment=environment,
                number=number,
                role=role,
                comment=given["reason"],
            ),
            headline=f"{session.actor} cannot grant W-{number}",
        )
        session.answer({"waiver": f"W-{number}", "granted": True}, f"W-{number} granted by {session.actor}")
        return
    if given["end"]:
        number = _number(given["end"], "W")
        command = EndWaiver(
            id=session.new_id(),
            model=name,
            environment=environment,
            number=number,
            role=role,
            reason=given["reason"],
        )
        session.tell(command, headline=f"W-{number} is not ended")
        session.answer({"waiver": f"W-{number}", "granted": False}, f"W-{number} refused or ended")
        return
    _ask_for_waiver(session, name, versions, environment, given)


def _ask_for_waiver(
    session: Session, model: str, versions: str, environment: str, given: dict[str, Any]
) -> None:
    if not versions or not given["gate"]:
        raise ArgumentInvalid(
            "a waiver is of a gate, for a version",
            remedy="write lockgate waive NAME@VERSION --for ENV --gate GATE --reason ... --control ... --ticket ...",
        )
    request = RequestWaiver(
        id=session.new_id(),
        model=model,
        versions=versions,
        environment=environment,
        gate=given["gate"],
        reason=given["reason"],
        control=given["control"],
        ticket=given["ticket"],
        until=int((time.time() + given["days"] * _DAY_S) * 1_000_000),
    )
    receipt = session.tell(request, headline=f"{given['gate']} is not to be waived")
    number = next((event["number"] for event in receipt.events), None)
    told = f"W-{number} is asked for" if number else "that was asked for already"
    session.answer(
        {"waiver": f"W-{number}" if number else None, "granted": False, "until": request.until}, told
    )
    shown = parse_model(model).shown
    claim = " --as NAME" if session.proof is None else ""
    session.note(
        f"waiting for somebody else to grant it\n"
        f" next: lockgate waive {shown} --for {environment} --grant W-{number or 'N'}{claim}"
    )
    raise Exit(WAITING)


@verb
@click.argument("endpoint")
@click.option("--to", "version", metavar="VERSION", help="Release it at once.")
@click.option("--incident", default="", help="Which incident.")
@click.option("--reason", default="", help="Why; it is kept for ever.")
@click.option("--hours", type=float, default=4.0, show_default=True, help="How long the right lasts.")
@click.option("--use", metavar="B-N", help="Use a right that is open, instead of a new one.")
@click.option("--second", metavar="B-N", help="Stand by somebody else's right as the second person.")
def break_glass(
    session: Session,
    endpoint: str,
    version: str | None,
    incident: str,
    reason: str,
    hours: float,
    use: str | None,
    second: str | None,
) -> None:
    """Release in an emergency, past the policy. A review of it is due in 72 hours.

    Alone: what was live there before. With a second person: a validated version that never was.

    Example: lockgate break-glass prod/flight-delay --to flight-delay@1.0.0 --incident INC-7 --reason "wrong answers"
    """
    name = parse_endpoint(endpoint)
    model, environment = str(name.model), name.environment
    session.say_identity()
    if second is not None:
        number = _number(second, "B")
        command = SecondBreakGlass(id=session.new_id(), model=model, environment=environment, number=number)
        session.tell(command, headline=f"{session.actor} cannot stand by B-{number}")
        session.answer({"right": f"B-{number}", "second": session.actor}, f"B-{number}: {session.actor} too")
        return
    if use is None:
        broken = BreakGlass(
            id=session.new_id(),
            model=model,
            environment=environment,
            incident=incident,
            reason=reason,
            hours=hours,
        )
        receipt = session.tell(broken, headline=f"the glass of {name.shown} stays whole")
        number = receipt.events[0]["number"]
        due = when(receipt.events[0]["review_due"])
        session.note(f"B-{number} is open for {hours:g} h; its review is due by {due}")
    else:
        number = _number(use, "B")
    if version is None:
        session.answer({"right": f"B-{number}"}, f"B-{number}")
        return
    _release(session, name, str(parse_version(version)), number)


def _release(session: Session, name: EndpointName, key: str, number: int) -> None:
    command = ReleaseInEmergency(
        id=session.new_id(), version=key, environment=name.environment, number=number
    )
    receipt = session.tell(command, headline=f"{parse_version(key).shown} may not go to {name.shown} even so")
    line = endpoint_line(session, name)
    live = line.live is not None and line.live.version == parse_version(key).shown
    shown = parse_version(key).shown
    session.answer(
        {"right": f"B-{number}", "version": shown, "live": live, "effects": receipt.effects},
        f"{shown} is live on {name.shown} by B-{number}"
        if live
        else f"{shown} is on its way to {name.shown}",
    )
    if not live:
        raise Exit(WAITING if receipt.effects == "pending" else REFUSED)


@click.group()
def review() -> None:
    """What waits for people; close the review of an emergency."""


@verb
def list_(session: Session) -> None:
    """What waits for people: approvals, waivers, reviews, revalidations, releases out of policy.

    Whatever goes its way by the rules is not among them.
    """
    answer: QueueAnswer = session.ask(Queue())
    claim = " --as NAME" if session.proof is None else ""
    rows = [line.replace(" --as NAME", claim) for one in answer.waiting for line in one.lines]
    session.answer(answer, "\n".join(rows) or "nothing waits for anybody")


@verb
@click.argument("endpoint")
@click.argument("right", metavar="B-N")
@click.option("--finding", required=True, help="What the review found; it is kept for ever.")
def close(session: Session, endpoint: str, right: str, finding: str) -> None:
    """Say what the review of an emergency found; by somebody who took no part in it."""
    name, number = parse_endpoint(endpoint), _number(right, "B")
    session.say_identity()
    command = CloseReview(
        id=session.new_id(),
        model=str(name.model),
        environment=name.environment,
        number=number,
        finding=finding,
    )
    session.tell(command, headline=f"the review of B-{number} stays open")
    session.answer({"right": f"B-{number}", "reviewed": True}, f"B-{number} reviewed by {session.actor}")


review.add_command(list_, "list")
review.add_command(close)


@verb
@click.argument("ticket")
def ticket(session: Session, ticket: str) -> None:
    """The releases that a ticket, or the address of a pull request, asked for."""
    answer: ReleasesAnswer = session.ask(FindReleases(ticket=ticket))
    rows = [
        f"{parse_endpoint(one.endpoint).shown} #{one.release}  {parse_version(one.version).shown}  {one.state} "
        f"since {when(one.live_at or one.started_at)}, by {one.started_by}"
        + (f", approved by {', '.join(one.approved_by)}" if one.approved_by else "")
        for one in answer.releases
    ]
    session.answer(answer, "\n".join(rows) or f"no release names {ticket}")
