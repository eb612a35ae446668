"""Run the measurements of `bench/`: all of them, or those named.

Each file is a program that measures both sides of one ratio in one run and prints its table. Byte code is
written first, so that no measurement of a start pays for the compiler.
"""

from __future__ import annotations

import compileall
import difflib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(names: list[str]) -> int:
    known = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if not path.stem.startswith("_"))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known) or known
            print(f"there is no bench/{name}.py; known: {', '.join(near) or 'none yet'}")
            return 2
    if not known:
        print("bench/ holds no measurement yet")
        return 0
    compileall.compile_dir(ROOT / "src", quiet=1)
    failed = []
    for name in names or known:
        print(f"\n== bench/{name}.py", flush=True)
        if subprocess.run([sys.executable, str(ROOT / "bench" / f"{name}.py")], cwd=ROOT).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
