"""An MLflow model, understood from its files alone: MLflow itself is never imported, and no code in it is ever run.

`MLmodel` is YAML. It names flavors, each a way to load the same model; a signature (columns or a tensor, as JSON
inside YAML); and an input example in a file of its own. Read from models that MLflow 3.17 wrote; the files of MLflow 2
have the same form.

Two flavors hold numbers only and are taken: `onnx`, and `lightgbm` when it holds LightGBM's own text. Everything
else is a pickle, or needs code to be run to be understood, and is refused with what to do about it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import yaml

from lockgate.core.errors import Invalid, NotFound, Unsupported
from lockgate.registry.messages import Origin
from lockgate.registry.packages.contract import InputField, InputType, ModelContract, OutputField

MLMODEL = "MLmodel"
REQUIREMENTS = "requirements.txt"
MAX_DESCRIPTION_BYTES = 1_048_576
N_EXAMPLES = 16
_MAX_COLUMNS = 10_000

_DTYPES: dict[str, InputType] = {
    "double": "float",
    "float": "float",
    "long": "int",
    "integer": "int",
    "boolean": "bool",
    "string": "category",
}
_TENSOR_DTYPES = frozenset({"float32", "float64", "int32", "int64"})
_BOOSTER = "log its booster, which is text: mlflow.lightgbm.log_model(model.booster_, ...)"
_AS_ONNX = (
    "convert it and log that: mlflow.onnx.log_model(skl2onnx.to_onnx(model, X[:1], "
    "options={'zipmap': False}), ...) with X a float32 matrix"
)
_REMEDIES = {
    "sklearn": _AS_ONNX,
    "xgboost": "convert it with onnxmltools.convert_xgboost and log that with mlflow.onnx.log_model",
    "catboost": "save it with format='onnx' and log that with mlflow.onnx.log_model",
    "pytorch": "export it with torch.onnx.export and log that with mlflow.onnx.log_model",
    "tensorflow": "convert it with tf2onnx and log that with mlflow.onnx.log_model",
}


class SourceMissing(NotFound):
    """There is no such model, run or file where it was to be imported from."""

    code = "imports.not-found"


class MlmodelUnreadable(Invalid):
    """The description of the model is no MLmodel file, or a part of it is not what it must be."""

    code = "imports.mlmodel-unreadable"


class FlavorRefused(Unsupported):
    """The model can only be loaded by running code, or nobody here reads its format. Fact: `flavors`."""

    code = "imports.flavor-refused"


class SignatureMissing(Invalid):
    """Without a signature nobody knows what the model takes."""

    code = "imports.no-signature"


class SignatureUnusable(Unsupported):
    """The signature says something that a model contract cannot. Fact: `field`."""

    code = "imports.signature-unusable"


class ModelSource(Protocol):
    """The files of one model, and what its system says about it."""

    def read(self, path: str) -> bytes:
        """A file of the model. Raises `SourceMissing` when there is none, `MlmodelUnreadable` for a path outside."""
        ...

    def origin(self) -> Origin: ...


class Mlmodel(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of an MLmodel file."""

    flavors: dict[str, dict[str, Any]]
    signature: dict[str, str | None] | None = None
    saved_input_example_info: dict[str, Any] | None = None
    model_uuid: str | None = None
    mlflow_version: str | None = None
    run_id: str | None = None


class ForeignModel(NamedTuple):
    """A model in a format that may be packaged.

    Attributes:
        format: `lightgbm-text` or `onnx`; `data` is the file as it was.
        categories: of the text columns of a LightGBM model, in their order.
        feature_names: as the model itself calls its columns; empty when it does not.
    """

    flavor: str
    format: Literal["lightgbm-text", "onnx"]
    data: bytes
    categories: tuple[tuple[str, ...], ...] = ()
    feature_names: tuple[str, ...] = ()
    output: Literal["probability", "value"] | None = None


def read_mlmodel(source: ModelSource) -> Mlmodel:
    """Raises `MlmodelUnreadable`, `SourceMissing`."""
    data = source.read(MLMODEL)
    if len(data) > MAX_DESCRIPTION_BYTES:
        raise _unreadable(f"{MLMODEL} has {len(data)} bytes, at most {MAX_DESCRIPTION_BYTES} are read")
    try:
        return msgspec.convert(yaml.safe_load(data), Mlmodel)
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(f"{MLMODEL} cannot be read: {str(error).splitlines()[0]}") from error


