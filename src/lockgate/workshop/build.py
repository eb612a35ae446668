"""The composition root of training: reads a project, plans, runs, packages, judges.

Long work happens here, in the client's process; what it amounts to is told to the hub in short commands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from lockgate.adapters.runners.artifacts import load
from lockgate.adapters.runners.builtin import load_definitions
from lockgate.adapters.runners.judging import Champion, CheckedDataset, Judge
from lockgate.adapters.runners.local import LocalRunner
from lockgate.adapters.runners.project import read_sources
from lockgate.adapters.sql.step_cache import SqliteStepCache
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, canonical, digest_of, sha256
from lockgate.core.errors import Invalid, NotFound
from lockgate.core.messages import Receipt, RefusedCommand
from lockgate.core.names import ModelName, parse_version
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.data.messages import RecordContractCheck, RecordSnapshot
from lockgate.delivery.standing import StandingAnswer
from lockgate.features.definition import Definitions
from lockgate.gates.evidence import Evidence, line_of
from lockgate.gates.features import ServedFeatures
from lockgate.gates.messages import RecordEvidence, StartJudging
from lockgate.gates.scans.security import is_too_old
from lockgate.governance.messages import ValidateVersion
from lockgate.hub.kernel import Hub
from lockgate.hub.messages import (
    ExplainVersion,
    ListVersions,
    PackageVersionAnswer,
    Standing,
    VersionAnswer,
    VersionLine,
    VersionOfPackage,
    VersionsAnswer,
)
from lockgate.pipeline.artifact import Artifact, RunRecord
from lockgate.pipeline.code.source import SourceTree
from lockgate.pipeline.execute import EVERY_STAGE, Progress, execute
from lockgate.pipeline.graph import Node, Stage
from lockgate.pipeline.messages import RecordRun
from lockgate.pipeline.plan import Plan, plan
from lockgate.pipeline.recipe import EVIDENCE_STEP, PACKAGE_STEP, Recipe, Sources, graph_of
from lockgate.registry.messages import CommitPerson, NameMakers, RegisterVersion
from lockgate.registry.packages.contract import OutputField
from lockgate.registry.packages.package import BuiltPackage, open_package
from lockgate.registry.packages.signing import package_facts, signature_envelope, store_signature
from lockgate.registry.sbom import sealed_bill
from lockgate.registry.state import VersionState, earlier
from lockgate.workshop.assembly import assemble_runner, environment_of
from lockgate.workshop.config import ModelTable
from lockgate.workshop.git import commit_of, people_of
from lockgate.workshop.premises import Premises
from lockgate.workshop.rebuild import require_inputs
from lockgate.workshop.served import served_features, views_online
from lockgate.workshop.unpacked import SideCache, rows_for

Observer = Callable[[Progress], None]

INTRINSIC = ("perf.absolute", "calibration", "model.parity", "security.deps", "dossier.complete")
"""Gates about a version alone that have limits of their own."""


class LockMissing(NotFound):
    code = "project.no-lock"


class FileMissing(NotFound):
    code = "project.file-missing"


class IncludeRefused(Invalid):
    """A pattern of `[artifact] include` reaches out of the project, into its store or for a key."""

    code = "project.include-refused"


class ContractViolated(Invalid):
    """A dataset breaks its data contract; nothing that depends on it was run."""

    code = "data.contract-violated"


class NothingToJudgeBy(NotFound):
    """An imported version brings no rows of its own."""

    code = "workshop.nothing-to-judge-by"


class Workshop:
    """Builds one model of one project. Reading the project happens once, on first use."""

    def __init__(self, premises: Premises, name: ModelName) -> None:
        self.premises = premises
        self.name = name
        self.root: Path = premises.layout.root
        self.table: ModelTable = premises.config.models[name.name]
        self._cache = SqliteStepCache(premises.layout.steps, str(name))

    @cached_property
    def sources(self) -> Sources:
        lock = self.root / self.table.environment
        if not lock.is_file():
            raise LockMissing(
                f"the environment lock {self.table.environment} is missing",
                remedy="write one with: uv pip compile --generate-hashes --no-emit-index-url pyproject.toml "
                f"-o {self.table.environment}",
                path=self.table.environment,
            )
        return Sources(
            code=SourceTree(_project_code(self.root)),
            contracts={
                table.contract: self._read(table.contract) for table in self.premises.config.datasets.values()
            },
            include=self._included(),
            lock=lock.read_bytes(),
            lockgate=VERSION_OF_LOCKGATE,
            advisories=self._advisories(),
        )

    def _advisories(self) -> bytes | None:
        """The file of advisories; the gate says so when it is not there."""
        table = self.premises.config.security
        path = None if table is None else self.root / table.advisories
        return path.read_bytes() if path is not None and path.is_file() else None

    def _read(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise FileMissing(
                f"{path} cannot be read: {error.strerror}", remedy="correct lockgate.toml", path=path
            ) from error

    def _included(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for pattern in self.table.artifact.include:
            if pattern.startswith("/") or ".." in pattern.split("/"):
                raise IncludeRefused(
                    f"[artifact] include {pattern!r} leaves the project",
                    remedy="copy the file into the project, and name it from there",
                    pattern=pattern,
                )
            matches = [self._includable(path) for path in sorted(self.root.glob(pattern)) if path.is_file()]
            if not matches:
                raise FileMissing(
                    f"[artifact] include {pattern!r} matches no file",
                    remedy="correct the pattern in lockgate.toml",
                    pattern=pattern,
                )
            found |= {path.relative_to(self.root).as_posix(): path.read_bytes() for path in matches}
        for name in self.table.dossier.values():
            self._read(name)
            found[name] = self._includable(self.root / name).read_bytes()
        return found

    def _includable(self, path: Path) -> Path:
        """A file that may travel: one of the project, and neither its store nor a key."""
        config, real = self.premises.config, path.resolve()
        references = (config.signing.key, config.audit.checkpoint_key)
        keys = [self.root / name.removeprefix("file:") for name in references if name.startswith("file:")]
        closed = [self.premises.layout.dot.resolve(), *(key.resolve() for key in keys)]
        if not real.is_relative_to(self.root.resolve()) or any(real.is_relative_to(one) for one in closed):
            shown = path.relative_to(self.root).as_posix()
            raise IncludeRefused(
                f"[artifact] include matches {shown}, which must not leave this machine in a package",
                remedy="narrow the pattern in lockgate.toml; stores, keys and files outside stay out",
                path=shown,
            )
        return path

    @cached_property
    def recipe(self) -> Recipe:
        table, datasets = self.table, self.premises.config.datasets
        return Recipe(
            model=str(self.name),
            datasets={
                name: {"source": one.source, "contract": one.contract} for name, one in datasets.items()
            },
            definitions=table.definitions,
            service=table.service,
            examples=table.steps.examples,
            train=table.steps.train,
            evaluation_set=table.steps.evaluation_set,
            label=table.label,
            output=msgspec.convert(msgspec.to_builtins(table.output), OutputField),
            params=dict(table.params),
            include=table.artifact.include,
            environment=table.environment,
            dossier=dict(table.dossier),
        )

    @cached_property
    def definitions(self) -> Definitions:
        return load_definitions(self.root, self.sources.code, self.table.definitions)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return graph_of(
            self.recipe,
            self.sources,
            self.definitions,
            {gate: self.limits[gate] for gate in INTRINSIC},
        )

    @property
    def limits(self) -> dict[str, Any]:
        """The gates' limits, by gate."""
        gates = self.table.gates
        return {
            "perf.absolute": [
                {"metric": gate.metric, "limit": gate.maximum if gate.minimum is None else gate.minimum}
                for gate in gates.absolutes
            ],
            "calibration": {"max_gap": gates.calibration.max_gap, "slope": list(gates.calibration.slope)},
            "perf.vs_champion": {"metric": gates.champion.metric, "margin": gates.champion.margin},
            "perf.slices": gates.slice_limits,
            "model.parity": {"tolerance": gates.parity.tolerance},
            "latency": {"p99_us": gates.latency.p99_us},
            "security.deps": self._security_limits(),
            "dossier.complete": {"tier": self.table.tier},
        }

    def _security_limits(self) -> dict[str, Any] | None:
        table, data = self.premises.config.security, self.sources.advisories
        if table is None:
            return None
        too_old = is_too_old(data, table.advisories, table.max_age_days, self.premises.clock.now())
        return {
            "advisories": table.advisories,
            "digest": None if data is None else sha256(data),
            "severity": table.severity,
            "older_than_days": table.max_age_days if too_old else None,
        }

    @property
    def environment(self) -> Digest:
        """What third-party code the steps run on: the lock and the Python that reads it."""
        return environment_of(self.sources.lock)

    def plan(self, force: Collection[str] = ()) -> Plan:
        return plan(self.nodes, self._cache, self.environment, force, available=self._available)

    def _available(self, artifact: Artifact) -> bool:
        return self.premises.blobs.has(artifact.digest)

    def run(
        self,
        hub: Hub,
        observer: Observer,
        *,
        stages: Collection[Stage] = EVERY_STAGE,
        force: Collection[str] = (),
        only_data: bool = False,
    ) -> RunRecord:
        """Bring data, contracts and then (unless `only_data`) everything else up to date.

        Raises:
            ContractViolated: a dataset breaks its contract; nothing later has run.
        """
        runner = self._runner()
        data = [node for node in self.nodes if node.kind in ("dataset", "contract")]
        names = {node.name for node in data}
        first = self._execute(data, runner, observer, stages, [name for name in force if name in names])
        self.record_data(hub, first)
        if only_data:
            return first
        return self._execute(self.nodes, runner, _quiet(observer, names), stages, _without(force, names))

    def _runner(self) -> LocalRunner:
        premises = self.premises
        return assemble_runner(
            self.root, premises.blobs, premises.tools, self.recipe, self.sources, self.definitions
        )

    def _execute(
        self,
        nodes: Collection[Node],
        runner: LocalRunner,
        observer: Observer,
        stages: Collection[Stage],
        force: Collection[str],
    ) -> RunRecord:
        return execute(
            nodes,
            self._cache,
            runner,
            self.environment,
            self.premises.clock,
            observer,
            stages,
            force,
            model=str(self.name),
            settings=runner.settings,
        )

    def record_data(self, hub: Hub, record: RunRecord) -> None:
        """Journal each snapshot and how it fared; stop at the first dataset that breaks its contract."""
        broken: list[CheckedDataset] = []
        for checked in self.checked(record):
            self.tell(
                hub,
                RecordSnapshot(
                    id=self.premises.ids.new(),
                    dataset=checked.dataset,
                    snapshot=checked.snapshot,
                    n_rows=checked.n_rows,
                    extracted_at=self.premises.clock.now(),
                    source=checked.source,
                    transformation=checked.transformation,
                    storage=f"blobs:{checked.snapshot}",
                ),
            )
            violations = _violations(checked)
            self.tell(
                hub,
                RecordContractCheck(
                    id=self.premises.ids.new(),
                    dataset=checked.dataset,
                    snapshot=checked.snapshot,
                    contract=checked.report.contract,
                    violations=violations,
                ),
            )
            if violations:
                broken.append(checked)
        if broken:
            raise _violated(broken)

    def checked(self, record: RunRecord) -> list[CheckedDataset]:
        """The checked datasets of a run, by name: those it had, whatever the project has by now."""
        steps = sorted(step.name.removesuffix(".contract") for step in record.steps if _is_check(step.name))
        digests = [record.output(f"{name}.contract").digest for name in steps]
        return [
            msgspec.json.decode(self.premises.blobs.get(digest), type=CheckedDataset) for digest in digests
        ]

    def tell(self, hub: Hub, command: Any) -> Any:
        """Execute a command; raises `RefusedCommand` when it is refused."""
        receipt = hub.execute(command)
        if receipt.refusal is not None:
            raise RefusedCommand(receipt.refusal)
        return receipt

    def register(
        self, hub: Hub, record: RunRecord, version: str | None = None, *, evidence: bool = True
    ) -> str:
        """Sign the run's package, enter it in the registry with its evidence; returns the full version name.

        A package that has a number keeps it. Evidence that it has already is not recorded again: nothing was judged
        anew, so its date stays.

        Args:
            evidence: false leaves it to somebody who may judge.
        """
        package = record.output(PACKAGE_STEP).digest
        self.premises.blobs.put(canonical(record))
        commit = commit_of(self.root)
        snapshots = {one.dataset: one.snapshot for one in self.checked(record)}
        self.tell(
            hub,
            RecordRun(
                id=self.premises.ids.new(),
                model=str(self.name),
                run=record.id,
                package=package,
                commit=commit.sha,
                dirty=commit.dirty,
                snapshots=snapshots,
            ),
        )
        answer = self._known(hub, package)
        known = answer.version
        if known is not None:
            self._name_makers(hub, answer, known)
        else:
            people, since = self._told(answer)
            self.tell(
                hub,
                RegisterVersion(
                    id=self.premises.ids.new(),
                    model=str(self.name),
                    package=package,
                    run=record.id,
                    signatures=(self._sign(package, run=record.id, commit=commit.sha, dirty=commit.dirty),),
                    version=version,
                    commit=commit.sha,
                    dirty=commit.dirty,
                    people=people,
                    told_since=since,
                ),
            )
            known = self.version_of(hub, package)
            assert known is not None
        self._attach(hub, known, package)
        if not evidence:
            return known
        lines = tuple(line_of(item) for item in self.evidence(record))
        if sorted(line.digest for line in lines) != self._recorded(hub, known):
            judging, began_at = self._judged_in(record)
            self.tell(
                hub,
                RecordEvidence(
                    id=self.premises.ids.new(),
                    version=known,
                    package=package,
                    lines=lines,
                    judging=judging,
                    began_at=began_at,
                ),
            )
        return known

    def _told(
        self, known: PackageVersionAnswer, upto: str = "HEAD"
    ) -> tuple[tuple[CommitPerson, ...], str | None]:
        """The people of the commits up to one, since the oldest version that is live where not everything may go.

        Not since the version that was registered last: what came in before that was never let in anywhere either.

        Returns:
            them, and the number of that version: empty when nothing is live, None when not all commits were there.
        """
        people = people_of(self.root, known.follows_commit, upto)
        since = known.follows.rpartition("@")[2] if known.follows_commit else ""
        return people.named, since if people.are_all else None

    def _name_makers(self, hub: Hub, known: PackageVersionAnswer, name: str) -> None:
        """Tell who made a version that is there, where less was told before."""
        answer: VersionAnswer = hub.ask(ExplainVersion(version=name))
        version = answer.version
        if not version.commit:
            return
        people, since = self._told(known, version.commit)
        news = {one.name for one in people} - {one.name for one in version.makers}
        if earlier(version.told_since, since) != version.told_since or (news and version.told_since is None):
            told = NameMakers(id=self.premises.ids.new(), version=name, people=people, told_since=since)
            self.tell(hub, told)

    def _judged_in(self, record: RunRecord) -> tuple[str, Micros | None]:
        """The run of the gates that a training's evidence comes from, however often it was taken from the cache since.

        Nothing and None when it is no longer remembered.
        """
        key = next(step.key for step in record.steps if step.name == EVIDENCE_STEP)
        remembered = self._cache.get(key)
        if remembered is None:
            return "", None
        finished_at = remembered.finished_at
        return digest_of([key, finished_at]), finished_at - remembered.took_ms * 1000

    def _attach(self, hub: Hub, version: str, package: Digest) -> None:
        known: VersionAnswer = hub.ask(ExplainVersion(version=version))
        store, signer = self.premises.blobs, self.premises.signer
        command = sealed_bill(self.premises.ids.new(), version, package, known.attestations, store, signer)
        if command is not None:
            self.tell(hub, command)

    def _recorded(self, hub: Hub, version: str) -> list[Digest]:
        """The digests of the evidence on a version alone, sorted."""
        known: VersionAnswer = hub.ask(ExplainVersion(version=version))
        return sorted(line.digest for line in known.evidence if not line.environment)

    def version_of(self, hub: Hub, package: Digest) -> str | None:
        return self._known(hub, package).version

    def _known(self, hub: Hub, package: Digest) -> PackageVersionAnswer:
        answer: PackageVersionAnswer = hub.ask(VersionOfPackage(model=str(self.name), package=package))
        return answer

    def registered(self, hub: Hub, planned: Plan) -> str | None:
        """The version that the planned steps made; None when they have yet to run, or nobody told the hub."""
        made = next((one for one in planned.steps if one.name == PACKAGE_STEP), None)
        if made is None or made.action == "run" or made.key is None:
            return None
        remembered = self._cache.get(made.key)
        return None if remembered is None else self.version_of(hub, remembered.output.digest)

    def evidence(self, record: RunRecord) -> list[Evidence]:
        data = self.premises.blobs.get(record.output(EVIDENCE_STEP).digest)
        return msgspec.json.decode(data, type=list[Evidence])

    def validate(self, hub: Hub, version: str) -> Receipt:
        """Ask for the version to be validated; returns the receipt, refusal and all."""
        return hub.execute(ValidateVersion(id=self.premises.ids.new(), version=version))

    def judge(self, hub: Hub, version: str, environment: str | None) -> list[Evidence]:
        """Make evidence on a registered version anew and record it.

        Args:
            environment: None for evidence on the version alone; else also against what runs there.
        """
        known: VersionAnswer = hub.ask(ExplainVersion(version=version))
        package = known.version.package
        # The version's own recipe: the project may have moved on since.
        trained = known.version if known.imported is None else self._newest_trained(hub, version)
        run = msgspec.json.decode(self.premises.blobs.get(trained.run), type=RunRecord)
        recipe = msgspec.convert(open_package(trained.package, self.premises.blobs).config.recipe, Recipe)
        artifact = run.output(recipe.evaluation_set.partition(":")[2])
        if not self.premises.blobs.has(artifact.digest):
            require_inputs(known)
        started = StartJudging(id=self.premises.ids.new(), version=version, environment=environment or "")
        self.tell(hub, started)
        evaluation: Any = load(artifact, self.premises.blobs)
        judge = Judge(self.premises.blobs, self.premises.tools().engines)
        baseline: str | None = None
        if environment is None:
            found = judge.intrinsic(
                package,
                evaluation,
                dataset=artifact.digest,
                checked=self.checked(run),
                limits=self.limits,
                advisories=self.sources.advisories,
            )
        else:
            standing: StandingAnswer = hub.ask(Standing(version=version, environment=environment))
            baseline = standing.baseline or ""
            found = judge.relative(
                package,
                evaluation,
                dataset=artifact.digest,
                environment=environment,
                champion=self._champion(standing, recipe, run, evaluation),
                limits=self.limits,
                served=self._served(environment),
            )
        self.tell(
            hub,
            RecordEvidence(
                id=self.premises.ids.new(),
                version=version,
                package=package,
                environment=environment or "",
                baseline=baseline,
                lines=tuple(line_of(item) for item in found),
                judging=started.id,
            ),
        )
        return found

    def _newest_trained(self, hub: Hub, imported: str) -> VersionState:
        """What an imported version is judged by: the rows of the newest one that was trained here."""
        lines: list[VersionLine] = []
        after: str | None = ""
        while after is not None:
            page: VersionsAnswer = hub.ask(ListVersions(model=str(self.name), after=after))
            lines += page.versions
            after = page.next
        for line in sorted(lines, key=lambda line: parse_version(line.version), reverse=True):
            known: VersionAnswer = hub.ask(ExplainVersion(version=line.version))
            if known.imported is None:
                return known.version
        raise NothingToJudgeBy(
            f"{imported} was imported, and no version of {self.name.shown} was trained here: "
            "there are no rows to judge it by",
            remedy="lockgate train: its evaluation set is what an imported version is judged on",
            version=imported,
        )

    def _served(self, environment: str) -> ServedFeatures:
        """The features there are now; also which of them can be read by key, where the endpoint reads them so."""
        endpoint = self.premises.config.endpoints.get(f"{environment}/{self.name.name}")
        by_key = endpoint is not None and endpoint.settings.features == "online"
        online = views_online(self.premises.layout.online) if by_key else None
        return served_features(self.recipe, self.sources, self.definitions, online)

    def _champion(
        self, standing: StandingAnswer, recipe: Recipe, run: RunRecord, evaluation: Any
    ) -> Champion | None:
        """What runs there now, with the features of its own definitions on the same rows."""
        if standing.baseline is None:
            return None
        side = SqliteStepCache(self.premises.layout.steps, f"judge:{self.name}")
        baseline = open_package(standing.baseline, self.premises.blobs)
        if baseline.config.imported:
            # It brought no definitions of features: it reads the columns of the rows as they are.
            return Champion(
                version=standing.baseline_version or "", package=standing.baseline, rows=evaluation
            )
        rows = rows_for(
            baseline,
            self.premises.blobs,
            self.premises.tools,
            SideCache(self._cache, side),
            self.premises.clock,
            tables={name: run.output(name) for name in recipe.datasets},
            rows=evaluation,
        )
        return Champion(version=standing.baseline_version or "", package=standing.baseline, rows=rows)

    def _sign(self, package: Digest, **facts: Any) -> Digest:
        manifest = self.premises.blobs.get(package)
        predicate = package_facts(manifest, self.premises.blobs, **facts)
        envelope = signature_envelope(
            package, self.premises.signer(), model=str(self.name), predicate=predicate
        )
        built = BuiltPackage(digest=package, manifest=manifest, blobs={})
        return store_signature(built.descriptor, envelope, self.premises.blobs).envelope


