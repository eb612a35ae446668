"""Verbs that prepare: init, doctor, policy."""

from __future__ import annotations

import importlib.util
import platform
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from lockgate.app.cli.main import Exit
from lockgate.app.cli.session import Session, verb
from lockgate.app.declare import adopt_policy, default_policy
from lockgate.core.errors import LockgateError, NotFound
from lockgate.core.secrets import parse_secret_ref
from lockgate.governance.policy import Policy
from lockgate.governance.policy_file import PolicyInvalid, parse_policy
from lockgate.hub.messages import PolicyAnswer, PolicyInForce
from lockgate.workshop.config import NoProject
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
        f"next: cd {name} && lockgate plan",
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
        path = session.layout.root / parse_secret_ref(reference, where=where).name
        there = path.is_file()
        private = there and not stat.S_IMODE(path.stat().st_mode) & 0o077
        yield Finding(private, f"{where} {path.name} is there and private", f"chmod 600 {path}")
    for name, table in config.environments.items():
        for trust in table.trust:
            there = (session.layout.root / trust).is_file()
            yield Finding(there, f"{name} trusts {trust}", f"put a public key there, or correct {name}.trust")
    for name, model in config.models.items():
        there = (session.layout.root / model.environment).is_file()
        yield Finding(there, f"{name} has its environment lock", "uv pip compile --generate-hashes ...")


@click.group()
def policy() -> None:
    """Show or adopt the policy of the tiers."""


@verb
def show(session: Session) -> None:
    """The policy that the project's namespace has adopted; before that, the default pack."""
    adopted = _adopted(session)
    pack = adopted or default_policy()
    source = "adopted" if adopted else "default"
    rows = [f"{pack.name} version {pack.version}  {pack.digest}"]
    rows.append("  adopted, in force" if adopted else "  the default pack; no other is adopted here")
    for tier, rule in pack.tiers.items():
        rows.append(f"  {tier:<9} gates {', '.join(rule.gates)}")
        rows += [f"{'':<12}{place} also {', '.join(gates)}" for place, gates in rule.relative.items()]
        people = ", ".join(f"{place} {number}" for place, number in rule.approvals.items())
        rows.append(
            f"{'':<12}approvals {people or 'none'}; evidence at most {rule.evidence_max_age_days} days old"
        )
    session.answer({**msgspec.to_builtins(pack), "digest": pack.digest, "source": source}, "\n".join(rows))


def _adopted(session: Session) -> Policy | None:
    """The policy in force; None outside a project, and where there is no store or no policy yet."""
    try:
        layout = session.layout
    except NoProject:
        return None
    if not session.hub_url and not layout.database.exists():
        return None
    answer: PolicyAnswer = session.ask(PolicyInForce(namespace=layout.config().project.namespace))
    return answer.policy.policy if answer.policy else None


class PolicyFileMissing(NotFound):
    code = "project.policy-file-missing"


def _read_policy(file: str) -> Policy:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise PolicyFileMissing(
            f"the policy {file} cannot be read: {error.strerror}",
            remedy="name a file, or leave it out for the default pack",
            path=file,
        ) from error
    except UnicodeDecodeError as error:
        raise PolicyInvalid(f"{file} is not UTF-8", remedy=f"save {file} as UTF-8", where=file) from error
    return parse_policy(text, where=file)


@verb
@click.argument("file", required=False)
def adopt(session: Session, file: str | None) -> None:
    """Make FILE (or the default pack) the rule of the project's namespace."""
    pack = _read_policy(file) if file else default_policy()
    session.say_identity()
    adopt_policy(session.control, session.deciding, pack)
    session.seal()
    session.answer({"digest": pack.digest}, f"{pack.name} version {pack.version} is the rule now")


policy.add_command(show)
policy.add_command(adopt)
