"""The guard of the unit tests refuses the world and lets imports and pure work through."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from world_guard import GUARD, ROOT, WorldTouched

GUARD.install()

REACHES = {
    "read_text of a path that came in": lambda path: path.read_text(),
    "open": lambda path: path.open("rb").close(),
    "write": lambda path: path.write_bytes(b"x"),
    "low-level open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "remove": lambda path: path.unlink(),
    "rename": lambda path: path.rename(path.with_suffix(".old")),
    "make a directory": lambda path: (path.parent / "new").mkdir(),
    "list a directory": lambda path: list(os.scandir(path.parent)),
    "temporary file": lambda path: tempfile.mkstemp(),
    "database": lambda path: sqlite3.connect(path),
    "database in memory": lambda path: sqlite3.connect(":memory:"),
    "process": lambda path: subprocess.run([sys.executable, "-c", "pass"]),
    "shell": lambda path: os.system("true"),
    "connection": lambda path: socket.create_connection(("127.0.0.1", 9), 0.1),
    "name look-up": lambda path: socket.getaddrinfo("localhost", 80),
    "read-only file of the project": lambda path: (ROOT / "pyproject.toml").read_text(),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("x")
    return path


@pytest.mark.parametrize("reach", REACHES)
def test_the_world_is_refused(reach, file):
    with pytest.raises(WorldTouched, match="rooms decide, edges act"), GUARD.watching():
        REACHES[reach](file)


def test_a_refusal_that_was_swallowed_comes_back_at_the_end(file):
    def swallow() -> None:
        with contextlib.suppress(AssertionError):
            file.read_text()

    with pytest.raises(WorldTouched), GUARD.watching():
        swallow()


def test_imports_and_devnull_are_let_through():
    sys.modules.pop("this_is_imported_nowhere", None)
    for name in ("colorsys", "lockgate.core.semver"):
        sys.modules.pop(name, None)
        with GUARD.watching():
            importlib.import_module(name)
            Path(os.devnull).write_text("x")


def test_an_allowed_directory_is_open_and_the_rest_stays_shut(tmp_path, file):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    GUARD.allow(inside)
    try:
        with GUARD.watching():
            (inside / "a").write_text("x")
            (inside / "a").rename(inside / "b")
            sqlite3.connect(inside / "db").close()
            sqlite3.connect(":memory:").close()
        for path in (outside, inside / ".." / "outside", tmp_path / "inside2"):
            with pytest.raises(WorldTouched), GUARD.watching():
                path.write_text("x")
        with pytest.raises(WorldTouched), GUARD.watching():
            (inside / "b").rename(outside)
    finally:
        GUARD.forget()
    with pytest.raises(WorldTouched), GUARD.watching():
        (inside / "b").read_text()


def test_the_guard_sleeps_outside_a_test_body(file):
    assert file.read_text() == "x"


def test_every_unit_test_runs_under_it(tmp_path):
    folder = ROOT / "tests" / "unit"
    (tmp_path / "conftest.py").write_text((folder / "conftest.py").read_text())
    (tmp_path / "test_probe.py").write_text(
        "from pathlib import Path\n"
        "def test_pure(): assert 1\n"
        "def test_reads(tmp_path): (tmp_path / 'x').exists(); Path(__file__).with_suffix('.txt').open('w')\n"
        "def test_files(allow_files): (allow_files / 'x').write_text('x')\n"
        "def test_files_elsewhere(allow_files): (allow_files.parent / 'y').write_text('x')\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--basetemp", str(tmp_path / "base"), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
    )
    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "WorldTouched" in done.stdout
