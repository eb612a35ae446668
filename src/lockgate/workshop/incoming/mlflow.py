"""An MLflow model becomes a signed package, and a version in its first state.

What another registry says of a model (its stage, its alias, its metrics) is written down and decides nothing: the
version is a `candidate`, and its way to an environment is that of every other version.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from lightgbm import Booster

from lockgate.adapters.engines.adopt import adopt_onnx
from lockgate.adapters.engines.convert import lightgbm_to_onnx
from lockgate.adapters.imports.mlflow_model import (
    MLMODEL,
    N_EXAMPLES,
    REQUIREMENTS,
    ForeignModel,
    Mlmodel,
    ModelSource,
    SourceMissing,
    contract_of,
    example_rows,
    read_mlmodel,
    read_model,
)
from lockgate.adapters.runners.builtin import GOLDEN_TOLERANCE
from lockgate.adapters.runners.probe import PackageProbe
from lockgate.core.digests import Digest, canonical, digest_of, sha256
from lockgate.core.names import ModelName
from lockgate.gates.parity import probe_rows
from lockgate.registry.messages import Origin
from lockgate.registry.packages.contract import ModelContract, OutputField
from lockgate.registry.packages.package import (
    ENVIRONMENT_PATH,
    GOLDEN_PATH,
    INCLUDE_PREFIX,
    LIGHTGBM_PATH,
    ONNX_PATH,
    BuiltPackage,
    Golden,
    ModelForm,
    PackageConfig,
    build_package,
    encode_golden,
    store_package,
)
from lockgate.registry.packages.signing import signature_envelope, store_signature
from lockgate.workshop.config import ModelTable
from lockgate.workshop.premises import Premises

RECORD_SCHEMA = "lockgate.import/1"


class Incoming(NamedTuple):
    """A package that lies in the blob store, signed, and the record of where it comes from."""

    package: Digest
    signature: Digest
    record: Digest
    origin: Origin


class _Forms(NamedTuple):
    """A model's bytes by path, the first form first; `adapted` when ONNX got new edges."""

    contract: ModelContract
    forms: tuple[ModelForm, ...]
    files: dict[str, bytes]
    adapted: bool


def package_mlflow(
    premises: Premises, name: ModelName, source: ModelSource, table: ModelTable | None
) -> Incoming:
    """Read a model, package and sign it. The same model gives the same package.

    Args:
        table: what the project says of the model it becomes a version of; None to take that from the model.

    Raises:
        FlavorRefused, SignatureMissing, SignatureUnusable, MlmodelUnreadable: the model cannot be taken in.
        ConversionRefused, AdoptionRefused: it has no form that can be served.
    """
    described = read_mlmodel(source)
    origin = source.origin()
    built = _package(premises, described, source, name, origin, table)
    package = store_package(built, premises.blobs)
    record = premises.blobs.put(
        canonical({"schema": RECORD_SCHEMA, "model": str(name), "package": package, "origin": origin})
    )
    envelope = signature_envelope(package, premises.signer(), model=str(name))
    signature = store_signature(built.descriptor, envelope, premises.blobs).envelope
    return Incoming(package, signature, record, origin)


def _package(
    premises: Premises,
    described: Mlmodel,
    source: ModelSource,
    name: ModelName,
    origin: Origin,
    table: ModelTable | None,
) -> BuiltPackage:
    model = read_model(described, source)
    output = None if table is None else msgspec.convert(msgspec.to_builtins(table.output), OutputField)
    made = _onnx(described, model, output) if model.format == "onnx" else _lightgbm(described, model, output)
    requirements = _optional(source, REQUIREMENTS)
    files = {
        **made.files,
        GOLDEN_PATH: encode_golden(_golden(premises, described, source, made)),
        ENVIRONMENT_PATH: requirements,
        f"{INCLUDE_PREFIX}mlflow/{MLMODEL}": source.read(MLMODEL),
    }
    config = PackageConfig(
        model=str(name),
        contract=made.contract,
        service="",
        service_hash="",
        views={},
        forms=made.forms,
        params=dict(origin.params),
        code=digest_of({}),
        environment=digest_of(requirements.decode("utf-8", errors="replace")),
        recipe=_recipe(described, model, origin, made) | ({} if table is None else {"label": table.label}),
    )
    return build_package(config, files)


def _recipe(described: Mlmodel, model: ForeignModel, origin: Origin, made: _Forms) -> dict[str, Any]:
    """What the package says of its origin. A stage or an alias moves, so neither is part of the bytes."""
    return {
        "imported": {
            "system": origin.system,
            "uri": origin.uri,
            "run": origin.run or described.run_id or "",
            "metrics": origin.metrics,
            "flavor": model.flavor,
            "model_uuid": described.model_uuid or "",
            "mlflow_version": described.mlflow_version or "",
            "file": sha256(model.data),
            "adapted": made.adapted,
        }
    }


def _lightgbm(described: Mlmodel, model: ForeignModel, output: OutputField | None) -> _Forms:
    """The native text as it is, and ONNX made of it as training does."""
    booster = Booster(model_str=model.data.decode("utf-8", errors="replace"))
    contract = contract_of(described, model, output, booster.num_feature())
    return _Forms(
        contract,
        (ModelForm(format="onnx", path=ONNX_PATH), ModelForm(format="lightgbm-text", path=LIGHTGBM_PATH)),
        {
            ONNX_PATH: lightgbm_to_onnx(booster, len(contract.inputs)),
            LIGHTGBM_PATH: model.data,
        },
        adapted=False,
    )


def _onnx(described: Mlmodel, model: ForeignModel, output: OutputField | None) -> _Forms:
    drawn = contract_of(described, model, output)
    adopted = adopt_onnx(model.data, len(drawn.inputs))
    contract = contract_of(described, model._replace(output=adopted.kind), output)
    form = ModelForm(format="onnx", path=ONNX_PATH)
    return _Forms(contract, (form,), {ONNX_PATH: adopted.model}, adapted=adopted.changed)


def _golden(premises: Premises, described: Mlmodel, source: ModelSource, made: _Forms) -> Golden:
    """The rows of the input example, and the odd ones: nulls, unseen categories. What they give is computed here."""
    examples = example_rows(described, source, made.contract)
    rows = [*examples[:N_EXAMPLES], *(probe.row for probe in probe_rows(made.contract.inputs, examples[:1]))]
    primary = made.forms[0]
    engine = premises.tools().engines[primary.format]
    probe = PackageProbe(engine, made.files[primary.path], made.contract)
    return Golden(
        rows=tuple(dict(row) for row in rows),
        predictions=tuple(float(answer) for answer in probe.predict_rows(rows)),
        tolerance=GOLDEN_TOLERANCE,
    )


def _optional(source: ModelSource, path: str) -> bytes:
    try:
        return source.read(path)
    except SourceMissing:
        return b""
