"""Judging a package: its model is loaded and asked, and the gates make evidence of the answers.

*Intrinsic* evidence is about the package alone. *Relative* evidence is about the package and what runs where it
wants to go: the same rows through both, in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from lockgate.adapters.runners.probe import PackageProbe
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, canonical
from lockgate.core.errors import did_you_mean
from lockgate.data.contract import ContractReport, DataContract
from lockgate.data.odcs import parse_contract
from lockgate.gates.calibration import calibration
from lockgate.gates.contract import data_contract
from lockgate.gates.evidence import Evidence, MissingInput, Subject, guarded_all, not_applicable
from lockgate.gates.features import ServedFeatures, features_compat
from lockgate.gates.latency import latency
from lockgate.gates.parity import golden_rows, runtime_parity
from lockgate.gates.performance import Floats, absolute, against_champion, no_baseline
from lockgate.gates.scans.dossier import dossier_complete
from lockgate.gates.scans.privacy import privacy_tags
from lockgate.gates.scans.security import AdvisoryFile, security_deps, security_format
from lockgate.gates.slices import MAX_SLICES, by_slice
from lockgate.registry.packages.package import (
    CODE_PATH,
    ENVIRONMENT_PATH,
    GOLDEN_PATH,
    INCLUDE_PREFIX,
    Package,
    decode_golden,
    open_package,
    unpack_tar,
)
from lockgate.registry.packages.ports import Engine

N_LATENCY_REQUESTS = 2000
_N_BASES = 8
_N_LATENCY_ROWS = 256


class CheckedDataset(msgspec.Struct, frozen=True, kw_only=True):
    """What the `contract` step leaves behind: which snapshot was checked, and how it fared."""

    dataset: str
    snapshot: Digest
    n_rows: int
    source: str
    transformation: Digest
    report: ContractReport


class Champion(NamedTuple):
    """What runs in the environment a version wants to enter.

    Attributes:
        rows: the evaluation rows in the same order, with the features of the champion's own definitions.
    """

    version: str
    package: Digest
    rows: pa.Table


class Judge:
    """Makes evidence on packages of a blob store; every record is stored as a blob of its own.

    A gate that cannot do its work, or whose model cannot be asked, leaves `error` evidence; the others still speak.

    Args:
        engines: inference by format.
    """

    def __init__(self, blobs: BlobStore, engines: Mapping[str, Engine]) -> None:
        self._blobs = blobs
        self._engines = engines

    def intrinsic(
        self,
        package: Digest,
        evaluation: pa.Table,
        *,
        dataset: Digest,
        checked: Sequence[CheckedDataset],
        limits: Mapping[str, Any],
        advisories: bytes | None = None,
    ) -> list[Evidence]:
        """Contracts kept, good enough, calibrated, both runtimes agree, golden rows repeated; nothing in it runs when
        it is read, its code has no known holes, personal data has a purpose, and what people must write is written.

        Args:
            evaluation: the rows to judge by, with the label; `dataset` is their digest.
            limits: by gate, as the project file sets them.
            advisories: the bytes of the file that `limits` names for `security.deps`.
        """
        opened = open_package(package, self._blobs)
        subject = Subject(inputs={"package": package, "dataset": dataset})
        found = [
            data_contract(one.report, subject=Subject(inputs={"package": package, "snapshot": one.snapshot}))
            for one in checked
        ]
        asked = self._asked(opened, evaluation)
        for gate in limits["perf.absolute"]:
            found += _guarded(
                "perf.absolute", gate["metric"], subject, partial(_good_enough, asked, gate, subject)
            )
        found += _calibrated(asked, limits["calibration"], subject)
        found += _guarded(
            "model.parity",
            "max_abs_difference",
            subject,
            lambda: _both_forms(asked, limits["model.parity"], subject),
        )
        found += _guarded(
            "model.infra",
            "max_abs_difference",
            subject,
            lambda: (self._golden(opened, asked.probe, subject),),
        )
        found += self._scanned(opened, limits, advisories)
        return self._kept(found)

    def _scanned(
        self, opened: Package, limits: Mapping[str, Any], advisories: bytes | None
    ) -> list[Evidence]:
        """What the package is made of, without asking its model."""
        subject, config = Subject(inputs={"package": opened.digest}), opened.config
        include = {layer.path.removeprefix(INCLUDE_PREFIX): layer.path for layer in opened.layers}

        def read(path: str) -> bytes:
            return opened.read(path, self._blobs)

        def files() -> list[tuple[str, bytes]]:
            return [(layer.path, read(layer.path)) for layer in opened.layers]

        def contracts() -> dict[str, DataContract]:
            packed = unpack_tar(read(CODE_PATH))
            tables = {name: table["contract"] for name, table in config.recipe.get("datasets", {}).items()}
            return {name: parse_contract(packed[path], where=path) for name, path in tables.items()}

        def section(path: str) -> bytes | None:
            return read(include[path]) if path in include else None

        return [
            security_format(files, config.forms, subject=subject),
            security_deps(
                lambda: read(ENVIRONMENT_PATH),
                _advisory_file(limits["security.deps"], advisories),
                subject=subject,
            ),
            privacy_tags(config.contract.inputs, config.traces, contracts, subject=subject),
            dossier_complete(
                config.recipe.get("dossier", {}),
                section,
                tier=limits["dossier.complete"]["tier"],
                subject=subject,
            ),
        ]

    def _golden(self, opened: Package, serving: PackageProbe, subject: Subject) -> Evidence:
        package = subject.inputs["package"]
        golden = decode_golden(opened.read(GOLDEN_PATH, self._blobs), package)
        return golden_rows(
            serving,
            golden.rows,
            np.array(golden.predictions),
            tolerance=golden.tolerance,
            package=package,
            subject=subject,
        )

    def relative(
        self,
        package: Digest,
        evaluation: pa.Table,
        *,
        dataset: Digest,
        environment: str,
        champion: Champion | None,
        limits: Mapping[str, Any],
        served: ServedFeatures | None = None,
    ) -> list[Evidence]:
        """Not worse than what runs in `environment`, for no slice of the rows either; its features are served as it
        learned them; and it is fast enough in the serving runtime.

        Args:
            served: the features there are to be served in `environment`; None when nobody can say, which is an error
                for a model that reads feature views.
        """
        opened = open_package(package, self._blobs)
        subject = Subject(inputs={"package": package, "dataset": dataset}, environment=environment)
        asked, other = self._asked(opened, evaluation), None
        if champion is not None:
            other = self._asked(open_package(champion.package, self._blobs), champion.rows)
        found = [
            *_against(asked, champion, other, limits["perf.vs_champion"], subject),
            *_by_slice(asked, champion, other, limits["perf.slices"], subject),
            features_compat(
                opened.config.contract.inputs,
                opened.config.views,
                served,
                keys={view.name: [key.name for key in view.keys] for view in opened.config.online},
                subject=subject,
            ),
            *_guarded("latency", "p99_us", subject, lambda: _latency(asked, limits["latency"], subject)),
        ]
        return self._kept(found)

    def _asked(self, opened: Package, rows: pa.Table) -> _Asked:
        def load(form: int) -> PackageProbe:
            chosen = opened.config.forms[form]
            model = opened.read(chosen.path, self._blobs)
            return PackageProbe(self._engines[chosen.format], model, opened.config.contract)

        return _Asked(opened, load, rows)

    def _kept(self, found: list[Evidence]) -> list[Evidence]:
        for item in found:
            self._blobs.put(canonical(item))
        return found


@dataclass(frozen=True)
class _Asked:
    """A model and the rows to ask it. It is loaded and asked when a gate wants that, and its failure is the gate's."""

    opened: Package
    load: Callable[[int], PackageProbe]
    rows: pa.Table

    @cached_property
    def probe(self) -> PackageProbe:
        """The form that serves."""
        return self.load(0)

    @cached_property
    def columns(self) -> dict[str, pa.ChunkedArray[Any]]:
        names = [field.name for field in self.opened.config.contract.inputs]
        missing = [name for name in names if name not in self.rows.column_names]
        if missing:
            raise MissingInput(
                f"the evaluation rows lack {', '.join(missing)}, which {self.opened.config.service} reads",
                remedy="keep the inputs of the live version in the evaluation set until it is replaced",
            )
        return {name: self.rows[name] for name in names}

    @cached_property
    def answers(self) -> Floats:
        return self.probe.predict_columns(self.columns)

    @cached_property
    def label(self) -> Floats:
        name = self.opened.config.recipe["label"]
        if name not in self.rows.column_names:
            raise MissingInput(
                f"the evaluation rows lack the label {name}",
                remedy=did_you_mean(name, self.rows.column_names),
            )
        return np.asarray(self.rows[name].to_numpy(zero_copy_only=False), dtype=np.float64)


