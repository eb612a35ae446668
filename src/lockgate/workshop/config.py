"""`lockgate.toml`: the reviewed half of a project, read strictly.

The other half, the code, is never imported to answer a question about the configuration. Every complaint names
the line and the key; an unknown key gets its near matches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from lockgate.core.errors import Invalid, NotFound, did_you_mean
from lockgate.core.names import ModelName, check_part
from lockgate.core.secrets import parse_secret_ref
from lockgate.core.toml_lines import Misfit, line_of, read_toml
from lockgate.delivery.rollouts.policy import (
    EndpointSettings,
    Guard,
    GuardName,
    RolloutPolicy,
    RolloutStep,
    Stage,
    complaints,
)
from lockgate.gates.scans.dossier import SECTIONS
from lockgate.governance.policies.policy import Sensitivity
from lockgate.hub.telling.subscriptions import address_reasons
from lockgate.registry.messages import Tier
from lockgate.traffic.capture import CaptureMode
from lockgate.traffic.plan import N_SLOTS, Fallback

FILE = "lockgate.toml"
#: What an environment may run on.
TARGETS = ("local",)


class ConfigInvalid(Invalid):
    code = "project.config-invalid"


class NoProject(NotFound):
    code = "project.not-found"


class UnknownModel(NotFound):
    code = "project.unknown-model"


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ProjectTable(_Table, frozen=True, kw_only=True):
    name: str
    namespace: str = "main"


class SigningTable(_Table, frozen=True, kw_only=True):
    """Where the package signing key is: a secret reference, `file:` or `env:`, or `exec:COMMAND`, which signs."""

    key: str = "file:.lockgate/keys/signing.pem"


class AuditTable(_Table, frozen=True, kw_only=True):
    """The key that signs checkpoints, and where they go: a file, an object store, or several of these; all outside the
    database. `earlier_keys` are verifier keys (`lockgate audit key`), or PEM files, that signed checkpoints before.
    """

    checkpoint_key: str = "file:.lockgate/keys/checkpoint.pem"
    sink: str | tuple[str, ...] = "file:.lockgate/checkpoints"
    earlier_keys: tuple[str, ...] = ()

    @property
    def sinks(self) -> tuple[str, ...]:
        return (self.sink,) if isinstance(self.sink, str) else self.sink


class RetentionTable(_Table, frozen=True, kw_only=True):
    """For how many days bytes are kept at least: of versions that were rejected or retired, by tier, from then on; of
    anything that no version, run or document needs, from when it was last put. And for how many at most `captures` of
    traffic are kept once the plan under which they were made is over.
    """

    low: int = 180
    moderate: int = 365
    high: int = 3650
    critical: int = 3650
    unneeded: int = 30
    captures: int = 30

    def __post_init__(self) -> None:
        terms = (self.low, self.moderate, self.high, self.critical, self.captures)
        if min(terms) < 0 or self.unneeded < 1:
            raise ValueError("terms are days, not negative; what nobody needs is kept a day at least")

    @property
    def terms(self) -> dict[str, int]:
        return {tier: getattr(self, tier) for tier in ("low", "moderate", "high", "critical")}


class WebhooksTable(_Table, frozen=True, kw_only=True):
    """Networks that subscriptions may lead to beside the public ones: `127.0.0.0/8`, `10.1.0.0/16`."""

    networks: tuple[str, ...] = ()


class TrackerTable(_Table, frozen=True, kw_only=True):
    """Who knows the tickets that promotions name, and references to its address, where that is secret, and key."""

    url: str
    secret: str


def tracker_complaint(tracker: TrackerTable) -> tuple[str, str, str] | None:
    """Key, what is wrong with it, what to write instead.

    Raises:
        NotAReference: the key itself stands there.
    """
    for reason in address_reasons(tracker.url):
        return "url", reason.message, reason.remedy or ""
    parse_secret_ref(tracker.secret, where="tracker.secret")
    return None


class EnvironmentTable(_Table, frozen=True, kw_only=True):
    order: int
    trust: tuple[str, ...]
    sensitivity: Sensitivity = "guarded"
    target: str = "local"


class DatasetTable(_Table, frozen=True, kw_only=True):
    source: str
    contract: str


class StepsTable(_Table, frozen=True, kw_only=True):
    """Names of the project's functions, `package.module:function`."""

    examples: str
    train: str
    evaluation_set: str


