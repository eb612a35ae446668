"""A project with three live endpoints, in a few seconds: tiny packages, real keys, a real hub and data plane.

The state is made the way every state is made, by commands to the hub. What a full training would take minutes
for, evidence and runs, is stated instead of measured; the packages are real ONNX models with real signatures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import msgspec
import numpy as np
from _measure import child_environment

from lockgate.adapters.engines.convert import lightgbm_to_onnx
from lockgate.adapters.engines.onnx_engine import OnnxEngine
from lockgate.app.control import Control
from lockgate.app.declare import declare, default_policy
from lockgate.core.digests import Digest, sha256
from lockgate.core.messages import Command, Receipt
from lockgate.data.messages import RecordContractCheck, RecordSnapshot
from lockgate.delivery.messages import ConfigureEndpoint, PromoteVersion
from lockgate.delivery.rollouts.policy import EndpointSettings
from lockgate.delivery.standing import StandingAnswer
from lockgate.gates.messages import RecordEvidence
from lockgate.governance.messages import AdoptPolicy, ApproveVersion, ValidateVersion
from lockgate.governance.policies.policy import Policy
from lockgate.hub.messages import Standing
from lockgate.pipeline.messages import RecordRun
from lockgate.registry.messages import RegisterVersion
from lockgate.registry.packages.contract import encode_rows
from lockgate.registry.packages.package import ONNX_PATH, Golden, build_package, encode_golden, store_package
from lockgate.registry.packages.signing import signature_envelope, store_signature
from lockgate.testing.furnished import stated_evidence
from lockgate.testing.packages import CONTRACT, ROWS, package_config, package_files
from lockgate.workshop.layout import Layout
from lockgate.workshop.templates import create

MODEL = "main/flight-delay"
AUTHOR, APPROVER = "ada", "grace"
ENVIRONMENTS = ("dev", "staging", "prod")


@dataclass(frozen=True)
class LiveProject:
    """The project, its data plane, and what each version answers to the first of `ROWS`."""

    control: Control
    folder: Path
    port: int
    answers: dict[str, float]


@contextmanager
def live_project(folder: Path) -> Iterator[LiveProject]:
    """Versions 1.0.0 and 1.1.0 went live on every endpoint, in this order; a data plane serves them."""
    layout = create(folder, "flights")
    control = Control(layout)
    declare(control, control.hub(AUTHOR))
    # Released at once, so without a rollout and a release plan, which would name its guards: what is measured here
    # begins when two versions have been live.
    policy = default_policy()
    tiers = {
        tier: msgspec.structs.replace(policy.rule(tier), release_plan=(), rollout={}) for tier in policy.tiers
    }
    at_once = Policy(name="bench", version=1, tiers=tiers)
    tell(
        control,
        AUTHOR,
        AdoptPolicy(id=control.ids.new(), namespace="main", policy=at_once),
        ConfigureEndpoint(
            id=control.ids.new(), endpoint=f"prod/{MODEL}", settings=EndpointSettings(capture="scores")
        ),
    )
    with data_plane(layout, control) as port:
        answers = {
            version: release(control, version, n_rounds) for version, n_rounds in (("1.0.0", 4), ("1.1.0", 9))
        }
        yield LiveProject(control, folder, port, answers)


@contextmanager
def data_plane(layout: Layout, control: Control) -> Iterator[int]:
    """A data plane process over the project's store; yields its port."""
    command = [sys.executable, "-P", "-m", "lockgate.app.dataplane", "--port", "0"]
    command += ["--run-dir", str(layout.run), "--store", str(layout.blobs)]
    for name, table in control.config.environments.items():
        command += ["--trust", f"{name}={','.join(str(layout.root / path) for path in table.trust)}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment())
    try:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["port"])
    finally:
        process.terminate()
        process.communicate(timeout=30)


