"""`requirements.lock` covers what is declared; the check behind it catches what it is for."""

from __future__ import annotations

import tomllib

import check_lock
import pytest
from check_lock import ROOT, Pin, problems, read_pins
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()


def test_the_lock_is_current():
    assert not problems(PROJECT, LOCK)


def test_the_bootstrap_lock_pins_one_tool_with_hashes():
    pins = read_pins((ROOT / "requirements-bootstrap.lock").read_text())
    assert [pin.name for pin in pins] == ["uv"]
    assert pins[0].n_hashes > 5


def with_dependency(text: str) -> dict:
    project = {**PROJECT["project"], "dependencies": [*PROJECT["project"]["dependencies"], text]}
    return {**PROJECT, "project": project}


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("left-pad>=1", "left-pad>=1 is not pinned"),
        ("msgspec>=99", "msgspec>=99 is not satisfied by the pin"),
        ("numpy<2", "numpy<2 is not satisfied by the pin"),
    ],
)
def test_a_requirement_without_its_pin_is_found(requirement, problem):
    assert any(problem in found for found in problems(with_dependency(requirement), LOCK))


def test_a_requirement_for_another_machine_needs_no_pin():
    assert not problems(with_dependency("left-pad>=1; sys_platform == 'plan9'"), LOCK)


def test_a_missing_and_a_stale_pin_are_found():
    lines = LOCK.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("cffi=="))
    end = next(number for number in range(start + 1, len(lines)) if lines[number][:1].isalnum())
    without_cffi = "\n".join(lines[:start] + lines[end:])
    assert any("cffi" in found and "is not pinned" in found for found in problems(PROJECT, without_cffi))
    stale = LOCK + "left-pad==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"
    assert problems(PROJECT, stale) == ["left-pad is pinned, but nothing asks for it"]


def test_a_pin_without_hash_and_an_index_address_are_found():
    assert "click==1.0 has no hash" in problems(PROJECT, "click==1.0\n" + LOCK)
    assert "the lock names the address of an index" in problems(PROJECT, "--index" + "-url x\n" + LOCK)


def test_pins_for_other_interpreters_are_read_but_do_not_count_here():
    text = "a==1.0 ; python_full_version < '3.0' \\\n    --hash=sha256:0\nb==2.0\n"
    assert read_pins(text) == [Pin("a", Version("1.0"), False, 1), Pin("b", Version("2.0"), True, 0)]


def test_every_group_is_locked():
    assert set(PROJECT["dependency-groups"]) == {*check_lock.LOCKED_GROUPS, "services"}


def test_the_servers_that_come_as_wheels_have_a_lock_of_their_own():
    pins = {pin.name: pin for pin in read_pins((ROOT / "requirements-services.lock").read_text())}
    for text in PROJECT["dependency-groups"]["services"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)].version)
    assert all(pin.n_hashes for pin in pins.values())
