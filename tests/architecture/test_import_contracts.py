"""The contracts of `.importlinter` hold, cover every room, and catch what they are for."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
from house_rules import ROOMS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / ".importlinter"
EDGES = ("adapters", "serving", "workshop", "app", "testing")


def lint_imports(where: Path, src: Path) -> tuple[bool, str]:
    """(all contracts kept, what import-linter says) for the package below `src`."""
    program = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--config", str(CONFIG), "--no-cache"],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(src), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode == 0, done.stdout + done.stderr


def contract(name: str, key: str) -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(CONFIG)
    return parser[f"importlinter:contract:{name}"][key].split()


def test_the_contracts_hold():
    kept, report = lint_imports(ROOT, ROOT / "src")
    assert kept, report


def test_every_room_is_held_to_purity():
    named = {entry.split(".")[1] for entry in contract("pure-rooms", "source_modules")}
    assert named == set(ROOMS)


def test_every_package_has_its_layer():
    words = {word.strip("()") for word in contract("layers", "layers") if word != "|"}
    assert words == {*ROOMS, *EDGES, "__main__"}
    on_disk = {path.parent.name for path in (ROOT / "src" / "lockgate").glob("*/__init__.py")}
    assert on_disk <= words


# --- the traps, on a small house of the same shape -------------------------------------------------------------

HOUSE = [
    *(f"{room}/__init__.py" for room in (*ROOMS, *EDGES)),
    *(f"{room}/thing.py" for room in ROOMS),
    "registry/part.py",
    "registry/messages.py",
    "registry/state.py",
    "registry/packages/__init__.py",
    "serving/plane.py",
    "app/dataplane.py",
    "app/control.py",
    "testing/memory.py",
    *(f"adapters/{name}/__init__.py" for name in ("sql", "blobs", "targets")),
    "adapters/sql/journal.py",
    "adapters/blobs/directory.py",
    "adapters/targets/local.py",
    "adapters/targets/kserve.py",
]

TRAPS = {
    "upward": ("core/thing.py", "from lockgate.registry import thing", "Rooms import downward"),
    "upward, inside a function": (
        "core/thing.py",
        "def f():\n    from lockgate.registry import thing",
        "Rooms import downward",
    ),
    "upward, for typing only": (
        "core/thing.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lockgate.registry import thing",
        "Rooms import downward",
    ),
    "a room without a place": ("utils/__init__.py", '"""Odds and ends."""', "Rooms import downward"),
    "training knows delivery": (
        "pipeline/thing.py",
        "import lockgate.delivery.thing",
        "Rooms import downward",
    ),
    "program in the suites": ("testing/memory.py", "import lockgate.app.control", "Rooms import downward"),
    "the clock": ("delivery/thing.py", "import time", "Rooms decide"),
    "the environment": ("gates/thing.py", "from os import environ", "Rooms decide"),
    "chance": ("hub/thing.py", "import random", "Rooms decide"),
    "a database": ("registry/thing.py", "import sqlite3", "Rooms decide"),
    "a web client": ("governance/thing.py", "import httpx", "Rooms decide"),
    "in a room by a detour": ("monitoring/thing.py", "from urllib.request import urlopen", "Rooms decide"),
    "adapter knows adapter": (
        "adapters/targets/local.py",
        "from lockgate.adapters.sql import journal",
        "Adapters know nothing",
    ),
    "target knows target": (
        "adapters/targets/local.py",
        "from lockgate.adapters.targets import kserve",
        "One target knows nothing",
    ),
    "data plane decides": ("serving/plane.py", "from lockgate.gates import thing", "The data plane reaches"),
    "data plane reaches the journal": (
        "app/dataplane.py",
        "from lockgate.adapters.sql import journal",
        "The data plane reaches",
    ),
    "data plane by a detour": ("features/thing.py", "import pyarrow", "The data plane reaches"),
    "a package knows its version": (
        "registry/packages/load.py",
        "from lockgate.registry import state",
        "A package is bytes",
    ),
    "a circle inside a room": ("registry/part.py", "import lockgate.registry.thing", "No circles"),
}


def build_house(src: Path) -> None:
    for name in ["__init__.py", *HOUSE]:
        path = src / "lockgate" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Part of a small house."""\n')
    (src / "lockgate/serving/plane.py").write_text("from lockgate.features import thing\n")
    (src / "lockgate/registry/thing.py").write_text("from lockgate.registry import part\n")


def test_the_small_house_stands(tmp_path):
    build_house(tmp_path / "src")
    kept, report = lint_imports(tmp_path, tmp_path / "src")
    assert kept, report


@pytest.mark.parametrize("trap", TRAPS)
def test_the_trap_is_caught(trap, tmp_path):
    place, code, broken = TRAPS[trap]
    build_house(tmp_path / "src")
    path = tmp_path / "src" / "lockgate" / place
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(code + "\n")
    kept, report = lint_imports(tmp_path, tmp_path / "src")
    assert not kept
    assert any(line.startswith(broken) and "BROKEN" in line for line in report.splitlines()), report
