"""A hub over real bytes with people of two namespaces, each with a client of his own over HTTP: who reads whose blobs?

Subclass `BlobReadersContract` and override `make` with a fresh, empty store.
"""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from lockgate.access.roles import Grant
from lockgate.adapters.archives.layout import HOMES, HomeLine
from lockgate.adapters.archives.read import import_archive, opened
from lockgate.adapters.archives.write import write_archive
from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.http.blobs import Uploads
from lockgate.adapters.http.gate import UNMETERED
from lockgate.adapters.hubs.blobs import HubBlobs
from lockgate.adapters.hubs.bringing import BringingHub
from lockgate.adapters.hubs.http import HttpHub
from lockgate.adapters.identity.keys import SigningKey
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.app.deciding import Deciding
from lockgate.app.http.server import ACTOR_HEADER, Behind, HubServer, by_claimed_name, create_app
from lockgate.core.blobs import BlobMissing, BlobStore
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.core.errors import Forbidden, LockgateError, NotFound
from lockgate.core.messages import Command, Receipt
from lockgate.data.manifest import Column, Snapshot, SnapshotFile
from lockgate.data.messages import RecordContractCheck, RecordSnapshot
from lockgate.gates.evidence import Subject, line_of, record
from lockgate.gates.messages import RecordEvidence
from lockgate.hub.authority import Session
from lockgate.hub.homes import SeenBlobs
from lockgate.hub.kernel import require
from lockgate.hub.ports import Store
from lockgate.pipeline.artifact import Artifact, RunRecord, RunStep
from lockgate.pipeline.messages import RecordRun
from lockgate.registry.messages import AttachAttestation, DeclareModel, RegisterVersion
from lockgate.registry.packages.package import BuiltPackage, build_package, store_package
from lockgate.registry.packages.signing import package_facts, signature_envelope, store_signature
from lockgate.testing.memory_journal import MemoryCheckpoints
from lockgate.testing.packages import package_config, package_files, tiny_model

LARGE = bytes(range(256)) * (1 << 13)


def over(role: str, *namespaces: str, **more: Any) -> tuple[Grant, ...]:
    return tuple(Grant(role=role, namespace=namespace, **more) for namespace in namespaces)


PEOPLE: dict[str, tuple[Grant, ...]] = {
    "petra": over("admin", "*"),
    "ann": over("author", "a"),
    "ben": over("author", "b"),
    "val": over("validator", "a"),
    "reader of a": over("viewer", "a"),
    "reader of b": over("viewer", "b"),
    "reader of both": over("viewer", "a", "b"),
    "auditor": over("auditor", "*"),
    "auditor of a": over("auditor", "a"),
    "of low tiers": over("viewer", "a", tiers=("low",)),
    "plane": over("viewer", "a", environments=("prod",)),
    "nobody": (),
}
OF_A = {"ann", "val", "reader of a", "reader of both", "auditor", "auditor of a", "plane", "petra"}


class Person(NamedTuple):
    """What somebody works with: his own bytes, the hub, and what the hub lets him see of its bytes."""

    hub: HttpHub
    here: DirectoryBlobs
    there: HubBlobs
    http: httpx.Client

    def tells(self, command: Command) -> Receipt:
        return require(BringingHub(self.hub, self.here, self.there).execute(command))

    def reads(self, digest: Digest) -> bool:
        """Whether he gets a blob, by whatever way; all ways must say the same."""
        answers = set()
        path = f"/v1/blobs/{digest}"
        for more in ({}, {"Range": "bytes=0-0"}, {"If-None-Match": f'"{digest}"'}):
            answers.add(self.http.get(path, headers=more).status_code in (200, 206, 304))
        answers.add(self.http.head(path).status_code == 200)
        try:
            answers.add(sha256(self.there.get(digest)) == digest)
        except (NotFound, Forbidden):
            answers.add(False)
        (answer,) = answers
        return answer


