"""The rules of tools/house_rules.py hold for the tree, and each catches a small tree that breaks it."""

from __future__ import annotations

import house_rules
import pytest
from house_rules import RULES, Source, findings, read

SOURCES = read(house_rules.ROOT / "src")


def tree(**files: str) -> list[Source]:
    """Sources by module name: dots are written as `__`, a package ends in `___init__`."""
    sources = []
    for name, text in files.items():
        is_package = name.endswith("___init__")
        module = name.removesuffix("___init__").replace("__", ".")
        sources.append(Source(f"lockgate/{module.replace('.', '/')}.py", module, is_package, text))
    return sources


def messages(rule, **files: str) -> list[str]:
    return [finding.message for finding in findings(tree(**files), [rule])]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule):
    found = findings(SOURCES, [rule])
    assert not found, "\n" + "\n".join(map(str, found))


def test_the_sources_were_found():
    assert {"core.errors", "core", ""} <= {source.module for source in SOURCES}


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"""Doc."""\nfrom lockgate.adapters.sql import journal\n',
        '"""Doc."""\nx = 1\n',
        "import os\n",
    ],
)
def test_a_package_that_runs_code_or_says_nothing_is_found(text):
    """The trap of import-linter: it counts a parent package's `__init__` as imported by nobody."""
    assert messages(house_rules.closed_doors, adapters___init__=text)
    assert not messages(house_rules.closed_doors, adapters___init__='"""What this is."""\n')


@pytest.mark.parametrize("name", sorted(house_rules.FORBIDDEN_MODULE_NAMES))
def test_a_name_that_says_nothing_is_found(name):
    assert messages(house_rules.names, **{f"gates__{name}": ""})


def test_a_long_file_and_a_long_tail_are_found():
    assert messages(house_rules.file_size, gates__auc="x = 1\n" * 801) == ["801 lines, at most 800"]
    long = {f"gates__m{number}": "x = 1\n" * 501 for number in range(10)}
    assert messages(house_rules.file_size, **long) == ["one file in ten has 501 lines or more, at most 500"]


def test_a_long_function_is_found_and_a_long_promise_is_not():
    body = "    x = 1\n" * 59
    assert not messages(house_rules.function_size, gates__auc="def f():\n" + body)
    assert messages(house_rules.function_size, gates__auc="def f():\n    x = 1\n" + body)
    promise = '    """' + "words\n" * 40 + '    """\n'
    assert not messages(house_rules.function_size, gates__auc="def f():\n" + promise + body)


@pytest.mark.parametrize("base", ["Protocol", "Protocol[T]", "typing.Protocol"])
def test_a_wide_port_is_found(base):
    methods = "".join(f"    def m{number}(self): ...\n" for number in range(9))
    assert messages(house_rules.port_size, gates__ports=f"class Port({base}):\n" + methods)
    narrow = methods.rpartition("    def")[0]
    assert not messages(house_rules.port_size, gates__ports=f"class Port({base}):\n" + narrow)


def test_a_crowded_room_is_found():
    crowd = {f"gates__m{number}": "" for number in range(13)}
    assert messages(house_rules.room_size, **crowd) == ["13 modules, at most 12"]
    assert not messages(house_rules.room_size, **dict(list(crowd.items())[:12]))


@pytest.mark.parametrize(
    "statement", ["from lockgate.core import names", "import lockgate.core.names as n", "from . import part"]
)
def test_an_import_of_our_own_inside_a_function_is_found(statement):
    assert messages(house_rules.hidden_imports, gates__auc=f"def f():\n    if 1:\n        {statement}\n")
    assert not messages(house_rules.hidden_imports, gates__auc=f"{statement}\ndef f():\n    import json\n")


@pytest.mark.parametrize(
    "code",
    [
        "open('x')",
        "print(1)",
        "import pathlib",
        "from pathlib import Path",
        "from io import open",
        "eval('1')",
    ],
)
def test_a_room_that_touches_the_world_is_found(code):
    assert messages(house_rules.pure_rooms, gates__auc=code)
    assert not messages(house_rules.pure_rooms, adapters__blobs__directory=code)


def test_a_room_may_know_pure_paths_and_buffers():
    code = "from pathlib import PurePosixPath\nfrom io import BytesIO\nstore.open('x')\n"
    assert not messages(house_rules.pure_rooms, gates__auc=code)


@pytest.mark.parametrize(
    "code",
    [
        "import numpy",
        "from lockgate.gates.evidence import Evidence",
        "from lockgate.gates import evidence",
        "from . import evidence",
        "from .evidence import Evidence",
    ],
)
def test_a_door_that_drags_in_its_room_is_found(code):
    for door in ("messages", "state", "decide"):
        assert messages(house_rules.plain_doors, gates__evidence="", **{f"gates__{door}": code})


def test_a_door_may_know_core_msgspec_and_other_doors():
    code = (
        "import msgspec\nfrom typing import Any\nfrom lockgate.core.digests import Digest\n"
        "from lockgate.registry.messages import X\nfrom .state import Y\n"
    )
    others = {"registry__messages": "", "gates__state": "", "core__digests": ""}
    assert not messages(house_rules.plain_doors, gates__decide=code, **others)


def test_a_heavy_top_is_found():
    rooms = {"gates__auc": "x = 1\n" * 4500}
    assert messages(house_rules.thin_top, hub__kernel="x = 1\n" * 1200, **rooms)
    assert not messages(house_rules.thin_top, hub__kernel="x = 1\n# why\n\n" * 1000, **rooms)


def test_error_codes_are_present_unique_and_well_formed():
    first = "class LockgateError(Exception):\n    code = 'error'\nclass Invalid(LockgateError):\n    code = 'invalid'\n"

    def found(text: str) -> list[str]:
        return messages(house_rules.error_codes, core__errors=first, gates__auc=text)

    assert found("class Odd(Invalid): pass\n") == ["Odd has no code of its own"]
    assert found("class Odd(Invalid):\n    code = 'Odd'\n") == ["'Odd' is not of the form room.short-name"]
    twice = "class A(Invalid):\n    code = 'gates.a'\nclass B(A):\n    code: ClassVar[str] = 'gates.a'\n"
    assert found(twice) == ["'gates.a' is the code of A too"]
    assert not found("class A(Invalid):\n    code = 'gates.a'\nclass NotOurs(ValueError): pass\n")


def test_an_exception_that_nothing_needs_is_found(monkeypatch):
    monkeypatch.setitem(house_rules.EXCEPTIONS, ("file-size", "lockgate/gates/auc.py"), "for now")
    assert messages(house_rules.file_size, gates__auc="x = 1\n") == ["nothing needs this"]
    assert messages(house_rules.file_size, gates__auc="x = 1\n" * 801) == []
