"""Verbs that prepare: init, doctor, policy."""

from __future__ import annotations

import importlib.util
import platform
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from lockgate.app.cli.main import REFUSED, WAITING, Exit
from lockgate.app.cli.session import Session, verb
from lockgate.app.cli.verbs.show import when
from lockgate.app.declare import declarations, default_cases, default_policy
from lockgate.core.errors import LockgateError, NotFound
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.core.secrets import parse_secret_ref
from lockgate.governance.messages import AdoptPolicy, ConsentToPolicy
from lockgate.governance.policies.file import parse_policy, rule_lines
from lockgate.governance.policies.policy import AnyPolicy, PolicyInvalid
from lockgate.hub.messages import PolicyAnswer, PolicyInForce, ReplayAnswer, ReplayPolicy
from lockgate.workshop.config import NoProject
from lockgate.workshop.policies.cases import decide_case, parse_cases
from lockgate.workshop.templates import create


@verb
@click.argument("name")
@click.option("--template", default="flights", show_default=True, help="Which example to start from.")
def init(session: Session, name: str, template: str) -> None:
    """Make a project from a template, with keys of its own.

    Example: lockgate init delays --template flights
    """
    layout = create(Path(name).resolve(), template)
    session.answer(
        {"folder": str(layout.root), "template": template},
        f"{layout.root}\n  keys in .lockgate/keys (mode 0600), their public half in trust/\n"
        f"next: cd {shlex.quote(name)} && lockgate plan",
    )


class Finding(NamedTuple):
    ok: bool
    what: str
    remedy: str = ""


@verb
def doctor(session: Session) -> None:
    """Whether this machine and project are fit."""
    findings = list(_findings(session))
    rows = [
        f"{'ok ' if one.ok else 'BAD'} {one.what}" + (f"\n    next: {one.remedy}" if not one.ok else "")
        for one in findings
    ]
    session.answer([one._asdict() for one in findings], "\n".join(rows))
    if not all(one.ok for one in findings):
        raise Exit(2)


def _findings(session: Session) -> Iterator[Finding]:
    yield Finding(True, f"Python {platform.python_version()} on {platform.machine()}")
    for module, extra in (("lightgbm", "lightgbm"), ("onnxmltools", "onnx")):
        found = importlib.util.find_spec(module) is not None
        yield Finding(found, f"{module} installed", f"pip install 'lockgate[{extra}]'")
    try:
        config = session.layout.config()
    except LockgateError as error:
        yield Finding(False, error.message, error.remedy)
        return
    yield Finding(True, f"{session.layout.root}/lockgate.toml reads")
    for where, reference in (("signing.key", config.signing.key), ("audit", config.audit.checkpoint_key)):
        if not reference.startswith("file:"):
            continue
        path = session.layout.root / parse_secret_ref(reference, where=where).name
        if where == "audit" and not path.exists() and not session.layout.database.exists():
            yield Finding(True, f"audit {path.name} is made with the store")
            continue
        missing = (
            "lockgate key rotate makes one" if where == "signing.key" else "no other key will do: bring it"
        )
        private = path.is_file() and not stat.S_IMODE(path.stat().st_mode) & 0o077
        remedy = f"chmod 600 {path}" if path.is_file() else missing
        yield Finding(private, f"{where} {path.name} is there and private", remedy)
    for name, table in config.environments.items():
        for trust in table.trust:
            there = (session.layout.root / trust).is_file()
            yield Finding(there, f"{name} trusts {trust}", f"put a public key there, or correct {name}.trust")
    for name, model in config.models.items():
        there = (session.layout.root / model.environment).is_file()
        yield Finding(there, f"{name} has its environment lock", "uv pip compile --generate-hashes ...")


@verb
def declare(session: Session) -> None:
    """Make the hub know what lockgate.toml says: environments, models, endpoints, and a policy if there is none.

    A project's own store learns it by itself. On the hub of a team this is for an admin, after each change of the file.

    Example: lockgate declare --hub https://lockgate.example.org
    """
    session.say_identity()
    told, waiting = declarations(session.control, session.deciding), list[str]()
    for command in told:
        receipt = session.tell(command, headline="the hub does not take what lockgate.toml declares")
        waiting += [
            f"{one['subject']}: {'; '.join(one['lowers'])}" for one in receipt.events if "lowers" in one
        ]
    session.answer(
        {"declared": len(told), "waiting": waiting},
        f"{len(told)} declarations of lockgate.toml are known to the hub",
    )
    for line in waiting:
        session.note(f"asks for less, and waits until another admin declares the same: {line}")


@click.group()
def policy() -> None:
    """The policy of the tiers: show it, test it, replay history against it, adopt it."""


@verb
def show(session: Session) -> None:
    """The policy that the project's namespace has adopted; before that, the default pack."""
    known = _in_force(session)
    adopted = known.policy.policy if known and known.policy else None
    pack = adopted or default_policy()
    source = "adopted" if adopted else "default"
    digest = known.policy.digest if known and known.policy else pack.digest
    rows = [f"{pack.name} version {pack.version}  {digest}"]
    rows.append("  adopted, in force" if adopted else "  the default pack; no other is adopted here")
    for tier in pack.tiers:
        rows += [
            f"  {tier if number == 0 else '':<9} {row}" for number, row in enumerate(rule_lines(pack, tier))
        ]
    proposal = known.proposal if known else None
    if proposal:
        rows.append(f"  proposed by {proposal.proposed_by}: {proposal.digest}")
        rows += [f"    laxer: {line}" for line in proposal.laxer]
        rows.append(f"    risk consents with: lockgate policy consent {proposal.digest}")
    record = {**msgspec.to_builtins(pack), "digest": digest, "source": source, "proposal": proposal}
    session.answer(record, "\n".join(rows))