class OutputTable(_Table, frozen=True, kw_only=True):
    """What the model answers; `name` is how an answer is called."""

    name: str
    kind: Literal["probability", "value"] = "probability"
    minimum: float | None = None
    maximum: float | None = None


class AbsoluteGate(_Table, frozen=True, kw_only=True):
    """A floor (`minimum`) for a metric that grows with quality, a ceiling (`maximum`) for a loss."""

    metric: str
    minimum: float | None = None
    maximum: float | None = None


class ChampionGate(_Table, frozen=True, kw_only=True):
    metric: str = "auc"
    margin: float = 0.005


class ParityGate(_Table, frozen=True, kw_only=True):
    tolerance: float = 1e-6


class LatencyGate(_Table, frozen=True, kw_only=True):
    p99_us: float = 5000.0


class CalibrationGate(_Table, frozen=True, kw_only=True):
    """How far the mean prediction may be off the share of events, and the range of the recalibration slope."""

    max_gap: float = 0.05
    slope: tuple[float, float] = (0.7, 1.4)


class SlicesGate(_Table, frozen=True, kw_only=True):
    """For which parts of the rows it may not be worse than the champion, and by how much.

    Attributes:
        columns: of the evaluation set; each value is a slice. None: the categories that the model takes in.
        metric: None: that of `perf.vs_champion`.
        min_effect: a drop up to this is no failure. None: four times the margin of `perf.vs_champion`.
        min_n: fewest rows of a slice that is judged.
        critical: slices that have to pass, `COLUMN=VALUE`.
    """

    columns: tuple[str, ...] | None = None
    metric: str | None = None
    min_effect: float | None = None
    min_n: int = 200
    critical: tuple[str, ...] = ()


class GatesTable(_Table, frozen=True, kw_only=True):
    """The limits of the gates; the keys are the gates' own names."""

    absolute: AbsoluteGate | tuple[AbsoluteGate, ...] = msgspec.field(name="perf.absolute")
    champion: ChampionGate = msgspec.field(name="perf.vs_champion", default=ChampionGate())
    slices: SlicesGate = msgspec.field(name="perf.slices", default=SlicesGate())
    calibration: CalibrationGate = CalibrationGate()
    parity: ParityGate = msgspec.field(name="model.parity", default=ParityGate())
    latency: LatencyGate = LatencyGate()

    @property
    def absolutes(self) -> tuple[AbsoluteGate, ...]:
        return (self.absolute,) if isinstance(self.absolute, AbsoluteGate) else self.absolute

    @property
    def slice_limits(self) -> dict[str, Any]:
        """The limits of `perf.slices`, with what was left out taken from `perf.vs_champion`."""
        gate, champion = self.slices, self.champion
        return {
            "columns": list(gate.columns or ()),
            "metric": champion.metric if gate.metric is None else gate.metric,
            "min_effect": 4 * champion.margin if gate.min_effect is None else gate.min_effect,
            "min_n": gate.min_n,
            "critical": list(gate.critical),
        }


class ArtifactTable(_Table, frozen=True, kw_only=True):
    """Further files that belong to the artifact: prompts, infrastructure, evaluation code."""

    include: tuple[str, ...] = ()


class SecurityTable(_Table, frozen=True, kw_only=True):
    """Where known holes of third-party code are looked up, and from which severity on one is refused.

    Attributes:
        advisories: a file in the OSV format, JSON or zip.
        max_age_days: how old its newest record may be; None for any age.
    """

    advisories: str
    severity: Literal["low", "moderate", "high", "critical"] = "high"
    max_age_days: int | None = None


class ModelTable(_Table, frozen=True, kw_only=True):
    """A model. `kpi` names the figure of the business that it is to move; such a model asks more people."""

    tier: Tier
    owner: str
    purpose: str
    service: str
    definitions: str
    label: str
    output: OutputTable
    steps: StepsTable
    gates: GatesTable
    kpi: str = ""
    params: dict[str, bool | int | float | str] = {}
    environment: str = "requirements.lock"
    artifact: ArtifactTable = ArtifactTable()
    dossier: dict[str, str] = {}


