"""A project with one tiny model, live in seconds, whose releases roll out by steps; its callers; its accidents.

Version 1.0.0 is live; three others are registered and may be promoted: a good one, one that fails when its caller is
in trouble, one that is always wrong. All are real signed ONNX packages, and everything that runs is a real process.
What a training would take minutes for, evidence, is stated instead of measured. Worlds are built once per test run
and then copied.
"""

from __future__ import annotations

import fcntl
import functools
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from operator_story import DIES, Project, Reply, command_of, reply_of

from command_line import OK
from lockgate.adapters.engines.onnx_engine import INPUT_NAME, OnnxEngine
from lockgate.adapters.targets.captures import CaptureReader
from lockgate.app.control import Control
from lockgate.app.declare import declare
from lockgate.core.digests import Digest, sha256
from lockgate.core.messages import Command, Receipt
from lockgate.data.messages import RecordContractCheck, RecordSnapshot
from lockgate.delivery.rollouts.tally import Counter
from lockgate.delivery.rollouts.verdict import Look, Verdict
from lockgate.delivery.standing import StandingAnswer
from lockgate.delivery.state import ENDPOINT as ENDPOINT_KIND
from lockgate.delivery.state import ROLLOUT as ROLLOUT_KIND
from lockgate.delivery.state import EndpointState, RolloutState, release_key
from lockgate.gates.messages import RecordEvidence
from lockgate.governance.messages import ValidateVersion
from lockgate.hub.messages import Standing, VerifyAudit
from lockgate.pipeline.messages import RecordRun
from lockgate.registry.messages import RegisterVersion
from lockgate.registry.packages.contract import InputField, ModelContract, OutputField, encode_rows
from lockgate.registry.packages.package import ONNX_PATH, Golden, build_package, encode_golden, store_package
from lockgate.registry.packages.signing import signature_envelope, store_signature
from lockgate.testing.furnished import stated_evidence
from lockgate.testing.packages import package_config
from lockgate.traffic.capture import CAPTURE_DIR, Answered, Line, Shadowed, decode
from lockgate.traffic.plan import Plan
from lockgate.workshop.layout import Layout
from lockgate.workshop.templates import make_keys

MODEL, ENDPOINT, SHOWN = "main/lamp", "prod/main/lamp", "prod/lamp"
AUTHOR = "ada"
CONTRACT = ModelContract(
    inputs=(
        InputField(name="signal", dtype="float", nullable=False, minimum=0, maximum=1),
        InputField(name="trouble", dtype="float", nullable=False, minimum=0, maximum=1),
    ),
    output=OutputField(name="on", kind="probability", minimum=0, maximum=1),
)
# What each version makes of a row: signal * first + trouble * second + third. More than 1 is no probability, and so an
# error of the model; whether the lamp is on is what the signal says.
MODELS = {
    "live": (0.8, 0.0, 0.1),
    "good": (0.7, 0.0, 0.15),
    "erring": (0.8, 4.0, 0.1),
    "wrong": (-0.8, 0.0, 0.9),
}
VERSIONS = {"live": "1.0.0", "good": "1.0.1", "erring": "1.0.2", "wrong": "1.0.3"}
GOLDEN = ({"signal": 1.0, "trouble": 0.0}, {"signal": 0.0, "trouble": 0.0})

SHADOW, EARLY, LATE, SOAK = 0.0, 0.3, 0.6, 1.0
ALL_STEPS = (SHADOW, EARLY, LATE, SOAK)
N_KEYS = 120
"""Callers in a burst: enough for every step to be passed, at any weight of it."""
MIN_UNITS = 15
_PROJECT = """
schema = 1
[project]
name = "lamps"
namespace = "main"
[signing]
key = "file:.lockgate/keys/signing.pem"
[audit]
checkpoint_key = "file:.lockgate/keys/checkpoint.pem"
sink = "file:.lockgate/checkpoints"
[environments.prod]
order = 1
sensitivity = "production"
trust = ["trust/signing.pub"]
target = "local"
[datasets.signals]
source = "lamps:signals"
contract = "signals.odcs.yaml"
[models.lamp]
purpose = "Say whether the lamp is on."
owner = "lamps"
tier = "low"
definitions = "lamps"
service = "lamp"
label = "on"
output = { name = "on", kind = "probability", minimum = 0.0, maximum = 1.0 }
[models.lamp.steps]
examples = "lamps:examples"
train = "lamps:train"
evaluation_set = "lamps:evaluation_set"
[models.lamp.gates]
"perf.absolute" = { metric = "auc", minimum = 0.7 }
"perf.vs_champion" = { metric = "auc", margin = 0.01 }
[endpoints."prod/lamp"]
fallback = { kind = "constant", value = 0.5 }
capture = "scores"
"""