def _is_check(step: str) -> bool:
    return step.endswith(".contract")


def _project_code(root: Path) -> Mapping[str, bytes]:
    """The project's own code; its tests are not part of any model."""
    return {path: data for path, data in read_sources(str(root)).items() if not path.startswith("tests/")}


def _quiet(observer: Observer, names: Collection[str]) -> Observer:
    """Do not tell of the data steps a second time."""

    def tell(progress: Progress) -> None:
        if progress.name not in names:
            observer(progress)

    return tell


def _without(force: Collection[str], names: Collection[str]) -> list[str]:
    return [name for name in force if name not in names]


def _violations(checked: CheckedDataset) -> tuple[str, ...]:
    blocking = [check for check in checked.report.checks if check.verdict in ("fail", "error")]
    if not blocking:
        return ()
    told = tuple(
        violation.message for violation in checked.report.violations if violation.severity == "error"
    )
    return told or tuple(check.message for check in blocking)


def _violated(broken: list[CheckedDataset]) -> ContractViolated:
    lines = []
    for checked in broken:
        for violation in checked.report.violations:
            where = f"{checked.dataset}.{violation.column}" if violation.column else checked.dataset
            lines.append(f"{where}: {violation.rule}: {violation.message}")
            lines += [f"    example row: {row}" for row in violation.examples]
        lines += [
            f"{checked.dataset}: {check.rule}: {check.message}"
            for check in checked.report.checks
            if check.verdict == "error" and not checked.report.violations
        ]
    return ContractViolated(
        f"{'1 dataset breaks its contract' if len(broken) == 1 else f'{len(broken)} datasets break their contracts'}\n"
        + "\n".join(lines),
        remedy="correct the source, or change the contract with its owner; then run it again",
        datasets=[checked.dataset for checked in broken],
        violations=[msgspec.to_builtins(item) for checked in broken for item in checked.report.violations],
    )
