"""`lockgate ARGUMENTS`, so many days later, or killed by SIGKILL before the Nth call of one method. Not a test.

strange_cli.py DAYS MODULE:CLASS.METHOD N ARGUMENTS...     (`-` for no method)
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from lockgate.app.cli.main import main
from lockgate.app.system import SystemClock

_DAY_US = 86_400_000_000


def deadly(place: str, left: int) -> None:
    module, _, name = place.partition(":")
    owner, _, method = name.partition(".")
    kind = getattr(importlib.import_module(module), owner)
    real, count = getattr(kind, method), [left]

    def counted(*arguments: Any, **options: Any) -> Any:
        count[0] -= 1
        if count[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(kind, method, counted)


def later(days: int) -> None:
    now = SystemClock.now
    SystemClock.now = lambda self: now(self) + days * _DAY_US  # type: ignore[method-assign]


if __name__ == "__main__":
    later(int(sys.argv[1]))
    if sys.argv[2] != "-":
        deadly(sys.argv[2], int(sys.argv[3]))
    main(sys.argv[4:])