class StepTable(_Table, frozen=True, kw_only=True):
    """One step of a rollout. `weight` is the share of the traffic: 0 is a shadow, 1 a soak, between them a canary."""

    weight: float
    min_units: int
    bake_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or 0 < self.weight < 1 / N_SLOTS:
            raise ValueError(f"weight {self.weight} is no share of the traffic: write 0.05 for 5 %, 0 or 1")

    @property
    def step(self) -> RolloutStep:
        slots = N_SLOTS if self.weight == 1 else min(round(self.weight * N_SLOTS), N_SLOTS - 1)
        stage: Stage = "shadow" if slots <= 0 else "soak" if slots >= N_SLOTS else "canary"
        return RolloutStep(stage=stage, weight=slots, min_units=self.min_units, bake_s=self.bake_s)


class GuardTable(_Table, frozen=True, kw_only=True):
    """A guard's limits (see `delivery.rollout.Guard`); a margin of 0 asks for no proof, the guard only aborts."""

    floor: float = 0.1
    margin: float = 0.25
    absolute: float = 0.001
    min_events: int = 20

    def guard(self, bound: float = 0.0) -> Guard:
        return Guard(
            floor=self.floor,
            margin=self.margin or None,
            absolute=self.absolute,
            min_events=self.min_events,
            bound=bound,
        )


class LatencyGuardTable(GuardTable, frozen=True, kw_only=True):
    """An answer is slow above `over_ms`."""

    over_ms: float


class LabelsGuardTable(GuardTable, frozen=True, kw_only=True):
    """An answer was wrong when it lies further than `wrong_above` from what turned out true."""

    wrong_above: float


class RolloutTable(_Table, frozen=True, kw_only=True):
    """How releases that follow another one get to the traffic."""

    steps: tuple[StepTable, ...]
    errors: GuardTable = GuardTable()
    latency: LatencyGuardTable | None = None
    labels: LabelsGuardTable | None = None
    alpha: float = 0.05

    @property
    def policy(self) -> RolloutPolicy:
        guards: dict[GuardName, Guard] = {"errors": self.errors.guard()}
        if self.latency is not None:
            guards["latency"] = self.latency.guard(self.latency.over_ms * 1000)
        if self.labels is not None:
            guards["labels"] = self.labels.guard(self.labels.wrong_above)
        return RolloutPolicy(steps=tuple(one.step for one in self.steps), guards=guards, alpha=self.alpha)


class EndpointTable(_Table, frozen=True, kw_only=True):
    fallback: Fallback = Fallback()
    consumers: tuple[str, ...] = ()
    dashboards: tuple[str, ...] = ()
    features: Literal["request", "online"] = "request"
    capture: CaptureMode = "off"
    rollout: RolloutTable | None = None

    @property
    def settings(self) -> EndpointSettings:
        policy = None if self.rollout is None else self.rollout.policy
        return EndpointSettings(features=self.features, capture=self.capture, rollout=policy)


class Config(_Table, frozen=True, kw_only=True):
    """The whole file."""

    schema: int
    project: ProjectTable
    environments: dict[str, EnvironmentTable]
    datasets: dict[str, DatasetTable]
    models: dict[str, ModelTable]
    endpoints: dict[str, EndpointTable] = {}
    signing: SigningTable = SigningTable()
    audit: AuditTable = AuditTable()
    webhooks: WebhooksTable = WebhooksTable()
    tracker: TrackerTable | None = None
    security: SecurityTable | None = None
    retention: RetentionTable = RetentionTable()

    def model_name(self, name: str) -> ModelName:
        """The full name of one of the project's models. Raises `UnknownModel` with near matches."""
        bare = name.removeprefix(self.project.namespace + "/")
        if bare not in self.models:
            raise UnknownModel(
                f"the project has no model {name!r}", remedy=did_you_mean(bare, self.models), model=name
            )
        return ModelName(self.project.namespace, bare)

    def only_model(self) -> str:
        """The project's model when it has one only; otherwise the caller must choose."""
        if len(self.models) != 1:
            raise ConfigInvalid(
                f"the project has {len(self.models)} models", remedy="name one: " + ", ".join(self.models)
            )
        return next(iter(self.models))


