"""Verbs of the pipeline: plan, check, train, snapshot, contract, features; and ship, which goes the whole way.

`ship` keeps no state. At each turn it asks the hub what comes next, does that, or stops and says what it waits for;
running it again goes on from wherever things stand, whoever brought them there.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from lockgate.app.cli.main import REFUSED, WAITING, Exit, Refused
from lockgate.app.cli.progress import Counts, watching
from lockgate.app.cli.session import Session, told, verb
from lockgate.app.cli.verbs.people.exceptions import accept_draft
from lockgate.app.cli.verbs.release import endpoint_line, promotion, start_plane
from lockgate.core.digests import short
from lockgate.core.errors import Conflict, did_you_mean
from lockgate.core.messages import Command, Reason, Refusal, Scope
from lockgate.core.names import EndpointName, ModelName, parse_version
from lockgate.data.messages import RecordContractCheck, RecordSnapshot
from lockgate.delivery.lines import EndpointLine
from lockgate.delivery.standing import StandingAnswer
from lockgate.features.definition import service_views
from lockgate.features.sql import check_sql
from lockgate.gates.evidence import explain
from lockgate.gates.messages import RecordEvidence
from lockgate.governance.messages import ValidateVersion
from lockgate.hub.authority import holds
from lockgate.hub.messages import ExplainVersion, Standing, VersionAnswer
from lockgate.pipeline.execute import EVERY_STAGE
from lockgate.pipeline.messages import RecordRun
from lockgate.pipeline.recipe import view_hashes
from lockgate.registry.messages import RegisterVersion, model_scope
from lockgate.workshop.config import ConfigInvalid

_FORCE = click.option(
    "--force", multiple=True, metavar="STEP", help="Run this step whatever the cache holds."
)
_MODEL = click.argument("model", required=False)


@verb
@_MODEL
@_FORCE
def plan(session: Session, model: str | None, force: tuple[str, ...]) -> None:
    """What would run, and why. Nothing is run, nothing of the project but its feature definitions imported.

    What is cached lies on this machine, whatever hub is named; with --hub it also says which version there has what the
    steps made.
    """
    workshop = session.workshop(model)
    planned = workshop.plan(force)
    rows = [f"{step.action:<7} {step.name:<28} {step.why}" for step in planned.steps]
    n_run = sum(step.action == "run" for step in planned.steps)
    rows.append(f"{n_run} to run, {len(planned.steps) - n_run} cached")
    steps = [
        {"name": one.name, "action": one.action, "why": one.why, "key": one.key} for one in planned.steps
    ]
    record: dict[str, Any] = {"steps": steps}
    if session.hub_url:
        version = workshop.registered(session.reading, planned)
        record["registered"] = version and parse_version(version).shown
        rows.append(f"registered at {session.hub_url}: {record['registered'] or 'not yet'}")
    session.answer(record, "\n".join(rows))


@verb
@_MODEL
def check(session: Session, model: str | None) -> None:
    """The fast stage: wiring, feature SQL, data contracts, the project's unit tests."""
    workshop = session.workshop(model)
    session.require(*_data(workshop.name))
    session.declare()
    for view in service_views(workshop.definitions.service(workshop.recipe.service), workshop.definitions):
        check_sql(view)
    counts = Counts()
    with watching(counts) as observer, told(session):
        workshop.run(session.working, observer, stages=("fast",), only_data=True)
    tests = run_unit_tests(session, workshop.root)
    session.seal()
    ok, told_of_tests = _TESTS_SAY[tests]
    session.answer(
        {"ok": ok, "ran": counts.ran, "cached": counts.cached, "unit_tests": tests},
        f"{'ok' if ok else 'NOT OK'}: contracts kept, wiring and SQL sound, {told_of_tests}",
    )
    if not ok:
        raise Exit(REFUSED)


def _data(model: ModelName) -> tuple[tuple[type[Command], Scope], ...]:
    """What is told of datasets once they were extracted."""
    scope = Scope(namespace=model.namespace)
    return (RecordSnapshot, scope), (RecordContractCheck, scope)


