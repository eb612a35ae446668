"""`lockgate ARGUMENTS`, killed by SIGKILL before the Nth call of one method. Not a test.

dying_cli.py MODULE:CLASS.METHOD N ARGUMENTS...
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from lockgate.app.cli.main import main


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


if __name__ == "__main__":
    deadly(sys.argv[1], int(sys.argv[2]))
    main(sys.argv[3:])