def find_project(start: Path) -> Path:
    """The nearest folder at or above `start` that holds a lockgate.toml."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise NoProject(
        f"there is no {FILE} in {start} or above it",
        remedy="go to the project's folder, or name it: --project DIR; a team's hub: --hub URL; a new project: "
        "lockgate init NAME",
        folder=str(start),
    )


def decode_config(data: bytes, *, where: str = FILE) -> str:
    """The file's text. Raises `ConfigInvalid`, with the line, when it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid(
            f"{where}:{line}: not UTF-8",
            remedy=f"save {where} as UTF-8; see line {line}",
            file=where,
            line=line,
        ) from error


def parse_config(text: str, *, where: str = FILE) -> Config:
    """Read and check the file.

    Raises:
        ConfigInvalid: not TOML, an unknown or missing key, a wrong type or name; names line and key.
    """
    try:
        config = read_toml(text, Config)
    except Misfit as error:
        raise ConfigInvalid(
            error.said(where),
            remedy=f"{error.remedy} of {where}" if error.remedy.startswith("correct line") else error.remedy,
            file=where,
            line=error.line,
            key=error.key,
        ) from error
    _check_names(config, text, where)
    return config


def _check_names(config: Config, text: str, where: str) -> None:
    if config.schema != 1:
        raise ConfigInvalid(
            f"{where}:{line_of(text, ['schema'])}: schema {config.schema} is not known",
            remedy="write schema = 1, or upgrade Lockgate",
            file=where,
            key="schema",
        )
    check_part(config.project.namespace, what="namespace")
    for kind, table in (
        ("environment", config.environments),
        ("dataset", config.datasets),
        ("model", config.models),
    ):
        for name in table:
            check_part(name, what=kind)
    for name in config.endpoints:
        environment, _, model = name.partition("/")
        for part, known in ((environment, config.environments), (model, config.models)):
            if part not in known:
                raise ConfigInvalid(
                    f"{where}:{line_of(text, ['endpoints', name])}: endpoint {name!r} names {part!r}, "
                    "which is not declared",
                    remedy=did_you_mean(part, known),
                    file=where,
                    key=f"endpoints.{name}",
                )
    for keys, reference in (
        (["signing", "key"], config.signing.key),
        (["audit", "checkpoint_key"], config.audit.checkpoint_key),
    ):
        if keys[0] == "audit" or not reference.startswith("exec:"):
            parse_secret_ref(reference, where=f"{where}:{line_of(text, keys)}: {'.'.join(keys)}")
    _check_values(config, text, where)
    for name, endpoint in config.endpoints.items():
        policy = endpoint.settings.rollout
        wrong = () if policy is None else complaints(policy)
        if wrong:
            keys = ["endpoints", name, "rollout"]
            raise _at(keys, "; ".join(wrong), "correct the steps and guards", text=text, where=where)
    for name, environment_table in config.environments.items():
        if environment_table.target not in TARGETS:
            keys = ["environments", name, "target"]
            target = environment_table.target
            raise _at(
                keys, f"there is no target {target!r}", did_you_mean(target, TARGETS), text=text, where=where
            )
    for sink in config.audit.sinks:
        if not sink.startswith(("file:", "s3://")):
            kind = sink.partition(":")[0]
            complaint = f"checkpoints cannot be kept in {kind!r}"
            remedy = "write file:PATH or s3://BUCKET/PREFIX?endpoint=URL"
            raise _at(["audit", "sink"], complaint, remedy, text=text, where=where)
        for name, reference in parse_qsl(urlsplit(sink).query):
            if name in ("access_key", "secret_key", "session_token"):
                parse_secret_ref(
                    reference, where=f"{where}:{line_of(text, ['audit', 'sink'])}: {name} of audit.sink"
                )
    if not config.audit.sinks:
        raise _at(["audit", "sink"], "no place for checkpoints", "write file:PATH", text=text, where=where)