def rollout_table(steps: Iterable[float] = ALL_STEPS, *, labels: bool = True, bake_s: float = 0.1) -> str:
    """The part of lockgate.toml that says how releases roll out. Few units are asked for, so much must be tolerated."""
    shown = ", ".join(
        f"{{ weight = {weight}, min_units = {MIN_UNITS}, bake_s = {bake_s} }}" for weight in steps
    )
    rows = [
        '[endpoints."prod/lamp".rollout]',
        "alpha = 0.2",
        f"steps = [{shown}]",
        "errors = { absolute = 0.3, min_events = 8 }",
    ]
    if labels:
        rows.append("labels = { wrong_above = 0.5, absolute = 0.3, min_events = 8 }")
    return "\n".join(rows) + "\n"


# --- worlds


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lockgate-rollouts-")


@functools.cache
def one_live() -> Project:
    """1.0.0 is live; the three others could follow it. Nothing is up."""
    folder = Path(_temporary().name) / "one"
    folder.mkdir()
    project = Project(folder)
    project.write("lockgate.toml", _PROJECT)
    make_keys(Layout(folder))
    project.up()
    try:
        control = Control(Layout(folder))
        packages = {name: _register(control, name) for name in MODELS}
        _evidence(control, "live", packages["live"])
        project.types(f"promote lamp@{VERSIONS['live']} --to prod", by=AUTHOR).must(OK)
        for name in ("good", "erring", "wrong"):
            _evidence(control, name, packages[name])
    finally:
        project.down()
    return project


@functools.cache
def two_live() -> Project:
    """1.0.1 followed 1.0.0 at once: there is a way back. Nothing is up."""
    project = one_live().copy(Path(_temporary().name) / "two")
    project.up()
    try:
        project.types(f"promote lamp@{VERSIONS['good']} --to prod", by=AUTHOR).must(OK)
    finally:
        project.down()
    return project


def _register(control: Control, name: str) -> Digest:
    package, signature = _package(control, MODELS[name])
    ids, snapshot, run = control.ids, sha256(b"snapshot"), sha256(f"run {name}".encode())
    _tell(
        control,
        RecordSnapshot(
            id=ids.new(),
            dataset="main/signals",
            snapshot=snapshot,
            n_rows=1,
            extracted_at=control.clock.now(),
            source="a test",
            transformation=sha256(b"transformation"),
            storage="blobs",
        ),
        RecordContractCheck(
            id=ids.new(), dataset="main/signals", snapshot=snapshot, contract=sha256(b"contract")
        ),
        RecordRun(id=ids.new(), model=MODEL, run=run, package=package, snapshots={"main/signals": snapshot}),
        RegisterVersion(
            id=ids.new(),
            model=MODEL,
            package=package,
            run=run,
            signatures=(signature,),
            version=VERSIONS[name],
        ),
    )
    key = f"{MODEL}@{VERSIONS[name]}"
    gates = _standing(control, key).intrinsic_gates
    _tell(
        control,
        RecordEvidence(
            id=ids.new(), version=key, package=package, lines=stated_evidence(control.blobs, gates, package)
        ),
        ValidateVersion(id=ids.new(), version=key),
    )
    return package


def _evidence(control: Control, name: str, package: Digest) -> None:
    """State the evidence that holds a version against what is live."""
    key = f"{MODEL}@{VERSIONS[name]}"
    known = _standing(control, key)
    evidence = RecordEvidence(
        id=control.ids.new(),
        version=key,
        package=package,
        environment="prod",
        baseline=known.baseline or "",
        lines=stated_evidence(
            control.blobs, known.relative_gates, package, environment="prod", baseline=known.baseline
        ),
    )
    _tell(control, evidence)


def _standing(control: Control, key: str) -> StandingAnswer:
    answer: StandingAnswer = control.hub(AUTHOR).ask(Standing(version=key, environment="prod"))
    return answer


