"""The model package: everything serving needs, as immutable bytes under one digest.

A package is an OCI image manifest with ModelPack media types, so any OCI registry can carry it and any OCI
tool can look into it. Its digest is the digest of the manifest; the manifest names every layer by digest; so
one string pins every byte, and the same string is approved, promoted and served in each environment.

    manifest ──> config       ModelPack's own description (name, formats, layer digests)
             └─> layers       package.json      `PackageConfig`: contract, provenance, forms
                              model/...         the weights, first form first
                              golden.json       rows with the answers they must give
                              profile.json, environment.lock, code.tar, include/...

Building is a pure function: no time, no host, no user, no compression, everything sorted. The same inputs
give the same digest on every machine; what is known only later (signatures, evidence, approvals) refers to
the digest from outside. Formats are an allowlist. A pickle is refused at both ends, because reading one runs it.
"""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lockgate.core.blobs import BlobCorrupt, BlobMissing, BlobStore
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.core.errors import Corrupt, Invalid, NotFound, Unsupported, did_you_mean
from lockgate.registry.packages.contract import ModelContract

PACKAGE_SCHEMA = "lockgate.package/1"
GOLDEN_SCHEMA = "lockgate.golden/1"
FORMATS = frozenset({"onnx", "lightgbm-text"})

CONFIG_PATH = "package.json"
GOLDEN_PATH = "golden.json"
PROFILE_PATH = "profile.json"
ENVIRONMENT_PATH = "environment.lock"
CODE_PATH = "code.tar"
ONNX_PATH = "model/model.onnx"
LIGHTGBM_PATH = "model/model.txt"
INCLUDE_PREFIX = "include/"

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
_TITLE = "org.opencontainers.image.title"
_FILEPATH = "org.cncf.model.filepath"
_LAYER_TYPES = {
    CONFIG_PATH: "application/vnd.lockgate.package.v1+json",
    GOLDEN_PATH: "application/vnd.lockgate.golden.v1+json",
    PROFILE_PATH: "application/vnd.lockgate.profile.v1+json",
    ENVIRONMENT_PATH: "application/vnd.lockgate.environment.v1+text",
    CODE_PATH: "application/vnd.cncf.model.code.v1.tar",
}
_PREFIX_TYPES = {
    "model/": "application/vnd.cncf.model.weight.v1.raw",
    INCLUDE_PREFIX: "application/vnd.lockgate.include.v1.raw",
}
_PICKLE_PROTOCOLS = frozenset(bytes([number]) for number in range(2, 17))


class PackageInvalid(Invalid):
    """The parts given make no package: a file is missing, misplaced, or cannot be written down."""

    code = "registry.package-invalid"


class NotAPackage(Corrupt):
    """The bytes under the digest are intact, and no package this version of Lockgate can read."""

    code = "registry.not-a-package"


class NoSuchLayer(NotFound):
    code = "registry.no-such-layer"


class LayerCorrupt(BlobCorrupt):
    """A layer's bytes do not hash to the digest the manifest names. Facts: `path`, `digest`, `package`."""

    code = "registry.layer-corrupt"


class LayerMissing(BlobMissing):
    code = "registry.layer-missing"


class FormatRefused(Unsupported):
    """A model form outside the allowlist, or bytes that are a pickle whatever they are called."""

    code = "registry.format-refused"


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How OCI points at a blob. `size` in bytes."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = None
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An OCI image manifest, 1.1. `subject` makes it a referrer of another manifest."""

    schema_version: int = msgspec.field(name="schemaVersion")
    media_type: str
    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a package: its path inside, its OCI media type, its digest and size."""

    path: str
    media_type: str
    digest: Digest
    n_bytes: int


class ModelForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model in one format, and the layer that holds it."""

    format: str
    path: str


class KeyField(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column of an entity's key, and the type its values have in the online store."""

    name: str
    dtype: Literal["string", "int"]


class OnlineView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A feature view as serving reads it by entity key.

    Attributes:
        view: its semantic hash, by which the online store knows it.
        features: of a stored row's values, in their order; all of the view's, not only those the model takes.
        ttl_s: how long a row holds after its `event_at`; None for ever.
    """

    name: str
    view: Digest
    keys: tuple[KeyField, ...]
    features: tuple[str, ...]
    ttl_s: int | None = None


class ColumnUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """A column of a dataset that reaches a model, and how.

    Attributes:
        dataset: as the project calls it.
        how: `value` and `rows` were read from SQL, `whole` stands for SQL that could not be followed; `name` is a
            request input called like the column, `code` a file of the project's steps that names it.
    """

    dataset: str
    column: str
    how: Literal["value", "rows", "whole", "name", "code"]


class InputTrace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an input of a model comes from.

    Attributes:
        input: its name in the contract; empty for what code takes from the datasets by itself.
        source: `VIEW:FEATURE`, `request`, or the path of the code.
        columns: sorted.
    """

    input: str
    source: str
    columns: tuple[ColumnUse, ...]


class PackageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a package is and what it was made from, all in names and digests.

    Attributes:
        schema: the version of this struct on disk.
        model: full name, `main/flight-delay`.
        service, service_hash, views: the feature service, its hash, and the hash of each view it reads.
        forms: the model in one or more formats; the first answers, the others stand by.
        params, seeds, threads: what training was given; thread *settings* are recorded, never the host.
        code, closure: digest of the training code closure, and of each part of it by label.
        snapshots: the data, dataset name -> snapshot id.
        environment: digest of the environment lock.
        recipe: the model's section of the project file, as it was; of an imported one, where it comes from.
        online: the views again, as serving finds their rows by key; empty in packages of before that was possible.
        traces: from which columns of the data each input is made; empty in packages of before that was traced.
    """

    schema: str = PACKAGE_SCHEMA
    model: str
    contract: ModelContract
    service: str
    service_hash: str
    views: dict[str, str]
    forms: tuple[ModelForm, ...]
    params: dict[str, Any] = {}
    seeds: dict[str, int] = {}
    threads: dict[str, str] = {}
    code: Digest
    closure: dict[str, Digest] = {}
    snapshots: dict[str, Digest] = {}
    environment: Digest
    recipe: dict[str, Any] = {}
    online: tuple[OnlineView, ...] = ()
    traces: tuple[InputTrace, ...] = ()

    @property
    def imported(self) -> bool:
        """Whether it was made of what another system held, and not by a run of the project."""
        return "imported" in self.recipe


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows as a caller would send them, and what the primary form answers.

    They should include, for each input, a null and an unseen category: some conversions go wrong only there.

    Attributes:
        tolerance: the largest difference of an answer that still matches, for every form and machine.
    """

    schema: str = GOLDEN_SCHEMA
    rows: tuple[dict[str, Any], ...]
    predictions: tuple[float, ...]
    tolerance: float = 1e-6


class BuiltPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest and the blobs it needs, in memory. `digest` is the package's name from here on."""

    digest: Digest
    manifest: bytes
    blobs: dict[Digest, bytes]

    @property
    def descriptor(self) -> Descriptor:
        artifact_type = msgspec.json.decode(self.manifest, type=Manifest).artifact_type
        return Descriptor(
            media_type=MANIFEST_TYPE,
            digest=self.digest,
            size=len(self.manifest),
            artifact_type=artifact_type,
        )


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An opened package: what its manifest says. Its layers are read, and verified, one by one.

    Attributes:
        description: what it says of itself to other tools; a blob of the manifest and no file of the package.
    """

    digest: Digest
    config: PackageConfig
    layers: tuple[Layer, ...]
    description: Layer

    def layer(self, path: str) -> Layer:
        for layer in self.layers:
            if layer.path == path:
                return layer
        raise NoSuchLayer(
            f"package {self.digest} has no {path!r}",
            remedy=did_you_mean(path, [layer.path for layer in self.layers]),
            package=self.digest,
            path=path,
        )

    def read(self, path: str, blobs: BlobStore) -> bytes:
        """The bytes of one file, verified.

        Raises:
            NoSuchLayer: the package has no such path.
            LayerCorrupt, LayerMissing: name the blob and the path.
        """
        return _read_layer(self.layer(path), self.digest, blobs)

    def check_description(self, blobs: BlobStore) -> None:
        """Raises `LayerCorrupt` or `LayerMissing` when the description is not what the manifest names."""
        _read_layer(self.description, self.digest, blobs)


def build_package(config: PackageConfig, files: Mapping[str, bytes]) -> BuiltPackage:
    """Put a package together.

    Args:
        config: becomes `package.json`.
        files: path -> bytes; every form's path and `golden.json` must be among them. The other known paths
            are the module's constants, `model/...` and `include/...`.

    Raises:
        PackageInvalid: something is missing, misplaced, or not expressible in JSON.
        FormatRefused: a form is not on the allowlist, or is a pickle.
    """
    _check_config(config)
    for form in config.forms:
        if form.path not in files:
            raise _invalid(f"the {form.format} form names {form.path!r}, which was not given", path=form.path)
        check_form(form, files[form.path])
    if GOLDEN_PATH not in files:
        raise _invalid(f"{GOLDEN_PATH} was not given", path=GOLDEN_PATH)
    if CONFIG_PATH in files:
        raise _invalid(f"{CONFIG_PATH} is written by Lockgate", path=CONFIG_PATH)
    contents = {CONFIG_PATH: canonical(config), **files}
    first = {form.path: place for place, form in enumerate(config.forms)}
    paths = sorted(contents, key=lambda path: (path != CONFIG_PATH, first.get(path, len(first)), path))
    layers = tuple(
        Descriptor(
            media_type=_layer_type(path),
            digest=sha256(contents[path]),
            size=len(contents[path]),
            annotations={_TITLE: path, _FILEPATH: path},
        )
        for path in paths
    )
    description = canonical(
        {
            "descriptor": {"name": config.model},
            "config": {"format": config.forms[0].format},
            "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
        }
    )
    manifest = canonical(
        Manifest(
            schema_version=2,
            media_type=MANIFEST_TYPE,
            artifact_type=ARTIFACT_TYPE,
            config=Descriptor(media_type=_CONFIG_TYPE, digest=sha256(description), size=len(description)),
            layers=layers,
        )
    )
    blobs = {sha256(data): data for data in (description, *contents.values())}
    return BuiltPackage(digest=sha256(manifest), manifest=manifest, blobs=blobs)


def store_package(built: BuiltPackage, blobs: BlobStore) -> Digest:
    """Store all blobs, the manifest last: whoever finds the manifest finds everything. Returns the digest."""
    for digest in sorted(built.blobs):
        blobs.put(built.blobs[digest])
    return blobs.put(built.manifest)


def open_package(digest: Digest, blobs: BlobStore) -> Package:
    """Read and verify the manifest and `package.json`; other layers are not touched.

    Raises:
        BlobMissing: there is no such manifest.
        BlobCorrupt, LayerCorrupt: bytes do not hash to their name.
        NotAPackage: the manifest is something else, or of a newer schema.
    """
    manifest = manifest_of(blobs.get(digest), digest)
    if manifest.artifact_type != ARTIFACT_TYPE:
        raise _not_a_package(digest, f"its artifact type is {manifest.artifact_type}")
    layers = tuple(_layer(descriptor, digest) for descriptor in manifest.layers)
    found = [layer for layer in layers if layer.path == CONFIG_PATH]
    if len(found) != 1 or len({layer.path for layer in layers}) != len(layers):
        raise _not_a_package(digest, f"it must hold {CONFIG_PATH} once, and no path twice")
    text = _read_layer(found[0], digest, blobs)
    try:
        schema = msgspec.json.decode(text, type=_Schema).schema
        if schema != PACKAGE_SCHEMA:
            raise _not_a_package(digest, f"its schema is {schema!r}, this Lockgate reads {PACKAGE_SCHEMA!r}")
        config = msgspec.json.decode(text, type=PackageConfig)
    except (msgspec.MsgspecError, Invalid) as error:
        raise _not_a_package(digest, f"{CONFIG_PATH} cannot be read: {error}") from error
    described = manifest.config
    description = Layer(
        path="its description",
        media_type=described.media_type,
        digest=described.digest,
        n_bytes=described.size,
    )
    return Package(digest=digest, config=config, layers=layers, description=description)


def manifest_of(data: bytes, digest: Digest) -> Manifest:
    """Read the bytes of an OCI manifest. Raises `NotAPackage` when they are something else."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise _not_a_package(digest, f"it is no OCI manifest: {error}") from error


def check_form(form: ModelForm, data: bytes) -> None:
    """Refuse a model form that is not on the allowlist, or whose bytes are a pickle under another name.

    Raises:
        FormatRefused: facts `format` and `path`.
    """
    if form.format not in FORMATS:
        reason = f"the format {form.format!r} is not allowed"
    elif data[:1] == b"\x80" and data[1:2] in _PICKLE_PROTOCOLS:
        reason = "its bytes are a pickle, and reading a pickle runs it"
    elif form.format == "lightgbm-text" and not data.startswith(b"tree\n"):
        reason = "its bytes are no LightGBM text"
    else:
        return
    raise FormatRefused(
        f"{form.path}: {reason}",
        remedy=f"export the model in one of: {', '.join(sorted(FORMATS))}",
        format=form.format,
        path=form.path,
    )


def encode_golden(golden: Golden) -> bytes:
    """The bytes of `golden.json`. Raises `PackageInvalid` for rows or answers that JSON cannot hold."""
    if len(golden.rows) != len(golden.predictions) or not golden.rows:
        raise _invalid("golden rows need one answer each, and at least one row", path=GOLDEN_PATH)
    _check_json(msgspec.to_builtins(golden), "golden")
    return canonical(golden)