def _advisory_file(limits: Mapping[str, Any] | None, data: bytes | None) -> AdvisoryFile | None:
    if limits is None:
        return None
    return AdvisoryFile(
        path=limits["advisories"],
        data=data,
        threshold=limits["severity"],
        older_than_days=limits["older_than_days"],
    )


def _guarded(
    gate: str, metric: str, subject: Subject, fn: Callable[[], Sequence[Evidence]]
) -> tuple[Evidence, ...]:
    return guarded_all(gate, metric, fn, subject=subject)


def _good_enough(asked: _Asked, limits: Mapping[str, Any], subject: Subject) -> Sequence[Evidence]:
    return (absolute(limits["metric"], asked.label, asked.answers, limits["limit"], subject=subject),)


def _calibrated(asked: _Asked, limits: Mapping[str, Any], subject: Subject) -> Sequence[Evidence]:
    output = asked.opened.config.contract.output
    if output.kind != "probability":
        why = f"{output.name} is a {output.kind}, not a probability"
        return (not_applicable("calibration", "gap", why, subject=subject),)
    low, high = limits["slope"]

    def judge() -> Sequence[Evidence]:
        return calibration(
            asked.label, asked.answers, max_gap=limits["max_gap"], slope=(low, high), subject=subject
        )

    return _guarded("calibration", "gap", subject, judge)