def read_model(described: Mlmodel, source: ModelSource) -> ForeignModel:
    """The model in its first flavor that holds numbers only.

    Raises:
        FlavorRefused: there is none.
    """
    flavors = described.flavors
    if "onnx" in flavors:
        return ForeignModel("onnx", "onnx", source.read(_data_path(flavors["onnx"], "model.onnx")))
    if "lightgbm" in flavors:
        return _lightgbm(source.read(_data_path(flavors["lightgbm"], "model.lgb")))
    names = sorted(flavors.keys() - {"python_function"})
    remedy = next((_REMEDIES[name] for name in names if name in _REMEDIES), None)
    what = f"its flavor is {', '.join(names)}" if names else "it is Python code (python_function) only"
    raise FlavorRefused(
        f"this model cannot be taken in: {what}, which is loaded by running code; "
        "only onnx and LightGBM's own text are not",
        remedy=remedy or "export the model to ONNX and log it with mlflow.onnx.log_model",
        flavors=sorted(flavors),
    )


def _data_path(flavor: Mapping[str, Any], default: str) -> str:
    path = flavor.get("data", default)
    if not isinstance(path, str):
        raise _unreadable("a flavor's `data` is no path")
    return path


def _lightgbm(data: bytes) -> ForeignModel:
    if not data.startswith(b"tree\n"):
        kind = "a skops file" if data[:2] == b"PK" else "a pickle" if data[:1] == b"\x80" else "no text"
        raise FlavorRefused(
            f"its lightgbm flavor holds {kind}, the scikit-learn wrapper around a booster; reading that runs code",
            remedy=_BOOSTER,
            flavors=["lightgbm"],
        )
    text = data.decode("utf-8", errors="replace")
    header = text.partition("\nTree=")[0]
    names = re.search(r"^feature_names=(.*)$", header, re.MULTILINE)
    objective = re.search(r"^objective=(\S+)", header, re.MULTILINE)
    return ForeignModel(
        "lightgbm",
        "lightgbm-text",
        data,
        categories=_categories(text),
        feature_names=tuple(names.group(1).split()) if names else (),
        output="probability" if objective and objective.group(1) == "binary" else "value",
    )


def _categories(text: str) -> tuple[tuple[str, ...], ...]:
    """The values of pandas' categorical columns, which LightGBM writes below its trees, column by column."""
    line = re.search(r"^pandas_categorical:(.*)$", text, re.MULTILINE)
    try:
        columns = json.loads(line.group(1)) if line else None
    except ValueError as error:
        raise _unreadable("the categories below the trees are no JSON") from error
    for column in columns or ():
        if not isinstance(column, list) or not all(isinstance(value, str) for value in column):
            raise SignatureUnusable(
                "a categorical column has values that are no text",
                remedy="make its categories text before training",
                field=str(column)[:100],
            )
    return tuple(tuple(column) for column in columns or ())


def contract_of(
    described: Mlmodel, model: ForeignModel, output: OutputField | None, n_columns: int | None = None
) -> ModelContract:
    """The model contract that a signature amounts to.

    A column that the signature requires may not be null: MLflow lets NaN through there, a contract says what it means.

    Args:
        output: what the project says the model answers; None to take it from the model.
        n_columns: the model's own number of columns, where it is known.

    Raises:
        SignatureMissing, SignatureUnusable: with the field.
    """
    inputs = (described.signature or {}).get("inputs")
    if not inputs:
        raise SignatureMissing(
            "the model has no signature: nobody can say what it takes",
            remedy="log it again with signature=mlflow.models.infer_signature(X, predictions), "
            "or add one with mlflow.models.set_signature(URI, signature)",
        )
    specs = _specs(inputs, "inputs")
    if len(specs) == 1 and specs[0].get("type") == "tensor":
        fields = _tensor_fields(specs[0], model)
    else:
        fields = _in_the_models_order(_column_fields(specs, model), model)
    if n_columns is not None and len(fields) != n_columns:
        raise _unusable(f"it has {len(fields)} columns, the model takes {n_columns}", "signature")
    kind = model.output or "value"
    if output is not None and model.output is not None and output.kind != kind:
        raise SignatureUnusable(
            f"the model answers with a {kind}, lockgate.toml says {output.name} is a {output.kind}",
            remedy="import it as another model, or correct `output` of this one",
            field=output.name,
        )
    return ModelContract(inputs=fields, output=output or OutputField(name=_output_name(described), kind=kind))


