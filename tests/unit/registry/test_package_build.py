from __future__ import annotations

import json
import math
import pickle
from typing import Any

import msgspec
import pytest

from lockgate.core.blobs import BlobCorrupt, BlobMissing
from lockgate.core.digests import canonical, sha256
from lockgate.registry.packages.package import (
    CODE_PATH,
    CONFIG_PATH,
    GOLDEN_PATH,
    ONNX_PATH,
    FormatRefused,
    Golden,
    LayerCorrupt,
    LayerMissing,
    ModelForm,
    NoSuchLayer,
    NotAPackage,
    PackageInvalid,
    build_package,
    encode_golden,
    open_package,
    pack_tar,
    store_package,
    unpack_tar,
)
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.packages import package_config, package_files, tiny_model, tiny_package


def test_building_twice_gives_the_same_digest() -> None:
    first = build_package(package_config(), package_files())
    files = dict(reversed(package_files().items()))
    config = package_config(params={"learning_rate": 0.1, "rounds": 20})
    second = build_package(config, files)
    assert first == second
    assert first.digest == sha256(first.manifest)


def test_what_was_stored_is_opened() -> None:
    blobs, built = MemoryBlobs(), tiny_package()
    assert store_package(built, blobs) == built.digest
    package = open_package(built.digest, blobs)
    assert package.config == package_config()
    assert {layer.path: package.read(layer.path, blobs) for layer in package.layers} == {
        CONFIG_PATH: canonical(package_config()),
        **package_files(),
    }
    assert package.layer(ONNX_PATH).n_bytes == len(tiny_model())
    with pytest.raises(NoSuchLayer, match=r"model/model\.txt") as caught:
        package.read("model/model.txt", blobs)
    assert ONNX_PATH in caught.value.remedy


def test_the_manifest_is_what_oci_and_modelpack_readers_expect() -> None:
    files = package_files() | {CODE_PATH: pack_tar({"a.py": b""}), "include/notes.txt": b"n"}
    built = build_package(package_config(), files)
    manifest = json.loads(built.manifest)
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    paths = [layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]]
    assert paths == [
        "package.json",
        "model/model.onnx",
        "code.tar",
        "environment.lock",
        "golden.json",
        "include/notes.txt",
    ]
    types = {layer["mediaType"].rsplit("/", 1)[1] for layer in manifest["layers"]}
    assert {"vnd.cncf.model.weight.v1.raw", "vnd.cncf.model.code.v1.tar"} <= types
    config = json.loads(built.blobs[manifest["config"]["digest"]])
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    for pointer in (manifest["config"], *manifest["layers"]):
        assert sha256(built.blobs[pointer["digest"]]) == pointer["digest"]
        assert len(built.blobs[pointer["digest"]]) == pointer["size"]
    assert set(built.blobs) == {pointer["digest"] for pointer in (manifest["config"], *manifest["layers"])}
    descriptor = built.descriptor
    assert (descriptor.digest, descriptor.size) == (built.digest, len(built.manifest))


def test_the_manifest_is_stored_last() -> None:
    class Recording(MemoryBlobs):
        def put(self, data: bytes) -> str:
            order.append(sha256(data))
            return super().put(data)

    order: list[str] = []
    built = tiny_package()
    store_package(built, Recording())
    assert order[-1] == built.digest
    assert set(order[:-1]) == set(built.blobs)


def test_a_flipped_byte_in_any_blob_is_named() -> None:
    built = tiny_package()
    package = open_package(built.digest, _stored(built))
    for layer in package.layers:
        blobs = _stored(built)
        blobs.flip_byte(layer.digest)
        with pytest.raises(LayerCorrupt) as caught:
            open_package(built.digest, blobs).read(layer.path, blobs)
        assert caught.value.facts == {"path": layer.path, "digest": layer.digest, "package": built.digest}
        assert layer.path in caught.value.message
        assert layer.digest in caught.value.message
        blobs.delete(layer.digest)
        with pytest.raises(LayerMissing, match=layer.path):
            open_package(built.digest, blobs).read(layer.path, blobs)
    blobs = _stored(built)
    blobs.flip_byte(built.digest)
    with pytest.raises(BlobCorrupt, match=built.digest):
        open_package(built.digest, blobs)
    with pytest.raises(BlobMissing):
        open_package(built.digest, MemoryBlobs())


def _stored(built: Any) -> MemoryBlobs:
    blobs = MemoryBlobs()
    store_package(built, blobs)
    return blobs


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_under_any_name(protocol: int) -> None:
    data = pickle.dumps({"weights": [1.0]}, protocol=protocol)
    for form in (ModelForm(format="onnx", path=ONNX_PATH), ModelForm(format="lightgbm-text", path=ONNX_PATH)):
        with pytest.raises(FormatRefused, match="pickle"):
            build_package(package_config(forms=(form,)), package_files() | {ONNX_PATH: data})


