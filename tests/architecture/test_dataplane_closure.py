"""The data plane loads what it needs to answer and nothing else: asked of a real process, not of the import graph."""

from __future__ import annotations

import json
import subprocess
import sys

FORBIDDEN_ROOMS = ("hub", "pipeline", "delivery", "governance", "monitoring", "gates", "data")
FEATURES = {"lockgate.features", "lockgate.features.online", "lockgate.features.ports"}
"""Of features: what a stored row means at a moment; nothing that defines or joins."""
FORBIDDEN_PARTS = (
    "adapters.sql",
    "adapters.hubs",
    "adapters.runners",
    "adapters.targets",
    "app.cli",
    "app.http",
)
# uvicorn itself imports click for its own command line; ours is covered by `app.cli`.
FORBIDDEN_LIBRARIES = (
    "sqlite3", "pyarrow", "duckdb", "litestar", "rich", "sqlglot", "httpx", "yaml",
    "lightgbm", "onnx", "sklearn", "scipy", "pandas",
)  # fmt: skip

_PROGRAM = "import sys, json, lockgate.app.dataplane; print(json.dumps(sorted(sys.modules)))"


def loaded() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=120, check=True
    )
    modules: list[str] = json.loads(done.stdout)
    return modules


def test_the_data_plane_loads_no_other_part_of_the_house() -> None:
    modules = loaded()
    forbidden = [f"lockgate.{part}" for part in (*FORBIDDEN_ROOMS, *FORBIDDEN_PARTS)] + [*FORBIDDEN_LIBRARIES]
    found = {name for name in modules for root in forbidden if name == root or name.startswith(root + ".")}
    assert not found
    assert {name for name in modules if name.startswith("lockgate.features")} == FEATURES


def test_the_data_plane_loads_little_of_its_own() -> None:
    ours = [name for name in loaded() if name.startswith("lockgate.")]
    assert "lockgate.serving.plane" in ours
    assert len(ours) <= 50
