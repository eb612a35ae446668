"""The papers of a version: its dossier."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from lockgate.app.cli.session import Session, verb
from lockgate.core.names import parse_version
from lockgate.governance.dossier.document import markdown
from lockgate.governance.dossier.profile import Profile, parse_profile, read_by
from lockgate.hub.messages import CompileDossier, DossierFacts
from lockgate.hub.reports.dossier import compile_dossier

PROFILES = ("eu-ai-act", "sr-11-7", "nist-ai-rmf")


@verb
@click.argument("version")
@click.option(
    "--profile",
    metavar="NAME|FILE",
    help=f"Also say which section answers which rule: {', '.join(PROFILES)}, or a TOML file.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, also with --json.")
def dossier(session: Session, version: str, profile: str | None, as_markdown: bool) -> None:
    """One document of all that is known of a version, in Markdown or, with --json, as JSON.

    Sections that its owner has to write and has not are named at the top.

    Example: lockgate dossier flight-delay@1.0.0 --profile eu-ai-act > dossier.md
    """
    known: DossierFacts = session.ask(CompileDossier(version=str(parse_version(version))))
    document = compile_dossier(known, session.package(known.explained.version.package), session.blobs)
    if profile is not None:
        document = read_by(document, _profile(profile))
    text = markdown(document).rstrip("\n")
    if as_markdown:
        click.echo(text)
    else:
        session.answer(document, text)


def _profile(name: str) -> Profile:
    if name in PROFILES:
        text = resources.files("lockgate.app").joinpath(f"profiles/{name}.toml").read_text()
        return parse_profile(text, where=name)
    file = Path(name)
    if not file.is_file():
        raise click.UsageError(
            f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}, or name a file"
        )
    return parse_profile(file.read_text(), where=name)
