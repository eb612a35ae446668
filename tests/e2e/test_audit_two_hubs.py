"""Several hubs write and sign one journal while somebody checks it: every look finds it whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lockgate.adapters.identity.checkpoints import FileSink
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.core.journal import open_checkpoint
from lockgate.hub.audit import verify
from lockgate.testing.notes import TestKey

N_HUBS, N_COMMANDS = 3, 25

# A hub of its own over the same store: after each command it signs the head, as every hub does.
HUB = """
import sys
from pathlib import Path
from lockgate.adapters.identity.checkpoints import FileSink
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.core.journal import sign_checkpoint
from lockgate.registry.messages import DeclareModel
from lockgate.testing.hub_world import HubWorld, accepted
from lockgate.testing.notes import TestKey

folder, name, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store, sink = open_sqlite(folder / "state.db"), FileSink(folder / "checkpoints")
hub = HubWorld(store.journal, store.outbox).hub("petra")
sys.stdin.readline()
for turn in range(n):
    command = DeclareModel(id=f"{name}-{turn}", model="main/m", tier="low", owner=name, purpose=str(turn))
    accepted(hub.execute(command))
    head = store.journal.head()
    if head.seq > sink.last_size():
        sink.write(sign_checkpoint(head, TestKey()))
"""


def test_signing_and_checking_at_once(tmp_path: Path) -> None:
    journal, sink = open_sqlite(tmp_path / "state.db").journal, FileSink(tmp_path / "checkpoints")
    hubs = [
        subprocess.Popen(
            [sys.executable, "-c", HUB, str(tmp_path), f"h{number}", str(N_COMMANDS)], stdin=subprocess.PIPE
        )
        for number in range(N_HUBS)
    ]
    for hub in hubs:
        assert hub.stdin is not None
        hub.stdin.close()
    n_looks = 0
    while any(hub.poll() is None for hub in hubs):
        # The notes first: each of them signs what the journal holds by then.
        notes = sink.read()
        answer = verify(journal, notes, TestKey())
        assert (answer.ok, answer.findings) == (True, ())
        n_looks += 1
    assert [hub.wait(60) for hub in hubs] == [0] * N_HUBS
    assert n_looks > 3

    notes = sink.read()
    sizes = [open_checkpoint(note, TestKey()).size for note in notes]
    # Nobody signs an older head after a newer one, and the last one is signed.
    assert sizes == sorted(sizes)
    assert sizes[-1] == journal.head().seq == N_HUBS * N_COMMANDS
    assert verify(journal, notes, TestKey()).ok