def release(control: Control, version: str, n_rounds: int) -> float:
    """Bring a tiny package to all environments as `version`; returns its answer to the first of `ROWS`."""
    package, signature, answer = tiny_onnx_package(control, n_rounds)
    key, ids = f"{MODEL}@{version}", control.ids
    snapshot, run = sha256(b"snapshot"), sha256(b"run " + version.encode())
    tell(
        control,
        AUTHOR,
        RecordSnapshot(
            id=ids.new(),
            dataset="main/flights",
            snapshot=snapshot,
            n_rows=1,
            extracted_at=control.clock.now(),
            source="bench",
            transformation=sha256(b"transformation"),
            storage="blobs",
        ),
        RecordContractCheck(
            id=ids.new(), dataset="main/flights", snapshot=snapshot, contract=sha256(b"contract")
        ),
        RecordRun(id=ids.new(), model=MODEL, run=run, package=package, snapshots={"main/flights": snapshot}),
        RegisterVersion(id=ids.new(), model=MODEL, package=package, run=run, signatures=(signature,)),
    )
    gates = standing(control, key, "prod").intrinsic_gates
    tell(
        control,
        AUTHOR,
        RecordEvidence(
            id=ids.new(), version=key, package=package, lines=stated_evidence(control.blobs, gates, package)
        ),
        ValidateVersion(id=ids.new(), version=key),
    )
    for environment in ENVIRONMENTS:
        promote(control, key, environment, package)
    return answer


def promote(control: Control, key: str, environment: str, package: Digest) -> None:
    ids, known = control.ids, standing(control, key, environment)
    if known.relative_gates:
        evidence = RecordEvidence(
            id=ids.new(),
            version=key,
            package=package,
            environment=environment,
            baseline=known.baseline or "",
            lines=stated_evidence(
                control.blobs, known.relative_gates, package, environment=environment, baseline=known.baseline
            ),
        )
        tell(control, AUTHOR, evidence)
    if known.quorum:
        bound = standing(control, key, environment).bound
        approval = ApproveVersion(id=ids.new(), version=key, environment=environment, evidence_set=bound)
        tell(control, APPROVER, approval)
    tell(
        control, AUTHOR, PromoteVersion(id=ids.new(), version=key, environment=environment, ticket="BENCH-1")
    )
    assert standing(control, key, environment).next == "done"


def standing(control: Control, key: str, environment: str) -> StandingAnswer:
    answer: StandingAnswer = control.hub(AUTHOR).ask(Standing(version=key, environment=environment))
    return answer


def tell(control: Control, actor: str, *commands: Command) -> list[Receipt]:
    """Execute commands that must not be refused."""
    receipts = [control.hub(actor).execute(command) for command in commands]
    for receipt in receipts:
        if receipt.refusal is not None:
            raise RuntimeError(f"refused: {receipt.refusal}")
    return receipts


def tiny_onnx_package(control: Control, n_rounds: int) -> tuple[Digest, Digest, float]:
    """A signed package of a few trees in the project's store: its digest, its signature's, an answer."""
    onnx = tiny_onnx(n_rounds)
    answers = OnnxEngine().load(onnx, CONTRACT).predict(encode_rows(CONTRACT, ROWS))
    golden = encode_golden(Golden(rows=ROWS, predictions=tuple(map(float, answers))))
    files = {**package_files(), ONNX_PATH: onnx, "golden.json": golden}
    built = build_package(package_config(model=MODEL, params={"rounds": n_rounds}), files)
    store_package(built, control.blobs)
    envelope = signature_envelope(built.digest, control.signer(), model=MODEL)
    signature = store_signature(built.descriptor, envelope, control.blobs).envelope
    return built.digest, signature, float(answers[0])


def tiny_onnx(n_rounds: int) -> bytes:
    rng = np.random.default_rng(1)
    matrix = np.column_stack(
        [
            rng.uniform(0, 3000, 300),
            rng.integers(0, 24, 300),
            rng.integers(0, 3, 300),
            rng.integers(0, 2, 300),
        ]
    ).astype(np.float32)
    late = (matrix[:, 1] + rng.normal(0, 5, 300) > 12).astype(int)
    params = {"objective": "binary", "verbose": -1, "seed": 1, "num_threads": 1, "deterministic": True}
    booster = lightgbm.train(params, lightgbm.Dataset(matrix, late), num_boost_round=n_rounds)
    return lightgbm_to_onnx(booster, matrix.shape[1])
