"""A writer is killed with signal 9 again and again in the middle of its puts; the store never shows it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.core.digests import sha256

WRITER = """
import sys
from lockgate.adapters.blobs.directory import DirectoryBlobs
store, start = DirectoryBlobs(sys.argv[1]), int(sys.argv[2])
for number in range(start, start + 100_000):
    print(store.put(number.to_bytes(8, "big") * 40_000), flush=True)
"""


def _blob(number: int) -> bytes:
    return number.to_bytes(8, "big") * 40_000


def test_a_store_survives_kill_9_in_the_middle_of_puts(tmp_path: Path) -> None:
    root = tmp_path / "store"
    promised: set[str] = set()
    for round_ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), str(round_ * 1000)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(3 + round_):
            promised.add(writer.stdout.readline().strip())
        # No pause: by now it is somewhere inside the next put, at another point each time.
        writer.send_signal(signal.SIGKILL)
        promised.update(line.strip() for line in writer.stdout if line.endswith("\n"))
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL

        store = DirectoryBlobs(root)
        found = set(store.digests())
        assert promised <= found
        assert all(sha256(store.get(digest)) == digest for digest in found)
        assert list((root / ".incoming").iterdir()) == []

    store = DirectoryBlobs(root)
    assert sha256(_blob(0)) in promised
    again = store.put(_blob(999_999))
    assert store.get(again) == _blob(999_999)
