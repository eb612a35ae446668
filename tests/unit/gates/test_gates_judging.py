"""The judge: which evidence it makes of a package, and that a gate which cannot work leaves an error, never a gap."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from lockgate.adapters.runners.judging import Champion, Judge
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.gates.evidence import Evidence
from lockgate.gates.features import ServedFeature, ServedFeatures, ServedView
from lockgate.gates.scans.dossier import SECTIONS
from lockgate.registry.packages.contract import OutputField
from lockgate.registry.packages.package import (
    CODE_PATH,
    LIGHTGBM_PATH,
    ONNX_PATH,
    InputTrace,
    ModelForm,
    build_package,
    open_package,
    pack_tar,
    store_package,
)
from lockgate.registry.packages.ports import ModelUnusable
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.packages import (
    CONTRACT,
    TinyEngine,
    TinyPredictor,
    package_config,
    package_files,
    tiny_model,
)

N = 600
RNG = np.random.default_rng(8)
WEIGHTS = (0.00002, 0.02, 0.02, 0.1)
FLIPPED = (0.00002, -0.02, 0.25, 0.1)
DISTANCE = RNG.uniform(0, 20_000, N)
HOUR = RNG.integers(0, 24, N)
ROWS = pa.table(
    {
        "distance": DISTANCE,
        "hour": HOUR,
        "carrier": RNG.choice(["AA", "DL", "UA"], N),
        "holiday": RNG.random(N) < 0.2,
        "late": RNG.random(N) < DISTANCE * WEIGHTS[0] + HOUR * WEIGHTS[1],
        "region": np.repeat(["east", "west"], N // 2),
    }
)
FORMS = (ModelForm(format="onnx", path=ONNX_PATH), ModelForm(format="lightgbm-text", path=LIGHTGBM_PATH))
LIMITS: dict[str, Any] = {
    "perf.absolute": [{"metric": "auc", "limit": 0.6}],
    "calibration": {"max_gap": 0.5, "slope": [0.0, 10.0]},
    "perf.vs_champion": {"metric": "auc", "margin": 0.05},
    "perf.slices": {
        "columns": ["carrier"],
        "metric": "auc",
        "min_effect": 0.05,
        "min_n": 100,
        "critical": [],
    },
    "model.parity": {"tolerance": 1e-6},
    "latency": {"p99_us": 1e9},
    "security.deps": {"advisories": "osv.json", "severity": "high", "older_than_days": None},
    "dossier.complete": {"tier": "high"},
}
ADVISORIES = canonical([{"id": "X-1", "affected": [], "modified": "2026-11-01T00:00:00Z"}])
WRITTEN = {name: f"docs/{name}.md" for name in SECTIONS}
VIEW = sha256(b"view flights")
SCANS = ("security.format", "security.deps", "privacy.tags", "dossier.complete")


class TextEngine(TinyEngine):
    """Reads the weights behind the first line, which makes it look like LightGBM's text."""

    def load(self, model: bytes, contract: Any) -> TinyPredictor:
        return super().load(model.removeprefix(b"tree\n"), contract)


class Broken(TinyEngine):
    """An engine that no model loads in, or whose models do not answer."""

    def __init__(self, *, loads: bool) -> None:
        super().__init__()
        self._loads = loads

    def load(self, model: bytes, contract: Any) -> TinyPredictor:
        if not self._loads:
            raise ModelUnusable("the runtime crashed", remedy="try another")
        return Silent([0.0])


class Silent(TinyPredictor):
    def predict(self, matrix: Any) -> Any:
        raise MemoryError("out of memory")