def decode_golden(data: bytes, package: Digest) -> Golden:
    """The golden rows of a package. Raises `NotAPackage` when the bytes are something else."""
    try:
        golden = msgspec.json.decode(data, type=Golden)
    except msgspec.MsgspecError as error:
        raise _not_a_package(package, f"{GOLDEN_PATH} cannot be read: {error}") from error
    if golden.schema != GOLDEN_SCHEMA or len(golden.rows) != len(golden.predictions) or not golden.rows:
        raise _not_a_package(package, f"{GOLDEN_PATH} holds no rows with one answer each")
    return golden


def pack_tar(files: Mapping[str, bytes]) -> bytes:
    """A tar whose bytes depend on names and contents only: sorted, mode 0644, owner 0, time 0."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(files):
            _check_path(path)
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(files[path]), 0o644
            archive.addfile(entry, io.BytesIO(files[path]))
    return buffer.getvalue()


def unpack_tar(data: bytes) -> dict[str, bytes]:
    """Inverse of `pack_tar`, in memory.

    Raises:
        PackageInvalid: no tar, or it holds anything but plain files at relative paths, each once.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is None or entry.name in files:
                    raise _invalid(f"{entry.name!r} in the archive is no plain file", path=entry.name)
                _check_path(entry.name)
                files[entry.name] = content.read()
    except tarfile.TarError as error:
        raise _invalid(f"the bytes are no tar: {error}", path=CODE_PATH) from error
    return files


class _Schema(msgspec.Struct):
    schema: str


def _check_config(config: PackageConfig) -> None:
    if config.schema != PACKAGE_SCHEMA:
        raise _invalid(f"schema {config.schema!r} cannot be written", path=CONFIG_PATH)
    if not config.forms:
        raise _invalid("a package needs at least one form of the model", path=CONFIG_PATH)
    if len({form.format for form in config.forms}) != len(config.forms):
        raise _invalid("two forms have the same format", path=CONFIG_PATH)
    for part in ("params", "recipe"):
        _check_json(getattr(config, part), part)


def _check_json(value: Any, where: str) -> None:
    """Refuse what canonical JSON would change silently (NaN, objects) and load back as something else."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _invalid(f"{where}: the key {key!r} is no text", path=where)
            _check_json(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            _check_json(item, f"{where}[{place}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _invalid(f"{where} is {value}, which JSON cannot hold", path=where)
    elif not isinstance(value, (str, int, type(None))):
        raise _invalid(f"{where} is a {type(value).__name__}, which JSON cannot hold", path=where)


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise _invalid(f"{path!r} is no relative path", path=path)


def _layer_type(path: str) -> str:
    _check_path(path)
    for prefix, media_type in _PREFIX_TYPES.items():
        if path.startswith(prefix):
            return media_type
    if path not in _LAYER_TYPES:
        known = [*_LAYER_TYPES, ONNX_PATH, LIGHTGBM_PATH, INCLUDE_PREFIX + path]
        raise PackageInvalid(
            f"a package has no place for {path!r}", remedy=did_you_mean(path, known), path=path
        )
    return _LAYER_TYPES[path]


def path_of(descriptor: Descriptor) -> str | None:
    """Where a layer belongs inside its package."""
    return descriptor.annotations.get(_TITLE)


def _layer(descriptor: Descriptor, package: Digest) -> Layer:
    path = path_of(descriptor)
    if path is None:
        raise _not_a_package(package, f"layer {descriptor.digest} has no title")
    return Layer(
        path=path, media_type=descriptor.media_type, digest=descriptor.digest, n_bytes=descriptor.size
    )


def _read_layer(layer: Layer, package: Digest, blobs: BlobStore) -> bytes:
    facts = {"path": layer.path, "digest": layer.digest, "package": package}
    try:
        data = blobs.get(layer.digest)
    except BlobMissing as error:
        raise LayerMissing(
            f"{layer.path} of package {package} is missing: no blob {layer.digest}",
            remedy="copy the package into this store again",
            **facts,
        ) from error
    except BlobCorrupt as error:
        raise LayerCorrupt(
            f"{layer.path} of package {package} is damaged: its bytes do not hash to {layer.digest}",
            remedy=error.remedy,
            **facts,
        ) from error
    if len(data) != layer.n_bytes:
        raise _not_a_package(
            package, f"{layer.path} has {len(data)} bytes, the manifest says {layer.n_bytes}"
        )
    return data


def _invalid(message: str, **facts: Any) -> PackageInvalid:
    return PackageInvalid(message, remedy="correct what is put into the package and build it again", **facts)


def _not_a_package(digest: Digest, why: str) -> NotAPackage:
    return NotAPackage(
        f"{digest} is no model package: {why}",
        remedy="check the digest; a package of a newer schema needs a newer Lockgate",
        package=digest,
    )