class House:
    """The hub, and whoever comes to it. A name may have a credential behind a `!`: `ann!token:1`."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.folder = folder
        self.key = SigningKey.generate()
        self.blobs = DirectoryBlobs(folder / "hub")
        self.grants = dict(PEOPLE)
        self._n_ids = 0
        self.open(store)

    def open(self, store: Store) -> None:
        """As a process does that starts over this store."""
        self.deciding = Deciding(
            store,
            self.blobs,
            trusted=lambda environment: [self.key.public],
            run=None,
            sink=MemoryCheckpoints(),
            checkpoint_key=lambda: self.folder / "no key",
        )

    def session(self, headers: Mapping[str, str]) -> Session:
        actor, _, credential = by_claimed_name(headers).actor.partition("!")
        return self.session_of(actor, credential)

    def session_of(self, actor: str, credential: str = "") -> Session:
        return Session(actor=actor, grants=self.grants[actor], claimed=False, credential=credential)

    @property
    def app(self) -> Any:
        return create_app(
            lambda session: self.deciding.hub_for(session),
            self.session,
            limits=UNMETERED,
            behind=Behind(
                blobs=self.blobs, uploads=Uploads(self.folder / "uploads"), sight=self.deciding.sight
            ),
        )

    def new_id(self) -> str:
        self._n_ids += 1
        return f"c{self._n_ids}"

    def seen_by(self, actor: str) -> BlobStore:
        """The blobs as a session in this process sees them."""
        return SeenBlobs(self.blobs, self.deciding.sight, self.session_of(actor))

    # -- what there is to tell

    def declaring(self, model: str, tier: Any = "low") -> DeclareModel:
        return DeclareModel(id=self.new_id(), model=model, tier=tier, owner="o", purpose="p")

    def snapshot(self, here: BlobStore, namespace: str, rows: bytes) -> RecordSnapshot:
        file = SnapshotFile(path="part-00000.parquet", digest=here.put(rows), n_bytes=len(rows), n_rows=1)
        dataset = f"{namespace}/flights"
        manifest = Snapshot(dataset=dataset, columns=(Column("x", "int64"),), n_rows=1, files=(file,))
        return self.recording(dataset, here.put(canonical(manifest)))

    def recording(self, dataset: str, snapshot: Digest) -> RecordSnapshot:
        return RecordSnapshot(
            id=self.new_id(),
            dataset=dataset,
            snapshot=snapshot,
            n_rows=1,
            extracted_at=1,
            source="csv",
            transformation=sha256(b"none"),
            storage="parquet",
        )

    def package(self, here: BlobStore, model: str, snapshot: Digest) -> BuiltPackage:
        weights = tiny_model((0.1, 0.2, 0.3, int(sha256(model.encode())[7:11], 16) / 1000))
        config = package_config(model=model, snapshots={"flights": snapshot})
        built = build_package(config, package_files(weights))
        store_package(built, here)
        return built

    def run(
        self, here: BlobStore, model: str, package: Digest, snapshot: Digest, *outputs: Digest
    ) -> RecordRun:
        steps = tuple(
            RunStep(
                name=f"step{number}",
                kind="step",
                key=sha256(b"key"),
                parts={},
                params={},
                inputs={},
                seed=0,
                output=Artifact(digest=output, format="bytes", n_bytes=1),
            )
            for number, output in enumerate(outputs)
        )
        namespace = model.partition("/")[0]
        made = RunRecord(model=model, namespace=namespace, steps=steps, environment=sha256(b"lock"))
        return RecordRun(
            id=self.new_id(),
            model=model,
            run=here.put(canonical(made)),
            package=package,
            commit="c0ffee" * 6 + "c0ff",
            snapshots={} if snapshot is None else {"flights": snapshot},
        )

    def registering(self, here: BlobStore, built: BuiltPackage, run: Digest, model: str) -> RegisterVersion:
        facts = package_facts(built.manifest, here, run=run, commit="c0ffee" * 6 + "c0ff", dirty=False)
        envelope = signature_envelope(built.digest, self.key, model=model, predicate=facts)
        signature = store_signature(built.descriptor, envelope, here).envelope
        return RegisterVersion(
            id=self.new_id(), model=model, package=built.digest, run=run, signatures=(signature,)
        )

    def judging(self, here: BlobStore, version: str, package: Digest) -> RecordEvidence:
        subject = Subject(inputs={"package": package}, environment=None, severity="block")
        figures: dict[str, Any] = {"n": 9, "comparator": "at_least", "threshold": 0.7, "value": 0.8}
        made = record("perf.absolute", "auc", subject, **figures, verdict="pass")
        here.put(canonical(made))
        return RecordEvidence(id=self.new_id(), version=version, package=package, lines=(line_of(made),))


class Told(NamedTuple):
    """The blobs of one version: by what they are, and those that only some of the readers of `a` get."""

    blobs: dict[str, Digest]
    commands: dict[str, Command]


def tell(house: House, come: Callable[[str], Person], model: str, author: str, judge: str = "") -> Told:
    """A version from its rows to its evidence, brought by its author over HTTP."""
    namespace, _, name = model.partition("/")
    person = come(author)
    here = person.here
    # Large enough to be asked about before it is sent.
    snapshot = house.snapshot(here, namespace, LARGE + model.encode())
    built = house.package(here, model, snapshot.snapshot)
    table = here.put(f"table of {model}".encode())
    run = house.run(here, model, built.digest, snapshot.snapshot, table)
    registering = house.registering(here, built, run.run, model)
    contract = here.put(f"contract of {namespace}".encode())
    checked = RecordContractCheck(
        id=house.new_id(), dataset=snapshot.dataset, snapshot=snapshot.snapshot, contract=contract
    )
    for command in (snapshot, checked, run, registering):
        person.tells(command)
    blobs = {
        "snapshot": snapshot.snapshot,
        "rows": sha256(LARGE + model.encode()),
        "package": built.digest,
        **{f"layer {at}": digest for at, digest in enumerate(sorted(built.blobs))},
        "contract": contract,
        "run": run.run,
        "table": table,
        "signature": registering.signatures[0],
    }
    commands: dict[str, Command] = {"snapshot": snapshot, "run": run, "registering": registering}
    if judge:
        judged = house.judging(come(judge).here, f"{model}@1.0.0", built.digest)
        come(judge).tells(judged)
        blobs["evidence"] = judged.lines[0].digest
        commands["judged"] = judged
    assert all(map(house.blobs.has, blobs.values())), name
    return Told(blobs, commands)


class BlobReadersContract:
    """Who reads which bytes, over the wire and in this process."""

    @pytest.fixture
    def make(self) -> Store:
        raise NotImplementedError("override `make` in the subclass")

    @pytest.fixture
    def house(self, make: Store, tmp_path: Path) -> House:
        return House(make, tmp_path)

    @pytest.fixture
    def come(self, house: House) -> Iterator[Callable[[str], Person]]:
        ready = threading.Event()
        server = HubServer(house.app, 0, ready=lambda port: ready.set())
        thread = threading.Thread(target=server.run)
        thread.start()
        assert ready.wait(30)
        people: dict[str, Person] = {}

        def come(name: str) -> Person:
            if name not in people:
                hub, folder = HttpHub(server.url, actor=name), house.folder / f"people-{len(people)}"
                # What has been fetched before is no answer of the hub.
                there = HubBlobs(hub.wire, _NothingKept(folder / "cache"), folder / "incoming")
                client = httpx.Client(
                    base_url=server.url, headers={ACTOR_HEADER: name.replace(" ", "%20")}, trust_env=False
                )
                people[name] = Person(hub, DirectoryBlobs(folder / "here"), there, client)
            return people[name]

        yield come
        for person in people.values():
            person.http.close()
            person.hub.wire.close()
        server.stop()
        thread.join(30)

    @pytest.fixture
    def of_a(self, house: House, come: Callable[[str], Person]) -> Told:
        for model, tier in (("a/m", "low"), ("b/m", "low"), ("a/h", "high")):
            come("petra").tells(house.declaring(model, tier))
        return tell(house, come, "a/m", "ann", "val")

    def test_the_matrix(self, house: House, come: Callable[[str], Person], of_a: Told) -> None:
        of_b = tell(house, come, "b/m", "ben")
        strict = tell(house, come, "a/h", "ann")
        shared = {digest for digest in of_a.blobs.values() if digest in of_b.blobs.values()}
        low = {"snapshot", "rows", "contract"}
        for told, readers in (
            (of_a, OF_A | {"of low tiers"}),
            (of_b, {"ben", "reader of b", "reader of both", "auditor", "petra"}),
            (strict, OF_A),
        ):
            for what, digest in told.blobs.items():
                expected = set(PEOPLE) if digest in shared else readers
                if told is strict and (what in low or digest in of_a.blobs.values()):
                    expected = readers | {"of low tiers"}
                if digest in shared:
                    # Golden rows and the like are the same bytes in each package.
                    expected = set(PEOPLE) - {"nobody"}
                found = {name for name in PEOPLE if come(name).reads(digest)}
                assert found == expected, what
                here = {name for name in PEOPLE if house.seen_by(name).has(digest)}
                assert here == expected, what
        assert {"rows", "package", "run", "signature"} & {
            what for what, digest in of_a.blobs.items() if digest not in shared
        } == {"rows", "package", "run", "signature"}

    def test_what_is_not_here_and_what_is_not_his_are_answered_alike(
        self, come: Callable[[str], Person], of_a: Told
    ) -> None:
        for name in ("ben", "reader of b"):
            for head in ({}, {"If-None-Match": '"DIGEST"'}, {"Range": "bytes=0-"}):
                told = []
                for digest in (of_a.blobs["rows"], sha256(b"nowhere")):
                    headers = {key: value.replace("DIGEST", digest) for key, value in head.items()}
                    for method in ("GET", "HEAD"):
                        answer = come(name).http.request(method, f"/v1/blobs/{digest}", headers=headers)
                        assert answer.status_code == 404
                        kept = {key: value for key, value in answer.headers.items() if key != "date"}
                        told.append((method, kept, answer.text.replace(digest, "DIGEST")))
                assert told[:2] == told[2:]
        with pytest.raises(BlobMissing, match="that reader of b may read") as error:
            come("reader of b").there.get(of_a.blobs["rows"])
        assert "lockgate access grant" in error.value.remedy

    def test_to_write_a_digest_down_opens_nothing(
        self, house: House, come: Callable[[str], Person], of_a: Told
    ) -> None:
        ben, taken = come("ben"), of_a.blobs
        told = ben.hub.execute(house.recording("b/flights", taken["snapshot"]))
        assert told.refusal is not None, "a snapshot is of one dataset"
        ben.tells(house.recording("b/flights", taken["rows"]))
        # Lists of his own that name them: as a file of a snapshot, and as what the steps of a run made.
        file = SnapshotFile(path="x.parquet", digest=taken["rows"], n_bytes=1, n_rows=1)
        manifest = Snapshot(dataset="b/flights", columns=(), n_rows=1, files=(file,))
        require(ben.hub.execute(house.recording("b/flights", ben.there.put(canonical(manifest)))))
        mine = ben.here.put(b"what a step of ben's made")
        listing = house.run(ben.here, "b/m", taken["package"], None, taken["table"], taken["snapshot"], mine)
        ben.tells(listing)
        for what, digest in taken.items():
            assert not ben.reads(digest), what
            assert not come("reader of b").reads(digest), what
        assert come("reader of b").reads(listing.run), "his own is read where he told of it"
        assert come("reader of b").reads(mine)

    def test_a_command_learns_nothing_of_bytes_that_its_sender_may_not_read(
        self, house: House, come: Callable[[str], Person], of_a: Told
    ) -> None:
        own = tell(house, come, "b/m", "ben")
        ben, theirs, nowhere = come("ben"), of_a.blobs, sha256(b"nowhere")
        house.grants["ben"] += over("validator", "b")

        def commands(package: Digest, signature: Digest, evidence: Digest) -> list[Command]:
            given = of_a.commands["judged"]
            assert isinstance(given, RecordEvidence)
            (line,) = given.lines
            return [
                RegisterVersion(id=house.new_id(), model="b/m", package=package, run=package, signatures=()),
                RegisterVersion(
                    id=house.new_id(),
                    model="b/m",
                    package=own.blobs["package"],
                    run=own.blobs["run"],
                    signatures=(signature,),
                ),
                AttachAttestation(
                    id=house.new_id(), version="b/m@1.0.0", predicate_type="x", envelope=signature
                ),
                RecordEvidence(
                    id=house.new_id(),
                    version="b/m@1.0.0",
                    package=own.blobs["package"],
                    lines=(type(line)(**{**_fields(line), "digest": evidence}),),
                ),
            ]

        for known, absent in zip(
            commands(theirs["package"], theirs["signature"], theirs["evidence"]),
            commands(nowhere, nowhere, nowhere),
            strict=True,
        ):
            told = []
            for command in (known, absent):
                with pytest.raises(LockgateError) as error:
                    ben.hub.execute(command)
                named = str(error.value.facts["digest"])
                told.append((error.value.code, error.value.message.replace(named, "DIGEST")))
                assert "missing" in error.value.code
            assert told[0] == told[1]

    def test_whoever_has_the_bytes_brings_them_and_reads_them(
        self, house: House, come: Callable[[str], Person], of_a: Told
    ) -> None:
        ben, rows = come("ben"), LARGE + b"a/m"
        assert not ben.reads(of_a.blobs["rows"])
        ben.tells(house.snapshot(ben.here, "b", rows))
        assert ben.reads(of_a.blobs["rows"])
        assert come("reader of b").reads(of_a.blobs["rows"])
        assert not come("reader of b").reads(of_a.blobs["snapshot"]), "it is a snapshot of another dataset"

    def test_what_somebody_brought_is_his_until_a_command_leads_to_it(
        self, house: House, come: Callable[[str], Person], of_a: Told
    ) -> None:
        ann = come("ann")
        digest = ann.there.put(b"evidence to be")
        assert {name for name in PEOPLE if come(name).reads(digest)} == {"ann", "auditor", "petra"}
        house.grants["ann"] = over("viewer", "b")
        assert ann.reads(digest), "they are his own bytes"
        house.grants["ann"] = ()
        assert not ann.reads(digest)

    def test_a_token_reads_what_it_was_made_for(self, house: House, come: Callable[[str], Person]) -> None:
        house.grants["ci"] = over("ci", "a")
        one, other = come("ci!token:1"), come("ci!token:2")
        digest = one.there.put(b"brought by a job")
        assert one.reads(digest)
        assert not other.reads(digest)

    def test_nobody_ends_what_somebody_else_began_to_send(self, come: Callable[[str], Person]) -> None:
        ann, ben, path = come("ann").http, come("ben").http, f"/v1/blobs/{sha256(LARGE)}"
        size = len(LARGE)
        first = {"Content-Range": f"bytes 0-{size - 2}/{size}"}
        last = {"Content-Range": f"bytes {size - 1}-{size - 1}/{size}"}
        assert ann.put(path, content=LARGE[:-1], headers=first).status_code == 202
        assert ben.head(path).headers["upload-offset"] == "0", "nor hears that somebody sends it"
        assert ben.put(path, content=LARGE[-1:], headers=last).status_code == 409
        assert ann.head(path).headers["upload-offset"] == str(size - 1)
        assert ann.put(path, content=LARGE[-1:], headers=last).status_code == 201
        assert ann.get(path).content == LARGE
        assert ben.get(path).status_code == 404

    def test_what_is_here_already_is_brought_like_anything_else(
        self, come: Callable[[str], Person], of_a: Told
    ) -> None:
        ben, data = come("ben").http, LARGE + b"a/m"
        path = f"/v1/blobs/{of_a.blobs['rows']}"
        wrong = ben.put(path, content=b"x")
        assert (wrong.status_code, wrong.json()["code"]) == (400, "http.digest-differs")
        assert ben.get(path).status_code == 404
        assert ben.put(path, content=data).status_code == 201
        assert ben.get(path).content == data

    def test_a_model_that_is_judged_more_strictly_closes_its_blobs(
        self, house: House, come: Callable[[str], Person], of_a: Told
    ) -> None:
        reader = come("of low tiers")
        assert reader.reads(of_a.blobs["package"])
        come("petra").tells(house.declaring("a/m", "high"))
        assert not reader.reads(of_a.blobs["package"])
        assert reader.reads(of_a.blobs["rows"]), "a dataset has no tier"

    def test_an_auditor_lists_what_he_may_read(
        self, house: House, come: Callable[[str], Person], of_a: Told
    ) -> None:
        tell(house, come, "b/m", "ben")
        assert set(come("auditor").there.digests()) == set(house.blobs.digests())
        listed = list(come("auditor of a").there.digests())
        assert listed == sorted(one for one in house.blobs.digests() if come("auditor of a").reads(one))
        assert set(of_a.blobs.values()) <= set(listed) < set(house.blobs.digests())
        paged, after = [], ""
        while after is not None:
            page = come("auditor of a").http.get("/v1/blobs", params={"after": after, "limit": "3"}).json()
            paged += page["digests"]
            after = page["next"]
        assert paged == listed
        with pytest.raises(Forbidden):
            list(come("reader of a").there.digests())

    def test_a_refused_command_leads_to_nothing(self, house: House, come: Callable[[str], Person]) -> None:
        ann = come("ann")
        command = house.snapshot(ann.here, "b", b"rows that ann has")
        assert BringingHub(ann.hub, ann.here, ann.there).execute(command).refusal is not None
        assert not come("reader of b").reads(sha256(b"rows that ann has"))
        taken = house.snapshot(ann.here, "a", b"rows of a")
        ann.tells(taken)
        house.grants["ann"] += over("author", "b")
        told = ann.hub.execute(house.recording("b/flights", taken.snapshot))
        assert told.refusal is not None, "it may be asked, and a snapshot is of one dataset"
        assert not come("reader of b").reads(taken.snapshot)

    def test_a_list_that_is_none_leads_nowhere(self, house: House, come: Callable[[str], Person]) -> None:
        ann, reader = come("ann"), come("reader of a")
        for data in (b"no JSON", b"[1]", b'{"files": 3}', b'{"files": ["' + b"x" * (5 << 20) + b'"]}'):
            ann.there.put(data)
            ann.hub.execute(house.recording("a/flights", sha256(data)))
            assert reader.reads(sha256(data))
        ann.hub.execute(house.recording("a/flights", sha256(b"not here")))
        assert not reader.reads(sha256(b"not here"))
        ben = come("ben")
        ben.there.put(b"not here")
        assert not reader.reads(sha256(b"not here")), "a name that was there first is no claim"

    def test_what_was_written_without_homes_is_given_them(
        self, house: House, come: Callable[[str], Person], of_a: Told, make: Store
    ) -> None:
        tell(house, come, "b/m", "ben")
        kept = list(house.blobs.digests())
        before = {digest: set(found) for digest, found in make.homes.of(kept).items()}
        rebuilt = _Rebuilt(make)
        house.open(make._replace(homes=rebuilt))
        after = rebuilt.found
        assert {digest: {one for one in homes if one[0] != "@"} for digest, homes in before.items()} == after

    def test_an_archive_keeps_who_reads_what(
        self, house: House, come: Callable[[str], Person], of_a: Told, make: Store, tmp_path: Path
    ) -> None:
        come("ben").tells(house.recording("b/flights", of_a.blobs["table"]))
        file, older, altered = (tmp_path / f"{name}.tar" for name in ("one", "older", "altered"))
        write_archive(file, make.journal, (), (), blobs=house.blobs, homes=make.homes)
        write_archive(older, make.journal, (), (), blobs=house.blobs)
        more = [(of_a.blobs["rows"], "b/"), (of_a.blobs["table"], "b/")]
        with tarfile.open(file) as before, tarfile.open(altered, "w", format=tarfile.PAX_FORMAT) as after:
            for member in before:
                source = before.extractfile(member)
                data = b"" if source is None else source.read()
                if member.name == HOMES:
                    data += b"".join(canonical(HomeLine(*one)) + b"\n" for one in more)
                entry = tarfile.TarInfo(member.name)
                entry.size = len(data)
                after.addfile(entry, io.BytesIO(data))
        kept = set(house.blobs.digests())
        there = {
            digest: {home for home, at in homes.items() if not at}
            for digest, homes in make.homes.of(kept).items()
        }
        believed = {**there, of_a.blobs["table"]: {"a/m", "b/"}}
        for archive, expected in ((file, there), (older, believed), (altered, believed)):
            to = open_sqlite(archive.with_suffix(".db"))
            with opened(archive) as read:
                import_archive(
                    read,
                    to,
                    DirectoryBlobs(archive.with_suffix(".blobs")),
                    MemoryCheckpoints(),
                    (),
                    actor="petra",
                    now=1,
                    unsigned=True,
                )
            assert {digest: set(homes) for digest, homes in to.homes.of(kept).items()} == expected, archive


class _NothingKept(DirectoryBlobs):
    """A cache that is always empty to whoever asks."""

    def has(self, digest: Digest) -> bool:
        return False


class _Rebuilt:
    """Homes of a store that has none yet."""

    def __init__(self, store: Store) -> None:
        self.found: dict[Digest, set[str]] = {}

    def is_filled(self) -> bool:
        return bool(self.found)

    def fill(self, homes: Any) -> None:
        for digest, home in homes:
            self.found.setdefault(digest, set()).add(home)


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}