def packed(blobs: MemoryBlobs, weights: tuple[float, ...] = WEIGHTS, **changes: Any) -> Digest:
    model = tiny_model(weights)
    traces = tuple(InputTrace(input=field.name, source="request", columns=()) for field in CONTRACT.inputs)
    config = package_config(
        forms=FORMS, traces=traces, **{"recipe": {"label": "late", "dossier": WRITTEN}, **changes}
    )
    more = {f"include/{path}": b"# Written\nBy people." for path in WRITTEN.values()}
    files = package_files(model, **{LIGHTGBM_PATH: b"tree\n" + model, CODE_PATH: pack_tar({}), **more})
    built = build_package(config, files)
    store_package(built, blobs)
    return built.digest


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


def judge(blobs: MemoryBlobs, serving: TinyEngine | None = None) -> Judge:
    return Judge(blobs, {"onnx": serving or TinyEngine(), "lightgbm-text": TextEngine("lightgbm-text")})


def intrinsic(one: Judge, package: Digest, rows: pa.Table = ROWS) -> list[Evidence]:
    return one.intrinsic(
        package, rows, dataset=sha256(b"rows"), checked=[], limits=LIMITS, advisories=ADVISORIES
    )


def relative(
    one: Judge, package: Digest, champion: Digest | None = None, rows: pa.Table = ROWS, **changes: Any
) -> list[Evidence]:
    live = None if champion is None else Champion("1.0.0", champion, ROWS)
    given: dict[str, Any] = {"limits": LIMITS, **changes}
    return one.relative(package, rows, dataset=sha256(b"rows"), environment="prod", champion=live, **given)


def limits(gate: str, **changes: Any) -> dict[str, Any]:
    return {**LIMITS, gate: {**LIMITS[gate], **changes}}


def verdicts(found: list[Evidence]) -> dict[str, set[str]]:
    told: dict[str, set[str]] = {}
    for one in found:
        told.setdefault(one.gate, set()).add(one.verdict)
    return told


def of(gate: str, found: list[Evidence]) -> list[Evidence]:
    return [one for one in found if one.gate == gate]


def test_a_sound_package_passes_and_every_record_is_kept(blobs: MemoryBlobs) -> None:
    package = packed(blobs)
    found = intrinsic(judge(blobs), package) + relative(judge(blobs), package, package)
    assert verdicts(found) == {
        gate: {"pass"}
        for gate in (
            "perf.absolute", "calibration", "model.parity", "model.infra",
            "perf.vs_champion", "perf.slices", "features.compat", "latency", *SCANS,
        )
    }  # fmt: skip
    assert all(blobs.get(one.digest) == canonical(one) for one in found)
    assert all(one.inputs["package"] == package for one in found)


def test_without_a_champion_two_gates_have_nothing_to_compare(blobs: MemoryBlobs) -> None:
    found = relative(judge(blobs), packed(blobs))
    assert [(one.gate, one.verdict) for one in found if one.reason == "no_baseline"] == [
        ("perf.vs_champion", "pass"), ("perf.slices", "pass")
    ]  # fmt: skip


def test_a_worse_model_fails_by_slice_too(blobs: MemoryBlobs) -> None:
    found = relative(judge(blobs), packed(blobs, FLIPPED), packed(blobs))
    assert verdicts(found)["perf.vs_champion"] == {"fail"}
    by_slice = of("perf.slices", found)
    assert by_slice[0].verdict == "fail" and set(by_slice[0].slice) == {"carrier"}
    assert all(one.environment == "prod" for one in by_slice)


@pytest.mark.parametrize("loads", [True, False])
def test_a_model_that_does_not_answer_is_an_error_of_every_gate_that_asks_it(
    blobs: MemoryBlobs, loads: bool
) -> None:
    package = packed(blobs)
    broken = judge(blobs, Broken(loads=loads))
    found = intrinsic(broken, package) + relative(broken, package, package)
    told = verdicts(found)
    for gate in ("features.compat", *SCANS):
        assert told.pop(gate) == {"pass"}
    assert told == {
        gate: {"error"}
        for gate in (
            "perf.absolute", "calibration", "model.parity", "model.infra",
            "perf.vs_champion", "perf.slices", "latency",
        )
    }  # fmt: skip
    words = "out of memory" if loads else "the runtime crashed"
    assert all(words in one.details[0] for one in found if one.verdict == "error")


