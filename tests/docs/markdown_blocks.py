"""Fenced blocks of a Markdown page, and how they are run.

A comment on the line before a block tells what to do with it:

    <!-- run -->            a console block is run: lines that start with `$ ` are commands, what follows is
                            expected output, where `...` stands for anything
    <!-- run exit=3 -->     the same; its last command is expected to end with 3, the others with 0
    <!-- file: a/b.py -->   the content is written to that file below the page's working directory
    <!-- skip: why -->      a Python block is not run

Python blocks run without being asked. All blocks of one page run in order, in one empty directory and one
Python namespace, so a page reads as a story.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>[\w+-]*)[^\n]*\n(?P<body>.*?)^(?P=fence)\s*$", re.M | re.S
)
_DIRECTIVE = re.compile(r"<!-- *(?P<word>run|file|skip)\b(?P<rest>[^\n]*?) *-->\n\Z")
SHOWN_ONLY = frozenset(
    {"", "text", "json", "yaml", "toml", "sql", "mermaid", "sh", "bash", "dockerfile", "diff"}
)


@dataclass(frozen=True)
class Block:
    where: str
    language: str
    body: str
    word: str
    rest: str

    @property
    def runs(self) -> bool:
        return self.word in {"run", "file"} or (self.language == "python" and self.word != "skip")


class BlockFailed(AssertionError):
    """A block of a page did not do what the page says; the message starts with page and line."""


def blocks(path: Path, root: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = path.read_text()
    found = []
    for match in _FENCE.finditer(text):
        directive = _DIRECTIVE.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        word, rest = (directive["word"], directive["rest"].strip(" :")) if directive else ("", "")
        found.append(Block(f"{path.relative_to(root)}:{line}", match["language"], match["body"], word, rest))
    return found


def run_block(block: Block, directory: Path, namespace: dict[str, Any]) -> None:
    """Run one block of a page whose earlier blocks ran in the same `directory` and `namespace`."""
    if not block.runs:
        return
    if block.word == "file":
        path = directory / block.rest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.body)
    elif block.language == "console":
        run_console(block, directory)
    elif block.language == "python":
        run_python(block, directory, namespace)
    else:
        raise BlockFailed(f"{block.where}: a {block.language or 'nameless'} block cannot be run")


def run_python(block: Block, directory: Path, namespace: dict[str, Any]) -> None:
    with contextlib.chdir(directory):
        if ">>>" not in block.body:
            exec(compile(block.body, block.where, "exec", dont_inherit=True), namespace)
            return
        test = doctest.DocTestParser().get_doctest(block.body, namespace, block.where, block.where, 0)
        report = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        if runner.run(test, out=report.write, clear_globs=False).failed:
            raise BlockFailed(f"{block.where}:\n{report.getvalue()}")
        namespace.update(test.globs)


def commands(body: str) -> list[tuple[str, str]]:
    """(command, expected output) pairs of a console block; a command goes on after a trailing backslash."""
    pairs: list[tuple[str, str]] = []
    for line in body.splitlines():
        if pairs and pairs[-1][0].endswith("\\"):
            pairs[-1] = (pairs[-1][0] + "\n" + line.removeprefix("> "), "")
        elif line.startswith("$ "):
            pairs.append((line.removeprefix("$ "), ""))
        elif pairs:
            pairs[-1] = (pairs[-1][0], pairs[-1][1] + line + "\n")
        elif line.strip():
            raise BlockFailed(f"a console block starts with a command, not with {line!r}")
    return pairs


def run_console(block: Block, directory: Path) -> None:
    home = directory / ".home"
    home.mkdir(exist_ok=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HOME": str(home), "NO_COLOR": "1", "COLUMNS": "100"}
    expected_exit = int(block.rest.removeprefix("exit=")) if block.rest else 0
    pairs = commands(block.body)
    for number, (command, expected) in enumerate(pairs):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        code = expected_exit if number == len(pairs) - 1 else 0
        if done.returncode != code:
            raise BlockFailed(f"{block.where}: `{command}` ended with {done.returncode}:\n{done.stdout}")
        if expected.strip() and not matches(done.stdout, expected):
            raise BlockFailed(
                f"{block.where}: `{command}` printed\n{done.stdout}\nand the page says\n{expected}"
            )


def matches(printed: str, expected: str) -> bool:
    """Whether the output is the expected one; `...` stands for anything, trailing space does not count."""
    parts = [re.escape(part) for part in tidy(expected).split("...")]
    return re.fullmatch(".*?".join(parts), tidy(printed), re.S) is not None


def tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
