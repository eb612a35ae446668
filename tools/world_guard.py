"""Refuses the world to unit tests: files, databases, processes and sockets, by an audit hook of the interpreter.

The import contract says what a room may import, ruff what it may name; `path.read_text()` on a path that came
in as an argument escapes both. CPython raises an audit event for it (PEP 578), wherever the call is written.

What the guard lets through: reading Python's own files and any source or byte code (imports happen inside test
bodies too), byte-code caches, Hypothesis' own directory, time-zone data, `os.devnull`. What it cannot see:
`Path.exists`, `os.environ`, `time.time` (no audit event), and files opened by C++ libraries such as Arrow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CODE_SUFFIXES = (".py", ".pyc", ".so", ".pth")
_READABLE = tuple(
    dict.fromkeys(os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, "/usr/share/zoneinfo"))
)

_PATHS_OF: dict[str, int] = {
    "os.chmod": 1,
    "os.chown": 1,
    "os.link": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.scandir": 1,
    "os.symlink": 2,
    "os.truncate": 1,
    "os.utime": 1,
}
"""Audit events about files -> how many of their first arguments are paths."""

_NEVER = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "pty.spawn",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.sendto",
        "subprocess.Popen",
    }
)


class WorldTouched(AssertionError):
    """A unit test, or what it tests, reached for the world."""


class WorldGuard:
    """One per process, for an audit hook cannot be taken away again; it sleeps except inside `watching`."""

    def __init__(self) -> None:
        self._active = False
        self._installed = False
        self._allowed: list[str] = []
        self._touched: list[str] = []

    def install(self) -> None:
        if not self._installed:
            self._installed = True
            sys.addaudithook(self._hook)

    def allow(self, directory: Path) -> None:
        """Open one directory, with all below it, until the test ends."""
        self._allowed.append(os.path.realpath(directory))

    def forget(self) -> None:
        """Close what `allow` opened."""
        self._allowed.clear()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Refuse the world while the block runs.

        Raises:
            WorldTouched: at the call itself; and once more at the end, should the code in between have
                swallowed the first one.
        """
        self._touched.clear()
        self._active = True
        try:
            yield
        finally:
            self._active = False
        if self._touched:
            raise WorldTouched("; ".join(self._touched))

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event in _NEVER or self._refuses(event, args):
            what = f"{event} {args[0] if args else ''!r:.200}: rooms decide, edges act"
            self._touched.append(what)
            raise WorldTouched(what)

    def _refuses(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "open":
            path, mode, flags = args
            writes = (
                any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & _WRITES)
            )
            return not self._may_open(path, writes=writes)
        if event == "sqlite3.connect":
            return not (self._allowed and args[0] == ":memory:") and not self._is_inside(args[0])
        if event in _PATHS_OF:
            return not all(self._may_open(path, writes=True) for path in args[: _PATHS_OF[event]])
        return False

    def _may_open(self, path: Any, *, writes: bool) -> bool:
        if isinstance(path, int) or path is None or self._is_inside(path):
            return True
        text = os.path.realpath(os.fsdecode(path))
        if text == os.devnull or "__pycache__" in text or text.startswith(str(ROOT / ".hypothesis")):
            return True
        return not writes and (text.endswith(_CODE_SUFFIXES) or is_below(text, _READABLE))

    def _is_inside(self, path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and is_below(
            os.path.realpath(os.fsdecode(path)), tuple(self._allowed)
        )


def is_below(path: str, directories: tuple[str, ...]) -> bool:
    return any(path == directory or path.startswith(directory + os.sep) for directory in directories)


GUARD = WorldGuard()
