"""Making a project: a template copied, keys generated, trust written down."""

from __future__ import annotations

import shutil
from pathlib import Path

from lockgate.adapters.identity.keys import generate_checkpoint_key, generate_key
from lockgate.core.errors import Conflict, NotFound, did_you_mean
from lockgate.core.secrets import parse_secret_ref
from lockgate.workshop.config import FILE
from lockgate.workshop.layout import Layout

_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".lockgate", ".pytest_cache", "trust")


class UnknownTemplate(NotFound):
    code = "project.unknown-template"


class FolderNotEmpty(Conflict):
    code = "project.folder-not-empty"
    retryable = False


def templates_folder() -> Path:
    """Where templates lie: in the installed package, or beside the sources of a checkout."""
    packed = Path(__file__).parents[1] / "app" / "templates"
    return packed if packed.is_dir() else Path(__file__).parents[3] / "examples"


def create(folder: Path, template: str) -> Layout:
    """Copy a template and give it keys of its own.

    Raises:
        UnknownTemplate: with near matches.
        FolderNotEmpty: nothing is ever overwritten.
    """
    source = templates_folder() / template
    if not (source / FILE).is_file():
        known = [one.name for one in templates_folder().iterdir() if (one / FILE).is_file()]
        raise UnknownTemplate(
            f"there is no template {template!r}", remedy=did_you_mean(template, known), template=template
        )
    if folder.exists() and any(folder.iterdir()):
        raise FolderNotEmpty(
            f"{folder} is not empty", remedy="choose another name, or remove it", folder=str(folder)
        )
    shutil.copytree(source, folder, ignore=_IGNORED, dirs_exist_ok=True)
    (folder / ".gitignore").write_text("__pycache__/\n.lockgate/\n")
    layout = Layout(folder)
    make_keys(layout)
    return layout


def refresh(folder: Path, template: str) -> None:
    """Put the template's files back as they were; keys, trust and the store stay."""
    shutil.copytree(templates_folder() / template, folder, ignore=_IGNORED, dirs_exist_ok=True)


def make_keys(layout: Layout) -> None:
    """Generate the signing and checkpoint keys where the configuration wants them; public halves go to trust/."""
    config = layout.config()
    layout.dot.mkdir(mode=0o700, exist_ok=True)
    signing = layout.root / parse_secret_ref(config.signing.key, where="signing.key").name
    signing.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    public = generate_key(signing).public.pem()
    for path in sorted({path for table in config.environments.values() for path in table.trust}):
        (layout.root / path).parent.mkdir(parents=True, exist_ok=True)
        (layout.root / path).write_bytes(public)
    checkpoint = parse_secret_ref(config.audit.checkpoint_key, where="audit.checkpoint_key").name
    generate_checkpoint_key(layout.root / checkpoint)
