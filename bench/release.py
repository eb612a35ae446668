"""What a release costs while traffic goes on: the way back, what the data plane adds to a request, features by key.

    make bench release

Correctness comes first: every server is asked for the models' own answers, both feature stores for the same values,
and whoever differs ends the run. Then the sides are measured turn by turn, and medians are held against each other.
Feast, the other side of the online reads, lives in an environment of its own below `.bench/`, made when it is missing.
Writes `bench/results/release.json`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from _measure import ROOT, compile_sources, keep, show
from _online import online_rows
from _packages import market
from _rollback import rollback_rows
from _serving_cost import serving_rows


def main() -> int:
    compile_sources()
    with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as folder:
        root = Path(folder)
        wares = market(root / "market")
        rows = [
            *rollback_rows(root / "rollback", wares),
            *serving_rows(root / "serving", wares),
            *online_rows(root / "online"),
        ]
    show(rows)
    print(f"written to {keep('release', rows).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
