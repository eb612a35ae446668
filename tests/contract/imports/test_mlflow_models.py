"""Models that the real MLflow wrote become packages; what is a pickle in disguise, or says too little, does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from lockgate.adapters.engines.adopt import AdoptionRefused, adopt_onnx
from lockgate.adapters.engines.lightgbm_engine import LightGbmEngine
from lockgate.adapters.engines.onnx_engine import OnnxEngine
from lockgate.adapters.identity.keys import SigningKey
from lockgate.adapters.imports.mlflow_model import (
    FlavorRefused,
    MlmodelUnreadable,
    SignatureMissing,
    SignatureUnusable,
    SourceMissing,
)
from lockgate.adapters.imports.mlflow_sources import FolderSource
from lockgate.core.digests import sha256
from lockgate.core.errors import LockgateError
from lockgate.core.names import ModelName
from lockgate.registry.packages.load import LoadedPackage, load_package
from lockgate.registry.packages.package import ENVIRONMENT_PATH, LIGHTGBM_PATH, ONNX_PATH, open_package
from lockgate.testing.clock import CountingIds, FakeClock
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.workshop.config import ModelTable
from lockgate.workshop.incoming.mlflow import Incoming, package_mlflow
from lockgate.workshop.premises import Premises
from lockgate.workshop.tools import tools

ASSETS = Path(__file__).with_name("assets")
EXPECTED: Mapping[str, list[float]] = json.loads((ASSETS / "expected.json").read_text())
NAME = ModelName("main", "flight-delay")


class Desk:
    """Where models are taken in: a blob store and a key."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobs()
        self.key = SigningKey.generate()

    def take(self, folder: Path, table: ModelTable | None = None) -> Incoming:
        premises = Premises(
            None,
            None,
            self.blobs,
            FakeClock(),
            CountingIds(),
            lambda: self.key,
            tools,  # type: ignore[arg-type]
        )
        return package_mlflow(premises, NAME, FolderSource(folder), table)

    def load(self, made: Incoming) -> LoadedPackage:
        """As a data plane does: signature, every byte, golden rows in every form."""
        engines = {"onnx": OnnxEngine(), "lightgbm-text": LightGbmEngine()}
        envelope = self.blobs.get(made.signature)
        return load_package(made.package, self.blobs, [envelope], [self.key.public], engines)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def altered(tmp_path: Path) -> Any:
    """A model of the assets with some of its text changed."""

    def change(name: str, *changes: tuple[str, str], file: str = "MLmodel") -> Path:
        folder = tmp_path / "altered"
        shutil.copytree(ASSETS / name, folder)
        text = (folder / file).read_text()
        for before, after in changes:
            assert before in text, before
            text = text.replace(before, after)
        (folder / file).write_text(text)
        return folder

    return change


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_it_answers_what_the_library_answered_where_it_was_trained(desk: Desk, name: str) -> None:
    loaded = desk.load(desk.take(ASSETS / name))
    expected = EXPECTED[name]
    np.testing.assert_allclose(loaded.golden.predictions[: len(expected)], expected, atol=1e-6)
    rows = loaded.golden.rows[: len(expected)]
    np.testing.assert_allclose(loaded.predictor.predict(loaded.encoder.encode(rows)), expected, atol=1e-6)


def test_lightgbm_text_is_kept_as_it_is_and_stands_by(desk: Desk) -> None:
    made = desk.take(ASSETS / "lightgbm")
    package = open_package(made.package, desk.blobs)
    assert [form.format for form in package.config.forms] == ["onnx", "lightgbm-text"]
    assert package.layer(LIGHTGBM_PATH).digest == sha256((ASSETS / "lightgbm/model.lgb").read_bytes())
    assert desk.load(made).fallback_predictor is not None
    distance, minute, carrier = package.config.contract.inputs
    assert (distance.dtype, minute.dtype, carrier.dtype) == ("float", "int", "category")
    assert carrier.categories == ("AA", "DL", "UA")
    assert not distance.nullable
    assert package.config.contract.output.kind == "probability"
    lock = package.read(ENVIRONMENT_PATH, desk.blobs)
    assert lock == (ASSETS / "lightgbm/requirements.txt").read_bytes()


