"""A writer is killed with signal 9 again and again in the middle of its writes; readers see whole rows only."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.core.digests import sha256
from lockgate.features.ports import OnlineRow

VIEW = sha256(b"killed")
N_KEYS = 500
WRITER = """
import sys
from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.features.ports import OnlineRow
store = LmdbOnline(sys.argv[1], map_bytes=1 << 17)
for at in range(int(sys.argv[3]), 1_000_000):
    rows = (((key,), OnlineRow(at, at, (float(at), "x" * (at % 50) * 8))) for key in range(500))
    assert store.write(sys.argv[2], rows) == 500
    print(at, flush=True)
"""


def is_whole(row: OnlineRow) -> bool:
    at = row.event_at
    return row == OnlineRow(at, at, (float(at), "x" * (at % 50) * 8))


def test_a_killed_writer_leaves_whole_rows_old_or_new(tmp_path: Path) -> None:
    folder, promised = tmp_path / "online", 0
    # This reader stays through all of it, so it also meets the growing map of each writer.
    with LmdbOnline(folder, readonly=True) as reader:
        for round_ in range(6):
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(folder), VIEW, str(promised + 2)],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert writer.stdout is not None
            for _ in range(5 + 3 * round_):
                promised = int(writer.stdout.readline())
                assert all(
                    row and is_whole(row) for row in reader.read(VIEW, [(key,) for key in range(N_KEYS)])
                )
            # No pause: by now it is somewhere inside the next write, at another point each time.
            writer.send_signal(signal.SIGKILL)
            promised = max([promised, *(int(line) for line in writer.stdout if line.endswith("\n"))])
            writer.stdout.close()
            assert writer.wait() == -signal.SIGKILL

            rows = reader.read(VIEW, [(key,) for key in range(N_KEYS)])
            assert all(row is not None and is_whole(row) for row in rows)
            found = {row.event_at for row in rows if row is not None}
            # A write of one batch is one commit: all rows of it are there, or none.
            assert len(found) == 1 and found <= {promised, promised + 1}
            # What was committed in the very last moment may become visible only when the next writer cleans up
            # behind the killed one; hence that one goes on two steps further.
            promised = max(found)

    with LmdbOnline(folder) as store:
        assert store.write(VIEW, [((0,), OnlineRow(promised + 2, promised + 2, (1.0, "")))]) == 1