Tests = Literal["passed", "none", "failed", "no-pytest"]
_TESTS_SAY: dict[Tests, tuple[bool, str]] = {
    "passed": (True, "unit tests passed"),
    "none": (True, "no unit tests"),
    "failed": (False, "unit tests FAILED"),
    "no-pytest": (False, "unit tests NOT RUN: pytest is not installed (pip install pytest)"),
}
_NO_TESTS_COLLECTED = 5


def run_unit_tests(session: Session, root: Path) -> Tests:
    """The project's own tests, in a process of their own. Tests that cannot be run are not passed."""
    if not (root / "tests").is_dir():
        return "none"
    if importlib.util.find_spec("pytest") is None:
        return "no-pytest"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == _NO_TESTS_COLLECTED:
        return "none"
    if done.returncode != 0:
        session.note(done.stdout[-4000:] + done.stderr[-2000:])
    return "passed" if done.returncode == 0 else "failed"


@verb
@_MODEL
@_FORCE
@click.option(
    "--version", "number", metavar="X.Y.Z", help="The number to take; default: the smallest allowed."
)
def train(session: Session, model: str | None, force: tuple[str, ...], number: str | None) -> None:
    """The slow stage: from data to a registered version with its evidence."""
    record, counts = build_version(session, model, force, number)
    session.seal()
    rows = [explain(item) for item in record["evidence"]]
    rows.append(f"{record['version']}  package {record['package']}")
    rows.append(f"{len(counts.ran)} steps ran, {len(counts.cached)} cached; state {record['state']}")
    record["evidence"] = [msgspec.to_builtins(item) for item in record["evidence"]]
    session.answer({**record, "ran": counts.ran, "cached": counts.cached}, "\n".join(rows))
    if record["refusal"] is not None:
        if session.json:
            # The answer holds the refusal; standard output holds one document.
            raise Exit(REFUSED)
        raise Refused(
            msgspec.convert(record["refusal"], Refusal),
            headline=f"{record['version']} stays {record['state']}",
        )


def build_version(
    session: Session, model: str | None, force: tuple[str, ...] = (), number: str | None = None
) -> tuple[dict[str, Any], Counts]:
    """Run the pipeline, register, validate. The refusal of a gate is part of the answer."""
    workshop, hub = session.workshop(model), session.working
    scope = Scope(namespace=workshop.name.namespace, model=workshop.name.name)
    session.require(*_data(workshop.name), (RecordRun, scope), (RegisterVersion, scope))
    session.declare()
    # Where names are proven, whoever registers a version does not judge it.
    judges = hub.session.claimed and holds(hub.session, ("gates.record",))
    if workshop.plan(force).n_to_run:
        # What cannot be signed need not be trained.
        session.control.signer()
    counts = Counts()
    with watching(counts) as observer, told(session):
        run = workshop.run(hub, observer, stages=EVERY_STAGE, force=force)
        version = workshop.register(hub, run, number, evidence=judges)
        receipt = workshop.validate(hub, version) if judges else None
    known: VersionAnswer = hub.ask(ExplainVersion(version=version))
    record = {
        "version": parse_version(version).shown,
        "package": run.output("package").digest,
        "run": run.id,
        "evidence": workshop.evidence(run),
        "state": known.version.state,
        "refusal": msgspec.to_builtins(receipt.refusal) if receipt and receipt.refusal else None,
    }
    if not judges and known.version.state == "candidate":
        session.note(f"a validator judges it: lockgate judge {record['version']}")
    return record, counts


@verb
@_MODEL
@click.option("--refresh", is_flag=True, help="Extract again, even when nothing about the source changed.")
def snapshot(session: Session, model: str | None, refresh: bool) -> None:
    """Extract the datasets, freeze them as snapshots, hold them to their contracts."""
    workshop = session.workshop(model)
    session.require(*_data(workshop.name))
    session.declare()
    force = tuple(workshop.recipe.datasets) if refresh else ()
    with watching(Counts()) as observer, told(session):
        run = workshop.run(session.working, observer, force=force, only_data=True)
    session.seal()
    checked = workshop.checked(run)
    rows = [f"{one.dataset:<24} {one.snapshot}  {one.n_rows:,} rows" for one in checked]
    session.answer(
        [{"dataset": one.dataset, "snapshot": one.snapshot, "n_rows": one.n_rows} for one in checked],
        "\n".join(rows),
    )


