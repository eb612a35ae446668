"""Ruff's rules in pyproject.toml catch what an import contract cannot: names, not modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROBES = {
    "from datetime import datetime\nnow = datetime.now()": "TID251",
    "from datetime import datetime as moment\nnow = moment.now()": "TID251",
    "import datetime\nnow = datetime.datetime.utcnow()": "TID251",
    "from uuid import uuid4\nfresh = uuid4()": "TID251",
    "import numpy as np\nnp.random.seed(1)": "TID251",
    "import numpy as np\nnp.random.rand(3)": "TID251",
    "import importlib\nimportlib.import_module('x')": "TID251",
    "def f() -> None:\n    import json": "PLC0415",
    "open('x')": "PTH123",
    "try:\n    x = 1\nexcept Exception:\n    x = 2": "BLE001",
}


def codes(code: str) -> set[str]:
    options = ["--no-cache", "--output-format", "json", "--config", str(ROOT / "pyproject.toml")]
    place = str(ROOT / "src/lockgate/gates/probe.py")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *options, "--stdin-filename", place, "-"],
        input=code + "\n",
        capture_output=True,
        text=True,
    )
    return {finding["code"] for finding in json.loads(done.stdout)}


def test_every_banned_name_is_caught():
    missed = {code: expected for code, expected in PROBES.items() if expected not in codes(code)}
    assert not missed


def test_an_honest_module_is_clean():
    assert not codes('"""Doc."""\n\nfrom __future__ import annotations\n\nX = 1')
