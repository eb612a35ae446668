"""The demo's project, and the means to act in it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from lockgate.app.cli.demo.edits import Edit
from lockgate.app.cli.main import main
from lockgate.app.cli.session import Session
from lockgate.app.up.running import Running, running, stop
from lockgate.core.errors import Bug
from lockgate.core.messages import Query
from lockgate.workshop.layout import Layout
from lockgate.workshop.templates import create, refresh

AUTHOR, APPROVER, OPERATOR = "ada", "grace", "olga"
MODEL = "flight-delay"
ENDPOINT = f"prod/{MODEL}"


class DemoFailed(Bug):
    """Something else happened than what the demo is there to show."""

    code = "demo.unexpected"


class Stage:
    """The demo's project, and the means to act in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(root)
        self.reused = root.exists()

    def open(self) -> None:
        """A fresh project, or the old one with its step cache and blobs but a new journal and no online features."""
        if not self.reused:
            create(self.root, "flights")
            title("A project made from the template `flights`: lockgate init flights")
            return
        self.close()
        for path in self.layout.dot.glob("state.db*"):
            path.unlink()
        for folder in (self.layout.run, self.layout.online):
            shutil.rmtree(folder, ignore_errors=True)
        (self.layout.dot / "checkpoints").unlink(missing_ok=True)
        refresh(self.root, "flights")
        title(f"{self.root.name} is there from an earlier run: its step cache and blobs are used again")

    def close(self) -> None:
        """Nothing of it runs any more."""
        if running(self.layout) is not None:
            stop(self.layout)

    @property
    def up(self) -> Running:
        known = running(self.layout)
        if known is None:
            raise DemoFailed("the data plane is not up", remedy="see .lockgate/up.log")
        return known

    @cached_property
    def session(self) -> Session:
        """For the questions that the acts ask between verbs."""
        return Session(OPERATOR, json=True, project=str(self.root), hub_url=None)

    @property
    def control(self) -> Any:
        """The composition root of the project, for what the acts look at themselves."""
        return self.session.control

    def run(self, *arguments: str, expect: int = 0) -> None:
        """Type a verb: shown, run, its exit code checked."""
        click.echo(f"\n$ lockgate {' '.join(arguments)}")
        _check(arguments, _exit_code(arguments), expect)

    def ask(self, *arguments: str) -> Any:
        """The JSON answer of a verb, not shown."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = _exit_code((*arguments, "--json"))
        _check(arguments, code, 0)
        return json.loads(out.getvalue())

    def query(self, query: Query) -> Any:
        """The hub's answer to a question."""
        return self.session.ask(query)

    def live_on(self, endpoint: str) -> str:
        """The version that an endpoint has live, as `NAME@X.Y.Z`."""
        version: str = self.ask("status", endpoint)["endpoints"][endpoint]["live"]["version"]
        return version

    def edit(self, file: str, *changes: Edit) -> None:
        path = self.root / file
        text = path.read_text()
        for old, new in changes:
            if old not in text:
                raise DemoFailed(
                    f"{file} no longer holds what the demo edits", remedy="report this", file=file
                )
            text = text.replace(old, new)
        path.write_text(text)

    @contextlib.contextmanager
    def edited(self, file: str, *changes: Edit) -> Iterator[None]:
        """Edits that are taken back at the end of the block."""
        before = (self.root / file).read_text()
        try:
            self.edit(file, *changes)
            yield
        finally:
            (self.root / file).write_text(before)


def title(text: str) -> None:
    click.echo(f"\n== {text}")


def _exit_code(arguments: tuple[str, ...]) -> int:
    try:
        main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _check(arguments: tuple[str, ...], code: int, expect: int) -> None:
    if code != expect:
        raise DemoFailed(
            f"lockgate {' '.join(arguments)} ended with {code}, not {expect}",
            remedy="run it by hand in the demo's project and report what it prints",
        )