@pytest.mark.parametrize("format", ["pickle", "joblib", "skops", "", "ONNX"])
def test_a_format_outside_the_list_is_refused(format: str) -> None:
    config = package_config(forms=(ModelForm(format=format, path=ONNX_PATH),))
    with pytest.raises(FormatRefused, match=repr(format)) as caught:
        build_package(config, package_files())
    assert "lightgbm-text, onnx" in caught.value.remedy


def test_old_pickles_are_no_lightgbm_text() -> None:
    form = ModelForm(format="lightgbm-text", path=ONNX_PATH)
    files = package_files() | {ONNX_PATH: pickle.dumps([1], protocol=0)}
    with pytest.raises(FormatRefused, match="no LightGBM text"):
        build_package(package_config(forms=(form,)), files)


@pytest.mark.parametrize(
    ("config", "files", "words"),
    [
        ({"forms": ()}, {}, "at least one form"),
        ({"forms": (ModelForm(format="onnx", path="model/x.onnx"),)}, {}, "model/x.onnx"),
        ({"params": {"a": [1.0, math.nan]}}, {}, "params.a[1] is nan"),
        ({"params": {"a": object()}}, {}, "params.a is a object"),
        ({"recipe": {1: 2}}, {}, "the key 1"),
        ({"schema": "lockgate.package/9"}, {}, "lockgate.package/9"),
        ({}, {"package.json": b"{}"}, "package.json"),
        ({}, {"goldn.json": b"{}"}, "goldn.json"),
        ({}, {"include/../../etc/passwd": b""}, "no relative path"),
        ({}, {"/include/x": b""}, "no relative path"),
        ({}, {"include/a\\b": b""}, "no relative path"),
    ],
    ids=repr,
)
def test_parts_that_make_no_package_are_refused(
    config: dict[str, Any], files: dict[str, bytes], words: str
) -> None:
    with pytest.raises(PackageInvalid) as caught:
        build_package(package_config(**config), package_files() | files)
    assert words in caught.value.message


def test_golden_rows_are_not_optional() -> None:
    files = package_files()
    del files[GOLDEN_PATH]
    with pytest.raises(PackageInvalid, match=r"golden\.json"):
        build_package(package_config(), files)
    with pytest.raises(PackageInvalid, match="one answer each"):
        encode_golden(Golden(rows=({"a": 1},), predictions=()))
    with pytest.raises(PackageInvalid, match="nan"):
        encode_golden(Golden(rows=({"a": 1},), predictions=(math.nan,)))


def test_other_things_under_a_digest_are_no_package() -> None:
    built = tiny_package()
    manifest = json.loads(built.manifest)
    others = {
        "no OCI manifest": b"hello",
        "artifact type": msgspec.json.encode(manifest | {"artifactType": "application/vnd.other"}),
        "once, and no path twice": msgspec.json.encode(manifest | {"layers": manifest["layers"] * 2}),
        "no title": msgspec.json.encode(
            manifest | {"layers": [{**manifest["layers"][0], "annotations": {}}, *manifest["layers"][1:]]}
        ),
        "bytes, the manifest says": msgspec.json.encode(
            manifest | {"layers": [{**manifest["layers"][0], "size": 1}, *manifest["layers"][1:]]}
        ),
    }
    for words, data in others.items():
        blobs = _stored(built)
        with pytest.raises(NotAPackage, match=words):
            open_package(blobs.put(data), blobs)


def test_a_newer_schema_is_named() -> None:
    blobs, built = MemoryBlobs(), tiny_package()
    store_package(built, blobs)
    newer = canonical(msgspec.to_builtins(package_config()) | {"schema": "lockgate.package/2", "new": 1})
    manifest = json.loads(built.manifest)
    manifest["layers"][0] |= {"digest": blobs.put(newer), "size": len(newer)}
    with pytest.raises(NotAPackage, match=r"lockgate\.package/2"):
        open_package(blobs.put(canonical(manifest)), blobs)


def test_a_tar_depends_on_names_and_contents_only() -> None:
    files = {"b/é.py": b"2", "a.py": b"1" * 1000, "c" * 150: b""}
    assert pack_tar(files) == pack_tar(dict(reversed(files.items())))
    assert unpack_tar(pack_tar(files)) == files
    assert unpack_tar(pack_tar({})) == {}
    with pytest.raises(PackageInvalid, match="no relative path"):
        pack_tar({"../a": b""})
    with pytest.raises(PackageInvalid, match="no tar"):
        unpack_tar(b"hello" * 200)
