"""`import lockgate` is light, and what it offers is small, sorted and there."""

from __future__ import annotations

import json
import subprocess
import sys

import lockgate

HEAVY = [
    "click",
    "cryptography",
    "duckdb",
    "httpx",
    "lightgbm",
    "litestar",
    "numpy",
    "onnxruntime",
    "pyarrow",
    "rich",
    "sklearn",
    "sqlglot",
    "sqlite3",
    "uvicorn",
]
SURFACE = getattr(lockgate, "__all__", [])


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_lockgate_loads_nothing_heavy():
    loaded = loaded_after("import lockgate")
    assert not loaded & set(HEAVY)
    ours = {name for name in loaded if name.startswith("lockgate.")}
    assert len(ours) <= 3, (
        f"the public surface is to be resolved on demand; import lockgate loaded {sorted(ours)}"
    )


def test_asking_what_lockgate_offers_loads_nothing_heavy():
    assert not loaded_after("import lockgate; dir(lockgate); getattr(lockgate, '__all__', ())") & set(HEAVY)


def test_the_surface_is_small_and_sorted():
    assert len(SURFACE) <= 40
    assert list(SURFACE) == sorted(SURFACE)
    assert not [name for name in SURFACE if name.startswith("_") and name != "__version__"]


def test_every_public_name_is_there_and_belongs_to_lockgate():
    for name in SURFACE:
        value = getattr(lockgate, name)
        module = getattr(value, "__module__", None)
        assert module is None or module.partition(".")[0] == "lockgate", name


def test_a_name_that_is_not_offered_is_an_attribute_error():
    try:
        lockgate.no_such_name  # noqa: B018
    except AttributeError as error:
        assert "no_such_name" in str(error)
    else:
        raise AssertionError("lockgate.no_such_name resolved to something")


def test_what_only_reads_loads_nothing_that_opens_packages_or_computes():
    """`lockgate status` is asked all day; it reads documents and needs click and SQLite for that."""
    loaded = loaded_after("import lockgate.app.reading, lockgate.app.cli.verbs.show")
    assert not loaded & (set(HEAVY) - {"click", "sqlite3"})


def test_what_starts_and_ends_processes_loads_nothing_of_what_they_do():
    """`up --detach` and `down` wait for a process; what a hub and a controller need is loaded there alone."""
    loaded = loaded_after("import lockgate.app.cli.verbs.running")
    assert not loaded & (set(HEAVY) - {"click"})
    assert not loaded & {"lockgate.app.control", "lockgate.app.up.supervise"}
