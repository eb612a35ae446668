"""Where a project keeps what: the `.lockgate` folder beside lockgate.toml, and who is at the keyboard."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from pathlib import Path

from lockgate.core.errors import NotFound
from lockgate.workshop.config import FILE, Config, NoProject, decode_config, find_project, parse_config


class StoreMissing(NotFound):
    """The project has no local store yet."""

    code = "project.no-store"


@dataclass(frozen=True)
class Layout:
    """Paths of one project's embedded store."""

    root: Path

    @property
    def dot(self) -> Path:
        return self.root / ".lockgate"

    @property
    def database(self) -> Path:
        return self.dot / "state.db"

    @property
    def steps(self) -> Path:
        return self.dot / "steps.db"

    @property
    def blobs(self) -> Path:
        return self.dot / "store"

    @property
    def online(self) -> Path:
        """The online store: the newest features by entity key."""
        return self.dot / "online"

    @property
    def run(self) -> Path:
        return self.dot / "run"

    @property
    def pushed(self) -> Path:
        """Which repositories were pushed to."""
        return self.dot / "pushed.json"

    @property
    def running(self) -> Path:
        """What `lockgate up` wrote about its processes."""
        return self.dot / "up.json"

    def config(self) -> Config:
        return parse_config(decode_config((self.root / FILE).read_bytes(), where=FILE), where=FILE)

    def require_store(self) -> None:
        if not self.database.exists():
            raise StoreMissing(
                f"{self.root} has no store yet",
                remedy="lockgate ship, or lockgate train",
                folder=str(self.root),
            )


def here(project: str | None) -> Layout:
    """The project that was named, or the one around the working directory.

    Raises:
        NoProject: there is none; a folder that was named must hold the file itself.
    """
    if project is None:
        return Layout(find_project(Path.cwd()))
    root = Path(project).resolve()
    if not (root / FILE).is_file():
        raise NoProject(
            f"there is no {FILE} in {root}", remedy="name the folder that holds it", folder=str(root)
        )
    return Layout(root)


def claimed_actor(name: str | None) -> str:
    """Who says to be acting: `--as`, else LOCKGATE_AS, else the name of the login."""
    return name or os.environ.get("LOCKGATE_AS") or getpass.getuser()
