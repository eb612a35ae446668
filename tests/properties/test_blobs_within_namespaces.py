"""Whatever people bring and tell a hub: over the wire somebody reads a blob when, and only when, a document of a
namespace that he reads leads to it and came from somebody who had the bytes, or when he has just brought it himself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from blob_readers import House, over
from lockgate.app.http.server import ACTOR_HEADER
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.data.manifest import Snapshot, SnapshotFile
from lockgate.hub.audit import documents_of
from lockgate.hub.table import KINDS
from lockgate.pipeline.artifact import Artifact, RunRecord, RunStep
from lockgate.pipeline.messages import RecordRun
from lockgate.registry.reach import mentioned, reachable
from lockgate.testing.memory_journal import memory_store

GRANTS = {
    "ann": over("author", "a"),
    "ben": over("author", "b"),
    "cat": over("author", "a", "b"),
    "dan": (*over("author", "a"), *over("viewer", "b")),
    "all": over("author", "*"),
    "aud": over("auditor", "*"),
    "vic": over("viewer", "b"),
    "nil": (),
}
WRITES = {"ann": {"a"}, "ben": {"b"}, "cat": {"a", "b"}, "dan": {"a"}, "all": {"a", "b"}}
READS = {
    "ann": {"a"},
    "ben": {"b"},
    "cat": {"a", "b"},
    "dan": {"a", "b"},
    "all": {"a", "b"},
    "aud": {"a", "b"},
    "vic": {"b"},
    "nil": set[str](),
}
WHOLE = {"all", "aud"}


class Blob(NamedTuple):
    """Bytes, and what they list."""

    data: bytes
    lists: frozenset[Digest] = frozenset()

    @property
    def digest(self) -> Digest:
        return sha256(self.data)


LEAVES = tuple(Blob(f"leaf {number}".encode()) for number in range(4))


def snapshot_of(namespace: str, *files: Blob) -> Blob:
    held = tuple(
        SnapshotFile(path=f"{number}.parquet", digest=one.digest, n_bytes=1, n_rows=1)
        for number, one in enumerate(files)
    )
    made = Snapshot(dataset=f"{namespace}/flights", columns=(), n_rows=1, files=held)
    return Blob(canonical(made), frozenset(one.digest for one in files))


def run_of(*outputs: Blob) -> Blob:
    step = RunStep(
        name="s",
        kind="step",
        key=sha256(b"k"),
        parts={},
        params={},
        inputs={},
        seed=0,
        output=Artifact(digest=sha256(b""), format="bytes", n_bytes=1),
    )
    steps = tuple(
        msgspec.structs.replace(step, output=Artifact(digest=one.digest, format="bytes", n_bytes=1))
        for one in outputs
    )
    made = RunRecord(model="a/m", namespace="a", steps=steps, environment=sha256(b"lock"))
    return Blob(canonical(made), frozenset(one.digest for one in outputs))


SNAPSHOTS = tuple(snapshot_of(name, *some) for name in "ab" for some in (LEAVES[:1], LEAVES[1:3], LEAVES[:4]))
RUNS = (run_of(LEAVES[0]), run_of(LEAVES[2], LEAVES[3]), run_of(LEAVES[1], SNAPSHOTS[0], SNAPSHOTS[4]))
BLOBS = {one.digest: one for one in (*LEAVES, *SNAPSHOTS, *RUNS)}


class Bring(NamedTuple):
    actor: str
    blob: Digest


class Take(NamedTuple):
    """Record a snapshot, or what is called one."""

    actor: str
    namespace: str
    snapshot: Digest


class Ran(NamedTuple):
    actor: str
    namespace: str
    run: Digest
    package: Digest


ACTORS, WRITERS = st.sampled_from(sorted(GRANTS)), st.sampled_from(sorted(WRITES))
DIGESTS, PLACES = st.sampled_from(sorted(BLOBS)), st.sampled_from(["a", "b"])
STEPS = st.lists(
    st.one_of(
        st.builds(Bring, WRITERS, DIGESTS),
        st.builds(Take, WRITERS, PLACES, DIGESTS),
        st.builds(Ran, WRITERS, PLACES, DIGESTS, DIGESTS),
    ),
    max_size=14,
)


def honest(step: Take | Ran) -> list[Any]:
    """The same by somebody who has all of it, and brings it first."""
    behind = {held for one in _named(step) for held in BLOBS[one].lists}
    return [*(Bring(step.actor, one) for one in sorted(_named(step) | behind)), step]


def _named(step: Take | Ran) -> set[Digest]:
    return {step.snapshot} if isinstance(step, Take) else {step.run, step.package}


TELLING = st.one_of(
    st.builds(Take, WRITERS, PLACES, DIGESTS), st.builds(Ran, WRITERS, PLACES, DIGESTS, DIGESTS)
)


class Model:
    """What should be, said once more and in other words."""

    def __init__(self) -> None:
        self.here: set[Digest] = set()
        self.brought: set[tuple[str, Digest]] = set()
        self.homes: set[tuple[str, Digest]] = set()

    def may(self, actor: str, digest: Digest) -> bool:
        at_home = any((namespace, digest) in self.homes for namespace in READS[actor])
        return actor in WHOLE or at_home or (actor, digest) in self.brought

    def told(self, actor: str, namespace: str, *named: Digest) -> None:
        led = {one for one in named if self.may(actor, one)}
        behind = {held for one in led & self.here for held in BLOBS[one].lists}
        led |= {one for one in behind if self.may(actor, one)}
        self.homes |= {(namespace, one) for one in led}

    def reads(self, actor: str, digest: Digest) -> bool:
        return bool(GRANTS[actor]) and digest in self.here and self.may(actor, digest)


class Play:
    """Steps done to a hub, and to the model of it."""

    def __init__(self, folder: Path) -> None:
        self.house = House(memory_store(), folder)
        self.house.grants = dict(GRANTS)
        self.model = Model()

    async def do(self, steps: list[Any]) -> None:
        transport = httpx.ASGITransport(app=self.house.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for step in steps:
                await self._step(client, step)
            for actor in GRANTS:
                for digest in BLOBS:
                    answer = await client.get(f"/v1/blobs/{digest}", headers={ACTOR_HEADER: actor})
                    seen = await client.head(f"/v1/blobs/{digest}", headers={ACTOR_HEADER: actor})
                    expected = self.model.reads(actor, digest)
                    assert (answer.status_code == 200, seen.status_code == 200) == (expected, expected), (
                        actor,
                        BLOBS[digest],
                    )
                    assert not expected or answer.content == BLOBS[digest].data

    async def _step(self, client: httpx.AsyncClient, step: Any) -> None:
        model = self.model
        match step:
            case Bring(actor, digest):
                headers = {ACTOR_HEADER: actor}
                answer = await client.put(f"/v1/blobs/{digest}", content=BLOBS[digest].data, headers=headers)
                assert answer.status_code == 201
                model.here.add(digest)
                model.brought |= set() if actor in WHOLE else {(actor, digest)}
            case Take(actor, namespace, digest):
                command = self.house.recording(f"{namespace}/flights", digest)
                if await self._executed(actor, command):
                    assert namespace in WRITES[actor]
                    model.told(actor, namespace, digest)
            case Ran(actor, namespace, run, package):
                ran = RecordRun(
                    id=self.house.new_id(), model=f"{namespace}/m", run=run, package=package, snapshots={}
                )
                if await self._executed(actor, ran):
                    assert namespace in WRITES[actor]
                    model.told(actor, namespace, run, package)

    async def _executed(self, actor: str, command: Any) -> bool:
        hub = self.house.deciding.hub_for(self.house.session_of(actor))
        receipt = await asyncio.to_thread(hub.execute, command)
        return receipt.refusal is None


@settings(max_examples=25)
@given(st.lists(TELLING, max_size=3), STEPS)
def test_a_blob_is_read_where_somebody_who_had_it_told_of_it(first: list[Any], then: list[Any]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(Play(Path(folder)).do([step for one in first for step in honest(one)] + then))


@settings(max_examples=25)
@given(st.lists(TELLING, max_size=6))
def test_where_everybody_has_what_he_tells_of_it_is_what_the_documents_lead_to(tellings: list[Any]) -> None:
    """The same from the journal's side: the documents that stand, and what they reach by any digest in them."""
    # What a list of a list holds is at home only where that list was told of.
    flat = [
        one
        for one in tellings
        if not any(BLOBS[held].lists for at in _named(one) for held in BLOBS[at].lists)
    ]
    with TemporaryDirectory() as folder:
        play = Play(Path(folder))
        asyncio.run(play.do([step for one in flat for step in honest(one)]))
        house, kept = play.house, {one.digest: one.n_bytes for one in play.house.blobs.kept()}
        journal = house.deciding.journal
        for namespace in "ab":
            bodies = [
                stored.body
                for kind in KINDS
                for stored in documents_of(journal, kind.name)
                if f'"{namespace}/'.encode() in stored.body
            ]
            roots = {digest for body in bodies for digest in mentioned(body)}
            reached = reachable(roots, kept, house.blobs.get)
            assert {one for at, one in play.model.homes if at == namespace} == reached
            reader = house.session_of("vic")
            if namespace == "b":
                assert house.deciding.sight.among(reader, set(kept)) == reached
