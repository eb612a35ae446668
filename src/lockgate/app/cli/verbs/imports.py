"""Verbs that bring in what was made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lockgate.app.cli.session import Session, of_a_hub, verb
from lockgate.app.declare import declare
from lockgate.app.plugins import resolve
from lockgate.core.journal import verifier_key
from lockgate.core.names import ModelName, parse_model, parse_version
from lockgate.core.secrets import parse_secret_ref
from lockgate.hub.messages import VersionOfPackage
from lockgate.registry.messages import DeclareModel, RecordImport, RegisterVersion

_READERS = "lockgate.adapters.imports.mlflow_sources"


class _Sources(click.Group):
    """`import FILE` is short for `import archive FILE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        named = args and args[0] not in self.commands and not args[0].startswith("-")
        return super().resolve_command(ctx, ["archive", *args] if named else args)


@click.group(name="import", cls=_Sources)
def imports() -> None:
    """Bring in what was made elsewhere: the archive of a registry, an MLflow model."""


@verb
@of_a_hub
@click.argument("file", metavar="FILE")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="The verifier key that signed it, when it is not this project's; repeated when there were several.",
)
@click.option("--unsigned", is_flag=True, help="Also when no checkpoint signs its last entries.")
def archive(session: Session, file: str, keys: tuple[str, ...], unsigned: bool) -> None:
    """Make this empty store what the archive's was: same history, same digests, same roots.

    Everything is checked before anything is written. Interrupted, it goes on when it is started again.

    Example: lockgate import registry.tar --key lockgate-journal+...
    """
    session.work_here()
    control, archives = session.control, "lockgate.adapters.archives.read"
    read_key = resolve("lockgate.adapters.identity.checkpoints:read_key")
    given = [read_key(one) for one in keys]
    with resolve(f"{archives}:opened")(Path(file)) as opened:
        checked = resolve(f"{archives}:import_archive")(
            opened,
            control.store,
            control.blobs,
            control.sink,
            given or control.note_keys,
            # A store that is empty can prove nobody; whoever has the hub's own keys acts as the hub.
            actor="lockgate-hub" if session.config else session.actor,
            now=control.clock.now(),
            unsigned=unsigned,
        )
    control.republish()
    session.seal()
    lines = [f"{checked.events} entries, {checked.blobs} blobs: head {opened.head.hash.hex()[:16]}"]
    if given:
        named = ", ".join(f'"{verifier_key(one)}"' for one in given)
        lines.append(
            f"  to check its checkpoints later, in {session.config or 'lockgate.toml'}: "
            f"[audit] earlier_keys = [{named}]"
        )
    lines += [f"  was under way, its plan is lost: lockgate rollback {name}" for name in checked.stranded]
    session.answer(checked, "\n".join(lines))


@verb
@click.argument("source")
@click.option("--model", required=True, metavar="NAME", help="The model it becomes a version of.")
@click.option("--server", metavar="URL", help="The tracking server that SOURCE is a version of.")
@click.option("--credential", metavar="REF", help="env:NAME or file:PATH, holding USER:PASSWORD or a token.")
@click.option("--tier", type=click.Choice(["low", "moderate", "high", "critical"]), help="Of a new model.")
@click.option("--owner", help="Of a new model.")
@click.option("--purpose", help="Of a new model.")
def mlflow(
    session: Session,
    source: str,
    model: str,
    server: str | None,
    credential: str | None,
    tier: str | None,
    owner: str | None,
    purpose: str | None,
) -> None:
    """Package an MLflow model and register it as a candidate. MLflow is not needed for that.

    SOURCE is a folder with an MLmodel file, or with --server models:/NAME/VERSION or models:/NAME@ALIAS. What MLflow
    says of it is recorded; it is no evidence. For a model that nobody declared, say --tier, --owner and --purpose.

    Example: lockgate import mlflow models:/flight-delay/3 --server http://127.0.0.1:5000 --model flight-delay
    """
    session.work_here()
    control = session.control
    name = _name(session, model)
    table = control.config.models.get(name.name)
    if table is not None:
        declare(control, session.deciding)
    elif tier and owner and purpose:
        session.tell(
            DeclareModel(
                id=session.new_id(), model=str(name), tier=_tier(tier), owner=owner, purpose=purpose
            ),
            headline=f"{name.shown} cannot be declared",
        )
    reader = _reader(session, source, server, credential)
    made = resolve("lockgate.workshop.incoming.mlflow:package_mlflow")(control.premises, name, reader, table)
    known = VersionOfPackage(model=str(name), package=made.package)
    new = session.ask(known).version is None
    if new:
        headline = f"{source} is not taken in"
        facts: dict[str, Any] = {"model": str(name), "package": made.package}
        session.tell(
            RecordImport(id=session.new_id(), record=made.record, origin=made.origin, **facts),
            headline=headline,
        )
        session.tell(
            RegisterVersion(id=session.new_id(), run=made.record, signatures=(made.signature,), **facts),
            headline=headline,
        )
    shown = parse_version(session.ask(known).version).shown
    said = "imported as a candidate" if new else "holds this package already"
    lines = [f"{shown} {said}: {made.package}"]
    lines += [f"  note, which decides nothing here: {note}" for note in made.origin.notes]
    session.answer(
        {"version": shown, "digest": made.package, "new": new, "origin": made.origin}, "\n".join(lines)
    )


def _name(session: Session, model: str) -> ModelName:
    namespace = session.control.config.project.namespace
    return parse_model(model) if "/" in model else ModelName(namespace, parse_model(model).name)


def _tier(text: str) -> Any:
    return text


def _reader(session: Session, source: str, server: str | None, credential: str | None) -> Any:
    if server is None:
        return resolve(f"{_READERS}:FolderSource")(Path(source))
    secret = ""
    if credential is not None:
        reference = parse_secret_ref(credential, where="--credential")
        secret = resolve("lockgate.adapters.identity.secrets:resolve")(
            reference, base=session.control.layout.root
        )
    return resolve(f"{_READERS}:ServerSource")(server, source, secret)


imports.add_command(archive)
imports.add_command(mlflow)