def test_the_same_model_from_another_place_is_the_same_package(desk: Desk, tmp_path: Path) -> None:
    shutil.copytree(ASSETS / "lightgbm", tmp_path / "else" / "lightgbm")
    first, second = desk.take(ASSETS / "lightgbm"), desk.take(tmp_path / "else" / "lightgbm")
    assert first.package == second.package
    assert str(tmp_path) not in str(second.origin)


def test_a_package_says_that_it_was_imported_and_from_what(desk: Desk) -> None:
    config = open_package(desk.take(ASSETS / "onnx").package, desk.blobs).config
    assert config.imported
    told = config.recipe["imported"]
    assert (told["system"], told["flavor"], told["adapted"]) == ("mlflow", "onnx", True)
    assert told["file"] == sha256((ASSETS / "onnx/model.onnx").read_bytes())
    assert told["model_uuid"] in (ASSETS / "onnx/MLmodel").read_text()


def test_without_an_example_the_golden_rows_are_made_from_the_contract(desk: Desk) -> None:
    loaded = desk.load(desk.take(ASSETS / "regression"))
    assert loaded.golden.rows
    assert loaded.config.contract.output.kind == "value"


def test_onnx_that_fits_already_is_copied(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "fits"
    shutil.copytree(ASSETS / "onnx_value", folder)
    once = adopt_onnx((folder / "model.onnx").read_bytes(), 2)
    assert once.changed
    assert adopt_onnx(once.model, 2) == (once.model, "value", False)
    (folder / "model.onnx").write_bytes(once.model)
    package = open_package(desk.take(folder).package, desk.blobs)
    assert package.layer(ONNX_PATH).digest == sha256(once.model)


def test_a_probability_stays_one_after_it_was_picked_out(desk: Desk) -> None:
    made = desk.take(ASSETS / "onnx")
    package = open_package(made.package, desk.blobs)
    assert package.config.contract.output.kind == "probability"
    again = adopt_onnx((ASSETS / "onnx/model.onnx").read_bytes(), 2)
    assert package.layer(ONNX_PATH).digest == sha256(again.model)


@pytest.mark.parametrize(
    ("name", "error", "next_step"),
    [
        ("sklearn", FlavorRefused, "skl2onnx"),
        ("unsigned", SignatureMissing, "infer_signature"),
        ("onnx_zipmap", AdoptionRefused, "zipmap"),
    ],
)
def test_what_cannot_be_taken_in_is_refused_with_what_to_do(
    desk: Desk, name: str, error: type[LockgateError], next_step: str
) -> None:
    with pytest.raises(error) as refused:
        desk.take(ASSETS / name)
    assert next_step in refused.value.remedy
    assert not list(desk.blobs.digests())


@pytest.mark.parametrize("data", [b"PK\x03\x04 a skops file", b"\x80\x04\x95 a pickle", b"neither"])
def test_a_lightgbm_flavor_that_is_no_text_is_refused_unread(desk: Desk, tmp_path: Path, data: bytes) -> None:
    shutil.copytree(ASSETS / "wrapper", tmp_path / "wrapper")
    (tmp_path / "wrapper" / "model.skops").write_bytes(data)
    with pytest.raises(FlavorRefused, match="runs code") as refused:
        desk.take(tmp_path / "wrapper")
    assert "booster_" in refused.value.remedy


def test_python_code_only_is_refused(desk: Desk, altered: Any) -> None:
    folder = altered("sklearn", ("  sklearn:", "  python_function_two:"))
    with pytest.raises(FlavorRefused):
        desk.take(folder)


@pytest.mark.parametrize("path", ["../model.lgb", "/etc/hostname", "a/../../model.lgb", "..\\\\model.lgb"])
def test_a_model_cannot_point_outside_of_its_folder(desk: Desk, altered: Any, path: str) -> None:
    folder = altered("lightgbm", ("data: model.lgb", f'data: "{path}"'))
    with pytest.raises(MlmodelUnreadable, match="outside"):
        desk.take(folder)


def test_nor_by_a_link(desk: Desk, altered: Any, tmp_path: Path) -> None:
    folder = altered("lightgbm", ("data: model.lgb", "data: link.lgb"))
    (tmp_path / "secret").write_text("tree\n")
    (folder / "link.lgb").symlink_to(tmp_path / "secret")
    with pytest.raises(MlmodelUnreadable, match="outside"):
        desk.take(folder)


def test_a_missing_file_is_named(desk: Desk, altered: Any) -> None:
    folder = altered("lightgbm", ("data: model.lgb", "data: gone.lgb"))
    with pytest.raises(SourceMissing, match=r"gone\.lgb"):
        desk.take(folder)


@pytest.mark.parametrize(
    "text", ["", "flavors: 3", "a: [", "!!python/object/apply:os.system [id]", "\x00", "x" * 1_100_000]
)
def test_a_description_that_is_none_is_refused(desk: Desk, tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(MlmodelUnreadable):
        desk.take(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"type": "double", "name": "distance"', '"type": "datetime", "name": "distance"', "distance is a"),
        ('"type": "double", "name": "distance"', '"type": "string", "name": "distance"', "categories"),
        ('"type": "string", "name": "carrier"', '"type": "double", "name": "carrier"', "categories"),
        ('"name": "distance", ', "", "no name"),
        ('{"type": "double", "name": "distance", "required": true}, ', "", "2 columns, the model takes 3"),
    ],
)
def test_a_signature_that_makes_no_contract_is_refused(
    desk: Desk, altered: Any, before: str, after: str, said: str
) -> None:
    text = (ASSETS / "lightgbm/MLmodel").read_text()
    folded = " ".join(text.split())
    assert before in folded
    whole = text[text.index("inputs: ") : text.index("  outputs:")]
    folder = altered("lightgbm", (whole, " ".join(whole.split()).replace(before, after) + "\n"))
    with pytest.raises(SignatureUnusable, match=said):
        desk.take(folder)


def test_an_optional_column_may_be_null(desk: Desk, altered: Any) -> None:
    text = (ASSETS / "lightgbm/MLmodel").read_text()
    whole = text[text.index("inputs: ") : text.index("  outputs:")]
    one_line = " ".join(whole.split()) + "\n"
    was = '"name": "distance", "required": true'
    folder = altered("lightgbm", (whole, one_line.replace(was, was.replace("true", "false"))))
    loaded = desk.load(desk.take(folder))
    assert loaded.config.contract.inputs[0].nullable
    assert any(row["distance"] is None for row in loaded.golden.rows)


def test_an_example_that_does_not_fit_is_refused(desk: Desk, altered: Any) -> None:
    folder = altered("lightgbm", ('"columns": ["distance", ', '"columns": ['), file="input_example.json")
    with pytest.raises(MlmodelUnreadable, match="row 0"):
        desk.take(folder)


def test_weights_in_other_files_are_not_looked_for() -> None:
    model = ModelProto.FromString((ASSETS / "onnx_value/model.onnx").read_bytes())
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(AdoptionRefused, match="other files"):
        adopt_onnx(model.SerializeToString(), 2)


@pytest.mark.parametrize("data", [b"", b"\x80\x04\x95 a pickle", b"tree\n"])
def test_bytes_that_are_no_onnx_are_refused(data: bytes) -> None:
    with pytest.raises(AdoptionRefused):
        adopt_onnx(data, 2)


def test_the_number_of_columns_has_to_be_the_signatures() -> None:
    with pytest.raises(AdoptionRefused, match="takes 2 columns"):
        adopt_onnx((ASSETS / "onnx/model.onnx").read_bytes(), 3)
