"""Resolve `pyproject.toml` anew into `requirements.lock`, and the pinned uv into its own lock file.

    python3 tools/lock.py compile [--upgrade]

Pins that still fit are kept unless `--upgrade` is given. The result holds every Python from 3.11 on
(`--universal`), the hash of every file, and no address of any index. `tools/check_lock.py` is the other half:
it tells, without a network, whether the pins still cover what is declared.
"""

from __future__ import annotations

import sys

from set_up import ROOT, bootstrap, python, run

RESOLVE = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--quiet")


def main(arguments: list[str]) -> None:
    if arguments not in (["compile"], ["compile", "--upgrade"]):
        sys.exit("usage: python3 tools/lock.py compile [--upgrade]")
    upgrade = arguments[1:]
    uv = bootstrap(python())
    everything = ("--all-extras", "--group", "dev", "--group", "build")
    project = ROOT / "pyproject.toml"
    locks = {
        "requirements.lock": (project, *everything),
        "requirements-services.lock": ("--group", "services"),
        "requirements-bootstrap.lock": (ROOT / "tools" / "bootstrap.in",),
    }
    for name, sources in locks.items():
        run(uv, "pip", "compile", *sources, *RESOLVE, *upgrade, "--output-file", ROOT / name)


if __name__ == "__main__":
    main(sys.argv[1:])
