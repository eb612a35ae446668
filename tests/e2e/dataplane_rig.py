"""Real packages, real keys and real data plane processes for the tests of this directory."""

from __future__ import annotations

import functools
import http.client
import json
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
from msgspec import structs

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.engines.convert import lightgbm_to_onnx
from lockgate.adapters.engines.onnx_engine import OnnxEngine
from lockgate.adapters.identity.keys import FileKey, generate_key
from lockgate.adapters.targets.local import LocalTarget
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.registry.packages.contract import InputField, ModelContract, OutputField, encode_rows
from lockgate.registry.packages.package import (
    Golden,
    KeyField,
    ModelForm,
    OnlineView,
    PackageConfig,
    build_package,
    store_package,
)
from lockgate.registry.packages.signing import signature_envelope
from lockgate.traffic.capture import CAPTURE_DIR
from lockgate.traffic.plan import N_SLOTS, PackageRef, Plan, Route

MODEL = "main/flight-delay"
ENDPOINT = "prod/main/flight-delay"
PATH = "/prod/flight-delay"
CONTRACT = ModelContract(
    inputs=(
        InputField(name="distance", dtype="float", nullable=False, minimum=0.0),
        InputField(name="hour", dtype="int", minimum=0.0, maximum=24.0),
        InputField(name="weekend", dtype="bool"),
        InputField(name="carrier", dtype="category", categories=("AA", "B6", "UA")),
    ),
    output=OutputField(name="late"),
)
VIEW = OnlineView(
    name="schedule",
    view=sha256(b"schedule"),
    keys=(KeyField(name="origin", dtype="string"), KeyField(name="flight", dtype="int")),
    features=("gate", "hour", "carrier"),
    ttl_s=3600,
)
BY_KEY = ModelContract(
    inputs=tuple(
        structs.replace(field, source=f"schedule:{field.name}" if field.name in VIEW.features else "request")
        for field in CONTRACT.inputs
    ),
    output=CONTRACT.output,
)
"""The same inputs, two of them read by key."""
ROWS: list[dict[str, Any]] = [
    {"distance": 1400.5, "hour": 17, "weekend": False, "carrier": "UA"},
    {"distance": 187, "hour": None, "weekend": True, "carrier": "never seen"},
    {"distance": 0.0},
]
START_TIMEOUT_S = 60.0


class Built(NamedTuple):
    """A package in the store.

    Attributes:
        expected: the model's answers to `ROWS`.
        layers: the blobs of the package beside its manifest.
    """

    ref: PackageRef
    expected: list[float]
    layers: tuple[Digest, ...]


class Store(NamedTuple):
    """A blob store with the versions 1.0.0 to 4.0.0, signed with the key whose public half is `pem`.

    4.0.0 can read the features of `VIEW` by key.
    """

    path: Path
    pem: Path
    versions: dict[str, Built]


@functools.cache
def shared_store() -> Store:
    """Built once per test run; a test that damages it works on a copy."""
    return build_store(Path(_temporary().name))


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lockgate-e2e-")


def build_store(root: Path) -> Store:
    key_file, pem = root / "key.pem", root / "key.pub"
    generate_key(key_file)
    key = FileKey(key_file)
    pem.write_bytes(key.public.pem())
    blobs = DirectoryBlobs(root / "store")
    versions = {f"{seed}.0.0": _build(seed, blobs, key) for seed in (1, 2, 3)}
    versions["4.0.0"] = _build(4, blobs, key, BY_KEY, VIEW)
    return Store(root / "store", pem, versions)