def _specs(text: str, what: str) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(text, type=list[dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise _unreadable(f"the {what} of the signature cannot be read: {error}") from error


def _tensor_fields(spec: Mapping[str, Any], model: ForeignModel) -> tuple[InputField, ...]:
    tensor = spec.get("tensor-spec") or {}
    dtype, shape = tensor.get("dtype"), tensor.get("shape")
    width = shape[1] if isinstance(shape, list) and len(shape) == 2 else None
    if dtype not in _TENSOR_DTYPES or not isinstance(width, int) or not 0 < width <= _MAX_COLUMNS:
        raise _unusable(
            f"a tensor of {dtype} with shape {shape} is no matrix of one row per request", "inputs"
        )
    names = model.feature_names or tuple(f"input_{number}" for number in range(width))
    if len(names) != width:
        raise _unusable(f"it has {width} columns, the model names {len(names)}", "inputs")
    return tuple(InputField(name=name, dtype="float", nullable=False) for name in names)


def _column_fields(specs: Sequence[Mapping[str, Any]], model: ForeignModel) -> tuple[InputField, ...]:
    texts = [spec for spec in specs if spec.get("type") == "string"]
    if len(texts) != len(model.categories):
        raise SignatureUnusable(
            f"{len(texts)} columns are text, and the model knows the categories of {len(model.categories)}",
            remedy="train on pandas' category columns, or encode texts as numbers before the model",
            field=", ".join(str(spec.get("name")) for spec in texts) or "signature",
        )
    categories = iter(model.categories)
    fields = []
    for number, spec in enumerate(specs):
        name, kind = spec.get("name"), spec.get("type")
        if not isinstance(name, str) or not name:
            raise _unusable(f"column {number} has no name", f"column {number}")
        if kind not in _DTYPES:
            raise _unusable(f"{name} is a {kind}, which no request can carry as one value", name)
        fields.append(
            InputField(
                name=name,
                dtype=_DTYPES[kind],
                categories=next(categories) if kind == "string" else (),
                nullable=not spec.get("required", True) or bool(spec.get("optional", False)),
            )
        )
    return tuple(fields)


def _in_the_models_order(fields: tuple[InputField, ...], model: ForeignModel) -> tuple[InputField, ...]:
    """LightGBM goes by place, and writes spaces in names as underscores."""
    places = {name: place for place, name in enumerate(model.feature_names)}
    known = [field.name.replace(" ", "_") for field in fields]
    if set(known) != set(places) or len(known) != len(places):
        return fields
    return tuple(sorted(fields, key=lambda field: places[field.name.replace(" ", "_")]))


def _output_name(described: Mlmodel) -> str:
    text = (described.signature or {}).get("outputs")
    specs = _specs(text, "outputs") if text else []
    name = specs[0].get("name") if len(specs) == 1 else None
    return name if isinstance(name, str) and name else "prediction"


def example_rows(
    described: Mlmodel, source: ModelSource, contract: ModelContract
) -> tuple[dict[str, Any], ...]:
    """Rows of the input example, as requests would send them; none when the model was saved without one.

    Raises:
        MlmodelUnreadable: the file holds no rows of the signature's columns.
    """
    info = described.saved_input_example_info
    if not info:
        return ()
    path = info.get("artifact_path")
    if not isinstance(path, str):
        raise _unreadable("the input example names no file")
    try:
        example = json.loads(source.read(path))
    except ValueError as error:
        raise _unreadable(f"{path} is no JSON: {error}") from error
    names: Any = list(contract.names)
    if isinstance(example, dict) and isinstance(example.get("inputs"), list):
        example = example["inputs"]
    if isinstance(example, dict):
        names, example = example.get("columns"), example.get("data")
    if not isinstance(names, list) or not isinstance(example, list):
        raise _unreadable(f"{path} holds no rows")
    by_name = {field.name: field for field in contract.inputs}
    rows = []
    for number, values in enumerate(example[:N_EXAMPLES]):
        if not isinstance(values, list) or len(values) != len(names):
            raise _unreadable(f"row {number} of {path} has not one value for each of its columns")
        row = dict(zip(map(str, names), values, strict=True))
        rows.append({name: _as_sent(by_name[name], row.get(name)) for name in by_name})
    return tuple(rows)


def _as_sent(field: InputField, value: Any) -> Any:
    """pandas writes a whole number as a float when its column could hold none."""
    if field.dtype == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _unreadable(why: str) -> MlmodelUnreadable:
    return MlmodelUnreadable(why, remedy="name the folder, or the version, that holds the MLmodel file")


def _unusable(why: str, field: str) -> SignatureUnusable:
    return SignatureUnusable(
        f"the signature makes no contract: {why}",
        remedy="log the model again with a signature of named numeric columns",
        field=field,
    )
