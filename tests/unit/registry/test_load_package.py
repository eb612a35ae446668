from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from lockgate.adapters.identity.keys import SigningKey
from lockgate.core.blobs import BlobCorrupt, BlobMissing
from lockgate.core.digests import canonical
from lockgate.registry.packages.contract import RowEncoder
from lockgate.registry.packages.load import EngineMissing, GoldenMismatch, LoadedPackage, load_package
from lockgate.registry.packages.package import (
    GOLDEN_PATH,
    LIGHTGBM_PATH,
    ONNX_PATH,
    BuiltPackage,
    FormatRefused,
    Golden,
    ModelForm,
    NoSuchLayer,
    NotAPackage,
    build_package,
    decode_golden,
    encode_golden,
    open_package,
    store_package,
)
from lockgate.registry.packages.ports import Engine, ModelUnusable
from lockgate.registry.packages.signing import SignatureInvalid, signature_envelope
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.packages import (
    CONTRACT,
    ROWS,
    TinyEngine,
    package_config,
    package_files,
    tiny_model,
    tiny_package,
)

ENGINES = {"onnx": TinyEngine()}
BOTH = (ModelForm(format="onnx", path=ONNX_PATH), ModelForm(format="lightgbm-text", path=LIGHTGBM_PATH))


class TextEngine(TinyEngine):
    """Reads the weights behind the first line, which makes it look like LightGBM's text."""

    def load(self, model: bytes, contract: Any) -> Any:
        return super().load(model.removeprefix(b"tree\n"), contract)


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


def _load(
    built: BuiltPackage,
    key: SigningKey,
    *,
    blobs: MemoryBlobs | None = None,
    engines: Mapping[str, Engine] = ENGINES,
) -> LoadedPackage:
    if blobs is None:
        blobs = MemoryBlobs()
        store_package(built, blobs)
    envelope = signature_envelope(built.digest, key, model="main/flight-delay")
    return load_package(built.digest, blobs, [envelope], [key.public], engines)


def test_a_sound_package_answers(key: SigningKey) -> None:
    built = tiny_package()
    loaded = _load(built, key)
    assert (loaded.digest, loaded.signed_by) == (built.digest, key.key_id)
    assert loaded.config == package_config()
    assert loaded.fallback_predictor is None
    answers = loaded.predictor.predict(loaded.encoder.encode(ROWS))
    np.testing.assert_allclose(answers, loaded.golden.predictions, rtol=0, atol=loaded.golden.tolerance)


def test_a_flipped_byte_in_any_blob_is_refused_and_named(key: SigningKey) -> None:
    built = tiny_package()
    paths = {layer.digest: layer.path for layer in _package(built).layers}
    for digest in [*paths, built.digest]:
        for position in (0, -1):
            blobs = MemoryBlobs()
            store_package(built, blobs)
            blobs.flip_byte(digest, position)
            with pytest.raises(BlobCorrupt) as caught:
                _load(built, key, blobs=blobs)
            assert digest in caught.value.message
            assert caught.value.facts["digest"] == digest
            assert paths.get(digest, "") in caught.value.message
        blobs.delete(digest)
        with pytest.raises(BlobMissing, match=digest):
            _load(built, key, blobs=blobs)


def _package(built: BuiltPackage) -> Any:
    blobs = MemoryBlobs()
    store_package(built, blobs)
    return open_package(built.digest, blobs)


def test_without_a_trusted_signature_nothing_is_read(key: SigningKey) -> None:
    class Untouched(MemoryBlobs):
        def get(self, digest: str) -> bytes:
            pytest.fail("read before the signature was checked")

    digest, stranger = tiny_package().digest, SigningKey.generate()
    good = signature_envelope(digest, key, model="m")
    elsewhere = signature_envelope(tiny_package(seeds={"train": 8}).digest, key, model="m")
    cases: list[tuple[list[bytes], list[Any], str]] = [
        ([], [key.public], "missing"),
        ([signature_envelope(digest, stranger, model="m")], [key.public], "untrusted-key"),
        ([elsewhere], [key.public], "other-subject"),
        ([good], [], "no-trust-root"),
        ([good[:-1]], [key.public], "malformed"),
    ]
    for envelopes, verifiers, reason in cases:
        with pytest.raises(SignatureInvalid) as caught:
            load_package(digest, Untouched(), envelopes, verifiers, ENGINES)
        assert caught.value.facts["reason"] == reason


def _rewritten(built: BuiltPackage, path: str, data: bytes, **config: Any) -> tuple[str, MemoryBlobs]:
    """A package somebody else built: another layer, or another config, under a manifest that fits."""
    blobs = MemoryBlobs()
    store_package(built, blobs)
    manifest = json.loads(built.manifest)
    changed = {path: data}
    if config:
        package = json.loads(_package(built).read("package.json", blobs)) | config
        changed["package.json"] = canonical(package)
    for layer in manifest["layers"]:
        title = layer["annotations"]["org.opencontainers.image.title"]
        if title in changed:
            layer |= {"digest": blobs.put(changed[title]), "size": len(changed[title])}
    return blobs.put(canonical(manifest)), blobs