def _both_forms(asked: _Asked, limits: Mapping[str, Any], subject: Subject) -> Sequence[Evidence]:
    if len(asked.opened.config.forms) == 1:
        why = "the package holds the model in one form, so there is nothing that could differ"
        return (not_applicable("model.parity", "max_abs_difference", why, subject=subject),)
    return runtime_parity(
        asked.probe,
        asked.load(1),
        columns=asked.columns,
        inputs=asked.opened.config.contract.inputs,
        bases=asked.rows.select(list(asked.columns)).slice(0, _N_BASES).to_pylist(),
        tolerance=limits["tolerance"],
        subject=subject,
    )


def _against(
    asked: _Asked,
    champion: Champion | None,
    other: _Asked | None,
    limits: Mapping[str, Any],
    subject: Subject,
) -> Sequence[Evidence]:
    metric = limits["metric"]
    if champion is None or other is None:
        return (no_baseline(metric, subject=subject),)
    return _guarded(
        "perf.vs_champion",
        metric,
        subject,
        lambda: (
            against_champion(
                metric,
                asked.label,
                asked.answers,
                other.answers,
                limits["margin"],
                champion=champion.version,
                champion_digest=champion.package,
                subject=subject,
            ),
        ),
    )


def _by_slice(
    asked: _Asked,
    champion: Champion | None,
    other: _Asked | None,
    limits: Mapping[str, Any],
    subject: Subject,
) -> Sequence[Evidence]:
    """Slices of the named columns; where none are named, of the categories that the model takes in."""
    metric, inputs = limits["metric"], asked.opened.config.contract.inputs
    # A column with too many values to slice by is an error only where somebody named it.
    narrow = [
        field.name for field in inputs if field.dtype == "category" and len(field.categories) < MAX_SLICES
    ]
    names = limits["columns"] or narrow
    if not names:
        why = f"no input is a category of under {MAX_SLICES} values, and lockgate.toml names no columns to slice by"
        return (not_applicable("perf.slices", metric, why, subject=subject),)
    if champion is None or other is None:
        return (no_baseline(metric, gate="perf.slices", subject=subject),)

    def compare() -> Sequence[Evidence]:
        missing = [name for name in names if name not in asked.rows.column_names]
        if missing:
            raise MissingInput(
                f"the evaluation rows have no column {', '.join(missing)} to slice by",
                remedy=did_you_mean(missing[0], asked.rows.column_names),
            )
        return by_slice(
            metric,
            asked.label,
            asked.answers,
            other.answers,
            {name: asked.rows[name].to_pylist() for name in names},
            min_effect=limits["min_effect"],
            min_n=limits["min_n"],
            critical=limits["critical"],
            champion=champion.version,
            champion_digest=champion.package,
            subject=subject,
        )

    return _guarded("perf.slices", metric, subject, compare)


def _latency(asked: _Asked, limits: Mapping[str, Any], subject: Subject) -> Sequence[Evidence]:
    rows = asked.rows.select(list(asked.columns)).slice(0, _N_LATENCY_ROWS).to_pylist()
    return latency(
        asked.probe.latencies_us(rows, N_LATENCY_REQUESTS),
        limits["p99_us"],
        source="CPU time in process, one row",
        subject=subject,
    )