def _build(
    seed: int,
    blobs: DirectoryBlobs,
    key: FileKey,
    contract: ModelContract = CONTRACT,
    *views: OnlineView,
) -> Built:
    rng = np.random.default_rng(seed)
    table = np.column_stack(
        [
            rng.uniform(0, 3000, 200),
            rng.integers(0, 24, 200),
            rng.integers(0, 2, 200),
            rng.integers(0, 3, 200),
        ]
    ).astype(np.float32)
    late = (table[:, 1] + rng.normal(0, 5, 200) > 12).astype(int)
    params = {"objective": "binary", "verbose": -1, "seed": seed, "num_threads": 1, "deterministic": True}
    booster = lightgbm.train(params, lightgbm.Dataset(table, late), num_boost_round=4 + seed)
    onnx = lightgbm_to_onnx(booster, 4)
    expected = OnnxEngine().load(onnx, contract).predict(encode_rows(contract, ROWS)).tolist()
    config = PackageConfig(
        model=MODEL,
        contract=contract,
        service="flight-service",
        service_hash="sha256:" + "0" * 64,
        views={},
        forms=(ModelForm(format="onnx", path="model/model.onnx"),),
        params=params,
        seeds={"train": seed},
        threads={},
        code=sha256(b"code"),
        closure={},
        snapshots={},
        environment=sha256(b"environment"),
        recipe={},
        online=views,
    )
    golden = canonical(Golden(rows=tuple(ROWS), predictions=tuple(expected)))
    built = build_package(config, {"model/model.onnx": onnx, "golden.json": golden})
    store_package(built, blobs)
    signature = blobs.put(signature_envelope(built.digest, key, model=MODEL))
    ref = PackageRef(version=f"{MODEL}@{seed}.0.0", digest=built.digest, signatures=(signature,))
    return Built(ref, expected, tuple(built.blobs))


def plan(store: Store, generation: int, *versions: str, **more: Any) -> Plan:
    """All slots to the first version; the others stay loaded."""
    refs = tuple(store.versions[version].ref for version in versions)
    return Plan(
        **{
            "endpoint": ENDPOINT,
            "generation": generation,
            "packages": refs,
            "routes": (Route(package=refs[0].digest, weight=N_SLOTS),),
            "live": refs[0].digest,
            "salt": "s",
            **more,
        }
    )


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class DataPlane:
    """A running data plane process."""

    def __init__(self, process: subprocess.Popen[str], port: int, run_dir: Path) -> None:
        self.process = process
        self.port = port
        self.run_dir = run_dir
        self.target = LocalTarget(run_dir)
        self.connections: list[http.client.HTTPConnection] = []

    @property
    def pid(self) -> int:
        return self.process.pid

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is closed with the rig, if not before."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.connections.append(connection)
        return connection

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def predict(self, rows: list[dict[str, Any]] | None = None, **more: Any) -> Reply:
        body = json.dumps({"inputs": ROWS if rows is None else rows, **more}).encode()
        return self.request("POST", PATH, body, {"content-type": "application/json"})

    def tell(self, *labels: dict[str, Any]) -> Reply:
        body = json.dumps({"labels": labels}).encode()
        return self.request("POST", f"{PATH}:feedback", body, {"content-type": "application/json"})

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **more: Any
    ) -> Reply:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {}, **more)
            return reply_of(connection.getresponse())
        finally:
            connection.close()

    def stop(self) -> tuple[int, str]:
        """End it politely; its exit code and what it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


def captured(run_dir: Path) -> dict[Path, list[bytes]]:
    """The lines of each capture file; the last one of each is what stands behind the last line break."""
    return {path: path.read_bytes().split(b"\n") for path in sorted((run_dir / CAPTURE_DIR).rglob("*.jsonl"))}


def reply_of(response: http.client.HTTPResponse) -> Reply:
    text = response.read()
    kind = response.headers.get("content-type", "")
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, json.loads(text) if "json" in kind else text)


@contextmanager
def dataplane(
    store: Store,
    run_dir: Path,
    *,
    trust: str | None = None,
    port: int = 0,
    more: tuple[str, ...] = (),
    preexec: Callable[[], None] | None = None,
) -> Iterator[DataPlane]:
    """Start a data plane and wait until it listens; it is gone at the end, however the test went."""
    command = [sys.executable, "-m", "lockgate.app.dataplane"]
    command += ["--run-dir", str(run_dir), "--store", str(store.path), "--port", str(port)]
    command += ["--trust", f"prod={store.pem}" if trust is None else trust, *more]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=preexec
    )
    try:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        line = process.stdout.readline() if readable else ""
        if not line:
            process.kill()
            raise AssertionError(f"the data plane did not start: {process.communicate()[1]}")
        ready = json.loads(line)
        assert ready["ready"] is True and ready["pid"] == process.pid
        running = DataPlane(process, ready["port"], run_dir)
        try:
            yield running
        finally:
            for connection in running.connections:
                connection.close()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)