def _in_force(session: Session) -> PolicyAnswer | None:
    """What is adopted and proposed; None outside a project, and where there is no store yet."""
    try:
        layout = session.layout
    except NoProject:
        return None
    if not session.hub_url and not layout.database.exists():
        return None
    answer: PolicyAnswer = session.ask(PolicyInForce(namespace=layout.config().project.namespace))
    return answer


class PolicyFileMissing(NotFound):
    code = "project.policy-file-missing"


def read_policy(file: str) -> AnyPolicy:
    return parse_policy(_read(Path(file)), where=file)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PolicyFileMissing(
            f"the policy {path} cannot be read: {error.strerror}",
            remedy="name a file, or leave it out for the default pack",
            path=str(path),
        ) from error
    except UnicodeDecodeError as error:
        raise PolicyInvalid(
            f"{path} is not UTF-8", remedy=f"save {path} as UTF-8", where=str(path)
        ) from error


@verb
@click.argument("file", required=False)
def adopt(session: Session, file: str | None) -> None:
    """Make FILE (or the default pack) the rule of the project's namespace."""
    pack = read_policy(file) if file else default_policy()
    session.say_identity()
    namespace = session.layout.config().project.namespace
    command = AdoptPolicy(id=session.new_id(), namespace=namespace, policy=pack)
    receipt = session.tell(command, headline="the policy in force stays")
    session.seal()
    laxer = [line for event in receipt.events for line in event.get("laxer", ())]
    name = f"{pack.name} version {pack.version}"
    if laxer:
        session.answer({"digest": pack.digest, "laxer": laxer}, None)
        session.note(f"waiting: {name} is laxer than the policy in force, so somebody of risk has to consent")
        session.note("\n".join(f"  - {line}" for line in laxer))
        session.note(f" next: lockgate policy consent {pack.digest}")
        raise Exit(WAITING)
    session.answer({"digest": pack.digest}, f"{name} is the rule now")


@verb
@click.argument("digest")
def consent(session: Session, digest: str) -> None:
    """Agree, for risk, to the laxer policy that somebody else has proposed."""
    session.say_identity()
    namespace = session.layout.config().project.namespace
    session.tell(
        ConsentToPolicy(id=session.new_id(), namespace=namespace, digest=digest),
        headline=f"{session.actor} cannot consent to the policy",
    )
    session.answer({"digest": digest}, f"{digest} is the rule now")


@verb
@click.argument("file", required=False)
@click.argument("cases", required=False)
def test(session: Session, file: str | None, cases: str | None) -> None:
    """Hold FILE (or the default pack) against CASES, on this machine alone. Exit 3 when one comes out otherwise.

    CASES is a file of facts with the decision that is expected of them; left out, NAME.cases.toml beside FILE.

    Example: lockgate policy test governance/policy.toml
    """
    pack = read_policy(file) if file else default_policy()
    beside = Path(file).with_suffix(".cases.toml") if file else None
    if cases is None and file is None:
        text, where = default_cases(), "policies/default.cases.toml"
    else:
        path = Path(cases) if cases else beside
        assert path is not None
        if cases is None and not path.exists():
            raise PolicyFileMissing(
                f"{file} reads, and there are no cases to hold it against: no file {path}",
                remedy=f"write cases there, or name their file: lockgate policy test {file} CASES",
                file=str(path),
            )
        text, where = _read(path), str(path)
    outcomes = [decide_case(pack, case) for case in parse_cases(text, where=where)]
    rows = [line for one in outcomes for line in one.lines]
    n_bad = sum(not one.holds for one in outcomes)
    rows.append(f"{len(outcomes)} cases, {n_bad} otherwise than expected")
    record = [
        {"name": one.case.name, "ok": one.holds, "decided": one.decided, "reasons": one.reasons}
        for one in outcomes
    ]
    session.answer(record, "\n".join(rows))
    if n_bad:
        raise Exit(REFUSED)


@verb
@click.argument("file", required=False)
def replay(session: Session, file: str | None) -> None:
    """What FILE (or the default pack) would have blocked: every release of the past, judged anew. Changes nothing."""
    pack = read_policy(file) if file else default_policy()
    namespace = session.layout.config().project.namespace
    answer: ReplayAnswer = session.ask(ReplayPolicy(namespace=namespace, policy=pack))
    rows = []
    for line in answer.blocked:
        rows.append(
            f"{when(line.started_at)}  {parse_endpoint(line.endpoint).shown} #{line.release} "
            f"{parse_version(line.version).shown}, by {line.started_by}"
        )
        rows += [f"    - {reason.rule}: {reason.message}" for reason in line.reasons]
    rows.append(f"{answer.n_releases} releases, {len(answer.blocked)} would have been blocked")
    session.answer(answer, "\n".join(rows))


policy.add_command(show)
policy.add_command(test)
policy.add_command(replay)
policy.add_command(consent)
policy.add_command(adopt)
