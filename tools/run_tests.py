"""Every test that needs no foreign server, in two runs side by side. `python tools/run_tests.py`, or `make test`.

The end-to-end tests mostly wait for processes that they start one after another; all others mostly compute. Together
they keep two cores busy that one run would leave half idle. Both go on to their end, whatever fails in the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
E2E = "tests/e2e"
RUNS = {"e2e": (E2E,), "rest": (f"--ignore={E2E}",)}
"""What each run is given; what one is not given the other is, so that no test can be in neither."""


def main() -> int:
    """The exit code of the run that ended worse."""
    environ = {**os.environ, **({"PY_COLORS": "1"} if sys.stdout.isatty() else {})}
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-m", "not service", *given],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for given in RUNS.values()
    ]
    readers = [
        threading.Thread(target=_relay, args=(name, run.stdout)) for name, run in zip(RUNS, runs, strict=True)
    ]
    for reader in readers:
        reader.start()
    try:
        return max(abs(run.wait()) for run in runs)
    except KeyboardInterrupt:
        # Ctrl-C reached both of them too, and each says how far it came.
        return max(abs(run.wait()) for run in runs)
    finally:
        for reader in readers:
            reader.join()


def _relay(name: str, lines: Iterable[str]) -> None:
    """Print lines as they are full, each with the name of its run."""
    for line in lines:
        sys.stdout.write(f"{name:<4} | {line}")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
