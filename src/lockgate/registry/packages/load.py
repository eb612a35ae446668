"""From a digest to something that answers: the only way a package comes to run.

In this order, and nothing is skipped because something else went well:

    1. a trusted key vouches for the digest
    2. the manifest and every layer hash to their names
    3. every form is of an allowed format, and is no pickle
    4. the engine loads the primary form, and its inputs are the contract's
    5. the golden rows, encoded as requests are, give the answers written into the package

Steps 2 and 3 cover the forms that stand by too: a fallback is not found to be rotten when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest
from lockgate.core.errors import Corrupt, Unsupported
from lockgate.registry.packages.contract import InputRejected, RowEncoder
from lockgate.registry.packages.package import (
    GOLDEN_PATH,
    Golden,
    ModelForm,
    Package,
    PackageConfig,
    check_form,
    decode_golden,
    open_package,
)
from lockgate.registry.packages.ports import Engine, ModelUnusable, Predictor, Verifier
from lockgate.registry.packages.signing import verify_any


class EngineMissing(Unsupported):
    """No engine for the package's primary form was given."""

    code = "registry.engine-missing"


class GoldenMismatch(Corrupt):
    """The bytes are intact and answer differently here than where they were built.

    Facts: `format`, and where there is one the `row` and its `expected` and `actual` answers.
    """

    code = "registry.golden-mismatch"


@dataclass(frozen=True)
class LoadedPackage:
    """A verified package, ready to answer. Safe to share between threads.

    Attributes:
        signed_by: the id of the trusted key.
        predictor: the primary form.
        fallback_predictor: the next form for which an engine was given; None when there is none.
        encoder: turns requests into the matrix both predictors take.
    """

    digest: Digest
    config: PackageConfig
    signed_by: str
    predictor: Predictor
    fallback_predictor: Predictor | None
    golden: Golden
    encoder: RowEncoder


def load_package(
    digest: Digest,
    blobs: BlobStore,
    signatures: Sequence[bytes],
    verifiers: Sequence[Verifier],
    engines: Mapping[str, Engine],
) -> LoadedPackage:
    """Load a package, or say why not.

    Args:
        digest: of the package's manifest; everything else follows from it.
        signatures: DSSE envelopes; one by a trusted key is enough.
        verifiers: the keys that are trusted here. With none, nothing loads.
        engines: by format. The primary form needs one; a form that stands by is loaded when there is one.

    Raises:
        SignatureInvalid: nobody trusted vouches for this digest. Nothing was read.
        BlobMissing, BlobCorrupt: with the blob's digest, and for a layer its path.
        NotAPackage, FormatRefused, EngineMissing, ModelUnusable, GoldenMismatch.
    """
    signed_by = verify_any(signatures, digest, verifiers)
    package = open_package(digest, blobs)
    models, golden = _verified_layers(package, blobs)
    config = package.config
    primary, *others = config.forms
    if primary.format not in engines:
        raise EngineMissing(
            f"package {digest} answers in {primary.format!r}, and there is no engine for it",
            remedy=f"install the engine for {primary.format!r}",
            format=primary.format,
            package=digest,
        )
    encoder = RowEncoder(config.contract)

    def load(form: ModelForm) -> Predictor:
        predictor = engines[form.format].load(models[form.path], config.contract)
        _replay(golden, form, predictor, encoder, digest)
        return predictor

    standby = next((form for form in others if form.format in engines), None)
    return LoadedPackage(
        digest=digest,
        config=config,
        signed_by=signed_by,
        predictor=load(primary),
        fallback_predictor=None if standby is None else load(standby),
        golden=golden,
        encoder=encoder,
    )


def _verified_layers(package: Package, blobs: BlobStore) -> tuple[dict[str, bytes], Golden]:
    """Read and hash every layer; keep the bytes of the model forms only."""
    wanted = {form.path for form in package.config.forms} | {GOLDEN_PATH}
    kept: dict[str, bytes] = {}
    package.check_description(blobs)
    for layer in package.layers:
        data = package.read(layer.path, blobs)
        if layer.path in wanted:
            kept[layer.path] = data
    for path in wanted:
        package.layer(path)
    for form in package.config.forms:
        check_form(form, kept[form.path])
    return kept, decode_golden(kept.pop(GOLDEN_PATH), package.digest)


def _replay(
    golden: Golden, form: ModelForm, predictor: Predictor, encoder: RowEncoder, digest: Digest
) -> None:
    try:
        answers = predictor.predict(encoder.encode(golden.rows))
    except InputRejected as error:
        raise _mismatch(digest, form, f"a golden row is refused: {error.message}") from error
    except ModelUnusable as error:
        raise _mismatch(digest, form, f"the golden rows cannot be answered: {error.message}") from error
    expected = np.array(golden.predictions)
    if answers.shape != expected.shape:
        raise _mismatch(digest, form, f"{len(golden.rows)} golden rows got answers of shape {answers.shape}")
    # Written so that NaN is a mismatch too.
    wrong = np.flatnonzero(~(np.abs(answers - expected) <= golden.tolerance))
    if len(wrong):
        row = int(wrong[0])
        raise _mismatch(
            digest,
            form,
            f"golden row {row} must give {golden.predictions[row]!r} and gave {float(answers[row])!r}",
            row=row,
            expected=golden.predictions[row],
            actual=repr(float(answers[row])),
        )


def _mismatch(digest: Digest, form: ModelForm, why: str, **facts: Any) -> GoldenMismatch:
    return GoldenMismatch(
        f"{form.path} of package {digest}: {why}",
        remedy="compare the engine's version with the package's environment lock; do not serve it",
        package=digest,
        format=form.format,
        **facts,
    )