def _check_values(config: Config, text: str, where: str) -> None:
    wrong = None if config.tracker is None else tracker_complaint(config.tracker)
    if wrong is not None:
        raise _at(["tracker", wrong[0]], wrong[1], wrong[2], text=text, where=where)
    for name, endpoint in config.endpoints.items():
        output = config.models[name.partition("/")[2]].output
        for complaint, remedy in _fallback_complaints(endpoint.fallback, output):
            raise _at(["endpoints", name, "fallback"], complaint, remedy, text=text, where=where)
    for name, model in config.models.items():
        for gate, complaint, remedy in _gate_complaints(model.gates):
            raise _at(["models", name, "gates", gate], complaint, remedy, text=text, where=where)
        for section in model.dossier:
            if section not in SECTIONS:
                complaint = f"a dossier has no section {section!r} that people write"
                keys = ["models", name, "dossier", section]
                raise _at(keys, complaint, did_you_mean(section, SECTIONS), text=text, where=where)
    if config.security is not None and (config.security.max_age_days or 1) < 1:
        raise _at(
            ["security", "max_age_days"], "an age is a day at least", "write 30", text=text, where=where
        )


def _fallback_complaints(fallback: Fallback, output: OutputTable) -> Iterator[tuple[str, str]]:
    """What is wrong with a fallback of a model that answers `output`, what to write instead."""
    if fallback.kind == "none":
        if fallback.value is not None:
            yield (
                "kind none answers nothing, and here is a value",
                'write kind = "constant", or leave the value out',
            )
        return
    if fallback.value is None:
        yield "a constant needs its value", 'write { kind = "constant", value = ... }'
        return
    low, high = output.minimum, output.maximum
    if output.kind == "probability":
        low, high = max(low or 0.0, 0.0), 1.0 if high is None else min(high, 1.0)
    if (low is not None and fallback.value < low) or (high is not None and fallback.value > high):
        yield (
            f"{fallback.value:g} is no answer of the model, whose {output.name!r} goes from {low} to {high}",
            "write a value that the model could give",
        )


def _gate_complaints(gates: GatesTable) -> Iterator[tuple[str, str, str]]:
    """Gate, what is wrong with its limits, what to write instead."""
    for gate in gates.absolutes:
        if (gate.minimum is None) == (gate.maximum is None):
            yield (
                "perf.absolute",
                f"{gate.metric} needs exactly one of minimum and maximum",
                "write minimum for a score, maximum for a loss",
            )
    low, high = gates.calibration.slope
    if not (0 <= low < 1 < high and math.isfinite(high)):
        yield "calibration", f"slope [{low:g}, {high:g}] does not hold 1", "write slope = [0.8, 1.25]"
    if not 0 <= gates.calibration.max_gap <= 1:
        gap = gates.calibration.max_gap
        yield "calibration", f"max_gap {gap:g} is no difference of two shares", "write max_gap = 0.05"
    yield from _slice_complaints(gates.slices)


def _slice_complaints(gate: SlicesGate) -> Iterator[tuple[str, str, str]]:
    if gate.columns == ():
        yield (
            "perf.slices",
            "columns is empty",
            "name a column, or leave columns out to slice by the categories that the model takes in",
        )
    if gate.min_effect is not None and not (gate.min_effect >= 0 and math.isfinite(gate.min_effect)):
        yield "perf.slices", f"min_effect {gate.min_effect:g} is no tolerance", "write 0 or more"
    if gate.min_n < 2:
        yield "perf.slices", f"min_n {gate.min_n} judges single rows", "write min_n = 200"
    for one in gate.critical:
        column, equals, _ = one.partition("=")
        if not equals:
            yield "perf.slices", f"critical slice {one!r} is not COLUMN=VALUE", 'write "origin=JFK"'
        if gate.columns is None:
            yield (
                "perf.slices",
                f"{one!r} is critical and no columns are named",
                f'write columns = ["{column}"]',
            )
        elif column not in gate.columns:
            complaint = f"critical slice {one!r} is of no column in columns"
            yield "perf.slices", complaint, did_you_mean(column, gate.columns)


def _at(keys: list[str], complaint: str, remedy: str, *, text: str, where: str) -> ConfigInvalid:
    line, key = line_of(text, keys), ".".join(keys)
    return ConfigInvalid(f"{where}:{line}: {key}: {complaint}", remedy=remedy, file=where, line=line, key=key)