def test_a_column_to_slice_by_that_is_missing_is_named(blobs: MemoryBlobs) -> None:
    package = packed(blobs)
    asked = limits("perf.slices", columns=["carrier", "regin"])
    (only,) = of("perf.slices", relative(judge(blobs), package, package, limits=asked))
    assert (only.verdict, only.reason) == ("error", "missing_input")
    assert "no column regin to slice by" in only.details[0] and "'region'" in only.details[1]


def test_rows_need_not_be_inputs_to_slice_by_them(blobs: MemoryBlobs) -> None:
    package = packed(blobs)
    asked = limits("perf.slices", columns=["region"])
    (only,) = of("perf.slices", relative(judge(blobs), package, package, limits=asked))
    assert (only.verdict, only.n, only.slice) == ("pass", 2, {"slices": "all"})


def test_where_no_columns_are_named_it_slices_by_the_categories(blobs: MemoryBlobs) -> None:
    package, asked = packed(blobs), limits("perf.slices", columns=[])
    (only,) = of("perf.slices", relative(judge(blobs), package, package, limits=asked))
    assert (only.verdict, only.n) == ("pass", 3)
    assert all(line.startswith("carrier=") for line in only.details)


def test_a_gate_that_does_not_apply_says_so_and_does_not_block(blobs: MemoryBlobs) -> None:
    output = OutputField(name="minutes", kind="value")
    package = packed(blobs, contract=msgspec.structs.replace(CONTRACT, output=output))
    (only,) = of("calibration", intrinsic(judge(blobs), package))
    assert (only.verdict, only.reason, only.value) == ("pass", "not_applicable", None)
    assert only.details == ("minutes is a value, not a probability",)


def test_a_missing_label_is_an_error_and_the_others_speak(blobs: MemoryBlobs) -> None:
    found = verdicts(intrinsic(judge(blobs), packed(blobs), ROWS.drop_columns(["late"])))
    assert found["perf.absolute"] == found["calibration"] == {"error"}
    assert found["model.parity"] == found["model.infra"] == {"pass"}


def test_features_from_views_are_held_against_what_is_served(blobs: MemoryBlobs) -> None:
    hour = msgspec.structs.replace(CONTRACT.inputs[1], source="flights:hour")
    inputs = (CONTRACT.inputs[0], hour, *CONTRACT.inputs[2:])
    package = packed(blobs, contract=msgspec.structs.replace(CONTRACT, inputs=inputs))
    view = ServedView(view=VIEW, keys=("tailnum",), features={"hour": ServedFeature(dtype="int")})
    now = ServedFeatures(views={"flights": view})
    moved = ServedFeatures(views={"flights": msgspec.structs.replace(view, view=sha256(b"other"))})
    for served, verdict in ((now, "pass"), (moved, "fail"), (None, "error")):
        (only,) = of("features.compat", relative(judge(blobs), package, served=served))
        assert only.verdict == verdict


def test_what_a_package_is_made_of_is_judged_without_asking_its_model(blobs: MemoryBlobs) -> None:
    empty = packed(blobs, recipe={"label": "late"})
    assert verdicts(intrinsic(judge(blobs), empty))["dossier.complete"] == {"fail"}
    bare = judge(blobs).intrinsic(
        packed(blobs), ROWS, dataset=sha256(b"rows"), checked=[], limits=LIMITS, advisories=None
    )
    assert [one.reason for one in of("security.deps", bare)] == ["missing_input"]
    code = next(layer for layer in open_package(empty, blobs).layers if layer.path == CODE_PATH)
    blobs.flip_byte(code.digest)
    damaged = verdicts(intrinsic(judge(blobs), empty))
    assert damaged["security.format"] == damaged["privacy.tags"] == {"error"}
