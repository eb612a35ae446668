"""What a journaled transition costs over a bare insert and commit, and what `audit verify` costs over hashlib alone."""

from __future__ import annotations

import hashlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from _measure import Row, ratio_row
from _registry_client import Registry

from lockgate.app.stores import open_store
from lockgate.app.system import SystemClock
from lockgate.core.journal import EMPTY_HEAD, extend
from lockgate.core.messages import Event, Stamp
from lockgate.hub import audit
from lockgate.hub.kernel import Folded, entry_bytes, iter_entries
from lockgate.hub.ports import Commit, Journal, StoredEntry
from lockgate.registry.messages import QuarantineVersion
from lockgate.testing.hub_world import HubWorld, accepted

N_TURNS = 300
N_EVENTS = 1_000_000
N_CHUNK = 20_000
N_REPEATED = 14


def opened(url: str) -> HubWorld:
    store = open_store(url, base=Path("/"))
    return HubWorld(store.journal, store.outbox, clock=SystemClock())  # type: ignore[arg-type]


def transition_rows(url: str, database: str, insert: Callable[[bytes], None]) -> list[Row]:
    """Versions go into quarantine, one after the other; the bare row has the size of an event's."""
    world = opened(url)
    registry = Registry(world.hub, "turns")
    registry.declare(1)
    versions = [
        registry.do("ann", registry.registering("main/turns", number)).events[0]["version"]
        for number in range(N_TURNS)
    ]
    body, hub = world.journal.entries(world.journal.head().seq - 1, 1)[0].body, world.hub("sam")
    ours, bare = [], []
    for number, version in enumerate(versions):
        command = QuarantineVersion(id=f"turn-{number}", version=version, reason="suspected")
        started = time.perf_counter()
        accepted(hub.execute(command))
        between = time.perf_counter()
        insert(body)
        ours.append((between - started) * 1000)
        bare.append((time.perf_counter() - between) * 1000)
    title = f"journaled transition against a bare insert and commit, {database}, ms, p50"
    return [ratio_row(title, statistics.median(ours), statistics.median(bare), 3.0)]


def audit_rows(url: str, database: str) -> list[Row]:
    """`audit verify` of a million events: chain, tree and head; and with all documents folded anew."""
    journal = opened(url).journal
    started = time.perf_counter()
    last, n_read = bytes(32), 0
    for entry in iter_entries(journal, page=2000):
        last = hashlib.sha256(last + entry.body).digest()
        assert last == entry.hash
        n_read += 1
    floor_s = time.perf_counter() - started
    taken = []
    for documents in (False, True):
        started = time.perf_counter()
        answer = audit.verify(journal, (), (), documents=documents)
        taken.append(time.perf_counter() - started)
        assert answer.ok and answer.events == n_read == N_EVENTS, answer
    title = f"audit verify of 1,000,000 events against hashlib over the same rows, {database}, s"
    return [
        ratio_row(f"{title}, chain", taken[0], floor_s, 3.0),
        ratio_row(f"{title}, documents folded anew", taken[1], floor_s, 8.0),
    ]


def a_million_events(folder: Path) -> list[Commit]:
    """A journal of many versions, each registered, judged again and again, validated, approved, and live at its end."""
    life = one_life(folder)
    folded, head, commits = Folded(), EMPTY_HEAD, []
    pending: list[StoredEntry] = []
    for number, event in enumerate(itertools.islice(lives(life), N_EVENTS), 1):
        stamp = Stamp(head.seq + 1, 1_767_225_600_000_000 + number, "ann", f"c{number}")
        body = entry_bytes(event, stamp)
        head = extend(head, body)
        pending.append(StoredEntry(head.seq, body, head.hash))
        folded.apply(event, stamp)
        if len(pending) == N_CHUNK:
            commits.append(Commit(head, tuple(pending), (), (), (), f"chunk-{number}", b"{}"))
            pending = []
    commits[-1] = commits[-1]._replace(documents=folded.changed(), edges=tuple(dict.fromkeys(folded.edges)))
    return commits


def write_all(journal: Journal, commits: Sequence[Commit]) -> None:
    for commit in commits:
        with journal.transaction() as transaction:
            transaction.commit(commit)


def one_life(folder: Path) -> list[Event]:
    """The events of a world with one version, from its declaration to its endpoint."""
    world = opened(f"sqlite:{folder / 'life.db'}")
    registry = Registry(world.hub, "life")
    for act in (registry.found, registry.declare, registry.release):
        act(1)
    return [audit.read_as_stored(entry)[0] for entry in iter_entries(world.journal)]


def lives(first: Sequence[Event]) -> Iterator[Event]:
    """The first life, then others like it with numbers and digests of their own; each is judged many times."""
    at = next(number for number, event in enumerate(first) if type(event).__name__ == "VersionRegistered")
    yield from first[:at]
    texts = [(type(event), msgspec.json.encode(event).decode()) for event in first[at:]]
    package = first[at].package  # type: ignore[attr-defined]
    for number in itertools.count():
        own = f"sha256:{hashlib.sha256(b'%d' % number).hexdigest()}"
        for kind, text in texts:
            told = text.replace("@1.0.0", f"@1.0.{number}").replace(package, own)
            told = told.replace('"release":1,', f'"release":{number + 1},')
            event = msgspec.json.decode(
                told.replace('"generation":1', f'"generation":{number + 1}'), type=kind
            )
            yield from [event] * (N_REPEATED if kind.__name__ == "EvidenceRecorded" else 1)