@click.group()
def contract() -> None:
    """Hold the datasets to their contracts."""


@verb
@_MODEL
def check_contracts(session: Session, model: str | None) -> None:
    """Check every dataset; the first broken contract ends with its reasons and example rows."""
    workshop = session.workshop(model)
    session.require(*_data(workshop.name))
    session.declare()
    with watching(Counts()) as observer, told(session):
        run = workshop.run(session.working, observer, only_data=True)
    session.seal()
    reports = [one.report for one in workshop.checked(run)]
    rows = [f"kept  {one.dataset:<24} {len(one.checks)} checks, {one.n_rows:,} rows" for one in reports]
    session.answer([msgspec.to_builtins(one) for one in reports], "\n".join(rows))


contract.add_command(check_contracts, "check")


@verb
@_MODEL
def features(session: Session, model: str | None) -> None:
    """The feature definitions the model binds to, with the hash of each view."""
    workshop = session.workshop(model)
    hashes = view_hashes(workshop.recipe, workshop.sources, workshop.definitions)
    service = workshop.definitions.service(workshop.recipe.service)
    rows, record = [f"service {service.name}"], []
    for view in service_views(service, workshop.definitions):
        ttl = f", ttl {view.ttl_s} s" if view.ttl_s else ""
        rows.append(f"  {view.name:<24} {short(hashes[view.name])}  of {', '.join(view.reads)}{ttl}")
        rows += [f"      {feature.name} ({feature.dtype})" for feature in view.features]
        record.append({"view": view.name, "hash": hashes[view.name], "features": list(view.feature_names)})
    session.answer({"service": service.name, "views": record}, "\n".join(rows))


_MAX_TURNS = 8


class NoNearer(Conflict):
    """Turn after turn found another step to do, and the version is not there yet."""

    code = "cli.no-nearer"


@verb
@click.argument("model", required=False)
@click.option("--to", "environment", default="dev", show_default=True, help="How far.")
@click.option("--ticket", default="", help="The change ticket; default: that of the commit or pull request.")
@click.option(
    "--version", "number", metavar="X.Y.Z", help="The number to take; default: the smallest allowed."
)
def ship(session: Session, model: str | None, environment: str, ticket: str, number: str | None) -> None:
    """Plan, run, judge, package, register and promote, step by step up to an environment.

    Exit 8 says that it waits for somebody: an approval, a data plane. Run it again afterwards.

    Example: lockgate ship --to prod --ticket OPS-42
    """
    ladder = _ladder(session, environment)
    session.say_identity()
    record, counts = build_version(session, model, number=number)
    for item in record["evidence"]:
        session.note(f"  {explain(item)}")
    session.note(f"{record['version']}: {len(counts.ran)} steps ran, {len(counts.cached)} cached")
    done: list[str] = []
    outcome: dict[str, Any] = {"version": record["version"], "package": record["package"], "live_on": done}
    for step in ladder:
        _reach(session, record["version"], step, ticket, outcome)
        done.append(step)
    session.seal()
    session.answer(outcome, f"{record['version']} is live on " + ", ".join(done))


def _ladder(session: Session, environment: str) -> list[str]:
    tables = session.control.config.environments
    if environment not in tables:
        raise ConfigInvalid(
            f"there is no environment {environment!r}",
            remedy=did_you_mean(environment, tables),
            key=environment,
        )
    # Others of the same order are reached by ways of their own.
    below = [name for name, table in tables.items() if table.order < tables[environment].order]
    return [*sorted(below, key=lambda name: tables[name].order), environment]