def _tell(control: Control, *commands: Command) -> list[Receipt]:
    receipts = [control.hub(AUTHOR).execute(command) for command in commands]
    for receipt in receipts:
        assert receipt.refusal is None, receipt.refusal
    return receipts


def _package(control: Control, weights: tuple[float, float, float]) -> tuple[Digest, Digest]:
    onnx = _linear(weights)
    answers = OnnxEngine().load(onnx, CONTRACT).predict(encode_rows(CONTRACT, GOLDEN))
    golden = encode_golden(Golden(rows=GOLDEN, predictions=tuple(map(float, answers))))
    files = {ONNX_PATH: onnx, "golden.json": golden}
    # Only the bytes of the model differ, as after a training on new data: the next version is a patch.
    built = build_package(package_config(model=MODEL, contract=CONTRACT, views={}), files)
    store_package(built, control.blobs)
    envelope = signature_envelope(built.digest, control.signer(), model=MODEL)
    return built.digest, store_signature(built.descriptor, envelope, control.blobs).envelope


def _linear(weights: tuple[float, float, float]) -> bytes:
    *slopes, offset = weights
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [INPUT_NAME, "slopes"], ["product"]),
            helper.make_node("Add", ["product", "offset"], ["answer"]),
        ],
        "lamp",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [None, 1])],
        [
            numpy_helper.from_array(np.array(slopes, np.float32).reshape(2, 1), "slopes"),
            numpy_helper.from_array(np.array([offset], np.float32), "offset"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return bytes(model.SerializeToString())


# --- a project in use

Eventually = Callable[..., Any]


class Lamps(Project):
    """One private copy of a world, with its processes, its traffic and its store seen from outside."""

    def __init__(self, root: Path, eventually: Eventually) -> None:
        super().__init__(root)
        self.eventually = eventually
        self._started: list[subprocess.Popen[str]] = []
        self._frozen: set[str] = set()

    # -- processes

    def begin(self, version: str = "good", code: int = 8) -> None:
        """Promote a version; what is live goes on answering meanwhile."""
        self.types(f"promote lamp@{VERSIONS[version]} --to prod", by=AUTHOR).must(code)

    def is_ready(self) -> dict[str, Any]:
        """`up`, and the endpoint answers."""
        known = self.up()
        self.eventually(lambda: self.get("/readyz").status == 200)
        return known

    def up_that_dies_at(self, place: str) -> subprocess.Popen[str]:
        """`lockgate up` in a process that is killed at `place` (`message-tag@kernel-step`)."""
        command = [sys.executable, "-P", "-c", DIES, place]
        with (self.dot / "up.log").open("a") as log:
            process = subprocess.Popen(
                [*command, "up", "--port", "0"],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )
        self._started.append(process)
        return process

    def is_up(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """What an `up` that was started by hand wrote about itself, once it serves."""
        known: dict[str, Any] = self.eventually(
            lambda: (known := self.running) and known["pid"] == process.pid and known
        )
        self.eventually(lambda: self.get("/readyz").status == 200)
        return known

    def kills_up(self) -> None:
        """kill -9 of the supervisor; its data plane leaves by itself."""
        known = self.running
        assert known is not None
        os.kill(known["pid"], signal.SIGKILL)
        self.is_gone(known)

    def is_gone(self, known: dict[str, Any]) -> None:
        self.eventually(lambda: "lockgate" not in command_of(known["pid"]))
        self.eventually(lambda: "dataplane" not in command_of(known["plane_pid"]))

    @contextmanager
    def frozen(self, which: str = "pid") -> Iterator[None]:
        """The supervisor (or `plane_pid`, the data plane) stands still; what happens meanwhile it sees at once.

        Inside another one it changes nothing. It holds no lock that others would wait for.
        """
        known = self.running
        assert known is not None
        if which in self._frozen:
            yield
            return
        self.eventually(lambda: self._stopped(known[which]))
        self._frozen.add(which)
        try:
            yield
        finally:
            self._frozen.discard(which)
            with suppress(ProcessLookupError):
                os.kill(known[which], signal.SIGCONT)

    def _stopped(self, pid: int) -> bool:
        """Stop a process; not while it holds what others would wait for."""
        os.kill(pid, signal.SIGSTOP)
        free = self._nobody_writes()
        if not free:
            os.kill(pid, signal.SIGCONT)
        return free

    def _nobody_writes(self) -> bool:
        """Whether the journal, the checkpoints and the plans could be written at once."""
        try:
            with closing(sqlite3.connect(self.database, timeout=0, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
            for path in (self.dot / "checkpoints", *(self.dot / "run" / "endpoints").glob("*.lock")):
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (sqlite3.OperationalError, BlockingIOError):
            return False
        return True

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.down()

    # -- traffic

    @property
    def port(self) -> int:
        known = self.running
        assert known is not None
        return int(known["plane_port"])

    def burst(
        self, n: int = N_KEYS, *, trouble: float = 0.0, labels: bool = True, first: int = 0
    ) -> dict[str, Reply]:
        """Each of `n` callers asks once, and tells at once what was true; all of it is written down at the end.

        Nobody judges before: one burst is about one step.
        """
        replies: dict[str, Reply] = {}
        with self.frozen(), closing(Caller(self.port)) as caller:
            wanted = self.n_written() + n * (2 if self.plan.shadow else 1)
            for number in range(first, first + n):
                replies[f"key-{number}"] = caller.ask(f"key-{number}", number % 2, trouble)
            self.eventually(lambda: self.n_written() >= wanted)
            if labels:
                caller.tell(
                    {
                        reply.body["request_id"]: int(key[4:]) % 2
                        for key, reply in replies.items()
                        if _ok(reply)
                    }
                )
        return replies

    def lines(self, kind: type[Line] | None = None) -> list[Line]:
        """All that the capture files hold."""
        found: list[Line] = []
        for path in sorted((self.dot / "run" / CAPTURE_DIR / "prod.main.lamp").glob("*.jsonl")):
            decoded = [decode(line) for line in path.read_bytes().split(b"\n")[:-1]]
            found += [line for line in decoded if line is not None]
        return [line for line in found if kind is None or isinstance(line, kind)]

    def n_answered(self) -> int:
        return len(self.lines(Answered))

    def n_written(self) -> int:
        """Answers and shadow's answers."""
        return self.n_answered() + len(self.lines(Shadowed))

    # -- the store, looked at from outside

    def _document(self, kind: str, key: str) -> bytes | None:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            row = database.execute(
                "SELECT body FROM documents WHERE kind = ? AND key = ?", (kind, key)
            ).fetchone()
        return None if row is None else row[0]

    @property
    def endpoint(self) -> EndpointState:
        body = self._document(ENDPOINT_KIND.name, ENDPOINT)
        assert body is not None
        return msgspec.json.decode(body, type=EndpointState)

    @property
    def state(self) -> str:
        """Of the rollout that is under way; empty without one."""
        rollout = self.endpoint.rollout
        return "" if rollout is None else rollout.state

    @property
    def at(self) -> tuple[str, int]:
        """State and step, 0 the first; -1 while no step was served yet."""
        steps = self.steps()
        return self.state, -1 if steps is None or steps.run is None else steps.run.step

    def reaches(self, *state: str | int) -> None:
        """Wait for a state, or for a state on a step."""
        wanted = state if len(state) > 1 else state[0]
        self.eventually(lambda: (self.at if len(state) > 1 else self.state) == wanted)

    def steps(self, release: int = 0) -> RolloutState | None:
        """How the latest release (or the given one) rolled out, or does."""
        body = self._document(ROLLOUT_KIND.name, release_key(ENDPOINT, release or self.endpoint.n_releases))
        return None if body is None else msgspec.json.decode(body, type=RolloutState)

    @property
    def version(self) -> str:
        """The one that is live."""
        live = self.endpoint.live
        assert live is not None
        return live.served.version.partition("@")[2]

    @property
    def plan(self) -> Plan:
        plan = Control(Layout(self.root)).target.observe(ENDPOINT).plan
        assert plan is not None
        return plan

    def counted(self) -> Look:
        """What a controller that was never here before counts, from the files alone."""
        steps = self.steps()
        assert steps is not None
        counter = Counter(
            steps.policy,
            package=steps.candidate.package,
            control=steps.control.package,
            steps={run.generation: run.step for run in steps.runs},
        )
        for generation, line in CaptureReader(self.dot / "run").read(ENDPOINT, counter.steps):
            counter.add(generation, line)
        return counter.look()

    def judged(self) -> list[tuple[int, Verdict]]:
        """The verdicts of the latest release that the journal holds, with their steps."""
        release = self.endpoint.n_releases
        return [
            (entry["event"]["step"], msgspec.convert(entry["event"]["verdict"], Verdict))
            for entry in self.journal("delivery.rollout-judged/")
            if entry["event"]["release"] == release
        ]

    def reported(self) -> list[Look]:
        """The counts of every look that was told to the hub, oldest first."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT body FROM receipts ORDER BY command_id").fetchall()
        commands = [json.loads(body)["command"] for (body,) in rows]
        return [
            msgspec.convert(command["look"], Look)
            for command in commands
            if command["type"] == "delivery.judge-rollout"
        ]

    def audit_holds(self) -> None:
        """What `lockgate audit verify` asks, without a process of its own."""
        answer = Control(Layout(self.root)).hub("auditor").ask(VerifyAudit())
        assert answer.ok, answer.findings


def _ok(reply: Reply) -> bool:
    return reply.status == 200 and "request_id" in reply.body


def versions_of(replies: dict[str, Reply]) -> dict[str, str]:
    """Who answered whom; every reply must be an answer."""
    assert {reply.status for reply in replies.values()} == {200}, replies
    return {key: reply.body["version"] for key, reply in replies.items()}


class Caller:
    """Asks over one connection that stays open."""

    def __init__(self, port: int) -> None:
        self._way = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, key: str, signal: float = 1.0, trouble: float = 0.0) -> Reply:
        return self._post(f"/{SHOWN}", {"inputs": [{"signal": signal, "trouble": trouble}], "key": key})

    def tell(self, labels: dict[str, int]) -> Reply:
        reply = self.post_labels(labels)
        assert reply.status == 202, reply
        return reply

    def post_labels(self, labels: dict[str, int]) -> Reply:
        """Labels by request id, which need not be accepted."""
        listed = [{"request_id": request_id, "label": label} for request_id, label in labels.items()]
        return self._post(f"/{SHOWN}:feedback", {"labels": listed})

    def _post(self, path: str, body: dict[str, Any]) -> Reply:
        self._way.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return reply_of(self._way)

    def close(self) -> None:
        self._way.close()


@contextmanager
def lamps(
    eventually: Eventually, world: Callable[[], Project] = one_live, rollout: str | None = None
) -> Iterator[Lamps]:
    """A private copy of a world, rolling out as said; whatever it starts is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="lockgate-lamps-") as folder:
        project = Lamps(world().copy(Path(folder) / "lamps").root, eventually)
        project.write("lockgate.toml", _PROJECT + (rollout_table() if rollout is None else rollout))
        control = Control(Layout(project.root))
        declare(control, control.hub(AUTHOR))
        try:
            yield project
        finally:
            project.close()


class Traffic:
    """Callers that ask all the time, each for keys of its own, and tell what was true. Keeps who answered what.

    Attributes:
        met: per key the status and version of every answer, oldest first.
        lost: requests that got no answer.
    """

    def __init__(self, port: int, n_callers: int = 2, *, n_keys: int = N_KEYS, trouble: float = 0.0) -> None:
        self.met: dict[str, list[tuple[int, str]]] = {}
        self.lost: list[Exception] = []
        self._port, self._trouble = port, trouble
        self._enough = threading.Event()
        shares = [range(number, n_keys, n_callers) for number in range(n_callers)]
        self._threads = [threading.Thread(target=self._call, args=(share,)) for share in shares]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    @property
    def statuses(self) -> set[int]:
        return {status for each in self.met.values() for status, _ in each}

    def last(self) -> set[str]:
        """The versions that answered last."""
        return {each[-1][1] for each in self.met.values()}

    def _call(self, share: range) -> None:
        met: dict[str, list[tuple[int, str]]] = {f"key-{number}": [] for number in share}
        self.met.update(met)
        try:
            with closing(Caller(self._port)) as caller:
                while not self._enough.is_set():
                    labels = {}
                    for number in share:
                        reply = caller.ask(f"key-{number}", number % 2, self._trouble)
                        met[f"key-{number}"].append((reply.status, str(reply.body.get("version"))))
                        if _ok(reply):
                            labels[reply.body["request_id"]] = number % 2
                    caller.tell(labels)
        except (OSError, http.client.HTTPException) as failure:
            self.lost.append(failure)
