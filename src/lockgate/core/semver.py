"""Semantic versions of models: `MAJOR.MINOR.PATCH`, compared as numbers (semver.org 2.0.0, core part only)."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from lockgate.core.errors import Invalid

Bump = Literal["major", "minor", "patch"]
_ORDER: dict[Bump, int] = {"patch": 0, "minor": 1, "major": 2}
_SEMVER = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\Z")


class BadVersion(Invalid):
    code = "core.bad-version"


class Semver(NamedTuple):
    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    def bumped(self, bump: Bump) -> Semver:
        """The smallest version above this one that `bump` allows."""
        if bump == "major":
            return Semver(self.major + 1, 0, 0)
        if bump == "minor":
            return Semver(self.major, self.minor + 1, 0)
        return Semver(self.major, self.minor, self.patch + 1)


FIRST = Semver(1, 0, 0)


def parse(text: str) -> Semver:
    match = _SEMVER.match(text)
    if match is None:
        raise BadVersion(
            f"{text!r} is not a version", remedy="write three numbers, for example 1.4.2", value=text
        )
    major, minor, patch = match.groups()
    return Semver(int(major), int(minor), int(patch))


def order(text: str) -> tuple[int, ...]:
    """Sorts what was parsed before, as `parse` would and in a third of the time: lists have thousands."""
    return tuple(map(int, text.split(".")))


def largest(*bumps: Bump) -> Bump:
    """The strongest of the bumps given; `patch` when there are none."""
    return max(bumps, key=_ORDER.__getitem__, default="patch")


def bump_between(old: Semver, new: Semver) -> Bump | None:
    """Which bump leads from `old` to `new`; None when `new` is not above `old`."""
    if new <= old:
        return None
    if new.major != old.major:
        return "major"
    if new.minor != old.minor:
        return "minor"
    return "patch"


def at_least(bump: Bump, minimum: Bump) -> bool:
    return _ORDER[bump] >= _ORDER[minimum]