def _reach(session: Session, version: str, environment: str, ticket: str, outcome: dict[str, Any]) -> None:
    """Bring a version to one environment, or end the verb saying what it waits for, or what a turn did not change."""
    key, hub = str(parse_version(version)), session.deciding
    before: tuple[Reason, ...] = ()
    for _ in range(_MAX_TURNS):
        standing: StandingAnswer = hub.ask(Standing(version=key, environment=environment))
        stuck = bool(standing.reasons) and standing.reasons == before
        before = standing.reasons
        match "stop" if stuck and standing.next != "wait" else standing.next:
            case "judge" | "judge-for" | "validate" if not holds(hub.session, ("gates.record",)):
                where = "" if standing.next != "judge-for" else f" --for {environment}"
                what = f"{version} is to be judged{' for ' + environment if where else ''}, and not by {session.actor}"
                _wait(
                    session,
                    outcome,
                    what,
                    f"a validator types lockgate judge {version}{where}; then run this again",
                )
            case "done":
                session.note(f"{environment}: {version} is live")
                return
            case "judge":
                _judge(session, key, None)
                _validate(session, key)
            case "judge-for":
                _judge(session, key, environment)
            case "validate":
                _validate(session, key)
            case "plan":
                n_risks = accept_draft(session, key, environment)
                session.note(f"{environment}: release plan drafted from the journal, {n_risks} risks")
            case "promote":
                session.note(f"{environment}: promoting {version}")
                if _promote(session, key, environment, ticket):
                    _require_motion(session, key, environment)
            case "wait":
                name = EndpointName(environment, parse_version(key).model)
                what, remedy = _underway(endpoint_line(session, name), name, here=not session.hub_url)
                _wait(session, outcome, what, remedy)
            case _:
                session.seal()
                refusal = Refusal(reasons=standing.reasons, waiting=standing.next == "approve")
                raise Refused(refusal, headline=f"{version} stops before {environment}")
    raise NoNearer(
        f"{version} does not get to {environment}: others release there at the same time",
        remedy=f"lockgate status, then lockgate evidence {version} --for {environment}",
        version=version,
    )


def _validate(session: Session, key: str) -> None:
    shown = parse_version(key).shown
    session.tell(ValidateVersion(id=session.new_id(), version=key), headline=f"{shown} is not validated")


def _promote(session: Session, key: str, environment: str, ticket: str) -> bool:
    """Start the release; false when somebody else's got under way since it was asked what comes next."""
    command = promotion(session, key, environment, ticket)
    try:
        session.tell(command, headline=f"{parse_version(key).shown} may not go to {environment}")
    except Refused as refused:
        if [reason.rule for reason in refused.refusal.reasons] != ["delivery.rollout-active"]:
            raise
        return False
    return True


def _judge(session: Session, key: str, environment: str | None) -> None:
    session.require((RecordEvidence, model_scope(key)))
    workshop = session.workshop(str(parse_version(key).model))
    with told(session):
        found = workshop.judge(session.working, key, environment)
    for item in found:
        session.note(f"  {explain(item)}" + (f"  ({environment})" if environment else ""))


def _require_motion(session: Session, key: str, environment: str) -> None:
    """After a promotion the version is live, or on its way; anything else is a failed release."""
    standing: StandingAnswer = session.deciding.ask(Standing(version=key, environment=environment))
    if standing.next not in ("done", "wait"):
        refusal = Refusal(reasons=standing.reasons) if standing.reasons else None
        session.note(f"the data plane of {environment} did not take {key}: lockgate audit log says why")
        if refusal is not None:
            raise Refused(refusal, headline=f"{key} did not go live on {environment}")
        raise Exit(3)


def _underway(line: EndpointLine, endpoint: EndpointName, *, here: bool) -> tuple[str, str]:
    """What a release on its way waits for, and what to type next."""
    if line.rollout is None or not line.rollout.n_steps:
        return (
            f"a release to {endpoint.environment} is under way and no data plane has taken it yet",
            f"{start_plane(here=here)}, then run this again",
        )
    version = parse_version(line.rollout.version).shown
    return (
        f"{version} rolls out to {endpoint.shown}, step {line.rollout.step} of {line.rollout.n_steps}",
        f"lockgate rollout show {endpoint.shown}; run this again when it is live",
    )


def _wait(session: Session, outcome: dict[str, Any], what: str, remedy: str) -> None:
    session.seal()
    session.answer({**outcome, "waiting": what}, None)
    session.note(f"waiting: {what}\n next: {remedy}")
    raise Exit(WAITING)
