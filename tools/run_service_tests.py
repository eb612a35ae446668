"""Run the tests that need real servers (`-m service`) and say plainly when there are none.

pytest ends with 5 when it collected nothing, which hides a marker that was forgotten. So the source is asked
first: without such tests pytest is not run at all, with them it must find some.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTHING_COLLECTED = 5


def written() -> list[Path]:
    """Test files that hold service tests."""
    tests = ROOT / "tests"
    marked = {path for path in tests.rglob("test_*.py") if "mark.service" in path.read_text()}
    return sorted(marked | set((tests / "services").rglob("test_*.py")))


def main() -> int:
    files = written()
    print(f"test-services: {len(files)} file(s) with tests against real servers", flush=True)
    if not files:
        print("test-services: no part of Lockgate needs a foreign server yet; nothing to run, nothing failed")
        return 0
    for path in files:
        print(f"  {path.relative_to(ROOT)}", flush=True)
    code = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "service", *sys.argv[1:]], cwd=ROOT
    ).returncode
    if code == NOTHING_COLLECTED:
        print("test-services: service tests are written, but pytest found none of them: mark them `service`")
    return code


if __name__ == "__main__":
    sys.exit(main())
