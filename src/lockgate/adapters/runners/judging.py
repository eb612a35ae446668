"""Judging a package: its model is loaded and asked, and the gates make evidence of the answers.

*Intrinsic* evidence is about the package alone. *Relative* evidence is about the package and what runs where it
wants to go: the same rows through both, in one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lockgate.adapters.runners.probe import PackageProbe
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, canonical
from lockgate.data.contract import ContractReport
from lockgate.gates.contract import data_contract
from lockgate.gates.evidence import Evidence, MissingInput, Subject, guarded
from lockgate.gates.latency import latency
from lockgate.gates.parity import golden_rows, runtime_parity
from lockgate.gates.performance import absolute, against_champion, no_baseline
from lockgate.registry.package import GOLDEN_PATH, Package, decode_golden, open_package
from lockgate.registry.ports import Engine

N_LATENCY_REQUESTS = 2000
_N_BASES = 8


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
    ) -> list[Evidence]:
        """Contracts kept, good enough, both runtimes agree, golden rows repeated.

        Args:
            evaluation: the rows to judge by, with the label; `dataset` is their digest.
            limits: by gate, as the project file sets them.
        """
        opened = open_package(package, self._blobs)
        subject = Subject(inputs={"package": package, "dataset": dataset})
        found = [
            data_contract(one.report, subject=Subject(inputs={"package": package, "snapshot": one.snapshot}))
            for one in checked
        ]
        serving, native = (self._probe(opened, form) for form in range(2))
        columns = _columns(opened, evaluation)
        answers, happened = serving.predict_columns(columns), _label(opened, evaluation)
        found += [
            absolute(gate["metric"], happened, answers, gate["limit"], subject=subject)
            for gate in limits["perf.absolute"]
        ]
        found += runtime_parity(
            serving,
            native,
            columns=columns,
            inputs=opened.config.contract.inputs,
            bases=evaluation.select(list(columns)).slice(0, _N_BASES).to_pylist(),
            tolerance=limits["model.parity"]["tolerance"],
            subject=subject,
        )
        golden = decode_golden(opened.read(GOLDEN_PATH, self._blobs), package)
        found.append(
            golden_rows(
                serving,
                golden.rows,
                np.array(golden.predictions),
                tolerance=golden.tolerance,
                package=package,
                subject=subject,
            )
        )
        return self._kept(found)

    def relative(
        self,
        package: Digest,
        evaluation: pa.Table,
        *,
        dataset: Digest,
        environment: str,
        champion: Champion | None,
        limits: Mapping[str, Any],
    ) -> list[Evidence]:
        """Not worse than what runs in `environment`, and fast enough in the serving runtime."""
        opened = open_package(package, self._blobs)
        subject = Subject(inputs={"package": package, "dataset": dataset}, environment=environment)
        serving = self._probe(opened)
        other = None if champion is None else open_package(champion.package, self._blobs)
        rows = evaluation.select(list(_columns(opened, evaluation))).slice(0, 256).to_pylist()
        found = [self._against(opened, serving, evaluation, champion, other, limits, subject)]
        found += latency(
            serving.latencies_us(rows, N_LATENCY_REQUESTS),
            limits["latency"]["p99_us"],
            source="CPU time in process, one row",
            subject=subject,
        )
        return self._kept(found)

    def _against(
        self,
        opened: Package,
        serving: PackageProbe,
        evaluation: pa.Table,
        champion: Champion | None,
        other: Package | None,
        limits: Mapping[str, Any],
        subject: Subject,
    ) -> Evidence:
        metric, margin = limits["perf.vs_champion"]["metric"], limits["perf.vs_champion"]["margin"]
        if champion is None or other is None:
            return no_baseline(metric, subject=subject)

        def compare() -> Evidence:
            return against_champion(
                metric,
                _label(opened, evaluation),
                serving.predict_columns(_columns(opened, evaluation)),
                self._probe(other).predict_columns(_columns(other, champion.rows)),
                margin,
                champion=champion.version,
                champion_digest=champion.package,
                subject=subject,
            )

        return guarded("perf.vs_champion", metric, compare, subject=subject)

    def _probe(self, opened: Package, form: int = 0) -> PackageProbe:
        chosen = opened.config.forms[form]
        model = opened.read(chosen.path, self._blobs)
        return PackageProbe(self._engines[chosen.format], model, opened.config.contract)

    def _kept(self, found: list[Evidence]) -> list[Evidence]:
        for item in found:
            self._blobs.put(canonical(item))
        return found


def _columns(opened: Package, evaluation: pa.Table) -> dict[str, pa.ChunkedArray[Any]]:
    names = [field.name for field in opened.config.contract.inputs]
    missing = [name for name in names if name not in evaluation.column_names]
    if missing:
        raise MissingInput(
            f"the evaluation rows lack {', '.join(missing)}, which {opened.config.service} reads",
            remedy="keep the inputs of the live version in the evaluation set until it is replaced",
        )
    return {name: evaluation[name] for name in names}


def _label(opened: Package, evaluation: pa.Table) -> npt.NDArray[np.float64]:
    column = evaluation[opened.config.recipe["label"]]
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
