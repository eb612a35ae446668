"""Three versions of one model with twenty inputs, as packages in a store; traffic for them; what they answer.

Five inputs come with the request, fifteen belong to three views of five features each. A model is 150 trees of up to
31 leaves, the size of the one in examples/flights. Requests name all inputs, or five and the keys of the views' rows.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.engines.convert import lightgbm_to_onnx
from lockgate.adapters.engines.onnx_engine import OnnxEngine
from lockgate.adapters.identity.keys import FileKey, generate_key
from lockgate.core.digests import Digest, sha256
from lockgate.features.ports import Key, OnlineRow
from lockgate.registry.packages.contract import InputField, ModelContract, OutputField, encode_rows
from lockgate.registry.packages.package import (
    ONNX_PATH,
    Golden,
    KeyField,
    ModelForm,
    OnlineView,
    PackageConfig,
    build_package,
    encode_golden,
    store_package,
)
from lockgate.registry.packages.signing import signature_envelope, store_signature
from lockgate.traffic.plan import PackageRef

MODEL = "main/flight-delay"
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
TTL_S = 24 * 3600
N_REQUESTS = 256
_N_TREES, _N_LEAVES, _N_TRAINING_ROWS = 150, 31, 4_000

VIEWS = tuple(
    OnlineView(
        name=name,
        view=sha256(f"view {name}".encode()),
        keys=keys,
        features=tuple(f"{name}_{number}" for number in range(5)),
        ttl_s=TTL_S,
    )
    for name, keys in (
        ("airport", (KeyField(name="origin", dtype="string"),)),
        ("aircraft", (KeyField(name="tailnum", dtype="string"),)),
        ("route", (KeyField(name="carrier", dtype="string"), KeyField(name="flight", dtype="int"))),
    )
)
CONTRACT = ModelContract(
    inputs=(
        InputField(name="distance", dtype="float", nullable=False, minimum=0, maximum=20_000),
        InputField(name="hour", dtype="int", minimum=0, maximum=23),
        InputField(name="carrier", dtype="category", categories=CARRIERS),
        InputField(name="holiday", dtype="bool"),
        InputField(name="planned_minutes", dtype="float", minimum=0, maximum=2_000),
        *(
            InputField(
                name=feature, dtype="float", minimum=-100, maximum=100, source=f"{view.name}:{feature}"
            )
            for view in VIEWS
            for feature in view.features
        ),
    ),
    output=OutputField(name="late", kind="probability", minimum=0, maximum=1),
)


@dataclass(frozen=True)
class Ask:
    """One request: the whole row, or what the caller knows and the keys; and the routing key."""

    key: str
    row: dict[str, Any]
    entity: dict[str, Any]

    def body(self) -> dict[str, Any]:
        return {"inputs": [self.row], "key": self.key}

    def body_by_key(self) -> dict[str, Any]:
        own = {field.name for field in CONTRACT.inputs if field.source == "request"}
        row = {name: value for name, value in self.row.items() if name in own}
        return {"inputs": [row], "key": self.key, "entities": [self.entity]}


@dataclass(frozen=True)
class Market:
    """What there is to serve.

    Attributes:
        refs: in the order of `VERSIONS`.
        answers: per version, what the model says to each of `asks`, computed without the data plane.
        rows: of the online store, per view.
    """

    store: Path
    pem: Path
    onnx: Path
    contract: Path
    refs: tuple[PackageRef, ...]
    asks: tuple[Ask, ...]
    answers: dict[str, list[float]]
    rows: dict[Digest, list[tuple[Key, OnlineRow]]]


def market(folder: Path) -> Market:
    """Build all of it below `folder`."""
    folder.mkdir(parents=True)
    key_file, pem = folder / "key.pem", folder / "key.pub"
    generate_key(key_file)
    key = FileKey(key_file)
    pem.write_bytes(key.public.pem())
    blobs = DirectoryBlobs(folder / "store")
    asks, rows = _traffic()
    refs, answers = [], {}
    for number, version in enumerate(VERSIONS):
        onnx = _onnx(number)
        matrix = encode_rows(CONTRACT, [ask.row for ask in asks])
        answers[version] = OnnxEngine().load(onnx, CONTRACT).predict(matrix).tolist()
        golden = Golden(rows=tuple(ask.row for ask in asks[:8]), predictions=tuple(answers[version][:8]))
        built = build_package(_config(number), {ONNX_PATH: onnx, "golden.json": encode_golden(golden)})
        store_package(built, blobs)
        signature = store_signature(
            built.descriptor, signature_envelope(built.digest, key, model=MODEL), blobs
        )
        refs.append(
            PackageRef(version=f"{MODEL}@{version}", digest=built.digest, signatures=(signature.envelope,))
        )
        if number == 0:
            (folder / "model.onnx").write_bytes(onnx)
    inputs = [[field.name, field.dtype, list(field.categories)] for field in CONTRACT.inputs]
    (folder / "contract.json").write_text(json.dumps(inputs))
    return Market(
        folder / "store",
        pem,
        folder / "model.onnx",
        folder / "contract.json",
        tuple(refs),
        asks,
        answers,
        rows,
    )


def _traffic() -> tuple[tuple[Ask, ...], dict[Digest, list[tuple[Key, OnlineRow]]]]:
    rng = np.random.default_rng(2013)
    at = time.time_ns() // 1_000 - 3_600 * 1_000_000
    asks: list[Ask] = []
    rows: dict[Digest, list[tuple[Key, OnlineRow]]] = {view.view: [] for view in VIEWS}
    for number in range(N_REQUESTS):
        entity: dict[str, Any] = {
            "origin": f"A{number:03}",
            "tailnum": f"N{number:05}",
            "carrier": CARRIERS[number % len(CARRIERS)],
            "flight": 100 + number,
        }
        row: dict[str, Any] = {
            "distance": round(float(rng.uniform(100, 3_000)), 1),
            "hour": int(rng.integers(0, 24)),
            "carrier": entity["carrier"],
            "holiday": bool(rng.integers(0, 2)),
            "planned_minutes": float(rng.integers(30, 400)),
        }
        for view in VIEWS:
            values = tuple(round(float(value), 4) for value in rng.normal(0, 10, len(view.features)))
            row.update(zip(view.features, values, strict=True))
            keys = tuple(entity[field.name] for field in view.keys)
            rows[view.view].append((keys, OnlineRow(at, at, values)))
        asks.append(Ask(f"caller-{number:04}", row, entity))
    return tuple(asks), rows


def _onnx(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    n_inputs = len(CONTRACT.inputs)
    matrix = rng.normal(0, 10, (_N_TRAINING_ROWS, n_inputs)).astype(np.float32)
    matrix[:, 0] = rng.uniform(100, 3_000, _N_TRAINING_ROWS)
    matrix[:, 1] = rng.integers(0, 24, _N_TRAINING_ROWS)
    matrix[:, 2] = rng.integers(0, len(CARRIERS), _N_TRAINING_ROWS)
    matrix[:, 3] = rng.integers(0, 2, _N_TRAINING_ROWS)
    matrix[:, 4] = rng.uniform(30, 400, _N_TRAINING_ROWS)
    late = (matrix[:, 1] + matrix[:, 5:].sum(axis=1) / 10 + rng.normal(0, 5, _N_TRAINING_ROWS) > 12).astype(
        int
    )
    params = {
        "objective": "binary",
        "verbose": -1,
        "seed": seed,
        "num_threads": 1,
        "deterministic": True,
        "num_leaves": _N_LEAVES,
    }
    booster = lightgbm.train(params, lightgbm.Dataset(matrix, late), num_boost_round=_N_TREES)
    return lightgbm_to_onnx(booster, n_inputs)


def _config(seed: int) -> PackageConfig:
    return PackageConfig(
        model=MODEL,
        contract=CONTRACT,
        service="flight-delay",
        service_hash=sha256(b"service"),
        views={view.name: view.view for view in VIEWS},
        forms=(ModelForm(format="onnx", path=ONNX_PATH),),
        params={"rounds": _N_TREES},
        seeds={"train": seed},
        threads={},
        code=sha256(b"code"),
        closure={},
        snapshots={},
        environment=sha256(b"environment"),
        recipe={},
        online=VIEWS,
    )
