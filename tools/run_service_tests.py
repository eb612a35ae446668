"""Install what the tests against real servers need, then run them (`-m service`).

    python tools/run_service_tests.py [PYTEST ARGUMENTS]

1. Debian's packages of `DEBIAN`, where a program of theirs is missing; as root only.
2. `requirements-services.lock` into `.venv`, every file checked against its hash: servers that come as wheels.
3. `npm ci` in each folder of `NPM`, from its lock file.

Nothing is started here: each test starts its own server on a free port of the loopback interface, as a user that is
not root, and stops it by its process id. A server that cannot be had fails the run; nothing is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from set_up import BOOTSTRAP, VENV, environment

ROOT = Path(__file__).resolve().parent.parent
NPM = ("tests/services/oidc",)


class Debian(NamedTuple):
    """A package, and what tells that it is there."""

    package: str
    there: Callable[[], bool]


def program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


DEBIAN = (
    Debian("postgresql", lambda: any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))),
    Debian("docker-registry", program("docker-registry")),
    Debian("nodejs", program("node")),
    Debian("npm", program("npm")),
)


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("+", " ".join(str(part).replace(f"{ROOT}/", "") for part in command), flush=True)
    settings = environment() | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        subprocess.run([str(part) for part in command], check=True, cwd=cwd, env=settings)
    except (OSError, subprocess.CalledProcessError) as failure:
        sys.exit(f"test-services stopped: {failure}")


def install() -> None:
    missing = [each.package for each in DEBIAN if not each.there()]
    if missing and os.geteuid() != 0:
        sys.exit(f"test-services needs Debian's {', '.join(missing)}; install them, or run this as root")
    if missing:
        run("apt-get", "update", "--quiet")
        run("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing)
    absent = [each.package for each in DEBIAN if not each.there()]
    if absent:
        sys.exit(f"test-services: {', '.join(absent)} installed, but not to be found")
    uv, python = BOOTSTRAP / "bin" / "uv", VENV / "bin" / "python"
    run(
        uv,
        "pip",
        "install",
        "--python",
        python,
        "--require-hashes",
        "-r",
        ROOT / "requirements-services.lock",
    )
    for folder in NPM:
        if (ROOT / folder / "package-lock.json").exists():
            run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=ROOT / folder)


def main() -> int:
    install()
    command = [sys.executable, "-m", "pytest", "-m", "service", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "LOCKGATE_TEST_SERVICES": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main())
