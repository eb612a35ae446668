"""How the values that steps return become bytes, and values again.

The type of the value chooses the format, and equal values give equal bytes: `pyarrow.Table` -> Parquet with
fixed writer options, `numpy.ndarray` -> npy in C order, `lightgbm.Booster` -> its text form, numbers, text,
lists and dicts -> canonical JSON, `bytes` as they are. What a step gets is always read back from the bytes, also
when the step before it ran in the same process, so that cached and fresh inputs cannot differ.

Pickle is refused: it runs code when read, ties the artifact to the classes of the day, and its bytes change
with thread counts and object identity.
"""

from __future__ import annotations

import importlib
import io
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import canonical
from lockgate.core.errors import Invalid, Unsupported
from lockgate.pipeline.artifact import Artifact
from lockgate.registry.packages.contract import ModelContract

ROWS_PER_GROUP = 131_072
#: By library, what to return instead of its own types.
REMEDIES = {
    "pandas": "return pyarrow.Table.from_pandas(frame, preserve_index=False), or frame.to_numpy()",
    "polars": "return frame.to_arrow()",
    "sklearn": "return the model as ONNX bytes (skl2onnx.convert_sklearn(...).SerializeToString())",
    "lightgbm": "return the booster itself: model.booster_",
    "xgboost": "return bytes: bytes(model.save_raw('ubj'))",
    "torch": "return the model as ONNX bytes, or its weights as an array",
}


class NotStorable(Invalid):
    """A step returned a value for which there is no safe format."""

    code = "pipeline.not-storable"


class UnknownFormat(Unsupported):
    code = "pipeline.unknown-format"


def encode(value: object, *, step: str) -> tuple[str, bytes]:
    """The format and the bytes of what a step returned.

    Raises:
        NotStorable: the type has no format, or the value would not survive (NaN in JSON, object arrays); the
            remedy says what to return instead.
    """
    if isinstance(value, pa.Table):
        return "parquet", _parquet(value)
    if isinstance(value, np.ndarray):
        return "npy", _npy(value, step)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes", bytes(value)
    if isinstance(value, ModelContract):
        return "model-contract", canonical(value)
    kind = type(value)
    if kind.__name__ == "Booster" and kind.__module__.startswith("lightgbm."):
        booster: Any = value
        return "lightgbm-text", booster.model_to_string().encode()
    return "json", _json(value, step)


def store(value: object, blobs: BlobStore, *, step: str) -> Artifact:
    """Keep a value; the artifact returned is durable. Raises `NotStorable` and what `BlobStore.put` raises."""
    format, data = encode(value, step=step)
    return Artifact(digest=blobs.put(data), format=format, n_bytes=len(data))


def load(artifact: Artifact, blobs: BlobStore) -> object:
    """The value of an artifact. Raises `UnknownFormat`, and what `BlobStore.get` raises."""
    return decode(artifact.format, blobs.get(artifact.digest))


def decode(format: str, data: bytes) -> object:
    """Inverse of `encode`; tuples come back as lists, NumPy scalars as plain numbers."""
    if format == "parquet":
        return pq.read_table(pa.BufferReader(data))
    if format == "npy":
        return np.load(io.BytesIO(data), allow_pickle=False)
    if format == "json":
        return msgspec.json.decode(data)
    if format == "bytes":
        return data
    if format == "model-contract":
        return msgspec.json.decode(data, type=ModelContract)
    if format == "lightgbm-text":
        # By name: the library is optional and takes a second to import.
        lightgbm = importlib.import_module("lightgbm")  # noqa: TID251
        return lightgbm.Booster(model_str=data.decode())
    raise UnknownFormat(
        f"artifacts of format {format!r} cannot be loaded as values",
        remedy="take the artifact through a built-in step that knows the format",
        format=format,
    )


def _parquet(table: pa.Table) -> bytes:
    """Bytes that depend on the rows, not on how the table was chunked in memory."""
    out = io.BytesIO()
    pq.write_table(
        table.combine_chunks(),
        out,
        row_group_size=ROWS_PER_GROUP,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=True,
        write_statistics=True,
        store_schema=True,
    )
    return out.getvalue()


def _npy(array: np.ndarray[Any, Any], step: str) -> bytes:
    if array.dtype.hasobject:
        raise NotStorable(
            f"step {step} returned an array of Python objects",
            remedy="give the array a number or fixed-width text dtype, or return a pyarrow.Table",
            step=step,
            dtype=str(array.dtype),
        )
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return out.getvalue()


def _json(value: object, step: str) -> bytes:
    plain = _plain(value, step, "the result")
    data = canonical(plain)
    # NaN would silently come back as null, a very long integer as a float.
    if msgspec.json.decode(data) != plain:
        raise NotStorable(
            f"step {step} returned a value that JSON cannot hold: NaN, an infinity or a very large integer",
            remedy="return None where there is no number, or a numpy array",
            step=step,
        )
    return data


def _plain(value: object, step: str, where: str) -> object:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        item = value.item()
        if type(item) in (bool, int, float, str):
            return item
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str:
                raise NotStorable(
                    f"step {step} returned a dict whose key {key!r} is not text, in {where}",
                    remedy=f"use str({key!r}) as the key",
                    step=step,
                )
        return {key: _plain(item, step, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, step, f"{where}[{n}]") for n, item in enumerate(value)]
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    raise NotStorable(
        f"step {step} returned a {kind.__module__}.{kind.__qualname__} in {where}, and pickle is not used",
        remedy=REMEDIES.get(
            library,
            "return a pyarrow.Table, a numpy array, a lightgbm.Booster, bytes, or plain dicts and lists",
        ),
        step=step,
        type=f"{kind.__module__}.{kind.__qualname__}",
    )
