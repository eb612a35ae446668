"""Make `.venv` from the lock files on a machine that has only Python (with venv), make and git.

    python3 tools/set_up.py [STAMP]

1. `.bootstrap/` gets the pinned uv, its wheel checked against `requirements-bootstrap.lock`.
2. `.venv/` gets exactly what `requirements.lock` pins, every file checked against its hash. The same pins
   and hashes bind what source distributions need for their own build (`--build-constraints`).
3. Lockgate itself is installed in editable form, by the pinned build tools of step 2, without its
   dependencies being resolved again.
4. Byte code is written for all of it, even where PYTHONDONTWRITEBYTECODE is set: start-up is measured.

STAMP is created last; the Makefile names it after the content of the lock files, so a finished set-up costs
nothing the next time. Package indexes are the machine's own affair: no file of this project names one.
Standard library only; runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP = ROOT / ".bootstrap"
VENV = ROOT / ".venv"
OLDEST = (3, 11)


def run(*command: str | Path) -> None:
    print("+", " ".join(str(part).replace(f"{ROOT}/", "") for part in command), flush=True)
    try:
        subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env=environment())
    except subprocess.CalledProcessError as failure:
        sys.exit(f"set-up stopped: the command above ended with {failure.returncode}")


def environment() -> dict[str, str]:
    """What the installers see: this machine's settings, plus two that uv does not take over from pip."""
    settings = dict(os.environ, UV_PYTHON_DOWNLOADS="never", UV_NO_PROGRESS="1")
    settings.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    if "PIP_INDEX_URL" in settings and not settings.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
        settings["UV_DEFAULT_INDEX"] = settings["PIP_INDEX_URL"]
    if "PIP_CERT" in settings:
        settings.setdefault("SSL_CERT_FILE", settings["PIP_CERT"])
    return settings


def python() -> str:
    """An interpreter that is new enough: this one, or the first on the path."""
    if sys.version_info >= OLDEST:
        return sys.executable
    for minor in (11, 12, 13, 14):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    sys.exit(f"Lockgate needs Python 3.11 or newer; this is {sys.version.split()[0]} and no other was found")


def bootstrap(interpreter: str) -> Path:
    """The pinned uv; installed anew when its pin changed."""
    pins = ROOT / "requirements-bootstrap.lock"
    uv, done = BOOTSTRAP / "bin" / "uv", BOOTSTRAP / "installed.lock"
    if uv.exists() and done.exists() and done.read_bytes() == pins.read_bytes():
        return uv
    shutil.rmtree(BOOTSTRAP, ignore_errors=True)
    run(interpreter, "-m", "venv", BOOTSTRAP)
    pip = (BOOTSTRAP / "bin" / "python", "-m", "pip", "--quiet", "install")
    run(*pip, "--require-hashes", "--only-binary", ":all:", "-r", pins)
    shutil.copyfile(pins, done)
    return uv


def create(uv: Path, interpreter: str) -> None:
    """An empty `.venv`, unless a working one that was made at this very place is there."""
    activate = VENV / "bin" / "activate"
    if (VENV / "bin" / "python").exists() and activate.exists() and str(VENV) in activate.read_text():
        return
    run(uv, "venv", "--clear", "--python", interpreter, VENV)


def main() -> None:
    started = time.monotonic()
    interpreter = python()
    uv = bootstrap(interpreter)
    create(uv, interpreter)
    pip = (uv, "pip")
    target = ("--python", VENV / "bin" / "python")
    lock = ROOT / "requirements.lock"
    checked = ("--require-hashes", "--build-constraints", lock)
    run(*pip, "sync", *target, *checked, "--compile-bytecode", lock)
    run(*pip, "install", *target, "--no-deps", "--no-build-isolation", "-e", ROOT)
    run(VENV / "bin" / "python", "-m", "compileall", "-q", ROOT / "src")
    for old in VENV.glob("ready-*"):
        old.unlink()
    if len(sys.argv) > 1:
        (ROOT / sys.argv[1]).touch()
    print(f"set-up done in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