@pytest.mark.parametrize(
    ("data", "config", "words"),
    [
        (b"\x80\x04\x95", {}, "pickle"),
        (b"[1.0]", {"forms": [{"format": "joblib", "path": ONNX_PATH}]}, "'joblib' is not allowed"),
        (b"cos\nsystem", {"forms": [{"format": "pickle", "path": ONNX_PATH}]}, "'pickle' is not allowed"),
    ],
)
def test_a_signed_package_of_a_foreign_format_is_still_refused(
    key: SigningKey, data: bytes, config: dict[str, Any], words: str
) -> None:
    digest, blobs = _rewritten(tiny_package(), ONNX_PATH, data, **config)
    envelope = signature_envelope(digest, key, model="m")
    with pytest.raises(FormatRefused, match=words):
        load_package(digest, blobs, [envelope], [key.public], ENGINES | {"joblib": TinyEngine("joblib")})


def test_a_form_without_its_layer_and_rubbish_golden_rows_are_refused(key: SigningKey) -> None:
    digest, blobs = _rewritten(
        tiny_package(), ONNX_PATH, tiny_model(), forms=[{"format": "onnx", "path": "model/x"}]
    )
    with pytest.raises(NoSuchLayer, match="model/x"):
        load_package(digest, blobs, [signature_envelope(digest, key, model="m")], [key.public], ENGINES)
    digest, blobs = _rewritten(tiny_package(), GOLDEN_PATH, b"{}")
    with pytest.raises(NotAPackage, match=r"golden\.json"):
        load_package(digest, blobs, [signature_envelope(digest, key, model="m")], [key.public], ENGINES)


def test_a_model_that_answers_differently_is_refused(key: SigningKey) -> None:
    files = package_files() | {ONNX_PATH: tiny_model((0.00001, 0.01, 0.1, 0.2001))}
    with pytest.raises(GoldenMismatch, match="golden row 0 must give") as caught:
        _load(build_package(package_config(), files), key)
    assert caught.value.facts["row"] == 0
    assert caught.value.facts["format"] == "onnx"


def test_nan_is_never_a_match(key: SigningKey) -> None:
    class Nan(TinyEngine):
        def load(self, model: bytes, contract: Any) -> Any:
            return self

        def predict(self, matrix: Any) -> Any:
            return np.full(len(matrix), np.nan)

    with pytest.raises(GoldenMismatch, match="gave nan"):
        _load(tiny_package(), key, engines={"onnx": Nan()})


def test_golden_rows_the_contract_refuses_are_a_mismatch(key: SigningKey) -> None:
    golden = encode_golden(Golden(rows=({"distance": -1.0},), predictions=(0.0,)))
    with pytest.raises(GoldenMismatch, match="a golden row is refused"):
        _load(build_package(package_config(), package_files() | {GOLDEN_PATH: golden}), key)


def test_a_model_that_does_not_fit_its_contract_is_refused(key: SigningKey) -> None:
    digest, blobs = _rewritten(tiny_package(), ONNX_PATH, tiny_model((1.0,)))
    with pytest.raises(ModelUnusable):
        load_package(digest, blobs, [signature_envelope(digest, key, model="m")], [key.public], ENGINES)


def _two_forms(text: bytes) -> BuiltPackage:
    return build_package(package_config(forms=BOTH), package_files() | {LIGHTGBM_PATH: text})


def test_the_second_form_stands_by_when_there_is_an_engine_for_it(key: SigningKey) -> None:
    built = _two_forms(b"tree\n" + tiny_model())
    engines: dict[str, Engine] = ENGINES | {"lightgbm-text": TextEngine("lightgbm-text")}
    loaded = _load(built, key, engines=engines)
    assert loaded.fallback_predictor is not None
    assert _load(built, key).fallback_predictor is None
    with pytest.raises(EngineMissing, match="'onnx'"):
        _load(built, key, engines={"lightgbm-text": TextEngine()})
    wrong = _two_forms(b"tree\n" + tiny_model((0.1, 0.1, 0.1, 0.1)))
    with pytest.raises(GoldenMismatch, match=LIGHTGBM_PATH):
        _load(wrong, key, engines=engines)


def test_golden_rows_survive_their_file_exactly() -> None:
    golden = Golden(rows=ROWS, predictions=(0.1 + 0.2, 1 / 3, 5e-324))
    assert decode_golden(encode_golden(golden), "sha256:x") == golden
    assert RowEncoder(CONTRACT).encode(golden.rows).shape == (3, 4)
