"""Whether `requirements.lock` still covers what the project declares; no network, no clock.

From every requirement in `pyproject.toml` (dependencies, extras, groups, build system) the check walks
through the metadata of the installed distributions, which set-up took from the lock itself, and asks of each
requirement it meets: is it pinned, does the pin satisfy it, is that very version installed? What is pinned
but never met is stale. So both a forgotten `make lock` and a hand-edited pin are found. What it cannot know
is whether a *better* resolution exists; `make lock UPGRADE=1` asks the index that.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))? *\\?$")
LOCKED_GROUPS = ("dev", "build")


class Pin(NamedTuple):
    name: str
    version: Version
    here: bool
    n_hashes: int


def read_pins(text: str) -> list[Pin]:
    """All pins of a lock file; `here` tells whether the marker holds for this interpreter and machine."""
    pins: list[Pin] = []
    for line in text.splitlines():
        match = _PIN.match(line)
        if match:
            marker = match["marker"]
            here = marker is None or Marker(marker).evaluate()
            pins.append(Pin(canonicalize_name(match["name"]), Version(match["version"]), here, 0))
        elif line.strip().startswith("--hash=sha256:") and pins:
            pins[-1] = pins[-1]._replace(n_hashes=pins[-1].n_hashes + 1)
    return pins


def declared(project: Mapping[str, Any]) -> Iterator[tuple[str, Requirement]]:
    """Each direct requirement with the place it is written at; the project's own extras are left out."""
    name = canonicalize_name(project["project"]["name"])
    places = {"dependencies": project["project"].get("dependencies", [])}
    for extra, texts in project["project"].get("optional-dependencies", {}).items():
        places[f"extra {extra}"] = texts
    groups = project.get("dependency-groups", {})
    for group in LOCKED_GROUPS:
        places[f"group {group}"] = [text for text in groups.get(group, []) if isinstance(text, str)]
    places["build-system"] = project.get("build-system", {}).get("requires", [])
    for place, texts in places.items():
        for text in texts:
            requirement = Requirement(text)
            holds = requirement.marker is None or requirement.marker.evaluate()
            if holds and canonicalize_name(requirement.name) != name:
                yield f"pyproject.toml, {place}", requirement


def installed_version(name: str) -> tuple[Version, list[Requirement]] | None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    return Version(found.version), [Requirement(text) for text in found.requires or ()]


def wanted_by(owner: Requirement, requirements: list[Requirement]) -> Iterator[Requirement]:
    """The requirements of a distribution that hold here, for the extras that were asked of it."""
    for requirement in requirements:
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *owner.extras)):
            yield requirement


def problems(project: Mapping[str, Any], lock: str) -> list[str]:
    """Everything that is wrong with the lock, one sentence each; empty when it is current."""
    pins = read_pins(lock)
    found = [f"{pin.name}=={pin.version} has no hash" for pin in pins if not pin.n_hashes]
    if re.search(r"://|--(extra-)?index[-]url|--find[-]links|--trusted[-]host", lock):
        found.append("the lock names the address of an index")
    here = {pin.name: pin for pin in pins if pin.here}
    queue = [(where, requirement) for where, requirement in declared(project)]
    seen: set[tuple[str, str]] = set()
    met: set[str] = set()
    while queue:
        where, requirement = queue.pop()
        if (
            requirement.marker is not None
            and where.startswith("pyproject")
            and not requirement.marker.evaluate()
        ):
            continue
        name = canonicalize_name(requirement.name)
        if (name, key := str(requirement)) in seen:
            continue
        seen.add((name, key))
        met.add(name)
        pin = here.get(name)
        if pin is None:
            found.append(f"{where}: {requirement} is not pinned")
            continue
        if not requirement.specifier.contains(pin.version, prereleases=True):
            found.append(f"{where}: {requirement} is not satisfied by the pin {pin.version}")
        known = installed_version(name)
        if known is None or known[0] != pin.version:
            found.append(f"{name}: {pin.version} is pinned, {known[0] if known else 'nothing'} is installed")
            continue
        queue += [(name, each) for each in wanted_by(requirement, known[1])]
    found += [f"{name} is pinned, but nothing asks for it" for name in sorted(here.keys() - met)]
    return found


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = problems(project, (ROOT / "requirements.lock").read_text())
    for problem in found:
        print(problem)
    print(
        "requirements.lock: run `make lock`, then `make setup`" if found else "requirements.lock is current"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
