"""The bill of materials against the schema that ships with cyclonedx-python-lib."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema
import msgspec
import pytest
import referencing

from lockgate.core.digests import canonical, sha256
from lockgate.registry.packages.lock import Pinned
from lockgate.registry.packages.package import Package, open_package, store_package
from lockgate.registry.sbom import bill_of_materials
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.packages import tiny_package

LOCK = (
    Pinned("numpy", "2.0.0", ("sha256:" + "a" * 64, "sha256:" + "b" * 64), 'python_version < "3.12"'),
    Pinned("numpy", "2.0.0", ("sha256:" + "a" * 64,), 'python_version >= "3.12"'),
    Pinned("torch", "2.5.1+cpu"),
)


def _schema(name: str) -> Any:
    folder = resources.files("cyclonedx.schema") / "_res"
    return json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text())


@pytest.fixture(scope="module")
def validator() -> Any:
    known = referencing.Registry()
    for name in ("spdx", "jsf-0.82"):
        contents = _schema(name)
        known = known.with_resource(contents["$id"], referencing.Resource.from_contents(contents))
    return jsonschema.Draft7Validator(_schema("bom-1.6"), registry=known)


@pytest.fixture
def package() -> Package:
    blobs = MemoryBlobs()
    return open_package(store_package(tiny_package(), blobs), blobs)


def test_it_keeps_to_the_schema(validator: Any, package: Package) -> None:
    document = json.loads(canonical(bill_of_materials(package, LOCK, version="1.4.2")))
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []
    # The validator does look: a type that CycloneDX does not know is found.
    document["components"][0]["type"] = "model"
    assert not validator.is_valid(document)


def test_it_names_what_is_inside_and_guesses_nothing(package: Package) -> None:
    document = bill_of_materials(package, LOCK, version="1.4.2")
    model = document["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model", "main/flight-delay", "1.4.2"
    )  # fmt: skip
    assert model["hashes"] == [{"alg": "SHA-256", "content": package.digest[7:]}]
    assert {one["name"]: one["hashes"][0]["content"] for one in model["components"]} == {
        layer.path: layer.digest[7:] for layer in package.layers
    }
    by_ref = {one["bom-ref"]: one for one in document["components"]}
    numpy = by_ref["pkg:pypi/numpy@2.0.0"]
    assert [one["content"][0] for one in numpy["hashes"]] == ["a", "b"] and len(numpy["properties"]) == 2
    assert by_ref["pkg:pypi/torch@2.5.1%2Bcpu"]["version"] == "2.5.1+cpu"
    data = [one for one in document["components"] if one["type"] == "data"]
    assert {one["version"] for one in data} == {
        sha256(b"flights"),
        sha256(b"view flights"),
        sha256(b"view weather"),
    }
    (snapshot,) = model["modelCard"]["modelParameters"]["datasets"]
    assert by_ref[snapshot["ref"]]["name"] == "main/flights"
    assert document["dependencies"] == [{"ref": model["bom-ref"], "dependsOn": sorted(by_ref)}]
    assert not {"licenses", "supplier", "author", "timestamp"} & {*model, *numpy, *document["metadata"]}


def test_the_same_package_gives_the_same_bytes_and_another_another_number(package: Package) -> None:
    first = bill_of_materials(package, LOCK, version="1.0.0")
    assert canonical(first) == canonical(bill_of_materials(package, tuple(reversed(LOCK)), version="1.0.0"))
    other = msgspec.structs.replace(package, digest=sha256(b"other"))
    assert bill_of_materials(other, LOCK, version="1.0.0")["serialNumber"] != first["serialNumber"]
